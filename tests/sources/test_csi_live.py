# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from rfvit_rt.errors import StreamError
from rfvit_rt.sources.csi_live import LiveArrivals
from rfvit_rt.sources.csi_packets import Arrival

PATIENCE = 30.0


def arrival(number: int, size: int = 100) -> Arrival:
    return Arrival(bytes(size), float(number), float(number))


class Feed:
    """A port into which the test puts what is to arrive."""

    name = "feed"

    def __init__(self) -> None:
        self._waiting: list[Arrival] = []
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self.taken = 0
        self.open = True
        self.lost = 0

    def put(self, *arrivals: Arrival, failure: Exception | None = None) -> None:
        with self._changed:
            self._waiting += arrivals
            self._failure = failure
            self._changed.notify_all()

    def receive(self, timeout: float) -> list[Arrival]:
        with self._changed:
            if not self._waiting and self._failure is None:
                self._changed.wait(timeout)
            arrivals, self._waiting = self._waiting[:1], self._waiting[1:]
            if not arrivals and self._failure is not None:
                raise self._failure
            self.taken += len(arrivals)
            return arrivals

    def missed(self) -> int:
        return self.lost

    def diagnosis(self) -> str:
        return "put something in"

    def close(self) -> None:
        self.open = False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_arrivals_come_out_in_order() -> None:
    feed = Feed()
    live = LiveArrivals(feed)
    feed.put(*map(arrival, range(20)))
    got = [live.get(PATIENCE) for _ in range(20)]
    assert [one.time for one in got if one] == list(range(20))
    assert live.get(0.0) is None
    assert not live.finished
    live.close()
    assert not feed.open


def test_a_flood_drops_the_oldest_and_counts_them() -> None:
    feed = Feed()
    live = LiveArrivals(feed, capacity=10 * (100 + 256))
    feed.put(*map(arrival, range(100)))
    wait_until(lambda: feed.taken == 100 and live.dropped == 90)
    assert [one.time for one in (live.get(PATIENCE) for _ in range(10)) if one] == list(range(90, 100))
    feed.lost = 7
    assert live.dropped == 97
    live.close()


def test_arrivals_without_data_take_room_too() -> None:
    feed = Feed()
    live = LiveArrivals(feed, capacity=10 * 256)
    feed.put(*(arrival(number, size=0) for number in range(50)))
    wait_until(lambda: feed.taken == 50 and live.dropped == 40)
    live.close()


def test_a_sender_that_can_wait_is_held_back() -> None:
    feed = Feed()
    live = LiveArrivals(feed, drops_oldest=False, capacity=10 * (100 + 256))
    feed.put(*map(arrival, range(100)))
    wait_until(lambda: feed.taken == 11)  # one more is in the thread's hands
    assert [one.time for one in (live.get(PATIENCE) for _ in range(100)) if one] == list(range(100))
    assert live.dropped == 0
    live.close()


def test_closing_frees_a_thread_that_waits_for_room() -> None:
    feed = Feed()
    live = LiveArrivals(feed, drops_oldest=False, capacity=100 + 256)
    feed.put(*map(arrival, range(3)))
    wait_until(lambda: feed.taken == 2)
    live.close()
    live.close()
    assert live.finished


@pytest.mark.parametrize("failure", [StreamError("unplugged"), ZeroDivisionError("a mistake")])
def test_what_the_thread_meets_reaches_the_reader_after_all_arrivals(failure: Exception) -> None:
    feed = Feed()
    live = LiveArrivals(feed)
    feed.put(*map(arrival, range(5)), failure=failure)
    assert [one.time for one in (live.get(PATIENCE) for _ in range(5)) if one] == list(range(5))
    with pytest.raises(type(failure), match=str(failure)):
        live.get(PATIENCE)
    assert live.finished
    assert not feed.open
    live.close()


def test_a_port_that_cannot_be_freed_ends_the_stream_with_an_error() -> None:
    class Broken(Feed):
        def close(self) -> None:
            raise OSError("input/output error")

    feed = Broken()
    arrivals = LiveArrivals(feed)
    feed.put(failure=StreamError("unplugged"))
    with pytest.raises(OSError, match="input/output error"):
        wait_until(lambda: arrivals.get(0.1) is not None)
    assert arrivals.finished
    arrivals.close()
