# SPDX-License-Identifier: Apache-2.0
"""SigMF recordings as a source of blocks: opened, checked once, then read in constant memory.

Positions are SigMF's absolute sample indices, so ``core:offset`` is the position of the first sample in the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import jsonschema  # type: ignore[import-untyped]
import sigmf

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import RecordingError, WireError
from rfvit_rt.sources.timeline import samples_lost
from rfvit_rt.wire.samples import item_size, to_complex64

BLOCK_SIZE = 2**18
META_SUFFIX, DATA_SUFFIX, ARCHIVE_SUFFIX = ".sigmf-meta", ".sigmf-data", ".sigmf"
COMPRESSED_SUFFIXES = (".sigmf.gz", ".sigmf.xz", ".sigmf.zip")

_DATETIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,30}))?[Zz]?")


@dataclass(frozen=True)
class Capture:
    """A run of samples that were taken in one go, at one centre frequency.

    Attributes
    ----------
    sample_start, sample_count : int
        Where it is, in absolute sample indices.
    byte_start : int
        Where its first sample begins in the data file.
    frequency : float or None
        Centre frequency in Hz; None where the metadata has none.
    datetime : str or None
        Time of its first sample as the metadata has it.
    radio_lost : int
        Samples that the radio lost just before it, by ``core:global_index``, else by ``core:datetime``.
    """

    sample_start: int
    sample_count: int
    byte_start: int
    frequency: float | None = None
    datetime: str | None = None
    radio_lost: int = 0


@dataclass(frozen=True)
class Recording:
    """A SigMF recording whose metadata was found to fit its data.

    Attributes
    ----------
    meta_path : Path
        The metadata file, or the archive that holds it.
    data_path : Path
        The file that holds the samples, or the archive.
    data_start, data_size : int
        Where the dataset lies inside ``data_path``, in bytes: all of it, but for an archive.
    datatype : str
        SigMF type of the samples in the file.
    sample_rate : float
        Samples per second, in Hz.
    sample_start, sample_count : int
        Absolute index of the first sample, and how many there are.
    captures : tuple of Capture
        In order, none of them empty; together they cover all samples.
    metadata : mapping
        The metadata as in the file.
    """

    meta_path: Path
    data_path: Path
    data_start: int
    data_size: int
    datatype: str
    sample_rate: float
    sample_start: int
    sample_count: int
    captures: tuple[Capture, ...]
    metadata: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def sample_end(self) -> int:
        """Absolute index just past the last sample."""
        return self.sample_start + self.sample_count

    @property
    def in_archive(self) -> bool:
        """Whether the samples are inside a SigMF archive."""
        return self.data_path == self.meta_path

    def blocks(self, block_size: int = BLOCK_SIZE) -> Iterator[IQBlock]:
        """Read all samples in order; no block reaches over the start of a capture.

        Parameters
        ----------
        block_size : int
            Most samples of a block.

        Yields
        ------
        IQBlock
            With the samples scaled as in :func:`rfvit_rt.wire.samples.to_complex64`.

        Raises
        ------
        RecordingError
            If the file cannot be read, or became shorter since it was opened.
        """
        # Plain reads, not a memory map: where a file is cut short, touching its map kills the process (SIGBUS).
        buffer = memoryview(bytearray(min(block_size, self.sample_count) * item_size(self.datatype)))
        with _open(self.data_path) as file:
            for capture in self.captures:
                yield from self._capture_blocks(file, capture, buffer)

    def _capture_blocks(self, file: IO[bytes], capture: Capture, buffer: memoryview) -> Iterator[IQBlock]:
        size = item_size(self.datatype)
        file.seek(capture.byte_start)
        for position in range(0, capture.sample_count, len(buffer) // size):
            wanted = buffer[: (capture.sample_count - position) * size]
            try:
                got = file.readinto(wanted)  # type: ignore[attr-defined]
            except OSError as error:
                raise RecordingError(f"cannot read {self.data_path}: {error.strerror}") from error
            if got != len(wanted):
                raise RecordingError(f"{self.data_path} became shorter while it was read; read it once it is complete")
            yield IQBlock(
                samples=to_complex64(wanted, self.datatype),
                sample_start=capture.sample_start + position,
                sample_rate=self.sample_rate,
                frequency=capture.frequency,
                radio_lost=capture.radio_lost if position == 0 else 0,
                received=time.monotonic(),
            )


class _Files(NamedTuple):
    """Where the two halves of a recording are."""

    meta_path: Path
    metadata: Mapping[str, Any]
    data_path: Path
    data_start: int
    data_size: int


def open_recording(path: str | Path, *, verify: bool = False) -> Recording:
    """Open a recording and check that its metadata fits its data.

    Parameters
    ----------
    path : str or Path
        A ``.sigmf-meta`` or ``.sigmf-data`` file, their common base name, or an uncompressed ``.sigmf`` archive.
    verify : bool
        Also read all data and compare it with ``core:sha512``.

    Returns
    -------
    Recording

    Raises
    ------
    RecordingError
        If a file is missing or damaged, or holds samples that cannot be read.
    """
    path = Path(path)
    try:
        files = _find_archive(path) if path.name.endswith(ARCHIVE_SUFFIX) else _find_pair(path)
    except OSError as error:
        raise RecordingError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    recording = _describe(files)
    if verify:
        _verify(recording)
    return recording


def epoch_seconds(stamp: str | None) -> Fraction | None:
    """Seconds since 1970 of a ``core:datetime``, exact to its last digit; None where none can be read."""
    match = _DATETIME.fullmatch(stamp or "")
    if match is None:
        return None
    try:
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(whole.timestamp()) + Fraction(f"0.{match[3] or 0}")


def _find_pair(path: Path) -> _Files:
    if path.name in ("", ".."):
        raise RecordingError(f"'{path}' is a folder; name a recording in it, by its .sigmf-meta file")
    if path.suffix == ".sigmf-collection":
        raise RecordingError(f"{path} is a collection; name one of its recordings")
    if path.name.endswith(COMPRESSED_SUFFIXES):
        raise RecordingError(f"{path} is compressed and cannot be streamed; unpack it first")
    base = path.with_suffix("") if path.suffix in (META_SUFFIX, DATA_SUFFIX) else path
    meta_path = base.with_name(base.name + META_SUFFIX)
    if not meta_path.is_file():
        archive = base.with_name(base.name + ARCHIVE_SUFFIX)
        if path == base and archive.is_file():
            return _find_archive(archive)
        if path.parts[0].endswith(":") and len(path.parts) > 1:  # a Path has folded the slashes of zmq+sub://
            raise RecordingError(f"{path} is a stream's address; this takes SigMF recordings only")
        bare = f"; {path.name} alone says neither its core:datatype nor its core:sample_rate" if path.is_file() else ""
        raise RecordingError(
            f"no metadata at {meta_path}; a SigMF recording needs its .sigmf-meta file beside its .sigmf-data file"
            + bare
        )
    metadata = _parse(meta_path.read_bytes(), meta_path)
    data_path = _data_path(meta_path, metadata["global"])
    return _Files(meta_path, metadata, data_path, 0, data_path.stat().st_size)


def _data_path(meta_path: Path, fields: Mapping[str, Any]) -> Path:
    dataset = fields.get("core:dataset")
    data_path = meta_path.with_suffix(DATA_SUFFIX)
    if dataset is not None:
        if Path(dataset).name != dataset:
            raise RecordingError(f"{meta_path}: core:dataset is {dataset!r}; it must be a file name without a folder")
        data_path = meta_path.with_name(dataset)
    if data_path.is_file():
        return data_path
    if fields.get("core:metadata_only"):
        raise RecordingError(f"{meta_path} was made without samples (core:metadata_only); get {data_path.name} as well")
    raise RecordingError(f"no samples at {data_path}, which {meta_path.name} describes; put the data file there")


def _find_archive(path: Path) -> _Files:
    try:
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isfile()]
            metas = [member for member in members if member.name.endswith(META_SUFFIX)]
            if len(metas) != 1:
                raise RecordingError(f"{path} holds {len(metas)} recordings, expected one; unpack it with tar")
            file = archive.extractfile(metas[0])
            assert file is not None  # only members that are no files have none
            metadata = _parse(file.read(), path)
    except tarfile.TarError as error:
        raise RecordingError(f"{path} is not an uncompressed tar archive ({error}); unpack it first") from error
    name = metadata["global"].get("core:dataset", Path(metas[0].name).with_suffix(DATA_SUFFIX).name)
    data = next((member for member in members if Path(member.name).name == name), None)
    if data is None:
        raise RecordingError(f"{path} holds no {name}; the archive is incomplete")
    if data.offset_data + data.size > path.stat().st_size:
        raise RecordingError(f"{path} ends inside {name}; the archive was cut off, get it again")
    return _Files(path, metadata, path, data.offset_data, data.size)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: the metadata is not JSON ({error}); is the file damaged?") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise RecordingError(f"{path}: the metadata has no global section; it is not SigMF")
    if "core:datatype" not in metadata["global"]:
        raise RecordingError(f"{path}: core:datatype is missing; add the type of the samples to the global section")
    try:
        validate_metadata(metadata)
    except jsonschema.ValidationError as error:
        raise RecordingError(f"{path} is not valid SigMF: {describe_violation(error)}; correct it") from error
    except RecursionError as error:
        raise RecordingError(f"{path}: the metadata is nested too deeply; is the file damaged?") from error
    return metadata


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def validate_metadata(metadata: Mapping[str, Any]) -> None:
    """Check metadata against SigMF's schema; the order of annotations is not judged.

    Raises
    ------
    jsonschema.ValidationError
        Where it does not follow the schema.
    """
    # Annotations out of order are common and harmless, yet sigmf-python's validator refuses them.
    annotations = metadata.get("annotations")
    if isinstance(annotations, list) and all(_has_start(annotation) for annotation in annotations):
        metadata = {**metadata, "annotations": sorted(annotations, key=itemgetter("core:sample_start"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # undeclared extensions: not ours to judge
        sigmf.SigMFFile(metadata=metadata).validate()


def describe_violation(error: jsonschema.ValidationError) -> str:
    """Place in the metadata and what is wrong there, for example ``captures[0].core:frequency: …``."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path]
    return f"{''.join(steps).removeprefix('.') or 'metadata'}: {error.message[:200]}"


