# SPDX-License-Identifier: Apache-2.0
"""Streams whose samples say their own position, so that every one can be checked to be where it belongs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.wire.gnuradio import StreamMessage, Tag

RATE = 1e6


def ramp(start: int, count: int) -> np.ndarray:
    """Samples that say their own position: its low 16 bits are the real part, the rest the imaginary one."""
    n = np.arange(start, start + count)
    return ((n & 0xFFFF) + 1j * (n >> 16)).astype(np.complex64)


def assert_ramp(blocks: Iterable[IQBlock]) -> None:
    for block in blocks:
        np.testing.assert_array_equal(block.samples, ramp(block.sample_start, len(block.samples)))


def message(start: int, count: int, *tags: Tag) -> StreamMessage:
    return StreamMessage(ramp(start, count), start, tags)


def segments(blocks: Iterable[IQBlock]) -> list[tuple[int, int, float, float | None, int]]:
    """Runs of blocks that follow each other: (start, end, sample rate, frequency, lost by the radio before)."""
    runs: list[tuple[int, int, float, float | None, int]] = []
    for block in blocks:
        what = (block.sample_rate, block.frequency)
        if runs and runs[-1][1] == block.sample_start and runs[-1][2:4] == what and not block.radio_lost:
            runs[-1] = (runs[-1][0], block.sample_end, *what, runs[-1][4])
        else:
            runs.append((block.sample_start, block.sample_end, *what, block.radio_lost))
    return runs
