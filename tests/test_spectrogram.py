# SPDX-License-Identifier: Apache-2.0
"""The picture against scipy.signal, and the noise floor against receivers that try to fool it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from rfvit_rt.errors import SpecMismatch
from rfvit_rt.spectrogram import SpectrogramSpec, join_tiles, noise_floor, power, spectrogram, tiles

SPEC = SpectrogramSpec()
RATES = [1.92e6, 2e6, 2.4e6, 7.68e6, 19.2e6, 20e6, 61.44e6, 100e6, 250e6]


def noise(rate: float, seed: int = 1, share: float = 1.0) -> NDArray[np.complex64]:
    """White complex Gaussian noise of power 2 that fills a share of a window."""
    count = int(SPEC.window_length(rate) * share)
    return np.random.default_rng(seed).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]


def behind_filter(samples: NDArray[np.complex64], skirt: float, depth_db: float) -> NDArray[np.complex64]:
    """A receiver whose pass band falls by `depth_db` over a share `skirt` of the band at either edge."""
    offset = np.abs(np.fft.fftfreq(len(samples)))
    attenuation = np.clip((offset - 0.5 + skirt) / skirt, 0, 1) * depth_db
    return np.fft.ifft(np.fft.fft(samples) * 10 ** (-attenuation / 20)).astype(np.complex64)


@pytest.mark.parametrize(
    "change", [{"time_step": 1e308}, {"time_step": 1e-8}, {"time_step": 1e-7}, {"dynamic_range": 10**400}]
)
def test_a_spec_that_no_window_fits_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="spectrogram"):
        SpectrogramSpec(**change)


@pytest.mark.parametrize("rate", [2e6, 19.2e6, 100e6])
def test_power_is_the_mean_of_scipys_periodograms(rate: float) -> None:
    samples = noise(rate)
    n_fft = SPEC.n_fft(rate)
    stft = scipy.signal.ShortTimeFFT(
        scipy.signal.get_window("hann", n_fft), n_fft // 2, rate, fft_mode="centered", scale_to=None
    )
    frames = np.arange(1, 1 + (len(samples) - n_fft) // (n_fft // 2) + 1)  # those that lie wholly inside
    energy = np.abs(stft.stft(samples)[:, frames - stft.p_min]) ** 2 / np.sum(stft.win**2)  # (bin, frame)
    step = np.floor(frames * (n_fft // 2) / SPEC.step_length(rate)).astype(int)
    expected = np.stack([energy[:, step == s].mean(axis=1) for s in range(SPEC.n_steps)])
    # float32 FFTs of this size are good to about 1e-6 of the largest value
    np.testing.assert_allclose(power(samples, rate, SPEC), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_white_noise_is_zero_db_at_every_rate(rate: float) -> None:
    energy = power(noise(rate), rate, SPEC)
    assert energy.shape == (256, SPEC.n_fft(rate))
    assert energy.mean() == pytest.approx(2.0, rel=0.02)
    assert 10 * np.log10(energy.mean() / noise_floor(energy, rate, SPEC)) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("gain", [1e-4, 0.3, 256.0, 1e4])
def test_noise_at_any_gain_gives_the_same_picture(gain: float) -> None:
    samples = noise(20e6)
    np.testing.assert_allclose(
        spectrogram(samples * np.float32(gain), 20e6, SPEC), spectrogram(samples, 20e6, SPEC), atol=1e-4
    )


@pytest.mark.parametrize("rate", [2.4e6, 19.2e6, 61.44e6])
@pytest.mark.parametrize(("skirt", "depth_db"), [(0.025, 20), (0.1, 20), (0.1, 60), (0.05, 40)])
def test_filter_skirts_do_not_move_the_floor(rate: float, skirt: float, depth_db: float) -> None:
    plain, filtered = (spectrogram(s, rate, SPEC) for s in (noise(rate), behind_filter(noise(rate), skirt, depth_db)))
    inside = slice(int(256 * skirt) + 6, 256 - int(256 * skirt) - 6)
    difference_db = (filtered - plain)[:, inside] * SPEC.db_scale
    assert abs(np.median(difference_db)) < 0.3
    assert np.mean(filtered[:, inside]) * SPEC.db_scale == pytest.approx(
        np.mean(plain[:, inside]) * SPEC.db_scale, abs=0.3
    )


def test_a_carrier_that_fills_nine_tenths_does_not_become_the_floor() -> None:
    rate = 20e6
    carrier = behind_filter(noise(rate, seed=2), 0.05, 90) * np.float32(10)  # 20 dB over the noise
    image = spectrogram(carrier + noise(rate), rate, SPEC) * SPEC.db_scale
    assert image[:, 30:-30].mean() == pytest.approx(20, abs=0.7)
    assert image[:, :4].mean() == pytest.approx(0, abs=0.7)


def test_a_burst_shorter_than_a_step_is_seen_wherever_it_falls() -> None:
    rate = 20e6
    for start in (100_000, 101_563, 103_000):
        samples = noise(rate)
        samples[start : start + 600] += 30 * np.exp(2j * np.pi * 0.1 * np.arange(600)).astype(np.complex64)
        image = spectrogram(samples, rate, SPEC) * SPEC.db_scale
        step, frequency_bin = np.unravel_index(np.argmax(image), image.shape)
        assert abs(step - start // 3125) <= 1
        assert frequency_bin == pytest.approx(128 + 0.1 * 256, abs=1)
        assert image.max() > 20


@pytest.mark.parametrize("share", [0.025, 0.3])
def test_a_short_window_has_fewer_steps_of_the_same_level(share: float) -> None:
    image = spectrogram(noise(20e6, share=share), 20e6, SPEC)
    assert len(image) == int(256 * share)
    assert image.mean() * SPEC.db_scale == pytest.approx(0, abs=0.7)
    inputs = tiles(image, SPEC)
    assert inputs.shape == (1, 256, 256)
    assert not inputs[0, len(image) :].any()


def test_silence_gives_zero() -> None:
    assert not spectrogram(np.zeros(800_000, np.complex64), 20e6, SPEC).any()


def test_strong_signals_keep_their_texture() -> None:
    samples = behind_filter(noise(20e6, seed=3), 0.3, 200) * np.float32(1e5) + noise(20e6)  # 100 dB
    image = spectrogram(samples, 20e6, SPEC) * SPEC.db_scale
    assert image.max() < SPEC.db_max
    assert image[:, 100:150].std() > 0.5


@pytest.mark.parametrize(
    ("rate", "n_fft", "starts"), [(61.44e6, 256, [0]), (61.5e6, 512, [0, 128, 256]), (250e6, 2048, None)]
)
def test_tiles_cover_wide_bands_and_join_again(rate: float, n_fft: int, starts: list[int] | None) -> None:
    assert SPEC.n_fft(rate) == n_fft
    assert rate / n_fft <= SPEC.max_bin_width
    if starts is not None:
        assert SPEC.tile_starts(n_fft) == starts
    image = np.random.default_rng(0).random((256, n_fft), np.float32)
    cut = tiles(image, SPEC)
    joined = join_tiles(cut[..., None], n_fft, SPEC)
    np.testing.assert_allclose(joined[..., 0], image, rtol=1e-5)


def test_wrong_rate_and_too_few_samples_are_refused() -> None:
    with pytest.raises(SpecMismatch, match=r"1 MS/s.*resample"):
        spectrogram(np.zeros(100_000, np.complex64), 1e6, SPEC)
    with pytest.raises(SpecMismatch, match="do not fill"):
        spectrogram(np.zeros(3124, np.complex64), 20e6, SPEC)
