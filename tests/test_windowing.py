# SPDX-License-Identifier: Apache-2.0
"""A ramp through the stream: every window's samples prove its position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import SpecMismatch
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.windowing import windows

SPEC = SpectrogramSpec(n_steps=8, n_bins=16)
RATE = 2.05e6  # 320.3125 samples a step: windows cannot start on whole steps
SIZE = SPEC.window_length(RATE)
SHORTEST = int(np.ceil(SPEC.step_length(RATE)))


def ramp(start: int, count: int) -> np.ndarray:
    """Samples that hold their own index; exact in float32 up to 2**24."""
    return np.arange(start, start + count).astype(np.complex64)


def blocks(start: int, sizes: list[int], **fields: float | int | None) -> list[IQBlock]:
    result = []
    for size in sizes:
        result.append(IQBlock(ramp(start, size), start, **{"sample_rate": RATE, **fields}))
        start += size
    return result


def check_ramp(found: list) -> None:
    for window in found:
        np.testing.assert_array_equal(window.samples, ramp(window.sample_start, len(window.samples)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4 * SIZE), min_size=1, max_size=12),
    hop=st.integers(1, 8),
    start=st.integers(0, 2**20),
)
def test_every_window_is_where_it_says(sizes: list[int], hop: int, start: int) -> None:
    found = list(windows(blocks(start, sizes), SPEC, hop))
    check_ramp(found)
    end = start + sum(sizes)
    full = [start + round(k * hop * SPEC.step_length(RATE)) for k in range(1 + sum(sizes))]
    full = [position for position in full if position + SIZE <= end]
    assert [window.sample_start for window in found][: len(full)] == full
    assert all(len(window.samples) == min(SIZE, sum(sizes)) for window in found)
    covered = found[-1].sample_start + len(found[-1].samples) if found else start
    assert end - covered < SHORTEST  # nothing of a time step or more is left out


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 5 * SIZE - 1), max_size=10))
def test_windows_do_not_depend_on_the_blocks(cuts: list[int]) -> None:
    whole = list(windows(blocks(0, [5 * SIZE]), SPEC, 6))
    edges = [0, *sorted(set(cuts)), 5 * SIZE]
    parts = list(windows(blocks(0, list(np.diff(edges))), SPEC, 6))
    assert [w.sample_start for w in whole] == [w.sample_start for w in parts]
    check_ramp(parts)


@pytest.mark.parametrize(
    "second",
    [
        IQBlock(ramp(2 * SIZE + 7, 2 * SIZE), 2 * SIZE + 7, RATE, 1e9),  # seven samples lost
        IQBlock(ramp(2 * SIZE, 2 * SIZE), 2 * SIZE, RATE, 2e9),  # retuned
        IQBlock(ramp(2 * SIZE, 2 * SIZE), 2 * SIZE, RATE, None),  # frequency no longer known
        IQBlock(ramp(2 * SIZE, 2 * SIZE), 2 * SIZE, RATE, 1e9, radio_lost=3),
        IQBlock(ramp(0, 2 * SIZE), 0, RATE, 1e9),  # the sender started again
    ],
)
def test_a_break_ends_the_window(second: IQBlock) -> None:
    first = IQBlock(ramp(0, 2 * SIZE), 0, RATE, 1e9)
    found = list(windows([first, second], SPEC, 8))
    check_ramp(found)
    hop = round(8 * SPEC.step_length(RATE))
    expected = [(0, 1e9), (hop, 1e9)] + [(second.sample_start + k * hop, second.frequency) for k in range(2)]
    assert [(w.sample_start, w.frequency) for w in found] == expected
    assert [w.segment for w in found] == [0, 0, 1, 1]


def test_change_of_rate_changes_the_window() -> None:
    size = SPEC.window_length(2 * RATE)
    stream = [*blocks(0, [SIZE]), IQBlock(ramp(SIZE, size), SIZE, 2 * RATE)]
    assert [(w.sample_rate, len(w.samples)) for w in windows(stream, SPEC, 8)] == [
        (RATE, SIZE),
        (2 * RATE, size),
    ]


def test_tail_is_covered_by_a_full_window() -> None:
    found = list(windows(blocks(0, [SIZE + SIZE // 2]), SPEC, 8))
    assert [(w.sample_start, len(w.samples)) for w in found] == [(0, SIZE), (SIZE // 2, SIZE)]


def test_short_segment_gives_a_short_window() -> None:
    found = list(windows(blocks(5, [SIZE // 2]), SPEC, 8))
    assert [(w.sample_start, len(w.samples)) for w in found] == [(5, SIZE // 2)]


def test_less_than_a_step_gives_nothing() -> None:
    assert list(windows(blocks(0, [SHORTEST - 1]), SPEC, 8)) == []


def test_rate_outside_the_model_is_refused() -> None:
    with pytest.raises(SpecMismatch, match=r"0\.2 MS/s.*resample"):
        list(windows([IQBlock(ramp(0, 10), 0, 0.2e6)], SPEC, 8))