def _has_start(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("core:sample_start"), int)


def _describe(files: _Files) -> Recording:
    fields, path = files.metadata["global"], files.meta_path
    datatype = fields["core:datatype"]
    try:
        size = item_size(datatype)
    except WireError as error:
        raise RecordingError(f"{path}: {error}") from error
    channels = int(fields.get("core:num_channels") or 1)
    if channels != 1:
        raise RecordingError(f"{path} holds {channels} interleaved channels, expected one; split it into one file each")
    if "core:sample_rate" not in fields:
        raise RecordingError(f"{path}: core:sample_rate is missing; add it, in Hz, to the global section")

    count = _count_samples(files, size)
    start = int(fields.get("core:offset") or 0)
    _check_indices(files, start, start + count)
    rate = float(fields["core:sample_rate"])
    captures = _captures(files, start, start + count, size, rate)
    return Recording(
        files.meta_path,
        files.data_path,
        files.data_start,
        files.data_size,
        datatype,
        rate,
        start,
        count,
        captures,
        files.metadata,
    )


def _count_samples(files: _Files, size: int) -> int:
    skipped = int(files.metadata["global"].get("core:trailing_bytes", 0))
    skipped += sum(int(capture.get("core:header_bytes", 0)) for capture in files.metadata["captures"])
    sample_bytes = files.data_size - skipped
    datatype = files.metadata["global"]["core:datatype"]
    if sample_bytes <= 0:
        raise RecordingError(f"{files.data_path} holds no samples: {files.data_size} bytes, {skipped} of them headers")
    if sample_bytes % size:
        raise RecordingError(
            f"{files.data_path} holds {sample_bytes} bytes of samples, not a whole number of {datatype} samples of "
            f"{size} bytes; the file was cut off or core:datatype is wrong"
        )
    return sample_bytes // size


