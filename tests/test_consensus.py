# SPDX-License-Identifier: Apache-2.0
"""Bands whose pixels disagree about their class, neighbours that differ, and breaks in the stream."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.consensus import agree
from rfvit_rt.datatypes import Mask

STEPS, BINS, STEP = 192, 256, 3125


def background() -> NDArray[np.float32]:
    probabilities = np.zeros((STEPS, BINS, 3), np.float32)
    probabilities[:, :, 0] = 1
    return probabilities


def paint(probabilities: NDArray[np.float32], times: slice, bins: slice, lte: float, nr: float) -> None:
    probabilities[times, bins] = (1 - lte - nr, lte, nr)


def mask(probabilities: NDArray[np.float32], start: int = 0, frequency: float | None = 1e9) -> Mask:
    return Mask(probabilities, start, STEPS * STEP, 20e6, frequency)


def test_a_minority_is_outvoted_and_the_signal_stays() -> None:
    probabilities = background()
    paint(probabilities, slice(0, 150), slice(50, 120), 0.7, 0.2)
    paint(probabilities, slice(150, 180), slice(50, 120), 0.2, 0.7)
    (agreed,) = agree([mask(probabilities)])
    np.testing.assert_array_equal(agreed.probabilities[:, :, 0], probabilities[:, :, 0])
    np.testing.assert_allclose(agreed.probabilities.sum(axis=2), 1, atol=1e-5)
    assert (agreed.probabilities[:180, 50:120, 1] > 0.7).all()


def test_bands_that_touch_keep_their_classes() -> None:
    probabilities = background()
    paint(probabilities, slice(None), slice(40, 100), 0.8, 0.1)
    paint(probabilities, slice(None), slice(100, 160), 0.1, 0.8)
    (agreed,) = agree([mask(probabilities)])
    assert (agreed.probabilities[:, 40:95].argmax(axis=2) == 1).all()
    assert (agreed.probabilities[:, 105:160].argmax(axis=2) == 2).all()


def test_bands_apart_do_not_speak_for_each_other() -> None:
    probabilities = background()
    paint(probabilities, slice(None), slice(20, 200), 0.9, 0.05)
    paint(probabilities, slice(90, 96), slice(210, 230), 0.05, 0.9)
    (agreed,) = agree([mask(probabilities)])
    assert (agreed.probabilities[90:96, 210:230, 2] > 0.9).all()


def test_doubt_stays_doubt() -> None:
    probabilities = background()
    paint(probabilities, slice(None), slice(20, 90), 0.45, 0.45)
    (agreed,) = agree([mask(probabilities)])
    np.testing.assert_allclose(agreed.probabilities[:, 20:90, 1:], 0.45, atol=0.01)


@pytest.mark.parametrize(
    ("start", "frequency", "label"),
    [(STEPS * STEP, 1e9, 1), (STEPS * STEP + 1, 1e9, 1), (STEPS * STEP + 2, 1e9, 2), (STEPS * STEP, 2e9, 2)],
)
def test_memory_ends_with_the_segment(start: int, frequency: float, label: int) -> None:
    before, after = background(), background()
    paint(before, slice(None), slice(50, 120), 0.9, 0.05)
    paint(after, slice(0, 20), slice(50, 120), 0.3, 0.6)
    _, agreed = agree([mask(before), mask(after, start, frequency)])
    assert (agreed.probabilities[:20, 50:120].argmax(axis=2) == label).all()


def test_background_alone_stays_as_it_is() -> None:
    (agreed,) = agree([mask(background())])
    np.testing.assert_array_equal(agreed.probabilities, background())
