# SPDX-License-Identifier: Apache-2.0
"""WLAN: the packets of IEEE 802.11a/g/n/ac and 802.11b, and a channel that stations share.

Clause numbers are those of IEEE Std 802.11-2020: 15 and 16 (DSSS, 802.11b), 17 (OFDM, 802.11a/g), 19 (HT, 802.11n),
21 (VHT, 802.11ac). Training fields follow the standard, the SIGNAL fields are coded and interleaved by it; data symbols
are random points of the constellation with pilots in place, since a spectrogram cannot tell them from scrambled and
coded bits. Several spatial streams have the training fields of their number, and are sent as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import ArrayLike, NDArray

from training.signals.bursts import Bursts, Signal
from training.signals.modulation import root_raised_cosine, rotation
from training.signals.sequences import random_qam

SUBCARRIER_SPACING = 312.5e3
CHANNEL = 20e6  # what wider channels are made of
SYMBOL = 4e-6
SHORT_SYMBOL = 3.6e-6  # with the short guard interval
TIME_UNIT = 1024e-6
MAX_PPDU = 5.484e-3  # aPPDUMaxTime
SLOT = 9e-6
PSDU_EXTRA_BITS = 22  # SERVICE field and tail
BANDWIDTHS = (20e6, 40e6, 80e6)

# Table 17-4 and 17-6: Mb/s to bits per subcarrier, data bits per symbol, and RATE field, its first bit the lowest.
RATES: dict[int, tuple[int, int, int]] = {
    6: (1, 24, 0b1011),
    9: (1, 36, 0b1111),
    12: (2, 48, 0b1010),
    18: (2, 72, 0b1110),
    24: (4, 96, 0b1001),
    36: (4, 144, 0b1101),
    48: (6, 192, 0b1000),
    54: (6, 216, 0b1100),
}
# Tables 19-27 ff. and 21-30 ff.: bits per subcarrier and coding rate by MCS; HT counts on in eights for more streams.
MCS = (
    *((1, 1 / 2), (2, 1 / 2), (2, 3 / 4), (4, 1 / 2), (4, 3 / 4)),
    *((6, 2 / 3), (6, 3 / 4), (6, 5 / 6), (8, 3 / 4), (8, 5 / 6)),
)
# Pilots of the HT and VHT data field by bandwidth (19.3.11.10, 21.3.10.10).
PILOTS = {20e6: (7, 21), 40e6: (11, 25, 53), 80e6: (11, 39, 75, 103)}
# Pilot values of the first data symbol, lowest subcarrier first (19.3.11.10, 21.3.10.10); they rotate by one a symbol.
_PILOT_VALUES = {20e6: (1, 1, 1, -1), 40e6: (1, 1, 1, -1, -1, 1), 80e6: (1, 1, 1, -1, -1, 1, 1, 1)}
# First and last data subcarrier on either side of the centre.
_EDGES = {20e6: (1, 28), 40e6: (2, 58), 80e6: (2, 122)}
_LEGACY_EDGES = (1, 26)
# Rotation of every 20 MHz, the lowest first (19.3.9.3.3, 21.3.7.5).
_ROTATION = {20e6: (1,), 40e6: (1, 1j), 80e6: (1, -1, -1, -1)}
_CONTENTION = 15  # aCWmin
_LONG_FIELDS = (1, 2, 4, 4)  # HT-LTFs and VHT-LTFs by number of streams (tables 19-13, 21-13)
# VHT-SIG-B: bits of the length, reserved bits, repetitions, and columns of the interleaver (tables 21-14 and 21-17).
_SIG_B = {20e6: (17, 3, 1, 13), 40e6: (19, 2, 2, 18), 80e6: (21, 2, 4, 26)}

# The long training sequence on either side of the centre (17.3.3, equation 17-8).
_LTF_LEFT = (1, 1, -1, -1, 1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1, 1, 1, 1)
_LTF_RIGHT = (1, -1, -1, 1, 1, -1, 1, -1, 1, -1, -1, -1, -1, -1, 1, 1, -1, -1, 1, -1, 1, -1, 1, 1, 1, 1)
_LTF_BRIDGE = (-1, -1, -1, 1, 1, -1, 1, -1, 1, 1, -1)  # between two of them in an 80 MHz channel

_BARKER = (1, -1, 1, 1, -1, 1, 1, 1, -1, -1, -1)  # 15.4.4.4
_CHIP_RATE = 11e6
_CHIP_ROLL_OFF = 0.6  # transmit filters are free but for the mask of 15.4.5.5


# --- Packets ---


@dataclass(frozen=True)
class PPDU:
    """One packet on the air.

    Attributes
    ----------
    format : str
        ``non-HT``, ``HT``, ``VHT`` or ``DSSS``.
    bandwidth : float
        20, 40 or 80 MHz; wider than 20 MHz, ``non-HT`` is a duplicate in every 20 MHz, ``DSSS`` cannot be.
    psdu_bytes : int
        Length of what is carried.
    rate : int
        Mb/s, of ``RATES``, for ``non-HT``; 1, 2 or 11 for ``DSSS``.
    mcs : int
        0 to 7 for ``HT``, 0 to 9 for ``VHT``, of each stream.
    n_streams : int
        1 to 4, for ``HT`` and ``VHT``.
    short_guard : bool
        Guard intervals of 0.4 µs in the data, for ``HT`` and ``VHT``.

    Raises
    ------
    ValueError
        If a value cannot be, or the packet would be longer than the standard allows.
    """

    format: str = "non-HT"
    bandwidth: float = 20e6
    psdu_bytes: int = 1000
    rate: int = 6
    mcs: int = 0
    n_streams: int = 1
    short_guard: bool = False

    def __post_init__(self) -> None:
        rates = {"non-HT": RATES, "DSSS": (1, 2, 11)}.get(self.format, (self.rate,))
        widths = {"non-HT": BANDWIDTHS, "DSSS": (20e6,), "HT": (20e6, 40e6), "VHT": BANDWIDTHS}.get(self.format, ())
        possible = (
            self.bandwidth in widths
            and self.rate in rates
            and 0 <= self.mcs <= (9 if self.format == "VHT" else 7)
            and 1 <= self.n_streams <= 4
            and self.psdu_bytes > 0
        )
        if not possible:
            raise ValueError(f"there is no such packet as {self}")
        if self.format in ("HT", "VHT") and self.duration > MAX_PPDU + 1e-9:
            raise ValueError(f"{self} lasts {1e3 * self.duration:.3f} ms, more than {1e3 * MAX_PPDU:g} ms")

    @property
    def data_bits(self) -> float:
        """Data bits of an OFDM symbol."""
        if self.format == "non-HT":
            return RATES[self.rate][1]
        bits, coding = MCS[self.mcs]
        first, last = _EDGES[self.bandwidth]
        n_data = 2 * (last - first + 1 - len(PILOTS[self.bandwidth]))
        return bits * coding * n_data * self.n_streams

    @property
    def n_symbols(self) -> int:
        """Symbols of the data field (17.3.5.4, 19.3.11.4, 21.3.10.5)."""
        return int(np.ceil((8 * self.psdu_bytes + PSDU_EXTRA_BITS) / self.data_bits - 1e-9))

    @property
    def n_long_fields(self) -> int:
        """HT-LTFs or VHT-LTFs."""
        return 0 if self.format == "non-HT" else _LONG_FIELDS[self.n_streams - 1]

    @property
    def header(self) -> float:
        """Length in seconds of what comes before the data."""
        n_symbols = {"non-HT": 0, "HT": 3 + self.n_long_fields, "VHT": 4 + self.n_long_fields}
        return 192e-6 if self.format == "DSSS" else 20e-6 + n_symbols[self.format] * SYMBOL

    @property
    def duration(self) -> float:
        """In seconds."""
        if self.format == "DSSS":
            return self.header + 8 * self.psdu_bytes / (self.rate * 1e6)
        return self.header + self.n_symbols * (SHORT_SYMBOL if self.short_guard else SYMBOL)


def subcarriers(bandwidth: float) -> NDArray[np.int64]:
    """Subcarriers of HT and VHT data with pilots, relative to the centre, ascending."""
    return _both_sides(*_EDGES[bandwidth])


def legacy_subcarriers() -> NDArray[np.int64]:
    """Subcarriers of 802.11a/g, relative to the centre, ascending: (52,)."""
    return _both_sides(*_LEGACY_EDGES)


def _both_sides(first: int, last: int) -> NDArray[np.int64]:
    side = np.arange(first, last + 1)
    return np.concatenate((-side[::-1], side))


@lru_cache
def short_training(bandwidth: float = 20e6) -> NDArray[np.complex64]:
    """L-STF of every 20 MHz, which HT-STF and VHT-STF repeat (17.3.3, 19.3.9.4.5, 21.3.8.3.4), rotated, by FFT bin."""
    signs = (1, -1, 1, -1, -1, 1, 0, -1, -1, 1, 1, 1, 1)
    one = np.zeros(53, np.complex64)
    one[2::4] = np.array(signs) * (1 + 1j)
    return _in_every_channel(one, bandwidth)


@lru_cache
def long_training(bandwidth: float = 20e6) -> NDArray[np.complex64]:
    """L-LTF of every 20 MHz (17.3.3, equation 17-8), rotated, by FFT bin."""
    return _in_every_channel(np.array((*_LTF_LEFT, 0, *_LTF_RIGHT), np.complex64), bandwidth)


@lru_cache
def long_training_ht(bandwidth: float) -> NDArray[np.complex64]:
    """HT-LTF and VHT-LTF (equations 19-23 f. and 21-37 ff.), rotated, by FFT bin."""
    whole = (*_LTF_LEFT, 1, *_LTF_RIGHT)
    if bandwidth == 20e6:
        values: tuple[int, ...] = (1, 1, *_LTF_LEFT, 0, *_LTF_RIGHT, -1, -1)
    elif bandwidth == 40e6:
        values = (*whole, -1, -1, -1, 1, 0, 0, 0, -1, 1, 1, -1, *whole)
    else:
        half = (*whole, *_LTF_BRIDGE, *whole)
        values = (*half, 1, -1, 1, -1, 0, 0, 0, 1, -1, -1, 1, *half)
    n_fft = _n_fft(bandwidth)
    result = np.zeros(n_fft, np.complex64)
    result[np.arange(-(len(values) // 2), len(values) // 2 + 1) % n_fft] = values
    return result * _rotation(bandwidth)


def _in_every_channel(values: NDArray[np.complex64], bandwidth: float) -> NDArray[np.complex64]:
    """Subcarriers -26 to 26 of 20 MHz, (..., 53), once in each 20 MHz of a channel, rotated: (..., n_fft)."""
    n_fft = _n_fft(bandwidth)
    result = np.zeros((*values.shape[:-1], n_fft), np.complex64)
    for index, turn in enumerate(_ROTATION[bandwidth]):
        centre = 64 * index - (n_fft - 64) // 2
        result[..., np.arange(centre - 26, centre + 27) % n_fft] = values * np.complex64(turn)
    return result


def _n_fft(bandwidth: float) -> int:
    return round(bandwidth / SUBCARRIER_SPACING)


@lru_cache
def _rotation(bandwidth: float) -> NDArray[np.complex64]:
    """Rotation of every subcarrier, by FFT bin."""
    turns = np.repeat(np.array(_ROTATION[bandwidth], np.complex64), 64)
    return np.roll(turns, -(len(turns) // 2))


# --- SIGNAL fields ---


def convolutional_code(bits: ArrayLike) -> NDArray[np.uint8]:
    """Rate 1/2 code of generators 133 and 171 (17.3.5.6): (n,) bits to (2 n,) bits."""
    given = np.asarray(bits, np.int64)
    coded = [np.convolve(given, taps)[: len(given)] % 2 for taps in ((1, 0, 1, 1, 0, 1, 1), (1, 1, 1, 1, 0, 0, 1))]
    return np.stack(coded, axis=1).ravel().astype(np.uint8)


def interleave_bpsk(bits: NDArray[np.uint8], n_columns: int = 16) -> NDArray[np.uint8]:
    """Interleaver of one BPSK symbol (17.3.5.7, 21.3.10.8): its second permutation leaves one bit per point alone."""
    return bits.reshape(-1, n_columns).T.ravel()


def _binary(value: int, width: int) -> list[int]:
    """Bits of a number, the lowest first."""
    return [value >> bit & 1 for bit in range(width)]


def signal_bits(rate: int, length: int) -> list[int]:
    """The 24 bits of L-SIG (17.3.4): RATE, reserved, LENGTH, parity, tail."""
    head = [*_binary(RATES[rate][2], 4), 0, *_binary(length, 12)]
    return [*head, sum(head) % 2, *[0] * 6]


def crc8(bits: list[int]) -> list[int]:
    """CRC of HT-SIG and VHT-SIG-A (19.3.9.4.4): x^8 + x^2 + x + 1, ones at the start, inverted, highest first."""
    register = 0xFF
    for bit in bits:
        feedback = (register >> 7) ^ bit
        register = (register << 1 & 0xFF) ^ (0x07 if feedback else 0)
    return [1 - (register >> place & 1) for place in range(7, -1, -1)]


def ht_signal_bits(ppdu: PPDU) -> list[int]:
    """The 48 bits of HT-SIG (19.3.9.4.3)."""
    mcs = ppdu.mcs + 8 * (ppdu.n_streams - 1)
    first = [*_binary(mcs, 7), int(ppdu.bandwidth == 40e6), *_binary(ppdu.psdu_bytes & 0xFFFF, 16)]
    # Smoothing, not sounding, reserved, aggregation; no STBC, convolutional code, guard interval, no extra streams.
    second = [1, 1, 1, 1, 0, 0, 0, int(ppdu.short_guard), 0, 0]
    return [*first, *second, *crc8([*first, *second]), *[0] * 6]


def vht_signal_bits(ppdu: PPDU) -> list[int]:
    """The 48 bits of VHT-SIG-A for a single user (21.3.8.3.3)."""
    width = BANDWIDTHS.index(ppdu.bandwidth)
    first = [*_binary(width, 2), 1, 0, *_binary(63, 6), *_binary(ppdu.n_streams - 1, 3), *_binary(0, 9), 0, 1]
    ambiguous = int(ppdu.short_guard and ppdu.n_symbols % 10 == 9)
    second = [int(ppdu.short_guard), ambiguous, 0, 0, *_binary(ppdu.mcs, 4), 0, 1]
    return [*first, *second, *crc8([*first, *second]), *[0] * 6]


def _legacy_points(bits: list[int]) -> NDArray[np.float32]:
    """BPSK points of SIGNAL bits, a symbol of 48 for every 24: (symbol, 48)."""
    # The code is linear, so that a matrix codes and interleaves at once; only the memory crosses from 24 to 24 bits.
    coded = np.array(bits, np.float32) @ _signal_code(len(bits))
    return (2 * (coded % 2) - 1).reshape(-1, 48)


@lru_cache
def _signal_code(n_bits: int) -> NDArray[np.float32]:
    """What each bit alone adds to the coded and interleaved bits: (bit, 2 * bit)."""
    coded = [convolutional_code(unit).reshape(-1, 48) for unit in np.eye(n_bits, dtype=np.uint8)]
    return np.array([[interleave_bpsk(row) for row in rows] for rows in coded], np.float32).reshape(n_bits, -1)


def _pilot_polarity() -> NDArray[np.float32]:
    """Polarity p(0) … p(126) (17.3.5.10): the scrambler's sequence from all ones, as signs."""
    register, signs = [1] * 7, []
    for _ in range(127):
        bit = register[6] ^ register[3]
        register = [bit, *register[:6]]
        signs.append(1 - 2 * bit)
    return np.array(signs, np.float32)


