# SPDX-License-Identifier: Apache-2.0
"""Receivers' faults: each of the size that its parameters say, none touching its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from training.signals import receiver as rx
from training.signals.receiver import Receiver, Spur, random_receiver
from training.signals.scene import on_the_air
from training.signals.transform import band_blocks

RATE = 10e6
N = 400_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int = N, power: float = 1.0, seed: int = 1) -> NDArray[np.complex64]:
    return (rng(seed).standard_normal((n, 2), np.float32) * np.float32(np.sqrt(power / 2))).view(np.complex64)[:, 0]


def tone(cycles: int, n: int = N) -> NDArray[np.complex64]:
    return np.exp(2j * np.pi * cycles * np.arange(n) / n).astype(np.complex64)


def lines(samples: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Power of every whole number of cycles."""
    return np.abs(np.fft.fft(samples) / len(samples)) ** 2


def decibels(power: NDArray | float) -> NDArray:
    return 10 * np.log10(power)


def heard(receiver: Receiver) -> NDArray[np.complex64]:
    """What a receiver makes of a band in which nobody sends: (N,)."""
    return on_the_air((), RATE, N / RATE, receiver, rng())


# --- Over the band ---


def response(receiver: Receiver, n: int) -> NDArray[np.float32]:
    """Of so few frequencies every one is a block."""
    return rx.signal_and_noise(receiver, n, rng())[0]


def test_the_filter_falls_over_its_share_of_the_band_to_its_depth() -> None:
    receiver = Receiver(roll_off=0.1, depth_db=40, stop=0.05)
    gain_db = np.fft.fftshift(2 * decibels(response(receiver, 10_000)))
    offset = np.arange(-0.5, 0.5, 1e-4)
    np.testing.assert_allclose(gain_db[np.abs(offset) < 0.349], 0, atol=1e-3)
    np.testing.assert_allclose(gain_db[np.abs(offset) > 0.451], -40, atol=1e-2)
    assert gain_db[np.abs(offset - 0.4) < 1e-5][0] == pytest.approx(-40 * 0.5**1.5, abs=0.05)
    assert (np.diff(gain_db[offset > 0.35]) <= 1e-4).all()


def test_tilt_and_ripple_have_their_size() -> None:
    tilted = np.fft.fftshift(2 * decibels(response(Receiver(tilt_db=6), 9_999)))
    assert tilted[-1] - tilted[0] == pytest.approx(6, abs=0.01)
    rippled = 2 * decibels(response(Receiver(ripple_db=1.5, ripple_period=0.25), 10_000))
    assert np.ptp(rippled) == pytest.approx(3, abs=0.01)
    spectrum = np.abs(np.fft.rfft(np.fft.fftshift(rippled)))
    assert spectrum.argmax() == 4


@pytest.mark.parametrize("n", [1, 7, 4096, 50_001])
def test_amplitudes_are_those_of_the_bands_blocks(n: int) -> None:
    receiver = Receiver(noise_tilt_db=3, noise_hump_db=6)
    passed, shape = rx.signal_and_noise(receiver, n, rng())
    assert passed.shape == shape.shape == band_blocks(n).shape
    assert shape.dtype == np.float32
    assert np.mean(shape**2) == pytest.approx(1, rel=1e-3)


def test_coloured_noise_has_its_hump_and_tilt() -> None:
    receiver = Receiver(noise_tilt_db=4, noise_hump_db=6, noise_hump_at=0.2, noise_hump_width=0.05)
    frequency, density = scipy.signal.welch(heard(receiver), 1.0, nperseg=256, return_onesided=False, detrend=False)
    level = {at: decibels(density[np.abs(frequency - at) < 0.012].mean()) for at in (-0.4, 0.0, 0.2, 0.4)}
    assert level[0.0] - level[-0.4] == pytest.approx(1.6, abs=0.4)
    assert level[0.2] - level[0.0] == pytest.approx(6 + 0.8, abs=0.4)
    assert level[0.4] - level[0.0] == pytest.approx(1.6, abs=0.4)


# --- The mixer ---


@pytest.mark.parametrize(("gain_db", "phase"), [(0.5, 0.0), (0.0, 2.0), (1.0, -3.0)])
def test_imbalance_makes_an_image_of_its_level(gain_db: float, phase: float) -> None:
    power = lines(rx.iq_imbalance(tone(1000), gain_db, phase))
    # Image rejection of a gain ratio g and an error φ: (1 + g² + 2 g cos φ) / (1 + g² - 2 g cos φ).
    g, cosine = 10 ** (gain_db / 20), np.cos(np.radians(phase))
    rejection = (1 + g**2 + 2 * g * cosine) / (1 + g**2 - 2 * g * cosine)
    assert power[1000] / power[-1000] == pytest.approx(rejection, rel=1e-3)
    # The parts themselves are those of a branch of other gain and angle.
    given = noise(1000)
    result = rx.iq_imbalance(given, gain_db, phase)
    np.testing.assert_allclose(result.real, given.real, atol=1e-5)
    expected = g * (given.imag * cosine + given.real * np.sin(np.radians(phase)))
    np.testing.assert_allclose(result.imag, expected, atol=1e-5)


