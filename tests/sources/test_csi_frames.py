# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.sources.csi_frames import (
    MAX_LINKS,
    MAX_REASONS,
    RESTART_GAP,
    SETTLING_FRAMES,
    CSIStatistics,
    FrameAssembler,
    Link,
    Packet,
)

OURS = Link("card 20 MHz", "02:00:00:00:00:01")
THEIRS = Link("card 20 MHz", "02:00:00:00:00:02")
SUBCARRIERS = np.array([-1, 1], np.int16)


def packet(number: int, link: Link = OURS, part: int = 0, **values: Any) -> Packet:
    values = {"time": number / 10, "count": number % 4096, "count_modulus": 4096, "received": float(number)} | values
    csi = np.full((1, 2), number + 1j * part, np.complex64)
    return Packet(link, csi, SUBCARRIERS, part=part, rssi=np.array([-part], np.float32), **values)


class Run:
    """Packets put through an assembler, and all that came of them."""

    def __init__(self, packets: Iterable[Packet], **options: Any) -> None:
        self.statistics = CSIStatistics()
        self.told: list[str] = []
        self.assembler = FrameAssembler(self.statistics, tell=self.told.append, **{"settling": 1} | options)
        self.frames: list[CSIFrame] = []
        for one in packets:
            self.frames += self.assembler.add(one)
        self.before_the_end = len(self.frames)
        self.frames += self.assembler.finish()

    @property
    def numbers(self) -> list[int]:
        return [int(frame.csi[0, 0].real) for frame in self.frames]

    @property
    def indices(self) -> list[int]:
        return [frame.frame_index for frame in self.frames]

    @property
    def steps(self) -> list[float]:
        return np.diff([frame.timestamp for frame in self.frames]).round(6).tolist()


def test_a_frame_is_what_its_packet_says() -> None:
    run = Run([packet(7, agc=3.5)])
    (frame,) = run.frames
    np.testing.assert_array_equal(frame.csi, np.full((1, 2), 7, np.complex64))
    assert (frame.subcarriers is SUBCARRIERS, frame.device, frame.agc) == (True, "card 20 MHz", 3.5)
    assert (frame.timestamp, frame.frame_index, frame.received) == (0.7, 7, 7.0)
    assert run.statistics == CSIStatistics(frames=1)


# Counting.


def test_lost_frames_are_counted_over_the_wrap() -> None:
    came = [4090, 4091, 4095, 4096, 4100, 4101]
    run = Run([packet(number) for number in came])
    assert run.indices == came
    assert run.statistics.lost == 3 + 3


def test_frames_without_a_count_and_repeated_numbers_go_on_counting() -> None:
    counts = [None, None, 5, 5, 6, None, 9, 10]
    run = Run([packet(number, count=count) for number, count in enumerate(counts)])
    assert run.indices == list(range(8))
    assert run.statistics.lost == 0


def test_jumps_that_are_no_loss_are_not_counted() -> None:
    """Backwards, or by more than an eighth of the numbers: another count of the same sender, or its restart."""
    run = Run([packet(number, count=count) for number, count in enumerate([100, 90, 91, 91 + 513, 91 + 513 + 512])])
    assert run.indices == [100, 101, 102, 103, 103 + 512]
    assert run.statistics.lost == 511


def test_no_jump_however_large_makes_a_position_that_cannot_be_counted() -> None:
    """As a sender of frames over ZeroMQ may number them: an eighth of 2**62 at a time, a hundred times."""
    step = 2**62 // 8
    jumps = [packet(number, count=number * step % 2**62, count_modulus=2**62) for number in range(100)]
    assert Run(jumps).indices == list(range(100))


def test_frames_that_overtook_each_other_are_not_lost() -> None:
    """Frames of a block acknowledgement are sent again after their followers; the sniffer has all of them."""
    counts = [4094, 4095, 1, 0, 2, 5, 3, 4, 6, 8]
    run = Run([packet(number, count=count) for number, count in enumerate(counts)])
    assert run.numbers == list(range(10))
    assert run.statistics.lost == 1  # number 7 alone
    assert (np.diff(run.indices) > 0).all()


