# SPDX-License-Identifier: Apache-2.0
"""Folders of spectrogram images with label images as training data, like the MathWorks LTE/NR example's.

Layout: ``images/NAME.png`` and ``labels/NAME.png`` for every NAME, with subfolders or without; or the same two folders
within ``train``, ``validation`` and ``test``. Columns are frequency, ascending; rows are time. A label image has one
channel, whose values ``[images.classes]`` of the recipe explains. That example keeps its labels in HDF4 files, which
few libraries read: save them as PNG first, for example with MATLAB's ``hdfread`` and ``imwrite``.

What such images cannot say: their colours are scaled from the weakest pixel of each image to its strongest, so decibels
are a guess (``span_db``), and pixels that were picked instead of averaged are far rougher than the runtime's. Levels
over the noise floor are made of them as well as can be, by :mod:`rfvit_rt.spectrogram`; but a model that has seen
nothing else is not at home in the runtime's pictures. Recordings of the same scenes are always the better data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from rfvit_rt.errors import RecordingError
from rfvit_rt.spectrogram import bin_width_feature, noise_floor, picture
from training.config import Images
from training.datasets import IGNORED, WindowWriter

PICTURES, LABELS = "images", "labels"
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, section 2.5.1


def has_images(folder: Path) -> bool:
    """Whether a folder is laid out as pairs of images."""
    return any((place / PICTURES).is_dir() and (place / LABELS).is_dir() for place in (folder, folder / "train"))


def find_pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Every spectrogram image with its label image, by name.

    Returns
    -------
    dict of str to (Path, Path)
        By path within the folder, less ``images``, in order.

    Raises
    ------
    RecordingError
        If an image has no labels, or labels have no image: half a data set is not read in silence.
    """
    found: dict[str, dict[str, Path]] = {PICTURES: {}, LABELS: {}}
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        for kind in (PICTURES, LABELS):
            if kind in parts[:2]:
                place = parts.index(kind)
                found[kind]["/".join(parts[:place] + parts[place + 1 :])] = path
    lonely = sorted(found[PICTURES].keys() ^ found[LABELS].keys())
    if lonely:
        raise RecordingError(
            f"{len(lonely)} images below {folder} have no partner, {lonely[0]} among them; every {PICTURES}/NAME.png "
            f"needs a {LABELS}/NAME.png"
        )
    if not found[PICTURES]:
        raise RecordingError(f"there is no PNG in {folder / PICTURES}; see 'Layout' in training/images.py")
    return {name: (path, found[LABELS][name]) for name, path in found[PICTURES].items()}


def write_pair(writer: WindowWriter, pair: tuple[Path, Path], number: int, images: Images) -> None:
    """Append an image as a window.

    Raises
    ------
    RecordingError
        If a file is no image, the two differ in size, or their size and the window's do not divide.
    """
    spec = writer.spec
    colours, values = _read(pair[0], palette=False), _read(pair[1], palette=True)
    if values.ndim != 2:
        raise RecordingError(f"{pair[1]} has {values.shape[2]} channels; a label image has one value a pixel")
    if colours.shape[:2] != values.shape:
        raise RecordingError(f"{pair[0]} has {colours.shape[:2]} pixels, its labels have {values.shape}")
    level, mask = levels(colours, images.colours), _mask(values, images)
    if images.time_upwards:
        level, mask = level[::-1], mask[::-1]
    shape = (spec.n_steps, spec.n_bins)
    level, mask = (_resize(array, shape, pair[0]) for array in (level, mask))
    energy = 10 ** (level * np.float32(images.span_db / 10))
    # The rate at which the runtime would average as many spectra in a step: it decides how far noise scatters.
    scatter_rate = images.spectra * (spec.n_bins // 2) / spec.time_step
    image = picture(energy, noise_floor(energy, scatter_rate, spec), spec)
    writer.append(image, mask, bin_width_feature(images.sample_rate, spec), np.nan, number)


def levels(colours: NDArray[np.uint8], scale: str) -> NDArray[np.float32]:
    """Level of every pixel, 0 to 1 over the image: (row, column) float32.

    Parameters
    ----------
    colours : (row, column) or (row, column, channel) uint8
    scale : str
        As ``colours`` of :class:`training.config.Images`.
    """
    level: NDArray[np.float32]
    if colours.ndim == 2:
        level = colours.astype(np.float32)
    elif scale == "luminance":
        # Colour maps made for reading grow brighter from end to end, so this keeps the order, if not the steps.
        level = np.asarray(colours[..., :3] @ _LUMINANCE, np.float32)
    else:
        table = _table(scale)
        _, nearest = cKDTree(table).query(colours[..., :3] / 255)
        level = np.asarray(nearest, np.float32)
    low, high = float(level.min()), float(level.max())
    return (level - np.float32(low)) / np.float32(max(high - low, 1e-9))


def _table(scale: str) -> NDArray[np.float64]:
    """Colours from the lowest level to the highest: (level, 3), 0 to 1."""
    if scale in matplotlib.colormaps:
        return np.asarray(matplotlib.colormaps[scale](np.linspace(0, 1, 256)))[:, :3]
    try:
        table = np.loadtxt(scale, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"[images] colours is '{scale}': neither luminance, nor a colour map of matplotlib, nor a CSV file: {error}"
        ) from error
    if table.shape[1:] != (3,) or len(table) < 2 or table.min() < 0 or table.max() > 1:
        raise RecordingError(f"{scale} must have rows of red, green and blue, each 0 to 1")
    return table


def _mask(values: NDArray[np.uint8], images: Images) -> NDArray[np.uint8]:
    mask = np.full(values.shape, IGNORED, np.uint8)
    for label, value in enumerate(images.classes.values()):
        mask[values == value] = label
    return mask


def _resize(array: NDArray[Any], shape: tuple[int, int], path: Path) -> NDArray[Any]:
    """Repeat or pick pixels; labels must never be blended, and levels are kept in step with them."""
    for axis, wanted in enumerate(shape):
        if wanted % array.shape[axis] and array.shape[axis] % wanted:
            raise RecordingError(
                f"{path} has {array.shape[0]} x {array.shape[1]} pixels; the model takes {shape[0]} x {shape[1]}, and "
                "one must be a multiple of the other"
            )
        places = (np.arange(wanted) * array.shape[axis]) // wanted
        array = array.take(places, axis)
    return array


def _read(path: Path, *, palette: bool) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "RGB", "RGBA"):
                raise RecordingError(f"{path} is an image of mode {image.mode}; 8 bits a channel are expected")
            # Places in a palette are in any order: a label's value may be one, a level is not.
            return np.array(image if palette or image.mode != "P" else image.convert("RGB"))
    except OSError as error:
        raise RecordingError(f"cannot read the image {path}: {error}") from error
