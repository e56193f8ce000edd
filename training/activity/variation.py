# SPDX-License-Identifier: Apache-2.0
"""Varied windows and pictures, so that a model does not learn one room, one body and one receiver by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.csi import CSISpec, picture_of
from training.activity.recipe import Variation


@dataclass(frozen=True, eq=False)
class Pictures:
    """Model inputs of a set of windows: as they are, and varied.

    Attributes
    ----------
    plain : (window, n_steps, n_bins) float16
    varied : (window, variant, n_steps, n_bins) float16
    """

    plain: NDArray[np.float16]
    varied: NDArray[np.float16]


def pictures(amplitudes: Sequence[NDArray[np.float32]], spec: CSISpec, variation: Variation, seed: int) -> Pictures:
    """Show windows as they are and varied; the same seed gives the same pictures."""
    rng = np.random.default_rng([seed, 2])
    plain = np.empty((len(amplitudes), spec.n_steps, spec.n_bins), np.float16)
    varied = np.empty((len(amplitudes), variation.variants, spec.n_steps, spec.n_bins), np.float16)
    for index, amplitude in enumerate(amplitudes):
        plain[index] = picture_of(amplitude, spec)
        for variant in range(variation.variants):
            varied[index, variant] = picture_of(vary(amplitude, variation, rng), spec)
    return Pictures(plain, varied)


def vary(amplitude: NDArray[np.float32], variation: Variation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change speed, place in time, antennas, band and gain of a window of (step, antenna, subcarrier) amplitudes."""
    steps, antennas, subcarriers = amplitude.shape
    speed = np.exp(rng.uniform(-variation.speed, variation.speed))
    shift = rng.uniform(-variation.shift, variation.shift) * steps
    moved = replay(amplitude, (np.arange(steps) - steps / 2) * speed + steps / 2 + shift)
    moved = moved[:, rng.permutation(antennas)] * np.exp(rng.normal(0, variation.antenna_gain, (1, antennas, 1)))
    dropped = (1 - variation.subcarriers_kept) / 2 * subcarriers
    moved = moved[:, :, int(rng.uniform(0, dropped)) : subcarriers - int(rng.uniform(0, dropped))]
    if rng.random() < 0.5:
        moved = moved[:, :, ::-1]
    return (moved * (1 + rng.normal(0, variation.gain_noise, (steps, 1, 1)))).astype(np.float32)


def replay(amplitude: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Amplitudes at fractional steps; time turns back at both ends of the window."""
    last = len(amplitude) - 1
    places = np.abs(places)
    places = np.clip(np.where(places > last, 2 * last - places, places), 0, last)
    before = np.minimum(places.astype(np.int64), last - 1)
    share = (places - before).astype(np.float32)[:, None, None]
    return (1 - share) * amplitude[before] + share * amplitude[before + 1]


def blot(batch: NDArray[np.float32], variation: Variation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blot out two stretches of time and one of bins of every picture, and shift its level (Park et al. 2019).

    Parameters
    ----------
    batch : (picture, n_steps, n_bins) float32
        Changed in place, and given back.
    """
    _, steps, bins = batch.shape
    for picture in batch:
        for _ in range(2):
            start, end = _stretch(steps, variation.time_mask, rng)
            picture[start:end] = picture.mean()
        start, end = _stretch(bins, variation.bin_mask, rng)
        picture[:, start:end] = 0
        picture += np.float32(rng.normal(0, variation.level))
    return batch


def _stretch(size: int, longest: float, rng: np.random.Generator) -> tuple[int, int]:
    length = int(rng.integers(0, int(longest * size) + 1))
    start = int(rng.integers(0, size - length + 1))
    return start, start + length
