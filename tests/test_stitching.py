# SPDX-License-Identifier: Apache-2.0
"""Overlapping masks: weights, exact positions, breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask
from rfvit_rt.stitching import stitch

LABELS = ("background", "LTE", "NR")
RATE = 25.6e6  # 256 bins of 100 kHz, steps of 4000 samples
STEP = 4000
BINS = 256
FREQUENCY = 2e9


def mask(
    probabilities: NDArray[np.float32],
    start: int = 0,
    frequency: float | None = FREQUENCY,
    rate: float = RATE,
    step: float = STEP,
) -> Mask:
    return Mask(probabilities, start, round(len(probabilities) * step), rate, frequency)


def random_mask(seed: int, steps: int, start: int, **kwargs: float) -> Mask:
    random = np.random.default_rng(seed).dirichlet([1, 1, 1], (steps, 8)).astype(np.float32)
    return mask(random, start, **kwargs)


def test_one_mask_passes_unchanged() -> None:
    given_mask = random_mask(0, 256, 17)
    (stitched,) = stitch([given_mask])
    np.testing.assert_allclose(stitched.probabilities, given_mask.probabilities, rtol=1e-6)
    assert (stitched.sample_start, stitched.sample_count) == (17, 256 * STEP)
    assert stitched.probabilities.dtype == np.float32


def test_overlap_is_averaged_with_triangular_weights() -> None:
    first, second = random_mask(1, 8, 0), random_mask(2, 8, 6 * STEP)
    early, late = stitch([first, second])
    assert (early.step_count, late.step_count) == (6, 8)
    assert late.sample_start == early.sample_start + early.sample_count == 6 * STEP
    np.testing.assert_allclose(early.probabilities, first.probabilities[:6], rtol=1e-6)
    # steps 6 and 7 of the first have weights 2 and 1, steps 0 and 1 of the second 1 and 2
    expected = (
        (2 * first.probabilities[6] + second.probabilities[0]) / 3,
        (first.probabilities[7] + 2 * second.probabilities[1]) / 3,
    )
    np.testing.assert_allclose(late.probabilities[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(late.probabilities[2:], second.probabilities[2:], rtol=1e-6)


def test_a_stretch_is_final_as_soon_as_the_next_window_is_there() -> None:
    source = iter([random_mask(i, 256, i * 192 * STEP) for i in range(3)])
    stitched = stitch(source)
    assert next(stitched).sample_count == 192 * STEP
    assert next(source).sample_start == 2 * 192 * STEP  # it took no more than two


@pytest.mark.parametrize("step", [STEP, 312.5, 520 + 5 / 6])
def test_positions_are_consecutive_and_exact(step: float) -> None:
    starts = [1000 + round(i * 192 * step) for i in range(50)] + [1000 + round((49 * 192 + 100.4) * step)]
    stitched = list(stitch([random_mask(i, 256, start, step=step) for i, start in enumerate(starts)]))
    end = 1000
    for piece, start in zip(stitched, starts, strict=True):
        assert piece.sample_start == end
        assert abs(piece.sample_start - start) <= step / 2
        end += piece.sample_count
    assert sum(piece.step_count for piece in stitched) == 49 * 192 + 100 + 256
    assert end == starts[-1] + round(256 * step)  # the end-anchored window's own end, exactly


def test_steps_stay_within_half_a_step_in_a_long_stream() -> None:
    step = 520 + 5 / 6  # of which the first mask, 133,334 samples, knows a little too much

    def ramp() -> Iterator[Mask]:
        for start in [round(i * 192 * step) for i in range(400)] + [round((399 * 192 + 77.5) * step)]:
            values = np.zeros((256, 1, 1), np.float32)
            values[:, 0, 0] = start / step + np.arange(256)  # every step says where it truly begins
            yield Mask(values, start, 133334, 3.333333e6)

    error = 0.0
    for piece in stitch(ramp()):
        begins = piece.sample_start + np.arange(piece.step_count) * piece.sample_count / piece.step_count
        error = max(error, float(np.abs(piece.probabilities[:, 0, 0] - begins / step).max()))
    assert 0.1 < error < 0.52  # half a step and rounding to samples and float32


@pytest.mark.parametrize(
    "following",
    [
        random_mask(1, 256, 256 * STEP + 5),  # five samples lost
        random_mask(1, 256, 192 * STEP, frequency=2.1e9),
        random_mask(1, 256, 192 * STEP, frequency=None),
        random_mask(1, 256, 192 * STEP, rate=30e6),
        random_mask(1, 256, 256 * STEP),  # no overlap, nothing to average
    ],
)
def test_a_break_is_never_averaged_over(following: Mask) -> None:
    first = random_mask(0, 256, 0)
    before, after = stitch([first, following])
    np.testing.assert_allclose(before.probabilities, first.probabilities, rtol=1e-6)
    np.testing.assert_allclose(after.probabilities, following.probabilities, rtol=1e-6)
    assert (after.sample_start, after.sample_count) == (following.sample_start, following.sample_count)
    assert (after.frequency, after.sample_rate) == (following.frequency, following.sample_rate)


def test_short_masks() -> None:
    one_step = random_mask(0, 1, 100)
    (stitched,) = stitch([one_step])
    np.testing.assert_allclose(stitched.probabilities, one_step.probabilities, rtol=1e-6)
    assert not list(stitch([random_mask(0, 0, 0)]))
    pieces = list(stitch([random_mask(0, 256, 0), random_mask(1, 3, 254 * STEP)]))
    assert [piece.step_count for piece in pieces] == [254, 3]


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_stitched_probabilities_sum_to_one_and_nothing_is_lost(hops: list[int], steps: int) -> None:
    starts = np.concatenate([[0], np.cumsum(np.minimum(hops, steps))]).astype(int)
    stitched = list(stitch([random_mask(i, steps, int(start) * STEP) for i, start in enumerate(starts)]))
    assert sum(piece.sample_count for piece in stitched) == (int(starts[-1]) + steps) * STEP
    for piece in stitched:
        np.testing.assert_allclose(piece.probabilities.sum(axis=2), 1, rtol=1e-5)


def test_a_restarted_sender_is_not_averaged_with_what_it_sent_before() -> None:
    before, after = random_mask(1, 64, 0), replace(random_mask(2, 64, 0), segment=1)
    found = list(stitch([before, after]))
    assert [mask.segment for mask in found] == [0, 1]
    np.testing.assert_allclose(found[0].probabilities, before.probabilities, rtol=1e-5)
    np.testing.assert_allclose(found[1].probabilities, after.probabilities, rtol=1e-5)
