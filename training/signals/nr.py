# SPDX-License-Identifier: Apache-2.0
"""5G NR downlink in FR1: SSB bursts, PDCCH, PDSCH with DM-RS, SIB1, CSI-RS and TRS (TS 38.211, 38.213, 38.214).

Point A is the carrier's lowest subcarrier and one bandwidth part spans the carrier, so a common resource block's
number is its column. The phase that TS 38.211 clause 5.4 ties to the radio frequency is not applied: it rotates whole
symbols only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.signals.grid import SUBCARRIERS_PER_RB, ResourceGrid
from training.signals.sequences import gold_sequences, qpsk, random_qam

SYMBOLS_PER_SLOT = 14
SSB_SUBCARRIERS = 240
SSB_SYMBOLS = 4

# Transmission bandwidth in resource blocks, by channel bandwidth in MHz (TS 38.104 table 5.3.2-1).
# fmt: off
N_RB: dict[float, dict[int, int]] = {
    15e3: {5: 25, 10: 52, 15: 79, 20: 106, 25: 133, 30: 160, 35: 188, 40: 216, 45: 242, 50: 270},
    30e3: {5: 11, 10: 24, 15: 38, 20: 51, 25: 65, 30: 78, 35: 92, 40: 106, 45: 119, 50: 133,
           60: 162, 70: 189, 80: 217, 90: 245, 100: 273},
}
# fmt: on

# First symbols of the candidate SSBs in a half frame, for L_max = 8; L_max = 4 has the first four
# (TS 38.213 clause 4.1).
SSB_CANDIDATES: dict[str, tuple[int, ...]] = {
    "A": (2, 8, 16, 22, 30, 36, 44, 50),
    "B": (4, 8, 16, 20, 32, 36, 44, 48),
    "C": (2, 8, 16, 22, 30, 36, 44, 50),
}
SSB_CASE_SPACING = {"A": 15e3, "B": 30e3, "C": 30e3}

# CORESET 0 as (resource blocks, symbols, offset below the SSB in resource blocks), where SSB and PDCCH share the
# spacing and the band's narrowest channel has 5 or 10 MHz (TS 38.213 tables 13-1 and 13-4).
# fmt: off
CORESET0_TABLE: dict[float, tuple[tuple[int, int, int], ...]] = {
    15e3: ((24, 2, 0), (24, 2, 2), (24, 2, 4), (24, 3, 0), (24, 3, 2), (24, 3, 4), (48, 1, 12), (48, 1, 16),
           (48, 2, 12), (48, 2, 16), (48, 3, 12), (48, 3, 16), (96, 1, 38), (96, 2, 38), (96, 3, 38)),
    30e3: ((24, 2, 0), (24, 2, 1), (24, 2, 2), (24, 2, 3), (24, 2, 4), (24, 3, 0), (24, 3, 1), (24, 3, 2),
           (24, 3, 3), (24, 3, 4), (48, 1, 12), (48, 1, 14), (48, 1, 16), (48, 2, 12), (48, 2, 14), (48, 2, 16)),
}
# fmt: on

# Additional DM-RS of a PDSCH of mapping type A, by its last symbol + 1, for additional position 0, 1 and 2
# (TS 38.211 table 7.4.1.1.2-3, single symbol).
_ADDITIONAL_DMRS: dict[int, tuple[tuple[int, ...], ...]] = {
    **{length: ((), (), ()) for length in range(3, 8)},
    8: ((), (7,), (7,)),
    9: ((), (7,), (7,)),
    10: ((), (9,), (6, 9)),
    11: ((), (9,), (6, 9)),
    12: ((), (9,), (6, 9)),
    13: ((), (11,), (7, 11)),
    14: ((), (11,), (7, 11)),
}

# CSI-RS locations as (subcarriers above k0, index into the sequence of a resource block, indices per resource block)
# (TS 38.211 table 7.4.1.5.3-1): row 1 is the one port of density 3 that TRS uses, row 4 has four ports at density 1.
_CSI_RS_ROWS: dict[int, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    1: ((0, 4, 8), (0, 1, 2), 3),
    4: ((0, 1, 2, 3), (0, 1, 0, 1), 2),
}

# Size of a resource block group by the largest bandwidth it serves (TS 38.214 table 5.1.2.2.1-1, configuration 1).
_RBG_SIZE = {36: 2, 72: 4, 144: 8, 275: 16}

_LEVELS = np.array([1, 2, 2, 2, 4, 4, 4, 8])  # aggregation levels of PDCCH, as often as they are drawn

_FFT_SIZES = sorted(128 * factor << power for power in range(7) for factor in (2, 3))  # integer cyclic prefixes


@dataclass(frozen=True)
class Load:
    """Traffic as bursts and gaps of exponentially distributed lengths.

    Attributes
    ----------
    burst, gap : float
        Mean lengths in ms. A burst of 0 is no traffic at all.
    slot_use : float
        Share of the downlink slots in a burst that carry data.
    share : (float, float)
        Range of the share of the resource blocks that a used slot fills; drawn evenly.
    users : int
        Most users in a slot.
    """

    burst: float
    gap: float
    slot_use: float
    share: tuple[float, float]
    users: int


LOADS: dict[str, Load] = {
    "idle": Load(burst=0, gap=1, slot_use=0.0, share=(0.0, 0.0), users=1),
    "light": Load(burst=1, gap=8, slot_use=0.8, share=(0.03, 0.4), users=2),
    "medium": Load(burst=20, gap=4, slot_use=0.5, share=(0.05, 0.8), users=3),
    "bursty": Load(burst=7, gap=12, slot_use=0.95, share=(0.5, 1.0), users=2),
    "full": Load(burst=1, gap=0, slot_use=1.0, share=(1.0, 1.0), users=4),
}


@dataclass(frozen=True)
class Coreset:
    """Control resource set (TS 38.211 clause 7.3.2.2).

    Attributes
    ----------
    first_rb, n_rb : int
        Its resource blocks; ``n_rb`` is a multiple of 6.
    n_symbols : int
        1 to 3, from the start of the slot.
    bundle : int
        REGs that stay together (L).
    interleaver_rows : int
        R of the interleaver: 2, 3 or 6; 0 for no interleaving.
    shift : int
        n_shift of the interleaver.
    """

    first_rb: int
    n_rb: int
    n_symbols: int
    bundle: int = 6
    interleaver_rows: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        n_regs = self.n_rb * self.n_symbols
        if self.n_rb % 6 or self.n_rb <= 0 or self.n_symbols not in (1, 2, 3):
            raise ValueError(f"a CORESET spans 6, 12, … resource blocks and 1 to 3 symbols, not {self}")
        if self.bundle not in (2, 3, 6) or self.bundle % self.n_symbols:
            raise ValueError(f"REG bundles have 6 REGs, or 2 or 3 that fill the symbols, not those of {self}")
        if n_regs % (self.bundle * max(self.interleaver_rows, 1)):
            raise ValueError(f"{n_regs} REGs do not fill the interleaver of {self}; choose fewer rows")


@dataclass(frozen=True)
class CsiRs:
    """Periodic CSI reference signal; two slots of row 1, four symbols apart, are a TRS (TS 38.214 clause 5.1.6.1.1).

    Attributes
    ----------
    row : int
        Row of TS 38.211 table 7.4.1.5.3-1: 1 or 4.
    period : int
        In slots.
    offset : int
        First slot of each period that carries it.
    n_slots : int
        Consecutive slots that carry it.
    symbols : tuple of int
        Symbols of each slot.
    k0 : int
        Its first subcarrier in every resource block.
    first_rb, n_rb : int
        Its resource blocks.
    """

    row: int
    period: int
    offset: int
    n_slots: int
    symbols: tuple[int, ...]
    k0: int
    first_rb: int
    n_rb: int

    def __post_init__(self) -> None:
        if self.row not in _CSI_RS_ROWS or self.k0 + _CSI_RS_ROWS[self.row][0][-1] >= SUBCARRIERS_PER_RB:
            raise ValueError(f"CSI-RS rows are 1 and 4, inside a resource block, not {self}")
        if not 0 <= self.offset <= self.period - self.n_slots:
            raise ValueError(f"CSI-RS slots must lie in their period, not as in {self}")


@dataclass(frozen=True)
class NRConfig:
    """One NR carrier; the defaults are an idle FDD cell of 10 MHz.

    Attributes
    ----------
    cell_id : int
        0 to 1007.
    subcarrier_spacing : float
        15e3 or 30e3 Hz, of the data and of the SSB.
    bandwidth : float
        Channel bandwidth in Hz, of :data:`N_RB`.
    tdd_pattern : str
        Slots as ``D``, ``S``, ``U``, repeating from the start of a frame; empty for FDD.
    special_downlink_symbols : int
        Downlink symbols at the start of an ``S`` slot.
    ssb_case : str
        ``A`` (15 kHz), ``B`` or ``C`` (30 kHz).
    ssb_beams : tuple of bool
        Which SSB candidates are sent; 4 (below 3 GHz) or 8 of them.
    ssb_powers : tuple of float
        Power of each candidate in dB per resource element.
    ssb_period : int
        5, 10, 20, 40, 80 or 160 ms.
    ssb_half_frame : int
        0 or 1: half of the frame with the SSBs.
    ssb_subcarrier : int
        The carrier's subcarrier that is the SSB's first: any, so every k_SSB that keeps the grids aligned.
    coreset : Coreset
        For users' PDCCH.
    coreset0 : Coreset or None
        For SIB1's PDCCH.
    sib1_period : int
        In ms, a multiple of 20; 0 for no SIB1.
    sib1_offset : int
        O of TS 38.213 table 13-11, in ms, with one search space a slot: 0, 2, 5 or 7.
    load : str
        Key of :data:`LOADS`.
    pdcch_rate : float
        Mean number of PDCCHs in a downlink slot besides those that schedule PDSCH.
    contiguous : bool
        Resource allocation type 1, contiguous; else type 0, groups of resource blocks.
    dmrs_type_a_position : int
        First DM-RS symbol of a PDSCH: 2 or 3.
    dmrs_additional : int
        Additional DM-RS positions: 0, 1 or 2.
    dmrs_cdm_groups : int
        DM-RS CDM groups without data: 1 (data between the DM-RS) or 2.
    csi_rs : tuple of CsiRs
    """

    cell_id: int = 0
    subcarrier_spacing: float = 15e3
    bandwidth: float = 10e6
    tdd_pattern: str = ""
    special_downlink_symbols: int = 10
    ssb_case: str = "A"
    ssb_beams: tuple[bool, ...] = (True, False, False, False)
    ssb_powers: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    ssb_period: int = 20
    ssb_half_frame: int = 0
    ssb_subcarrier: int = 192
    coreset: Coreset = Coreset(first_rb=0, n_rb=24, n_symbols=2)
    coreset0: Coreset | None = None
    sib1_period: int = 0
    sib1_offset: int = 2
    load: str = "idle"
    pdcch_rate: float = 0.0
    contiguous: bool = True
    dmrs_type_a_position: int = 2
    dmrs_additional: int = 1
    dmrs_cdm_groups: int = 2
    csi_rs: tuple[CsiRs, ...] = ()

    def __post_init__(self) -> None:
        _check_carrier(self)
        _check_ssb(self)
        _check_channels(self)

    @property
    def n_rb(self) -> int:
        """Resource blocks of the carrier."""
        return N_RB[self.subcarrier_spacing][round(self.bandwidth / 1e6)]

    @property
    def n_subcarriers(self) -> int:
        """Subcarriers of the carrier."""
        return self.n_rb * SUBCARRIERS_PER_RB

    @property
    def n_fft(self) -> int:
        """Smallest FFT that has integer cyclic prefixes and spans 1.1 times the occupied band."""
        return next(size for size in _FFT_SIZES if size >= 1.1 * self.n_subcarriers)

    @property
    def slots_per_subframe(self) -> int:
        """Slots in 1 ms."""
        return round(self.subcarrier_spacing / 15e3)

    @property
    def slots_per_frame(self) -> int:
        """Slots in 10 ms."""
        return 10 * self.slots_per_subframe

    @property
    def first_data_symbol(self) -> int:
        """First symbol of every PDSCH: after the longer of the CORESETs."""
        return max(self.coreset.n_symbols, self.coreset0.n_symbols if self.coreset0 else 0)

    @property
    def least_data_end(self) -> int:
        """Downlink symbols that a slot needs for a PDSCH: mapping type A has 3 or more (TS 38.214 table 5.1.2.1-1)."""
        return self.first_data_symbol + 3

    @property
    def ssb_blocks(self) -> slice:
        """Resource blocks that an SSB touches."""
        last = self.ssb_subcarrier + SSB_SUBCARRIERS - 1
        return slice(self.ssb_subcarrier // SUBCARRIERS_PER_RB, last // SUBCARRIERS_PER_RB + 1)


def _check_carrier(config: NRConfig) -> None:
    if not 0 <= config.cell_id <= 1007:
        raise ValueError(f"cell_id is {config.cell_id}; NR has 0 to 1007")
    if config.bandwidth / 1e6 not in N_RB.get(config.subcarrier_spacing, {}):
        raise ValueError(f"no NR channel of {config.bandwidth / 1e6:g} MHz at {config.subcarrier_spacing / 1e3:g} kHz")
    period = len(config.tdd_pattern)
    if set(config.tdd_pattern) - set("DSU") or (period and 2 * config.slots_per_frame % period):
        raise ValueError(f"TDD pattern {config.tdd_pattern!r} must be of D, S, U and repeat within 20 ms")
    if not 0 <= config.special_downlink_symbols <= SYMBOLS_PER_SLOT:
        raise ValueError(f"{config.special_downlink_symbols} downlink symbols in a special slot; 0 to 14 fit")


def _check_ssb(config: NRConfig) -> None:
    if SSB_CASE_SPACING.get(config.ssb_case) != config.subcarrier_spacing:
        raise ValueError(f"SSB case {config.ssb_case} does not go with {config.subcarrier_spacing:g} Hz")
    if len(config.ssb_beams) not in (4, 8) or len(config.ssb_powers) != len(config.ssb_beams):
        raise ValueError("ssb_beams and ssb_powers must both have 4 or both 8 entries")
    if config.ssb_period not in (5, 10, 20, 40, 80, 160) or config.ssb_half_frame not in (0, 1):
        raise ValueError(f"SSB every {config.ssb_period} ms in half frame {config.ssb_half_frame} is not NR")
    if not 0 <= config.ssb_subcarrier <= config.n_subcarriers - SSB_SUBCARRIERS:
        raise ValueError(
            f"an SSB at subcarrier {config.ssb_subcarrier} does not fit {config.n_subcarriers} subcarriers"
        )
    possible = ssb_downlink(config)
    if any(beam and not fits for beam, fits in zip(config.ssb_beams, possible, strict=True)):
        raise ValueError(f"SSBs {config.ssb_beams} do not all fall on downlink symbols; possible are {possible}")


def _check_channels(config: NRConfig) -> None:
    for part in (config.coreset, config.coreset0, *config.csi_rs):
        if part is not None and not 0 <= part.first_rb <= config.n_rb - part.n_rb:
            raise ValueError(f"{part} does not fit {config.n_rb} resource blocks")
    if config.load not in LOADS:
        raise ValueError(f"load is {config.load!r}; there are {', '.join(LOADS)}")
    if config.dmrs_type_a_position not in (2, 3) or config.dmrs_type_a_position < config.first_data_symbol:
        raise ValueError(f"DM-RS in symbol {config.dmrs_type_a_position} must follow the CORESET")
    if config.dmrs_additional not in (0, 1, 2) or config.dmrs_cdm_groups not in (1, 2):
        raise ValueError("dmrs_additional must be 0 to 2 and dmrs_cdm_groups 1 or 2")
    if config.sib1_period % 20 or (config.sib1_period and config.coreset0 is None):
        raise ValueError("SIB1 needs a CORESET 0 and a period that is a multiple of 20 ms")


# --- Sequences --------------------------------------------------------------------------------------------------------


def _m_sequence(start: tuple[int, ...], tap: int) -> NDArray[np.float32]:
    """Values ±1 of x(i + 7) = x(i + tap) + x(i) mod 2: (127,) float32."""
    x = list(start)
    while len(x) < 127:
        x.append((x[-7 + tap] + x[-7]) % 2)
    return np.float32(1) - 2 * np.array(x, np.float32)


_PSS = _m_sequence((0, 1, 1, 0, 1, 1, 1), tap=4)
_SSS_0 = _m_sequence((1, 0, 0, 0, 0, 0, 0), tap=4)
_SSS_1 = _m_sequence((1, 0, 0, 0, 0, 0, 0), tap=1)


def pss(cell_id: int) -> NDArray[np.float32]:
    """Primary synchronisation signal (TS 38.211 clause 7.4.2.2): (127,) float32, ±1."""
    return np.roll(_PSS, -43 * (cell_id % 3))


def sss(cell_id: int) -> NDArray[np.float32]:
    """Secondary synchronisation signal (TS 38.211 clause 7.4.2.3): (127,) float32, ±1."""
    n_id_1, n_id_2 = divmod(cell_id, 3)
    m0, m1 = 15 * (n_id_1 // 112) + 5 * n_id_2, n_id_1 % 112
    return np.roll(_SSS_0, -m0) * np.roll(_SSS_1, -m1)


def pbch_dmrs(cell_id: int, ssb_index: int, half_frame: int, n_candidates: int) -> NDArray[np.complex64]:
    """DM-RS of the PBCH (TS 38.211 clause 7.4.1.4.1): (144,) complex64.

    Parameters
    ----------
    cell_id : int
    ssb_index : int
        Candidate's number in the half frame.
    half_frame : int
        0 or 1; enters where there are 4 candidates alone.
    n_candidates : int
        L_max, 4 or 8.
    """
    index = ssb_index + 4 * half_frame if n_candidates == 4 else ssb_index
    c_init = ((index + 1) * (cell_id // 4 + 1) << 11) + (index + 1 << 6) + cell_id % 4
    return qpsk(gold_sequences(c_init, 288))


def _slot_dmrs(config: NRConfig, shift: int, symbols: NDArray[np.int64], n_values: int) -> NDArray[np.complex64]:
    """Reference symbols seeded by slot and symbol: (slot of a frame, symbol, n_values) complex64.

    c_init = (2**shift (14 n_slot + l + 1) (2 N_ID + 1) + a N_ID) mod 2**31, with shift 17 and a = 2 for PDSCH and PDCCH
    (TS 38.211 clauses 7.4.1.1.1, 7.4.1.3.1), shift 10 and a = 1 for CSI-RS (clause 7.4.1.5.2).
    """
    count = SYMBOLS_PER_SLOT * np.arange(config.slots_per_frame)[:, None] + symbols + 1
    own = config.cell_id if shift == 10 else 2 * config.cell_id
    return qpsk(gold_sequences(((count * (2 * config.cell_id + 1) << shift) + own) % (1 << 31), 2 * n_values))


# --- Where and when ---------------------------------------------------------------------------------------------------


@lru_cache
def pbch_dmrs_positions(cell_id: int) -> NDArray[np.bool_]:
    """Resource elements of PBCH DM-RS in an SSB (TS 38.211 table 7.4.3.1-1): (4, 240) bool."""
    return pbch_positions() & (np.arange(SSB_SUBCARRIERS) % 4 == cell_id % 4)


@lru_cache
def pbch_positions() -> NDArray[np.bool_]:
    """Resource elements of PBCH and its DM-RS in an SSB (TS 38.211 table 7.4.3.1-1): (4, 240) bool."""
    positions = np.zeros((SSB_SYMBOLS, SSB_SUBCARRIERS), bool)
    positions[[1, 3]] = True
    positions[2, :48] = positions[2, 192:] = True
    return positions


def downlink_symbols(config: NRConfig, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Downlink symbols at the start of each slot, counted from frame 0: (slot,) int64."""
    symbols = {"D": SYMBOLS_PER_SLOT, "S": config.special_downlink_symbols, "U": 0}
    pattern = np.array([symbols[kind] for kind in config.tdd_pattern or "D"])
    return pattern[slots % len(pattern)]


