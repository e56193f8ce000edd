# SPDX-License-Identifier: Apache-2.0
"""Lines of text on a serial port."""

from __future__ import annotations

import time

import serial
from serial.tools import list_ports

from rfvit_rt.errors import StreamError
from rfvit_rt.sources.csi_packets import Arrival

_MOST_READ = 1 << 16
_LONGEST_LINE = 1 << 14


class SerialPort:
    """An open serial port, read line by line.

    Parameters
    ----------
    device : str
        For example ``/dev/ttyUSB0``.
    baud : int
        Bits per second; must be what the firmware prints at.

    Raises
    ------
    StreamError
        If it cannot be opened.
    """

    def __init__(self, device: str, baud: int) -> None:
        self.name = device
        self._baud = baud
        self._rest = b""
        self._skipping = False
        try:
            self._serial = serial.Serial(device, baud, timeout=0.1, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise StreamError(f"cannot open {device} at {baud} baud: {_reason(error)}") from None

    def receive(self, timeout: float) -> list[Arrival]:
        """Return the lines that have arrived; one that is not yet whole is kept for the next time."""
        try:
            self._serial.timeout = timeout
            octets = self._serial.read(1)
            octets += self._serial.read(min(self._serial.in_waiting, _MOST_READ))
        except (serial.SerialException, OSError, TypeError) as error:  # TypeError: pyserial's, when it is unplugged
            raise StreamError(f"{self.name}: reading failed, was it unplugged? ({error})") from None
        received = time.monotonic()
        return [Arrival(line, received, received) for line in self._lines(octets)]

    def missed(self) -> int:
        """Serial ports do not tell."""
        return 0

    def diagnosis(self) -> str:
        """What to try where nothing arrives."""
        return f"is the firmware running, and does it print at {self._baud} baud? Press the board's reset button"

    def close(self) -> None:
        """Free the port."""
        self._serial.close()

    def _lines(self, octets: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + octets).split(b"\n")
        if self._skipping and lines:  # the end of the line that was too long
            lines, self._skipping = lines[1:], False
        if len(self._rest) > _LONGEST_LINE or self._skipping:  # no line ends: noise, or another baud rate
            self._rest, self._skipping = b"", True
        return lines


def _reason(error: Exception) -> str:
    text = str(error)
    if "Permission" in text:
        return "permission denied; add yourself to the group that owns it: sudo usermod -aG dialout $USER"
    if "busy" in text or "lock" in text:
        return "another program has it open; close that program"
    ports = ", ".join(port.device for port in list_ports.comports())
    return f"{text.splitlines()[0]}; serial ports here: {ports or 'none'}"
