# SPDX-License-Identifier: Apache-2.0
"""Positions to seconds and back, through changes of rate and senders that begin anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.web.clock import StreamClock


def test_before_the_first_sample_it_is_zero() -> None:
    clock = StreamClock()
    assert (clock.now, clock.position, clock.sample_rate) == (0.0, 0, None)
    assert clock.seconds(5, 6)[0] >= 0


def test_losses_count() -> None:
    clock = StreamClock()
    clock.note(0, 100, 100.0)
    clock.note(500, 600, 100.0)
    assert clock.now == 6.0
    assert clock.seconds(500, 600) == (5.0, 6.0)
    assert clock.sample(5.5) == 550


def test_a_change_of_rate() -> None:
    clock = StreamClock()
    clock.note(0, 100, 100.0)
    clock.note(100, 300, 200.0)
    assert clock.now == 2.0
    assert clock.seconds(50, 100) == (0.5, 1.0)
    assert clock.seconds(100, 300) == (1.0, 2.0)
    assert clock.sample(1.5) == 200


def test_time_goes_on_where_a_sender_begins_anew() -> None:
    clock = StreamClock()
    clock.note(0, 1000, 100.0)
    clock.note(0, 100, 100.0)
    assert clock.now == 11.0
    assert clock.seconds(0, 100) == (10.0, 11.0)  # the newest of these positions
    assert clock.seconds(500, 600) == (5.0, 6.0)  # only the first sender came so far
    assert clock.position == 100
    assert clock.sample(10.5) == 50
    assert clock.place(10.25, 10.5) == (25, 50, 10.25, 10.5)
    assert clock.place(0.25, 0.5) == (25, 50, 0.25, 0.5)  # of the first sender, though the second has these too
    assert clock.place(0.25, 0.25) == (25, 26, 0.25, 0.26)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**5), st.sampled_from([1e3, 2e6])), max_size=40))
def test_it_never_goes_back(stretches: list[tuple[int, int, float]]) -> None:
    clock, last = StreamClock(), 0.0
    for start, count, rate in stretches:  # in any order
        clock.note(start, start + count, rate)
        assert clock.now >= last
        last = clock.now
