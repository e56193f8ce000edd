# SPDX-License-Identifier: Apache-2.0
"""The last seconds of a stream's samples, in bounded memory, for when somebody wants to keep them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rfvit_rt.datatypes import IQBlock

DEFAULT_SECONDS = 10.0
MOST_BYTES = 2 * 2**30
MOST_OF_MEMORY = 0.25  # of this machine's


def default_bytes() -> int:
    """Bytes of samples that this machine can well hold."""
    return min(MOST_BYTES, int(MOST_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


@dataclass(frozen=True)
class Snapshot:
    """Samples that were held at a moment.

    Attributes
    ----------
    blocks : sequence of IQBlock
        In order, all of one sample rate. Positions may jump where samples were lost, and never go back.
    """

    blocks: Sequence[IQBlock]

    @property
    def sample_start(self) -> int:
        """Position of the first sample."""
        return self.blocks[0].sample_start

    @property
    def sample_end(self) -> int:
        """Position just past the last sample."""
        return self.blocks[-1].sample_end

    @property
    def sample_rate(self) -> float:
        """In Hz."""
        return self.blocks[0].sample_rate

    @property
    def sample_count(self) -> int:
        """Samples that are there: without those lost."""
        return sum(len(block.samples) for block in self.blocks)


class IQRing:
    """Holds on to the newest blocks of a stream, and copies none of them.

    One thread may add blocks while another takes snapshots.

    Parameters
    ----------
    seconds : float
        Of samples to hold.
    most_bytes : int or None
        Most bytes of samples; holds whatever the rate, so that fast streams are held for fewer seconds. None is a
        quarter of this machine's memory, at most 2 GiB.
    """

    def __init__(self, seconds: float = DEFAULT_SECONDS, most_bytes: int | None = None) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes or default_bytes()
        self._blocks: deque[IQBlock] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def seconds_at(self, sample_rate: float) -> float:
        """How many seconds are held at a sample rate in Hz."""
        return min(self._seconds, self._most_bytes / 8 / sample_rate)

    @property
    def held(self) -> tuple[int, int] | None:
        """Position of the oldest sample that is held, and the one past the newest; None before the first."""
        with self._lock:
            return (self._blocks[0].sample_start, self._blocks[-1].sample_end) if self._blocks else None

    def add(self, block: IQBlock) -> None:
        """Take up the next block. Where the rate changes, or positions go back, all before it is let go."""
        with self._lock:
            last = self._blocks[-1] if self._blocks else None
            if last and (block.sample_rate != last.sample_rate or block.sample_start < last.sample_end):
                self._blocks.clear()
                self._bytes = 0
            self._blocks.append(block)
            self._bytes += block.samples.nbytes
            room = 8 * self.seconds_at(block.sample_rate) * block.sample_rate
            # The oldest block is needed as long as it reaches into the last seconds, and memory allows.
            while self._bytes > self._most_bytes or self._bytes - self._blocks[0].samples.nbytes >= room:
                if len(self._blocks) == 1:
                    break
                self._bytes -= self._blocks.popleft().samples.nbytes

    def last(self, seconds: float) -> Snapshot | None:
        """The newest samples.

        Parameters
        ----------
        seconds : float
            Of samples, lost ones not counted; fewer where fewer are held.

        Returns
        -------
        Snapshot or None
            None before the first sample.
        """
        with self._lock:
            held = list(self._blocks)
        if not held:
            return None
        rate = held[-1].sample_rate
        missing = max(1, round(min(seconds, self.seconds_at(rate)) * rate))
        taken: list[IQBlock] = []
        for block in reversed(held):
            taken.append(_tail(block, missing))
            missing -= len(taken[-1].samples)
            if missing <= 0:
                break
        return Snapshot(taken[::-1])


def _tail(block: IQBlock, count: int) -> IQBlock:
    """Last samples of a block."""
    left_out = len(block.samples) - count
    if left_out <= 0:
        return block
    return replace(block, samples=block.samples[left_out:], sample_start=block.sample_start + left_out, radio_lost=0)
