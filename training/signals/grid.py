# SPDX-License-Identifier: Apache-2.0
"""The resource grid that every OFDM carrier here is made of, its modulation, and where it holds energy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray

SUBCARRIERS_PER_RB = 12


@dataclass(frozen=True, eq=False)
class ResourceGrid:
    """What one carrier sends, one value a resource element.

    Attributes
    ----------
    label : str
        Class name, for example ``LTE``.
    values : (symbol, subcarrier) complex64
        Modulation symbols; exactly zero where nothing is sent. Columns are contiguous in frequency; where a standard
        leaves the centre subcarrier unused (LTE), that column is there and zero.
    lowest_subcarrier : int
        Index of the first column relative to the carrier's centre: column ``j`` is at
        ``(lowest_subcarrier + j) * subcarrier_spacing`` Hz.
    subcarrier_spacing : float
        In Hz.
    n_fft : int
        Size of the modulating FFT; the native sample rate is ``n_fft * subcarrier_spacing``.
    cp_lengths : (symbol,) int64
        Cyclic prefix of every symbol, in samples at the native rate.
    """

    label: str
    values: NDArray[np.complex64]
    lowest_subcarrier: int
    subcarrier_spacing: float
    n_fft: int
    cp_lengths: NDArray[np.int64]

    @property
    def sample_rate(self) -> float:
        """Native sample rate in Hz."""
        return self.n_fft * self.subcarrier_spacing

    @cached_property
    def symbol_start(self) -> NDArray[np.int64]:
        """First sample of every symbol, its cyclic prefix included, and the end of the last: (symbol + 1,)."""
        return np.concatenate(([0], np.cumsum(self.cp_lengths + self.n_fft)))

    @property
    def bandwidth(self) -> float:
        """Width in Hz from the lower edge of the lowest to the upper edge of the highest subcarrier."""
        return self.values.shape[1] * self.subcarrier_spacing


def visible(grid: ResourceGrid, low: float, high: float) -> tuple[ResourceGrid, float]:
    """The part of a grid between two frequencies, on the smallest FFT that holds it: the rest costs nothing.

    Every symbol may turn by a phase of its own, as another oscillator's would.

    Parameters
    ----------
    grid : ResourceGrid
    low, high : float
        In Hz from the carrier's centre.

    Returns
    -------
    ResourceGrid
        Perhaps without subcarriers.
    float
        Its centre in Hz from the carrier's.
    """
    columns = grid.lowest_subcarrier + np.arange(grid.values.shape[1])
    first, last = np.searchsorted(columns * grid.subcarrier_spacing, (low, high))
    if first >= last:
        return replace(grid, values=grid.values[:, :0]), 0.0
    centre = int(columns[(first + last) // 2])
    # A tenth more than the subcarriers at every end that is the carrier's, for the filter's slope. The size is a
    # share that leaves prefixes whole numbers of samples.
    ends = (first == 0) + (last == len(columns))
    part = int(np.gcd.reduce(np.append(np.unique(grid.cp_lengths), grid.n_fft)))
    wanted = (1 + 0.1 * ends) * (last - first) * part / grid.n_fft
    size = next((k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 24, 30, 32) if wanted <= k < part), part)
    cut = replace(
        grid,
        values=grid.values[:, first:last],
        lowest_subcarrier=int(columns[first]) - centre,
        n_fft=grid.n_fft * size // part,
        cp_lengths=grid.cp_lengths * size // part,
    )
    return cut, centre * grid.subcarrier_spacing


def modulate(grid: ResourceGrid) -> NDArray[np.complex64]:
    """OFDM baseband of a grid at its native rate (TS 36.211 clause 6.12, TS 38.211 clause 5.3.1).

    A resource element of magnitude 1 contributes a mean power of 1 while its symbol lasts.

    Returns
    -------
    (n,) complex64
    """
    sent = np.flatnonzero(grid.values.any(axis=1))  # most symbols of an idle or TDD carrier are empty
    spectrum = np.zeros((len(sent), grid.n_fft), np.complex64)
    below = min(max(0, -grid.lowest_subcarrier), grid.values.shape[1])
    spectrum[:, grid.n_fft - below :] = grid.values[sent, :below]
    above = grid.lowest_subcarrier + below
    spectrum[:, above : above + grid.values.shape[1] - below] = grid.values[sent, below:]
    bodies = scipy.fft.ifft(spectrum, axis=1, norm="forward", overwrite_x=True)
    iq = np.zeros(grid.symbol_start[-1], np.complex64)
    for body, start, cp in zip(bodies, grid.symbol_start[sent], grid.cp_lengths[sent], strict=True):
        iq[start : start + cp] = body[grid.n_fft - cp :]
        iq[start + cp : start + cp + grid.n_fft] = body
    return iq


def occupancy(grid: ResourceGrid, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels in which the grid has allocated energy: any resource element inside counts, and :func:`between_teeth`.

    Parameters
    ----------
    grid : ResourceGrid
    step_edges : (step + 1,) float64
        Edges of the time steps, in seconds from the start of the grid.
    bin_edges : (bin + 1,) float64
        Edges of the frequency bins, in Hz from the carrier's centre.

    Returns
    -------
    (step, bin) bool
    """
    # A symbol counts in a step that holds at least a tenth of it: mere contact at an edge does not label a pixel.
    lengths = np.diff(grid.symbol_start) / grid.sample_rate
    begins = grid.symbol_start[:-1] / grid.sample_rate
    first = np.searchsorted(begins + 0.9 * lengths, step_edges[:-1], side="right")
    last = np.searchsorted(begins + 0.1 * lengths, step_edges[1:], side="left")
    # A subcarrier belongs to the bin that holds its centre, and to one that it reaches into by a quarter of its width.
    columns = np.arange(grid.values.shape[1]) + grid.lowest_subcarrier
    centres = columns * grid.subcarrier_spacing
    low = np.searchsorted(centres, bin_edges[:-1] - grid.subcarrier_spacing / 4, side="left")
    high = np.searchsorted(centres, bin_edges[1:] + grid.subcarrier_spacing / 4, side="left")
    used = np.zeros(np.add(grid.values.shape, (1, 0)), bool)  # a symbol more, so that every index is one
    used[:-1] = between_teeth(grid.values != 0)
    in_step = np.logical_or.reduceat(used, np.stack((first, last), axis=1).ravel(), axis=0)[::2]
    in_step[last <= first] = False
    summed = np.zeros(np.add(in_step.shape, (0, 1)), np.int32)
    np.cumsum(in_step, axis=1, out=summed[:, 1:])
    return summed[:, np.maximum(high, low)] > summed[:, low]


def between_teeth(used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Count unused subcarriers between used ones that are at most a resource block apart as used.

    Reference signals are combs, mostly of every second to every twelfth subcarrier (TS 36.211 clause 6.10, TS 38.211
    clause 7.4.1), sent as one signal; whether bins are narrow enough to fall between teeth depends on the sample rate.

    Parameters
    ----------
    used : (row, subcarrier) bool

    Returns
    -------
    (row, subcarrier) bool
    """
    columns = np.arange(used.shape[1], dtype=np.int32)
    far = np.int32(SUBCARRIERS_PER_RB + 1)
    below = np.maximum.accumulate(np.where(used, columns, -far), axis=1)
    above = np.minimum.accumulate(np.where(used, columns, used.shape[1] + far)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(above - below <= SUBCARRIERS_PER_RB)
