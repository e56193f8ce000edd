# SPDX-License-Identifier: Apache-2.0
"""Masks → annotations: labelled pixels gathered to boxes in absolute sample index and Hz, in constant memory.

A *segment* here is a stretch of stream without a gap, a retune or a change of sample rate. No box is joined across the
border of a segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rfvit_rt.datatypes import Annotation, Mask

BLOCK_STEPS = 128  # boxes are grown in blocks of this many steps, counted from the segment's start: 20 ms at 156.25 us
OTHER = "other"  # label of signals that have no name, in models that have it
LEAST_LEFT = 0.01  # share of a region's pixels from which what its main bands leave over may be a box of its own
FAR = 1 << 30  # further away, in steps or bins, than any closing tolerance


@dataclass(frozen=True)
class SegmentSettings:
    """How pixels are gathered to boxes.

    A pixel carries a signal where all classes but background have at least the probability `stay` together, and the
    likeliest of them is its label. Labelled pixels are closed over gaps in time, then in frequency; what touches is one
    region. A region counts if a signal reaches the probability `enter` in at least one of its pixels.

    Attributes
    ----------
    enter : float
        Probability of a signal that begins a region, 0 to 1.
    stay : float
        Probability that continues one, 0 to 1.
    time_gap : float
        Longest silence inside a region in s. The default joins an LTE carrier's subframes, TDD uplink included;
        NR's SSB bursts, 20 ms apart, stay boxes of their own and meet again in an emission.
    frequency_gap : float
        Widest empty band inside a region in Hz. The guard between neighbouring carriers is wider from LTE's 10 MHz
        channels on (1 MHz: TS 36.104, table 5.6-1); narrower channels side by side become one box as a rule.
    frequency_gap_bins : int
        The same in bins, for spectra whose bins are wide; the larger of the two holds.
    min_duration : float
        Boxes shorter than this are dropped, in s.
    min_bandwidth : float
        Boxes narrower than this are dropped, in Hz. The default is one resource block of LTE.
    min_pixels : int
        Boxes with fewer labelled pixels are dropped.
    min_confidence : float
        Boxes whose label has a lower mean probability are dropped, 0 to 1.
    name_confidence : float
        Boxes whose label has a lower mean probability are called `OTHER`, 0 to 1, where the model has that label: a
        signal is there, but its name is more likely wrong than right. The confidence stays that of the likeliest name.
    edge_share : float
        A bin belongs to a box if it is labelled at least this share as often as the box's typical bin, 0 to 1.
    max_duration : float
        A region that lasts longer is given out in pieces of this length, in s, so that an endless carrier is
        reported while it lasts. Rounded to whole blocks of `BLOCK_STEPS` steps, at least one.
    """

    enter: float = 0.6
    stay: float = 0.5
    time_gap: float = 6e-3
    frequency_gap: float = 400e3
    frequency_gap_bins: int = 2
    min_duration: float = 150e-6
    min_bandwidth: float = 180e3
    min_pixels: int = 16
    min_confidence: float = 0.35
    name_confidence: float = 0.5
    edge_share: float = 0.1
    max_duration: float = 1.0

    def __post_init__(self) -> None:
        for name in ("enter", "stay", "min_confidence", "name_confidence", "edge_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        if self.stay > self.enter:
            raise ValueError(f"stay is {self.stay}, above enter, {self.enter}; expected at most that")
        for name in ("time_gap", "frequency_gap", "frequency_gap_bins", "min_duration", "min_bandwidth"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not self.max_duration > 0:
            raise ValueError(f"max_duration is {self.max_duration}; expected more than 0")


DEFAULT_SETTINGS = SegmentSettings()


def annotate(
    masks: Iterable[Mask], labels: Sequence[str], settings: SegmentSettings = DEFAULT_SETTINGS
) -> Iterator[Annotation]:
    """Gather labelled pixels to boxes in absolute sample index and Hz.

    A region (see `SegmentSettings`) becomes a box over the bins that are labelled often enough: each at least
    `edge_share` times as often as the typical bin, the one in which the median labelled pixel lies. So stray pixels
    neither widen a box nor tie two carriers together: where a region falls apart into bands further apart than the
    frequency tolerance, each band is a box of its own. A box lasts from the first to the last labelled pixel of
    those bins. What is left of a region further away from them than that is judged in the same way, and has to be
    substantial as well, with `LEAST_LEFT` of the region's pixels and its typical bin labelled at least half of the
    time: a short carrier that stray pixels tie to a long one is a box, what a model scatters beside one is not.

    The result does not depend on how the stream is cut into masks (positions may differ by one sample where a step
    is not a whole number of samples). A box is given out once nothing later can change its region: at most about one
    block plus twice the time tolerance after the region's end, and an endless one every `max_duration`; its pieces
    abut.

    Parameters
    ----------
    masks : iterable of Mask
        Consecutive ones that do not overlap, as `stitch` yields them. A gap, a retune or a change of rate ends all
        boxes.
    labels : sequence of str
        Name of every class; the first is background.
    settings : SegmentSettings
        Thresholds and tolerances.

    Yields
    ------
    Annotation
        In order of their ends, roughly; those that become final together in order of ``sample_start``. Edges are in
        Hz, absolute where the centre frequency is known, else relative to the centre.

    Raises
    ------
    ValueError
        If a mask has another number of classes than there are labels.
    """
    segment: _Segment | None = None
    for mask in masks:
        if mask.probabilities.shape[2] != len(labels):
            raise ValueError(f"a mask has {mask.probabilities.shape[2]} classes; the labels are {list(labels)}")
        if mask.step_count == 0:
            continue
        if segment is not None and not segment.reaches(mask):
            yield from segment.finish()
            segment = None
        if segment is None:
            segment = _Segment(mask, labels, settings)
        segment.add(mask)
        yield from segment.grow()
    if segment is not None:
        yield from segment.finish()


class _Segment:
    """Regions of all labels in one segment, grown block by block.

    Blocks are counted from the segment's start, so the cutting of the stream into masks leaves no trace. A block is
    grown once the steps that its gaps may be closed by, `time_gap` more, are there as well.
    """

    def __init__(self, first: Mask, labels: Sequence[str], settings: SegmentSettings) -> None:
        step_duration = first.sample_count / first.step_count / first.sample_rate
        bins = first.probabilities.shape[1]
        self.last = first
        self.labels = labels
        self.settings = settings
        self.time_gap = round(settings.time_gap / step_duration)
        self.frequency_gap = max(settings.frequency_gap_bins, round(settings.frequency_gap / first.bin_width))
        max_blocks = max(1, round(settings.max_duration / step_duration / BLOCK_STEPS))
        self.growers = [_Grower(bins, self.time_gap, self.frequency_gap, max_blocks) for _ in range(len(labels) - 1)]
        self.label = np.zeros((0, bins), np.uint8)  # 0 where no signal reaches `stay`
        self.certain = np.zeros((0, bins), np.bool_)  # where one reaches `enter`
        self.probability = np.zeros((0, bins), np.float32)
        self.bounds = np.zeros((0, 2), np.int64)  # first sample of a step and the one past its last

    def reaches(self, mask: Mask) -> bool:
        last = self.last
        # One sample of slack: where a window is not a whole number of samples, its ends are rounded.
        return (
            mask.segment == last.segment
            and abs(mask.sample_start - last.sample_end) <= 1
            and mask.frequency == last.frequency
            and mask.sample_rate == last.sample_rate
            and mask.probabilities.shape[1:] == last.probabilities.shape[1:]
        )

    def add(self, mask: Mask) -> None:
        # One class after the other: several times faster than argmax along so short an axis.
        planes = np.ascontiguousarray(np.moveaxis(mask.probabilities, 2, 0))
        probability = np.zeros(planes.shape[1:], np.float32)
        label = np.zeros(planes.shape[1:], np.uint8)
        for number, plane in enumerate(planes[1:], start=1):
            np.copyto(label, np.uint8(number), where=plane > probability)
            np.maximum(probability, plane, out=probability)
        signal = 1 - planes[0]
        label[signal < self.settings.stay] = 0
        edges = np.arange(mask.step_count + 1, dtype=np.int64)
        edges = (2 * edges * mask.sample_count + mask.step_count) // (2 * mask.step_count) + mask.sample_start
        self.label = np.concatenate([self.label, label])
        self.probability = np.concatenate([self.probability, probability])
        self.certain = np.concatenate([self.certain, signal >= self.settings.enter])
        self.bounds = np.concatenate([self.bounds, np.stack([edges[:-1], edges[1:]], axis=1)])
        self.last = mask

    def grow(self) -> Iterator[Annotation]:
        while len(self.label) >= BLOCK_STEPS + self.time_gap:
            yield from self._grow_block(BLOCK_STEPS)

    def finish(self) -> Iterator[Annotation]:
        while len(self.label):
            yield from self._grow_block(min(BLOCK_STEPS, len(self.label)))
        yield from self._annotations([grower.finish() for grower in self.growers])

    def _grow_block(self, steps: int) -> Iterator[Annotation]:
        finished = []
        for number, grower in enumerate(self.growers, start=1):
            labelled = self.label[: steps + self.time_gap] == number
            finished.append(grower.grow(labelled, self.certain[:steps], self.probability[:steps], self.bounds[:steps]))
        self.label = self.label[steps:]
        self.probability = self.probability[steps:]
        self.certain = self.certain[steps:]
        self.bounds = self.bounds[steps:]
        yield from self._annotations(finished)

    def _annotations(self, finished: Sequence[_Regions]) -> Iterator[Annotation]:
        boxes = [
            annotation
            for label, regions in zip(self.labels[1:], finished, strict=True)
            for region in range(len(regions.age))
            for annotation in self._boxes(label, regions, region)
        ]
        yield from sorted(boxes, key=lambda box: (box.sample_start, box.freq_lower_edge, box.label))

    def _boxes(self, label: str, regions: _Regions, region: int) -> Iterator[Annotation]:
        mask, settings = self.last, self.settings
        pixels = regions.pixels[region]
        continued = bool(regions.continued[region])  # the end of a long box may be as short as it likes
        lowest = (mask.frequency or 0.0) - mask.sample_rate / 2  # half of the first bin lies below, at the upper end
        step_samples, whole = mask.sample_count / mask.step_count, int(pixels.sum())
        for band, typical, is_left in _bands(pixels, settings.edge_share, self.frequency_gap):
            box = slice(int(band[0]), int(band[-1]) + 1)
            labelled = int(pixels[box].sum())
            start, end = int(regions.first[region, band].min()), int(regions.last[region, band].max())
            confidence = float(regions.probability[region, box].sum()) / labelled
            bandwidth = (box.stop - box.start) * mask.bin_width
            long_enough = (
                end - start >= settings.min_duration * mask.sample_rate
                and labelled >= settings.min_pixels
                and regions.certain[region, box].any()
            )
            substantial = labelled >= LEAST_LEFT * whole and 2 * typical * step_samples >= end - start
            if not (long_enough and substantial if is_left else long_enough or continued):
                continue
            if bandwidth < settings.min_bandwidth or confidence < settings.min_confidence:
                continue
            doubtful = confidence < settings.name_confidence and OTHER in self.labels
            yield Annotation(
                label=OTHER if doubtful else label,
                sample_start=start,
                sample_count=end - start,
                freq_lower_edge=max(mask.lower_edge(box.start), lowest),
                freq_upper_edge=mask.lower_edge(box.stop),
                confidence=min(confidence, 1.0),
                sample_rate=mask.sample_rate,
                frequency=mask.frequency,
            )


@dataclass(frozen=True)
class _Regions:
    """What is known of some regions of one label, bin by bin.

    Attributes
    ----------
    pixels, certain : (region, bin) int64
        Labelled pixels, and those of them where a signal reaches `enter`.
    probability : (region, bin) float64
        Sum of the labelled pixels' probabilities.
    first, last : (region, bin) int64
        Position of the first labelled sample, and the one past the last.
    age : (region,) int64
        Blocks since the region, or the present piece of it, began.
    continued : (region,) bool
        Whether a piece of it was given out before.
    """

    pixels: NDArray[np.int64]
    certain: NDArray[np.int64]
    probability: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    age: NDArray[np.int64]
    continued: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, bins: int) -> _Regions:
        shape = (count, bins)
        return cls(
            pixels=np.zeros(shape, np.int64),
            certain=np.zeros(shape, np.int64),
            probability=np.zeros(shape),
            first=np.full(shape, np.iinfo(np.int64).max),
            last=np.full(shape, np.iinfo(np.int64).min),
            age=np.zeros(count, np.int64),
            continued=np.zeros(count, np.bool_),
        )

    def take(self, which: NDArray[np.bool_]) -> _Regions:
        """Copy the regions where `which` holds."""
        return _Regions(
            self.pixels[which],
            self.certain[which],
            self.probability[which],
            self.first[which],
            self.last[which],
            self.age[which],
            self.continued[which],
        )

    def merge(self, older: _Regions, into: NDArray[np.integer]) -> None:
        """Take up older regions, number i of them into region ``into[i]`` of these."""
        np.add.at(self.pixels, into, older.pixels)
        np.add.at(self.certain, into, older.certain)
        np.add.at(self.probability, into, older.probability)
        np.minimum.at(self.first, into, older.first)
        np.maximum.at(self.last, into, older.last)
        np.maximum.at(self.age, into, older.age)
        np.logical_or.at(self.continued, into, older.continued)

    def count(
        self,
        region: NDArray[np.integer],
        labelled: NDArray[np.bool_],
        certain: NDArray[np.bool_],
        probability: NDArray[np.float32],
        bounds: NDArray[np.int64],
    ) -> None:
        """Take up a block's labelled pixels, each into the region whose number `region` holds at its place."""
        size, shape = self.pixels.size, self.pixels.shape
        pixel = np.flatnonzero(labelled)
        step, at_bin = np.divmod(pixel, shape[1])  # steps ascend: of a place assigned twice, the later one stays
        place = region.reshape(-1)[pixel] * shape[1] + at_bin
        self.pixels[:] += np.bincount(place, minlength=size).reshape(shape)
        self.certain[:] += np.bincount(place[certain.reshape(-1)[pixel]], minlength=size).reshape(shape)
        self.probability[:] += np.bincount(place, probability.reshape(-1)[pixel], size).reshape(shape)
        first = np.full(size, np.iinfo(np.int64).max)
        first[place[::-1]] = bounds[step[::-1], 0]
        np.minimum(self.first, first.reshape(shape), out=self.first)
        self.last.reshape(-1)[place] = bounds[step, 1]


