# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets that samples and CSI leave a flowgraph by: they listen, and never keep a flowgraph from ending."""

from __future__ import annotations

import time
import weakref
from typing import Any

import zmq
from rfvit_rt.errors import StreamError

GRACE = 1.0
"""Seconds that readers are given at the end to take what is queued; all of stopping has to end within 2 s."""

_KINDS = {"push": zmq.PUSH, "pub": zmq.XPUB}
_POLICIES = ("block", "drop")
_LONGEST_WAIT = 0.1  # seconds: how soon the end of the flowgraph is noticed
_NAP = 0.001  # seconds
_LAST_BYTES = 1.8  # seconds, of which `GRACE` is a part: ZeroMQ lets go of the last message before all of it is sent
_LAST_BYTES_AT_THE_END = 10.0  # seconds, the same where nobody waits for the flowgraph to stop
_FORGET_AFTER = 256  # messages
_LARGEST_SUBSCRIPTION = 4096  # bytes: all that readers have to send


class SendingSocket:
    """A PUSH or PUB socket that listens, and what it does while nobody takes its messages.

    PUSH hands every message to one of its readers, in turn. PUB gives every message to all its readers. An XPUB socket
    stands in for PUB, which is the same to a reader, because it learns when one comes and goes.

    Parameters
    ----------
    endpoint : str
        Where to listen: ``tcp://127.0.0.1:5555``, ``tcp://*:5555``, ``ipc:///path``. Port ``*`` takes a free one.
    kind : {"push", "pub"}
        Kind of socket.
    policy : {"block", "drop"}
        Whether :meth:`ready` waits for a reader. With PUB and ``drop``, a reader that is too slow loses messages of its
        own while the others get them all; with PUB and ``block``, the slowest sets the pace.
    high_water_mark : int
        Most messages queued for a reader.

    Attributes
    ----------
    endpoint : str
        Where it listens, with the port that it got.

    Raises
    ------
    StreamError
        If an argument cannot be, or the endpoint cannot be bound.
    """

    def __init__(self, endpoint: str, kind: str, policy: str, high_water_mark: int) -> None:
        if kind not in _KINDS:
            raise StreamError(f"socket is {kind!r}, expected one of {', '.join(_KINDS)}")
        if policy not in _POLICIES:
            raise StreamError(f"policy is {policy!r}, expected one of {', '.join(_POLICIES)}")
        if not 1 <= high_water_mark <= 2**31 - 1:
            raise StreamError(f"the high-water mark is {high_water_mark}, expected 1 message or more")
        self.endpoint = endpoint
        self._kind = kind
        self._waits = policy == "block"
        self._high_water_mark = high_water_mark
        self._closing: weakref.finalize | None = None
        self._queued: list[tuple[zmq.MessageTracker, int]] = []  # messages that may still be here, and their items
        self._forget_at = _FORGET_AFTER
        self.open()

    def open(self) -> None:
        """Listen, unless it does already."""
        if self._closing is not None and self._closing.alive:
            return
        context = zmq.Context()
        socket = context.socket(_KINDS[self._kind])
        socket.sndhwm = self._high_water_mark
        socket.linger = round(1000 * GRACE)
        socket.copy_threshold = 0  # else short messages are not tracked
        socket.set(zmq.MAXMSGSIZE, _LARGEST_SUBSCRIPTION)
        socket.set(zmq.IPV6, "[" in self.endpoint)
        if self._kind == "pub":
            socket.set(zmq.XPUB_VERBOSER, 1)  # tell of every reader that comes and goes
            socket.set(zmq.XPUB_NODROP, int(self._waits))
        try:
            socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            _close(context, socket)
            raise StreamError(_bind_failure(self.endpoint, error)) from None
        self.endpoint = socket.last_endpoint.decode().rstrip("\0")
        self._socket = socket
        self._queued = []
        self._readers = 0
        self._reader_came = False
        # Left to the garbage collector, a context may be ended before its socket, and wait for that for ever.
        self._closing = weakref.finalize(self, _close, context, socket)

    def close(self, stream_ended: bool) -> int:
        """Give readers a second to take what is queued, then free the endpoint.

        Parameters
        ----------
        stream_ended : bool
            Whether nobody stopped the flowgraph before the stream's own end. With the policy ``block``, the second then
            begins anew with every message that is taken, so that nothing is lost to a reader that is merely slow. (A
            reader may hold two messages that it has not read: it is slow, not stuck, if it reads two in that time.)

        Returns
        -------
        int
            Items of the messages that nobody took in that time, but for one that was half on its way to a reader.
        """
        if self._closing is None or not self._closing.alive:
            return 0
        self._forget_taken()
        is_patient = stream_ended and self._waits
        since = time.monotonic()
        while self._queued and time.monotonic() < since + GRACE:
            time.sleep(_NAP)
            before = len(self._queued)
            self._forget_taken()
            if is_patient and len(self._queued) < before:
                since = time.monotonic()
        last_bytes = _LAST_BYTES_AT_THE_END if is_patient else _LAST_BYTES
        self._socket.linger = 0 if self._queued else round(1000 * (since + last_bytes - time.monotonic()))
        self._closing()
        return sum(items for _, items in self._queued)

    @property
    def waits(self) -> bool:
        """Whether the policy is to wait for readers."""
        return self._waits

    def ready(self) -> bool:
        """Whether somebody is there to take a message. With the policy ``block``, waits for that, 0.1 s at most."""
        if self._kind == "push":
            return bool(self._socket.poll(round(_LONGEST_WAIT * 1000) if self._waits else 0, zmq.POLLOUT))
        self._count_readers()
        if not self._readers and self._waits and self._socket.poll(round(_LONGEST_WAIT * 1000)):
            self._count_readers()
        return self._readers > 0

    def send(self, message: Any, items: int) -> bool:
        """Queue a message of so many items, and return whether there was room. Never waits for long.

        The message is bytes or like them. It is not copied, and must not change any more.
        """
        try:
            tracker = self._socket.send(message, zmq.NOBLOCK, copy=False, track=True)
        except zmq.Again:
            if self._waits:
                time.sleep(_NAP)  # an XPUB socket cannot be asked when it will have room
            return False
        self._queued.append((tracker, items))
        if len(self._queued) >= self._forget_at:
            self._forget_taken()
            self._forget_at = 2 * len(self._queued) + _FORGET_AFTER
        return True

    def reader_came(self) -> bool:
        """Whether a reader has come since this was last asked. Only a PUB socket knows."""
        came, self._reader_came = self._reader_came, False
        return came

    def _forget_taken(self) -> None:
        self._queued = [(tracker, items) for tracker, items in self._queued if not tracker.done]

    def _count_readers(self) -> None:
        while self._socket.poll(0):
            first = self._socket.recv()[:1]
            self._reader_came |= first == b"\1"
            self._readers += {b"\1": 1, b"\0": -1}.get(first, 0)


def _close(context: zmq.Context, socket: zmq.Socket) -> None:
    socket.close()
    context.term()


def _bind_failure(endpoint: str, error: zmq.ZMQError) -> str:
    hint = "expected tcp://HOST:PORT or ipc:///PATH, the host one of this machine's own or * for all"
    if error.errno == zmq.EADDRINUSE:
        hint = "another program or block uses it; stop that, or choose another port"
    return f"cannot listen at {endpoint}: {error.strerror}; {hint}"
