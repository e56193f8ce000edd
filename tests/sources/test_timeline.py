# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import WireError
from rfvit_rt.sources.timeline import StreamStatistics, Timeline
from rfvit_rt.wire.gnuradio import StreamMessage, Tag
from rfvit_rt.wire.pmt import UInt64

from .ramps import RATE, assert_ramp, message, ramp, segments


def place(
    *messages: StreamMessage,
    rate: float | None = RATE,
    frequency: float | None = None,
    count: int | None = None,
    may_retune: bool = False,
) -> tuple[list[IQBlock], StreamStatistics]:
    statistics = StreamStatistics()
    timeline = Timeline(rate, frequency, count, statistics, may_retune)
    blocks = [block for one in messages for block in timeline.blocks(one, received=1.5)]
    return blocks, statistics


def rx_time(offset: int, seconds: int, fraction: float) -> Tag:
    return Tag(offset, "rx_time", (UInt64(seconds), fraction))


def test_offset_gaps_are_counted_exactly() -> None:
    blocks, statistics = place(message(1000, 10), message(1010, 5), message(1100, 5), message(2**40, 1))
    assert [(block.sample_start, len(block.samples)) for block in blocks] == [
        (1000, 10),
        (1010, 5),
        (1100, 5),
        (2**40, 1),
    ]
    assert statistics == StreamStatistics(messages=4, samples_received=21, transport_lost=85 + 2**40 - 1105)
    assert {(block.sample_rate, block.frequency, block.received) for block in blocks} == {(RATE, None, 1.5)}


def test_untagged_messages_are_counted_here() -> None:
    blocks, _ = place(*(StreamMessage(ramp(start, 10)) for start in range(0, 50, 10)))
    assert [block.sample_start for block in blocks] == [0, 10, 20, 30, 40]


def test_tags_in_mid_message_split_it_at_their_sample() -> None:
    blocks, _ = place(
        message(
            0, 100, Tag(0, "rx_freq", 1e9), Tag(40, "rx_freq", 2e9), Tag(60, "rx_rate", 2e6), Tag(60, "rx_freq", 3e9)
        ),
        frequency=5e9,
    )
    assert segments(blocks) == [(0, 40, 1e6, 1e9, 0), (40, 60, 1e6, 2e9, 0), (60, 100, 2e6, 3e9, 0)]
    assert_ramp(blocks)


def test_same_values_again_and_other_tags_do_not_split() -> None:
    again = [Tag(n, key, value) for n in (10, 30) for key, value in (("rx_freq", 1e9), ("rx_rate", RATE), ("burst", n))]
    blocks, _ = place(message(0, 50, Tag(0, "rx_freq", 1e9), *again))
    assert segments(blocks) == [(0, 50, RATE, 1e9, 0)]
    assert len(blocks) == 1


def test_fallback_holds_until_a_tag_says_otherwise() -> None:
    blocks, _ = place(message(0, 10), message(10, 10, Tag(15, "rx_freq", 1e9)), frequency=5e9)
    assert segments(blocks) == [(0, 15, RATE, 5e9, 0), (15, 20, RATE, 1e9, 0)]


def test_nil_makes_the_frequency_unknown_until_the_next() -> None:
    blocks, _ = place(
        message(0, 30, Tag(0, "rx_freq", 1e9), Tag(10, "rx_freq", None)),
        message(30, 30, Tag(50, "rx_freq", 2e9)),
        frequency=5e9,
    )
    assert segments(blocks) == [(0, 10, RATE, 1e9, 0), (10, 50, RATE, None, 0), (50, 60, RATE, 2e9, 0)]
    assert_ramp(blocks)


def test_unsorted_tags_and_tags_outside_the_message_are_followed() -> None:
    blocks, _ = place(
        message(100, 50, Tag(120, "rx_freq", 2e9), Tag(90, "rx_freq", 1e9), Tag(200, "rx_freq", 3e9)), message(150, 10)
    )
    assert segments(blocks) == [(100, 120, RATE, 1e9, 0), (120, 150, RATE, 2e9, 0), (150, 160, RATE, 3e9, 0)]


