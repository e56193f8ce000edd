# SPDX-License-Identifier: Apache-2.0
"""What a run can be asked for while it goes: counts, and how long things take, without an end to wait for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds in s: fine about a window's 40 ms, and up to where nobody calls it real time any more."""


@dataclass
class Histogram:
    """Durations, counted by size; one thread may count while others read.

    Attributes
    ----------
    bounds : tuple of float
        Upper bounds in s, ascending; a duration counts under the first that it does not exceed.
    counts : list of int
        One for every bound, and one for what exceeds all of them.
    total : float
        Sum of all durations in s.
    """

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass(frozen=True)
class SegmentationFigures:
    """How the segmentation of a stream is doing.

    Attributes
    ----------
    samples, windows : int
        Read from the source, and analysed.
    lost : mapping of str to int
        Samples that did not reach the model, by cause.
    restarts : int
        Times the sender began anew.
    recorded : bool or None
        Whether a recording is read or replayed; None before the run has begun.
    simulated : bool
        Whether it is known of a stream that no radio received it.
    sample_rate, frequency : float or None
        Of the newest window, in Hz; None before the first, or where unknown.
    sample_age : Histogram
        From a window's last sample to its result.
    stages : mapping of str to Histogram
        What a window spent in each stage.
    """

    samples: int
    windows: int
    lost: Mapping[str, int]
    restarts: int
    recorded: bool | None
    simulated: bool
    sample_rate: float | None
    frequency: float | None
    sample_age: Histogram
    stages: Mapping[str, Histogram]


@dataclass(frozen=True)
class SensingFigures:
    """How sensing is doing.

    Attributes
    ----------
    frames, windows : int
        Used, and analysed.
    lost : int
        Frames lost on the way.
    dropped, foreign, malformed : int
        Packets that came too fast, of other senders, and unreadable.
    restarts : int
        Times the device's clock was set back, or another sender was followed.
    recorded : bool
        Whether nothing of it is live.
    result_age : Histogram
        From a window's last frame to its result; empty where frames come from a file.
    """

    frames: int
    windows: int
    lost: int
    dropped: int
    foreign: int
    malformed: int
    restarts: int
    recorded: bool
    result_age: Histogram


Figures = SegmentationFigures | SensingFigures
