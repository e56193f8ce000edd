# SPDX-License-Identifier: Apache-2.0
"""LTE downlink carriers: everything a cell sends, in its place on the resource grid.

Clause numbers are those of 3GPP TS 36.211 (Release 12) unless another document is named. Sequences and positions
follow the standard; payload bits are random, since a spectrogram cannot tell them from coded ones. Only the normal
cyclic prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.signals.grid import ResourceGrid
from training.signals.sequences import gold_sequences

SUBCARRIER_SPACING = 15e3
SYMBOLS = 14
"""OFDM symbols of a subframe with normal cyclic prefix."""

N_FFT = {6: 128, 15: 256, 25: 512, 50: 1024, 75: 1536, 100: 2048}
"""Resource blocks of a carrier to the smallest usual FFT size that holds them."""

# Table 4.2-2: downlink, special and uplink subframes of a radio frame.
TDD_PATTERNS = ("DSUUUDSUUU", "DSUUDDSUUD", "DSUDDDSUDD", "DSUUUDDDDD", "DSUUDDDDDD", "DSUDDDDDDD", "DSUUUDSUUD")
# Table 4.2-1: OFDM symbols of DwPTS by special subframe configuration.
DWPTS_SYMBOLS = (3, 9, 10, 11, 12, 3, 9, 10, 11, 6)
# Table 6.9-1: PHICH group factor of every subframe by uplink-downlink configuration; uplink subframes hold 0.
TDD_PHICH_FACTORS = (
    (2, 1, 0, 0, 0, 2, 1, 0, 0, 0),
    (0, 1, 0, 0, 1, 0, 1, 0, 0, 1),
    (0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
    (1, 0, 0, 0, 0, 0, 0, 0, 1, 1),
    (0, 0, 0, 0, 0, 0, 0, 0, 1, 1),
    (0, 0, 0, 0, 0, 0, 0, 0, 1, 0),
    (1, 1, 0, 0, 0, 1, 1, 0, 0, 1),
)
# TS 36.213 table 5.2-1: PDSCH power in symbols with CRS over that in the others, by P_B; one port, then more.
RHO_B_OVER_A = ((1.0, 0.8, 0.6, 0.4), (1.25, 1.0, 0.75, 0.5))
# TS 36.212 table 5.1.4-2: column permutation of the sub-block interleaver for convolutional codes.
INTERLEAVER_COLUMNS = (
    *(1, 17, 9, 25, 5, 21, 13, 29, 3, 19, 11, 27, 7, 23, 15, 31),
    *(0, 16, 8, 24, 4, 20, 12, 28, 2, 18, 10, 26, 6, 22, 14, 30),
)
AGGREGATION_LEVELS = np.array([1, 2, 4, 8])
QPSK = 1
"""Row of QPSK in the constellation table; row 0 is silence, rows 2 to 4 are 16QAM, 64QAM and 256QAM."""


@dataclass(frozen=True)
class LTEConfig:
    """One LTE cell and how busy it is.

    Attributes
    ----------
    n_prb : int
        Resource blocks of the carrier: 6, 15, 25, 50, 75 or 100 (1.4 to 20 MHz).
    cell_id : int
        Physical cell identity, 0 to 503.
    n_ports : int
        Antenna ports with cell-specific reference signals: 1, 2 or 4.
    duplex : str
        ``FDD`` or ``TDD``.
    uplink_downlink_config : int
        TDD only, 0 to 6 (table 4.2-2).
    special_subframe_config : int
        TDD only, 0 to 9 (table 4.2-1).
    cfi : int or None
        Control format indicator 1 to 3, fixed; None takes the smallest that holds the subframe's PDCCHs.
    phich_ng : float
        The PHICH resource N_g: 1/6, 1/2, 1 or 2 (6.9).
    load : float
        Mean share of the PDSCH resource blocks that are allocated, 0 to ``duty_cycle``.
    duty_cycle : float
        Share of the time in which there is traffic, 0 to 1; below 1 traffic comes in bursts.
    mean_burst : float
        Mean length of a burst in subframes (ms), at least 1.
    contiguous : bool
        Allocations are one run of resource block groups rather than groups scattered over the band.
    mean_users : float
        Mean number of users that share a subframe with traffic, at least 1.
    uplink_grants : float
        Mean number of uplink grants sent in a subframe with traffic.
    modulation_weights : tuple of 4 floats
        Probability of QPSK, 16QAM, 64QAM and 256QAM.
    rho_a_db : float
        PDSCH power over CRS power per resource element, in dB (TS 36.213 5.2), in symbols without CRS.
    p_b : int
        Index 0 to 3 of the PDSCH power ratio of symbols with CRS to those without (TS 36.213 table 5.2-1).
    system_information : bool
        Send SIB1 in subframe 5 of every even frame, besides the traffic (TS 36.331 5.2.1.2).

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    n_prb: int = 50
    cell_id: int = 0
    n_ports: int = 1
    duplex: str = "FDD"
    uplink_downlink_config: int = 2
    special_subframe_config: int = 7
    cfi: int | None = None
    phich_ng: float = 1.0
    load: float = 0.5
    duty_cycle: float = 1.0
    mean_burst: float = 10.0
    contiguous: bool = False
    mean_users: float = 1.5
    uplink_grants: float = 0.5
    modulation_weights: tuple[float, float, float, float] = (0.4, 0.3, 0.2, 0.1)
    rho_a_db: float = 0.0
    p_b: int = 0
    system_information: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "n_prb": self.n_prb in N_FFT,
            "cell_id": 0 <= self.cell_id <= 503,
            "n_ports": self.n_ports in (1, 2, 4),
            "duplex": self.duplex in ("FDD", "TDD"),
            "uplink_downlink_config": 0 <= self.uplink_downlink_config <= 6,
            "special_subframe_config": 0 <= self.special_subframe_config <= 9,
            "cfi": self.cfi in (None, 1, 2, 3),
            "phich_ng": self.phich_ng in (1 / 6, 1 / 2, 1, 2),
            "load": 0 <= self.load <= self.duty_cycle,
            "duty_cycle": 0 <= self.duty_cycle <= 1,
            "mean_burst": self.mean_burst >= 1,
            "mean_users": self.mean_users >= 1,
            "uplink_grants": self.uplink_grants >= 0,
            "modulation_weights": len(self.modulation_weights) == 4
            and min(self.modulation_weights) >= 0
            and abs(sum(self.modulation_weights) - 1) < 1e-9,
            "p_b": 0 <= self.p_b <= 3,
        }
        for name, valid in allowed.items():
            if not valid:
                raise ValueError(f"LTEConfig.{name} is {getattr(self, name)!r}, outside the range its docstring gives")

    @property
    def n_subcarriers(self) -> int:
        """Subcarriers that can carry something, DC not counted."""
        return 12 * self.n_prb

    @property
    def rbg_size(self) -> int:
        """Resource blocks of a resource block group (TS 36.213 table 7.1.6.1-1)."""
        return 1 + sum(self.n_prb > limit for limit in (10, 26, 63))


