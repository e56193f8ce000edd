# SPDX-License-Identifier: Apache-2.0
"""Window scores → intervals: small sequences by hand, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.activity import UNKNOWN, ActivitySettings, WindowScores, intervals, window_label
from rfvit_rt.datatypes import Activity

LABELS = ("nobody", "walk", "sit")
NOBODY, WALK, SIT = np.eye(3, dtype=np.float32)
UNSURE = np.full(3, 1 / 3, np.float32)
RATE = 10  # frames per second


def window(
    probabilities: Sequence[float], start: float, length: float = 4.0, segment: int = 0, lost: Sequence[int] = ()
) -> WindowScores:
    """A window of 10 frames per second; frame n has the time n / 10."""
    frames = np.setdiff1d(np.arange(round(start * RATE), round((start + length) * RATE)), lost)
    return WindowScores(np.asarray(probabilities, np.float32), start, start + length, frames, segment)


def shown(activities: Sequence[Activity]) -> list[tuple[str, float, float]]:
    return [(activity.label, activity.time_start, activity.time_end) for activity in activities]


def test_one_window_is_one_interval() -> None:
    (activity,) = intervals([window([0.1, 0.8, 0.1], 2.0)], LABELS)
    assert activity == Activity("walk", 2.0, 6.0, 20, 40, pytest.approx(0.8), 10.0, 0)


def test_nothing_comes_of_nothing() -> None:
    assert list(intervals([], LABELS)) == []


def test_windows_that_agree_are_one_interval() -> None:
    scores = [window(WALK, start) for start in range(5)]
    assert shown(list(intervals(scores, LABELS))) == [("walk", 0, 8)]


def test_a_change_lies_where_most_windows_around_say_so() -> None:
    """Windows of 4 s every second: those that begin before 6 s say walk. Half of those around 7.5 s do."""
    scores = [window(WALK if start < 6 else SIT, start) for start in range(12)]
    assert shown(list(intervals(scores, LABELS))) == [("walk", 0, 8), ("sit", 8, 15)]
    scores = [window(WALK if start < 6 else 0.99 * SIT + 0.01 * NOBODY, start) for start in range(12)]
    assert shown(list(intervals(scores, LABELS)))[0] == ("walk", 0, 8)  # a tie, and the one that was there stays


def test_one_odd_window_among_others_changes_nothing() -> None:
    scores = [window(SIT if start == 5 else WALK, start) for start in range(12)]
    assert shown(list(intervals(scores, LABELS))) == [("walk", 0, 15)]
    apart = [window(SIT if start == 8 else WALK, start) for start in range(0, 24, 4)]  # nothing to pool with
    assert shown(list(intervals(apart, LABELS))) == [("walk", 0, 8), ("sit", 8, 12), ("walk", 12, 24)]


def test_what_is_not_sure_is_unknown() -> None:
    scores = [window(WALK, 0), window(UNSURE, 4), window(SIT, 8)]
    found = list(intervals(scores, LABELS))
    assert shown(found) == [("walk", 0, 4), (UNKNOWN, 4, 8), ("sit", 8, 12)]
    assert found[1].confidence == pytest.approx(1 / 3)


def test_hysteresis_keeps_an_answer_but_begins_none() -> None:
    weak = [0.25, 0.45, 0.3]
    settings = ActivitySettings(threshold=0.5, hysteresis=0.1)
    found = list(intervals([window(weak, 0), window(WALK, 4), window(weak, 8), window(UNSURE, 12)], LABELS, settings))
    assert shown(found) == [(UNKNOWN, 0, 4), ("walk", 4, 12), (UNKNOWN, 12, 16)]
    assert found[1].confidence == pytest.approx((1 + 0.45) / 2)
    strict = ActivitySettings(threshold=0.5, hysteresis=0)
    assert shown(list(intervals([window(WALK, 4), window(weak, 8)], LABELS, strict))) == [
        ("walk", 4, 8),
        (UNKNOWN, 8, 12),
    ]


def test_a_surer_label_takes_over_although_the_present_one_could_stay() -> None:
    found = intervals([window(WALK, 0), window([0, 0.45, 0.55], 4)], LABELS)
    assert shown(list(found)) == [("walk", 0, 4), ("sit", 4, 8)]


def test_no_interval_bridges_a_restart_or_a_gap() -> None:
    restarted = [window(WALK, 0), window(WALK, 1), window(WALK, 5, segment=1), window(WALK, 6, segment=1)]
    assert shown(list(intervals(restarted, LABELS))) == [("walk", 0, 5), ("walk", 5, 10)]
    back = [window(WALK, 100), window(WALK, 0, segment=1)]
    assert shown(list(intervals(back, LABELS))) == [("walk", 100, 104), ("walk", 0, 4)]
    rare = [window(WALK, 0), window(WALK, 10)]
    assert shown(list(intervals(rare, LABELS))) == [("walk", 0, 4), ("walk", 10, 14)]


def test_nothing_is_pooled_or_kept_across_a_restart() -> None:
    weak = [0.25, 0.45, 0.3]
    scores = [window(WALK, 0), window(WALK, 1), window(weak, 2, segment=1)]
    assert shown(list(intervals(scores, LABELS))) == [("walk", 0, 5), (UNKNOWN, 2, 6)]


def test_lost_frames_are_counted_where_they_were_lost() -> None:
    lost = [3, 41, 42]  # at 0.3 s, and 4.1 s
    scores = [window(WALK if start < 2 else SIT, start, lost=lost) for start in range(0, 9)]
    walk, sit = intervals(scores, LABELS)
    assert (walk.time_end, sit.time_start) == (4, 4)
    assert (walk.frame_start, walk.frame_count, walk.lost) == (0, 40, 1)
    assert (sit.frame_start, sit.frame_count, sit.lost) == (40, 80, 2)
    assert walk.frame_rate == pytest.approx(39 / 4)


def test_an_interval_comes_as_soon_as_it_is_over() -> None:
    given_out: list[float] = []

    def scores():
        for start in range(12):
            given_out.append(start)
            yield window(WALK if start < 6 else SIT, start)

    first = next(intervals(scores(), LABELS))
    assert first.time_end == 8
    assert given_out[-1] == 9  # the window that ends the slot after it


def test_edges_that_differ_by_rounding_make_no_slots() -> None:
    """Windows of 0.3 s every 0.1 s, whose starts and ends miss one another by some 1e-17 s."""
    scores = [WindowScores(SIT if n % 2 else WALK, n * 0.1, n * 0.1 + 0.3, np.array([n])) for n in range(50)]
    assert all(activity.time_end - activity.time_start > 0.05 for activity in intervals(scores, LABELS))


def test_the_answer_for_one_window() -> None:
    assert window_label(WALK, LABELS, ActivitySettings()) == ("walk", 1.0)
    assert window_label(UNSURE, LABELS, ActivitySettings()) == (UNKNOWN, pytest.approx(1 / 3))
    assert window_label(UNSURE, LABELS, ActivitySettings(threshold=0.3))[0] == "nobody"


@pytest.mark.parametrize("settings", [{"threshold": 1.1}, {"threshold": -0.1}, {"hysteresis": float("nan")}])
def test_settings_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        ActivitySettings(**settings)


@st.composite
def streams(draw: st.DrawFn) -> list[WindowScores]:
    """Segments of windows of one length and hop, with any scores and losses; a segment may begin at any time."""
    scores = []
    for segment in range(draw(st.integers(1, 3))):
        length, hop = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        start = draw(st.integers(0, 50))
        for number in range(draw(st.integers(1, 12))):
            weights = np.array(draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))) + 0.01
            lost = draw(st.sets(st.integers(0, 9)))
            begin = start + number * hop
            kept = {RATE * begin, RATE * (begin + length) - 1}  # the frames at the ends of a window came
            scores.append(window(weights / weights.sum(), begin, length, segment, [i for i in lost if i not in kept]))
    return scores


@given(streams(), st.floats(0, 1), st.floats(0, 1))
def test_intervals_are_ordered_and_disjoint_and_cover_the_windows(
    scores: list[WindowScores], threshold: float, hysteresis: float
) -> None:
    found = list(intervals(scores, LABELS, ActivitySettings(threshold, hysteresis)))
    assert {activity.label for activity in found} <= {*LABELS, UNKNOWN}
    for activity in found:
        assert 0 <= activity.confidence <= 1
        assert 0 <= activity.lost < activity.frame_count
        assert activity.frame_rate == pytest.approx(
            (activity.frame_count - activity.lost) / (activity.time_end - activity.time_start)
        )
    # Exactly the moments that the windows cover, each once: times here are whole seconds.
    expected: list[tuple[int, float]] = []
    for segment in sorted({score.segment for score in scores}):
        moments = {
            second + 0.5
            for score in scores
            if score.segment == segment
            for second in range(int(score.time_start), int(score.time_end))
        }
        expected += sorted(moments)
    covered = [second + 0.5 for a in found for second in range(int(a.time_start), int(a.time_end))]
    assert covered == expected


@given(streams())
def test_a_sure_and_constant_model_gives_one_interval_for_each_stretch(scores: list[WindowScores]) -> None:
    sure = [WindowScores(SIT, s.time_start, s.time_end, s.frame_indices, s.segment) for s in scores]
    found = list(intervals(sure, LABELS))
    assert {(activity.label, activity.confidence) for activity in found} == {("sit", 1.0)}
    borders = {(a.time_end, b.time_start) for a, b in pairwise(found)}
    breaks = {
        (a.time_end, b.time_start) for a, b in pairwise(scores) if a.segment != b.segment or b.time_start > a.time_end
    }
    assert borders == breaks