def test_frequency_is_unknown_after_a_gap_that_may_hide_a_retune() -> None:
    before = message(0, 20, Tag(0, "rx_freq", 1e9), Tag(10, "rx_freq", 2e9))
    blocks, _ = place(before, message(30, 10, Tag(35, "rx_freq", 2e9)), frequency=5e9)
    assert segments(blocks)[2:] == [(30, 35, RATE, None, 0), (35, 40, RATE, 2e9, 0)]
    steady, _ = place(message(0, 20, Tag(0, "rx_freq", 1e9)), message(30, 10), frequency=5e9)
    assert [block.frequency for block in steady] == [1e9, 1e9]


def test_where_retunes_are_known_to_come_the_first_one_may_be_lost_too() -> None:
    first = message(0, 20, Tag(0, "rx_freq", 1e9))
    blocks, _ = place(first, message(30, 10, Tag(35, "rx_freq", 2e9)), frequency=1e9, may_retune=True)
    assert segments(blocks) == [(0, 20, RATE, 1e9, 0), (30, 35, RATE, None, 0), (35, 40, RATE, 2e9, 0)]
    again, _ = place(message(50, 10), first, message(30, 10), frequency=1e9, may_retune=True)  # after a restart too
    assert [block.frequency for block in again] == [1e9, 1e9, None]


def test_time_stamps_that_jump_are_loss_in_the_radio() -> None:
    blocks, statistics = place(
        message(0, 100, rx_time(0, 1_700_000_000, 0.999990)),
        message(100, 100, rx_time(130, 1_700_000_001, 0.000620)),  # 630 µs later, 130 samples later
    )
    assert segments(blocks) == [(0, 130, RATE, None, 0), (130, 200, RATE, None, 500)]
    assert statistics.radio_lost == 500
    assert statistics.transport_lost == 0


def test_time_stamps_are_exact_at_high_rates_far_from_the_epoch() -> None:
    rate, seconds = 245.76e6, 4_000_000_000
    start, gap = 10 * 245_760_000, 3
    tags = (rx_time(start, seconds + 10, gap / rate),)
    blocks, _ = place(message(0, 1, rx_time(0, seconds, 0.0)), message(start, 4, *tags), rate=rate)
    assert blocks[1].radio_lost == gap


def test_jitter_and_a_clock_that_is_set_back_are_no_loss() -> None:
    stamps = [rx_time(0, 100, 0.0), rx_time(10, 100, 10.9e-6), rx_time(20, 50, 0.0), rx_time(30, 50, 10e-6)]
    blocks, statistics = place(message(0, 100, *stamps))
    assert [block.radio_lost for block in blocks] == [0]
    assert statistics.radio_lost == 0


@pytest.mark.parametrize(("missing", "lost"), [(1.0, 0), (1.4, 0), (1.6, 2), (2.0, 2)])
def test_one_sample_may_be_rounding_and_two_are_loss(missing: float, lost: int) -> None:
    blocks, statistics = place(message(0, 100, rx_time(0, 100, 0.0), rx_time(10, 100, (10 + missing) * 1e-6)))
    assert [block.radio_lost for block in blocks] == ([0, lost] if lost else [0])
    assert statistics.radio_lost == lost


def test_time_is_reckoned_across_a_change_of_rate_and_a_gap() -> None:
    first = message(0, 100, rx_time(0, 9, 0.0), Tag(50, "rx_rate", 2e6))  # 50 µs, then 2 samples a µs
    blocks, statistics = place(first, message(150, 50, rx_time(150, 9, 100e-6)))
    assert statistics.radio_lost == 0
    blocks, statistics = place(first, message(150, 50, rx_time(150, 9, 150e-6)))
    assert blocks[-1].radio_lost == statistics.radio_lost == 100


def test_a_rate_that_is_said_again_and_again_moves_no_clock() -> None:
    """For eleven days, so that roundings of a double would add up to samples."""
    every, times = 333_333_333, 60_000
    said = [message(every * number, 0, Tag(every * number, "rx_rate", 20e6)) for number in range(1, times)]
    elapsed = every * times / 20e6
    late = message(every * times, 10, rx_time(every * times, 8_000 + int(elapsed), elapsed % 1))
    _, statistics = place(message(0, 0, rx_time(0, 8_000, 0.0)), *said, late, rate=20e6)
    assert statistics.radio_lost == 0


