# SPDX-License-Identifier: Apache-2.0
"""The resource grid that every OFDM carrier here is made of, its modulation, and where it holds energy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray


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


def modulate(grid: ResourceGrid) -> NDArray[np.complex64]:
    """OFDM baseband of a grid at its native rate (TS 36.211 clause 6.12, TS 38.211 clause 5.3.1).

    A resource element of magnitude 1 contributes a mean power of 1 while its symbol lasts.

    Returns
    -------
    (n,) complex64
    """
    sent = np.flatnonzero(grid.values.any(axis=1))  # most symbols of an idle or TDD carrier are empty
    spectrum = np.zeros((len(sent), grid.n_fft), np.complex64)
    columns = np.arange(grid.lowest_subcarrier, grid.lowest_subcarrier + grid.values.shape[1])
    spectrum[:, columns % grid.n_fft] = grid.values[sent]
    bodies = scipy.fft.ifft(spectrum, axis=1, overwrite_x=True) * np.float32(grid.n_fft)
    iq = np.zeros(grid.symbol_start[-1], np.complex64)
    for body, start, cp in zip(bodies, grid.symbol_start[sent], grid.cp_lengths[sent], strict=True):
        iq[start : start + cp] = body[grid.n_fft - cp :]
        iq[start + cp : start + cp + grid.n_fft] = body
    return iq


def occupancy(grid: ResourceGrid, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels in which the grid has allocated energy: any resource element inside counts.

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
    summed = np.zeros(np.add(grid.values.shape, 1), np.int32)
    summed[1:, 1:] = np.cumsum(np.cumsum(grid.values != 0, axis=0, dtype=np.int32), axis=1)
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
    last, high = np.maximum(last, first), np.maximum(high, low)
    count = (
        summed[last[:, None], high]
        - summed[first[:, None], high]
        - summed[last[:, None], low]
        + summed[first[:, None], low]
    )
    return count > 0
