# SPDX-License-Identifier: Apache-2.0
"""Boxes that recur in one band → one emission, with its first and last appearance and its duty cycle."""

from __future__ import annotations

from collections.abc import Iterable

from rfvit_rt.datatypes import Annotation, Emission

MIN_BAND_OVERLAP = 0.5  # intersection over union of two bands that are taken for one
OPEN_INTERVALS = 64  # intervals kept apart per emission, to place annotations that come late


class EmissionTracker:
    """Recurring annotations of one label in one band, as emissions.

    An annotation joins the emission of its label whose band overlaps its own most, if intersection over union is at
    least `min_overlap`; else it begins one. An emission's band is the mean of its annotations', weighted by their
    durations. Pieces of one long box (`SegmentSettings.max_duration`) count as bursts of their own.

    Memory grows with the number of emissions, not of annotations. The duty cycle counts time covered by several
    annotations once; that is exact as long as an annotation comes at most `OPEN_INTERVALS` separate intervals late.

    Parameters
    ----------
    min_overlap : float
        Intersection over union from which two bands are one, 0 to 1.
    """

    def __init__(self, min_overlap: float = MIN_BAND_OVERLAP) -> None:
        self.min_overlap = min_overlap
        self._tracks: list[_Track] = []

    def add(self, annotation: Annotation) -> None:
        """Take up one annotation."""
        overlap, track = max(
            ((track.overlap(annotation), track) for track in self._tracks),
            key=lambda item: item[0],
            default=(0.0, None),
        )
        if track is None or overlap < self.min_overlap or overlap == 0:
            track = _Track(annotation)
            self._tracks.append(track)
        track.add(annotation)

    def emissions(self) -> list[Emission]:
        """Give all emissions so far, in order of label and band."""
        emissions = [track.emission() for track in self._tracks]
        return sorted(emissions, key=lambda e: (e.label, e.freq_lower_edge, e.freq_upper_edge, e.first_seen))


def track_emissions(annotations: Iterable[Annotation], min_overlap: float = MIN_BAND_OVERLAP) -> list[Emission]:
    """Gather recurring annotations to emissions; see `EmissionTracker`."""
    tracker = EmissionTracker(min_overlap)
    for annotation in annotations:
        tracker.add(annotation)
    return tracker.emissions()


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

    def overlap(self, annotation: Annotation) -> float:
        """Intersection over union of the bands; 0 for another label or another kind of frequency."""
        if annotation.label != self.label or (annotation.frequency is not None) != self.is_absolute:
            return 0.0
        shared = min(self.upper, annotation.freq_upper_edge) - max(self.lower, annotation.freq_lower_edge)
        union = max(self.upper, annotation.freq_upper_edge) - min(self.lower, annotation.freq_lower_edge)
        return shared / union if shared > 0 else 0.0

    def add(self, annotation: Annotation) -> None:
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
        return Emission(
            label=self.label,
            freq_lower_edge=self.lower,
            freq_upper_edge=self.upper,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            burst_count=self.burst_count,
            duty_cycle=covered / (self.last_seen - self.first_seen),
            confidence=self.confidence / self.duration,
        )