def test_a_count_that_starts_again_finds_nothing_that_was_lost() -> None:
    run = Run([packet(number, count=count) for number, count in enumerate([10, 12, 13, 0, 1, 2])])
    assert run.statistics.lost == 1
    wrapped = [number for number in range(4200) if number != 50]
    assert Run([packet(number) for number in wrapped]).statistics.lost == 1


def test_a_datagram_that_comes_twice_is_one_frame() -> None:
    """A frame that was sent again has its number again as well, but is another measurement."""
    again = replace(packet(1, time=0.15), csi=np.full((1, 2), 9, np.complex64))
    run = Run([packet(0), packet(1), packet(1, time=0.11), again, packet(2)])
    assert run.numbers == [0, 1, 9, 2]
    assert run.statistics.malformed == {"repeated": 1}
    assert run.statistics.lost == 0


# Time.


def test_a_devices_clock_is_unwrapped() -> None:
    ticks = [2**32 - 1_000_000, 2**32 - 500_000, 500_000, 1_000_000]
    run = Run([packet(number, clock=clock) for number, clock in enumerate(ticks)])
    assert run.frames[0].timestamp == pytest.approx(4293.967296)
    assert run.steps == [0.5, 1.0, 0.5]
    assert run.statistics.restarts == 0


def test_a_clock_that_was_set_back_leaves_a_gap_that_ends_any_window() -> None:
    run = Run([packet(number, clock=clock) for number, clock in enumerate([9_000_000, 9_100_000, 100_000, 200_000])])
    assert run.steps == [0.1, RESTART_GAP, 0.1]
    assert run.statistics.restarts == 1
    assert run.indices == [0, 1, 2, 3]


@pytest.mark.parametrize("after", [9_000_000, 3_000_000_000])  # s/1e6; the latter past half of what a clock counts
def test_a_board_that_starts_again_is_a_restart_however_long_it_ran(after: int) -> None:
    clocks = [after, after + 100_000, 300_000, 400_000]
    counted = Run([packet(number, clock=clock) for number, clock in zip([1500, 1501, 1, 2], clocks, strict=True)])
    timed = Run([packet(5 + number, clock=clock, count=None) for number, clock in enumerate(clocks)])
    for run in (counted, timed):
        assert run.steps == [0.1, RESTART_GAP, 0.1]
        assert run.statistics.restarts == 1
        assert run.statistics.lost == 0
    silent = [packet(0, clock=0), packet(1, clock=2_000_000_000), packet(2, clock=2_000_100_000)]  # from a file
    assert Run([replace(one, time=0.0) for one in silent]).steps == [2000.0, 0.1]


def test_nothing_is_lost_between_two_captures_in_one_file() -> None:
    counts, clocks = [99, 100, 2000, 2001], [9_000_000, 9_100_000, 100_000, 200_000]
    run = Run([packet(count, clock=clock, count=count) for count, clock in zip(counts, clocks, strict=True)])
    assert run.statistics.lost == 0
    assert run.indices == [99, 100, 101, 102]


def test_late_and_repeated_frames_are_left_out() -> None:
    times = [(0, 1_000_000), (1, 2_000_000), (1, 2_000_000), (2, 1_990_000), (3, 3_000_000)]
    run = Run([packet(number, count=number, clock=clock) for number, clock in times])
    assert run.indices == [0, 1, 3]
    assert run.statistics.malformed == {"repeated": 1, "late": 1}


def test_time_goes_up_even_where_stamps_are_the_same() -> None:
    run = Run([packet(number, time=5.0) for number in range(3)])
    assert run.steps == [1e-6, 1e-6]
    run = Run([packet(number, clock=5) for number in range(3)])  # other counts: they are other frames
    assert run.steps == [1e-6, 1e-6]


# Frames of several parts.