def lte_downlink(
    config: LTEConfig, rng: np.random.Generator, n_subframes: int, first_subframe: int = 0
) -> ResourceGrid:
    """Draw what a cell sends in consecutive subframes.

    Synchronisation signals, and with one port reference signals, have magnitude 1. Control channels and PBCH have
    mean power 1, PDSCH that of ``rho_a_db`` and ``p_b``. With several ports each has a random complex weight, of mean
    square 1 over the ports, and control, PBCH and PDSCH are superpositions of two streams.

    Parameters
    ----------
    config : LTEConfig
    rng : numpy.random.Generator
        All randomness; the same state gives the same grid.
    n_subframes : int
        Length in ms.
    first_subframe : int
        Number of the first subframe, counted from a radio frame whose number is even.

    Returns
    -------
    ResourceGrid
        ``(14 * n_subframes, 12 * n_prb + 1)`` values; the column of the DC subcarrier is zero.

    Raises
    ------
    ValueError
        If ``n_subframes`` is not positive or ``first_subframe`` is negative.
    """
    if n_subframes < 1 or first_subframe < 0:
        raise ValueError(f"n_subframes {n_subframes} must be positive, first_subframe {first_subframe} not negative")
    subframes = first_subframe + np.arange(n_subframes)
    in_frame = subframes % 10
    port_weights, stream_gains = _antennas(config, rng)
    traffic = _draw_traffic(config, rng, subframes)
    control = _draw_control(config, rng, subframes, traffic)
    reserved, fixed = _fixed_signals(config, port_weights)

    values = _pdsch(config, rng, traffic.modulation, control.n_symbols, in_frame, stream_gains)
    values[reserved[in_frame]] = 0
    values += fixed[in_frame]
    flat = values.reshape(n_subframes, -1)
    pbch = _pbch_elements(config)
    for frame_start in np.flatnonzero(in_frame == 0):
        flat[frame_start, pbch] = _random_qpsk(rng, len(pbch), stream_gains)
    flat[control.subframe, control.element] = _random_qpsk(rng, len(control.element), stream_gains)
    return _as_resource_grid(config, values.reshape(-1, config.n_subcarriers))


