# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the blocks share: a publisher that knows its listeners, and streams that say their position."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pmt
import zmq
from gnuradio import gr
from numpy.typing import NDArray
from rfvit_rt.wire.results import Result, encode

PATIENCE = 20.0  # s after which a test that waits fails


class Publisher:
    """Publishes as ``rfvit --publish`` does; at a free port, if none is named."""

    def __init__(self, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)  # a PUB that sees who subscribes
        self._socket.set(zmq.XPUB_VERBOSE, 1)
        self._socket.set(zmq.LINGER, 1000)  # as rfvit does
        self._socket.bind(endpoint)
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def wait_for_listeners(self, subscriptions: int = 1) -> None:
        """Wait for so many subscriptions."""
        while subscriptions:
            if not self._socket.poll(PATIENCE * 1000):
                raise TimeoutError("nobody listens")
            subscriptions -= self._socket.recv().startswith(b"\1")

    def publish(self, *results: Result) -> None:
        """Send results."""
        for result in results:
            self._socket.send(encode(result))

    def publish_bytes(self, *frames: bytes) -> None:
        """Send anything, as one message."""
        self._socket.send_multipart(frames)

    def close(self) -> None:
        """End the connections."""
        self._socket.close()
        self._context.term()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; raise if it does not."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.005)


def ramp(start: int, count: int) -> NDArray[np.complex64]:
    """Samples that say their own position: its low 16 bits are the real part, the rest the imaginary one."""
    n = np.arange(start, start + count)
    return ((n & 0xFFFF) + 1j * (n >> 16)).astype(np.complex64)


def positions(samples: NDArray[np.complex64]) -> NDArray[np.int64]:
    """Positions that the samples of a ramp say."""
    samples = np.asarray(samples, np.complex64)
    return samples.real.astype(np.int64) + (samples.imag.astype(np.int64) << 16)


def tag(offset: int, key: str, value: object) -> gr.tag_t:
    """Make a stream tag."""
    made = gr.tag_t()
    made.offset, made.key, made.value = offset, pmt.intern(key), pmt.to_pmt(value)
    return made


def plain_tags(tags: Iterable[gr.tag_t]) -> list[tuple[int, str, Any]]:
    """Give tags as offset, key and value, in order of offset and key."""
    plain = [(tag.offset, pmt.symbol_to_string(tag.key), pmt.to_python(tag.value)) for tag in tags]
    return sorted(plain, key=lambda tag: tag[:2])