def _check_indices(files: _Files, start: int, end: int) -> None:
    """Refuse captures and annotations outside the data: most often the data file was cut off."""
    last = -1
    for capture in files.metadata["captures"]:
        position = int(capture["core:sample_start"])
        if position < max(start, last):
            raise RecordingError(
                f"{files.meta_path}: a capture starts at sample {position}, before sample {max(start, last)} "
                "where the recording (core:offset) or the capture before it starts; correct the captures"
            )
        last = position
    for annotation in files.metadata["annotations"]:
        last = max(last, int(annotation["core:sample_start"]) + int(annotation.get("core:sample_count", 0)))
    if last > end:
        raise RecordingError(
            f"{files.data_path} ends at sample {end}, but {files.meta_path.name} describes samples up to {last}; "
            "the data file was cut off (get it again) or the metadata is wrong"
        )


def _captures(files: _Files, start: int, end: int, size: int, rate: float) -> tuple[Capture, ...]:
    sections: list[dict[str, Any]] = list(files.metadata["captures"])
    if not sections or int(sections[0]["core:sample_start"]) > start:
        sections.insert(0, {"core:sample_start": start})  # samples that no capture describes
    ends = [int(section["core:sample_start"]) for section in sections[1:]] + [end]
    captures: list[Capture] = []
    byte_start, clock = files.data_start, _Clock(rate)
    for section, capture_end in zip(sections, ends, strict=True):
        position = int(section["core:sample_start"])
        byte_start += int(section.get("core:header_bytes", 0))
        if capture_end > position:
            captures.append(
                Capture(
                    sample_start=position,
                    sample_count=capture_end - position,
                    byte_start=byte_start,
                    frequency=_float(section.get("core:frequency")),
                    datetime=section.get("core:datetime"),
                    radio_lost=clock.lost(section, position),
                )
            )
        byte_start += (capture_end - position) * size
    return tuple(captures)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