_POLARITY = _pilot_polarity()


def _vht_sig_b_points(ppdu: PPDU) -> NDArray[np.float32]:
    """VHT-SIG-B of one user (21.3.8.3.6), one BPSK symbol: (1, data subcarrier)."""
    length_bits, reserved, copies, columns = _SIG_B[ppdu.bandwidth]
    bits = [*_binary(-(-ppdu.psdu_bytes // 4), length_bits), *[1] * reserved, *[0] * 6] * copies
    padding = [0] * (copies == 4)
    return 2 * interleave_bpsk(convolutional_code([*bits, *padding]), columns)[None].astype(np.float32) - 1


# --- Symbols ---


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where a packet's fields lie among the subcarriers of a channel that may be wider, in FFT bins of the channel.

    Attributes
    ----------
    n_fft : int
        Of the channel.
    short, long, long_ht : (n_fft,) complex64
        Training symbols of power 1.
    legacy_data, legacy_pilots : (20 MHz, 48 or 4) int64
        Bins of each 20 MHz.
    legacy_turns : (20 MHz, 1) complex64
        Their rotation and amplitude.
    data, pilots : (subcarrier,) int64
        Bins of HT and VHT symbols.
    data_turns, pilot_turns : (subcarrier,) complex64
        Their rotation and amplitude.
    short_edges, legacy_edges, edges : (run, 2) float64
        Lowest and highest frequency of every run of occupied subcarriers, in Hz from the channel's centre.
    """

    n_fft: int
    short: NDArray[np.complex64]
    long: NDArray[np.complex64]
    long_ht: NDArray[np.complex64]
    legacy_data: NDArray[np.int64]
    legacy_pilots: NDArray[np.int64]
    legacy_turns: NDArray[np.complex64]
    data: NDArray[np.int64]
    pilots: NDArray[np.int64]
    data_turns: NDArray[np.complex64]
    pilot_turns: NDArray[np.complex64]
    short_edges: NDArray[np.floating]
    legacy_edges: NDArray[np.floating]
    edges: NDArray[np.floating]


@lru_cache
def _layout(bandwidth: float, channel: float, shift: int) -> _Layout:
    """Layout of packets of a bandwidth whose centre lies `shift` subcarriers above the channel's."""
    own, n_fft = _n_fft(bandwidth), _n_fft(channel)
    centres = 64 * np.arange(own // 64)[:, None] - (own - 64) // 2 + shift
    pilots = np.array([*(-place for place in PILOTS[bandwidth][::-1]), *PILOTS[bandwidth]])
    data = np.setdiff1d(subcarriers(bandwidth), pilots)
    turns = _rotation(bandwidth) / np.float32(np.sqrt(len(data) + len(pilots)))
    short, long, long_ht = (
        _placed(training, n_fft, shift)
        for training in (short_training(bandwidth), long_training(bandwidth), long_training_ht(bandwidth))
    )
    legacy_pilots = np.array([-21, -7, 7, 21])
    return _Layout(
        n_fft=n_fft,
        short=short,
        long=long,
        long_ht=long_ht,
        legacy_data=(centres + np.setdiff1d(legacy_subcarriers(), legacy_pilots)) % n_fft,
        legacy_pilots=(centres + legacy_pilots) % n_fft,
        legacy_turns=np.array(_ROTATION[bandwidth], np.complex64)[:, None] / np.float32(np.sqrt(52 * len(centres))),
        data=(data + shift) % n_fft,
        pilots=(pilots + shift) % n_fft,
        data_turns=turns[data],
        pilot_turns=turns[pilots],
        short_edges=_runs(short),
        legacy_edges=_runs(long),
        edges=_runs(long_ht),
    )


def _placed(training: NDArray[np.complex64], n_fft: int, shift: int) -> NDArray[np.complex64]:
    """A training symbol, by its own FFT bins, among those of a channel, scaled to power 1."""
    own = np.arange(-(len(training) // 2), len(training) // 2)
    result = np.zeros(n_fft, np.complex64)
    result[(own + shift) % n_fft] = training[own] / np.linalg.norm(training)
    return result


def _runs(values: NDArray[np.complex64]) -> NDArray[np.floating]:
    """Edges in Hz of every run of occupied subcarriers: (run, 2)."""
    used = np.pad(np.fft.fftshift(values != 0), 1).astype(np.int8)
    return (np.flatnonzero(np.diff(used)) - len(values) // 2 - 0.5).reshape(-1, 2) * SUBCARRIER_SPACING


def _legacy_symbols(
    points: NDArray[np.complex64] | NDArray[np.float32], first_polarity: int, layout: _Layout
) -> NDArray[np.complex64]:
    """Points on the legacy subcarriers of every 20 MHz, with pilots: (symbol, n_fft)."""
    rows = np.zeros((len(points), layout.n_fft), np.complex64)
    polarity = _POLARITY[(first_polarity + np.arange(len(points))) % 127]
    pilots = np.multiply.outer(polarity, np.array((1, 1, 1, -1), np.float32))
    for data, places, turn in zip(layout.legacy_data, layout.legacy_pilots, layout.legacy_turns, strict=True):
        rows[:, data] = points * turn
        rows[:, places] = pilots * turn
    return rows


def _ht_symbols(
    points: NDArray[np.complex64] | NDArray[np.float32], first_polarity: int, bandwidth: float, layout: _Layout
) -> NDArray[np.complex64]:
    """Points on the HT or VHT subcarriers, with pilots: (symbol, n_fft)."""
    rows = np.zeros((len(points), layout.n_fft), np.complex64)
    rows[:, layout.data] = points * layout.data_turns
    pattern = np.array(_PILOT_VALUES[bandwidth], np.float32)
    symbols = np.arange(len(points))
    pilots = pattern[(symbols[:, None] + np.arange(len(pattern))) % len(pattern)]
    rows[:, layout.pilots] = pilots * _POLARITY[(first_polarity + symbols) % 127][:, None] * layout.pilot_turns
    return rows


def _signal_symbols(ppdu: PPDU, layout: _Layout) -> NDArray[np.complex64]:
    """L-SIG, and HT-SIG or VHT-SIG-A: (1 or 3, n_fft)."""
    if ppdu.format == "non-HT":
        return _legacy_symbols(_legacy_points(signal_bits(ppdu.rate, ppdu.psdu_bytes & 0xFFF)), 0, layout)
    # What old stations read from L-SIG is how long to keep quiet (19.3.9.3.5, 21.3.8.2.4).
    length = 3 * int(np.ceil((ppdu.duration - 20e-6) / SYMBOL - 1e-9)) - 3
    own = ht_signal_bits(ppdu) if ppdu.format == "HT" else vht_signal_bits(ppdu)
    points = np.empty((3, 48), np.complex64)
    points[:1], points[1:] = _legacy_points(signal_bits(6, length)), _legacy_points(own)
    # Turned by 90°, which is how the formats are told apart: both symbols of HT-SIG, the second of VHT-SIG-A.
    points[1 if ppdu.format == "HT" else 2 :] *= 1j
    return _legacy_symbols(points, 0, layout)


def _training_symbols(ppdu: PPDU, layout: _Layout) -> NDArray[np.complex64]:
    """HT-STF and HT-LTFs, or VHT-STF, VHT-LTFs and VHT-SIG-B: (symbol, n_fft); none of ``non-HT``."""
    if ppdu.format == "non-HT":
        return np.zeros((0, layout.n_fft), np.complex64)
    rows = [layout.short, *[layout.long_ht] * ppdu.n_long_fields]
    if ppdu.format == "VHT":
        rows.append(_ht_symbols(_vht_sig_b_points(ppdu), 3, ppdu.bandwidth, layout)[0])
    return np.array(rows)


def _data_symbols(ppdu: PPDU, layout: _Layout, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Data field of random points: (symbol, n_fft)."""
    if ppdu.format == "non-HT":
        return _legacy_symbols(_random_points(rng, (ppdu.n_symbols, 48), RATES[ppdu.rate][0]), 1, layout)
    points = _random_points(rng, (ppdu.n_symbols, len(layout.data)), MCS[ppdu.mcs][0])
    return _ht_symbols(points, 3 if ppdu.format == "HT" else 4, ppdu.bandwidth, layout)


def _random_points(
    rng: np.random.Generator, count: tuple[int, int], bits: int
) -> NDArray[np.complex64] | NDArray[np.float32]:
    if bits == 1:
        return (2.0 * rng.integers(0, 2, count, np.uint8) - 1).astype(np.float32)
    return random_qam(rng, count, bits)


def ppdu_samples(ppdu: PPDU, rng: np.random.Generator) -> NDArray[np.complex64]:
    """One packet at the sample rate of its bandwidth: (n,) complex64 of mean power 1."""
    if ppdu.format == "DSSS":
        return _dsss(ppdu, rng)
    return _ofdm(ppdu, _layout(ppdu.bandwidth, ppdu.bandwidth, 0), None, rng)


def _ofdm(
    ppdu: PPDU, layout: _Layout, response: NDArray[np.complex64] | None, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """An OFDM packet at the channel's rate, with a channel's response by FFT bin where there is one."""
    signal, training = _signal_symbols(ppdu, layout), _training_symbols(ppdu, layout)
    data = _data_symbols(ppdu, layout, rng)
    rows = np.concatenate((layout.short[None], layout.long[None], signal, training, data))
    if response is not None:
        rows *= response
    bodies = scipy.fft.ifft(rows, axis=1, overwrite_x=True)
    bodies *= np.float32(layout.n_fft)
    per_20 = layout.n_fft // 64
    n_header = len(signal) + len(training)
    guard = (8 if ppdu.short_guard else 16) * per_20
    length = layout.n_fft + guard
    begin = 320 * per_20 + n_header * 80 * per_20
    samples = np.empty(begin + len(data) * length, np.complex64)
    # Both training fields are 8 µs of a symbol that is repeated, the long one from its middle on.
    twice = (np.arange(160 * per_20) - 32 * per_20) % layout.n_fft
    samples[: 160 * per_20] = bodies[0, twice]
    samples[160 * per_20 : 320 * per_20] = bodies[1, twice]
    _with_prefix(bodies[2 : 2 + n_header], samples[320 * per_20 : begin])
    _with_prefix(bodies[2 + n_header :], samples[begin:])
    return samples


def _with_prefix(bodies: NDArray[np.complex64], samples: NDArray[np.complex64]) -> None:
    """Write symbols with as much cyclic prefix as there is room for."""
    if len(bodies):
        symbols = samples.reshape(len(bodies), -1)
        prefix = symbols.shape[1] - bodies.shape[1]
        symbols[:, :prefix] = bodies[:, -prefix:]
        symbols[:, prefix:] = bodies


def _dsss(ppdu: PPDU, rng: np.random.Generator) -> NDArray[np.complex64]:
    """802.11b packet with the long preamble, at 20 MS/s (15.2.3; CCK of 16.3.6.6)."""
    slow = np.cumsum(rng.integers(0, 2, 192)) / 2  # preamble and header: 192 symbols of DBPSK, in turns
    n_bits = 8 * ppdu.psdu_bytes
    if ppdu.rate == 11:
        phi = np.exp(0.5j * np.pi * rng.integers(0, 4, (-(-n_bits // 8), 4)))
        p1, p2, p3, p4 = phi.T
        data = np.stack((p2 * p3 * p4, p3 * p4, p2 * p4, -p4, p2 * p3, p3, -p2, np.ones_like(p2)), axis=1)
        chips = (data * np.cumprod(p1)[:, None]).ravel()
    else:
        states = 2 * ppdu.rate
        symbols = np.cumsum(rng.integers(0, states, -(-n_bits // ppdu.rate))) / states
        chips = _spread(symbols)
    chips = np.concatenate((_spread(slow), chips)).astype(np.complex64)
    # 20 samples for 11 chips; the pulse's middle is made to fall on a sample that is kept.
    pulse = root_raised_cosine(_CHIP_ROLL_OFF, 20)
    late = -(len(pulse) // 2) % 11
    samples = scipy.signal.upfirdn(np.pad(pulse, (late, 0)), chips, 20, 11)
    first = (len(pulse) // 2 + late) // 11
    return samples[first : first + round(ppdu.duration * 20e6)]


def _spread(turns: NDArray[np.float64]) -> NDArray[np.complex128]:
    return np.multiply.outer(np.exp(2j * np.pi * turns), np.array(_BARKER)).ravel()


# --- A channel and its stations ---


@dataclass(frozen=True)
class Station:
    """A transmitter as it is received.

    Attributes
    ----------
    power_db : float
        Relative to the strongest.
    frequency_offset : float
        Of its oscillator, in Hz; at most 20 ppm of the carrier.
    delay_spread : float
        Root-mean-square delay spread of its channel in seconds; 0 for a flat one. It stays as it is for the signal's
        length, and is applied to each OFDM symbol alone, so it must be short against the guard interval.
    """

    power_db: float = 0.0
    frequency_offset: float = 0.0
    delay_spread: float = 0.0


@dataclass(frozen=True)
class WLANConfig:
    """A channel, the stations in it, and how busy they are.

    Attributes
    ----------
    format : str
        Of data packets: ``non-HT``, ``HT``, ``VHT`` or ``DSSS``.
    bandwidth : float
        Of the channel: 20, 40 or 80 MHz.
    primary : int
        Which 20 MHz of it, counted from the lowest, has the beacons and packets of 20 MHz.
    stations : tuple of Station
        The first is the access point; at least two.
    load : float
        Share of the time, other than beacons, in which packets and the gaps within an exchange are on the air; 1 is
        saturated.
    uplink : float
        Share of the exchanges that a station begins.
    longest : float
        Upper limit of a data packet's length in seconds; the packets are spread evenly in logarithm below it.
    protected : float
        Share of the exchanges that begin with RTS and CTS.
    narrow : float
        Share of the data packets that are only 20 MHz wide.
    n_networks : int
        Number of beacons sent one after the other.
    beacon_interval : float
        In seconds; 100 time units nearly everywhere.
    beacon_rate : int
        Mb/s: 1 with DSSS at 2.4 GHz, 6 at 5 GHz.
    control_rate : int
        Mb/s of acknowledgements, RTS and CTS.
    short_guard : bool
        Whether data packets have the short guard interval.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    format: str = "HT"
    bandwidth: float = 20e6
    primary: int = 0
    stations: tuple[Station, ...] = (Station(), Station(-6.0))
    load: float = 0.5
    uplink: float = 0.3
    longest: float = 2e-3
    protected: float = 0.1
    narrow: float = 0.0
    n_networks: int = 1
    beacon_interval: float = 100 * TIME_UNIT
    beacon_rate: int = 6
    control_rate: int = 24
    short_guard: bool = False

    def __post_init__(self) -> None:
        allowed = {
            "format": self.format in ("non-HT", "HT", "VHT", "DSSS"),
            "bandwidth": self.bandwidth in BANDWIDTHS
            and (self.format == "VHT" or self.bandwidth < 80e6)
            and (self.format in ("HT", "VHT") or self.bandwidth == 20e6),
            "primary": 0 <= self.primary < self.bandwidth / CHANNEL,
            "stations": len(self.stations) >= 2,
            "load": 0 <= self.load <= 1,
            "longest": 100e-6 <= self.longest <= MAX_PPDU,
            "n_networks": self.n_networks >= 0,
            "beacon_rate": self.beacon_rate in (1, *RATES),
            "control_rate": self.control_rate in RATES,
        }
        for name, valid in allowed.items():
            if not valid:
                raise ValueError(f"WLANConfig.{name} is {getattr(self, name)!r}, outside the range its docstring gives")

    @property
    def short_interframe_space(self) -> float:
        """SIFS in seconds: 10 µs at 2.4 GHz, told by its slow beacons, 16 µs at 5 GHz (tables 16-4, 17-21)."""
        return 10e-6 if self.beacon_rate == 1 else 16e-6


@dataclass(frozen=True)
class Sent:
    """A packet on the air: its first moment in seconds, its station's number."""

    start: float
    station: int
    ppdu: PPDU


def wlan(config: WLANConfig, duration: float, rng: np.random.Generator) -> Signal:
    """Packets of a channel for a while, as carrier sensing orders them in time.

    Parameters
    ----------
    config : WLANConfig
    duration : float
        In seconds; begins anywhere in the channel's life.
    rng : numpy.random.Generator

    Returns
    -------
    Signal
        Labelled ``WLAN``, at the sample rate of the channel's bandwidth; occupied subcarriers alone are labelled.
    """
    samples = np.zeros(round(duration * config.bandwidth), np.complex64)
    responses = [_frequency_response(station, config.bandwidth, rng) for station in config.stations]
    occupied: list[tuple[float, float, NDArray[np.floating]]] = []  # start, stop, (run, 2) edges
    for sent in traffic(config, duration, rng):
        station, layout = config.stations[sent.station], _layout(*_place(config, sent.ppdu))
        if sent.ppdu.format == "DSSS":
            waveform = _dsss_in(config, sent.ppdu, rng)
        else:
            waveform = _ofdm(sent.ppdu, layout, responses[sent.station], rng)
        _add(samples, waveform, sent.start, config.bandwidth, station)
        for start, stop, edges in _occupied(sent.ppdu, layout):
            occupied.append((sent.start + start, sent.start + stop, edges + station.frequency_offset))
    counts = [len(edges) for _, _, edges in occupied]
    starts, stops = (np.repeat([run[edge] for run in occupied], counts) for edge in (0, 1))
    edges = np.concatenate([np.zeros((0, 2)), *(edges for _, _, edges in occupied)])
    return Signal("WLAN", samples, config.bandwidth, Bursts.of(starts, stops, edges[:, 0], edges[:, 1]))


def traffic(config: WLANConfig, duration: float, rng: np.random.Generator) -> Iterator[Sent]:
    """Packets in the order of time by the distributed coordination function (clause 10.3), from before the start on.

    Beacons are due every beacon interval and wait for the medium; every exchange waits for DIFS and a random backoff.
    """
    now = -rng.uniform(0, 3 * config.longest)
    beacon = now + rng.uniform(0, config.beacon_interval) if config.n_networks else np.inf
    sifs = config.short_interframe_space
    while now < duration:
        # SIFS has passed since the last packet: two slots more make DIFS.
        now += (2 + int(rng.integers(_CONTENTION + 1))) * SLOT
        due = beacon <= now
        if due:
            exchange = [Sent(0.0, 0, _beacon(config, rng)) for _ in range(config.n_networks)]
            beacon += config.beacon_interval
        elif config.load > 0:
            exchange = _exchange(config, rng)
        else:
            now = beacon
            continue
        begun = now
        for sent in exchange:
            yield Sent(now, sent.station, sent.ppdu)
            now += sent.ppdu.duration + sifs
        if not due:
            # A beacon that falls due ends the pause.
            pause = rng.exponential((now - begun) * (1 - config.load) / config.load)
            now = min(now + pause, max(now, beacon))


def _exchange(config: WLANConfig, rng: np.random.Generator) -> list[Sent]:
    """Perhaps RTS and CTS, data, and the acknowledgement that all but broadcasts get; times are left open."""
    client = 1 + int(rng.integers(len(config.stations) - 1))
    sender, receiver = (client, 0) if rng.random() < config.uplink else (0, client)
    data = _data_packet(config, rng)
    if config.format == "DSSS":
        return [Sent(0.0, sender, data), Sent(0.0, receiver, PPDU("DSSS", psdu_bytes=14, rate=1))]
    control = partial(PPDU, "non-HT", data.bandwidth, rate=config.control_rate)
    exchange = []
    if rng.random() < config.protected:
        exchange += [Sent(0.0, sender, control(20)), Sent(0.0, receiver, control(14))]
    exchange.append(Sent(0.0, sender, data))
    if rng.random() < 0.95:
        answer = 32 if data.duration > 0.5e-3 else 14  # block acknowledgement or acknowledgement
        exchange.append(Sent(0.0, receiver, control(answer)))
    return exchange


def _beacon(config: WLANConfig, rng: np.random.Generator) -> PPDU:
    n_bytes = int(rng.integers(120, 380))
    if config.beacon_rate == 1:
        return PPDU("DSSS", psdu_bytes=n_bytes, rate=1)
    return PPDU("non-HT", psdu_bytes=n_bytes, rate=config.beacon_rate)


def _data_packet(config: WLANConfig, rng: np.random.Generator) -> PPDU:
    """Data packet whose length in time is spread evenly in logarithm."""
    target = np.exp(rng.uniform(np.log(60e-6), np.log(config.longest)))
    if config.format == "DSSS":
        rate = int(rng.choice((1, 2, 11)))
        return PPDU("DSSS", psdu_bytes=max(14, int(target * rate * 1e6 / 8)), rate=rate)
    width = 20e6 if rng.random() < config.narrow else config.bandwidth
    if config.format == "non-HT":
        rate = int(rng.choice(list(RATES)))
        n_bytes = int(np.clip(target * rate * 1e6 / 8, 14, 2304))
        return PPDU("non-HT", psdu_bytes=n_bytes, rate=rate)
    mcs = int(rng.integers(10 if config.format == "VHT" else 8))
    n_streams = int(rng.choice((1, 2, 3, 4), p=(0.5, 0.35, 0.05, 0.1)))
    one = PPDU(config.format, width, 1, mcs=mcs, n_streams=n_streams, short_guard=config.short_guard)
    n_symbols = max(1, int((target - one.header) / (SHORT_SYMBOL if one.short_guard else SYMBOL)))
    n_bytes = max(14, int((n_symbols * one.data_bits - PSDU_EXTRA_BITS) // 8))
    return PPDU(config.format, width, n_bytes, mcs=mcs, n_streams=n_streams, short_guard=config.short_guard)


# --- Packets in the channel ---


def _frequency_response(station: Station, bandwidth: float, rng: np.random.Generator) -> NDArray[np.complex64] | None:
    """Rayleigh channel of exponential power profile, by FFT bin: (n_fft,); None if flat."""
    if station.delay_spread == 0:
        return None
    delays = np.concatenate(([0.0], rng.exponential(station.delay_spread, 7)))
    gains = rng.standard_normal((8, 2)).view(np.complex128)[:, 0] / 4
    frequency = np.fft.fftfreq(_n_fft(bandwidth), 1 / bandwidth)
    return (np.exp(-2j * np.pi * frequency[:, None] * delays) @ gains).astype(np.complex64)


def _place(config: WLANConfig, ppdu: PPDU) -> tuple[float, float, int]:
    """Bandwidth of a packet and of the channel, and subcarriers from the centre of one to that of the other."""
    n_parts = round(config.bandwidth / ppdu.bandwidth)
    part = int(config.primary * CHANNEL // ppdu.bandwidth)
    return ppdu.bandwidth, config.bandwidth, (2 * part - n_parts + 1) * _n_fft(ppdu.bandwidth) // 2


def _occupied(ppdu: PPDU, layout: _Layout) -> list[tuple[float, float, NDArray[np.floating]]]:
    """What a packet occupies: start and stop in seconds, and edges in Hz, of its fields."""
    if ppdu.format == "DSSS":
        half = _CHIP_RATE * (1 + _CHIP_ROLL_OFF) / 2
        return [(0.0, ppdu.duration, layout.edges.mean() + np.array([[-half, half]]))]
    first = {"non-HT": ppdu.duration, "HT": 28e-6, "VHT": 28e-6}[ppdu.format]
    fields = [(0.0, 8e-6, layout.short_edges), (8e-6, first, layout.legacy_edges)]
    if ppdu.format != "non-HT":
        fields.append((first, first + SYMBOL, layout.short_edges))
        fields.append((first + SYMBOL, ppdu.duration, layout.edges))
    return fields


def _dsss_in(config: WLANConfig, ppdu: PPDU, rng: np.random.Generator) -> NDArray[np.complex64]:
    """An 802.11b packet in its 20 MHz of the channel, at the channel's rate; its own channel is flat."""
    waveform = _dsss(ppdu, rng)
    bandwidth, channel, shift = _place(config, ppdu)
    if channel == bandwidth:
        return waveform
    ratio = round(channel / bandwidth)
    waveform = scipy.signal.resample_poly(waveform, ratio, 1).astype(np.complex64)
    return waveform * rotation(shift / _n_fft(channel), len(waveform))


def _add(
    samples: NDArray[np.complex64], waveform: NDArray[np.complex64], start: float, sample_rate: float, station: Station
) -> None:
    """Add a station's packet to the channel; what is before or after is cut off."""
    at = round(start * sample_rate)
    first, last = max(0, at), min(len(samples), at + len(waveform))
    if last <= first:
        return
    heard = waveform[first - at : last - at]
    heard *= np.float32(10 ** (station.power_db / 20))
    if station.frequency_offset:
        heard *= rotation(station.frequency_offset / sample_rate, len(heard))
    samples[first:last] += heard


# --- Channels as one meets them ---


def random_wlan_config(
    rng: np.random.Generator, max_bandwidth: float = 80e6, low_band: bool | None = None
) -> WLANConfig:
    """Draw a channel: idle with beacons to saturated, one to six clients.

    Parameters
    ----------
    rng : numpy.random.Generator
    max_bandwidth : float
        Widest channel, in Hz; at least 20 MHz.
    low_band : bool or None
        2.4 rather than 5 GHz; None draws one of them.
    """
    if low_band is None:
        low_band = bool(rng.random() < 0.5)
    kinds = ["non-HT", "HT", "DSSS"] if low_band else ["non-HT", "HT", "VHT"]
    format_ = str(rng.choice(kinds, p=[0.3, 0.6, 0.1] if low_band else [0.25, 0.3, 0.45]))
    widths = {"HT": (20e6, 40e6), "VHT": BANDWIDTHS}.get(format_, (20e6,))
    bandwidth = float(rng.choice([width for width in widths if width <= max_bandwidth]))
    carrier = 2.44e9 if low_band else 5.5e9
    n_stations = 2 + int(rng.integers(6))
    levels = -rng.uniform(0, 25, n_stations)
    levels -= levels.max()
    n_channels = round(bandwidth / CHANNEL)
    return WLANConfig(
        format=format_,
        bandwidth=bandwidth,
        primary=int(rng.integers(n_channels)),
        stations=tuple(
            Station(
                float(level), float(rng.uniform(-20e-6, 20e-6) * carrier), float(rng.choice([0, 20e-9, 50e-9, 1e-7]))
            )
            for level in levels
        ),
        load=[0.0, float(rng.uniform(0.02, 0.3)), float(rng.uniform(0.3, 0.9)), 1.0][
            int(rng.choice(4, p=[0.15, 0.35, 0.3, 0.2]))
        ],
        uplink=float(rng.uniform(0, 0.8)),
        longest=float(np.exp(rng.uniform(np.log(0.2e-3), np.log(MAX_PPDU)))),
        protected=float(rng.choice([0, 0.1, 0.7])),
        narrow=float(rng.choice([0, 0.2])),
        n_networks=1 + int(rng.integers(3)),
        beacon_rate=1 if low_band and rng.random() < 0.8 else 6,
        control_rate=int(rng.choice([6, 12, 24])),
        short_guard=bool(rng.random() < 0.5),
    )
