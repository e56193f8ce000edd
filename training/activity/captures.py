# SPDX-License-Identifier: Apache-2.0
"""A user's own captures with labels: a folder for each label, or a CSV that says what is where."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import RecordingError
from rfvit_rt.sources.csi import open_csi
from training.activity.datasets import DataSet, LabelledRecording

SUFFIXES = (".pcap", ".dat", ".csv", ".txt", ".log")
COLUMNS = ("file", "start", "end", "label")


@dataclass(frozen=True)
class Clip:
    """A stretch of a capture with one label; times in seconds from the capture's first frame."""

    file: Path
    start: float
    end: float
    label: str


def read_captures(path: Path, tell: Callable[[str], None] = lambda line: None) -> DataSet:
    """Read labelled captures.

    Parameters
    ----------
    path : Path
        A folder that holds a folder of captures for each label; or a CSV file with the columns file, start, end and
        label, start and end in seconds from the capture's first frame, or empty for all of it. Files are relative to
        the CSV's folder.
    tell : callable, optional
        Is told, in a line each, what was read.

    Raises
    ------
    RecordingError
        If there are no captures, fewer than two labels, or a file cannot be read.
    """
    clips = _clips_of_table(path) if path.is_file() else _clips_of_folders(path)
    labels = tuple(sorted({clip.label for clip in clips}))
    if len(labels) < 2:
        raise RecordingError(
            f"{path} holds captures of {len(labels)} label{'' if len(labels) == 1 else 's'}; a model needs two or "
            "more: give a folder for each label, or a CSV with the columns " + ", ".join(COLUMNS)
        )
    recordings: list[LabelledRecording] = []
    for file in sorted({clip.file for clip in clips}):
        frames = read_frames(file)
        origin = frames[0].timestamp
        tell(f"{file}: {len(frames):,} frames in {frames[-1].timestamp - origin:.1f} s, {frames[0].device}")
        for clip in (clip for clip in clips if clip.file == file):
            inside = [frame for frame in frames if clip.start <= frame.timestamp - origin < clip.end]
            recordings += stretches(inside, labels.index(clip.label), str(file))
    return DataSet(path.name, labels, recordings)


def read_frames(file: Path) -> list[CSIFrame]:
    """All frames of a capture.

    Raises
    ------
    RecordingError
        If the file is missing, damaged, or holds no frame.
    """
    with open_csi(file) as source:
        frames = list(source)
    if not frames:
        raise RecordingError(f"{file} holds no CSI frame; record again")
    return frames


def stretches(frames: Iterable[CSIFrame], label: int, session: str) -> list[LabelledRecording]:
    """Frames as recordings of one device and one shape each."""
    groups: list[list[CSIFrame]] = []
    for frame in frames:
        if not groups or not _alike(groups[-1][-1], frame):
            groups.append([])
        groups[-1].append(frame)
    return [_recording(group, label, session) for group in groups]


def _alike(one: CSIFrame, other: CSIFrame) -> bool:
    return (
        one.device == other.device
        and one.csi.shape == other.csi.shape
        and np.array_equal(one.subcarriers, other.subcarriers)
        and (one.rssi is None) == (other.rssi is None)
    )


def _recording(frames: list[CSIFrame], label: int, session: str) -> LabelledRecording:
    rssi = [frame.rssi for frame in frames if frame.rssi is not None]
    return LabelledRecording(
        csi=np.stack([frame.csi for frame in frames]),
        subcarriers=frames[0].subcarriers,
        timestamps=np.array([frame.timestamp for frame in frames]),
        labels=np.full(len(frames), label, np.int64),
        session=session,
        device=frames[0].device,
        rssi=np.stack(rssi) if rssi else None,
    )


def _clips_of_folders(path: Path) -> list[Clip]:
    files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise RecordingError(
            f"{path} holds no captures; give a folder that holds one folder for each label, with files of the kinds "
            + ", ".join(SUFFIXES)
        )
    return [Clip(file, 0.0, math.inf, file.parent.name) for file in files]


def _clips_of_table(path: Path) -> list[Clip]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(
            f"cannot read {path} ({error}); give a CSV with the columns {', '.join(COLUMNS)}"
        ) from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise RecordingError(
            f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(COLUMNS)}"
        )
    clips = [_clip(path, number, row) for number, row in enumerate(rows, 2)]
    for one, other in pairwise(sorted(clips, key=lambda clip: (clip.file, clip.start))):
        if one.file == other.file and other.start < one.end:
            raise RecordingError(
                f"{path} labels {one.file.name} twice from {other.start:g} s on, as {one.label} and as {other.label}; "
                "rows of one file must not overlap, or frames would be learnt and validated with"
            )
    return clips


def _clip(path: Path, line: int, row: dict[str, str | None]) -> Clip:
    label = (row["label"] or "").strip()
    try:
        start, end = float(row["start"] or 0), float(row["end"] or math.inf)
    except ValueError as error:
        raise RecordingError(f"line {line} of {path}: start and end are seconds ({error})") from error
    if not label or not row["file"] or not start < end:
        raise RecordingError(f"line {line} of {path} needs a file, a label, and a start before its end")
    return Clip(path.parent / str(row["file"]).strip(), start, end, label)
