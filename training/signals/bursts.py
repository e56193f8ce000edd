# SPDX-License-Identifier: Apache-2.0
"""Signals that come in bursts rather than on one resource grid, and where they hold energy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from training.signals.grid import ResourceGrid, between_teeth

# A rectangle counts in a pixel that holds this share of it, or of which it fills this share: contact does not label.
_LEAST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Bursts:
    """Rectangles of time and frequency that a transmitter has allocated energy in; they may overlap.

    Attributes
    ----------
    start, stop : (burst,) float64
        In seconds from the signal's first sample.
    low, high : (burst,) float64
        In Hz from the signal's centre.
    """

    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, start: ArrayLike, stop: ArrayLike, low: ArrayLike, high: ArrayLike) -> Bursts:
        """Rectangles of edges that are broadcast against each other."""
        edges = np.broadcast_arrays(*(np.asarray(edge, np.float64) for edge in (start, stop, low, high)))
        return cls(*(np.ravel(edge) for edge in edges))

    def __len__(self) -> int:
        return len(self.start)

    def moved(self, time: float = 0.0, frequency: float = 0.0) -> Bursts:
        """The same rectangles later, in seconds, and higher, in Hz."""
        return Bursts(self.start + time, self.stop + time, self.low + frequency, self.high + frequency)


@dataclass(frozen=True, eq=False)
class Signal:
    """What a transmitter, or several that share a channel, send for a while.

    Attributes
    ----------
    label : str
        Class name, for example ``WLAN``.
    samples : (n,) complex64
        Baseband; of mean power 1 where the strongest transmitter is on.
    sample_rate : float
        In Hz.
    bursts : Bursts
        Where the energy is; may reach beyond the samples.
    """

    label: str
    samples: NDArray[np.complex64]
    sample_rate: float
    bursts: Bursts


def join(parts: Iterable[Bursts]) -> Bursts:
    """All rectangles of several; none of none."""
    found = list(parts)
    if not found:
        return Bursts.of([], [], [], [])
    return Bursts(*(np.concatenate([getattr(p, edge) for p in found]) for edge in ("start", "stop", "low", "high")))


def grid_bursts(grid: ResourceGrid) -> Bursts:
    """Allocated resource elements of a grid, as runs of subcarriers in every symbol with its cyclic prefix.

    Combs are whole: :func:`training.signals.grid.between_teeth`.
    """
    used = np.pad(between_teeth(grid.values != 0), ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(used, axis=1)
    symbol, first = np.nonzero(edges > 0)  # runs begin and end in the same order
    last = np.nonzero(edges < 0)[1]
    begins = grid.symbol_start / grid.sample_rate
    lower = grid.lowest_subcarrier - 0.5
    spacing = grid.subcarrier_spacing
    return Bursts.of(begins[symbol], begins[symbol + 1], (first + lower) * spacing, (last + lower) * spacing)


def occupancy(bursts: Bursts, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels in which a transmitter has allocated energy, as :func:`training.signals.grid.occupancy`.

    A rectangle counts in a pixel where, along either axis, at least a tenth of the rectangle or a tenth of the pixel,
    whichever is less, lies in both.

    Parameters
    ----------
    bursts : Bursts
    step_edges : (step + 1,) float64
        Edges of the time steps, ascending, in seconds from the signal's first sample.
    bin_edges : (bin + 1,) float64
        Edges of the frequency bins, ascending, in Hz from the signal's centre.

    Returns
    -------
    (step, bin) bool
    """
    first, last = _pixels(bursts.start, bursts.stop, step_edges)
    low, high = _pixels(bursts.low, bursts.high, bin_edges)
    inside = (last > first) & (high > low)
    first, last, low, high = (edge[inside] for edge in (first, last, low, high))
    # Every rectangle adds one at its first corner and takes it back past its edges; sums along both axes fill it.
    shape = (len(step_edges), len(bin_edges))
    corners = [(first, low, 1), (last, low, -1), (first, high, -1), (last, high, 1)]
    count = np.zeros(shape, np.int64)
    for rows, columns, sign in corners:
        count += sign * np.bincount(rows * shape[1] + columns, minlength=count.size).reshape(shape)
    return np.cumsum(np.cumsum(count, axis=0), axis=1)[:-1, :-1] > 0


def random_intervals(
    duration: float, rng: np.random.Generator, length: tuple[float, float], busy: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random bursts and the pauses between them.

    Parameters
    ----------
    duration : float
        In seconds; the first burst may begin before and the last end after it.
    rng : numpy.random.Generator
    length : (float, float)
        Range of the bursts' lengths in seconds, spread evenly in logarithm.
    busy : float
        Mean share of the time that they fill, above 0; 1 is one burst without end.

    Returns
    -------
    start, stop : (burst,) float64
        In seconds.
    """
    if busy >= 1:
        return np.zeros(1), np.full(1, duration)
    starts, stops = [], []
    now = -rng.uniform(0, 2 * length[1])
    while now < duration:
        lasts = np.exp(rng.uniform(np.log(length[0]), np.log(length[1])))
        starts.append(now)
        stops.append(now + lasts)
        now += lasts + rng.exponential(lasts * (1 - busy) / busy)
    return np.array(starts), np.array(stops)


def quick_rate(duration: float, least: float) -> float:
    """Lowest sample rate from `least` Hz on whose number of samples in a duration is quick to transform."""
    return scipy.fft.next_fast_len(int(np.ceil(duration * least))) / duration


def gate(
    n: int, sample_rate: float, start: NDArray[np.float64], stop: NDArray[np.float64], ramp: float
) -> NDArray[np.float32]:
    """Envelope that is 1 within intervals, with cosine ramps of `ramp` seconds inside them: (n,) float32."""
    n_ramp = max(1, round(ramp * sample_rate))
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n_ramp) + 0.5) / n_ramp)).astype(np.float32)
    # Room for ramps that begin before or end after the samples.
    padded = np.zeros(n + 2 * n_ramp, np.float32)
    first = np.clip(np.round(start * sample_rate).astype(int) + n_ramp, 0, len(padded))
    last = np.clip(np.round(stop * sample_rate).astype(int) + n_ramp, 0, len(padded))
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        padded[low:high] = 1
        if high - low >= 2 * n_ramp:
            padded[low : low + n_ramp] = rise
            padded[high - n_ramp : high] = rise[::-1]
    return padded[n_ramp : n_ramp + n]


def _pixels(
    begin: NDArray[np.float64], end: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel along one axis in which each interval counts, and the one after its last."""
    least = _LEAST_SHARE * np.minimum(end - begin, np.diff(edges).min())
    first = np.searchsorted(edges[1:], begin + least, side="left")
    last = np.searchsorted(edges[:-1], end - least, side="right")
    return first, np.maximum(last, first)
