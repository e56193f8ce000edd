# SPDX-License-Identifier: Apache-2.0
"""Long transforms are those of SciPy, and curves over a band go through their knots."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from training.signals import transform


def over_band(gains: np.ndarray, n: int) -> np.ndarray:
    return np.repeat(gains, transform._stride(n))[:n]


@pytest.mark.parametrize("n", [1, 7, 4096, 1_048_576, 1_290_240, 2**20 + 7, 1_764_000])
def test_long_transforms_are_those_of_scipy(n: int) -> None:
    given = np.random.default_rng(0).standard_normal((n, 2), np.float32).view(np.complex64)[:, 0]
    kept = given.copy()
    for ours, theirs in ((transform.fft, scipy.fft.fft), (transform.ifft, scipy.fft.ifft)):
        expected = theirs(given.astype(np.complex128))
        result = ours(given)
        assert result.dtype == np.complex64
        np.testing.assert_allclose(result, expected, atol=3e-6 * np.abs(expected).max())
        np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("n", [1, 7, 8192, 50_001, 840_000])
def test_gains_over_a_band_are_in_the_order_of_a_transform(n: int) -> None:
    gains = transform.band_blocks(n).astype(np.float32)
    assert len(gains) <= 2 * 8192
    frequency = np.fft.fftfreq(n)
    frequency[frequency == -0.5] = 0.5 if n // 8192 > 1 else -0.5
    distance = np.abs(over_band(gains, n) - frequency)
    distance = np.minimum(distance, 1 - distance)  # a block may lie across the band's edge
    assert distance.max() <= 1 / 8192
    spectrum = np.ones(n, np.complex64)
    transform.scale_band(spectrum, 2 * gains)
    np.testing.assert_array_equal(spectrum, 2 * over_band(gains, n))


def test_pieces_of_a_curve_make_up_the_whole() -> None:
    knots = np.random.default_rng(0).standard_normal((40, 2), np.float32).view(np.complex64)[:, 0]
    curve = transform.Curve(knots, 13)
    whole = curve.piece(0, 400)
    expected = np.interp(np.arange(400) / 13, np.arange(40), knots.real)
    np.testing.assert_allclose(whole.real, expected, atol=1e-5)
    for size in (1, 13, 64, 399):
        pieces = [curve.piece(first, min(size, 400 - first)) for first in range(0, 400, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