def test_rate_and_time_that_change_together_use_the_old_rate_for_the_past() -> None:
    tags = (Tag(100, "rx_rate", 4e6), rx_time(100, 0, 200e-6))
    blocks, _ = place(message(0, 200, rx_time(0, 0, 0.0), *tags))
    assert segments(blocks) == [(0, 100, 1e6, None, 0), (100, 200, 4e6, None, 100)]


def test_radio_loss_at_the_end_of_a_message_comes_with_the_next_block() -> None:
    blocks, _ = place(message(0, 10, rx_time(0, 0, 0.0)), message(10, 0, rx_time(10, 0, 60e-6)), message(10, 10))
    assert [block.radio_lost for block in blocks] == [0, 50]


def test_a_sender_that_says_it_is_simulated_is_known_by_it() -> None:
    assert place(message(0, 10, Tag(3, "simulated", True)), message(10, 10))[1].simulated
    for tag in (Tag(3, "simulated", False), Tag(3, "rx_rate", RATE)):
        assert not place(message(0, 10, tag))[1].simulated


def test_offset_that_goes_back_is_a_new_stream() -> None:
    tags = (Tag(500, "rx_freq", 1e9), rx_time(500, 100, 0.0))
    blocks, statistics = place(message(500, 10, *tags), message(0, 10, rx_time(0, 9999, 0.0)), message(10, 10))
    assert segments(blocks) == [(500, 510, RATE, 1e9, 0), (0, 20, RATE, None, 0)]
    assert statistics == StreamStatistics(messages=3, samples_received=30, restarts=1)


def test_samples_before_the_first_rate_are_counted() -> None:
    blocks, statistics = place(message(0, 10), message(10, 10, Tag(14, "rx_rate", 2e6)), rate=None)
    assert segments(blocks) == [(14, 20, 2e6, None, 0)]
    assert statistics.without_rate == 14


def test_stream_ends_exactly_at_its_sample_count() -> None:
    blocks, statistics = place(message(0, 10), message(15, 10), message(25, 10), count=18)
    assert segments(blocks) == [(0, 10, RATE, None, 0), (15, 18, RATE, None, 0)]
    assert (statistics.samples_received, statistics.transport_lost) == (13, 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("rx_rate", value) for value in (0.0, -1.0, float("nan"), float("inf"), "1e6", True, None, 1e300)),
        *(("rx_freq", value) for value in (float("nan"), float("-inf"), [1.0], np.zeros(2), 1e300)),
        *(("rx_time", value) for value in (1.0, (1,), (1, 2), (1.0, 0.5), (1, float("nan")), (1, 1e300), "now")),
    ],
)
def test_impossible_tag_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(WireError, match=f"the {key} tag is"):
        place(message(0, 10, Tag(0, key, value)))


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[StreamMessage], dict[int, float], set[int]]:
    """A ramp in messages of any size, some lost, retuned at any samples; with the retunes and the lost samples."""
    sizes = draw(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    total = sum(sizes)
    retunes = draw(st.dictionaries(st.integers(0, total), st.sampled_from([1e9, 2e9, 3e9]), max_size=6))
    kept: list[StreamMessage] = []
    missing: set[int] = set()
    start = 0
    for size in sizes:
        tags = (Tag(n, "rx_freq", value) for n, value in retunes.items() if start <= n < start + size)
        if draw(st.integers(0, 3)):
            kept.append(message(start, size, *tags))
        else:
            missing |= set(range(start, start + size))
        start += size
    return kept, retunes, missing


@given(streams())
def test_every_sample_is_placed_or_counted(stream: tuple[list[StreamMessage], dict[int, float], set[int]]) -> None:
    messages, retunes, missing = stream
    blocks, statistics = place(*messages)
    assert_ramp(blocks)
    for block in blocks:
        said = [value for n, value in sorted(retunes.items()) if n <= block.sample_start]
        truth = said[-1] if said else None
        assert not any(block.sample_start < n < block.sample_end and retunes[n] != block.frequency for n in retunes)
        # What is said is the truth, unless a retune was lost; nothing is said only after a loss.
        assert block.frequency == truth or missing & (set(retunes) if block.frequency else missing)
    if messages:
        first, last = messages[0].offset, messages[-1].offset + len(messages[-1].samples)
        assert statistics.samples_received == sum(len(block.samples) for block in blocks)
        assert statistics.transport_lost == len([n for n in missing if first <= n < last])
