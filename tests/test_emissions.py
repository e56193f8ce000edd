# SPDX-License-Identifier: Apache-2.0
"""Recurring boxes of known bands and durations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfvit_rt.datatypes import Annotation
from rfvit_rt.emissions import (
    MOST_OPEN,
    OPEN_FREQUENCIES,
    OPEN_INTERVALS,
    OPEN_STRETCHES,
    EmissionTracker,
    track_emissions,
)

LABELS = ("background", "LTE", "NR")
RATE = 25.6e6  # 256 bins of 100 kHz, steps of 4000 samples
STEP = 4000
BINS = 256
FREQUENCY = 2e9


class CountedLabel(str):
    """A label that counts how often any is compared: once for every emission that is looked at."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedLabel.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


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


def test_samples_that_were_not_heard_are_neither_on_air_nor_off() -> None:
    tracker = EmissionTracker()
    for start in range(0, 1000, 200):  # half of the stream is lost; a carrier that never pauses
        tracker.listen(start, start + 100, 105e6)
        tracker.add(burst(start, 100))
    tracker.listen(1000, 1100, 105e6)
    tracker.add(burst(1050, 50))  # and once it does
    (emission,) = tracker.emissions()
    assert (emission.first_seen, emission.last_seen) == (0, 1100)
    assert emission.duty_cycle == pytest.approx(550 / 600)


def test_what_a_survey_heard_elsewhere_does_not_count() -> None:
    tracker = EmissionTracker()
    for turn in range(3):
        for hop, frequency in enumerate((105e6, 112e6, 300e6)):
            start = 300 * turn + 100 * hop
            tracker.listen(start, start + 100, frequency)
            if frequency < 200e6:  # seen from two neighbouring centres
                tracker.add(burst(start, 100, frequency=frequency))
    (emission,) = tracker.emissions()
    assert emission.burst_count == 6
    assert emission.duty_cycle == 1


def test_what_was_heard_is_kept_in_constant_memory_and_after_a_restart_positions_count_once() -> None:
    tracker = EmissionTracker(most=3)
    for frequency in range(10):
        tracker.listen(100 * frequency, 100 * frequency + 100, float(frequency))
    assert len(tracker._heard) == 3
    heard = tracker._heard[9.0]
    for start in range(1000, 100_000, 100):
        tracker.listen(start, start + 50, 9.0)
    assert len(heard.stretches) == OPEN_STRETCHES
    assert heard.until(100_000) - heard.until(99_000) == 500
    tracker.listen(0, 100, 9.0)
    tracker.add(burst(99_960, 30, frequency=9.0))  # lies where nothing was heard
    assert tracker.emissions()[0].duty_cycle == 1


def test_a_sweep_over_more_frequencies_than_are_kept_apart_counts_what_it_heard() -> None:
    tracker = EmissionTracker(most=3)
    for turn in range(4):
        for hop in range(10):
            start = 1000 * turn + 100 * hop
            tracker.listen(start, start + 100, 105e6 + 1e8 * hop)
            if hop == 0:
                tracker.add(burst(start, 100, frequency=105e6))
    (emission,) = tracker.emissions()
    assert emission.duty_cycle == 1
    assert len(tracker._heard) == 3


def test_a_radio_that_follows_a_drifting_signal_costs_no_memory() -> None:
    tracker = EmissionTracker()
    for second in range(1000):
        tracker.listen(100 * second, 100 * second + 100, 105e6 + second)
        tracker.add(burst(100 * second, 50, frequency=105e6 + second))
    (track,) = tracker._open
    assert len(track.listened) == OPEN_FREQUENCIES
    assert track.emission().duty_cycle == 1  # each frequency was heard as long as the burst in it


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
    assert len(tracker._open[0].intervals) <= OPEN_INTERVALS


def one_of_many(number: int, label: str = "LTE") -> Annotation:
    """A short burst in a band of its own."""
    return burst(number * 100, 25, low=number * 10e6, high=number * 10e6 + 9e6, label=label)


def test_of_a_hundred_thousand_emissions_the_latest_are_kept() -> None:
    most, number = 20, 100_000
    tracker = EmissionTracker(most=most)
    label = CountedLabel("LTE")
    CountedLabel.compared = 0
    told = [tracker.add(one_of_many(i, label)) for i in range(number)]
    assert 0 < CountedLabel.compared <= most * number  # no work for what was let go
    assert (tracker.count, tracker.let_go) == (number, number - most)
    assert len(tracker._open) == most
    kept = tracker.emissions()
    assert [e.first_seen for e in kept] == [i * 100 for i in range(number - most, number)]
    ended = [e for e in told if e is not None]
    assert [e.first_seen for e in ended] == [i * 100 for i in range(number - most)]  # each told of once, in order
    assert sum(e.burst_count * e.duty_cycle for e in [*ended, *kept]) == number


def test_there_is_a_bound_unless_another_is_asked_for() -> None:
    tracker = EmissionTracker()
    for i in range(MOST_OPEN + 1):
        tracker.add(one_of_many(i))
    assert (len(tracker.emissions()), tracker.let_go) == (MOST_OPEN, 1)


def test_an_emission_that_is_still_seen_is_not_let_go() -> None:
    tracker = EmissionTracker(most=3)
    for i in range(1, 100):
        tracker.add(burst(i * 100, 50, low=0, high=5e6, label="NR"))
        tracker.add(one_of_many(i))
    assert [(e.label, e.burst_count) for e in tracker.emissions()] == [("LTE", 1), ("LTE", 1), ("NR", 99)]
    assert (tracker.count, tracker.let_go) == (100, 97)


def test_what_comes_after_the_end_begins_another() -> None:
    tracker = EmissionTracker(most=1)
    told = [tracker.add(one_of_many(i)) for i in (1, 1, 2, 1)]
    assert [e and (e.freq_lower_edge, e.burst_count) for e in told] == [None, None, (10e6, 2), (20e6, 1)]
    assert [(e.freq_lower_edge, e.burst_count) for e in tracker.emissions()] == [(10e6, 1)]


def test_the_latest_are_those_that_an_annotation_came_to_last() -> None:
    tracker = EmissionTracker()
    for i in (0, 1, 2, 3, 1):
        tracker.add(one_of_many(i))
    assert [e.freq_lower_edge for e in tracker.latest(2)] == [10e6, 30e6]
    assert [e.freq_lower_edge for e in tracker.latest(9)] == [10e6, 30e6, 20e6, 0]
    assert tracker.latest(0) == []


def test_gathering_what_is_at_hand_keeps_all() -> None:
    found = track_emissions(one_of_many(i) for i in range(MOST_OPEN + 5))
    assert [e.freq_lower_edge for e in found] == [i * 10e6 for i in range(MOST_OPEN + 5)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=OPEN_INTERVALS))
@settings(max_examples=100, deadline=None)
def test_duty_cycle_is_the_union(spans: list[tuple[int, int]]) -> None:
    covered = np.zeros(400, bool)
    for start, count in spans:
        covered[start : start + count] = True
    (emission,) = track_emissions(burst(start, count) for start, count in spans)
    on = np.flatnonzero(covered)
    assert emission.duty_cycle == pytest.approx(covered.sum() / (on[-1] + 1 - on[0]))
