# SPDX-License-Identifier: Apache-2.0
"""Window scores → activity intervals: overlapping windows pooled, with hysteresis and an answer of "unknown".

The windows' starts cut time into slots, and the windows' ends cut what follows the last start. A slot's probabilities
are the mean of those of all windows that cover its middle (a linear opinion pool: Stone, 1961), so that an activity
changes where most of the windows around say so, neither early nor late. The label of a slot then follows from it and
from the slot before:

1. The likeliest label, where its probability is at least `threshold`.
2. Else the label of the slot before, while its probability is at least `threshold` less `hysteresis`.
3. Else ``unknown``.

Neighbouring slots of one label are one interval. A gap or a restart of the stream ends a segment; nothing is pooled,
kept or joined across its border.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Activity

UNKNOWN = "unknown"
_SHORTEST_SLOT = 1e-3  # s: edges that are closer than this differ by rounding


@dataclass(frozen=True)
class ActivitySettings:
    """How sure an answer must be.

    Attributes
    ----------
    threshold : float
        Probability that a label needs to be the answer, 0 to 1.
    hysteresis : float
        How far the probability of the present answer may sink below the threshold before it becomes unknown.
    """

    threshold: float = 0.5
    hysteresis: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or not 0 <= self.hysteresis <= 1:
            raise ValueError(f"threshold and hysteresis lie from 0 to 1, got {self.threshold} and {self.hysteresis}")


@dataclass(frozen=True, eq=False)
class WindowScores:
    """What the model says of one window.

    Attributes
    ----------
    probabilities : (class,) float32
        Sums to one.
    time_start, time_end : float
        Seconds on the clock of the frames' time stamps.
    frame_indices : (frame,) int64
        Positions, in the sender's own count, of the frames that the window was made of; ascending, at least one.
    segment : int
        Number of the uninterrupted stretch of stream that it was cut from.
    """

    probabilities: NDArray[np.float32]
    time_start: float
    time_end: float
    frame_indices: NDArray[np.int64]
    segment: int = 0

    @property
    def frame_start(self) -> int:
        """Position of the first frame."""
        return int(self.frame_indices[0])

    @property
    def frame_end(self) -> int:
        """Position just past the last frame."""
        return int(self.frame_indices[-1]) + 1

    @property
    def frame_rate(self) -> float:
        """Frames that arrived per second."""
        return len(self.frame_indices) / (self.time_end - self.time_start)

    @property
    def lost(self) -> int:
        """Frames that did not arrive."""
        return self.frame_end - self.frame_start - len(self.frame_indices)


def window_label(
    probabilities: NDArray[np.float32], labels: Sequence[str], settings: ActivitySettings
) -> tuple[str, float]:
    """Answer for one window alone: its likeliest label, or unknown, and the likeliest label's probability."""
    likeliest = int(probabilities.argmax())
    confidence = float(probabilities[likeliest])
    return (labels[likeliest] if confidence >= settings.threshold else UNKNOWN), confidence


def intervals(
    windows: Iterable[WindowScores], labels: Sequence[str], settings: ActivitySettings = ActivitySettings()
) -> Iterator[Activity]:
    """Join window scores to activity intervals by the rule that this module states.

    Parameters
    ----------
    windows : iterable of WindowScores
        In stream order; of one segment, each starts after the one before.
    labels : sequence of str
        Name of every class.
    settings : ActivitySettings

    Yields
    ------
    Activity
        As soon as it is over, in stream order. Within a segment they neither overlap nor leave a moment out that a
        window covers. The confidence of ``unknown`` is the mean probability of what was likeliest.

    Examples
    --------
    >>> scores = WindowScores(np.array([0.1, 0.9]), 0.0, 2.0, np.arange(40))
    >>> [activity.label for activity in intervals([scores], ("walk", "sit"))]
    ['sit']
    """
    growing: _Interval | None = None
    for slot in _slots(windows):
        before = growing.label if growing and growing.segment == slot.segment else None
        label, confidence = _decide(slot.probabilities, labels, before, settings)
        if growing and before == label and growing.time_end == slot.time_start:
            growing.extend(slot, confidence)
            continue
        if growing:
            yield growing.activity()
        growing = _Interval(label, slot, confidence)
    if growing:
        yield growing.activity()


