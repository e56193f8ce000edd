# SPDX-License-Identifier: Apache-2.0
"""Labelled spectrogram windows on disk: one folder a split, memory-mapped arrays inside.

Whatever windows are made of, generated scenes, recordings or images, they end up like this. Beside the arrays lies a
``scenes.json`` with the ``spec`` of the pictures, the ``labels`` that mask values stand for, and what the windows were
made of. It is written last, so its presence says that the windows are complete.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from rfvit_rt.errors import OutputError, RecordingError
from rfvit_rt.sinks.files import replace_file
from rfvit_rt.spectrogram import SpectrogramSpec

CELLULAR = ("LTE", "NR")
UNNAMED = 254  # mask value of pixels that are background or OTHER, and nothing in the picture says which
IGNORED = 255  # mask value of pixels that teach nothing: steps that a short window does not have, unknown signals
RECORD = "scenes.json"
_ARRAYS = ("pictures", "masks", "bin_widths", "snr_db", "scenes")


@dataclass(frozen=True, eq=False)
class Windows:
    """Model inputs with their labels.

    Attributes
    ----------
    pictures : (window, n_steps, n_bins) float16
        As :func:`rfvit_rt.spectrogram.tiles` gives them; 0 in steps that a short window does not have.
    masks : (window, n_steps, n_bins) uint8
        Index into `labels`; `UNNAMED` or `IGNORED`, which count as neither right nor wrong.
    bin_widths : (window,) float32
        As :func:`rfvit_rt.spectrogram.bin_width_feature` gives them.
    snr_db : (window,) float32
        Signal-to-noise ratio of the strongest carrier of the scene in its own band, in dB, whether or not it sends
        anything within the window; NaN where there is none or nobody knows.
    scenes : (window,) int64
        Seed of the scene, or number of the recording, that a window was cut from; none of them is in two splits.
    labels : tuple of str
        The first is the background; it alone where the windows have no labels, and all their pixels are ignored.
    """

    pictures: NDArray[np.float16]
    masks: NDArray[np.uint8]
    bin_widths: NDArray[np.float32]
    snr_db: NDArray[np.float32]
    scenes: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)


class WindowWriter:
    """Windows written one after another, where nobody knows how many there will be.

    Parameters
    ----------
    folder : Path
        Of a split; what is in it is replaced.
    spec : SpectrogramSpec
    labels : tuple of str
    """

    def __init__(self, folder: Path, spec: SpectrogramSpec, labels: tuple[str, ...]) -> None:
        self.folder, self.spec, self.labels = folder, spec, labels
        self.count = 0
        self.pixels = np.zeros(len(labels), np.int64)  # of every label
        image = (spec.n_steps, spec.n_bins)
        self._arrays: list[tuple[IO[bytes], Any, tuple[int, ...]]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECORD).unlink(missing_ok=True)
            for name, kind, shape in zip(
                _ARRAYS, ("<f2", "|u1", "<f4", "<f4", "<i8"), (image, image, (), (), ()), strict=True
            ):
                self._arrays.append(((folder / f"{name}.npy").open("wb"), kind, shape))
            self._write_headers()
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, _, _ in self._arrays:
            try:
                file.close()
            except OSError as failed:  # what was held back does not fit either; an error under way says so already
                if error is None:
                    raise OutputError(f"cannot write {self.folder}: {failed.strerror or failed}") from failed

    def append(
        self, picture: NDArray[Any], mask: NDArray[np.uint8], bin_width: float, snr_db: float, scene: int
    ) -> None:
        """Add a window; arguments as in :class:`Windows`.

        Raises
        ------
        OutputError
            If it cannot be written, as on a full disk.
        """
        try:
            for (file, kind, _), value in zip(self._arrays, (picture, mask, bin_width, snr_db, scene), strict=True):
                file.write(np.asarray(value).astype(kind).tobytes())
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self.count += 1
        self.pixels += np.bincount(mask[mask < UNNAMED], minlength=len(self.labels))

    def finish(self, **record: Any) -> None:
        """Complete the split; `record` says what it was made of.

        Raises
        ------
        OutputError
            If it cannot be written, as on a full disk.
        """
        fields = {"count": self.count, "labels": self.labels, "spec": dataclasses.asdict(self.spec)}
        try:
            self._write_headers()
            for file, _, _ in self._arrays:
                file.flush()
            replace_file(self.folder / RECORD, json.dumps(fields | record, indent=1).encode())
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def _write_headers(self) -> None:
        # NumPy leaves room for the length in its headers, so that arrays can grow where they are.
        for file, kind, shape in self._arrays:
            file.seek(0)
            write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": (self.count, *shape)})
            file.seek(0, 2)


def open_windows(folder: Path) -> Windows:
    """Open what :class:`WindowWriter` made.

    Raises
    ------
    RecordingError
        If the folder holds no windows or not all of them yet, or its labels are none.
    """
    missing = [name for name in _ARRAYS if not (folder / f"{name}.npy").is_file()]
    if missing:
        raise RecordingError(
            f"{folder} holds no windows; make them with 'python -m training.scenes', or name the folder 'windows' that "
            "finetuning on recordings leaves in its --out"
        )
    labels = read_labels(folder)
    pictures, masks, bin_widths, snr_db, scenes = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    return Windows(pictures, masks, bin_widths, snr_db, scenes, labels)


def read_record(folder: Path) -> dict[str, Any]:
    """What a split says about itself; nothing where it is not complete.

    Raises
    ------
    RecordingError
        If its scenes.json cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot read {path} ({error}); make the windows again") from error
    if not isinstance(record, dict):
        raise RecordingError(f"{path} holds no JSON object; make the windows again")
    return record


def read_labels(folder: Path) -> tuple[str, ...]:
    """Labels of a split.

    Raises
    ------
    RecordingError
        If it is not complete, or they are not different names.
    """
    record = read_record(folder)
    if not record:
        raise RecordingError(
            f"{folder / RECORD} is missing, so the windows are not complete; let what makes them finish, or make others"
        )
    labels = record.get("labels", ())
    names = isinstance(labels, list | tuple) and all(isinstance(label, str) and label for label in labels)
    if not names or not labels or len(set(labels)) < len(labels) or len(labels) > UNNAMED:
        raise RecordingError(
            f"{folder / RECORD}: labels are different names, the background's first; got {labels!r:.80}"
        )
    return tuple(labels)
