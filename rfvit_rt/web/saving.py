# SPDX-License-Identifier: Apache-2.0
"""What the page saves: the last samples of a stream as a SigMF recording, and corrected annotations of a recording."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sigmf

from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import replace_file
from rfvit_rt.sinks.sigmf import CORRECTED, EXTENSION, GENERATOR, serialise, write_annotations
from rfvit_rt.sources.recording import ARCHIVE_SUFFIX, DATA_SUFFIX, META_SUFFIX, Recording
from rfvit_rt.web.corrections import shifted, sigmf_annotations
from rfvit_rt.web.protocol import Box
from rfvit_rt.web.ring import Snapshot

SPARE_BYTES = 2**30  # that stay free on the disk
MOST_NAMES = 1000


@dataclass(frozen=True)
class Origin:
    """What is known of the samples besides themselves.

    Attributes
    ----------
    title : str
        Where they come from.
    recorded, simulated : bool
        Whether a recording was read or replayed, and whether it is known that no radio received them.
    model : str
        Name and digest of the model that found the boxes.
    """

    title: str
    recorded: bool
    simulated: bool
    model: str


class SavedRecording:
    """Samples that were saved; the boxes in them can be corrected afterwards.

    Parameters
    ----------
    path : Path
        The metadata file.
    document : dict
        The metadata without annotations.
    stretches : sequence of (int, int)
        First position, and the one past the last, of every stretch of the stream without a jump of positions.
    model : str
        Name and digest of the model that found the boxes.
    """

    def __init__(self, path: Path, document: dict[str, Any], stretches: Sequence[tuple[int, int]], model: str) -> None:
        self.path = path
        self._document = document
        self._stretches = stretches
        self._model = model

    def write(self, boxes: Sequence[Box]) -> int:
        """Write the metadata with these boxes, those elsewhere left out; return how many annotations it has.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        rate = self._document["global"]["core:sample_rate"]
        annotations = list(_annotations(self._stretches, boxes, rate, self._model))
        try:
            replace_file(self.path, serialise({**self._document, "annotations": annotations}, self.path))
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        return len(annotations)


def save_samples(folder: Path, snapshot: Snapshot, boxes: Sequence[Box], origin: Origin) -> tuple[SavedRecording, int]:
    """Write samples as a recording of its own, with the boxes in it; complete or not at all.

    Samples are written as they came through, as cf32_le. Where some were lost or the centre frequency changed, a new
    capture begins; ``core:global_index`` counts the samples of the stream, lost ones included.

    Returns
    -------
    SavedRecording
    int
        How many annotations it has.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    _check_room(folder, 8 * snapshot.sample_count)
    now = datetime.now(UTC)
    meta_path = _free_name(folder, f"rfvit-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z{CORRECTED}")
    data_path = meta_path.with_suffix(DATA_SUFFIX)
    temporary = data_path.with_name(f".{data_path.name}.{os.getpid()}.tmp")
    try:
        document = {
            "global": {
                "core:datatype": "cf32_le",
                "core:sample_rate": float(snapshot.sample_rate),
                "core:version": sigmf.__specification__,
                "core:sha512": _write_samples(temporary, snapshot.blocks),
                "core:recorder": GENERATOR,
                "core:description": _description(snapshot, origin),
                "core:extensions": [EXTENSION],
            },
            "captures": list(_captures(snapshot.blocks, with_time=not origin.recorded)),
        }
        recording = SavedRecording(meta_path, document, list(_stretches(snapshot.blocks)), origin.model)
        temporary.replace(data_path)
        try:
            return recording, recording.write(boxes)
        except BaseException:
            data_path.unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {meta_path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


class CorrectedCopy:
    """A recording's metadata with the boxes that the page shows, in a file of its own beside a link to the samples.

    What annotations the recording itself has are left out: the page shows none of them, so nobody could correct them.

    Parameters
    ----------
    recording : Recording
    folder : Path
        Where to write. Nothing there is replaced, but what this object wrote before.
    model : ModelFile
        What found the boxes.
    """

    def __init__(self, recording: Recording, folder: Path, model: ModelFile) -> None:
        self._recording = recording
        self._folder = folder
        self._model = model
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The metadata file; another one that has this name is not replaced."""
        if self._path is None:
            name = self._recording.meta_path.name.removesuffix(META_SUFFIX).removesuffix(ARCHIVE_SUFFIX)
            self._path = _free_name(self._folder, name + CORRECTED)
        return self._path

    def write(self, boxes: Sequence[Box]) -> int:
        """Write all boxes; returns and raises as :meth:`SavedRecording.write`."""
        recording, name, digest = self._recording, self._model.contract.name, self._model.sha256
        model = f"{name}@{digest[:12]}"
        annotations = sigmf_annotations(boxes, recording.sample_rate, recording.sample_end, model)
        fields = dict(recording.metadata["global"])
        others = [item for item in fields.get("core:extensions", []) if item["name"] != EXTENSION["name"]]
        fields["core:extensions"] = [*others, EXTENSION]
        shown = replace(recording, metadata={**recording.metadata, "global": fields, "annotations": annotations})
        write_annotations(shown, (), self.path, model_name=name, model_hash=digest, overwrite=True)
        return len(annotations)