def test_wiener_phase_noise_has_its_linewidth() -> None:
    linewidth = 2e3
    spectra = [np.abs(np.fft.fft(rx.oscillator(N, RATE, rng(seed), linewidth).piece(0, N))) ** 2 for seed in range(60)]
    mean = np.mean(spectra, axis=0)
    frequency = np.fft.fftfreq(N, 1 / RATE)
    share = mean[np.abs(frequency) <= linewidth / 2].sum() / mean.sum()
    assert share == pytest.approx(0.5, abs=0.08)  # of a Lorentzian, within its half-power width
    phasors = rx.oscillator(N, RATE, rng(), linewidth).piece(0, N)
    assert np.mean(np.abs(phasors) ** 2) == pytest.approx(1, rel=0.02)


def test_the_plateau_has_its_density_and_ends_at_the_loop_bandwidth() -> None:
    result = np.mean(
        [
            np.abs(np.fft.fft(rx.oscillator(N, RATE, rng(seed), 0.0, -80.0, 200e3).piece(0, N))) ** 2
            for seed in range(20)
        ],
        axis=0,
    ) / (N * RATE)
    frequency = np.fft.fftfreq(N, 1 / RATE)
    inside = (np.abs(frequency) > 10e3) & (np.abs(frequency) < 50e3)
    assert decibels(result[inside].mean()) == pytest.approx(-80, abs=1)
    outside = (frequency > 600e3) & (frequency < 700e3)
    assert decibels(result[outside].mean()) < -80 - 15


def test_a_clean_oscillator_stands_still() -> None:
    np.testing.assert_allclose(rx.oscillator(1000, RATE, rng(), 0.0).piece(0, 1000), 1, atol=1e-6)


def test_faults_are_the_same_whatever_pieces_they_are_applied_in(monkeypatch: pytest.MonkeyPatch) -> None:
    given = noise(50_000)
    receiver = Receiver(linewidth=100.0, plateau_dbc=-80.0, dc_db=0.0, flicker_db=-10.0, gain_imbalance_db=1.0)
    receiver = replace(receiver, compression_db=6.0, phase_imbalance=2.0)
    whole = rx.mix(given, RATE, 1.0, receiver, rng())
    monkeypatch.setattr(rx, "_PIECE", 777)
    np.testing.assert_allclose(rx.mix(given, RATE, 1.0, receiver, rng()), whole, atol=1e-6)


def test_the_offset_has_its_power_and_a_skirt_that_falls_as_one_over_f() -> None:
    results = [lines(rx.dc_offset(N, RATE, rng(seed), 4.0, 0.5, 20e3).piece(0, N)) for seed in range(30)]
    mean = np.mean(results, axis=0)
    spacing = RATE / N
    assert mean[0] == pytest.approx(4, rel=0.15)
    skirt = mean.sum() - mean[0]
    assert skirt == pytest.approx(0.5, rel=0.15)
    levels = [mean[round(at / spacing * 0.8) : round(at / spacing * 1.25)].mean() for at in (1e3, 4e3, 16e3)]
    assert levels[0] / levels[1] == pytest.approx(4, rel=0.4)
    assert levels[1] / levels[2] == pytest.approx(4, rel=0.4)
    far = mean[round(80e3 / spacing) : -round(80e3 / spacing)]
    assert far.max() < 0.01 * levels[2]  # nothing but images of the interpolation
    assert not rx.dc_offset(N, RATE, rng(), 0.0).piece(0, N).any()


def test_compression_bounds_the_magnitude_keeps_the_phase_and_makes_intermodulation() -> None:
    given = noise() * np.float32(3)
    result = rx.compress(given, 2.0)
    assert np.abs(result).max() < 2
    np.testing.assert_allclose(np.angle(result * given.conj()), 0, atol=1e-4)
    np.testing.assert_allclose(rx.compress(given, 1e4), given, rtol=1e-5)
    two = lines(rx.compress(tone(1000) + tone(1200), 2.0))
    assert two[800] > 1e-3 * two[1000]
    assert two[800] == pytest.approx(two[1400], rel=1e-3)


# --- Gain and converter ---


def test_gain_steps_are_whole_steps_at_their_rate() -> None:
    result = rx.agc_steps(np.ones(N, np.complex64), RATE, rng(3), 500.0, 2.0)
    level = 2 * decibels(np.abs(result)) / 2.0
    np.testing.assert_allclose(level, np.round(level), atol=1e-3)
    assert np.abs(level).max() < 3.5
    changes = np.flatnonzero(np.abs(np.diff(level)) > 0.5)
    assert 8 <= len(changes) <= 32  # 20 in 40 ms, in the mean
    np.testing.assert_allclose(np.abs(np.diff(level))[changes], 1, atol=1e-3)
    unchanged = rx.agc_steps(np.ones(10, np.complex64), RATE, rng(), 1e-6, 1.0)
    np.testing.assert_array_equal(unchanged, np.ones(10))


