# SPDX-License-Identifier: GPL-3.0-or-later
"""Channel state information (CSI) out of a flowgraph to rfvit, over ZeroMQ: one frame, one message."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from gnuradio.rfvit.sending_socket import SendingSocket
from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.wire.csi import encode_csi

HIGH_WATER_MARK = 1000
"""Most frames queued for a reader."""

INPUTS = ("stream", "pdu")


class CSISink(gr.sync_block):
    """Send CSI frames to rfvit over ZeroMQ.

    Read them with ``rfvit sense zmq+sub://127.0.0.1:5556`` (PUB) or ``zmq+pull://127.0.0.1:5556`` (PUSH).

    A stream's item is one frame: a vector of antennas × subcarriers complex values, antenna by antenna. Its place in
    the stream is the frame's number; its time goes on from the last ``rx_time`` tag, else from 0, by the frame rate.

    A PDU on message port ``pdus`` is one frame, too: a c32 or c64 vector of as many values. Its metadata may say
    ``timestamp`` (seconds), ``frame_index``, ``rssi`` (dBm; one, or one for each antenna) and ``agc`` (dB). Without
    a timestamp it gets the time of its arrival here, without an index the next number.

    A stream into a PUSH socket waits for its reader. Otherwise frames that nobody takes are dropped and counted; the
    reader sees them missing in the frames' numbers.

    Parameters
    ----------
    input_kind : {"stream", "pdu"}
        Where frames come from.
    antennas : int
        Rows of a frame: pairs of a transmitting stream and a receiving antenna.
    subcarriers : sequence of int
        OFDM subcarrier index of each column, ascending.
    device : str
        Kind of device and bandwidth, for example ``nexmon bcm43455c0 20 MHz``.
    frame_rate : float
        Frames per second of a stream.
    endpoint : str
        ZeroMQ address to listen at; loopback unless told otherwise. Port ``*`` takes a free one.
    socket : {"push", "pub"}
        PUSH is for one reader, PUB for any number.

    Raises
    ------
    StreamError
        If a parameter cannot be, or the endpoint is taken.

    Examples
    --------
    >>> CSISink("pdu", 1, [-2, -1, 1, 2], "mine", endpoint="tcp://127.0.0.1:*").dropped()
    0
    """

    def __init__(
        self,
        input_kind: str = "stream",
        antennas: int = 1,
        subcarriers: Sequence[int] = (*range(-28, 0), *range(1, 29)),
        device: str = "GNU Radio",
        frame_rate: float = 100.0,
        endpoint: str = "tcp://127.0.0.1:5556",
        socket: str = "pub",
    ) -> None:
        if input_kind not in INPUTS:
            raise StreamError(f"input is {input_kind!r}, expected one of {', '.join(INPUTS)}")
        if not 0 < frame_rate < math.inf:
            raise StreamError(f"the frame rate is {frame_rate}, expected frames per second, more than 0")
        self._template = _template(antennas, subcarriers, device)
        streams = input_kind == "stream"
        # GNU Radio cannot hold messages back, only streams.
        self._link = SendingSocket(
            endpoint, socket, "block" if streams and socket == "push" else "drop", HIGH_WATER_MARK
        )
        item = [(np.complex64, self._template.csi.size)] if streams else None
        gr.sync_block.__init__(self, "rfvit CSI Sink", item, None)
        self._frame_rate = frame_rate
        self._origin = (0, 0.0)  # a frame's number and its time
        self._next_index = 0
        self._sent = self._dropped = self._refused = 0
        if not streams:
            self.message_port_register_in(pmt.intern("pdus"))
            self.set_msg_handler(pmt.intern("pdus"), self._take_pdu)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self._link.endpoint

    def sent(self) -> int:
        """Return how many frames were sent so far."""
        return self._sent

    def dropped(self) -> int:
        """Return how many frames were dropped so far because nobody took them."""
        return self._dropped

    def refused(self) -> int:
        """Return how many frames or PDUs were no CSI that can be sent."""
        return self._refused

    def start(self) -> bool:
        """Listen (again)."""
        self._link.open()
        self._origin = (0, 0.0)
        return True

    def stop(self) -> bool:
        """Let readers take what is queued, and count what they did not."""
        left = self._link.close(self.detail().done())
        self._sent -= left
        self._dropped += left
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Send the stream's items, as far as somebody takes them."""
        start = self.nitems_read(0)
        times = {
            tag.offset: tag.value for tag in self.get_tags_in_window(0, 0, len(input_items[0]), pmt.intern("rx_time"))
        }
        for number, values in enumerate(input_items[0], start):
            if number in times:
                self._origin = (number, _seconds(times[number], default=self._time(number)))
            frame = replace(self._template, csi=values, timestamp=self._time(number), frame_index=number)
            if not self._send(frame) and self._link.waits:
                return number - start
        return len(input_items[0])

    def _time(self, number: int) -> float:
        first, seconds = self._origin
        return seconds + (number - first) / self._frame_rate

    def _take_pdu(self, message: Any) -> None:
        try:
            frame = self._read_pdu(message)
        except (WireError, ValueError, OverflowError) as error:  # the others of a frame index that is no number
            self._refuse(WireError(str(error)))
            return
        self._next_index = frame.frame_index + 1
        self._send(frame)

    def _read_pdu(self, message: Any) -> CSIFrame:
        if not pmt.is_pair(message):
            raise WireError("a message is no PDU; expected a pair of metadata and a vector")
        metadata, values = pmt.car(message), pmt.cdr(message)
        if not (pmt.is_c32vector(values) or pmt.is_c64vector(values)):
            raise WireError("a PDU holds no complex vector; expected c32 or c64")
        told = pmt.to_python(metadata) if pmt.is_dict(metadata) else None
        told = told if isinstance(told, dict) else {}
        rssi = told.get("rssi")
        return replace(
            self._template,
            csi=np.asarray(pmt.to_python(values), np.complex64),
            timestamp=_number(told, "timestamp", time.time()),
            frame_index=int(_number(told, "frame_index", self._next_index)),
            rssi=None if rssi is None else _numbers(rssi),
            agc=_number(told, "agc", None),
        )

    def _send(self, frame: CSIFrame) -> bool:
        """Send a frame whose csi is flat; return False if nobody took it; counts it, unless it is to be tried again."""
        try:
            if frame.csi.size != self._template.csi.size:
                antennas, subcarriers = self._template.csi.shape
                raise WireError(f"a frame of {frame.csi.size} values came, expected {antennas} × {subcarriers}")
            message = encode_csi(replace(frame, csi=frame.csi.reshape(self._template.csi.shape)))
        except WireError as error:
            self._refuse(error)
            return True
        sent = self._link.ready() and self._link.send(message, 1)
        self._sent += sent
        self._dropped += not sent and not self._link.waits
        return sent

    def _refuse(self, error: WireError) -> None:
        if not self._refused:
            gr.logger("rfvit CSI Sink").warn(f"{error}; this and others like it are left out")
        self._refused += 1


