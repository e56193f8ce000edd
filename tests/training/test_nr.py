# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from training.signals.grid import ResourceGrid, modulate
from training.signals.nr import (
    CORESET0_TABLE,
    LOADS,
    N_RB,
    SSB_CANDIDATES,
    Coreset,
    CsiRs,
    NRConfig,
    cce_regs,
    downlink_symbols,
    nr_downlink,
    pbch_dmrs,
    pbch_dmrs_positions,
    pbch_positions,
    pdsch_dmrs_symbols,
    pss,
    ssb,
    ssb_occasions,
    sss,
)
from training.signals.priors import random_nr_config
from training.signals.sequences import gold_sequences, qpsk

TDD = NRConfig(
    cell_id=123,
    subcarrier_spacing=30e3,
    bandwidth=20e6,
    tdd_pattern="DDDSU",
    ssb_case="C",
    ssb_beams=(True,) * 4 + (False,) * 4,
    ssb_powers=(0.0,) * 8,
    coreset=Coreset(first_rb=0, n_rb=48, n_symbols=2),
)
TRS = CsiRs(row=1, period=40, offset=21, n_slots=2, symbols=(4, 8), k0=1, first_rb=0, n_rb=48)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_slot(grid: ResourceGrid) -> NDArray[np.complex64]:
    """(slot, 14, resource block, 12)."""
    return grid.values.reshape(-1, 14, grid.values.shape[1] // 12, 12)


def coherence(reference: NDArray, received: NDArray) -> float:
    """Squared correlation coefficient: 1 where one is a multiple of the other."""
    energy = np.vdot(reference, reference).real * np.vdot(received, received).real
    return float(abs(np.vdot(reference, received)) ** 2 / max(energy, 1e-30))


# Sequences ------------------------------------------------------------------------------------------------------------


def test_synchronisation_sequences_follow_the_recurrences() -> None:
    x, x0, x1 = [0, 1, 1, 0, 1, 1, 1], [1] + [0] * 6, [1] + [0] * 6
    for i in range(120):
        x.append((x[i + 4] + x[i]) % 2)
        x0.append((x0[i + 4] + x0[i]) % 2)
        x1.append((x1[i + 1] + x1[i]) % 2)
    for cell_id in (0, 1, 2, 500, 1007):
        n_id_1, n_id_2 = cell_id // 3, cell_id % 3
        m0, m1 = 15 * (n_id_1 // 112) + 5 * n_id_2, n_id_1 % 112
        assert pss(cell_id).tolist() == [1 - 2 * x[(n + 43 * n_id_2) % 127] for n in range(127)]
        assert sss(cell_id).tolist() == [
            (1 - 2 * x0[(n + m0) % 127]) * (1 - 2 * x1[(n + m1) % 127]) for n in range(127)
        ]


def test_every_cell_has_an_sss_of_its_own() -> None:
    all_sss = np.array([sss(cell_id) for cell_id in range(1008)])
    correlation = all_sss @ all_sss.T - 127 * np.eye(1008)
    assert np.abs(correlation).max() < 0.4 * 127


def test_pbch_dmrs_seed_has_index_and_half_frame() -> None:
    # c_init = 2**11 (i + 1) (floor(N_ID / 4) + 1) + 2**6 (i + 1) + N_ID mod 4; i = i_SSB + 4 n_hf where L_max is 4.
    expected = qpsk(gold_sequences(2**11 * 7 * 126 + 2**6 * 7 + 1, 288))
    assert (pbch_dmrs(501, 2, 1, 4) == expected).all()
    assert (pbch_dmrs(501, 6, 0, 8) == expected).all()
    assert (pbch_dmrs(501, 6, 1, 8) == expected).all()


# SSB ------------------------------------------------------------------------------------------------------------------


def test_ssb_has_the_resource_elements_of_the_table() -> None:
    for cell_id in range(4):
        dmrs = pbch_dmrs_positions(cell_id)
        assert dmrs.sum(axis=1).tolist() == [0, 60, 24, 60]
        assert (pbch_positions() & ~dmrs).sum() == 432
        assert np.flatnonzero(dmrs[2]).tolist() == [*range(cell_id, 48, 4), *range(192 + cell_id, 240, 4)]
    block = ssb(replace(TDD, cell_id=7), rng(), 1, 0)
    np.testing.assert_allclose(np.abs(block[block != 0]), 1, rtol=1e-5)
    occupied = [np.flatnonzero(row).tolist() for row in block]
    assert occupied[0] == list(range(56, 183))
    assert occupied[1] == occupied[3] == list(range(240))
    assert occupied[2] == [*range(48), *range(56, 183), *range(192, 240)]
    assert (block[0, 56:183] == pss(7)).all()
    assert (block[2, 56:183] == sss(7)).all()
    assert (block[pbch_dmrs_positions(7)] == pbch_dmrs(7, 1, 0, 8)).all()


# TS 38.213 clause 4.1, as it is written there.
CANDIDATES = {
    ("A", 4): sorted(first + 14 * n for first in (2, 8) for n in (0, 1)),
    ("A", 8): sorted(first + 14 * n for first in (2, 8) for n in (0, 1, 2, 3)),
    ("B", 4): [4, 8, 16, 20],
    ("B", 8): sorted(first + 28 * n for first in (4, 8, 16, 20) for n in (0, 1)),
    ("C", 4): sorted(first + 14 * n for first in (2, 8) for n in (0, 1)),
    ("C", 8): sorted(first + 14 * n for first in (2, 8) for n in (0, 1, 2, 3)),
}


@pytest.mark.parametrize(("case", "count"), list(CANDIDATES))
@pytest.mark.parametrize("half_frame", [0, 1])
def test_an_idle_cell_sends_its_ssbs_in_the_candidate_symbols_and_nothing_else(
    case: str, count: int, half_frame: int
) -> None:
    spacing = 15e3 if case == "A" else 30e3
    config = NRConfig(
        cell_id=42,
        subcarrier_spacing=spacing,
        bandwidth=20e6,
        ssb_case=case,
        ssb_beams=(True,) * count,
        ssb_powers=(0.0,) * count,
        ssb_half_frame=half_frame,
        ssb_subcarrier=77,
    )
    grid = nr_downlink(config, rng(), 40)
    half = 5 * 14 * config.slots_per_subframe
    starts = [(frame + half_frame) * half + start for frame in (0, 4) for start in CANDIDATES[case, count]]
    rows = np.flatnonzero(grid.values.any(axis=1))
    assert rows.tolist() == [start + symbol for start in starts for symbol in range(4)]
    assert np.flatnonzero(grid.values.any(axis=0)).tolist() == list(range(77, 77 + 240))
    for number, start in enumerate(starts):
        block = grid.values[start : start + 4, 77 : 77 + 240]
        expected = pbch_dmrs(42, number % count, half_frame, count)
        np.testing.assert_array_equal(block[pbch_dmrs_positions(42)], expected)


@pytest.mark.parametrize("period", [5, 10, 20, 40])
def test_ssb_period_counts_from_frame_0(period: int) -> None:
    config = replace(TDD, ssb_period=period, ssb_beams=(True,) + (False,) * 7)
    per_ms = 28
    expected = [(ms * per_ms + 2, 0, ms // 5 % 2) for ms in range(0, 120, period)]
    assert ssb_occasions(config, 120) == expected
    later = [(symbol - 33 * per_ms, index, half) for symbol, index, half in expected if symbol >= 33 * per_ms]
    assert ssb_occasions(config, 120 - 33, first_subframe=33) == later


def test_ssb_powers_are_those_of_the_beams() -> None:
    config = replace(TDD, ssb_powers=(3.0, 0.0, -10.0, -20.0, 0.0, 0.0, 0.0, 0.0))
    grid = nr_downlink(config, rng(), 5)
    powers = [10 * np.log10(np.abs(grid.values[start, 192 + 56]) ** 2) for start in SSB_CANDIDATES["C"][:4]]
    np.testing.assert_allclose(powers, config.ssb_powers[:4], atol=1e-4)


# Numerology -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "megahertz"), [(s, m) for s in N_RB for m in N_RB[s] if (s, m) != (30e3, 5)])
def test_every_half_millisecond_is_exact_at_the_native_rate(spacing: float, megahertz: int) -> None:
    config = NRConfig(
        subcarrier_spacing=spacing,
        bandwidth=megahertz * 1e6,
        ssb_case="A" if spacing == 15e3 else "C",
        ssb_subcarrier=0,
    )
    grid = nr_downlink(config, rng(), 3)
    assert grid.sample_rate >= 1.1 * grid.bandwidth
    assert grid.n_fft & (grid.n_fft - 1) == 0 or grid.n_fft % 3 == 0
    per_half = 7 * config.slots_per_subframe
    np.testing.assert_array_equal(np.diff(grid.symbol_start[::per_half]) * 2000, grid.sample_rate)
    # TS 38.211 clause 5.3.1 in units of T_c, which is 1 / (480e3 · 4096) s.
    ticks = 480e3 * 4096 / grid.sample_rate
    kappa, mu = 64, config.slots_per_subframe.bit_length() - 1
    prefixes = [144 * kappa / 2**mu + 16 * kappa * (symbol % per_half == 0) for symbol in range(len(grid.cp_lengths))]
    np.testing.assert_array_equal(grid.cp_lengths * ticks, prefixes)
    assert grid.lowest_subcarrier * 2 == -grid.values.shape[1]


def test_widest_carriers_have_the_usual_rates() -> None:
    assert replace(TDD, bandwidth=100e6).n_fft == 4096
    assert replace(TDD, bandwidth=40e6).n_fft == 1536
    assert NRConfig().n_fft == 768


# Control and data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 2, 3, 6])
@pytest.mark.parametrize(("n_symbols", "bundle"), [(1, 2), (1, 6), (2, 2), (2, 6), (3, 3), (3, 6)])
def test_cces_share_out_all_regs(rows: int, n_symbols: int, bundle: int) -> None:
    coreset = Coreset(6, 36, n_symbols, bundle, rows, shift=500)
    assert sorted(cce_regs(coreset).ravel().tolist()) == list(range(36 * n_symbols))


def test_uplink_is_empty_and_downlink_full() -> None:
    config = replace(TDD, load="full", special_downlink_symbols=6, pdcch_rate=1.0, csi_rs=(TRS,))
    slots = by_slot(nr_downlink(config, rng(), 20))
    used = slots.any(axis=(2, 3))  # (slot, symbol)
    for slot, kind in enumerate("DDDSU" * 8):
        length = {"D": 14, "S": 6, "U": 0}[kind]
        assert used[slot, 2:length].all()
        assert not used[slot, length:].any()
    assert (slots[11, 3:7] != 0).all()  # no SSB, DM-RS or TRS there


def test_pdsch_leaves_the_ssb_alone() -> None:
    quiet = by_slot(nr_downlink(TDD, rng(), 5))
    full = by_slot(nr_downlink(replace(TDD, load="full"), rng(), 5))
    sent = quiet != 0
    blocks = TDD.ssb_blocks
    assert (full[:2, 2:, blocks] != 0).sum() == sent[:2].sum()
    assert (full[sent] != 0).all()
    assert (full[:2, 3:, : blocks.start] != 0).any(axis=(1, 3)).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("additional", [0, 1, 2])
def test_pdsch_dmrs_are_in_their_places(groups: int, additional: int) -> None:
    config = replace(TDD, load="full", dmrs_cdm_groups=groups, dmrs_additional=additional)
    slots = by_slot(nr_downlink(config, rng(), 10))
    dmrs_symbols = {0: (2,), 1: (2, 11), 2: (2, 7, 11)}[additional]
    slot = 11  # of the second half frame: no SSB
    for symbol in range(2, 14):
        row = slots[slot, symbol].ravel()
        c_init = (2**17 * (14 * slot + symbol + 1) * (2 * 123 + 1) + 2 * 123) % 2**31
        reference = qpsk(gold_sequences(c_init, 12 * 51)).reshape(51, 6)
        matches = [coherence(reference[block], slots[slot, symbol, block, 0::2]) for block in range(51)]
        if symbol in dmrs_symbols:
            np.testing.assert_allclose(matches, 1, atol=1e-5)
            assert (row[1::2] != 0).any() == (groups == 1)
        else:
            assert np.mean(matches) < 0.5
            assert (row != 0).all()
    # Data and DM-RS have the same mean power in a symbol, to within what the draw of the constellation varies.
    power = (np.abs(slots[slot, 2:]) ** 2).mean(axis=(1, 2))
    assert power.max() / power.min() < 1.5


@pytest.mark.parametrize("end", range(3, 15))
@pytest.mark.parametrize("additional", [0, 1, 2])
def test_dmrs_symbols_ascend_and_end_before_the_pdsch(end: int, additional: int) -> None:
    symbols = pdsch_dmrs_symbols(2, end, additional)
    assert symbols[0] == 2
    assert symbols[-1] < end
    assert all(later - earlier >= 2 for earlier, later in pairwise(symbols))


def test_pdcch_fills_whole_regs_with_dmrs_in_them() -> None:
    config = replace(TDD, pdcch_rate=2.0)
    slots = by_slot(nr_downlink(config, rng(), 10))
    n_regs = 0
    for slot, symbol, block in np.argwhere(slots[:, :2].any(axis=3)):
        reg = slots[slot, symbol, block]
        assert (reg != 0).all()
        c_init = (2**17 * (14 * slot + symbol + 1) * (2 * 123 + 1) + 2 * 123) % 2**31
        reference = qpsk(gold_sequences(int(c_init), 6 * 51))[3 * block : 3 * block + 3]
        assert coherence(reference, reg[1::4]) == pytest.approx(1, abs=1e-5)
        n_regs += 1
    assert n_regs > 0
    assert n_regs % 6 == 0


def test_pdcch_never_lands_on_an_ssb() -> None:
    # Three symbols and SSBs from symbol 2 on: the CCEs below the SSB are blocked.
    config = replace(TDD, coreset=Coreset(0, 48, 3), dmrs_type_a_position=3)
    quiet = nr_downlink(config, rng(), 5)
    busy = nr_downlink(replace(config, pdcch_rate=20.0), rng(), 5)
    known = np.zeros((4, 240), bool)
    known[[0, 2], 56:183] = True
    known |= pbch_dmrs_positions(123)
    for start, _, _ in ssb_occasions(config, 5):
        where = (slice(start, start + 4), slice(192, 192 + 240))
        np.testing.assert_array_equal(busy.values[where][known], quiet.values[where][known])
        assert not busy.values[where][0, :56].any()


def test_trs_is_the_only_thing_beside_the_ssb() -> None:
    grid = nr_downlink(replace(TDD, csi_rs=(TRS,)), rng(), 40)
    without = nr_downlink(TDD, rng(), 40)
    extra = by_slot(grid) * (by_slot(without) == 0)
    slots, symbols, blocks, subcarriers = np.nonzero(extra)
    assert sorted(set(slots.tolist())) == [21, 22, 61, 62]
    assert sorted(set(symbols.tolist())) == [4, 8]
    assert sorted(set(subcarriers.tolist())) == [1, 5, 9]
    assert len(slots) == 4 * 2 * 48 * 3
    assert blocks.max() == 47
    c_init = (2**10 * (14 * 2 + 8 + 1) * (2 * 123 + 1) + 123) % 2**31  # slot 22 is slot 2 of its frame
    np.testing.assert_allclose(extra[22, 8, :48, 1::4].ravel(), qpsk(gold_sequences(c_init, 6 * 48)), rtol=1e-5)


def test_csi_rs_of_four_ports_takes_four_subcarriers_and_keeps_its_power() -> None:
    csi_rs = CsiRs(row=4, period=40, offset=22, n_slots=1, symbols=(13,), k0=8, first_rb=0, n_rb=51)
    slots = by_slot(nr_downlink(replace(TDD, csi_rs=(csi_rs,)), rng(), 20))
    assert (slots[22, 13, :, 8:] != 0).all()
    assert not slots[22, 13, :, :8].any()
    assert not slots[22, :13].any()
    # Two unit ports on each CDM pair: their sum over the pair is 2, whatever their phases.
    assert np.mean(np.abs(slots[22, 13, :, 8:]) ** 2) == pytest.approx(1, rel=1e-4)


def test_sib1_comes_in_the_slot_of_its_beam_within_coreset_0() -> None:
    coreset0 = Coreset(first_rb=15, n_rb=24, n_symbols=2, interleaver_rows=2, shift=123)
    config = replace(TDD, coreset0=coreset0, sib1_period=40, sib1_offset=5)
    slots = by_slot(nr_downlink(config, rng(), 80))
    active = slots.any(axis=(1, 2, 3))
    ssb_slots = [0, 1, 40, 41, 80, 81, 120, 121]
    # n_0 = (O 2**mu + i) mod 20 = 10 + i for beams 0 to 3; slot 14 of the pattern is uplink, 13 special.
    sib1_slots = [base + 10 + index for base in (0, 80) for index in range(4)]
    assert np.flatnonzero(active).tolist() == sorted(ssb_slots + sib1_slots)
    used_blocks = np.flatnonzero(slots[sib1_slots].any(axis=(0, 1, 3)))
    assert used_blocks.min() == 15
    assert used_blocks.max() < 15 + 24
    # The sequences count from CORESET 0's first resource block, not from the carrier's.
    c_init = (2**17 * (14 * 10 + 7 + 1) * (2 * 123 + 1) + 2 * 123) % 2**31
    reference = qpsk(gold_sequences(c_init, 12 * 6))
    assert coherence(reference, slots[10, 7, 15:21, 0::2].ravel()) == pytest.approx(1, abs=1e-5)


def test_loads_are_ordered() -> None:
    shares = {
        load: np.mean([np.mean(nr_downlink(replace(TDD, load=load), rng(seed), 40).values != 0) for seed in range(6)])
        for load in LOADS
    }
    assert shares["idle"] < shares["light"] < shares["medium"] < shares["bursty"] < shares["full"]
    assert shares["idle"] < 0.02
    assert shares["full"] > 0.5


@pytest.mark.parametrize("contiguous", [True, False])
def test_allocation_types_differ_in_their_gaps(contiguous: bool) -> None:
    config = replace(TDD, load="medium", contiguous=contiguous, ssb_beams=(False,) * 8)
    # PDCCH does not count: only the data's symbols do.
    used = by_slot(nr_downlink(config, rng(), 40))[:, 3:].any(axis=(1, 3))
    starts = (np.diff(np.pad(used.astype(int), ((0, 0), (1, 0))), axis=1) == 1).sum(axis=1)
    assert (starts.max() == 1) == contiguous


def test_modulated_grid_comes_back_at_its_symbols() -> None:
    grid = nr_downlink(replace(TDD, load="full"), rng(), 5)
    received = demodulate(modulate(grid), grid, grid.n_fft)
    np.testing.assert_allclose(received, grid.values, atol=1e-4)


# Configurations -------------------------------------------------------------------------------------------------------


def test_the_seed_determines_the_scene() -> None:
    def scene(seed: int) -> tuple[NRConfig, NDArray[np.complex64]]:
        generator = rng(seed)
        config = random_nr_config(generator)
        return config, nr_downlink(config, generator, 10).values

    first, again, other = scene(5), scene(5), scene(6)
    assert first[0] == again[0]
    assert (first[1] == again[1]).all()
    assert first[0] != other[0]


@pytest.mark.parametrize("max_bandwidth", [5e6, 10e6, 18e6, 100e6])
def test_random_cells_are_valid_and_send_something(max_bandwidth: float) -> None:
    generator = rng(int(max_bandwidth))
    for _ in range(40):
        config = random_nr_config(generator, max_bandwidth)
        assert config.bandwidth <= max_bandwidth
        first = int(generator.integers(0, 100))
        grid = nr_downlink(config, generator, 40, first)
        assert grid.label == "NR"
        assert grid.values.dtype == np.complex64
        assert grid.values.shape == (40 * 14 * config.slots_per_subframe, config.n_subcarriers)
        assert np.isfinite(grid.values).all()
        slots = by_slot(grid)
        assert slots.any()
        length = downlink_symbols(config, first * config.slots_per_subframe + np.arange(len(slots)))
        assert not slots.any(axis=(2, 3))[np.arange(14) >= length[:, None]].any()


def test_prior_has_every_kind_of_cell() -> None:
    generator = rng()
    cells = [random_nr_config(generator) for _ in range(300)]
    assert {cell.load for cell in cells} == set(LOADS)
    assert {cell.ssb_case for cell in cells} == {"A", "B", "C"}
    only_ssb = sum(cell.load == "idle" and not cell.sib1_period for cell in cells)
    assert 0.1 < only_ssb / len(cells) < 0.4
    assert 0.35 < np.mean([bool(cell.tdd_pattern) for cell in cells]) < 0.75
    tdd_at_30 = np.mean([cell.subcarrier_spacing == 30e3 for cell in cells if cell.tdd_pattern])
    fdd_at_15 = np.mean([cell.subcarrier_spacing == 15e3 for cell in cells if not cell.tdd_pattern])
    assert tdd_at_30 > 0.8
    assert fdd_at_15 > 0.6
    assert max(cell.bandwidth for cell in cells) == 100e6
    for cell in cells:
        if cell.coreset0:
            offset = cell.ssb_subcarrier // 12 - cell.coreset0.first_rb
            row = (cell.coreset0.n_rb, cell.coreset0.n_symbols, offset)
            assert row in CORESET0_TABLE[cell.subcarrier_spacing]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell_id": 1008}, "0 to 1007"),
        ({"bandwidth": 7e6}, "no NR channel of 7 MHz"),
        ({"subcarrier_spacing": 60e3}, "no NR channel"),
        ({"tdd_pattern": "DDX"}, "TDD pattern"),
        ({"tdd_pattern": "DDDDDDU"}, "repeat within 20 ms"),
        ({"special_downlink_symbols": 15}, "0 to 14"),
        ({"ssb_case": "A"}, "does not go with"),
        ({"ssb_beams": (True,)}, "4 or both 8"),
        ({"ssb_period": 15}, "every 15 ms"),
        ({"ssb_subcarrier": 400}, "does not fit"),
        ({"ssb_beams": (True,) * 8, "special_downlink_symbols": 3}, "downlink symbols"),
        ({"coreset": Coreset(6, 48, 1)}, "does not fit 51"),
        ({"load": "busy"}, "there are idle"),
        ({"coreset": Coreset(0, 48, 3)}, "must follow the CORESET"),
        ({"dmrs_additional": 3}, "0 to 2"),
        ({"sib1_period": 20}, "needs a CORESET 0"),
    ],
)
def test_what_is_not_nr_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TDD, **change)


def test_coresets_and_csi_rs_that_are_not_nr_are_refused() -> None:
    with pytest.raises(ValueError, match="6, 12"):
        Coreset(0, 20, 1)
    with pytest.raises(ValueError, match="bundles"):
        Coreset(0, 24, 2, bundle=3)
    with pytest.raises(ValueError, match="interleaver"):
        Coreset(0, 24, 1, interleaver_rows=3)
    with pytest.raises(ValueError, match="inside a resource block"):
        replace(TRS, k0=4)
    with pytest.raises(ValueError, match="lie in their period"):
        replace(TRS, offset=39)
    with pytest.raises(ValueError, match="as narrow as 4 MHz"):
        random_nr_config(rng(), 4e6)


# Recordings of other people's transmitters: the sequences and their places are those that are on the air. -------------


def demodulate(iq: NDArray[np.complex64], grid: ResourceGrid, n_fft: int) -> NDArray[np.complex64]:
    """Resource elements of samples that start with the grid's first symbol: (symbol, subcarrier)."""
    scale = n_fft // 128
    starts = grid.symbol_start * 128 // grid.n_fft * scale
    bodies = starts[:-1] + grid.cp_lengths * 128 // grid.n_fft * scale
    rows = np.stack([iq[start : start + n_fft] for start in bodies if start + n_fft <= len(iq)])
    columns = grid.lowest_subcarrier + np.arange(grid.values.shape[1])
    return scipy.fft.fft(rows, axis=1)[:, columns % n_fft] / np.float32(n_fft)


def read(folder: Path, name: str) -> NDArray[np.complex64]:
    path = folder / f"{name}.sigmf-data"
    if not path.is_file():
        pytest.skip(f"recording {name} is not in {folder}")
    return np.fromfile(path, np.complex64)


def assert_ssb_is_ours(received: NDArray, cell_id: int, index: int, n_candidates: int, lowest: float) -> None:
    """PSS, SSS and PBCH DM-RS of the cell are in (4, 240) elements received, and those of no other cell are."""
    by_pss = np.array([coherence(pss(n_id_2), received[0, 56:183]) for n_id_2 in range(3)])
    assert by_pss.argmax() == cell_id % 3
    assert np.sort(by_pss)[-1] > lowest > 0.2 > np.sort(by_pss)[-2]
    by_sss = np.array([coherence(sss(other), received[2, 56:183]) for other in range(1008)])
    assert by_sss.argmax() == cell_id
    assert np.sort(by_sss)[-1] > lowest > 0.2 > np.sort(by_sss)[-2]
    assert np.abs(received[0, :50]).max() < 0.1 * np.abs(received[0, 56:183]).mean()
    first = 0
    for symbol in (1, 2, 3):
        places = np.flatnonzero(pbch_dmrs_positions(cell_id)[symbol])
        part = slice(first, first + len(places))
        first += len(places)
        scores = {
            (other, number): coherence(pbch_dmrs(other, number, 0, n_candidates)[part], received[symbol, places])
            for other in (cell_id, cell_id + 4, (cell_id + 336) % 1008)
            for number in range(n_candidates)
        }
        assert scores.pop((cell_id, index)) > lowest
        assert max(scores.values()) < 0.35


@pytest.mark.parametrize(
    ("name", "config", "n_fft"),
    [
        (
            "nr_fdd_15k_52prb_10M",
            NRConfig(cell_id=402, ssb_beams=(False, False, True, False), ssb_subcarrier=312 - 30 - 120),
            1024,
        ),
        (
            "nr_tdd_30k_51prb_20M",
            replace(TDD, ssb_beams=(False, True) + (False,) * 6, ssb_subcarrier=306 + 36 - 120, tdd_pattern=""),
            1024,
        ),
    ],
)
def test_srsran_grids_hold_our_ssb_pdcch_and_pdsch(real_iq: Path, name: str, config: NRConfig, n_fft: int) -> None:
    no_ssb = (False,) * len(config.ssb_beams)
    ours = nr_downlink(replace(config, load="full", dmrs_additional=2, ssb_beams=no_ssb), rng(), 40)
    theirs = demodulate(read(real_iq, name), ours, n_fft)
    assert len(theirs) == len(ours.values)
    occasions = ssb_occasions(config, 40)
    assert len(occasions) == 2
    for start, index, _ in occasions:
        columns = slice(config.ssb_subcarrier, config.ssb_subcarrier + 240)
        block = theirs[start : start + 4, columns]
        assert_ssb_is_ours(block, config.cell_id, index, len(config.ssb_beams), lowest=0.99)
    # Its PDSCHs have type A DM-RS in symbols 2, 7 and 11. Compared are pairs of resource blocks: one block of QPSK may
    # match by chance.
    slots, reference = theirs.reshape(-1, 14, config.n_rb, 12), by_slot(ours)
    matched = {symbol: 0 for symbol in range(14)}
    for slot, symbol in np.argwhere((np.abs(slots) > 1e-6).any(axis=(2, 3))):
        for block in range(config.n_rb - 1):
            pair = slice(block, block + 2)
            score = coherence(reference[slot, symbol, pair, 0::2], slots[slot, symbol, pair, 0::2])
            matched[int(symbol)] += score > 0.99
    assert min(matched[symbol] for symbol in (2, 7, 11)) > 100
    assert max(count for symbol, count in matched.items() if symbol not in (0, 1, 2, 7, 11)) == 0
    # Its PDCCHs lie in one symbol of resource blocks from 0 on, whole CCEs of six.
    c_inits = (2**17 * (14 * np.arange(config.slots_per_frame) + 1) * (2 * config.cell_id + 1)) + 2 * config.cell_id
    dmrs = qpsk(gold_sequences(c_inits % 2**31, 6 * config.n_rb)).reshape(-1, config.n_rb, 3)
    found = 0
    for slot in np.flatnonzero((np.abs(slots[:, 0]) > 1e-6).any(axis=(1, 2))):
        blocks = np.flatnonzero((np.abs(slots[slot, 0]) > 1e-6).any(axis=1))
        scores = [coherence(dmrs[slot % len(dmrs), block], slots[slot, 0, block, 1::4]) for block in blocks[:6]]
        found += min(scores) > 0.99
    assert found > 5


def test_a_real_cell_in_n78_has_our_ssb(real_iq: Path) -> None:
    iq = read(real_iq, "nr_n78_x310_46M")
    # 40 MHz at 30 kHz has the recording's rate; the SSB's centre is its subcarrier 120 (TS 38.104 clause 5.4.3).
    offset = round((3512.64e6 - 3502.8e6) / 30e3)
    config = replace(
        TDD, cell_id=500, bandwidth=40e6, ssb_subcarrier=636 + offset - 120, ssb_beams=(True,) + (False,) * 7
    )
    columns = slice(config.ssb_subcarrier, config.ssb_subcarrier + 240)
    peaks = []
    for cell_id in (500, 501, 502):
        grid = nr_downlink(replace(config, cell_id=cell_id), rng(), 1)
        assert grid.sample_rate == 46.08e6
        start, end = grid.symbol_start[2:4]
        lag = np.abs(scipy.signal.fftconvolve(iq, np.conj(modulate(grid)[start:end][::-1]), "valid"))
        peaks.append((lag.max(), int(lag.argmax()) - int(start)))
    peak, frame_start = peaks[0]
    assert peak > 3 * max(peaks[1][0], peaks[2][0])
    received = demodulate(iq[frame_start:], nr_downlink(config, rng(), 1), 1536)
    assert_ssb_is_ours(received[2:6, columns], 500, 0, 8, lowest=0.9)


def test_a_real_cells_system_information_is_where_coreset_0_puts_it(real_iq: Path) -> None:
    # Cell 500 sends SIB1 in the slot of SSB 0, in a CORESET 0 of 48 blocks and one symbol from block 1 on.
    config = NRConfig(
        cell_id=500,
        ssb_subcarrier=13 * 12,
        coreset=Coreset(0, 48, 1),
        coreset0=Coreset(1, 48, 1, interleaver_rows=2, shift=500),
        sib1_period=20,
        sib1_offset=0,
    )
    ours = by_slot(nr_downlink(config, rng(), 1))[0]
    theirs = demodulate(read(real_iq, "nr_n3_gnb_si"), nr_downlink(config, rng(), 1), 1024).reshape(14, 52, 12)
    assert config.coreset0 is not None
    first_candidate = np.sort(1 + cce_regs(config.coreset0)[:4].ravel())
    heard = np.flatnonzero(np.abs(theirs[0]).max(axis=1) > 0.1 * np.abs(theirs[0]).max())
    assert heard.tolist() == first_candidate.tolist()
    c_init = (2**17 * (2 * 500 + 1) + 2 * 500) % 2**31
    dmrs = qpsk(gold_sequences(c_init, 6 * 48)).reshape(48, 3)
    for block in heard:
        assert coherence(dmrs[block - 1], theirs[0, block, 1::4]) > 0.99
    # Its PDSCH has seven blocks beside the SSB.
    for symbol in pdsch_dmrs_symbols(2, 14, 2):
        for block in range(1, 7):
            assert coherence(ours[symbol, block, 0::2], theirs[symbol, block, 0::2]) > 0.95
