# SPDX-License-Identifier: Apache-2.0
"""Overlapping masks of a stream → consecutive ones, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask


def stitch(masks: Iterable[Mask]) -> Iterator[Mask]:
    """Average overlapping masks and yield consecutive ones that do not overlap.

    In an overlap the probabilities are averaged with weights that fall linearly towards a window's first and last
    step, where the model sees least context: the weight of step i of n is ``min(i + 1, n - i)``, never zero.

    Steps lie on a grid that begins at the segment's first sample; its step length, a fraction of samples if need be
    (312.5 at 2 MS/s), is that of the segment's first mask. Every window is laid on the nearest step of the grid,
    reckoned from the segment's first sample, so no pixel moves by more than half a step and errors do not add up.
    Only a window anchored to the end of its segment moves at all. A segment's first and last position are exact.

    Parameters
    ----------
    masks : iterable of Mask
        In order of ``sample_start``. A mask that does not overlap the one before it, or differs from it in
        frequency, sample rate or number of bins, begins a new segment.

    Yields
    ------
    Mask
        Consecutive stretches, each as soon as no later window can change it.
    """
    overlap: _Overlap | None = None
    for mask in masks:
        if mask.step_count == 0:
            continue
        if overlap is not None and not overlap.reaches(mask):
            yield overlap.rest()
            overlap = None
        if overlap is None:
            overlap = _Overlap(mask)
        else:
            finished = overlap.before(mask)
            if finished is not None:
                yield finished
        overlap.add(mask)
    if overlap is not None:
        yield overlap.rest()


class _Overlap:
    """The weighted sum of those masks of one segment that later masks may still overlap."""

    def __init__(self, first: Mask) -> None:
        self.origin = first.sample_start
        self.step = Fraction(first.sample_count, first.step_count)
        self.last = first
        self.sample_end = first.sample_start
        self.done = 0  # grid steps yielded so far; the sums begin with the next one
        self.total = np.zeros((0, *first.probabilities.shape[1:]), np.float32)
        self.weight = np.zeros(0, np.float32)

    def reaches(self, mask: Mask) -> bool:
        return (
            mask.segment == self.last.segment
            and self.last.sample_start <= mask.sample_start < self.sample_end
            and mask.frequency == self.last.frequency
            and mask.sample_rate == self.last.sample_rate
            and mask.probabilities.shape[1:] == self.last.probabilities.shape[1:]
        )

    def add(self, mask: Mask) -> None:
        at = self._grid_step(mask) - self.done
        missing = at + mask.step_count - len(self.weight)
        if missing > 0:
            self.total = np.concatenate([self.total, np.zeros((missing, *self.total.shape[1:]), np.float32)])
            self.weight = np.concatenate([self.weight, np.zeros(missing, np.float32)])
        rising = np.arange(1, mask.step_count + 1, dtype=np.float32)
        weight = np.minimum(rising, rising[::-1])
        self.total[at : at + mask.step_count] += weight[:, None, None] * mask.probabilities
        self.weight[at : at + mask.step_count] += weight
        self.sample_end = max(self.sample_end, mask.sample_start + mask.sample_count)
        self.last = mask

    def before(self, mask: Mask) -> Mask | None:
        """Take out the steps that end before `mask` begins."""
        steps = self._grid_step(mask) - self.done
        return self._take(steps, self._position(self.done + steps)) if steps else None

    def rest(self) -> Mask:
        """Take out all that is left; it ends where the segment's samples end."""
        return self._take(len(self.weight), self.sample_end)

    def _take(self, steps: int, sample_end: int) -> Mask:
        start = self._position(self.done)
        probabilities: NDArray[np.float32] = np.divide(self.total[:steps], self.weight[:steps, None, None])
        finished = Mask(
            probabilities=probabilities,
            sample_start=start,
            sample_count=sample_end - start,
            sample_rate=self.last.sample_rate,
            frequency=self.last.frequency,
            segment=self.last.segment,
        )
        self.total = self.total[steps:]
        self.weight = self.weight[steps:]
        self.done += steps
        return finished

    def _grid_step(self, mask: Mask) -> int:
        return floor((mask.sample_start - self.origin) / self.step + Fraction(1, 2))

    def _position(self, step: int) -> int:
        return min(self.origin + floor(step * self.step + Fraction(1, 2)), self.sample_end)
