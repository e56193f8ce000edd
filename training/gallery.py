# SPDX-License-Identifier: Apache-2.0
"""Pictures of labelled windows, for a person to see whether labels lie on signals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rfvit_rt.sinks.image import COLOURS
from rfvit_rt.spectrogram import SpectrogramSpec
from training.datasets import UNNAMED

_COLUMNS = 4
_UNLABELLED = (1.0, 1.0, 1.0, 0.5)


class Labelled(Protocol):
    """A model input and its mask, both (step, bin)."""

    @property
    def picture(self) -> NDArray[np.float16]: ...  # noqa: D102
    @property
    def mask(self) -> NDArray[np.uint8]: ...  # noqa: D102


def draw(
    path: Path, windows: Sequence[Labelled], titles: Sequence[str], labels: tuple[str, ...], spec: SpectrogramSpec
) -> None:
    """Draw every window twice: as a model sees it, and with its mask over it.

    Parameters
    ----------
    path : Path
        Of the image; what is there is replaced.
    windows : sequence of Labelled
    titles : sequence of str
        One a window.
    labels : tuple of str
        What mask values stand for; the first, the background, has no colour.
    spec : SpectrogramSpec
    """
    rows = -(-len(windows) // _COLUMNS)
    figure = Figure((4.2 * _COLUMNS, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    limits = {"vmin": -5 / spec.db_scale, "vmax": 30 / spec.db_scale}
    extent = (0.0, float(spec.n_bins), spec.n_steps * spec.time_step * 1e3, 0.0)
    for window, title, plain, labelled in zip(windows, titles, axes[::2], axes[1::2], strict=False):
        image = window.picture.astype(np.float32)
        plain.imshow(image, aspect="auto", cmap="viridis", extent=extent, **limits)
        plain.set_title(title, fontsize=8)
        labelled.imshow(image, aspect="auto", cmap="gray", extent=extent, **limits)
        labelled.imshow(_coloured(window.mask), aspect="auto", extent=extent, interpolation="nearest")
    patches = [Patch(color=_colour(index), label=label) for index, label in enumerate(labels) if index > 0]
    if any((window.mask >= UNNAMED).any() for window in windows):
        patches.append(Patch(facecolor=_UNLABELLED, edgecolor="0.6", label="no label"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png")


def _colour(label: int) -> tuple[float, float, float, float]:
    return to_rgba(COLOURS[(label - 1) % len(COLOURS)], 0.55)


def _coloured(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    image = np.zeros((*mask.shape, 4), np.float32)
    for label in np.unique(mask).tolist():
        if label >= UNNAMED:
            image[mask == label] = _UNLABELLED
        elif label > 0:
            image[mask == label] = _colour(label)
    return image
