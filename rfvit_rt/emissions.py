# SPDX-License-Identifier: Apache-2.0
"""Boxes that recur in one band → one emission, with its first and last appearance and its duty cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rfvit_rt.datatypes import Annotation, Emission

MIN_BAND_OVERLAP = 0.5  # intersection over union of two bands that are taken for one
OPEN_INTERVALS = 64  # intervals kept apart per emission, to place annotations that come late
OPEN_STRETCHES = 64  # stretches of samples kept apart per centre frequency, likewise
OPEN_FREQUENCIES = 64  # centre frequencies kept apart per emission, where a radio follows a drifting signal
MOST_FREQUENCIES = 100_000  # centre frequencies of which it is known how long they were heard
MOST_OPEN = 2000  # emissions that an annotation may join; a sweep over 6 GHz full of 5 MHz carriers meets 1200


class EmissionTracker:
    """Recurring annotations of one label in one band, as emissions.

    An annotation joins the emission of its label whose band overlaps its own most, if intersection over union is at
    least `min_overlap`; else it begins one. An emission's band is the mean of its annotations', weighted by their
    durations. Pieces of one long box (`SegmentSettings.max_duration`) count as bursts of their own.

    Emissions are open: annotations may join them. Where there are too many, the one that none joined for longest has
    ended and is let go; what comes in its band later begins another. So memory and the work for an annotation depend on
    the number of open emissions, however long the stream.

    The duty cycle is a share of what was listened to: samples that were lost, or that came from another centre
    frequency of a survey, are neither on air nor off. It counts time covered by several annotations once; that is
    exact as long as an annotation comes at most `OPEN_INTERVALS` separate intervals late.

    Parameters
    ----------
    min_overlap : float
        Intersection over union from which two bands are one, 0 to 1.
    most : int
        Emissions that are open at once.

    Attributes
    ----------
    let_go : int
        Emissions that were let go.
    """

    def __init__(self, min_overlap: float = MIN_BAND_OVERLAP, most: int = MOST_OPEN) -> None:
        self.min_overlap = min_overlap
        self.most = most
        self.let_go = 0
        self._open: list[_Track] = []  # in order of their last annotations' coming
        self._heard: dict[float | None, _Heard] = {}  # by centre frequency, in order of their last samples
        self._heard_before: dict[float | None, int] = {}  # samples, of those that are kept no longer, likewise

    @property
    def count(self) -> int:
        """All emissions so far, those let go included."""
        return self.let_go + len(self._open)

    def listen(self, sample_start: int, sample_end: int, frequency: float | None) -> None:
        """Note that samples were analysed, before the annotations in them; a stream of which this never is has no gaps.

        Parameters
        ----------
        sample_start, sample_end : int
            Stream positions of the first sample and just past the last.
        frequency : float or None
            Centre frequency in Hz, as the annotations have it.
        """
        heard = self._heard.pop(frequency, None)
        if heard is None:
            heard = _Heard(sample_start, self._heard_before.pop(frequency, sample_start))
        heard.add(sample_start, sample_end)
        self._heard[frequency] = heard
        if len(self._heard) > self.most:
            oldest = next(iter(self._heard))
            self._heard_before[oldest] = self._heard.pop(oldest).total
        if len(self._heard_before) > MOST_FREQUENCIES:
            del self._heard_before[next(iter(self._heard_before))]

    def add(self, annotation: Annotation) -> Emission | None:
        """Take up one annotation; give the emission that has to be let go for it, if any."""
        track = self._find(annotation)
        if track is None:
            track = _Track(annotation)
        else:
            self._open.remove(track)
        track.add(annotation, self._heard.get(annotation.frequency))
        self._open.append(track)
        if len(self._open) <= self.most:
            return None
        self.let_go += 1
        return self._open.pop(0).emission()

    def emissions(self) -> list[Emission]:
        """Give the open emissions, in order of label and band."""
        return sorted((track.emission() for track in self._open), key=_place)

    def latest(self, count: int) -> list[Emission]:
        """Give at most so many of the open emissions: those that an annotation came to last, the newest first."""
        return [track.emission() for track in self._open[::-1][:count]]

    def _find(self, annotation: Annotation) -> _Track | None:
        """Find the open emission that the annotation joins."""
        near = [
            track
            for track in self._open
            if track.label == annotation.label
            and track.lower < annotation.freq_upper_edge
            and track.upper > annotation.freq_lower_edge
            and track.is_absolute == (annotation.frequency is not None)
        ]
        nearest = max(near, key=lambda track: track.overlap(annotation), default=None)
        return nearest if nearest and nearest.overlap(annotation) >= self.min_overlap else None


def track_emissions(annotations: Iterable[Annotation], min_overlap: float = MIN_BAND_OVERLAP) -> list[Emission]:
    """Gather recurring annotations to emissions, and keep them all; see `EmissionTracker`."""
    tracker = EmissionTracker(min_overlap)
    ended = [emission for annotation in annotations if (emission := tracker.add(annotation))]
    return sorted([*ended, *tracker.emissions()], key=_place)


def _place(emission: Emission) -> tuple[str, float, float, int]:
    return emission.label, emission.freq_lower_edge, emission.freq_upper_edge, emission.first_seen


class _Heard:
    """How many samples before a position were heard at one centre frequency, `before` of them before the first."""

    def __init__(self, first: int, before: int) -> None:
        self.stretches: deque[tuple[int, int, int]] = deque([(first, first, before)], OPEN_STRETCHES)

    @property
    def total(self) -> int:
        """How many were heard so far."""
        first, last, before = self.stretches[-1]
        return before + last - first

    def add(self, start: int, end: int) -> None:
        """Take up the next samples; what lies before the last ones counts already, as after a sender's restart."""
        first, last, before = self.stretches[-1]
        start = max(start, last)
        if end <= start:
            return
        if start <= last + 1:  # where windows are not whole numbers of samples, their ends are rounded
            self.stretches[-1] = (first, end, before)
        else:
            self.stretches.append((start, end, before + last - first))

    def until(self, position: int) -> int:
        """Count the samples before a position; before the oldest stretch that is kept, as if none were missing."""
        for start, end, before in reversed(self.stretches):
            if position >= start:
                return before + min(position, end) - start
        start, _, before = self.stretches[0]
        return before - (start - position)


