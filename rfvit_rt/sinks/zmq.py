# SPDX-License-Identifier: Apache-2.0
"""Results as JSON on a ZeroMQ PUB socket, for any number of listeners."""

from __future__ import annotations

from types import TracebackType

import zmq

from rfvit_rt.errors import OutputError
from rfvit_rt.wire.results import Result, encode

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5558"
HIGH_WATER_MARK = 1000
LINGER = 1000  # ms that closing waits for listeners to take what was sent


class ZmqSink:
    """Publishes every result to all who listen.

    It never waits: a listener that is too slow or comes late misses results.

    Parameters
    ----------
    endpoint : str
        Where to listen, as ZeroMQ writes it. The default can be reached from this machine alone; the socket has no
        access control, so name another interface only on a network you trust.
    high_water_mark : int
        Messages kept for each slow listener before it misses some.

    Raises
    ------
    OutputError
        If the endpoint is not one, or taken.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, high_water_mark: int = HIGH_WATER_MARK) -> None:
        if high_water_mark < 1:  # 0 would mean without bound
            raise ValueError(f"high_water_mark is {high_water_mark}; expected at least 1")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, high_water_mark)
        self._socket.set(zmq.LINGER, LINGER)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OutputError(_explanation(endpoint, error)) from error

    @property
    def endpoint(self) -> str:
        """Where listeners connect to; holds the port chosen where the endpoint left it open with ``*``."""
        return self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def write(self, result: Result) -> None:
        """Publish one result, in a message of one frame."""
        self._socket.send(encode(result))

    def close(self) -> None:
        """Close the socket, after giving listeners up to a second to take what was sent."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> ZmqSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explanation(endpoint: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return f"cannot publish results at {endpoint}: the port is in use; choose another one"
    if error.errno == zmq.EADDRNOTAVAIL:
        return f"cannot publish results at {endpoint}: this machine has no such address; try {DEFAULT_ENDPOINT}"
    return f"cannot publish results at {endpoint}: {error.strerror}; expected an endpoint such as {DEFAULT_ENDPOINT}"
