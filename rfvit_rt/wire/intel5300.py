# SPDX-License-Identifier: Apache-2.0
"""Records of the Linux 802.11n CSI Tool: channel estimates of Intel's WiFi Link 5300.

A log is a row of records, each with its length before it (``>H``). Records that begin with the code 0xBB are channel
estimates; little-endian, the code counted as offset −1::

     0  u32  clock in µs             13  i8   noise in dBm, −127 where unknown
     4  u16  count of estimates      14  u8   gain in dB
     8  u8   receiving antennas      15  u8   which antenna each receiver was connected to, 2 bits each
     9  u8   spatial streams         16  u16  bytes of the estimate
    10  3×u8 RSSI in dB, 0 is none   18  u16  rate and flags

The estimate follows: for each of 30 subcarriers 3 bits to skip, then int8 real, int8 imaginary for each receiver, and
within it each stream.

Halperin, Hu, Sheth, Wetherall, "Tool Release: Gathering 802.11n Traces with Channel State Information", 2011.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

CODE = 0xBB
"""First byte of the records that hold channel estimates."""

CLOCK_MODULUS = 1 << 32
COUNT_MODULUS = 1 << 16

SUBCARRIERS = {
    20: np.array([*range(-28, -1, 2), -1, *range(1, 28, 2), 28], np.int16),
    40: np.array([*range(-58, -1, 4), *range(2, 59, 4)], np.int16),
}
"""Subcarriers that are reported, by bandwidth in MHz (802.11n, 7.3.1.28, grouping 2 and 4)."""

_HEADER = struct.Struct("<BIHHBB3BbBBHH")
_COUNT = 30
_HT40 = 0x0800
_RSSI_OFFSET = 44  # dB from the chip's RSSI to dBm, before the gain is taken off; of csitool's get_total_rss

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class IntelRecord:
    """One channel estimate.

    Attributes
    ----------
    csi : (receiver, stream, 30) complex64
        In the chip's units, before any scaling. Of three receivers the first is antenna A.
    clock : int
        The chip's clock in µs, below 2**32.
    count : int
        Number of the estimate, below 2**16.
    rssi : (int, int, int)
        At the antennas A, B and C in dB before the gain is taken off; 0 where there was no signal.
    noise : int
        In dBm; -127 where unknown.
    agc : int
        Gain in dB.
    rate : int
        The frame's rate and flags.
    """

    csi: NDArray[np.complex64]
    clock: int
    count: int
    rssi: tuple[int, int, int]
    noise: int
    agc: int
    rate: int

    @property
    def bandwidth(self) -> int:
        """Bandwidth of the frame in MHz."""
        return 40 if self.rate & _HT40 else 20

    def rssi_dbm(self) -> NDArray[np.float32]:
        """Received power in dBm: (3,) for antennas A, B and C, or (1,) their sum where not all three receive."""
        powers = np.array(self.rssi, np.float32)
        if self.csi.shape[0] < 3:
            heard = powers[powers > 0]
            powers = 10 * np.log10(np.sum(10 ** (heard / 10), keepdims=True)) if len(heard) else np.zeros(1, np.float32)
        return (powers - _RSSI_OFFSET - self.agc).astype(np.float32)


def decode_intel5300(record: Buffer) -> IntelRecord:
    """Return the channel estimate that a record holds.

    Parameters
    ----------
    record : bytes-like
        A whole record, its code first.

    Raises
    ------
    WireError
        If it holds none. What its message says up to the first colon is one of a few reasons.
    """
    message = memoryview(record).cast("B")
    if len(message) < _HEADER.size or message[0] != CODE:
        raise WireError(f"not a channel estimate: {len(message)} bytes, expected 0x{CODE:02x} and {_HEADER.size - 1}")
    _, clock, count, _, receivers, streams, *rssi, noise, agc, antennas, size, rate = _HEADER.unpack_from(message)
    if not 1 <= receivers <= 3 or not 1 <= streams <= 4:
        raise WireError(f"impossible antennas: {receivers} receivers × {streams} streams, expected 1 to 3 × 1 to 4")
    expected = _estimate_bytes(receivers * streams)
    if size != expected or len(message) < _HEADER.size + size:
        raise WireError(
            f"impossible length: {size} bytes for {receivers} × {streams} antennas in a record of {len(message)}, "
            f"expected {expected}"
        )
    csi = _unpack(message[_HEADER.size : _HEADER.size + size], receivers, streams)
    return IntelRecord(
        csi=csi[_order(antennas)] if receivers == 3 else csi,
        clock=clock,
        count=count,
        rssi=(rssi[0], rssi[1], rssi[2]),
        noise=noise,
        agc=agc,
        rate=rate,
    )


def _estimate_bytes(pairs: int) -> int:
    return (_COUNT * (16 * pairs + 3) + 7) // 8


def _unpack(estimate: memoryview, receivers: int, streams: int) -> NDArray[np.complex64]:
    positions, shifts = _places(receivers * streams)
    octets = np.frombuffer(estimate, np.uint8).astype(np.uint16)
    pairs = octets[positions] | octets[positions + 1] << 8
    values = (pairs >> shifts).astype(np.uint8).view(np.int8).astype(np.float32)
    csi = values.view(np.complex64).reshape(_COUNT, receivers, streams)
    return np.ascontiguousarray(csi.transpose(1, 2, 0))


@lru_cache(maxsize=12)
def _places(pairs: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """Byte and bit at which each int8 begins; a byte further always exists, for 3 bits are never all that is left."""
    bits = 3 * np.arange(1, _COUNT + 1)[:, None] + 8 * np.arange(2 * pairs * _COUNT).reshape(_COUNT, -1)
    return (bits // 8).ravel(), (bits % 8).ravel().astype(np.uint16)


def _order(antennas: int) -> list[int]:
    """Receivers in the order of the antennas A, B and C that they were connected to."""
    connected = [antennas & 3, antennas >> 2 & 3, antennas >> 4 & 3]
    if sorted(connected) != [0, 1, 2]:
        raise WireError(f"impossible antennas: receivers connected to {connected}, expected each of 0, 1 and 2 once")
    return [connected.index(antenna) for antenna in range(3)]
