# SPDX-License-Identifier: Apache-2.0
"""CSI frames from a flowgraph or program over ZeroMQ, in the format of :mod:`rfvit_rt.wire.csi`."""

from __future__ import annotations

import time
from typing import Literal

import zmq

from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.sources.csi_frames import Link, Packet
from rfvit_rt.sources.csi_packets import Arrival
from rfvit_rt.wire.csi import MAX_BYTES, MAX_FRAME_INDEX, decode_csi

_BATCH = 64
_SENDERS = {"pull": "PUSH", "sub": "PUB"}
_MOST_WAITING = 100  # messages in ZeroMQ's own queue: 27 MB of the largest


class ZmqPort:
    """An open PULL or SUB socket.

    Parameters
    ----------
    kind : {"pull", "sub"}
        Reads a PUSH or PUB socket.
    endpoint : str
        ``tcp://host:port`` or ``ipc:///path``.
    bind : bool
        Listen at the endpoint instead of connecting to it.

    Raises
    ------
    StreamError
        If the endpoint cannot be opened.
    """

    def __init__(self, kind: Literal["pull", "sub"], endpoint: str, bind: bool = False) -> None:
        self.name = endpoint
        self._kind = kind
        self._bind = bind
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL if kind == "pull" else zmq.SUB)
        self._socket.linger = 0
        self._socket.ipv6 = "[" in endpoint
        self._socket.maxmsgsize = MAX_BYTES
        self._socket.rcvhwm = _MOST_WAITING
        try:
            if kind == "sub":
                self._socket.subscribe(b"")
            if bind:
                self._socket.bind(endpoint)
            else:
                self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            action = "listen at" if bind else "connect to"
            raise StreamError(f"cannot {action} {endpoint}: {error}; check the address and the port") from None

    def receive(self, timeout: float) -> list[Arrival]:
        """Wait for a message, then take what else is there already."""
        arrivals: list[Arrival] = []
        try:
            if self._socket.poll(round(timeout * 1000)):
                while len(arrivals) < _BATCH:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                    received = time.monotonic()
                    # Frames of a message that has several are not joined to something that decodes.
                    arrivals.append(Arrival(frames[0] if len(frames) == 1 else b"", received, received))
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise StreamError(f"{self.name}: receiving failed: {error}") from None
        return arrivals

    def missed(self) -> int:
        """ZeroMQ does not tell; the frames' own count does."""
        return 0

    def diagnosis(self) -> str:
        """What to try where nothing arrives."""
        sender, action = _SENDERS[self._kind], "connected to" if self._bind else "bound at"
        return f"is a CSI sink with a {sender} socket {action} {self.name}, and its flowgraph running?"

    def close(self) -> None:
        """Free the endpoint."""
        self._context.destroy(linger=0)


def decode_message(arrival: Arrival) -> Packet:
    """Read one message; raises WireError as :func:`rfvit_rt.wire.csi.decode_csi`."""
    if not arrival.data:
        raise WireError("not a CSI message: it is empty or has several frames")
    frame = decode_csi(arrival.data, arrival.received)
    return Packet(
        link=Link(frame.device, kind=f"{frame.csi.shape[0]} × {frame.csi.shape[1]}"),
        csi=frame.csi,
        subcarriers=frame.subcarriers,
        time=frame.timestamp,
        count=frame.frame_index,
        count_modulus=MAX_FRAME_INDEX,
        rssi=frame.rssi,
        agc=frame.agc,
        received=arrival.received,
    )