class _Clock:
    """Compares what the radio counted (or its clock said) with what was recorded, from capture to capture."""

    def __init__(self, sample_rate: float) -> None:
        self._rate = Fraction(sample_rate)
        self._index: tuple[int, int] | None = None
        self._time: tuple[Fraction, Fraction, int] | None = None

    def lost(self, section: Mapping[str, Any], position: int) -> int:
        """Samples lost between the capture before and this one, which starts at ``position``."""
        by_time = self._lost_by_time(section.get("core:datetime"), position)
        by_index = self._lost_by_index(section.get("core:global_index"), position)
        return by_time if by_index is None else by_index

    def _lost_by_index(self, index: int | None, position: int) -> int | None:
        if index is None:
            return None
        last, self._index = self._index, (int(index), position)
        return None if last is None else samples_lost(int(index) - last[0] - (position - last[1]))

    def _lost_by_time(self, stamp: str | None, position: int) -> int:
        seconds = epoch_seconds(stamp)
        if stamp is None or seconds is None:
            return 0
        resolution = _resolution(stamp)
        last, self._time = self._time, (seconds, resolution, position)
        if last is None:
            return 0
        jump = (seconds - last[0]) * self._rate - (position - last[2])
        # Stamps are rounded to their last digit: a jump that this alone explains is no loss.
        return samples_lost(jump) if jump >= max(resolution, last[1]) * self._rate else 0


def _resolution(stamp: str) -> Fraction:
    match = _DATETIME.fullmatch(stamp)
    return Fraction(1, 10 ** len(match[3] or "")) if match else Fraction(1)


def _verify(recording: Recording) -> None:
    expected = recording.metadata["global"].get("core:sha512")
    if expected is None:
        raise RecordingError(f"{recording.meta_path} has no core:sha512 to compare with; open it without verifying")
    digest = hashlib.sha512()
    with _open(recording.data_path) as file:
        file.seek(recording.data_start)
        left = recording.data_size
        while left and (chunk := file.read(min(left, 2**20))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != expected.lower():
        raise RecordingError(f"{recording.data_path} does not match its core:sha512; it was changed or damaged")


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