def parts(numbers: Iterable[int], of: Sequence[int] = (0, 8, 1, 9)) -> list[Packet]:
    return [
        packet(number, part=part, time=number / 10 + place / 1000)
        for number in numbers
        for place, part in enumerate(of)
    ]


def test_cores_and_streams_become_one_frame() -> None:
    run = Run(parts(range(20)), settling=SETTLING_FRAMES)
    assert run.numbers == list(range(20))
    for frame in run.frames:
        np.testing.assert_array_equal(frame.csi[:, 0].imag, [0, 1, 8, 9])
        assert frame.rssi is not None
        np.testing.assert_array_equal(frame.rssi, [0, -1, -8, -9])
    assert run.steps == [0.1] * 19  # the time is that of a frame's first part
    assert run.before_the_end == 20


def test_frames_that_lack_a_part_are_lost_and_said_to_be_incomplete() -> None:
    packets = parts(range(40))
    packets = [one for one in packets if (one.count, one.part) not in {(20, 9), (25, 0), (39, 1)}]
    run = Run(packets, settling=SETTLING_FRAMES)
    assert run.numbers == [number for number in range(39) if number not in (20, 25)]
    assert run.statistics.malformed == {"incomplete frame": 3}
    assert run.statistics.lost == 2  # the last one is followed by none that could tell


def test_a_part_that_hardly_ever_comes_is_no_part_of_the_frames() -> None:
    packets = parts(range(30))
    packets.insert(50, packet(12, part=63))
    run = Run(packets, settling=SETTLING_FRAMES)
    assert {len(frame.csi) for frame in run.frames} == {4}
    assert run.statistics.malformed["unexpected core or stream"] == 1


def test_frames_without_a_count_are_told_apart_by_their_parts() -> None:
    packets = [replace(one, count=None) for one in parts(range(20), of=(0, 1))]
    assert Run(packets, settling=SETTLING_FRAMES).numbers == list(range(20))


# Whose frames.


def test_the_most_frequent_link_is_followed_and_the_others_are_foreign() -> None:
    packets = [packet(0, THEIRS), packet(1, THEIRS)] + [
        packet(n, THEIRS if n % 5 == 0 else OURS) for n in range(2, 100)
    ]
    run = Run(packets, settling=SETTLING_FRAMES)
    assert run.numbers == [one for one in range(2, 100) if one % 5]
    assert run.statistics.foreign == 100 - len(run.frames)
    assert run.told[0] == f"following {OURS}"
    assert THEIRS.mac in run.told[1]
    assert "--mac" in run.told[1]


def test_nothing_is_followed_before_it_is_settled_and_nothing_is_lost_for_it() -> None:
    packets = [packet(number) for number in range(SETTLING_FRAMES)]
    assert Run(packets[:-1], settling=SETTLING_FRAMES).before_the_end == 0
    run = Run(packets, settling=SETTLING_FRAMES)
    assert run.before_the_end == SETTLING_FRAMES
    assert [frame.received for frame in run.frames] == [one.received for one in packets]


def test_a_file_is_looked_through_before_a_link_is_chosen() -> None:
    packets = [packet(number, THEIRS) for number in range(100)] + [packet(number) for number in range(100, 300)]
    assert Run(packets, settling=None).numbers == list(range(100, 300))
    assert Run(packets, settling=SETTLING_FRAMES).numbers[:100] == list(range(100))


def test_a_chosen_transmitter_is_the_only_one_that_counts() -> None:
    packets = [packet(number, THEIRS if number % 10 else OURS) for number in range(300)]
    run = Run(packets, mac=OURS.mac, settling=SETTLING_FRAMES)
    assert run.numbers == list(range(0, 300, 10))
    assert run.statistics.foreign == 270