class _Track:
    """Running sums of one emission."""

    def __init__(self, first: Annotation) -> None:
        self.label = first.label
        self.is_absolute = first.frequency is not None
        self.lower, self.upper = first.freq_lower_edge, first.freq_upper_edge
        self.first_seen, self.last_seen = first.sample_start, first.sample_end
        self.burst_count = 0
        self.duration = 0.0
        self.confidence = 0.0  # sum, weighted by duration
        self.covered = 0  # samples before `folded`
        self.folded = first.sample_start
        self.intervals: list[tuple[int, int]] = []  # apart from each other, ascending, all after `folded`
        # By centre frequency: samples heard before the first annotation, and up to the end of the last.
        self.listened: dict[float | None, tuple[int, int]] = {}
        self.listened_before = 0  # samples, at centre frequencies that are kept apart no longer

    def overlap(self, annotation: Annotation) -> float:
        """Intersection over union of two bands that share something."""
        shared = min(self.upper, annotation.freq_upper_edge) - max(self.lower, annotation.freq_lower_edge)
        union = max(self.upper, annotation.freq_upper_edge) - min(self.lower, annotation.freq_lower_edge)
        return shared / union

    def add(self, annotation: Annotation, heard: _Heard | None) -> None:
        """Take up an annotation in what was heard; where nothing is known of that, there were no gaps."""
        bounds = annotation.sample_start, annotation.sample_end
        first, last = (heard.until(bound) for bound in bounds) if heard else bounds
        before = self.listened.pop(annotation.frequency, (first, last))
        self.listened[annotation.frequency] = min(first, before[0]), max(last, before[1])
        if len(self.listened) > OPEN_FREQUENCIES:
            oldest = self.listened.pop(next(iter(self.listened)))
            self.listened_before += oldest[1] - oldest[0]
        duration = annotation.sample_count / annotation.sample_rate
        self.duration += duration
        share = duration / self.duration
        self.lower += share * (annotation.freq_lower_edge - self.lower)
        self.upper += share * (annotation.freq_upper_edge - self.upper)
        self.confidence += duration * annotation.confidence
        self.burst_count += 1
        self.first_seen = min(self.first_seen, annotation.sample_start)
        self.last_seen = max(self.last_seen, annotation.sample_end)
        self._cover(annotation.sample_start, annotation.sample_end)

    def _cover(self, start: int, end: int) -> None:
        if not self.covered:
            self.folded = min(self.folded, start)
        start = max(start, self.folded)
        if end <= start:
            return
        apart = [interval for interval in self.intervals if interval[1] < start or interval[0] > end]
        joined = [interval for interval in self.intervals if not (interval[1] < start or interval[0] > end)]
        bounds = [*joined, (start, end)]
        self.intervals = sorted([*apart, (min(b[0] for b in bounds), max(b[1] for b in bounds))])
        if len(self.intervals) > OPEN_INTERVALS:
            oldest = self.intervals.pop(0)
            self.covered += oldest[1] - oldest[0]
            self.folded = oldest[1]

    def emission(self) -> Emission:
        covered = self.covered + sum(end - start for start, end in self.intervals)
        listened = self.listened_before + sum(last - first for first, last in self.listened.values())
        return Emission(
            label=self.label,
            freq_lower_edge=self.lower,
            freq_upper_edge=self.upper,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            burst_count=self.burst_count,
            duty_cycle=covered / max(covered, listened),
            confidence=self.confidence / self.duration,
            is_absolute=self.is_absolute,
        )