def test_spurs_have_their_places_and_levels() -> None:
    spurs = (Spur(0.1, -10.0), Spur(-0.33, 3.0))
    power = lines(rx.spurious(np.zeros(N, np.complex64), rng(), spurs, noise_power=2.0))
    assert power[round(0.1 * N)] == pytest.approx(0.2, rel=1e-3)
    assert power[round(-0.33 * N)] == pytest.approx(4, rel=1e-2)
    assert power.sum() == pytest.approx(4.19, rel=0.01)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_rounding_has_its_levels_and_its_noise(bits: int) -> None:
    given = np.ones(N, np.complex64) * np.float32(1.9) * noise(N, 0.05)
    result = rx.quantise(given, bits, 2.0)
    levels = 2 ** (bits - 1) - 1
    scaled = result.view(np.float32) * levels
    np.testing.assert_allclose(scaled, np.round(scaled), atol=1e-2)
    error = np.mean(np.abs(result * 2 - given) ** 2)
    assert error == pytest.approx((2 / levels) ** 2 / 6, rel=0.05)  # a twelfth of the step's square in either part


def test_saturation_clips_both_parts_at_full_scale() -> None:
    result = rx.quantise(noise(N, 8.0), 12, 1.0)
    parts = result.view(np.float32)
    assert parts.max() == 1
    assert parts.min() == -1
    assert np.mean(np.abs(parts) == 1) == pytest.approx(0.617, abs=0.01)  # beyond half a standard deviation


# --- All of it, as scenes go through it ---


def test_a_converter_without_faults_changes_nothing_but_the_scale() -> None:
    given = noise()
    result = rx.digitise(given, RATE, 1.0, Receiver(headroom_db=20), rng())
    scale = np.sqrt(np.mean(np.abs(given) ** 2) / np.mean(np.abs(result) ** 2))
    assert scale == pytest.approx(10, rel=0.01)
    np.testing.assert_allclose(result * scale, given, atol=1e-3)


def test_noise_is_white_and_gaussian_as_a_spectrogram_sees_it() -> None:
    result = heard(Receiver())
    _, density = scipy.signal.welch(result, 1.0, nperseg=64, return_onesided=False, detrend=False)
    assert np.ptp(decibels(density)) < 0.5
    assert abs(np.mean(result)) < 0.01 * np.sqrt(np.mean(np.abs(result) ** 2))
    spectra = np.fft.fft(result.reshape(-1, 200), axis=1)[:, 3]
    kurtosis = np.mean(np.abs(spectra) ** 4) / np.mean(np.abs(spectra) ** 2) ** 2
    assert kurtosis == pytest.approx(2, abs=0.15)


def test_levels_relate_to_the_noise() -> None:
    power = lines(heard(Receiver(dc_db=0.0, spurs=(Spur(0.25, 10.0),))))
    assert power[round(0.25 * N)] / power[0] == pytest.approx(10, rel=0.05)
    density = power[1000:50_000].mean() * N
    assert power[0] / density == pytest.approx(1, rel=0.05)


def test_converter_noise_fills_the_stop_band() -> None:
    receiver = Receiver(roll_off=0.1, depth_db=60, stop=0.1, adc_noise_db=-30)
    frequency, density = scipy.signal.welch(heard(receiver), 1.0, nperseg=256, return_onesided=False)
    stop = density[np.abs(frequency) > 0.42].mean() / density[np.abs(frequency) < 0.25].mean()
    assert decibels(stop) == pytest.approx(-30, abs=0.5)


def test_no_stage_writes_into_its_input() -> None:
    given = noise(10_000)
    kept = given.copy()
    full = replace(random_receiver(rng(1)), compression_db=5, gain_imbalance_db=1, dc_db=0, flicker_db=-10)
    full = replace(full, agc_rate=5000, spurs=(Spur(0.1, 0.0),))
    for stage in (rx.mix, rx.digitise):
        for receiver in (full, Receiver()):
            for seed in range(3):
                stage(given, RATE, 1.0, receiver, rng(seed))
                np.testing.assert_array_equal(given, kept)


def test_random_receivers_are_possible_various_and_seeded() -> None:
    found = [random_receiver(rng(seed)) for seed in range(80)]
    for seed, receiver in enumerate(found):
        assert receiver == random_receiver(rng(seed))
        result = on_the_air((), 20e6, 1e-3, receiver, rng(seed))
        assert result.dtype == np.complex64
        assert np.abs(result.view(np.float32)).max() <= 1
        assert np.isfinite(result.view(np.float32)).all()
        np.testing.assert_array_equal(result, on_the_air((), 20e6, 1e-3, receiver, rng(seed)))
    assert {receiver.bits for receiver in found} >= {8, 12, 16}
    assert 0.05 <= min(receiver.roll_off for receiver in found if receiver.roll_off) <= 0.08
    assert any(receiver.spurs for receiver in found)
    assert any(receiver.agc_rate for receiver in found)
    assert any(receiver == replace(receiver, dc_db=-np.inf) for receiver in found)
