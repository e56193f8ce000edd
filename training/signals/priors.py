# SPDX-License-Identifier: Apache-2.0
"""Carriers as networks have them: how often which cell is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.signals.grid import SUBCARRIERS_PER_RB
from training.signals.lte import N_FFT, LTEConfig
from training.signals.nr import (
    CORESET0_TABLE,
    LOADS,
    N_RB,
    SSB_SUBCARRIERS,
    SYMBOLS_PER_SLOT,
    Coreset,
    CsiRs,
    NRConfig,
    downlink_symbols,
    ssb_downlink,
)

# (weight, subcarrier spacing, SSB case, TDD patterns, L_max). An empty pattern is FDD.
_DUPLEXES: tuple[tuple[float, float, str, tuple[str, ...], int], ...] = (
    (0.35, 15e3, "A", ("",), 4),
    (0.04, 15e3, "A", ("DDDSU", "DDSUU", "DSUUU"), 4),
    (0.06, 30e3, "B", ("",), 4),
    (0.05, 30e3, "C", ("",), 4),
    (0.50, 30e3, "C", ("DDDSU", "DDDSU", "DDDDDDDSUU", "DDSU", "DDDSUDDSUU", "DDDDDDDDSU"), 8),
)
# Weights of the channel bandwidths in MHz; 0.5 where not listed.
_BANDWIDTH_WEIGHTS: dict[float, dict[int, float]] = {
    15e3: {5: 1.0, 10: 3.0, 15: 2.0, 20: 3.0},
    30e3: {10: 1.0, 20: 3.0, 40: 2.0, 50: 1.5, 60: 1.5, 80: 2.0, 100: 4.0},
}
# Share of the cells, and range of their mean PDCCHs a slot besides those of PDSCH.
_LOAD_PRIOR: dict[str, tuple[float, tuple[float, float]]] = {
    "idle": (0.35, (0.0, 0.0)),
    "light": (0.22, (0.0, 0.4)),
    "medium": (0.13, (0.2, 1.0)),
    "bursty": (0.15, (0.1, 1.0)),
    "full": (0.15, (0.5, 4.0)),
}


def random_lte_config(rng: np.random.Generator) -> LTEConfig:
    """Draw a cell as one might meet it: idle, light, bursty or full; 65 % of them FDD."""
    duty_cycle, load = _random_traffic(rng)
    return LTEConfig(
        n_prb=int(rng.choice(list(N_FFT), p=[0.05, 0.07, 0.15, 0.25, 0.15, 0.33])),
        cell_id=int(rng.integers(504)),
        n_ports=int(rng.choice([1, 2, 4], p=[0.3, 0.5, 0.2])),
        duplex="FDD" if rng.random() < 0.65 else "TDD",
        uplink_downlink_config=int(rng.choice(7, p=[0.08, 0.25, 0.42, 0.07, 0.06, 0.07, 0.05])),
        special_subframe_config=int(rng.choice(10, p=[0.04, 0.04, 0.05, 0.04, 0.04, 0.2, 0.13, 0.36, 0.05, 0.05])),
        cfi=[None, 1, 2, 3][rng.choice(4, p=[0.4, 0.15, 0.2, 0.25])],
        phich_ng=float(rng.choice([1 / 6, 1 / 2, 1, 2])),
        load=load,
        duty_cycle=duty_cycle,
        mean_burst=float(np.exp(rng.uniform(0, np.log(40)))),
        contiguous=bool(rng.random() < 0.5),
        mean_users=float(rng.uniform(1, 4)),
        uplink_grants=float(rng.uniform(0, 2)),
        modulation_weights=tuple(rng.dirichlet([1, 1, 1, 0.5]).tolist()),
        rho_a_db=float(rng.uniform(-6, 3)),
        p_b=int(rng.integers(4)),
        system_information=bool(rng.random() < 0.9),
    )


def _random_traffic(rng: np.random.Generator) -> tuple[float, float]:
    """Duty cycle and load of an idle, light, bursty or full cell."""
    kind = rng.choice(["idle", "light", "bursty", "full"], p=[0.2, 0.25, 0.3, 0.25])
    if kind == "idle":
        return 1.0, 0.0
    if kind == "light":
        duty_cycle, share = rng.uniform(0.05, 1), rng.uniform(0.03, 0.3)
    elif kind == "bursty":
        duty_cycle, share = rng.uniform(0.1, 0.8), rng.uniform(0.3, 1)
    else:
        duty_cycle, share = 1.0, 1.0 if rng.random() < 0.6 else rng.uniform(0.7, 1)
    return float(duty_cycle), float(duty_cycle * share)


def random_nr_config(rng: np.random.Generator, max_bandwidth: float = 100e6) -> NRConfig:
    """A cell as networks have them: idle ones are common, FDD mostly has 15 kHz, TDD 30 kHz.

    Parameters
    ----------
    rng : numpy.random.Generator
    max_bandwidth : float
        Widest channel bandwidth, in Hz; at least 5 MHz.

    Raises
    ------
    ValueError
        Where no channel is that narrow.
    """
    return _with_csi_rs(_with_channels(_with_beams(_random_carrier(rng, max_bandwidth), rng), rng), rng)


def _random_carrier(rng: np.random.Generator, max_bandwidth: float) -> NRConfig:
    """A carrier with its place for SSBs, none of them sent yet."""
    widths = {
        spacing: [
            megahertz
            for megahertz, n_rb in table.items()
            if megahertz * 1e6 <= max_bandwidth and n_rb * SUBCARRIERS_PER_RB >= SSB_SUBCARRIERS
        ]
        for spacing, table in N_RB.items()
    }
    duplexes = [duplex for duplex in _DUPLEXES if widths[duplex[1]]]
    if not duplexes:
        raise ValueError(f"no NR channel is as narrow as {max_bandwidth / 1e6:g} MHz; allow 5 MHz or more")
    _, spacing, case, patterns, n_candidates = duplexes[_draw(rng, [duplex[0] for duplex in duplexes])]
    weights = [_BANDWIDTH_WEIGHTS[spacing].get(megahertz, 0.5) for megahertz in widths[spacing]]
    megahertz = widths[spacing][_draw(rng, weights)]
    room = N_RB[spacing][megahertz] * SUBCARRIERS_PER_RB - SSB_SUBCARRIERS
    # Every third SSB sits in the middle, the others anywhere, half of those on the data's resource blocks.
    ssb_subcarrier = room // 2 if rng.random() < 0.33 else int(rng.integers(room + 1))
    if rng.random() < 0.5:
        ssb_subcarrier -= ssb_subcarrier % SUBCARRIERS_PER_RB
    return NRConfig(
        cell_id=int(rng.integers(1008)),
        subcarrier_spacing=spacing,
        bandwidth=megahertz * 1e6,
        tdd_pattern=str(rng.choice(patterns)),
        special_downlink_symbols=int(rng.choice((3, 6, 10, 11, 12))),
        ssb_case=case,
        ssb_beams=(False,) * n_candidates,
        ssb_powers=(0.0,) * n_candidates,
        ssb_subcarrier=ssb_subcarrier,
    )


def _with_beams(config: NRConfig, rng: np.random.Generator) -> NRConfig:
    """SSBs of one to all beams, one of them strong."""
    changed = replace(
        config,
        ssb_period=(5, 10, 20, 40)[_draw(rng, (0.04, 0.08, 0.8, 0.08))],
        ssb_half_frame=int(rng.random() < 0.15),
    )
    # The first half frame starts with downlink in every pattern here, the second one need not.
    config = changed if any(ssb_downlink(changed)) else config
    possible = np.flatnonzero(ssb_downlink(config))
    count = min((1, 2, 4, 8)[_draw(rng, (0.4, 0.1, 0.2, 0.3))], len(possible))
    sent = rng.permutation(possible)[:count] if rng.random() < 0.2 else possible[:count]
    powers = rng.uniform(-15.0, 3.0, len(config.ssb_beams))
    powers[rng.choice(sent)] = rng.uniform(0.0, 4.0)
    return replace(
        config,
        ssb_beams=tuple(bool(index in sent) for index in range(len(powers))),
        ssb_powers=tuple(powers.tolist()),
    )


def _with_channels(config: NRConfig, rng: np.random.Generator) -> NRConfig:
    """PDCCH, PDSCH and SIB1."""
    load = str(rng.choice(list(LOADS), p=[_LOAD_PRIOR[name][0] for name in LOADS]))
    coreset = _random_coreset(rng, config.n_rb)
    sib1_period = 0 if rng.random() < (0.7 if load == "idle" else 0.2) else (20, 40, 80, 160)[int(rng.integers(4))]
    coreset0 = _random_coreset0(rng, config) if sib1_period else None
    longest = max(coreset.n_symbols, coreset0.n_symbols if coreset0 else 0)
    return replace(
        config,
        coreset=coreset,
        coreset0=coreset0,
        sib1_period=sib1_period if coreset0 else 0,
        sib1_offset=int(rng.choice((0, 2, 5, 7))),
        load=load,
        pdcch_rate=float(rng.uniform(*_LOAD_PRIOR[load][1])),
        contiguous=bool(rng.random() < 0.6),
        dmrs_type_a_position=3 if longest == 3 or rng.random() < 0.1 else 2,
        dmrs_additional=int(rng.integers(3)),
        dmrs_cdm_groups=int(rng.integers(1, 3)),
    )


def _random_coreset(rng: np.random.Generator, n_rb: int) -> Coreset:
    widest = n_rb // 6
    n_groups = widest if rng.random() < 0.6 else int(rng.integers(min(4, widest), widest + 1))
    n_symbols = 1 + _draw(rng, (0.5, 0.35, 0.15))
    first = 6 * int(rng.integers(widest - n_groups + 1))
    rows = [rows for rows in (2, 3, 6) if n_groups * n_symbols % rows == 0]
    interleaver_rows = int(rng.choice(rows)) if rows and rng.random() < 0.5 else 0
    return Coreset(first, 6 * n_groups, n_symbols, 6, interleaver_rows, int(rng.integers(275)))


def _random_coreset0(rng: np.random.Generator, config: NRConfig) -> Coreset | None:
    """A CORESET 0 of the table that fits the carrier; None where none does."""
    ssb_block = config.ssb_subcarrier // SUBCARRIERS_PER_RB
    fitting = [
        (ssb_block - offset, n_rb, n_symbols)
        for n_rb, n_symbols, offset in CORESET0_TABLE[config.subcarrier_spacing]
        if 0 <= ssb_block - offset <= config.n_rb - n_rb
    ]
    if not fitting:
        return None
    # Its interleaver is fixed (TS 38.211 clause 7.3.2.2).
    return Coreset(*fitting[int(rng.integers(len(fitting)))], bundle=6, interleaver_rows=2, shift=config.cell_id)


def _with_csi_rs(config: NRConfig, rng: np.random.Generator) -> NRConfig:
    """TRS on most cells, and a CSI-RS of four ports on those with users."""
    per_ms = config.slots_per_subframe
    # Special slots are left out: there the DM-RS would be in the way.
    downlink = downlink_symbols(config, np.arange(2 * config.slots_per_frame)) == SYMBOLS_PER_SLOT
    found = []
    if rng.random() < (0.4 if config.load == "idle" else 0.75):
        period = (10, 20, 40, 80)[_draw(rng, (0.15, 0.4, 0.3, 0.15))] * per_ms
        starts = np.flatnonzero(downlink[:-1] & downlink[1:])
        starts = starts[starts <= period - 2]
        width = config.n_rb if rng.random() < 0.5 else min(52, config.n_rb // 4 * 4)
        first_rb = 4 * int(rng.integers((config.n_rb - width) // 4 + 1))
        symbol, k0 = int(rng.integers(4, 7)), int(rng.integers(4))
        for start in rng.permutation(starts)[: min(1 + int(rng.integers(2)), len(starts))].tolist():
            found.append(CsiRs(1, period, start, 2, (symbol, symbol + 4), k0, first_rb, width))
    if rng.random() < (0.1 if config.load == "idle" else 0.5):
        period = int(rng.choice((20, 40, 80))) * per_ms
        start = int(rng.choice(np.flatnonzero(downlink)))
        symbols = ((13,), (12, 13), (5,))[int(rng.integers(3))]
        found.append(CsiRs(4, period, start, 1, symbols, 4 * int(rng.integers(3)), 0, config.n_rb))
    return replace(config, csi_rs=tuple(found))


def _draw(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Index of one of several choices, by weight."""
    return int(rng.choice(len(weights), p=np.array(weights) / np.sum(weights)))
