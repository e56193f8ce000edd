# SPDX-License-Identifier: Apache-2.0
"""Scenes: energy is where the labels say, at the SNR that was asked for, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from rfvit_rt.spectrogram import SpectrogramSpec, noise_floor, power, spectrogram
from training.datasets import LABELS
from training.scenes import SPLIT_SEEDS, TEST_SNRS_DB, make_test_window, make_window
from training.signals.channel import Receiver, multipath
from training.signals.grid import ResourceGrid, modulate, occupancy
from training.signals.lte import LTEConfig, lte_downlink
from training.signals.nr import NRConfig, nr_downlink
from training.signals.other import OTHERS
from training.signals.scene import Carrier, Interferer, Scene, SceneSettings, on_the_air, random_scene

SPEC = SpectrogramSpec()


def scene(carriers: list[Carrier], rate: float, receiver: Receiver | None = None, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    samples = on_the_air(carriers, [], rate, 0.04, receiver or Receiver(), rng)
    return Scene(samples, rate, tuple(carriers))


def full_lte(n_prb: int = 25) -> ResourceGrid:
    return lte_downlink(LTEConfig(n_prb=n_prb, load=1.0), np.random.default_rng(1), 44)


@pytest.mark.parametrize("rate", [2.4e6, 7.68e6, 20e6, 61.44e6])
@pytest.mark.parametrize("snr_db", [0, 20])
def test_a_loaded_carrier_has_the_snr_that_was_asked_for(rate: float, snr_db: float) -> None:
    n_prb = 6 if rate < 7e6 else 25
    made = scene([Carrier(full_lte(n_prb), 0.1e6, snr_db)], rate)
    energy = power(made.samples, rate, SPEC)
    mask = made.mask(SPEC, LABELS)
    inside = np.all(mask[:, :] == 1, axis=0)  # bins that are always labelled
    inside &= np.roll(inside, 2) & np.roll(inside, -2)
    outside = ~np.any(mask, axis=0)
    outside &= np.roll(outside, 4) & np.roll(outside, -4)
    density = energy[:, inside].mean() / energy[:, outside].mean()
    assert 10 * np.log10(density - 1) == pytest.approx(snr_db, abs=1.0)


@pytest.mark.parametrize("offset", [-6.3e6, 0.0, 4.21e6])
def test_labels_lie_where_the_energy_is(offset: float) -> None:
    rate = 30.72e6
    rng = np.random.default_rng(2)
    grid = nr_downlink(NRConfig(load="bursty"), rng, 44)
    made = scene([Carrier(grid, offset, 30)], rate)
    energy = power(made.samples, rate, SPEC)
    strong = energy > 10 * noise_floor(energy, rate, SPEC)
    mask = made.mask(SPEC, LABELS) == LABELS.index("NR")
    assert strong[mask].mean() > 0.93  # a pixel may hold a mere sliver of a symbol
    # Energy may reach one pixel further than the label: windows overlap and tapers have skirts.
    near = np.zeros_like(mask)
    for steps in (-1, 0, 1):
        for bins in (-2, -1, 0, 1, 2):
            near |= np.roll(mask, (steps, bins), (0, 1))
    assert strong[~near].mean() < 0.002


def test_where_carriers_overlap_the_stronger_one_counts() -> None:
    lte, nr = full_lte(), nr_downlink(NRConfig(load="full"), np.random.default_rng(0), 44)
    for snrs, label in (((10, 20), "NR"), ((20, 10), "LTE")):
        made = scene([Carrier(lte, 0, snrs[0]), Carrier(nr, 0, snrs[1])], 15.36e6)
        middle = made.mask(SPEC, LABELS)[:, 110:146]
        assert np.mean(middle == LABELS.index(label)) > 0.85


def test_a_carrier_beyond_the_band_is_cut_not_folded() -> None:
    made = scene([Carrier(full_lte(), 5e6, 30)], 10e6)  # its upper half lies outside
    image = spectrogram(made.samples, 10e6, SPEC) * SPEC.db_scale
    mask = made.mask(SPEC, LABELS)
    assert image[:, 205:250].mean() > 20
    assert abs(image[:, 5:120].mean()) < 1
    assert mask[:, 205:].any()
    assert not mask[:, :190].any()


def test_the_same_seed_gives_the_same_window_and_others_differ() -> None:
    settings = SceneSettings(max_sample_rate=10e6)
    one, again, other = (make_window(seed, settings, SPEC) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.picture, again.picture)
    np.testing.assert_array_equal(one.mask, again.mask)
    assert not np.array_equal(one.picture, other.picture)


def test_test_windows_have_the_reported_snrs_and_splits_do_not_meet() -> None:
    settings = SceneSettings(max_sample_rate=5e6)
    found = [make_test_window(seed, settings, SPEC).snr_db for seed in range(10)]
    assert all(np.isnan(snr) or snr == TEST_SNRS_DB[i % 5] for i, snr in enumerate(found))
    assert min(np.diff(sorted(SPLIT_SEEDS.values()))) >= 1_000_000_000


def test_noise_only_scenes_have_no_label_whatever_the_receiver() -> None:
    settings = SceneSettings(noise_only=1.0, max_sample_rate=20e6)
    for seed in range(6):
        made = random_scene(settings, np.random.default_rng(seed))
        assert not made.mask(SPEC, LABELS).any()
        assert np.abs(made.samples.view(np.float32)).max() <= 1
        assert np.isfinite(spectrogram(made.samples, made.sample_rate, SPEC)).all()


@pytest.mark.parametrize("generator", OTHERS)
def test_other_signals_have_their_power_and_no_label(generator: object) -> None:
    rng = np.random.default_rng(3)
    signal, rate = generator(0.042, rng)  # type: ignore[operator]
    assert len(signal) == round(0.042 * rate)
    on = np.abs(signal) > 0
    assert np.mean(np.abs(signal[on]) ** 2) == pytest.approx(1, rel=0.35)
    samples = on_the_air([], [Interferer(generator, 1e6, 30)], 10e6, 0.04, Receiver(), rng)  # type: ignore[arg-type]
    image = spectrogram(samples, 10e6, SPEC) * SPEC.db_scale
    assert image.max() > 4  # pulses spread their power over the whole band


def test_multipath_keeps_the_mean_power() -> None:
    rng = np.random.default_rng(4)
    iq = np.exp(2j * np.pi * rng.random(20_000)).astype(np.complex64)
    for spread, doppler in ((0.0, 0.0), (1e-6, 0.0), (300e-9, 300.0)):
        gains = [np.mean(np.abs(multipath(iq, 7.68e6, spread, doppler, rng)) ** 2) for _ in range(200)]
        assert np.mean(gains) == pytest.approx(1, abs=0.3)


def test_the_receivers_filter_rolls_off_at_the_edges() -> None:
    made = scene([], 20e6, Receiver(skirt=0.1, depth_db=40))
    level = 10 * np.log10(power(made.samples, 20e6, SPEC).mean(axis=0))
    assert level[128] - level[2] > 25
    assert abs(level[128] - level[40]) < 0.5


def test_modulation_and_occupancy_of_a_single_element() -> None:
    values = np.zeros((3, 13), np.complex64)
    values[1, 9] = 1  # subcarrier +3 in the second symbol
    grid = ResourceGrid("LTE", values, -6, 15e3, 64, np.full(3, 5))
    iq = modulate(grid)
    assert not iq[:69].any()
    assert not iq[138:].any()
    np.testing.assert_allclose(iq[74:138], np.exp(2j * np.pi * 3 * np.arange(64) / 64), atol=1e-5)
    np.testing.assert_array_equal(iq[69:74], iq[133:138])
    symbol = 69 / grid.sample_rate
    mask = occupancy(grid, np.arange(4) * symbol, (np.arange(14) - 6.5) * 15e3)
    assert np.argwhere(mask).tolist() == [[1, 9]]