def _template(antennas: int, subcarriers: Sequence[int], device: str) -> CSIFrame:
    """Return a frame of zeros, having checked that such frames can be sent."""
    try:
        shape = (int(antennas), len(subcarriers))
        indices = np.asarray(subcarriers, np.int64)
        csi = np.zeros((max(shape[0], 0), shape[1]), np.complex64)
        frame = CSIFrame(csi, indices, 0.0, 0, str(device))
        encode_csi(frame)
    except (WireError, TypeError, ValueError) as error:
        raise StreamError(
            f"{antennas} antennas, {len(subcarriers)} subcarriers, {device!r} cannot be: {error}"
        ) from None
    return frame


def _number(told: dict[Any, Any], name: str, default: Any) -> Any:
    value = told.get(name, default)
    if value is not default and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise WireError(f"a PDU's {name} is no number")
    return value


def _numbers(value: Any) -> np.ndarray:
    try:
        return np.atleast_1d(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        raise WireError("a PDU's rssi is neither a number nor a vector of numbers") from None


def _seconds(value: Any, default: float) -> float:
    """Return the time that an ``rx_time`` tag says."""
    told = pmt.to_python(value)
    if isinstance(told, tuple) and len(told) == 2 and all(isinstance(part, (int, float)) for part in told):
        return float(told[0]) + float(told[1])
    return default
