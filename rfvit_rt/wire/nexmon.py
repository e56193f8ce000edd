# SPDX-License-Identifier: Apache-2.0
"""UDP payloads of nexmon_csi: channel estimates of Broadcom's WiFi chips, one packet per frame, core and stream.

Little-endian, 18 bytes and then 4 bytes for each point of the FFT::

     0  u16  magic 0x1111           10  u16  sequence control of the frame (802.11, 9.2.4.4)
     2  i8   RSSI in dBm            12  u16  bits 0-2: core of the receiver, bits 3-5: spatial stream
     3  u8   frame control          14  u16  chanspec: channel, sideband, bandwidth, band
     4  6s   MAC of the transmitter 16  u16  kind of chip

Firmware from before 2020 sends the magic 0x11111111 and neither RSSI nor frame control. Some packets carry one word
more than the FFT has points; it is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

SEQUENCE_NUMBERS = 4096
"""Sequence numbers begin again after so many frames."""

BANDWIDTHS = {64: 20, 128: 40, 256: 80}
"""Bandwidth of a capture in MHz by its number of FFT points."""

_HEADER = struct.Struct("<HbB6sHHHH")
_MAGIC = 0x1111
_OLD_MAGIC = b"\x11\x11\x11\x11"
_CHIPS = {
    0x0001: "bcm4339",
    0x0065: "bcm43455c0",
    0x0003: "bcm4358",
    0xDEAD: "bcm4358",
    0x006A: "bcm4366c0",
    0xE834: "bcm4366c0",
}
_PACKED = {"bcm4358": (9, 5), "bcm4366c0": (12, 6)}  # bits of a mantissa with its sign, bits of the exponent
# FFT points that these chips overwrite with the state of their receiver. At 40 MHz it was never seen; 80 MHz's are
# assumed.
_OVERWRITTEN = {20: (28, 29, 30), 40: (0, 1, 2), 80: (0, 1, 2)}
_CHANSPEC_BANDWIDTHS = {2: 20, 3: 40, 4: 80, 5: 160}
_SPACING = 64  # subcarriers from one 20 MHz channel to the next
_OCCUPIED = 0.18  # of the primary channel's amplitude, -15 dB: fading is less, noise of a usable frame is lower
_MOST_FRAMES = 0.1  # quantile: what nine of ten frames fill

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class NexmonPacket:
    """What one packet says.

    Attributes
    ----------
    values : (n,) complex64
        Channel estimate at the subcarriers -n/2 to n/2 - 1 from the centre of the captured band, nulls included. Units
        are the chip's own.
    mac : str
        Transmitter, as ``b8:27:eb:03:e1:9f``.
    sequence : int
        The frame's sequence number, 0 to 4095. Control frames have none: 0.
    core, stream : int
        Receiving core and spatial stream.
    chanspec : int
        Channel in Broadcom's notation.
    chip : str
        For example ``bcm43455c0``.
    rssi : int or None
        In dBm; None from old firmware.
    frame_control : int or None
        First byte of the 802.11 frame; None from old firmware.
    """

    values: NDArray[np.complex64]
    mac: str
    sequence: int
    core: int
    stream: int
    chanspec: int
    chip: str
    rssi: int | None
    frame_control: int | None

    @property
    def bandwidth(self) -> int:
        """Bandwidth of the capture in MHz; the frame itself may be narrower."""
        return BANDWIDTHS[len(self.values)]

    @property
    def primary(self) -> int:
        """Subcarrier at the centre of the primary 20 MHz channel."""
        channels = len(self.values) // _SPACING
        sideband = (self.chanspec >> 8 & 7) % channels
        return (2 * sideband + 1 - channels) * _SPACING // 2


@dataclass(frozen=True, eq=False)
class Band:
    """Subcarriers that frames of a capture fill.

    Attributes
    ----------
    bandwidth : int
        In MHz.
    high_throughput : bool
        Whether frames have the subcarriers of 802.11n/ac; else they are of 802.11a/g, in each 20 MHz.
    subcarriers : (m,) int16
        Indices from the centre of this band, ascending.
    positions : (m,) intp
        Their places in :attr:`NexmonPacket.values`.
    """

    bandwidth: int
    high_throughput: bool
    subcarriers: NDArray[np.int16]
    positions: NDArray[np.intp]


def decode_nexmon(payload: Buffer) -> NexmonPacket:
    """Return what one UDP payload says.

    Parameters
    ----------
    payload : bytes-like
        Whole payload of one datagram.

    Returns
    -------
    NexmonPacket
        Its values are not tied to the payload's memory.

    Raises
    ------
    WireError
        If it is not such a payload. What its message says up to the first colon is one of a few reasons.
    """
    message = memoryview(payload).cast("B")
    if len(message) < _HEADER.size:
        raise WireError(f"not a nexmon packet: it has {len(message)} bytes, expected {_HEADER.size} and more")
    magic, rssi, frame_control, mac, sequence, parts, chanspec, chip_number = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise WireError(f"not a nexmon packet: it begins with 0x{magic:04x}, expected 0x{_MAGIC:04x}")
    chip = _CHIPS.get(chip_number)
    if chip is None:
        raise WireError(f"unknown chip: 0x{chip_number:04x}; known are {', '.join(sorted(set(_CHIPS.values())))}")
    points = _fft_points(len(message), chanspec)
    if parts > 63:
        parts = parts >> 8 | (parts & 0xFF) << 8  # some routers send it big-endian
    if parts > 63:
        raise WireError(f"impossible core and stream: 0x{parts:04x}, expected at most 0x003f")
    old = bytes(message[:4]) == _OLD_MAGIC
    words = np.frombuffer(message[_HEADER.size : _HEADER.size + 4 * points], "<u4")
    return NexmonPacket(
        values=np.fft.fftshift(_values(words, chip)),
        mac=mac.hex(":"),
        sequence=sequence >> 4,
        core=parts & 7,
        stream=parts >> 3,
        chanspec=chanspec,
        chip=chip,
        rssi=None if old else rssi,
        frame_control=None if old else frame_control,
    )


def occupied_band(packets: Sequence[NexmonPacket], pilots: bool = True) -> Band:
    """Return the subcarriers that the frames of one capture fill, inferred from their power.

    A capture of 80 MHz may carry frames of 20 MHz only; what lies beside them is noise. The band returned is the widest
    that nine of ten frames fill: the primary 20 MHz channel, the 40 MHz around it or all 80 MHz.

    Parameters
    ----------
    packets : sequence of NexmonPacket
        At least one; all of one chip, bandwidth and channel.
    pilots : bool
        Keep pilot subcarriers.

    Raises
    ------
    ValueError
        If there is no packet, or they do not belong together.
    """
    if len({(len(packet.values), packet.chip, packet.primary) for packet in packets}) != 1:
        raise ValueError("the packets are none, or of several chips, bandwidths or channels")
    first = packets[0]
    amplitudes = np.abs(np.stack([packet.values for packet in packets]))
    plan = _inferred_plan(amplitudes, first.primary, len(first.values))
    tones = plan.tones(pilots)
    if first.chip not in _PACKED:
        tones = np.setdiff1d(tones, _OVERWRITTEN[first.bandwidth])
    return Band(
        bandwidth=20 * plan.channels,
        high_throughput=plan.high_throughput,
        subcarriers=(tones - plan.centre).astype(np.int16),
        positions=tones + len(first.values) // 2,
    )


def _fft_points(size: int, chanspec: int) -> int:
    words, rest = divmod(size - _HEADER.size, 4)
    points = next((points for points in BANDWIDTHS if words in (points, points + 1)), None)
    if points is None or rest:
        raise WireError(
            f"impossible length: {size} bytes, expected 18 and 4 for each of 64, 128 or 256 subcarriers; is it whole?"
        )
    claimed = _CHANSPEC_BANDWIDTHS.get(chanspec >> 11 & 7)
    if claimed != BANDWIDTHS[points]:
        raise WireError(
            f"bandwidth unclear: chanspec 0x{chanspec:04x} says {claimed or 'no known number of'} MHz, "
            f"{points} subcarriers came; set the same bandwidth in the channel and in makecsiparams"
        )
    return points


def _values(words: NDArray[np.uint32], chip: str) -> NDArray[np.complex64]:
    """Read the numbers of one packet, in the order of the FFT."""
    if chip not in _PACKED:
        return np.ascontiguousarray(words).view("<i2").astype(np.float32).view(np.complex64)
    mantissa_bits, exponent_bits = _PACKED[chip]
    exponent = _signed(words & ((1 << exponent_bits) - 1), exponent_bits)
    values = np.empty(len(words), np.complex64)
    values.real = np.ldexp(_sign_magnitude(words >> (exponent_bits + mantissa_bits), mantissa_bits), exponent)
    values.imag = np.ldexp(_sign_magnitude(words >> exponent_bits, mantissa_bits), exponent)
    return values


def _signed(values: NDArray[Any], bits: int) -> NDArray[np.int32]:
    return (values.astype(np.int32) ^ (1 << (bits - 1))) - (1 << (bits - 1))


def _sign_magnitude(words: NDArray[Any], bits: int) -> NDArray[np.float32]:
    magnitude = (words & ((1 << (bits - 1)) - 1)).astype(np.float32)
    return np.where(words >> (bits - 1) & 1, -magnitude, magnitude)


@dataclass(frozen=True)
class _Plan:
    """Which subcarriers a frame fills (802.11, 17.3.5.10, 19.3.7 and 21.3.7), seen from the centre of the capture."""

    centre: int
    channels: int  # of 20 MHz
    high_throughput: bool

    def tones(self, pilots: bool) -> NDArray[np.intp]:
        if self.high_throughput:
            first, last, pilot = _HIGH_THROUGHPUT[self.channels]
            offsets = _both_sides(first, last, () if pilots else pilot)
        else:  # the frame is repeated in each 20 MHz channel
            one = _both_sides(1, 26, () if pilots else (7, 21))
            offsets = (np.asarray(_centres(self.channels))[:, None] + one).ravel()
        return offsets + self.centre


# First and last subcarrier on each side of the centre, and pilots, by channels of 20 MHz.
_HIGH_THROUGHPUT = {
    1: (1, 28, (7, 21)),
    2: (2, 58, (11, 25, 53)),
    4: (2, 122, (11, 39, 75, 103)),
}


def _both_sides(first: int, last: int, without: Sequence[int]) -> NDArray[np.intp]:
    upper = np.setdiff1d(np.arange(first, last + 1), without)
    return np.concatenate([-upper[::-1], upper])


def _centres(channels: int) -> list[int]:
    """Centres of neighbouring 20 MHz channels, seen from their common centre."""
    return [(2 * channel + 1 - channels) * _SPACING // 2 for channel in range(channels)]


def _inferred_plan(amplitudes: NDArray[np.float32], primary: int, points: int) -> _Plan:
    """The widest plan that most frames fill; `amplitudes` is (packet, subcarrier) of one capture."""
    half = points // 2
    one = _both_sides(1, 26, ())

    def share(tones: NDArray[np.intp], reference: NDArray[np.intp]) -> float:
        ratios = np.median(amplitudes[:, tones + half], axis=1) / np.maximum(
            np.median(amplitudes[:, reference + half], axis=1), np.finfo(np.float32).tiny
        )
        return float(np.quantile(ratios, _MOST_FRAMES))

    channels = points // _SPACING
    while channels > 1:
        centre = _centre_around(primary, channels) if channels * _SPACING < points else 0
        others = [centre + offset for offset in _centres(channels) if centre + offset != primary]
        if all(share(other + one, primary + one) > _OCCUPIED for other in others):
            wide = _Plan(centre, channels, True)
            between = np.setdiff1d(wide.tones(pilots=True), _Plan(centre, channels, False).tones(pilots=True))
            return wide if share(between, primary + one) > _OCCUPIED else _Plan(centre, channels, False)
        channels //= 2
    # Only 802.11n/ac has the outermost two on each side; they are compared with their neighbours.
    outermost, neighbours = primary + np.array([-28, -27, 27, 28]), primary + np.array([-26, -25, 25, 26])
    return _Plan(primary, 1, share(outermost, neighbours) > _OCCUPIED)


def _centre_around(primary: int, channels: int) -> int:
    """Centre of the block of `channels` that the primary channel belongs to; blocks do not overlap."""
    width = channels * _SPACING
    return primary // width * width + width // 2