def _decide(
    probabilities: NDArray[np.float64], labels: Sequence[str], before: str | None, settings: ActivitySettings
) -> tuple[str, float]:
    likeliest = int(probabilities.argmax())
    confidence = float(probabilities[likeliest])
    if confidence >= settings.threshold:
        return labels[likeliest], confidence
    if before is not None and before in labels:
        kept = float(probabilities[labels.index(before)])
        if kept >= settings.threshold - settings.hysteresis:
            return before, kept
    return UNKNOWN, confidence


@dataclass(frozen=True, eq=False)
class _Slot:
    """A stretch between two edges of windows, with no edge inside.

    Attributes
    ----------
    probabilities : (class,) float64
        Pooled.
    time_start, time_end : float
        In s.
    frame_start, frame_end : int
        Position of its first frame, and the one just past its last.
    arrived : int
        Frames of it that arrived.
    segment : int
    """

    probabilities: NDArray[np.float64]
    time_start: float
    time_end: float
    frame_start: int
    frame_end: int
    arrived: int
    segment: int


@dataclass(frozen=True)
class _Edge:
    time: float
    frame: int


def _slots(windows: Iterable[WindowScores]) -> Iterator[_Slot]:
    recent: deque[WindowScores] = deque()  # those that may cover what is not given out yet
    for window in windows:
        if recent and recent[-1].segment != window.segment:
            yield from _last_slots(recent)
            recent.clear()
        if recent:
            last = recent[-1]
            if window.time_start > last.time_end:
                yield from _last_slots(recent)
                recent.clear()
            else:
                yield _pooled(recent, _start(last), _start(window))
                while recent and recent[0].time_end <= window.time_start:
                    recent.popleft()
        recent.append(window)
    if recent:
        yield from _last_slots(recent)


def _last_slots(recent: Sequence[WindowScores]) -> Iterator[_Slot]:
    """Slots from the last window's start on: no further window covers them."""
    edges = [_start(recent[-1])]
    for window in recent:
        if window.time_end - edges[-1].time >= _SHORTEST_SLOT:
            edges.append(_Edge(window.time_end, window.frame_end))
    edges[-1] = _Edge(recent[-1].time_end, recent[-1].frame_end)
    for start, end in pairwise(edges):
        yield _pooled(recent, start, end)


def _start(window: WindowScores) -> _Edge:
    return _Edge(window.time_start, window.frame_start)


def _pooled(recent: Sequence[WindowScores], start: _Edge, end: _Edge) -> _Slot:
    middle = (start.time + end.time) / 2
    covering = [w.probabilities for w in recent if w.time_start <= middle <= w.time_end]
    last = recent[-1]
    arrived = np.searchsorted(last.frame_indices, (start.frame, end.frame))
    return _Slot(
        probabilities=np.mean(covering, axis=0, dtype=np.float64),
        time_start=start.time,
        time_end=end.time,
        frame_start=start.frame,
        frame_end=end.frame,
        arrived=int(arrived[1] - arrived[0]),
        segment=last.segment,
    )


class _Interval:
    """An interval that still grows."""

    def __init__(self, label: str, slot: _Slot, confidence: float) -> None:
        self.label = label
        self.segment = slot.segment
        self._first = slot
        self._weight = 0.0
        self._arrived = 0
        self.extend(slot, confidence)

    @property
    def time_end(self) -> float:
        return self._last.time_end

    def extend(self, slot: _Slot, confidence: float) -> None:
        self._last = slot
        self._weight += confidence * (slot.time_end - slot.time_start)
        self._arrived += slot.arrived

    def activity(self) -> Activity:
        first, last = self._first, self._last
        duration = last.time_end - first.time_start
        frame_count = last.frame_end - first.frame_start
        return Activity(
            label=self.label,
            time_start=first.time_start,
            time_end=last.time_end,
            frame_start=first.frame_start,
            frame_count=frame_count,
            confidence=min(self._weight / duration, 1.0),
            frame_rate=self._arrived / duration,
            lost=frame_count - self._arrived,
        )
