# SPDX-License-Identifier: GPL-3.0-or-later
"""Results that rfvit publishes (``rfvit segment ... --publish``), as its listeners receive them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import zmq
from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.wire.results import MAX_BYTES, Result, decode, prefix

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5558"
HIGH_WATER_MARK = 1000  # messages that wait for a listener; there are some 35 a second
MOST_AT_ONCE = 100  # messages read in one go, so that a flood of them holds up nobody
RECONNECT = 50  # ms between attempts to reach rfvit: it begins to publish just before its first result


class ResultSocket:
    """Listens to rfvit's results; it may start before rfvit, and outlives it.

    To be used by one thread at a time. What cannot be read is counted and dropped.

    Parameters
    ----------
    endpoint : str
        What was given to ``rfvit segment --publish``.
    kinds : sequence of str
        Types of result to listen to; none means all.

    Attributes
    ----------
    refused : int
        Messages so far that were no valid results.

    Raises
    ------
    StreamError
        If the endpoint is not one.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, kinds: Sequence[str] = ()) -> None:
        self.refused = 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.set(zmq.MAXMSGSIZE, 2 * MAX_BYTES)  # longer ones end the connection
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT)
        self._breaks = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._is_broken = False
        self._endpoint = endpoint
        for topic in [prefix(kind) for kind in kinds] or [b""]:
            self._socket.subscribe(topic)
        try:
            _connect(self._socket, endpoint)
        except StreamError:
            self.close()
            raise

    def wait(self, timeout: float) -> bool:
        """Wait until there are results, at most so many seconds; return whether there are any."""
        return bool(self._socket.poll(round(timeout * 1000)))

    def results(self) -> Iterator[Result]:
        """Yield the results that are there by now, in the order they came; never waits."""
        self._look_for_breaks()
        for _ in range(MOST_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                self._mend()
                return
            try:
                if len(frames) != 1:
                    raise WireError(f"a result of {len(frames)} frames came; expected 1")
                yield decode(frames[0])
            except WireError:
                self.refused += 1

    def _look_for_breaks(self) -> None:
        while self._breaks.poll(0):
            self._breaks.recv_multipart()
            self._is_broken = True

    def _mend(self) -> None:
        """Connect anew after a break: libzmq does not by itself where the peer broke the protocol.

        Only when all that came before the break has been read: disconnecting throws away what has not.
        """
        if self._is_broken:
            self._is_broken = False
            with suppress(zmq.ZMQError):  # it may have given the endpoint up
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)  # the monitor's socket too, which would else keep the context alive


def check_endpoint(endpoint: str) -> str:
    """Return an endpoint that can be listened to.

    Raises
    ------
    StreamError
        If it is not one.
    """
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        _connect(socket, endpoint)  # it subscribes to nothing
    return endpoint


def _connect(socket: zmq.Socket, endpoint: str) -> None:
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise StreamError(
            f"cannot listen to results at {endpoint!r}: {error.strerror}; "
            f"expected what rfvit was given with --publish, such as {DEFAULT_ENDPOINT}"
        ) from error
