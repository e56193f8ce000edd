# SPDX-License-Identifier: Apache-2.0
"""Pulses and phases that single-carrier signals are made of."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal
import scipy.special
from numpy.typing import NDArray

_CHUNK = 2**14  # samples that stay in the processor's cache
_GAUSS_SPAN = 4  # symbols that a Gaussian frequency pulse lasts; of BT 0.3 it holds all but 1e-4


@lru_cache
def gaussian_pulse(bandwidth_time: float, oversampling: int) -> NDArray[np.float64]:
    """Frequency pulse of GFSK and GMSK: a symbol's rectangle through a Gaussian filter (TS 45.004 clause 2.4).

    Parameters
    ----------
    bandwidth_time : float
        Product of the filter's 3 dB bandwidth and the symbol's length; infinite for no filter (plain FSK).
    oversampling : int
        Samples per symbol.

    Returns
    -------
    (4 * oversampling,) float64
        Of sum 1, centred.
    """
    at = (np.arange(_GAUSS_SPAN * oversampling) + 0.5) / oversampling - _GAUSS_SPAN / 2  # in symbols
    if np.isinf(bandwidth_time):
        pulse = (np.abs(at) < 0.5).astype(np.float64)
    else:
        scale = np.pi * bandwidth_time * np.sqrt(2 / np.log(2))
        pulse = scipy.special.erf(scale * (at + 0.5)) - scipy.special.erf(scale * (at - 0.5))
    return pulse / pulse.sum()


def turns_of(
    symbols: NDArray[np.float64], index: float, bandwidth_time: float, oversampling: int
) -> NDArray[np.float64]:
    """Phase of a continuous-phase modulation, in turns.

    Parameters
    ----------
    symbols : (symbol,) float64
        Frequencies, in units of the peak deviation: -1 and 1 for binary FSK.
    index : float
        Modulation index h: twice the peak deviation times the symbol's length.
    bandwidth_time : float
        As in :func:`gaussian_pulse`.
    oversampling : int
        Samples per symbol, even.

    Returns
    -------
    (symbol * oversampling + 1,) float64
        At the edges of the samples: 0 at the start of the first symbol.
    """
    pulse = gaussian_pulse(bandwidth_time, oversampling)
    # Outside, the outermost symbols go on, as a transmitter's idle carrier does.
    ends = _GAUSS_SPAN // 2
    padded = np.pad(symbols, ends, mode="edge")
    drive = scipy.signal.upfirdn(pulse, padded, oversampling)
    # A symbol's pulse begins _GAUSS_SPAN / 2 - 0.5 symbols before it.
    skip = (ends + _GAUSS_SPAN // 2) * oversampling - oversampling // 2
    steps = drive[skip : skip + len(symbols) * oversampling]
    return np.concatenate(([0.0], np.cumsum(index / 2 * steps)))


@lru_cache
def root_raised_cosine(roll_off: float, oversampling: int, span: int = 16) -> NDArray[np.float32]:
    """Root raised cosine pulse (TS 25.104 clause 6.8.1): (span * oversampling + 1,) float32.

    Symbols of mean power 1 give samples of mean power 1.
    """
    at = np.arange(-span * oversampling // 2, span * oversampling // 2 + 1) / oversampling
    near = np.abs(np.abs(4 * roll_off * at) - 1) < 1e-9
    safe = np.where(near | (at == 0), 0.1234, at)  # any place where the formula has no pole
    pulse = np.sin(np.pi * safe * (1 - roll_off)) + 4 * roll_off * safe * np.cos(np.pi * safe * (1 + roll_off))
    pulse /= np.pi * safe * (1 - (4 * roll_off * safe) ** 2)
    pulse[at == 0] = 1 - roll_off + 4 * roll_off / np.pi
    corner = np.pi / (4 * roll_off)
    pulse[near] = roll_off / np.sqrt(2) * ((1 + 2 / np.pi) * np.sin(corner) + (1 - 2 / np.pi) * np.cos(corner))
    return (pulse * np.sqrt(oversampling / np.sum(pulse**2))).astype(np.float32)


def shape(symbols: NDArray[np.complex64], pulse: NDArray[np.float32], oversampling: int) -> NDArray[np.complex64]:
    """Send symbols through a pulse: (symbol * oversampling,) complex64, each symbol at the start of its samples."""
    samples = scipy.signal.upfirdn(pulse, symbols, oversampling)
    delay = len(pulse) // 2
    # upfirdn ends with the last symbol's pulse, which may be short of a whole symbol.
    samples = np.pad(samples, (0, oversampling))[delay : delay + len(symbols) * oversampling]
    return samples.astype(np.complex64, copy=False)


def phasors(turns: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Unit phasors of phases in turns: (n,) complex64; several times faster than a complex exponential."""
    result = np.empty(len(turns), np.complex64)
    for first in range(0, len(turns), _CHUNK):
        part = turns[first : first + _CHUNK]
        # Whole turns are taken off in double precision: a single-precision phase of thousands of turns is noise.
        angle = (part - np.round(part)).astype(np.float32)
        angle *= np.float32(2 * np.pi)
        result.real[first : first + _CHUNK] = np.cos(angle)
        result.imag[first : first + _CHUNK] = np.sin(angle)
    return result


def rotation(turns: float, n: int) -> NDArray[np.complex64]:
    """Unit phasors that turn by `turns` a sample: (n,) complex64; products of two short runs, as fast as it gets."""
    block = 256
    starts = np.exp(2j * np.pi * turns * block * np.arange(-(-n // block)))
    within = np.exp(2j * np.pi * turns * np.arange(block))
    return np.multiply.outer(starts.astype(np.complex64), within.astype(np.complex64)).ravel()[:n]
