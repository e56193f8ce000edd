# SPDX-License-Identifier: Apache-2.0
"""Own recordings as training data: every SigMF file below a folder, cut into windows, with its annotations as labels.

Windows and pictures are made by what the runtime uses, :mod:`rfvit_rt.windowing` and :mod:`rfvit_rt.spectrogram`, so
that training sees what the model will see. Bands wider than a picture are cut into tiles, each a window of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import IQBlock, Window
from rfvit_rt.errors import RecordingError, RfvitError
from rfvit_rt.sinks.sigmf import CORRECTED, holds_results, is_result
from rfvit_rt.sources.recording import (
    ARCHIVE_SUFFIX,
    COMPRESSED_SUFFIXES,
    DATA_SUFFIX,
    META_SUFFIX,
    Recording,
    open_recording,
)
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, noise_floor, picture, power, tiles
from rfvit_rt.windowing import windows
from training.config import Annotations
from training.datasets import IGNORED, WindowWriter
from training.splits import in_split

Report = Callable[[str], None]
_BEGINNING = 4096  # samples
_NOT_CORRECTED = f"it has boxes of a model (rfvit:model); where somebody corrected them, put {CORRECTED} into its name"


def find_recordings(folder: Path, report: Report) -> dict[str, Recording]:
    """Open every SigMF recording below a folder; what is left out is reported by name.

    That is what cannot be read, and what ``rfvit segment`` wrote, since its boxes are a model's. Samples count once: of
    several files about the same ones, that which the page has saved with somebody's corrections is taken, else one with
    annotations.

    Returns
    -------
    dict of str to Recording
        By path within the folder, in order.

    Raises
    ------
    RecordingError
        If the folder is missing, or nothing below it can be read.
    """
    if not folder.is_dir():
        raise RecordingError(f"there is no folder {folder}; give the folder that holds the recordings")
    found: dict[str, Recording] = {}
    refused = results = 0
    for path in sorted(path for path in folder.rglob("*") if _is_recording(path)):
        name = path.relative_to(folder).as_posix()
        if is_result(path):
            results += 1
            report(f"left out {name}: {_NOT_CORRECTED}")
            continue
        try:
            recording = open_recording(path)
        except RfvitError as error:
            refused += 1
            report(f"left out {name}: {error}")
            continue
        if holds_results(recording):
            results += 1
            report(f"left out {name}: {_NOT_CORRECTED}")
        else:
            found[name] = recording
    if refused and found:
        report(f"WARNING: {refused} of {refused + len(found)} recordings below {folder} cannot be read, see above")
    if not found:
        reason = f"none of {refused} recordings can be read" if refused else "there is no SigMF recording"
        reason = f"all {results} files hold a model's boxes" if results and not refused else reason
        raise RecordingError(f"{reason} below {folder}; it needs .sigmf-meta files with their .sigmf-data, or .sigmf")
    return _once_each(found, report)


def _once_each(found: dict[str, Recording], report: Report) -> dict[str, Recording]:
    """Leave out recordings of the same samples but one: a window must not have a twin in another split."""
    kept: dict[tuple[int, str], dict[str, tuple[Path, int]]] = {}  # by length and beginning: names, and where
    whole = {(one.data_path.resolve(), one.data_start): one for one in found.values()}
    digest = functools.cache(lambda path, start: _digest(whole[path, start].blocks()))
    for name in sorted(found, key=lambda name: _worth(name, found[name])):
        recording = found[name]
        # Recordings are long: only those that begin alike are read to their ends, and links to the same file once.
        beginning = recording.sample_count, _digest(islice(recording.blocks(_BEGINNING), 1))
        place = recording.data_path.resolve(), recording.data_start
        alike = kept.setdefault(beginning, {})
        twin = next((other for other, at in alike.items() if at == place or digest(*at) == digest(*place)), None)
        if twin is None:
            alike[name] = place
        else:
            report(f"left out {name}: {twin} has the same samples")
    names = {name for alike in kept.values() for name in alike}
    return {name: found[name] for name in found if name in names}


def _worth(name: str, recording: Recording) -> tuple[bool, bool, bool, str]:
    """Which of several files about the same samples is taken: the first in this order.

    One with corrections, with annotations, in a folder that says what it is for, whose name is the first.
    """
    return CORRECTED not in name, not annotated_labels(recording), not in_split(name), name


def _digest(blocks: Iterable[IQBlock]) -> str:
    """Of all samples, or of those up to what cannot be read, which is said where windows are made."""
    digest = hashlib.sha256()
    with contextlib.suppress(RfvitError):
        for block in blocks:
            digest.update(block.samples.tobytes())
    return digest.hexdigest()


def _is_recording(path: Path) -> bool:
    if path.name.endswith(DATA_SUFFIX):  # its metadata stands for it; without, opening it says what is missing
        return not path.with_suffix(META_SUFFIX).is_file()
    return path.name.endswith((META_SUFFIX, ARCHIVE_SUFFIX, *COMPRESSED_SUFFIXES)) and path.is_file()


def has_recordings(folder: Path) -> bool:
    """Whether anything below a folder looks like SigMF."""
    return any(_is_recording(path) for path in folder.rglob("*"))


class LabelMap:
    """What annotations mean: `core:label` to a mask value, as :class:`training.config.Annotations` says.

    Parameters
    ----------
    annotations : Annotations

    Attributes
    ----------
    labels : tuple of str
        Of the model that is to be trained.
    unmapped : Counter
        Labels met so far that mean no class.
    """

    def __init__(self, annotations: Annotations) -> None:
        self.labels = ("background", *(name for name in annotations.classes if name != "background"))
        self.unmapped: Counter[str] = Counter()
        self._classes = annotations.classes
        self._otherwise = IGNORED if annotations.unmapped == "ignore" else 0

    def value(self, label: str) -> int:
        """Mask value of an annotation's label.

        Raises
        ------
        RecordingError
            If it means two classes.
        """
        matches = [name for name, patterns in self._classes.items() if label in patterns]
        if not matches:
            matches = [
                name for name, patterns in self._classes.items() if any(re.fullmatch(p, label) for p in patterns)
            ]
        if len(matches) > 1:
            raise RecordingError(
                f"the annotation '{label}' means {' and '.join(matches)}; make the patterns in [annotations.classes] "
                "exclude each other"
            )
        if not matches:
            self.unmapped[label] += 1
            return self._otherwise
        return self.labels.index(matches[0])


def write_unlabelled(writer: WindowWriter, recording: Recording, number: int) -> str:
    """Append a recording's windows, all of their pixels without a label; return what was left out, if anything."""
    return _write(writer, recording, number, lambda window, shape: np.full(shape, IGNORED, np.uint8))


