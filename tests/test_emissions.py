# SPDX-License-Identifier: Apache-2.0
"""Recurring boxes of known bands and durations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfvit_rt.datatypes import Annotation
from rfvit_rt.emissions import OPEN_INTERVALS, EmissionTracker, track_emissions

LABELS = ("background", "LTE", "NR")
RATE = 25.6e6  # 256 bins of 100 kHz, steps of 4000 samples
STEP = 4000
BINS = 256
FREQUENCY = 2e9


def burst(start: int, count: int, low: float = 100e6, high: float = 110e6, **other: object) -> Annotation:
    return replace(Annotation("LTE", start, count, low, high, 0.9, 1e6, 105e6), **other)


def test_bursts_in_one_band_are_one_emission() -> None:
    (emission,) = track_emissions([burst(0, 100), burst(200, 100, confidence=0.6), burst(600, 200)])
    assert (emission.first_seen, emission.last_seen, emission.burst_count) == (0, 800, 3)
    assert emission.duty_cycle == pytest.approx(0.5)
    assert emission.confidence == pytest.approx((0.9 * 300 + 0.6 * 100) / 400)
    assert (emission.freq_lower_edge, emission.freq_upper_edge) == (100e6, 110e6)


def test_covered_time_counts_once() -> None:
    (emission,) = track_emissions([burst(100, 300), burst(0, 200), burst(150, 50), burst(900, 100)])
    assert emission.duty_cycle == pytest.approx(500 / 1000)


def test_other_bands_labels_and_kinds_of_frequency_are_others() -> None:
    found = track_emissions(
        [
            burst(0, 10),
            burst(0, 10, label="NR"),
            burst(0, 10, frequency=None),
            burst(0, 10, low=106e6, high=116e6),
            burst(20, 10, low=102e6, high=111e6),  # IoU 8/11 with the first, 5/14 with the last
        ]
    )
    assert [(e.label, e.burst_count) for e in found] == [("LTE", 1), ("LTE", 2), ("LTE", 1), ("NR", 1)]


def test_an_emission_keeps_few_intervals() -> None:
    tracker = EmissionTracker()
    for i in range(5000):
        tracker.add(burst(i * 100, 25))
    (emission,) = tracker.emissions()
    assert emission.burst_count == 5000
    assert emission.duty_cycle == pytest.approx(0.25, rel=1e-3)
    assert len(tracker._tracks[0].intervals) <= OPEN_INTERVALS


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=OPEN_INTERVALS))
@settings(max_examples=100, deadline=None)
def test_duty_cycle_is_the_union(spans: list[tuple[int, int]]) -> None:
    covered = np.zeros(400, bool)
    for start, count in spans:
        covered[start : start + count] = True
    (emission,) = track_emissions(burst(start, count) for start, count in spans)
    on = np.flatnonzero(covered)
    assert emission.duty_cycle == pytest.approx(covered.sum() / (on[-1] + 1 - on[0]))
