# SPDX-License-Identifier: Apache-2.0
"""LTE downlink: against the standard's own definitions, and against what srsRAN and real cells send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.signals import lte
from training.signals.grid import ResourceGrid, modulate
from training.signals.lte import LTEConfig, lte_downlink
from training.signals.priors import random_lte_config

IDLE = LTEConfig(load=0.0, system_information=False)
FULL = LTEConfig(load=1.0, system_information=False)


def elements(grid: ResourceGrid) -> NDArray[np.complex64]:
    """Values without the DC column: (subframe, symbol, subcarrier)."""
    middle = -grid.lowest_subcarrier
    return np.delete(grid.values, middle, axis=1).reshape(-1, 14, 2 * middle)


def draw(config: LTEConfig, n_subframes: int = 10, seed: int = 0, first_subframe: int = 0) -> NDArray[np.complex64]:
    return elements(lte_downlink(config, np.random.default_rng(seed), n_subframes, first_subframe))


def demodulate(iq: NDArray[np.complexfloating], n_prb: int, n_fft: int, advance: int = 0) -> NDArray[np.complex64]:
    """Whole subframes, (subframe, symbol, subcarrier); FFTs start ``advance`` samples before the symbol's body."""
    n_subframes = len(iq) // (15 * n_fft)
    prefixes = np.tile(np.array([160] + [144] * 6) * n_fft // 2048, 2 * n_subframes)
    starts = np.cumsum(prefixes + n_fft) - n_fft - advance
    bins = np.r_[-6 * n_prb : 0, 1 : 6 * n_prb + 1]
    spectra = np.fft.fft(iq[starts[:, None] + np.arange(n_fft)], axis=1)[:, bins] / n_fft
    spectra *= np.exp(2j * np.pi * bins * advance / n_fft)
    return spectra.astype(np.complex64).reshape(n_subframes, 14, 12 * n_prb)


# --- Sequences ---


def test_primary_sync_is_flat_and_the_three_are_nearly_orthogonal() -> None:
    sequences = np.array([lte.primary_sync(sector) for sector in range(3)])
    np.testing.assert_allclose(np.abs(sequences), 1, atol=1e-6)
    # Zadoff-Chu: central symmetry, and roots 29 and 34 = 63 - 29 are conjugate.
    np.testing.assert_allclose(sequences, sequences[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(sequences[1], sequences[2].conj(), atol=1e-5)
    correlation = np.abs(sequences @ sequences.conj().T) / 62
    # Roots u and v correlate as sqrt(gcd(u - v, 63) / 63): 0.38 for 25 and 34, else 0.13.
    np.testing.assert_allclose(correlation, [[1, 0.13, 0.38], [0.13, 1, 0.13], [0.38, 0.13, 1]], atol=0.01)


def secondary_by_definition(m0: int, m1: int, sector: int, subframe: int) -> list[int]:
    """TS 36.211 6.11.2.1 with the indices of its table 6.11.2.1-1."""

    def register(*taps: int) -> list[int]:
        x = [0, 0, 0, 0, 1]
        while len(x) < 31:
            x.append(sum(x[len(x) - 5 + tap] for tap in taps) % 2)
        return [1 - 2 * bit for bit in x]

    s, c, z = register(2, 0), register(3, 0), register(4, 2, 1, 0)
    if subframe == 5:
        m0, m1 = m1, m0
    d = []
    for n in range(31):
        d.append(s[(n + m0) % 31] * c[(n + sector) % 31])
        d.append(s[(n + m1) % 31] * c[(n + sector + 3) % 31] * z[(n + m0 % 8) % 31])
    return d


@pytest.mark.parametrize(
    ("group", "m0", "m1"), [(0, 0, 1), (29, 29, 30), (30, 0, 2), (59, 0, 3), (100, 13, 17), (167, 2, 9)]
)
@pytest.mark.parametrize("subframe", [0, 5])
def test_secondary_sync_follows_the_table(group: int, m0: int, m1: int, subframe: int) -> None:
    for sector in range(3):
        expected = secondary_by_definition(m0, m1, sector, subframe)
        np.testing.assert_array_equal(lte.secondary_sync(3 * group + sector, subframe), expected)


def test_every_cell_and_half_frame_has_its_own_secondary_sync() -> None:
    sequences = np.array([lte.secondary_sync(cell, subframe) for cell in range(504) for subframe in (0, 5)])
    np.testing.assert_array_equal(np.abs(sequences), 1)
    correlation = np.abs(sequences @ sequences.conj().T) / 62
    assert correlation[~np.eye(1008, dtype=bool)].max() < 0.75


# --- Places ---


@pytest.mark.parametrize("cell_id", [0, 77, 151, 503])
def test_reference_signals_lie_where_the_standard_puts_them(cell_id: int) -> None:
    grid = draw(replace(IDLE, cell_id=cell_id, n_ports=4, n_prb=15)) != 0
    # In subframe 3 nothing but reference signals lies beyond the control region (one symbol).
    offsets = {symbol: set((np.flatnonzero(grid[3, symbol]) - cell_id) % 6) for symbol in range(1, 14)}
    assert {symbol: found for symbol, found in offsets.items() if found} == {
        symbol: {0, 3} for symbol in (1, 4, 7, 8, 11)
    }
    places = [
        (0, 0, 0, 0),
        (0, 0, 4, 3),
        (1, 0, 0, 3),
        (1, 0, 4, 0),
        (2, 0, 1, 0),
        (2, 1, 1, 3),
        (3, 0, 1, 3),
        (3, 1, 1, 0),
    ]
    for port, slot, symbol, v in places:
        found = lte.reference_subcarriers(cell_id, 15, port, slot, symbol)
        np.testing.assert_array_equal(found, np.arange((v + cell_id) % 6, 180, 6))


def test_an_idle_cell_sends_only_its_fixed_signals() -> None:
    config = replace(IDLE, cell_id=151)
    grid = draw(config, 20)
    expected = np.zeros(grid.shape, bool)
    for half in (0, 7):
        expected[:, half, 151 % 6 :: 6] = True
        expected[:, half + 4, (151 + 3) % 6 :: 6] = True
    for symbol in (5, 6):
        expected[::5, symbol, 300 - 31 : 300 + 31] = True
    pbch = np.ones((4, 72), bool)
    pbch[:2, 151 % 3 :: 3] = False
    assert pbch.sum() == 240
    expected[::10, 7:11, 300 - 36 : 300 + 36] |= pbch
    # PCFICH (6.7.4), four groups of six subcarriers, the two for reference signals left out.
    for i in range(4):
        group = (6 * (151 % 100) + i * 50 // 2 * 6) % 600 + np.arange(6)
        expected[:, 0, group[group % 3 != 151 % 3]] = True
    np.testing.assert_array_equal(grid != 0, expected)
    np.testing.assert_allclose(np.abs(grid[grid != 0]), 1, atol=1e-6)


def test_system_information_comes_every_other_frame() -> None:
    grid = draw(replace(IDLE, system_information=True), 40)
    np.testing.assert_array_equal(np.flatnonzero(grid[:, 13].any(axis=1)), [5, 25])


@pytest.mark.parametrize("n_prb", list(lte.N_FFT))
@pytest.mark.parametrize("n_ports", [1, 2, 4])
def test_a_full_cell_leaves_nothing_empty_beyond_the_control_region(n_prb: int, n_ports: int) -> None:
    config = replace(FULL, n_prb=n_prb, n_ports=n_ports, cell_id=200, cfi=3)
    empty = draw(config)[:, 4:] == 0
    # Five subcarriers on either side of each synchronisation signal, and PBCH keeps clear of four ports.
    expected = np.zeros_like(empty)
    middle = 6 * n_prb
    for edge in (middle - 36, middle + 31):
        expected[::5, 1:3, edge : edge + 5] = True
    unused = {1: ((3, 200 + 3), (4, 200), (4, 200 + 3)), 2: ((4, 200), (4, 200 + 3)), 4: ()}[n_ports]
    for symbol, shift in unused:
        columns = np.arange(shift % 6, 12 * n_prb, 6)
        columns = columns[(columns >= middle - 36) & (columns < middle + 36)]
        expected[0, symbol, columns] = True
    np.testing.assert_array_equal(empty, expected)


@pytest.mark.parametrize("uplink_downlink_config", range(7))
@pytest.mark.parametrize("special_subframe_config", range(10))
def test_tdd_is_silent_in_uplink_and_guard(uplink_downlink_config: int, special_subframe_config: int) -> None:
    config = replace(
        FULL,
        duplex="TDD",
        uplink_downlink_config=uplink_downlink_config,
        special_subframe_config=special_subframe_config,
        n_prb=15,
        cell_id=301,
        cfi=3,
        mean_users=4.0,
        uplink_grants=4.0,
    )
    grid = draw(config, 20)
    uplink = ["234789", "2378", "27", "234", "23", "2", "23478"][uplink_downlink_config]
    special = "1" if uplink_downlink_config in (3, 4, 5) else "16"
    length = {"D": 14, "U": 0, "S": [3, 9, 10, 11, 12, 3, 9, 10, 11, 6][special_subframe_config]}
    kinds = ["U" if n in uplink else "S" if n in special else "D" for n in "0123456789"]
    expected = [np.arange(14) < length[kind] for kind in kinds]
    np.testing.assert_array_equal(grid.any(axis=2), np.tile(expected, (2, 1)))
    # PSS in symbol 2 of subframes 1 and 6, SSS in the last of 0 and 5.
    middle = slice(90 - 31, 90 + 31)
    for subframe in (1, 6):
        np.testing.assert_array_equal(grid[subframe, 2, middle], lte.primary_sync(301))
        np.testing.assert_array_equal(grid[subframe - 1, 13, middle], lte.secondary_sync(301, subframe - 1))
    if length["S"] == 3:
        assert np.count_nonzero(grid[1, 2]) == 62


@pytest.mark.parametrize("n_prb", [6, 15, 50, 100])
@pytest.mark.parametrize("n_ports", [1, 2, 4])
def test_control_channels_share_the_region_without_overlap(n_prb: int, n_ports: int) -> None:
    for cell_id in (0, 1, 250, 503):
        for n_symbols, n_groups in ((2, 1), (3, 2), (4, 2)):
            layout = lte.control_layout(n_prb, cell_id, n_ports, n_symbols, n_groups)
            used = np.concatenate([layout.pcfich, layout.phich.ravel(), layout.cce.ravel()])
            assert len(np.unique(used)) == len(used) == 16 + 12 * n_groups + 36 * len(layout.cce)
            symbol, subcarrier = np.divmod(used, 12 * n_prb)
            assert symbol.max() < n_symbols
            assert not (symbol[: 16 + 12 * n_groups]).any()
            clear_of = (symbol == 0) | ((symbol == 1) & (n_ports == 4))
            assert ((subcarrier - cell_id)[clear_of] % 3 != 0).all()
            # What is left over is less than another control channel element.
            room = 4 * n_prb * 2 * n_symbols + 4 * n_prb * (n_symbols - 1 - (n_ports == 4))
            assert 0 <= room - len(used) < 36


def test_control_channel_elements_of_a_known_carrier() -> None:
    """20 MHz, two ports, N_g = 1: (800 - 4 - 39) // 9 elements in three symbols."""
    groups = lte.phich_groups(LTEConfig(n_prb=100, n_ports=2, phich_ng=1))[0]
    assert groups == 13
    assert len(lte.control_layout(100, 0, 2, 3, int(groups)).cce) == 84


def test_phich_groups_follow_the_uplink() -> None:
    tdd = LTEConfig(n_prb=100, duplex="TDD", uplink_downlink_config=1, phich_ng=1 / 6)
    np.testing.assert_array_equal(lte.phich_groups(tdd), [0, 3, 0, 0, 3, 0, 3, 0, 0, 3])


@pytest.mark.parametrize(("n_prb", "sizes"), [(6, (2, 3, 4)), (25, (1, 2, 3))])
def test_control_format_sets_where_pdsch_begins(n_prb: int, sizes: tuple[int, ...]) -> None:
    for cfi, size in zip((1, 2, 3), sizes, strict=True):
        grid = draw(replace(FULL, n_prb=n_prb, cfi=cfi, uplink_grants=0.0, mean_users=1.0), 10)
        share = np.mean(grid != 0, axis=2)
        assert share[3, size:].min() == 1
        assert share[3, :size].max() < 1


# --- Power and traffic ---


@pytest.mark.parametrize("n_ports", [1, 2, 4])
def test_powers_are_relative_to_the_reference_signals(n_ports: int) -> None:
    config = replace(FULL, n_ports=n_ports, rho_a_db=-3.0, p_b=2, cfi=1)
    grid = draw(config, 80)
    data = np.abs(grid[3::5, :, :]) ** 2
    np.testing.assert_allclose(data[:, [2, 3, 5, 6]].mean(), 10**-0.3, rtol=0.02)
    # TS 36.213 table 5.2-1, P_B = 2; subcarriers without a reference signal
    ratio = 0.6 if n_ports == 1 else 0.75
    with_reference = [4, 7, 8, 11] if n_ports == 4 else [4, 7, 11]
    for symbol in with_reference:
        np.testing.assert_allclose(data[:, symbol, np.arange(600) % 3 != 0].mean(), ratio * 10**-0.3, rtol=0.05)
    columns = [lte.reference_subcarriers(0, 50, port, 0, 4 if port < 2 else 1) for port in range(n_ports)]
    powers = [data[:, 4 if port < 2 else 1, places].mean() for port, places in enumerate(columns)]
    np.testing.assert_allclose(np.mean(powers), 1, rtol=1e-5)


def allocated(grid: NDArray[np.complex64]) -> NDArray[np.bool_]:
    """Resource blocks with PDSCH: (subframe, block). An FDD subframe's last symbol holds nothing else."""
    return grid[:, 13].reshape(len(grid), -1, 12).all(axis=2)


@pytest.mark.parametrize(("load", "duty_cycle"), [(0.0, 1.0), (0.1, 1.0), (0.2, 0.25), (0.4, 0.9), (1.0, 1.0)])
@pytest.mark.parametrize("contiguous", [False, True])
def test_load_is_the_share_of_allocated_blocks(load: float, duty_cycle: float, contiguous: bool) -> None:
    config = replace(IDLE, n_prb=6, load=load, duty_cycle=duty_cycle, mean_burst=3.0, contiguous=contiguous)
    blocks = allocated(draw(config, 4000))
    np.testing.assert_allclose(blocks.mean(), load, atol=0.03)
    if contiguous:
        # One run on the circle of blocks begins at most once.
        assert (blocks & ~np.roll(blocks, 1, axis=1)).sum(axis=1).max() <= 1


def test_bursts_have_their_mean_length() -> None:
    config = replace(IDLE, n_prb=6, load=0.3, duty_cycle=0.3, mean_burst=8.0)
    active = allocated(draw(config, 8000)).any(axis=1)
    begins = np.count_nonzero(active[1:] & ~active[:-1])
    np.testing.assert_allclose(active.sum() / begins, 8, rtol=0.2)


def test_allocations_are_whole_resource_block_groups() -> None:
    blocks = allocated(draw(replace(IDLE, n_prb=100, load=0.5), 20))
    groups = blocks.reshape(20, 25, 4)
    np.testing.assert_array_equal(groups.any(axis=2), groups.all(axis=2))
    assert 0 < groups.mean() < 1


# --- The grid as a whole ---


@pytest.mark.parametrize("n_prb", list(lte.N_FFT))
def test_the_grid_is_placed_in_time_and_frequency(n_prb: int) -> None:
    grid = lte_downlink(replace(FULL, n_prb=n_prb), np.random.default_rng(0), 3)
    assert grid.label == "LTE"
    assert grid.values.dtype == np.complex64
    assert grid.values.shape == (42, 12 * n_prb + 1)
    assert grid.lowest_subcarrier == -6 * n_prb
    assert not grid.values[:, 6 * n_prb].any()
    assert grid.symbol_start[-1] == 3 * grid.sample_rate / 1000
    assert grid.sample_rate == {6: 1.92e6, 15: 3.84e6, 25: 7.68e6, 50: 15.36e6, 75: 23.04e6, 100: 30.72e6}[n_prb]


def test_the_same_seed_gives_the_same_grid() -> None:
    config = LTEConfig(n_ports=2, duty_cycle=0.6, load=0.3)
    np.testing.assert_array_equal(draw(config, seed=3), draw(config, seed=3))
    assert (draw(config, seed=3) != draw(config, seed=4)).any()


def test_the_first_subframe_only_shifts_the_frame() -> None:
    whole, late = draw(IDLE, 20), draw(IDLE, 13, first_subframe=7)
    np.testing.assert_array_equal(whole[7:, 4:7], late[:, 4:7])
    np.testing.assert_array_equal(whole[7:] != 0, late != 0)


def test_demodulation_gives_the_grid_back() -> None:
    grid = lte_downlink(FULL, np.random.default_rng(0), 2)
    np.testing.assert_allclose(demodulate(modulate(grid), 50, 1024), elements(grid), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"n_prb": 7},
        {"cell_id": 504},
        {"n_ports": 3},
        {"duplex": "HALF"},
        {"uplink_downlink_config": 7},
        {"special_subframe_config": 10},
        {"cfi": 4},
        {"phich_ng": 3.0},
        {"load": 0.6, "duty_cycle": 0.5},
        {"load": float("nan")},
        {"mean_burst": 0.5},
        {"modulation_weights": (1.0, 1.0, 0.0, 0.0)},
    ],
)
def test_a_config_outside_the_standard_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        LTEConfig(**change)


def test_a_grid_needs_a_length_and_a_beginning() -> None:
    for n_subframes, first in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="n_subframes"):
            lte_downlink(IDLE, np.random.default_rng(0), n_subframes, first)


def test_random_configs_cover_what_one_meets() -> None:
    rng = np.random.default_rng(0)
    configs = [random_lte_config(rng) for _ in range(600)]
    assert {config.n_prb for config in configs} == set(lte.N_FFT)
    assert {config.n_ports for config in configs} == {1, 2, 4}
    assert {config.uplink_downlink_config for config in configs} == set(range(7))
    assert abs(np.mean([config.duplex == "FDD" for config in configs]) - 0.65) < 0.06
    loads = np.array([config.load for config in configs])
    for share in (np.mean(loads == 0), np.mean((loads > 0) & (loads < 0.1)), np.mean(loads > 0.95)):
        assert 0.1 < share < 0.35
    for config in configs[:40]:
        grid = lte_downlink(config, rng, 3, first_subframe=int(rng.integers(20)))
        assert np.isfinite(grid.values).all()


# --- Real signals ---

SRSRAN = pytest.mark.parametrize(
    ("name", "config"),
    [
        ("lte_dyn_p50", LTEConfig(n_prb=50, cell_id=151, load=1.0, system_information=False)),
        ("lte_full_p25", LTEConfig(n_prb=25, cell_id=77, load=1.0, system_information=False)),
    ],
)


def srsran_grid(folder: Path, name: str, n_prb: int) -> NDArray[np.complex64]:
    """Clean grid from the first subframe on, scaled so that the reference signals should have magnitude 1."""
    iq = np.fromfile(folder / f"{name}.sigmf-data", np.complex64)
    grid = demodulate(iq, n_prb, lte.N_FFT[n_prb])
    peak = np.sqrt(np.mean(np.abs(grid[::5, 6, 6 * n_prb - 31 : 6 * n_prb + 31]) ** 2))
    return grid / peak


@SRSRAN
def test_fixed_signals_equal_those_of_srsran(real_iq: Path, name: str, config: LTEConfig) -> None:
    theirs = srsran_grid(real_iq, name, config.n_prb)
    ours = draw(config, len(theirs))
    for half in (0, 7):
        for symbol in (0, 4):
            places = lte.reference_subcarriers(config.cell_id, config.n_prb, 0, 0, symbol)
            ratio = theirs[:, half + symbol, places] * ours[:, half + symbol, places].conj()
            np.testing.assert_allclose(ratio, 1, atol=1e-3)
    centre = slice(6 * config.n_prb - 36, 6 * config.n_prb + 36)
    np.testing.assert_allclose(theirs[::5, 5:7, centre], ours[::5, 5:7, centre], atol=1e-3)


@SRSRAN
def test_srsran_fills_the_elements_that_ours_fills(real_iq: Path, name: str, config: LTEConfig) -> None:
    """Every control element of srsRAN's is whole or empty, and its resource blocks hold PDSCH where ours do."""
    theirs = np.abs(srsran_grid(real_iq, name, config.n_prb)) > 1e-3
    flat = theirs.reshape(len(theirs), -1)
    groups = int(lte.phich_groups(config)[0])
    explained = np.zeros(len(theirs), bool)
    for cfi in (1, 2, 3):
        layout = lte.control_layout(config.n_prb, config.cell_id, 1, cfi, groups)
        assert flat[:, layout.pcfich].all()
        cces = flat[:, layout.cce]
        ours = draw(replace(config, cfi=cfi), len(theirs)) != 0
        # (subframe, symbol, block, subcarrier)
        blocks = theirs.reshape(len(theirs), 14, -1, 12)
        ours = ours.reshape(blocks.shape)
        busy = blocks[:, [3, 12]].all(axis=(1, 3))
        as_ours = (blocks == ours)[:, cfi:].all(axis=(1, 3))
        whole = (cces.all(axis=2) | ~cces.any(axis=2)).all(axis=1)
        control = np.zeros_like(flat)
        for elements_used in (layout.pcfich, layout.phich.ravel(), layout.cce.ravel()):
            control[:, elements_used] = True
        places = lte.reference_subcarriers(config.cell_id, config.n_prb, 0, 0, 0)
        control[:, places] = True
        nothing_else = ~(flat & ~control)[:, : cfi * 12 * config.n_prb].any(axis=1)
        explained |= whole & nothing_else & (as_ours | ~busy).all(axis=1)
    assert explained.all()
    assert np.count_nonzero(theirs[:, 12].any(axis=1)) >= 20


def adjacent_coherence(
    grid: NDArray[np.complex64], cell_id: int, n_prb: int, port: int, slot: int, symbol: int
) -> float:
    """How alike neighbouring reference signals find the channel: 1 if it is smooth, about 0 for the wrong sequence."""
    places = lte.reference_subcarriers(cell_id, n_prb, port, slot, symbol)
    sequence = lte.reference_signals(cell_id, n_prb, np.array([slot]), symbol)[0]
    channel = grid[slot // 2 :: 10, 7 * (slot % 2) + symbol, places] * sequence.conj()
    products = channel[:, 1:] * channel[:, :-1].conj()
    return float(np.abs(products.sum()) / np.sum(np.abs(channel) ** 2))


def over_the_air(folder: Path, name: str, frame_start: int, offset: float) -> NDArray[np.complex64]:
    """Grid of a 20 MHz cell recorded at 19.2 MS/s, from a frame's first sample on, without its offset in Hz."""
    pairs = np.fromfile(folder / f"{name}.sigmf-data", np.int8).astype(np.float32).reshape(-1, 2)
    iq = (pairs[:, 0] + 1j * pairs[:, 1])[frame_start:]
    iq *= np.exp(-2j * np.pi * offset * np.arange(len(iq)) / 19.2e6)
    return demodulate(iq, 100, 1280, advance=6)


# Frame start, frequency offset and cell were found once by searching over all cells.


def test_a_real_fdd_cell_sends_our_reference_signals_from_two_ports(real_iq: Path) -> None:
    grid = over_the_air(real_iq, "lte_fdd20_1815_light", 77639, 14189.0)
    for slot in range(20):
        for symbol in (0, 4):
            for port in (0, 1):
                assert adjacent_coherence(grid, 301, 100, port, slot, symbol) > 0.75
                assert adjacent_coherence(grid, 302, 100, port, slot, symbol) < 0.3
    for subframe in (0, 5):
        same = grid[subframe::10, 5, 569:631] * lte.secondary_sync(301, subframe).conj()
        primary = grid[subframe::10, 6, 569:631] * lte.primary_sync(301).conj()
        assert np.abs(np.vdot(same, primary)) / np.linalg.norm(same) / np.linalg.norm(primary) > 0.8


def test_a_real_tdd_cell_sends_our_reference_signals_in_downlink_alone(real_iq: Path) -> None:
    config = LTEConfig(n_prb=100, duplex="TDD", uplink_downlink_config=2, special_subframe_config=5)
    grid = over_the_air(real_iq, "lte_tdd20_1890", 2039, 27380.0)
    available = lte.downlink_symbols(config)
    for slot in range(20):
        for symbol in (0, 4):
            sent = 7 * (slot % 2) + symbol < available[slot // 2]
            coherence = [adjacent_coherence(grid, 253, 100, port, slot, symbol) for port in (0, 1)]
            assert (min(coherence) > 0.5) if sent else (max(coherence) < 0.4)
    for subframe in (0, 5):
        right, wrong = (
            np.abs(
                (grid[subframe::10, 13, 569:629] * lte.secondary_sync(253, number)[:60]).reshape(-1, 5, 12).sum(axis=2)
            )
            for number in (subframe, 5 - subframe)
        )
        assert np.mean(right**2) > 2 * np.mean(wrong**2)