def _check_room(folder: Path, size: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
    if size + SPARE_BYTES > free:
        raise OutputError(f"{folder} has {free / 1e9:.1f} GB left; {size / 1e9:.1f} GB of samples would fill it")


def _free_name(folder: Path, name: str) -> Path:
    for number in range(1, MOST_NAMES):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}{META_SUFFIX}"
        if not any(os.path.lexists(taken) for taken in (path, path.with_suffix(DATA_SUFFIX))):
            return path
    raise OutputError(f"{folder} holds {MOST_NAMES - 1} files {name}; clear it up, or name another folder")


def _write_samples(path: Path, blocks: Sequence[IQBlock]) -> str:
    digest = hashlib.sha512()
    with path.open("wb") as file:
        for block in blocks:
            raw = np.ascontiguousarray(block.samples, "<c8").view(np.uint8).data
            digest.update(raw)
            file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _captures(blocks: Sequence[IQBlock], with_time: bool) -> Iterator[dict[str, Any]]:
    """A capture wherever samples were lost or the frequency changed."""
    position, lost = 0, 0
    last: IQBlock | None = None
    for block in blocks:
        lost += block.radio_lost if last else 0
        is_new = last is None or (
            block.sample_start != last.sample_end or block.radio_lost or block.frequency != last.frequency
        )
        if is_new:
            capture: dict[str, Any] = {"core:sample_start": position, "core:global_index": block.sample_start + lost}
            if block.frequency is not None:
                capture["core:frequency"] = float(block.frequency)
            if with_time:
                capture["core:datetime"] = _time_of(block)
            yield capture
        position += len(block.samples)
        last = block


def _annotations(
    stretches: Sequence[tuple[int, int]], boxes: Sequence[Box], sample_rate: float, model: str
) -> Iterator[dict[str, Any]]:
    """Boxes at their positions in the file; one that reaches over a loss is cut in two there."""
    position = 0
    for begin, end in stretches:
        offset = begin - position
        inside = [
            shifted(box, offset, begin)
            for box in boxes
            if box.sample_start < end and box.sample_start + box.sample_count > begin
        ]
        yield from sigmf_annotations(inside, sample_rate, end - offset, model)
        position += end - begin


def _stretches(blocks: Sequence[IQBlock]) -> Iterator[tuple[int, int]]:
    """First position and the one past the last of every stretch without a jump of positions."""
    begin = end = blocks[0].sample_start
    for block in blocks:
        if block.sample_start != end:
            yield begin, end
            begin = block.sample_start
        end = block.sample_end
    yield begin, end


def _time_of(block: IQBlock) -> str:
    """When the first sample was taken, by this machine's clock, as SigMF writes it."""
    age = time.monotonic() - block.received + len(block.samples) / block.sample_rate
    moment = datetime.fromtimestamp(time.time() - age, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _description(snapshot: Snapshot, origin: Origin) -> str:
    what = "SIMULATED, not received. " if origin.simulated else ""
    what += "From a recording, not live. " if origin.recorded else ""
    return f"{what}Last {snapshot.sample_count / snapshot.sample_rate:.3f} s of {origin.title}, saved from the page"
