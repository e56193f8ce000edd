# SPDX-License-Identifier: Apache-2.0
"""Blocks of samples → model windows. Windows restart at every gap, retune and change of rate, and never bridge one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import IQBlock, Window
from rfvit_rt.spectrogram import SpectrogramSpec


def windows(blocks: Iterable[IQBlock], spec: SpectrogramSpec, hop_steps: int) -> Generator[Window]:
    """Cut a stream into overlapping windows.

    Within an uninterrupted segment, window ``k`` starts ``round(k * hop_steps * step_length)`` samples after the
    segment. The last window of a segment is moved back to end with it, so that it is full too; only a segment shorter
    than a window gives a short one, and less than one time step is left out.

    Parameters
    ----------
    blocks : iterable of IQBlock
        In stream order; any sizes.
    spec : SpectrogramSpec
    hop_steps : int
        Time steps from one window's start to the next one's, at most ``spec.n_steps``.

    Yields
    ------
    Window

    Raises
    ------
    SpecMismatch
        If a block's sample rate does not fit the spec.
    """
    if not 0 < hop_steps <= spec.n_steps:
        raise ValueError(f"hop_steps is {hop_steps}, must be 1 to {spec.n_steps}")
    segment: _Segment | None = None
    count = 0
    for block in blocks:
        if segment is None or not segment.continues_with(block):
            if segment is not None:
                yield from segment.finish()
            spec.check_sample_rate(block.sample_rate)
            segment = _Segment(count, block, spec, hop_steps)
            count += 1
        yield from segment.push(block)
    if segment is not None:
        yield from segment.finish()


class _Segment:
    """One uninterrupted stretch of samples, of which the last window's worth is kept."""

    def __init__(self, number: int, first: IQBlock, spec: SpectrogramSpec, hop_steps: int) -> None:
        self._number = number
        self._origin = first.sample_start
        self._end = first.sample_start
        self._rate = first.sample_rate
        self._frequency = first.frequency
        self._received = first.received
        self._size = spec.window_length(first.sample_rate)
        self._hop = hop_steps * spec.step_length(first.sample_rate)
        self._minimum = int(np.ceil(spec.step_length(first.sample_rate)))
        self._next = first.sample_start  # where the next window starts
        self._count = 0  # windows emitted
        self._covered = first.sample_start  # end of the last emitted window
        # The newest samples, up to self._end, as they came: a window copies them once, where it is put together.
        self._blocks: deque[NDArray[np.complex64]] = deque()
        self._kept = first.sample_start  # position of the first of them

    def continues_with(self, block: IQBlock) -> bool:
        return (
            block.sample_start == self._end
            and block.radio_lost == 0
            and block.sample_rate == self._rate
            and block.frequency == self._frequency
        )

    def push(self, block: IQBlock) -> Iterator[Window]:
        self._append(block.samples)
        self._received = block.received
        while self._next + self._size <= self._end:
            yield self._window(self._next, self._size)
            self._count += 1
            self._next = self._origin + round(self._count * self._hop)

    def finish(self) -> Iterator[Window]:
        if self._end - self._covered < self._minimum:
            return
        size = min(self._size, self._end - self._origin)
        yield self._window(self._end - size, size)

    def _append(self, samples: NDArray[np.complex64]) -> None:
        self._blocks.append(samples)
        self._end += len(samples)
        # finish() may need a whole window's worth of the past.
        needed = min(self._next, self._end - self._size)
        while self._kept + len(self._blocks[0]) <= needed:
            self._kept += len(self._blocks.popleft())

    def _window(self, start: int, size: int) -> Window:
        self._covered = start + size
        samples = np.concatenate(list(self._pieces(start, start + size)))
        return Window(samples, start, self._rate, self._frequency, self._received, self._number)

    def _pieces(self, start: int, end: int) -> Iterator[NDArray[np.complex64]]:
        position = self._kept
        for block in self._blocks:
            if position >= end:
                return
            if position + len(block) > start:
                yield block[max(start - position, 0) : end - position]
            position += len(block)
