# SPDX-License-Identifier: Apache-2.0
"""Gold sequences against the standard's own words, QAM against its power."""

from __future__ import annotations

import numpy as np
import pytest

from training.signals.sequences import gold_sequences, qpsk, random_qam


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def registers(c_init: int, length: int) -> list[int]:
    """The text of TS 38.211 clause 5.2.1, bit by bit."""
    x1, x2 = [1] + [0] * 30, [c_init >> i & 1 for i in range(31)]
    for n in range(1600 + length):
        x1.append((x1[n + 3] + x1[n]) % 2)
        x2.append((x2[n + 3] + x2[n + 2] + x2[n + 1] + x2[n]) % 2)
    return [(x1[n + 1600] + x2[n + 1600]) % 2 for n in range(length)]


@pytest.mark.parametrize("c_init", [0, 1, 0x1234567, 2**31 - 1])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 3300])
def test_gold_sequence_is_that_of_the_standard(c_init: int, length: int) -> None:
    assert gold_sequences(c_init, length).tolist() == registers(c_init, length)


def test_many_gold_sequences_at_once_are_the_single_ones() -> None:
    c_inits = rng().integers(0, 2**31, (3, 4))
    many = gold_sequences(c_inits, 100)
    assert many.shape == (3, 4, 100)
    assert (many[2, 1] == gold_sequences(int(c_inits[2, 1]), 100)).all()


def test_qpsk_maps_bits_as_the_standard_does() -> None:
    bits = np.array([0, 0, 0, 1, 1, 0, 1, 1], np.uint8)
    np.testing.assert_allclose(qpsk(bits) * np.sqrt(2), [1 + 1j, 1 - 1j, -1 + 1j, -1 - 1j], rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_qam_has_all_its_points_and_mean_power_one(bits: int) -> None:
    points, counts = np.unique(random_qam(rng(), 200_000, bits), return_counts=True)
    assert len(points) == 2**bits
    assert counts.min() > 0.8 * counts.mean()
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1, rel=1e-5)


def test_qam_of_an_odd_number_of_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="bits_per_symbol is 3"):
        random_qam(rng(), 4, 3)


def test_gold_sequences_are_balanced_and_unlike_each_other() -> None:
    signs = 1 - 2.0 * gold_sequences(np.random.default_rng(0).integers(2**31, size=199), 4000)
    correlation = signs @ signs.T / 4000 - np.eye(199)
    assert np.abs(correlation).max() < 0.09  # 5.5 standard deviations of random signs
    assert np.abs(signs.mean(axis=1)).max() < 0.09