class _Grower:
    """Regions of one label that may still grow."""

    def __init__(self, bins: int, time_gap: int, frequency_gap: int, max_blocks: int) -> None:
        self.time_gap = time_gap
        self.frequency_gap = frequency_gap
        self.max_blocks = max_blocks
        self.open = _Regions.empty(0, bins)
        self.edge = np.full(bins, -1)  # number of the open region that a bin's last step belongs to, or -1
        self.last_labelled = np.full(bins, -FAR)  # step of every bin's last labelled pixel, against the next block

    def grow(
        self,
        labelled: NDArray[np.bool_],
        certain: NDArray[np.bool_],
        probability: NDArray[np.float32],
        bounds: NDArray[np.int64],
    ) -> _Regions:
        """Grow by a block, ``len(bounds)`` steps; `labelled` shows `time_gap` steps more where there are any.

        Returns
        -------
        _Regions
            Those that ended in the block, and pieces of those that last too long.
        """
        steps, bins = len(bounds), labelled.shape[1]
        if not len(self.open.age) and not labelled[:steps].any():
            self.last_labelled = np.maximum(self.last_labelled - steps, -FAR)
            return self.open
        closed = _close(labelled.T, self.time_gap, self.last_labelled)[:, :steps].T
        closed = _close(closed, self.frequency_gap, np.full(steps, -FAR))
        labelled = labelled[:steps]
        self._note_last(labelled)

        pieces, count = ndimage.label(closed)
        group = _link(self.edge, pieces[0], len(self.open.age), count)
        regions = _Regions.empty(int(group.max(initial=-1)) + 1, bins)
        regions.merge(self.open, group[: len(self.open.age)])
        # Not a piece: number -1, which takes the last entry.
        number = np.append(group[len(self.open.age) :], -1)[pieces - 1]
        regions.count(number, labelled, certain, probability, bounds)
        regions.age[:] += 1
        return self._part(regions, number[-1], int(bounds[-1, 1]))

    def finish(self) -> _Regions:
        """Give out the regions that are still open; the segment has ended."""
        return self.open

    def _note_last(self, labelled: NDArray[np.bool_]) -> None:
        steps = len(labelled)
        latest = steps - 1 - labelled[::-1].argmax(axis=0)
        self.last_labelled = np.maximum(np.where(labelled.any(axis=0), latest, self.last_labelled) - steps, -FAR)

    def _part(self, regions: _Regions, edge: NDArray[np.integer], position: int) -> _Regions:
        """Keep open what reaches the block's last step; give out the rest and the present pieces of long regions."""
        is_open = np.zeros(len(regions.age), np.bool_)
        is_open[edge[edge >= 0]] = True
        is_long = is_open & (regions.age >= self.max_blocks)
        at_bin = np.flatnonzero(edge >= 0)
        at_bin = at_bin[is_long[edge[at_bin]]]
        regions.last[edge[at_bin], at_bin] = position  # so that the pieces of a long region abut
        finished = regions.take(~is_open | is_long)

        fresh = _Regions.empty(len(regions.age), regions.pixels.shape[1])
        fresh.merge(regions.take(is_open & ~is_long), np.flatnonzero(is_open & ~is_long))
        fresh.continued[is_long] = regions.continued[is_long] | regions.certain[is_long].any(axis=1)
        fresh.first[edge[at_bin], at_bin] = position
        self.open = fresh.take(is_open)
        renumbered = np.append(np.where(is_open, np.cumsum(is_open) - 1, -1), -1)
        self.edge = renumbered[edge]
        return finished


