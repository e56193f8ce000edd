# SPDX-License-Identifier: Apache-2.0
"""What arrives live, received by a thread of its own and kept in a bounded ring until it is read."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import closing
from typing import Protocol

from rfvit_rt.sources.csi_packets import Arrival

RING_BYTES = 16 << 20
"""Most bytes kept between the receiving thread and the reader."""

_OVERHEAD = 256  # bytes that an arrival takes beside its data, so that empty ones cannot pile up either
_POLL_SECONDS = 0.1  # how soon close() is noticed


class Port(Protocol):
    """An open socket or serial port."""

    name: str

    def receive(self, timeout: float) -> list[Arrival]:
        """Return what has arrived, at the latest after `timeout` seconds; raises StreamError if nothing more can."""

    def missed(self) -> int:
        """Packets that the operating system dropped so far because they were not fetched in time."""

    def diagnosis(self) -> str:
        """What to try where nothing arrives."""

    def close(self) -> None:
        """Free the port."""


class LiveArrivals:
    """Arrivals of one port, in order.

    Parameters
    ----------
    port : Port
        Read by the thread alone, and closed by it.
    drops_oldest : bool
        What happens when the reader is too slow: drop the oldest arrivals, or leave them waiting in the port.
    capacity : int
        Most bytes held.
    """

    def __init__(self, port: Port, drops_oldest: bool = True, capacity: int = RING_BYTES) -> None:
        self._port = port
        self._drops_oldest = drops_oldest
        self._capacity = capacity
        self._ring: deque[Arrival] = deque()
        self._held = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._done = False
        self._closed = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._receive, name=f"receive {port.name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Arrivals dropped so far, here and by the operating system."""
        return self._dropped + self._port.missed()

    @property
    def finished(self) -> bool:
        """Whether nothing more will come out, not even a failure."""
        with self._changed:
            return self._done and not self._ring and self._failure is None

    def get(self, timeout: float) -> Arrival | None:
        """Return the oldest arrival; None if none came within `timeout` seconds or none will.

        Raises
        ------
        Exception
            What the thread met, once all arrivals before it are read.
        """
        with self._changed:
            if not self._ring and not self._done:
                self._changed.wait(timeout)
            if self._ring:
                self._changed.notify_all()
                return self._pop()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            return None

    def diagnosis(self) -> str:
        """What to try where nothing arrives."""
        return self._port.diagnosis()

    def close(self) -> None:
        """Stop receiving and free the port; doing it again does nothing."""
        with self._changed:
            self._closed = self._done = True
            self._ring.clear()
            self._held = 0
            self._failure = None
            self._changed.notify_all()
        self._thread.join()

    def _receive(self) -> None:
        failure: Exception | None = None
        try:
            with closing(self._port):
                while not self._closed:
                    self._put(self._port.receive(_POLL_SECONDS))
        except Exception as error:  # the reader gets whatever it is
            failure = error
        with self._changed:
            self._done = True
            self._failure = None if self._closed else failure
            self._changed.notify_all()

    def _put(self, arrivals: list[Arrival]) -> None:
        with self._changed:
            for arrival in arrivals:
                size = _size(arrival)
                while self._ring and self._held + size > self._capacity and not self._closed:
                    if self._drops_oldest:
                        self._pop()
                        self._dropped += 1
                    else:
                        self._changed.wait()
                if self._closed:
                    return
                self._ring.append(arrival)
                self._held += size
            if arrivals:
                self._changed.notify_all()

    def _pop(self) -> Arrival:
        arrival = self._ring.popleft()
        self._held -= _size(arrival)
        return arrival


def _size(arrival: Arrival) -> int:
    return len(arrival.data) + _OVERHEAD