def write_labelled(writer: WindowWriter, recording: Recording, number: int, label_map: LabelMap) -> str:
    """Append a recording's windows, labelled by its annotations; return what was left out, if anything."""
    boxes = [
        (label_map.value(str(fields.get("core:label") or "")), _box(fields, recording))
        for fields in recording.metadata.get("annotations", [])
    ]
    beside = sum(not _touches(box, recording) for _, box in boxes)
    # The smaller a box, the more it knows: a burst within a band that somebody marked as a whole lies on top.
    boxes = sorted((box for box in boxes if _area(box[1]) > 0), key=lambda box: -_area(box[1]))
    left_out = _write(writer, recording, number, lambda window, shape: _mask(window, shape, boxes, writer.spec))
    if not beside:
        return left_out
    said = (
        f"{beside} of {len(recording.metadata['annotations'])} annotations lie outside its time or band, so what they "
        "mark is taught as background; edges are absolute, in Hz, as core:frequency of the captures is"
    )
    return f"{left_out}; {said}" if left_out else said


def annotated_labels(recording: Recording) -> list[str]:
    """The label of every annotation, empty where it has none."""
    return [str(fields.get("core:label") or "") for fields in recording.metadata.get("annotations", [])]


_Box = tuple[float, float, float, float]  # samples from, to; absolute Hz from, to


