# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples from an ``rtl_tcp`` server: an RTL-SDR somewhere in the network."""

from __future__ import annotations

import socket
import struct
import threading

import numpy as np
import pmt
from gnuradio import gr

from rfvit_radio import tuned_frequency
from rfvit_rt.wire.samples import item_size, to_complex64

DATATYPE = "cu8"
CONNECT_TIMEOUT = 5.0
POLL_SECONDS = 0.1  # how soon the flowgraph's end is noticed
LARGEST_READ = 1 << 18  # bytes

# The server greets with this; each command is one byte and a number. From rtl-sdr's rtl_tcp.c.
_GREETING = struct.Struct(">4sII")  # "RTL0", kind of tuner, number of gains
_COMMAND = struct.Struct(">BI")
_SET_FREQUENCY, _SET_SAMPLE_RATE, _SET_GAIN_MODE, _SET_GAIN, _SET_AGC = 0x01, 0x02, 0x03, 0x04, 0x08


class RtlTcpSource(gr.sync_block):
    """Samples of an RTL-SDR behind ``rtl_tcp``, tagged with ``rx_rate`` and, at every retune, ``rx_freq``.

    The protocol has no clock, no count and no reply: samples that the server or the network lost cannot be told, and
    samples taken before a retune may still come after its tag, for as long as the buffers on the way hold.

    Parameters
    ----------
    host : str
        Name or address of the server.
    port : int
        Its TCP port, 1234 by default.
    frequency : float
        Centre frequency in Hz.
    sample_rate : float
        Samples per second, in Hz.
    gain : str
        Tuner gain in dB, or ``auto``.

    Raises
    ------
    RuntimeError
        If nobody answers there, or what answers is no rtl_tcp server; in one line.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 1234, frequency=100e6, sample_rate=2.4e6, gain: str = "auto"
    ) -> None:
        gr.sync_block.__init__(self, "rtl_tcp source", None, [np.complex64])
        self.failure: str | None = None
        self._server = f"{host}:{port}"
        self._lock = threading.Lock()
        self._left = b""  # half a sample
        self._tags = {"rx_rate": float(sample_rate)}
        self._socket = self._connect(host, port)
        self._command(_SET_SAMPLE_RATE, round(sample_rate))
        self.set_gain(gain)
        self.set_frequency(frequency)
        self.message_port_register_in(pmt.intern("command"))
        self.set_msg_handler(pmt.intern("command"), self._take_command)

    def set_frequency(self, frequency: float) -> None:
        """Retune; samples are tagged with the new frequency from the next ones read."""
        if not 0 <= frequency < 2**32:
            raise RuntimeError(f"frequency is {frequency:g} Hz; rtl_tcp takes 0 to {2**32 - 1}")
        self._command(_SET_FREQUENCY, round(frequency))
        with self._lock:
            self._tags["rx_freq"] = float(frequency)

    def set_gain(self, gain: str) -> None:
        """Set the tuner's gain: dB, or ``auto``."""
        if gain == "auto":
            self._command(_SET_GAIN_MODE, 0)
            self._command(_SET_AGC, 1)
            return
        try:
            tenths = round(float(gain) * 10)
        except ValueError:
            raise RuntimeError(f"gain is {gain!r}; expected a number of dB, or auto") from None
        self._command(_SET_AGC, 0)
        self._command(_SET_GAIN_MODE, 1)
        self._command(_SET_GAIN, tenths & 0xFFFFFFFF)

    def work(self, input_items, output_items):
        """Wait for samples, and give what is there."""
        out = output_items[0]
        size = item_size(DATATYPE)
        try:
            raw = self._socket.recv(min(len(out) * size, LARGEST_READ) - len(self._left))
        except TimeoutError:
            return 0
        except ConnectionResetError:  # hung up with commands of ours unread
            return self._fail("it closed the connection")
        except OSError as error:
            return self._fail(f"reading from it failed: {error.strerror or error}")
        if not raw:
            return self._fail("it closed the connection")
        raw = self._left + raw
        count = len(raw) // size
        self._left = raw[count * size :]
        out[:count] = to_complex64(raw[: count * size], DATATYPE)
        if count:
            self._add_tags()
        return count

    def stop(self) -> bool:
        """Hang up."""
        self._socket.close()
        return True

    def _connect(self, host: str, port: int) -> socket.socket:
        try:
            link = socket.create_connection((host, port), CONNECT_TIMEOUT)
            greeting = link.recv(_GREETING.size, socket.MSG_WAITALL)
        except OSError as error:
            raise RuntimeError(
                f"no rtl_tcp server at {self._server} ({error.strerror or error}); start it there: rtl_tcp -a ADDRESS"
            ) from None
        if len(greeting) != _GREETING.size or not greeting.startswith(b"RTL0"):
            link.close()
            raise RuntimeError(f"what answers at {self._server} is no rtl_tcp server; check host and port")
        link.settimeout(POLL_SECONDS)
        return link

    def _command(self, code: int, value: int) -> None:
        try:
            self._socket.sendall(_COMMAND.pack(code, value))
        except OSError as error:
            raise RuntimeError(f"rtl_tcp server at {self._server}: {error.strerror or error}") from None

    def _take_command(self, message) -> None:
        frequency = tuned_frequency(message)
        if frequency is None:
            return
        try:
            self.set_frequency(frequency)
        except RuntimeError as error:
            self.failure = str(error)
            gr.log.error(self.failure)

    def _add_tags(self) -> None:
        with self._lock:
            tags, self._tags = self._tags, {}
        for key, value in tags.items():
            self.add_item_tag(0, self.nitems_written(0), pmt.intern(key), pmt.from_double(value))

    def _fail(self, reason: str) -> int:
        self.failure = f"rtl_tcp server at {self._server}: {reason}"
        return -1  # the end of the stream, as GNU Radio has it