def _close(labelled: NDArray[np.bool_], gap: int, last: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Fill gaps of at most `gap` in every row; `last` is each row's last labelled place before it, below 0."""
    rows, width = labelled.shape
    padded = np.zeros((rows, width + 2), np.bool_)  # every row begins and ends unlabelled, so its edges come in pairs
    padded[:, 1:-1] = labelled
    flat = padded.reshape(-1)
    edge = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    begin, end = edge[0::2], edge[1::2]  # of runs of labelled places, the end exclusive
    row = begin // (width + 2)
    is_first = np.ones(len(begin), np.bool_)
    is_first[1:] = row[1:] != row[:-1]
    # What the silence before a run is counted from: the run before in its row, or what went before the row.
    row_start = row * (width + 2) + 1
    before = np.where(is_first, row_start + last[row] + 1, np.append(0, end[:-1]))
    short = begin - before <= gap
    if not short.any():
        return labelled
    change = np.zeros(flat.shape, np.int8)
    change[np.maximum(before, row_start)[short]] += 1
    change[begin[short]] -= 1
    filled = np.cumsum(change, dtype=np.int8).view(np.bool_)
    return (filled | flat).reshape(rows, width + 2)[:, 1:-1]


def _link(edge: NDArray[np.integer], first_step: NDArray[np.integer], older: int, count: int) -> NDArray[np.integer]:
    """Number what touches: `older` regions before the block, `edge` at its border, and `count` pieces in it.

    Returns
    -------
    (older + count,) int
        The number of the region that each is now part of.
    """
    root = list(range(older + count))

    def find(item: int) -> int:
        while root[item] != item:
            item = root[item]
        return item

    touching = (edge >= 0) & (first_step > 0)
    for region, piece in sorted(set(zip(edge[touching].tolist(), first_step[touching].tolist(), strict=True))):
        root[find(older + piece - 1)] = find(region)
    return np.unique([find(item) for item in range(older + count)], return_inverse=True)[1]


def _bands(pixels: NDArray[np.int64], edge_share: float, gap: int) -> Iterator[tuple[NDArray[np.integer], int, bool]]:
    """Bins that are labelled often enough, cut where more than `gap` others lie between; then the same of the rest.

    Yields
    ------
    (bin,) int
        A band.
    int
        How often its typical bin is labelled.
    bool
        Whether it was left by others of its region.
    """
    left, is_left = pixels.copy(), False
    while left.any():
        typical = _typical(left)
        busy = np.flatnonzero((left > 0) & (left >= edge_share * typical))
        for band in np.split(busy, np.flatnonzero(np.diff(busy) > gap + 1) + 1):
            yield band, _typical(left[band]), is_left
            left[max(0, band[0] - gap) : band[-1] + gap + 1] = 0
        is_left = True


def _typical(pixels: NDArray[np.int64]) -> int:
    """How often the bin is labelled in which the median labelled pixel lies."""
    ascending = np.sort(pixels)
    running = np.cumsum(ascending)
    return int(ascending[np.searchsorted(running, running[-1] / 2)])