def _as_resource_grid(config: LTEConfig, values: NDArray[np.complex64]) -> ResourceGrid:
    """Insert the empty DC subcarrier (6.12) and add the numbers that place the grid in time and frequency."""
    half = config.n_subcarriers // 2
    with_dc = np.zeros((len(values), config.n_subcarriers + 1), np.complex64)
    with_dc[:, :half] = values[:, :half]
    with_dc[:, half + 1 :] = values[:, half:]
    n_fft = N_FFT[config.n_prb]
    # Table 6.12-1, where lengths are for 2048.
    slot = np.array([160] + [144] * 6, np.int64) * n_fft // 2048
    return ResourceGrid(
        label="LTE",
        values=with_dc,
        lowest_subcarrier=-half,
        subcarrier_spacing=SUBCARRIER_SPACING,
        n_fft=n_fft,
        cp_lengths=np.tile(slot, len(values) // len(slot)),
    )


def _antennas(config: LTEConfig, rng: np.random.Generator) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Draw a weight for every port, and gains of unit total power for the two streams that data are sent in."""
    if config.n_ports == 1:
        return np.ones(1, np.complex64), np.ones(1, np.complex64)
    ports = rng.uniform(0.5, 1.3, config.n_ports) * np.exp(2j * np.pi * rng.random(config.n_ports))
    ports /= np.sqrt(np.mean(np.abs(ports) ** 2))
    streams = ports[:2] / np.linalg.norm(ports[:2])
    return ports.astype(np.complex64), streams.astype(np.complex64)


# --- Sequences ---


def primary_sync(cell_id: int) -> NDArray[np.complex64]:
    """Primary synchronisation signal d(n) of 6.11.1.1, for the 62 subcarriers about DC: (62,) complex64."""
    root = (25, 29, 34)[cell_id % 3]
    n = np.arange(63)
    sequence = np.exp(-1j * np.pi * root * n * (n + 1) / 63)
    # The element that falls on DC is left out.
    return np.delete(sequence, 31).astype(np.complex64)


def secondary_sync(cell_id: int, subframe: int) -> NDArray[np.complex64]:
    """Secondary synchronisation signal d(n) of 6.11.2.1 in subframe 0 or 5, placed as the primary: (62,) complex64."""
    group, sector = divmod(cell_id, 3)
    q_prime = group // 30
    q = (group + q_prime * (q_prime + 1) // 2) // 30
    m_prime = group + q * (q + 1) // 2
    m0 = m_prime % 31
    m1 = (m0 + m_prime // 31 + 1) % 31
    s, c, z = (_m_sequence(taps) for taps in ((2, 0), (3, 0), (4, 2, 1, 0)))
    even, odd = (m0, m1) if subframe == 0 else (m1, m0)
    d = np.empty(62, np.complex64)
    d[0::2] = np.roll(s, -even) * np.roll(c, -sector)
    d[1::2] = np.roll(s, -odd) * np.roll(c, -sector - 3) * np.roll(z, -(even % 8))
    return d


def _m_sequence(taps: tuple[int, ...]) -> NDArray[np.int64]:
    """Binary sequence of length 31 with x(i + 5) = sum of x(i + tap), as signs (6.11.2.1)."""
    x = [0, 0, 0, 0, 1]
    for i in range(26):
        x.append(sum(x[i + tap] for tap in taps) % 2)
    return 1 - 2 * np.array(x)


def reference_signals(cell_id: int, n_prb: int, slots: NDArray[np.int64], symbol: int) -> NDArray[np.complex64]:
    """Cell-specific reference signal r(m') of 6.10.1.1 in one symbol of several slots.

    Parameters
    ----------
    cell_id, n_prb : int
    slots : (slot,) int64
        Numbers of the slots in the radio frame, 0 to 19.
    symbol : int
        OFDM symbol in the slot.

    Returns
    -------
    (slot, 2 * n_prb) complex64
    """
    c_init = 1024 * (7 * (slots + 1) + symbol + 1) * (2 * cell_id + 1) + 2 * cell_id + 1
    # The sequence is made for 110 resource blocks; a narrower carrier takes its middle.
    signs = 1 - 2.0 * gold_sequences(c_init, 440)
    r = (signs[:, 0::2] + 1j * signs[:, 1::2]) * np.sqrt(0.5)
    return r[:, 110 - n_prb : 110 + n_prb].astype(np.complex64)


def reference_subcarriers(cell_id: int, n_prb: int, port: int, slot: int, symbol: int) -> NDArray[np.int64]:
    """Subcarriers, counted from the lowest without DC, of a port's reference signal (6.10.1.2): (2 * n_prb,) int64."""
    v = 3 * (port + (symbol != 0)) if port < 2 else 3 * (port - 2 + slot % 2)
    return 6 * np.arange(2 * n_prb) + (v + cell_id) % 6


# --- Signals with a fixed place ---


def downlink_symbols(config: LTEConfig) -> NDArray[np.int64]:
    """OFDM symbols that the cell may send in, from the start of each subframe of a radio frame (4.2): (10,) int64."""
    if config.duplex == "FDD":
        return np.full(10, SYMBOLS)
    lengths = {"D": SYMBOLS, "S": DWPTS_SYMBOLS[config.special_subframe_config], "U": 0}
    return np.array([lengths[kind] for kind in TDD_PATTERNS[config.uplink_downlink_config]])


def sync_positions(config: LTEConfig) -> list[tuple[int, int, NDArray[np.complex64]]]:
    """Subframe, symbol and sequence of each synchronisation signal of a radio frame (6.11.1.2, 6.11.2.2)."""
    primary = primary_sync(config.cell_id)
    secondary = {start: secondary_sync(config.cell_id, start) for start in (0, 5)}
    if config.duplex == "FDD":
        return [(n, 6, primary) for n in (0, 5)] + [(n, 5, secondary[n]) for n in (0, 5)]
    return [(n, 2, primary) for n in (1, 6)] + [(n, 13, secondary[n]) for n in (0, 5)]


def _central(config: LTEConfig, n_subcarriers: int) -> slice:
    middle = config.n_subcarriers // 2
    return slice(middle - n_subcarriers // 2, middle + n_subcarriers // 2)


def _fixed_signals(
    config: LTEConfig, port_weights: NDArray[np.complex64]
) -> tuple[NDArray[np.bool_], NDArray[np.complex64]]:
    """Resource elements of one radio frame that PDSCH may not use, and the CRS, PSS and SSS in them.

    Returns
    -------
    reserved : (10, 14, subcarrier) bool
    fixed : (10, 14, subcarrier) complex64
    """
    reserved = np.zeros((10, SYMBOLS, config.n_subcarriers), bool)
    fixed = np.zeros(reserved.shape, np.complex64)
    slots = np.arange(20)
    for port, weight in enumerate(port_weights):
        for symbol in (0, 4) if port < 2 else (1,):
            signals = weight * reference_signals(config.cell_id, config.n_prb, slots, symbol)
            for half in (0, 1):
                columns = reference_subcarriers(config.cell_id, config.n_prb, port, half, symbol)
                fixed[:, 7 * half + symbol, columns] = signals[half::2]
                reserved[:, 7 * half + symbol, columns] = True
    for subframe, symbol, sequence in sync_positions(config):
        # Five subcarriers on either side of the signal are reserved and stay empty.
        reserved[subframe, symbol, _central(config, 72)] = True
        fixed[subframe, symbol, _central(config, 62)] = sequence
    # PBCH; as if there were four ports, whatever their number (6.6.4).
    reserved[0, 7:11, _central(config, 72)] = True
    sent = np.arange(SYMBOLS) < downlink_symbols(config)[:, None]
    fixed *= sent[:, :, None]
    return reserved, fixed


def _pbch_elements(config: LTEConfig) -> NDArray[np.int64]:
    """Elements (symbol * n_subcarriers + subcarrier) of the 240 PBCH symbols in subframe 0 (6.6.4)."""
    free = np.zeros((SYMBOLS, config.n_subcarriers), bool)
    free[7:11, _central(config, 72)] = True
    free[7:9, config.cell_id % 3 :: 3] = False
    return np.flatnonzero(free)


# --- Control region ---


@dataclass(frozen=True, eq=False)
class ControlLayout:
    """Elements (symbol * n_subcarriers + subcarrier) of the control channels of one subframe.

    Attributes
    ----------
    pcfich : (16,) int64
    phich : (group, 12) int64
    cce : (cce, 36) int64
        Control channel elements, which PDCCHs are made of.
    """

    pcfich: NDArray[np.int64]
    phich: NDArray[np.int64]
    cce: NDArray[np.int64]


@lru_cache(maxsize=64)
def control_layout(n_prb: int, cell_id: int, n_ports: int, n_symbols: int, n_phich_groups: int) -> ControlLayout:
    """Map PCFICH, PHICH (normal duration) and PDCCH to resource element groups (6.2.4, 6.7.4, 6.8.5, 6.9.3).

    Parameters
    ----------
    n_prb, cell_id, n_ports : int
        As in :class:`LTEConfig`.
    n_symbols : int
        OFDM symbols of the control region, 1 to 4.
    n_phich_groups : int
        PHICH mapping units of the subframe.
    """
    groups = [_element_groups(n_prb, cell_id, n_ports, symbol) for symbol in range(n_symbols)]
    first = groups[0]
    pcfich = (cell_id % (2 * n_prb) + np.arange(4) * n_prb // 2) % (2 * n_prb)
    left = np.delete(np.arange(len(first)), pcfich)
    thirds = np.arange(3) * len(left) // 3
    phich = left[(cell_id + np.arange(n_phich_groups)[:, None] + thirds) % len(left)]
    free = np.delete(first, np.concatenate((pcfich, phich.ravel())), axis=0)
    # (4 element,) groups in order of their lowest subcarrier, then of their symbol
    pdcch = np.concatenate([free, *groups[1:]])
    symbol, subcarrier = np.divmod(pdcch, 12 * n_prb)
    # A group starts at the multiple of its width, where a reference signal may sit.
    width = np.where((symbol == 0) | ((symbol == 1) & (n_ports == 4)), 6, 4)
    pdcch = pdcch[np.lexsort((symbol[:, 0], (subcarrier // width)[:, 0] * width[:, 0]))]
    shifted = (np.arange(len(pdcch)) + cell_id) % len(pdcch)
    in_order = np.empty_like(pdcch)
    in_order[_interleaver(len(pdcch))[shifted]] = pdcch
    n_cce = len(pdcch) // 9
    return ControlLayout(
        pcfich=first[pcfich].ravel(),
        phich=first[phich].reshape(n_phich_groups, 12),
        cce=in_order[: 9 * n_cce].reshape(n_cce, 36),
    )


def _element_groups(n_prb: int, cell_id: int, n_ports: int, symbol: int) -> NDArray[np.int64]:
    """Resource element groups of one symbol, by frequency (6.2.4): (group, 4) int64 elements."""
    subcarriers = np.arange(12 * n_prb)
    # Symbol 0 leaves room for the reference signals of two ports even where there is one.
    if symbol == 0 or (symbol == 1 and n_ports == 4):
        subcarriers = subcarriers[subcarriers % 3 != cell_id % 3]
    return (symbol * 12 * n_prb + subcarriers).reshape(-1, 4)


def _interleaver(length: int) -> NDArray[np.int64]:
    """Input index of every output of the sub-block interleaver (TS 36.212 5.1.4.2.1): (length,) int64."""
    n_rows = -(-length // 32)
    matrix = np.arange(n_rows * 32).reshape(n_rows, 32) - (n_rows * 32 - length)
    read = matrix[:, INTERLEAVER_COLUMNS].T.ravel()
    return read[read >= 0]


def phich_groups(config: LTEConfig) -> NDArray[np.int64]:
    """PHICH groups in each subframe of a radio frame (6.9): (10,) int64."""
    # N_g is a multiple of 1/6; integers keep the ceiling exact.
    groups = -(-round(6 * config.phich_ng) * config.n_prb // 48)
    if config.duplex == "FDD":
        return np.full(10, groups)
    return groups * np.array(TDD_PHICH_FACTORS[config.uplink_downlink_config])


@dataclass(frozen=True, eq=False)
class _Control:
    """Size of the control regions, (subframe,) symbols, and the used elements, in pairs of subframe and element."""

    n_symbols: NDArray[np.int64]
    subframe: NDArray[np.int64]
    element: NDArray[np.int64]


def _draw_control(
    config: LTEConfig, rng: np.random.Generator, subframes: NDArray[np.int64], traffic: _Traffic
) -> _Control:
    """Choose the control format of every subframe and place its PCFICH, PHICH groups and PDCCHs."""
    in_frame = subframes % 10
    sending = downlink_symbols(config)[in_frame] > 0
    groups = phich_groups(config)[in_frame]
    n_symbols = np.zeros(len(subframes), np.int64)
    used: list[NDArray[np.int64]] = []
    for i in np.flatnonzero(sending):
        levels = _draw_aggregation(rng, int(traffic.n_messages[i]), bool(traffic.broadcast[i]))
        layout, n_symbols[i] = _fitting_layout(config, int(in_frame[i]), int(groups[i]), int(levels.sum()))
        cces = _place_messages(rng, levels, len(layout.cce))
        acknowledged = rng.random(len(layout.phich)) < traffic.uplink_share[i]
        used.append(np.concatenate((layout.pcfich, layout.phich[acknowledged].ravel(), layout.cce[cces].ravel())))
    counts = np.zeros(len(subframes), np.int64)
    counts[sending] = [len(elements) for elements in used]
    element = np.concatenate([*used, np.zeros(0, np.int64)])
    return _Control(n_symbols, np.repeat(np.arange(len(subframes)), counts), element)


def _draw_aggregation(rng: np.random.Generator, n_messages: int, broadcast: bool) -> NDArray[np.int64]:
    """Aggregation levels of a subframe's PDCCHs, broadcast first: (message,) int64."""
    # Broadcast must reach the cell's edge: level 4 or 8 alone (TS 36.213 9.1.1).
    common = AGGREGATION_LEVELS[rng.integers(2, 4, int(broadcast))]
    return np.concatenate((common, AGGREGATION_LEVELS[np.minimum(rng.geometric(0.45, n_messages) - 1, 3)]))


def _fitting_layout(config: LTEConfig, in_frame: int, n_groups: int, n_cce: int) -> tuple[ControlLayout, int]:
    """Layout of the fixed, or else of the smallest sufficient, control format, and its symbols (table 6.7-1)."""
    sizes = np.array([1, 2, 3]) + (config.n_prb <= 10)
    # Symbol 2 of these subframes is the primary synchronisation signal's.
    limit = 2 if config.duplex == "TDD" and in_frame in (1, 6) else 4
    wanted = sizes if config.cfi is None else sizes[[config.cfi - 1]]
    for size in np.minimum(wanted, limit).tolist():
        layout = control_layout(config.n_prb, config.cell_id, config.n_ports, size, n_groups)
        if len(layout.cce) >= n_cce:
            break
    return layout, size


def _place_messages(rng: np.random.Generator, levels: NDArray[np.int64], n_cce: int) -> NDArray[np.bool_]:
    """Elements in use, (cce,) bool: messages start at multiples of their level, and one without room is dropped."""
    used = np.zeros(n_cce, bool)
    for level in levels.tolist():
        candidates = used[: n_cce // level * level].reshape(-1, level)
        free = np.flatnonzero(~candidates.any(axis=1))
        if len(free):
            candidates[free[rng.integers(len(free))]] = True
    return used


# --- Traffic and PDSCH ---


@dataclass(frozen=True, eq=False)
class _Traffic:
    """What is scheduled.

    Attributes
    ----------
    modulation : (subframe, resource block) uint8
        Row of the constellation table; 0 where nothing is allocated.
    n_messages : (subframe,) int64
        PDCCHs for users.
    broadcast : (subframe,) bool
        System information is sent.
    uplink_share : (subframe,) float64
        Probability that a PHICH group is in use.
    """

    modulation: NDArray[np.uint8]
    n_messages: NDArray[np.int64]
    broadcast: NDArray[np.bool_]
    uplink_share: NDArray[np.float64]


def _draw_traffic(config: LTEConfig, rng: np.random.Generator, subframes: NDArray[np.int64]) -> _Traffic:
    """Draw bursts, users and their resource block groups (allocation type 0, TS 36.213 7.1.6.1)."""
    n = len(subframes)
    active = _draw_bursts(config, rng, n)
    mean_share = config.load / config.duty_cycle if config.load else 0.0
    share = active * _draw_share(rng, mean_share, n)
    n_rbg = -(-config.n_prb // config.rbg_size)
    n_allocated = np.floor(share * n_rbg + rng.random(n)).astype(np.int64)  # mean is share * n_rbg
    order = _draw_order(config, rng, n, n_rbg)
    n_users = np.minimum(1 + rng.poisson(config.mean_users - 1, n), n_allocated)
    user = order * n_users[:, None] // np.maximum(n_allocated, 1)[:, None]
    by_user = 1 + rng.choice(4, size=(n, n_rbg), p=config.modulation_weights).astype(np.uint8)
    chosen = np.take_along_axis(by_user, np.minimum(user, n_rbg - 1), axis=1)
    by_group = np.where(order < n_allocated[:, None], chosen, np.uint8(0))
    modulation = np.repeat(by_group, config.rbg_size, axis=1)[:, : config.n_prb]

    broadcast = config.system_information & (subframes % 20 == 5)
    width = min(config.n_prb, int(rng.integers(3, 9)))
    start = int(rng.integers(config.n_prb - width + 1))
    modulation[broadcast, start : start + width] = QPSK
    grants = rng.poisson(config.uplink_grants, n) * active
    # Acknowledgements come back about as often as grants go out.
    uplink_share = np.where(active, 0.5 * min(1.0, config.uplink_grants), 0.0)
    return _Traffic(modulation, n_users + grants, broadcast, uplink_share)


def _draw_bursts(config: LTEConfig, rng: np.random.Generator, n: int) -> NDArray[np.bool_]:
    """Subframes with traffic, (n,) bool: bursts and pauses of geometric length, in the steady state from the start."""
    if config.load == 0:
        return np.zeros(n, bool)
    if config.duty_cycle == 1:
        return np.ones(n, bool)
    pauses = (1 - config.duty_cycle) / config.duty_cycle
    burst = max(config.mean_burst, 1 / pauses)  # so that the mean pause is at least a subframe
    starts_on = rng.random() < config.duty_cycle
    on = np.arange(n + 1) % 2 == (0 if starts_on else 1)
    lengths = np.where(on, rng.geometric(1 / burst, n + 1), rng.geometric(min(1.0, 1 / (burst * pauses)), n + 1))
    # A pause may be longer than any window; only n subframes of it matter.
    return np.repeat(on, np.minimum(lengths, n))[:n]


def _draw_share(rng: np.random.Generator, mean: float, n: int) -> NDArray[np.float64]:
    """Share of the band allocated in each subframe, (n,) float64, varying about its mean unless that is 0 or 1."""
    if mean <= 0 or mean >= 1:
        return np.full(n, float(mean))
    return rng.beta(4 * mean, 4 * (1 - mean), n)


def _draw_order(config: LTEConfig, rng: np.random.Generator, n: int, n_rbg: int) -> NDArray[np.int64]:
    """Place of each group in the order in which they are handed out: (subframe, group) int64."""
    if config.contiguous:
        return (np.arange(n_rbg) - rng.integers(n_rbg, size=(n, 1))) % n_rbg
    return np.argsort(rng.random((n, n_rbg)), axis=1)


@lru_cache(maxsize=1)
def _constellations() -> NDArray[np.complex64]:
    """Silence, QPSK, 16QAM, 64QAM and 256QAM of mean power 1 by a random byte (7.1): (5, 256) complex64."""
    table = np.zeros((5, 256), np.complex64)
    byte = np.arange(256)
    for row in range(1, 5):
        levels = 2 * np.arange(2**row) - (2**row - 1)
        drop = 4 - row
        table[row] = levels[(byte >> 4) >> drop] + 1j * levels[(byte & 15) >> drop]
        table[row] /= np.sqrt(np.mean(np.abs(table[row]) ** 2))
    return table


def _pdsch(
    config: LTEConfig,
    rng: np.random.Generator,
    modulation: NDArray[np.uint8],
    control_symbols: NDArray[np.int64],
    in_frame: NDArray[np.int64],
    stream_gains: NDArray[np.complex64],
) -> NDArray[np.complex64]:
    """Fill allocated blocks after the control region, reserved elements too: (subframe, 14, subcarrier) complex64."""
    symbol = np.arange(SYMBOLS)
    available = downlink_symbols(config)[in_frame]
    # A DwPTS of three symbols has no PDSCH (TS 36.213 7.1.7).
    available[available == 3] = 0
    carries = (symbol >= control_symbols[:, None]) & (symbol < available[:, None])
    rows = (modulation[:, None, :] * carries[:, :, None]).astype(np.uint16)
    # TS 36.213 table 5.2-2: symbols with CRS have a power of their own.
    with_crs = np.isin(symbol % 7, (0, 1, 4) if config.n_ports == 4 else (0, 4))
    rows += np.uint16(5) * with_crs[:, None]
    rho_a = 10 ** (config.rho_a_db / 10)
    rho_b = rho_a * RHO_B_OVER_A[config.n_ports > 1][config.p_b]
    table = np.concatenate((_constellations() * np.sqrt(rho_a), _constellations() * np.sqrt(rho_b)))
    shape = (len(modulation), SYMBOLS, config.n_prb, 12)
    values = np.zeros(shape, np.complex64)
    for gain in stream_gains:
        byte = rng.integers(256, size=shape, dtype=np.uint8)
        values += (table * gain).astype(np.complex64).ravel()[(rows << 8)[..., None] | byte]
    return values.reshape(len(modulation), SYMBOLS, -1)


def _random_qpsk(rng: np.random.Generator, n: int, stream_gains: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """QPSK symbols of mean power 1, superposed from the streams: (n,) complex64."""
    byte = rng.integers(256, size=(len(stream_gains), n), dtype=np.uint8)
    return stream_gains @ _constellations()[QPSK, byte]
