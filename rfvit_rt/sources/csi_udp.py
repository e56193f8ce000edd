# SPDX-License-Identifier: Apache-2.0
"""Datagrams on a UDP port, with the time at which the kernel took them from the network."""

from __future__ import annotations

import math
import socket
import struct
import sys
import time
from dataclasses import replace

from rfvit_rt.errors import StreamError
from rfvit_rt.sources.csi_packets import Arrival

LARGEST_DATAGRAM = 65535
RECEIVE_BUFFER = 4 << 20
"""Bytes asked of the kernel for datagrams not fetched yet; Linux gives at most net.core.rmem_max."""

_BATCH = 64
# Linux's numbers, which Python's socket module does not know. They are asm-generic's: on the few machines that have
# others the kernel refuses the option or sends none, and the time is taken here.
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_ANCILLARY_BYTES = 128
_TIMESPEC = struct.Struct("@ll")
_UNSIGNED = struct.Struct("@I")
_LONGEST_DELAY = 60.0  # seconds in the kernel's queue; more is a clock that was set in between
_MOST_LINES = 256  # in a datagram, which has room for fewer that tell anything; what is left comes as one


class UdpPort:
    """A bound UDP socket.

    Parameters
    ----------
    host, port : str, int
        Where to listen. Sniffers broadcast their packets, which only ``0.0.0.0`` receives.
    hint : str
        What to try where nothing arrives.

    Raises
    ------
    StreamError
        If the port cannot be opened.
    """

    def __init__(self, host: str, port: int, hint: str) -> None:
        self.name = f"udp {host}:{port}"
        self._hint = hint
        self._missed = 0
        self._taken = -math.inf  # when the newest datagram was taken from the network
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such name"
            raise StreamError(f"cannot listen on {self.name}: {reason}; use an address of this machine") from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._stamps = self._ask_for_stamps()
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise StreamError(
                f"cannot listen on {self.name}: {error.strerror}; use an address of this machine and a port that no "
                "other program has ('ss -ulnp' lists them)"
            ) from None

    @property
    def port(self) -> int:
        """Port number, also where the system chose it (port 0)."""
        return int(self._socket.getsockname()[1])

    def receive(self, timeout: float) -> list[Arrival]:
        """Wait for a datagram, then take what else is there already."""
        arrivals: list[Arrival] = []
        self._socket.settimeout(timeout)
        try:
            while len(arrivals) < _BATCH:
                arrivals.append(self._next())
                self._socket.settimeout(0)
        except (TimeoutError, BlockingIOError):
            pass
        except OSError as error:
            if not arrivals:
                raise StreamError(f"{self.name}: receiving failed: {error.strerror}") from None
        return arrivals

    def missed(self) -> int:
        """Datagrams that the kernel dropped because its buffer was full."""
        return self._missed

    def diagnosis(self) -> str:
        """What to try where nothing arrives."""
        return self._hint

    def close(self) -> None:
        """Free the port."""
        self._socket.close()

    def _ask_for_stamps(self) -> bool:
        if sys.platform != "linux":
            return False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        except OSError:
            return False
        return True

    def _next(self) -> Arrival:
        if self._stamps:
            data, ancillary, _, sender = self._socket.recvmsg(LARGEST_DATAGRAM, _ANCILLARY_BYTES)
        else:
            (data, sender), ancillary = self._socket.recvfrom(LARGEST_DATAGRAM), []
        now, wall = time.monotonic(), time.time()
        taken = now
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                # As an age, the stamp of the wall clock becomes one of the monotonic clock, which nobody sets.
                delay = wall - seconds - nanoseconds * 1e-9
                taken = now - (delay if 0 <= delay <= _LONGEST_DELAY else 0.0)
            elif level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL and len(value) >= _UNSIGNED.size:
                (self._missed,) = _UNSIGNED.unpack_from(value)
        # The two clocks are read one after the other: where this thread was held up in between, a datagram would seem
        # to have come before those ahead of it in the kernel's queue.
        self._taken = max(self._taken, taken)
        return Arrival(data, self._taken, self._taken, str(sender[0]))


class UdpLinePort(UdpPort):
    """A bound UDP socket whose datagrams hold one or more whole lines of text."""

    def receive(self, timeout: float) -> list[Arrival]:
        """Return the lines that have arrived."""
        arrivals = super().receive(timeout)
        return [
            replace(arrival, data=line)
            for arrival in arrivals
            for line in arrival.data.split(b"\n", _MOST_LINES - 1)
            if line
        ]
