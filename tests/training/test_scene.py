# SPDX-License-Identifier: Apache-2.0
"""Scenes: energy is where the labels say, at the SNR asked for; where signals overlap the denser one counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rfvit_rt.spectrogram import SpectrogramSpec, noise_floor, power, spectrogram
from training.datasets import IGNORED, UNNAMED
from training.signals.bluetooth import Advertiser, Connection, Piconet, bluetooth
from training.signals.bursts import Bursts, Signal
from training.signals.channel import Channel
from training.signals.grid import ResourceGrid, between_teeth, modulate, occupancy, visible
from training.signals.lte import LTEConfig, lte_downlink
from training.signals.nr import NRConfig, nr_downlink
from training.signals.other import KINDS
from training.signals.receiver import Receiver
from training.signals.scene import MARGIN, RULES, Carrier, Emitter, Scene, Transmitter, on_the_air
from training.signals.surroundings import LABELS
from training.signals.wlan import WLANConfig, wlan

SPEC = SpectrogramSpec()
WHOLE = 0.042


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Scenes are made with one thread a process; more fight over products of small matrices."""
    with threadpool_limits(1):
        yield


def scene(sent: list[Transmitter], rate: float, receiver: Receiver | None = None, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    receiver = receiver or Receiver()
    return Scene(on_the_air(tuple(sent), rate, 0.04, receiver, rng), rate, tuple(sent), receiver)


def full_lte(n_prb: int = 25) -> ResourceGrid:
    return lte_downlink(LTEConfig(n_prb=n_prb, load=1.0), np.random.default_rng(1), 44)


def bursty_nr() -> ResourceGrid:
    return nr_downlink(NRConfig(load="bursty"), np.random.default_rng(2), 44)


def busy_wlan() -> Signal:
    return wlan(WLANConfig(format="VHT", load=0.6), WHOLE, np.random.default_rng(3))


def hopping(rate: float = 24e6) -> Signal:
    links = (Piconet(load=0.8), Connection(interval=7.5e-3, exchanges=6), Advertiser())
    return bluetooth(links, WHOLE, np.random.default_rng(4), rate)


def near(mask: NDArray[np.bool_], steps: int = 1, bins: int = 2) -> NDArray[np.bool_]:
    return scipy.ndimage.binary_dilation(mask, np.ones((2 * steps + 1, 2 * bins + 1)))


# --- Levels ---


@pytest.mark.parametrize("rate", [2.4e6, 7.68e6, 20e6, 61.44e6])
@pytest.mark.parametrize("snr_db", [0, 20])
def test_a_loaded_carrier_has_the_snr_that_was_asked_for(rate: float, snr_db: float) -> None:
    made = scene([Carrier(full_lte(6 if rate < 7e6 else 25), 0.1e6, snr_db)], rate)
    energy = power(made.samples, rate, SPEC)
    mask = made.mask(SPEC, LABELS)
    inside = np.all(mask == 1, axis=0)  # bins that are always labelled
    inside &= np.roll(inside, 2) & np.roll(inside, -2)
    outside = ~np.any(mask, axis=0)
    outside &= np.roll(outside, 4) & np.roll(outside, -4)
    density = energy[:, inside].mean() / energy[:, outside].mean()
    assert 10 * np.log10(density - 1) == pytest.approx(snr_db, abs=1.0)


@pytest.mark.parametrize("channel", [Channel(), Channel("TDL-C", 300e-9, 70.0), Channel("TDL-D", 100e-9, 0.0)])
def test_fading_leaves_a_carrier_its_power(channel: Channel) -> None:
    made = scene([Carrier(full_lte(50), 0.0, 20, channel)], 15.36e6)
    energy = power(made.samples, 15.36e6, SPEC)
    inside = np.all(made.mask(SPEC, LABELS) == 1, axis=0)
    assert 10 * np.log10(energy[:, inside].mean() / energy[:, :30].mean()) == pytest.approx(20, abs=1.0)


def test_the_snr_of_bursts_is_that_in_the_band_they_occupy_while_they_are_on() -> None:
    made = scene([Emitter(busy_wlan(), 1e6, 20)], 40e6)
    energy = power(made.samples, 40e6, SPEC)
    mask = made.mask(SPEC, LABELS) == LABELS.index("WLAN")
    inside = scipy.ndimage.binary_erosion(mask, np.ones((3, 3)))
    assert 10 * np.log10(energy[inside].mean() / energy[~near(mask, 2, 8)].mean()) == pytest.approx(20, abs=2.0)


def test_a_narrow_signals_snr_is_that_in_a_hundred_kilohertz() -> None:
    n = round(WHOLE * 1e6)
    always = Bursts.of(0.0, WHOLE, -500.0, 500.0)
    made = scene([Emitter(Signal("other", np.ones(n, np.complex64), 1e6, always), 1e6, 10)], 10e6)
    energy = power(made.samples, 10e6, SPEC)
    line = energy.mean(axis=0)[150:158].sum() - 8 * np.median(energy)
    assert line / np.median(energy) * (10e6 / 256) / 100e3 == pytest.approx(10, rel=0.15)


# --- Labels ---


@pytest.mark.parametrize("offset", [-6.3e6, 0.0, 4.21e6])
@pytest.mark.parametrize("kind", ["LTE", "NR", "WLAN", "Bluetooth"])
def test_labels_lie_where_the_energy_is(kind: str, offset: float) -> None:
    rate = 30.72e6
    sent: dict[str, Transmitter] = {
        "LTE": Carrier(lte_downlink(LTEConfig(n_prb=25, load=0.3), np.random.default_rng(5), 44), offset, 30),
        "NR": Carrier(bursty_nr(), offset, 30),
        "WLAN": Emitter(busy_wlan(), offset, 20),
        "Bluetooth": Emitter(hopping(), offset, 25),
    }
    made = scene([sent[kind]], rate)
    energy = power(made.samples, rate, SPEC)
    strong = energy > 10 * noise_floor(energy, rate, SPEC)
    mask = made.mask(SPEC, LABELS) == LABELS.index(kind)
    assert 0.005 < mask.mean() < 0.9
    assert strong[mask].mean() > (0.93 if kind in ("LTE", "NR") else 0.8)  # a pixel may hold a mere sliver of a burst
    # Energy may reach further than the label: windows overlap and tapers, filters and shaped bits have skirts.
    assert strong[~near(mask, 1, 2 if kind in ("LTE", "NR") else 5)].mean() < 0.003


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_other_signals_have_their_label_on_their_energy(kind: object) -> None:
    rate = 30.72e6
    signal = next(
        signal
        for seed in range(20)
        if len((signal := kind.draw(WHOLE, np.random.default_rng(seed))).bursts) > 3  # type: ignore[attr-defined]
        or signal.bursts.stop.max(initial=0) > 0.03
    )
    made = scene([Emitter(signal, 2e6, 25)], rate)
    energy = power(made.samples, rate, SPEC)
    mask = made.mask(SPEC, LABELS) == LABELS.index("other")
    assert mask.any()
    excess = np.maximum(energy - 1.5 * np.median(energy[:, :20]), 0)
    assert excess[near(mask, 1, 3)].sum() > 0.9 * excess.sum()


def test_where_signals_overlap_the_denser_one_counts() -> None:
    lte, nr = full_lte(), nr_downlink(NRConfig(load="full"), np.random.default_rng(0), 44)
    for snrs, label in (((10, 20), "NR"), ((20, 10), "LTE")):
        made = scene([Carrier(lte, 0, snrs[0]), Carrier(nr, 0, snrs[1])], 15.36e6)
        middle = made.mask(SPEC, LABELS)[:, 110:146]
        assert np.mean(middle == LABELS.index(label)) > 0.85


def test_a_signal_shows_in_the_gaps_of_one_that_is_stronger() -> None:
    made = scene([Emitter(hopping(), 0.0, 10), Emitter(busy_wlan(), 0.0, 20)], 20e6)
    mask = made.mask(SPEC, LABELS)
    alone = scene([Emitter(hopping(), 0.0, 10)], 20e6).mask(SPEC, LABELS) == LABELS.index("Bluetooth")
    assert (mask[alone] == LABELS.index("WLAN")).any()
    assert (mask[alone] == LABELS.index("Bluetooth")).any()
    assert not (mask[alone] == 0).any()


def test_a_class_that_is_not_asked_for_is_background() -> None:
    made = scene([Carrier(full_lte(), -5e6, 20), Emitter(busy_wlan(), 0.0, 30)], 20e6)
    mask = made.mask(SPEC, ("background", "LTE", "NR"))
    assert set(np.unique(mask)) == {0, 1}
    np.testing.assert_array_equal(mask == 1, scene([made.transmitters[0]], 20e6).mask(SPEC, LABELS) == 1)


def test_the_carrier_rule_labels_the_whole_carrier_for_the_whole_window() -> None:
    grid = nr_downlink(NRConfig(load="idle"), np.random.default_rng(0), 44)
    made = scene([Carrier(grid, 2e6, 20), Emitter(hopping(), 0.0, 10)], 30.72e6)
    mask = made.mask(SPEC, LABELS, "carrier")
    assert (mask == mask[0]).all()
    bins = np.flatnonzero(mask[0] == LABELS.index("NR"))
    assert np.ptp(bins) + 1 == len(bins) == pytest.approx(grid.bandwidth / 120e3, abs=1.5)
    assert (bins.mean() - 128) * 120e3 == pytest.approx(2e6, abs=120e3)
    used = made.mask(SPEC, LABELS)
    assert np.mean(used == LABELS.index("NR")) < 0.1 * np.mean(mask == LABELS.index("NR"))
    hops = (mask[0] == LABELS.index("Bluetooth")) | (mask[0] == LABELS.index("NR"))
    assert hops[(used == LABELS.index("Bluetooth")).any(axis=0)].all()


def test_what_the_receivers_filter_takes_away_is_neither_signal_nor_background() -> None:
    receiver = Receiver(roll_off=0.1, depth_db=60, stop=0.1, adc_noise_db=-30)
    sent = [Carrier(full_lte(100), 0.0, 5)]
    mask = scene(sent, 20e6, receiver).mask(SPEC, LABELS)
    assert set(np.unique(mask[:, :26])) == {0, IGNORED}
    assert not (mask[:, 60:196] == IGNORED).any()
    strong = scene([Carrier(full_lte(100), 0.0, 50)], 20e6, receiver).mask(SPEC, LABELS)
    assert not (strong == IGNORED).any()


def band_wide_other(start: float = 0.0, stop: float = WHOLE, rate: float = 6e6) -> Signal:
    n = round(WHOLE * rate)
    samples = np.random.default_rng(0).standard_normal((n, 2), np.float32).view(np.complex64)[:, 0]
    inside = (np.arange(n) >= start * rate) & (np.arange(n) < stop * rate)
    return Signal("other", samples * inside, rate, Bursts.of(start, stop, -rate / 2, rate / 2))


def labels_of(*sent: Transmitter, rule: str = "occupancy") -> set[int]:
    return set(np.unique(scene(list(sent), 5e6).mask(SPEC, LABELS, rule)).tolist())


def test_a_signal_of_no_name_that_fills_the_band_without_an_edge_may_be_noise() -> None:
    other, lte = LABELS.index("other"), LABELS.index("LTE")
    filling = Emitter(band_wide_other(), 0.0, 20)
    for rule in RULES:
        assert labels_of(filling, rule=rule) == {UNNAMED}
    assert labels_of(filling, Carrier(full_lte(15), 0.0, 30)) == {UNNAMED, lte}
    assert labels_of(filling, Carrier(full_lte(15), 0.0, 10)) == {UNNAMED}  # as where any signal is stronger
    assert labels_of(Carrier(full_lte(100), 0.0, 20)) == {lte}  # named ones have a structure of their own
    # An edge of 0.15 MHz or of two milliseconds is enough.
    assert labels_of(Emitter(band_wide_other(), 0.65e6, 20)) == {0, other}
    for start, stop in ((3e-3, WHOLE), (0.0, WHOLE - 3e-3)):
        assert labels_of(Emitter(band_wide_other(start, stop), 0.0, 20)) == {0, other}
    assert labels_of(Emitter(band_wide_other(10e-3, 15e-3), 0.0, 20), rule="carrier") == {other}


# --- Placement ---


def test_a_carrier_beyond_the_band_is_cut_not_folded() -> None:
    made = scene([Carrier(full_lte(), 5e6, 30)], 10e6)  # its upper half lies outside
    image = spectrogram(made.samples, 10e6, SPEC) * SPEC.db_scale
    mask = made.mask(SPEC, LABELS)
    assert image[:, 205:250].mean() > 20
    assert abs(image[:, 5:120].mean()) < 1
    assert mask[:, 205:].any()
    assert not mask[:, :190].any()


@pytest.mark.parametrize("offset", [60e6, -60e6])
def test_what_lies_outside_the_band_is_not_received(offset: float) -> None:
    silent = scene([], 10e6)
    sent: list[Transmitter] = [Carrier(full_lte(), offset, 30), Emitter(busy_wlan(), offset, 30)]
    made = scene(sent, 10e6)
    assert not made.mask(SPEC, LABELS).any()
    np.testing.assert_allclose(made.samples, silent.samples, atol=1e-6)


def test_the_visible_part_of_a_grid_sounds_like_the_whole() -> None:
    grid = nr_downlink(
        NRConfig(bandwidth=100e6, subcarrier_spacing=30e3, ssb_case="C", load="full"), np.random.default_rng(0), 4
    )
    cut, centre = visible(grid, -9e6, 5e6)
    assert cut.sample_rate < 0.25 * grid.sample_rate
    np.testing.assert_allclose(cut.symbol_start / cut.sample_rate, grid.symbol_start / grid.sample_rate)
    edges = centre + (cut.lowest_subcarrier + np.array([0, cut.values.shape[1] - 1])) * 30e3
    assert edges.tolist() == pytest.approx([-9e6, 5e6], abs=30e3)
    # The symbols that are sent are those of the whole.
    body = modulate(cut)[cut.symbol_start[1] - cut.n_fft : cut.symbol_start[1]]
    heard = np.fft.fft(body)[(cut.lowest_subcarrier + np.arange(cut.values.shape[1])) % cut.n_fft] / cut.n_fft
    np.testing.assert_allclose(heard, cut.values[0], atol=1e-4)
    nothing, _ = visible(grid, 60e6, 70e6)
    assert nothing.values.shape[1] == 0


def test_the_receivers_filter_rolls_off_at_the_edges() -> None:
    made = scene([], 20e6, Receiver(roll_off=0.1, depth_db=40))
    level = 10 * np.log10(power(made.samples, 20e6, SPEC).mean(axis=0))
    assert level[128] - level[2] > 25
    assert abs(level[128] - level[40]) < 0.5


def test_the_noise_is_white_and_as_gaussian_as_a_spectrogram_can_tell() -> None:
    energy = power(scene([], 40e6).samples, 40e6, SPEC)
    level = 10 * np.log10(energy.mean(axis=0))
    assert np.ptp(level) < 0.5
    frames = np.fft.fft(scene([], 10e6).samples[:200_000].reshape(-1, 200), axis=1)
    assert np.mean(np.abs(frames) ** 4) / np.mean(np.abs(frames) ** 2) ** 2 == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("rate", [1.92e6, 2.048e6, 7.123456e6, 122.88e6])
def test_any_rate_fills_the_window(rate: float) -> None:
    made = scene([], rate)
    assert SPEC.steps_in(len(made.samples), rate) == SPEC.n_steps
    assert made.mask(SPEC, LABELS).shape == (SPEC.n_steps, SPEC.n_fft(rate))


def test_signals_begin_at_the_margin() -> None:
    """A signal that starts 10 ms into the samples is 10 ms less the margin into the scene."""
    n = round(WHOLE * 2e6)
    samples = np.zeros(n, np.complex64)
    samples[round(10e-3 * 2e6) :] = np.exp(0.5j * np.pi * np.random.default_rng(0).integers(0, 4, n - 20_000))
    signal = Signal("other", samples, 2e6, Bursts.of(10e-3, WHOLE, -1e6, 1e6))
    made = scene([Emitter(signal, 0.0, 30)], 4e6)
    first = int(np.argmax(power(made.samples, 4e6, SPEC)[:, 128] > 1e-2 * power(made.samples, 4e6, SPEC)[:, 128].max()))
    assert first == int((10e-3 - MARGIN) / SPEC.time_step)
    assert np.argmax(made.mask(SPEC, LABELS)[:, 128] > 0) == first


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


def test_a_comb_of_reference_signals_is_one_signal_however_narrow_the_bins() -> None:
    """CRS of one port are every sixth subcarrier (TS 36.211 clause 6.10.1.2); a block that is not sent stays a gap."""
    used = np.zeros((2, 72), bool)
    used[0, 3::6] = True
    used[1, [0, 11, 23, 36]] = True
    closed = between_teeth(used)
    assert np.flatnonzero(closed[0]).tolist() == list(range(3, 70))
    assert np.flatnonzero(closed[1]).tolist() == [*range(24), 36]
    assert not between_teeth(np.zeros((1, 72), bool)).any()
    crs_alone = lte_downlink(LTEConfig(n_prb=6, n_ports=1, load=0.0, duplex="FDD"), np.random.default_rng(0), 44)
    mask = scene([Carrier(crs_alone, 0.0, 30)], 1.92e6).mask(SPEC, LABELS)
    inside = mask[:, 64:192]  # 0.96 MHz of its 1.08; bins of half a subcarrier
    assert (np.ptp(inside, axis=1) == 0).mean() > 0.95  # a step has the whole carrier or nothing, but for the PDCCH
    assert 0.5 < (inside > 0).mean() < 1
