# SPDX-License-Identifier: Apache-2.0
"""Labelled windows: recordings cut by the runtime's own :func:`rfvit_rt.csi.csi_windows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.csi import CSISpec, csi_windows
from rfvit_rt.errors import RecordingError
from training.activity.datasets import DataSet, LabelledRecording


@dataclass(frozen=True, eq=False)
class Examples:
    """Windows with the label that most of their frames have.

    Attributes
    ----------
    amplitudes : list of (window_steps, antenna, subcarrier) float32
    labels : (window,) int64
        Index into `names`.
    recordings : (window,) int64
        Recording that a window was cut from; windows of one recording are never on two sides of a split.
    subjects, rooms, sessions : (window,) str
    held_out : (window,) bool
        As :class:`training.activity.datasets.LabelledRecording` says.
    names : tuple of str
    """

    amplitudes: list[NDArray[np.float32]]
    labels: NDArray[np.int64]
    recordings: NDArray[np.int64]
    subjects: NDArray[np.str_]
    rooms: NDArray[np.str_]
    sessions: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def examples(data: DataSet, spec: CSISpec, hop: float) -> Examples:
    """Cut all recordings into windows.

    Windows without a label are left out, and so are recordings in which no stretch is as long as a window.

    Raises
    ------
    RecordingError
        If nothing is left.
    SpecMismatch
        If a recording does not fit the spec.
    """
    amplitudes: list[NDArray[np.float32]] = []
    labels, origins = [], []
    for number, recording in enumerate(data.recordings):
        for window in csi_windows(recording.frames(), spec, hop):
            label = label_between(recording, window.time_start, window.time_end)
            if label >= 0:
                amplitudes.append(window.amplitude)
                labels.append(label)
                origins.append(number)
    if not amplitudes:
        raise RecordingError(
            f"no recording of {data.name} holds a labelled window of {spec.window_seconds:g} s without a gap over "
            f"{spec.max_gap:g} s; give longer ones, or a recipe with shorter windows"
        )

    def of_windows(values: Sequence[str]) -> NDArray[np.str_]:
        return np.array(values)[origins]

    recordings = data.recordings
    return Examples(
        amplitudes=amplitudes,
        labels=np.array(labels, np.int64),
        recordings=np.array(origins, np.int64),
        subjects=of_windows([recording.subject for recording in recordings]),
        rooms=of_windows([recording.room for recording in recordings]),
        sessions=of_windows([recording.session for recording in recordings]),
        held_out=np.array([recording.held_out for recording in recordings])[origins],
        names=data.labels,
    )


def label_between(recording: LabelledRecording, time_start: float, time_end: float) -> int:
    """The label that most frames between two times have; -1 where they have none."""
    first, last = np.searchsorted(recording.timestamps, (time_start, time_end))
    return int(np.argmax(np.bincount(recording.labels[first:last] + 1))) - 1