def _write(
    writer: WindowWriter,
    recording: Recording,
    number: int,
    mask_of: Callable[[Window, tuple[int, int]], NDArray[np.uint8]],
) -> str:
    spec, silent = writer.spec, 0
    try:
        for window, image in _pictures(recording, spec):
            if not image.any():
                silent += 1
                continue
            mask = np.full((spec.n_steps, image.shape[1]), IGNORED, np.uint8)
            mask[: len(image)] = mask_of(window, (len(image), image.shape[1]))
            bin_width = bin_width_feature(window.sample_rate, spec)
            for tile, start in zip(tiles(image, spec), spec.tile_starts(image.shape[1]), strict=True):
                writer.append(tile, mask[:, start : start + spec.n_bins], bin_width, np.nan, number)
    except RfvitError as error:
        return str(error)
    return f"{silent} windows hold nothing but zeros" if silent else ""


def _pictures(recording: Recording, spec: SpectrogramSpec) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    for window in windows(recording.blocks(), spec, spec.n_steps):
        with np.errstate(over="ignore", invalid="ignore"):
            energy = power(window.samples, window.sample_rate, spec)
        if not np.isfinite(energy).all():
            raise RecordingError(
                f"a sample between {window.sample_start} and {window.sample_start + len(window.samples)} is NaN, "
                "infinite or too large to square; it is left out from there on: cut it there"
            )
        yield window, picture(energy, noise_floor(energy, window.sample_rate, spec), spec)


def _box(fields: dict[str, Any], recording: Recording) -> _Box:
    """Time and band of an annotation; where it does not say, all there is of either."""
    start = int(fields["core:sample_start"])
    end = start + int(fields["core:sample_count"]) if "core:sample_count" in fields else recording.sample_end
    low, high = fields.get("core:freq_lower_edge"), fields.get("core:freq_upper_edge")
    return start, end, -np.inf if low is None else float(low), np.inf if high is None else float(high)


def _touches(box: _Box, recording: Recording) -> bool:
    """Whether any of it lies in the recording's time and band."""
    start, end, low, high = box
    half = recording.sample_rate / 2
    return any(
        start < capture.sample_start + capture.sample_count
        and end > capture.sample_start
        and low < (capture.frequency or 0.0) + half
        and high > (capture.frequency or 0.0) - half
        for capture in recording.captures
    )


def _area(box: _Box) -> float:
    """In samples times Hz; a box without edges counts as very wide."""
    return max(0.0, box[1] - box[0]) * max(0.0, min(box[3] - box[2], 1e15))


def _mask(
    window: Window, shape: tuple[int, int], boxes: list[tuple[int, _Box]], spec: SpectrogramSpec
) -> NDArray[np.uint8]:
    """Paint boxes onto a window's pixels: (step, bin) uint8."""
    mask = np.zeros(shape, np.uint8)
    bin_width = window.sample_rate / shape[1]
    lowest = (window.frequency or 0.0) - (shape[1] / 2 + 0.5) * bin_width
    step = spec.step_length(window.sample_rate)
    for value, (start, end, low, high) in boxes:
        rows = _pixels((start - window.sample_start) / step, (end - window.sample_start) / step, shape[0])
        columns = _pixels((low - lowest) / bin_width, (high - lowest) / bin_width, shape[1])
        mask[rows, columns] = value
    return mask


def _pixels(first: float, last: float, count: int) -> slice:
    """Pixels that an interval covers half of at least; the one it lies in where it is shorter than that."""
    if last <= 0 or first >= count or last <= first:
        return slice(0, 0)
    first, last = max(first, 0.0), min(last, float(count))
    begin, end = int(np.floor(first + 0.5)), int(np.floor(last + 0.5))
    return slice(begin, end) if end > begin else slice(int(first), int(first) + 1)