def test_a_change_of_device_is_followed_once_the_old_one_is_silent() -> None:
    wide = Link("card 80 MHz", OURS.mac)
    packets = [packet(number) for number in range(50)] + [packet(number, wide) for number in range(50, 150)]
    run = Run(packets, settling=SETTLING_FRAMES)
    switched = next(number for number, frame in enumerate(run.frames) if frame.device == wide.device)
    assert switched == 50
    assert run.numbers[50:] == list(range(69, 150))  # two seconds passed first
    assert run.statistics.restarts == 1
    assert run.statistics.foreign == 19
    assert (np.diff(run.indices) > 0).all()
    assert (np.diff([frame.timestamp for frame in run.frames]) > 0).all()
    assert "starting anew" in run.told[1]


def test_a_burst_of_others_is_no_change() -> None:
    burst = [packet(50, THEIRS, time=5.0 + number / 1000) for number in range(500)]
    run = Run([packet(n) for n in range(50)] + burst + [packet(n) for n in range(51, 60)], settling=SETTLING_FRAMES)
    assert run.numbers == [*range(50), *range(51, 60)]
    assert run.statistics.foreign == 500


def test_a_few_others_during_a_pause_are_no_change() -> None:
    pause = [packet(80, THEIRS, time=8.0 + number) for number in range(SETTLING_FRAMES)]
    run = Run([packet(n) for n in range(50)] + pause + [packet(n) for n in range(300, 310)], settling=SETTLING_FRAMES)
    assert run.numbers == [*range(50), *range(300, 310)]
    assert (run.statistics.foreign, run.statistics.restarts) == (SETTLING_FRAMES, 0)


def test_other_devices_clocks_have_nothing_to_do_with_each_other() -> None:
    packets = [packet(n, clock=n * 100_000) for n in range(50)]
    packets += [packet(n, THEIRS, clock=10**9 + n * 100_000) for n in range(50, 150)]
    run = Run(packets, settling=SETTLING_FRAMES)
    assert run.steps == pytest.approx([0.1] * 49 + [RESTART_GAP] + [0.1] * (len(run.frames) - 51))


def test_a_burst_of_another_receivers_frames_is_no_change_whatever_its_clock_says() -> None:
    theirs = replace(OURS, receiver="192.0.2.2")
    burst = [packet(n, theirs, time=5.0 + n / 1000, clock=10**9 + n * 1000) for n in range(50)]
    ours = [packet(n, clock=n * 100_000) for n in range(60)]
    run = Run([*ours[:50], *burst, *ours[50:]], settling=SETTLING_FRAMES)
    assert run.numbers == list(range(60))
    assert (run.statistics.foreign, run.statistics.restarts) == (50, 0)


def test_what_is_taken_from_packets_is_chosen_by_the_first_of_the_link() -> None:
    asked: list[list[int]] = []

    def select(first: Sequence[Packet]) -> Any:
        asked.append([int(one.csi[0, 0].real) for one in first])
        link = replace(first[0].link, device="narrow")
        return lambda one: replace(one, link=link, csi=one.csi[:, :1], subcarriers=SUBCARRIERS[:1])

    packets = [packet(n, THEIRS if n % 4 == 0 else OURS) for n in range(200)]
    for settling in (None, SETTLING_FRAMES):  # a file and its replay
        run = Run(packets, select=select, settling=settling)
        assert {(frame.device, frame.csi.shape) for frame in run.frames} == {("narrow", (1, 1))}
    assert asked[0] == asked[1]
    assert len(asked[0]) < SETTLING_FRAMES


# Bounds.


def test_memory_does_not_grow_with_hostile_packets() -> None:
    run = Run([], settling=SETTLING_FRAMES)
    for number in range(10_000):  # a link each: none of them ever settles it
        list(run.assembler.add(packet(number, Link("card", f"mac {number}"))))
    assert len(run.assembler.links) == MAX_LINKS
    assert len(run.assembler._waiting) <= 4096
    for number in range(1000):
        run.statistics.refuse(f"reason {number}: detail")
    assert len(run.statistics.malformed) == MAX_REASONS + 1
    assert run.statistics.unusable == 1000
