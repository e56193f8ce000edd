# SPDX-License-Identifier: Apache-2.0
"""Channels: the standard's profiles, their delay and Doppler spreads, and no change of a signal's power."""

from __future__ import annotations

import numpy as np
import pytest

from training.signals.channel import DELAY_SPREADS, LINE_OF_SIGHT, PROFILES, Channel, random_channel


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_have_a_delay_spread_of_one(profile: str) -> None:
    """As clause 7.7.3 needs to scale them: a slip in the table would show."""
    delays, powers_db = np.array(PROFILES[profile]).T
    share = 10 ** (powers_db / 10) / np.sum(10 ** (powers_db / 10))
    spread = np.sqrt(np.sum(share * delays**2) - np.sum(share * delays) ** 2)
    assert spread == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("profile", PROFILES)
def test_gains_have_power_one_whatever_the_fading(profile: str) -> None:
    for seed in range(5):
        gains = Channel(profile, 300e-9, 70.0).gains(np.linspace(0, 0.04, 500), np.linspace(-5e6, 5e6, 300), rng(seed))
        assert gains.shape == (500, 300)
        assert gains.dtype == np.complex64
        assert np.mean(np.abs(gains) ** 2) == pytest.approx(1, rel=1e-4)


def test_a_frozen_channel_has_one_row_and_a_cable_none_but_ones() -> None:
    assert Channel("TDL-A", 100e-9).gains(np.linspace(0, 1, 9), np.arange(7.0), rng()).shape == (1, 7)
    np.testing.assert_array_equal(Channel().gains(np.linspace(0, 1, 9), np.arange(7.0), rng()), np.ones((1, 7)))


def test_the_frequency_correlation_is_that_of_the_delay_profile() -> None:
    """The correlation over frequency is the transform of the power delay profile."""
    lags = np.linspace(0, 3e6, 7)
    delays, powers_db = np.array(PROFILES["TDL-B"]).T
    share = 10 ** (powers_db / 10) / np.sum(10 ** (powers_db / 10))
    expected = np.abs(np.exp(-2j * np.pi * np.outer(lags, delays * 100e-9)) @ share)
    frequencies = np.linspace(-50e6, 50e6, 2001)  # wide against the coherence bandwidth: one draw is nearly the mean
    found = np.zeros(len(lags), np.complex128)
    for seed in range(20):
        gains = Channel("TDL-B", 100e-9).gains(np.zeros(1), frequencies, rng(seed))[0]
        found += [np.vdot(gains[: len(gains) - shift], gains[shift:]) / len(gains) for shift in range(0, 61, 10)]
    np.testing.assert_allclose(np.abs(found / found[0]), expected, atol=0.1)


def test_taps_move_by_no_more_than_the_doppler_spread() -> None:
    times = np.linspace(0, 2, 4000, endpoint=False)
    gains = Channel("TDL-A", 100e-9, 70.0).gains(times, np.array([0.0]), rng(1))[:, 0]
    spectrum = np.abs(np.fft.fft(gains)) ** 2
    frequency = np.abs(np.fft.fftfreq(4000, 2 / 4000))
    assert spectrum[frequency <= 72].sum() > 0.99 * spectrum.sum()
    assert spectrum[(frequency > 35) & (frequency <= 72)].sum() > 0.3 * spectrum.sum()


def test_a_line_of_sight_fades_less() -> None:
    depth = {}
    for profile in PROFILES:
        gains = Channel(profile, 1e-6).gains(np.zeros(1), np.linspace(-50e6, 50e6, 1000), rng(3))
        depth[profile] = np.std(np.abs(gains) ** 2)
    assert max(depth[profile] for profile in LINE_OF_SIGHT) < 0.7 * min(
        depth[profile] for profile in PROFILES if profile not in LINE_OF_SIGHT
    )


def test_random_channels_are_seeded_and_various() -> None:
    found = [random_channel(rng(seed)) for seed in range(100)]
    assert found == [random_channel(rng(seed)) for seed in range(100)]
    assert {channel.profile for channel in found} == {"", *PROFILES}
    assert {channel.delay_spread for channel in found} == set(DELAY_SPREADS)