def _ssb_half_frames(config: NRConfig, first: int, last: int) -> Iterator[int]:
    """Half frames, counted from frame 0, that have an SSB burst and are not before first and before last."""
    period = config.ssb_period // 5
    return (half for half in range(first, last) if half % period == config.ssb_half_frame % period)


def ssb_downlink(config: NRConfig) -> tuple[bool, ...]:
    """Candidates whose symbols are downlink in every burst."""
    starts = np.array(SSB_CANDIDATES[config.ssb_case][: len(config.ssb_beams)])
    fits = np.ones(len(starts), bool)
    for half in _ssb_half_frames(config, 0, 32):
        slots = half * 5 * config.slots_per_subframe + starts // SYMBOLS_PER_SLOT
        fits &= starts % SYMBOLS_PER_SLOT + SSB_SYMBOLS <= downlink_symbols(config, slots)
    return tuple(fits.tolist())


def ssb_occasions(config: NRConfig, n_subframes: int, first_subframe: int = 0) -> list[tuple[int, int, int]]:
    """SSBs sent: (symbol from the start of ``first_subframe``, candidate's number, half frame 0 or 1), in order."""
    per_subframe = SYMBOLS_PER_SLOT * config.slots_per_subframe
    found = []
    for half in _ssb_half_frames(config, first_subframe // 5, (first_subframe + n_subframes) // 5 + 1):
        for index, start in enumerate(SSB_CANDIDATES[config.ssb_case][: len(config.ssb_beams)]):
            symbol = (5 * half - first_subframe) * per_subframe + start
            if config.ssb_beams[index] and 0 <= symbol < n_subframes * per_subframe:
                found.append((symbol, index, half % 2))
    return found


def pdsch_dmrs_symbols(type_a_position: int, end: int, additional: int) -> tuple[int, ...]:
    """DM-RS symbols of a PDSCH of mapping type A that ends before symbol ``end`` (TS 38.211 table 7.4.1.1.2-3)."""
    return (type_a_position, *_ADDITIONAL_DMRS[end][additional])


@lru_cache
def cce_regs(coreset: Coreset) -> NDArray[np.int64]:
    """REGs of every CCE, numbered symbol first (TS 38.211 clause 7.3.2.2): (CCE, 6) int64."""
    n_bundles = coreset.n_rb * coreset.n_symbols // coreset.bundle
    x = np.arange(n_bundles)
    if coreset.interleaver_rows:
        column, row = np.divmod(x, coreset.interleaver_rows)
        x = (row * (n_bundles // coreset.interleaver_rows) + column + coreset.shift) % n_bundles
    return (x[:, None] * coreset.bundle + np.arange(coreset.bundle)).reshape(-1, 6)


def _cyclic_prefixes(config: NRConfig, n_subframes: int) -> NDArray[np.int64]:
    """Cyclic prefix of every symbol in samples; longer at each half millisecond (TS 38.211 clause 5.3.1)."""
    half = np.full(7 * config.slots_per_subframe, 9 * config.n_fft // 128)
    half[0] += config.slots_per_subframe * config.n_fft // 128
    return np.tile(half, 2 * n_subframes)


# --- The grid ---------------------------------------------------------------------------------------------------------


class _Canvas:
    """The grid under construction, and what of it is taken.

    Attributes
    ----------
    values : (slot, 14, resource block, 12) complex64
    slots : (slot,) int64
        Numbers of the slots from frame 0.
    downlink : (slot,) int64
        Downlink symbols of each.
    data_free : (slot, resource block) bool
        Where PDSCH or CSI-RS may go.
    control_free : (slot, 3, resource block) bool
        Where PDCCH may go.
    """

    def __init__(self, config: NRConfig, n_subframes: int, first_subframe: int) -> None:
        n_slots = n_subframes * config.slots_per_subframe
        self.values = np.zeros((n_slots, SYMBOLS_PER_SLOT, config.n_rb, SUBCARRIERS_PER_RB), np.complex64)
        self.slots = first_subframe * config.slots_per_subframe + np.arange(n_slots)
        self.downlink = downlink_symbols(config, self.slots)
        self.data_free = np.ones((n_slots, config.n_rb), bool)
        self.control_free = np.ones((n_slots, 3, config.n_rb), bool)
        self.control_free &= np.arange(3)[:, None] < self.downlink[:, None, None]


def nr_downlink(config: NRConfig, rng: np.random.Generator, n_subframes: int, first_subframe: int = 0) -> ResourceGrid:
    """Downlink of one carrier.

    Parameters
    ----------
    config : NRConfig
    rng : numpy.random.Generator
        Draws payload and schedule.
    n_subframes : int
        Length in ms.
    first_subframe : int
        Its first millisecond, counted from a frame 0: sets the phase of everything periodic.

    Returns
    -------
    ResourceGrid
        Labelled ``NR``; a resource element of 0 dB has magnitude 1.
    """
    canvas = _Canvas(config, n_subframes, first_subframe)
    _put_ssb(canvas, config, rng, ssb_occasions(config, n_subframes, first_subframe))
    _put_sib1(canvas, config, rng)
    _put_traffic(canvas, config, rng)
    for csi_rs in config.csi_rs:
        _put_csi_rs(canvas, config, rng, csi_rs)
    return ResourceGrid(
        label="NR",
        values=canvas.values.reshape(-1, config.n_subcarriers),
        lowest_subcarrier=-config.n_subcarriers // 2,
        subcarrier_spacing=config.subcarrier_spacing,
        n_fft=config.n_fft,
        cp_lengths=_cyclic_prefixes(config, n_subframes),
    )


def ssb(config: NRConfig, rng: np.random.Generator, index: int, half_frame: int) -> NDArray[np.complex64]:
    """One SS/PBCH block of magnitude 1, with a random PBCH (TS 38.211 table 7.4.3.1-1): (4, 240) complex64."""
    block = np.zeros((SSB_SYMBOLS, SSB_SUBCARRIERS), np.complex64)
    block[0, 56:183] = pss(config.cell_id)
    block[2, 56:183] = sss(config.cell_id)
    pbch, dmrs = pbch_positions(), pbch_dmrs_positions(config.cell_id)
    block[pbch] = random_qam(rng, int(pbch.sum()))
    block[dmrs] = pbch_dmrs(config.cell_id, index, half_frame, len(config.ssb_beams))
    return block


def _put_ssb(
    canvas: _Canvas, config: NRConfig, rng: np.random.Generator, occasions: list[tuple[int, int, int]]
) -> None:
    symbols = canvas.values.reshape(-1, config.n_subcarriers)
    columns = slice(config.ssb_subcarrier, config.ssb_subcarrier + SSB_SUBCARRIERS)
    for start, index, half_frame in occasions:
        block = ssb(config, rng, index, half_frame)
        symbols[start : start + SSB_SYMBOLS, columns] = block * _amplitude(config.ssb_powers[index])
        slot, symbol = divmod(start, SYMBOLS_PER_SLOT)
        # PDSCH stays out of the SSB's resource blocks for the whole slot: its DM-RS may not meet an SSB
        # (TS 38.214 clause 5.1.4).
        canvas.data_free[slot, config.ssb_blocks] = False
        canvas.control_free[slot, symbol : symbol + SSB_SYMBOLS, config.ssb_blocks] = False


def _put_sib1(canvas: _Canvas, config: NRConfig, rng: np.random.Generator) -> None:
    """SIB1 for every SSB sent, in the slot that TS 38.213 clause 13 gives it, inside CORESET 0's band."""
    if config.sib1_period == 0 or config.coreset0 is None:
        return
    coreset = config.coreset0
    control = _Control(config, coreset, reference_rb=coreset.first_rb)
    data = _Data(config, first_rb=coreset.first_rb, n_rb=coreset.n_rb, additional=2, cdm_groups=2)
    size = int(rng.integers(6, coreset.n_rb + 1))
    for index in np.flatnonzero(config.ssb_beams):
        # Frames of even or odd number are one more frame of offset in a period of two frames.
        offset = (config.sib1_offset * config.slots_per_subframe + index) % (2 * config.slots_per_frame)
        due = canvas.slots % (config.sib1_period * config.slots_per_subframe) == offset
        for slot in np.flatnonzero(due & (canvas.downlink >= config.least_data_end)):
            free = canvas.data_free[slot, coreset.first_rb : coreset.first_rb + coreset.n_rb]
            blocks = coreset.first_rb + np.flatnonzero(free)[:size]
            if len(blocks) and control.put(canvas, int(slot), [4], config.ssb_powers[index], rng):
                data.put(canvas, int(slot), blocks, int(canvas.downlink[slot]), 2, config.ssb_powers[index], rng)
                canvas.data_free[slot, blocks] = False


def _put_traffic(canvas: _Canvas, config: NRConfig, rng: np.random.Generator) -> None:
    """PDSCH by the load, the PDCCHs that schedule it, and other PDCCHs."""
    if config.load == "idle" and config.pdcch_rate == 0:
        return
    control = _Control(config, config.coreset, reference_rb=0)
    data = _Data(config, 0, config.n_rb, config.dmrs_additional, config.dmrs_cdm_groups)
    busy = _busy_slots(config, rng, len(canvas.slots)) & (canvas.downlink >= config.least_data_end)
    for slot in np.flatnonzero(canvas.downlink > 0).tolist():
        users = _schedule(config, rng, canvas.data_free[slot]) if busy[slot] else []
        for blocks in users:
            bits, power = 2 * int(rng.integers(1, 5)), rng.uniform(-3.0, 3.0)
            data.put(canvas, slot, blocks, int(canvas.downlink[slot]), bits, power, rng)
        n_control = len(users) + int(rng.poisson(config.pdcch_rate))
        if n_control:
            levels = _LEVELS[rng.integers(len(_LEVELS), size=n_control)].tolist()
            control.put(canvas, slot, levels, rng.uniform(-1.0, 3.0), rng)


def _busy_slots(config: NRConfig, rng: np.random.Generator, n_slots: int) -> NDArray[np.bool_]:
    """Slots with data, as bursts and gaps of the load: (slot,) bool."""
    load = LOADS[config.load]
    if load.burst == 0:
        return np.zeros(n_slots, bool)
    in_burst = np.ones(n_slots, bool)
    if load.gap:
        cycle = np.array([load.burst, load.gap])
        n_cycles = 4 + int(3 * n_slots / config.slots_per_subframe / cycle.sum())
        # It begins somewhere within a burst or a gap, each as likely as its share of the time.
        lengths = rng.exponential(cycle, (n_cycles, 2)).ravel()
        first = int(rng.random() > load.burst / cycle.sum())
        edges = np.cumsum(lengths[first:]) * config.slots_per_subframe
        in_burst = (np.searchsorted(edges, np.arange(n_slots) + 0.5) + first) % 2 == 0
    return in_burst & (rng.random(n_slots) < load.slot_use)


def _schedule(config: NRConfig, rng: np.random.Generator, free: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Resource blocks of each user in one slot: (resource block,) int64 arrays, none empty."""
    load = LOADS[config.load]
    wanted = max(1, round(rng.uniform(*load.share) * config.n_rb))
    if config.contiguous:
        # Schedulers fill from the lower edge more often than not.
        first = int(rng.integers(config.n_rb - wanted + 1)) * int(rng.random() < 0.4)
        blocks = np.arange(first, first + wanted)
    else:
        size = next(size for most, size in _RBG_SIZE.items() if config.n_rb <= most)
        n_groups = -(-config.n_rb // size)
        groups = np.zeros(n_groups, bool)
        groups[rng.permutation(n_groups)[: -(-wanted // size)]] = True
        blocks = np.flatnonzero(np.repeat(groups, size)[: config.n_rb])
    blocks = blocks[free[blocks]]
    cuts = np.sort(rng.integers(0, len(blocks) + 1, int(rng.integers(load.users))))
    return [part for part in np.split(blocks, cuts) if len(part)]


class _Control:
    """Writes PDCCHs of one CORESET (TS 38.211 clauses 7.3.2 and 7.4.1.3)."""

    def __init__(self, config: NRConfig, coreset: Coreset, reference_rb: int) -> None:
        self.slots_per_frame = config.slots_per_frame
        n_rb = coreset.first_rb + coreset.n_rb - reference_rb
        dmrs = _slot_dmrs(config, 17, np.arange(coreset.n_symbols), 3 * n_rb)
        self.dmrs = dmrs.reshape(*dmrs.shape[:2], n_rb, 3)
        self.reference_rb = reference_rb
        regs = cce_regs(coreset)
        self.blocks = coreset.first_rb + regs // coreset.n_symbols  # (CCE, REG)
        self.symbols = regs % coreset.n_symbols  # (CCE, REG)

    def put(self, canvas: _Canvas, slot: int, levels: list[int], power: float, rng: np.random.Generator) -> bool:
        """PDCCHs of the aggregation levels given, where they still fit; False where none did."""
        free = canvas.control_free[slot, self.symbols, self.blocks].all(axis=1)  # (CCE,)
        used = np.zeros(len(free), bool)
        for level in levels:
            whole = free[: len(free) // level * level].reshape(-1, level).all(axis=1)
            starts = np.flatnonzero(whole)
            if len(starts):
                first = level * int(starts[rng.integers(len(starts))])
                used[first : first + level] = True
                free[first : first + level] = False
        if not used.any():
            return False
        symbols, blocks = self.symbols[used].ravel(), self.blocks[used].ravel()
        values = random_qam(rng, (len(symbols), SUBCARRIERS_PER_RB))  # (REG, subcarrier)
        dmrs = self.dmrs[canvas.slots[slot] % self.slots_per_frame]
        values[:, 1::4] = dmrs[symbols, blocks - self.reference_rb]
        canvas.values[slot, symbols, blocks] = values * _amplitude(power)
        canvas.control_free[slot, symbols, blocks] = False
        return True


class _Data:
    """Writes PDSCHs of mapping type A with one DM-RS port of type 1 (TS 38.211 clauses 7.3.1 and 7.4.1.1)."""

    def __init__(self, config: NRConfig, first_rb: int, n_rb: int, additional: int, cdm_groups: int) -> None:
        self.slots_per_frame = config.slots_per_frame
        self.first_rb = first_rb
        self.first_symbol = config.first_data_symbol
        self.type_a_position = config.dmrs_type_a_position
        self.additional = additional
        self.cdm_groups = cdm_groups
        self.dmrs: dict[int, NDArray[np.complex64]] = {}  # by symbol: (slot of a frame, resource block, 6)
        ends = {SYMBOLS_PER_SLOT, config.special_downlink_symbols if config.tdd_pattern else SYMBOLS_PER_SLOT}
        for end in ends:
            for symbol in self._dmrs_symbols(end) if end >= config.least_data_end else ():
                sequence = _slot_dmrs(config, 17, np.array([symbol]), 6 * n_rb)
                self.dmrs[symbol] = sequence.reshape(-1, n_rb, 6)

    def _dmrs_symbols(self, end: int) -> tuple[int, ...]:
        return pdsch_dmrs_symbols(self.type_a_position, end, self.additional)

    def put(
        self,
        canvas: _Canvas,
        slot: int,
        blocks: NDArray[np.int64],
        end: int,
        bits: int,
        power: float,
        rng: np.random.Generator,
    ) -> None:
        """A PDSCH up to symbol ``end`` of the slot in the resource blocks given."""
        n_symbols = end - self.first_symbol
        values = random_qam(rng, (n_symbols, len(blocks), SUBCARRIERS_PER_RB), bits)
        values *= _amplitude(power)
        frame_slot = canvas.slots[slot] % self.slots_per_frame
        # Without data between them, the DM-RS have that power too (TS 38.214 table 4.1-1).
        dmrs_amplitude = _amplitude(power + (3.0 if self.cdm_groups == 2 else 0.0))
        for symbol in self._dmrs_symbols(end):
            row = values[symbol - self.first_symbol]
            row[:, 0::2] = self.dmrs[symbol][frame_slot, blocks - self.first_rb] * dmrs_amplitude
            if self.cdm_groups == 2:
                row[:, 1::2] = 0
        consecutive = blocks[-1] - blocks[0] == len(blocks) - 1
        where = slice(blocks[0], blocks[-1] + 1) if consecutive else blocks
        canvas.values[slot][self.first_symbol : end, where] = values


def _put_csi_rs(canvas: _Canvas, config: NRConfig, rng: np.random.Generator, csi_rs: CsiRs) -> None:
    """CSI-RS over PDSCH, which is rate matched around it (TS 38.211 clause 7.4.1.5)."""
    offsets, indices, per_block = _CSI_RS_ROWS[csi_rs.row]
    n_blocks = csi_rs.first_rb + csi_rs.n_rb
    sequence = _slot_dmrs(config, 10, np.array(csi_rs.symbols), per_block * n_blocks)
    sequence = sequence.reshape(*sequence.shape[:2], n_blocks, per_block)[..., indices]
    # What reaches one receive antenna of several ports, each with a phase of its own, two to a CDM group.
    ports = np.exp(2j * np.pi * rng.random((2, 2)))
    mixed = (ports @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)).ravel() if csi_rs.row == 4 else np.ones(3)
    sequence = sequence * mixed.astype(np.complex64)
    due = (canvas.slots - csi_rs.offset) % csi_rs.period < csi_rs.n_slots
    subcarriers = csi_rs.k0 + np.array(offsets)
    for slot in np.flatnonzero(due & (canvas.downlink > max(csi_rs.symbols))):
        blocks = csi_rs.first_rb + np.flatnonzero(canvas.data_free[slot, csi_rs.first_rb : n_blocks])
        where = np.ix_(np.array(csi_rs.symbols), blocks, subcarriers)
        canvas.values[slot][where] = sequence[canvas.slots[slot] % config.slots_per_frame][:, blocks]


def _amplitude(power: float) -> np.float32:
    """Amplitude of a power in dB."""
    return np.float32(10 ** (power / 20))
