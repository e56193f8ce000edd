# SPDX-License-Identifier: Apache-2.0
"""Sequences that LTE and NR share: the length-31 Gold sequence, and QAM symbols."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_REGISTER = 31
_DISCARDED = 1600  # N_C
_X1_TAPS = (3, 0)
_X2_TAPS = (3, 2, 1, 0)


def gold_sequences(c_inits: ArrayLike, length: int) -> NDArray[np.uint8]:
    """Pseudo-random sequences c(0) … c(length - 1) (TS 36.211 clause 7.2, TS 38.211 clause 5.2.1).

    Parameters
    ----------
    c_inits : (...) int
        Initial values of the second register, each 0 to 2**31 - 1.
    length : int
        Number of bits of each.

    Returns
    -------
    (..., length) uint8
        Bits, 0 or 1.
    """
    initial = np.asarray(c_inits, np.int64)
    first, basis = _packed_registers(1 << max(length - 1, 63).bit_length())
    n_words = -(-length // 64)
    words = np.broadcast_to(first[:n_words], (*initial.shape, n_words)).copy()
    # The second register is linear in its initial value: the sum of what each bit of it alone would give.
    for bit in range(_REGISTER):
        selected = ((initial >> bit) & 1).astype(bool)
        words[selected] ^= basis[bit, :n_words]
    return np.unpackbits(words.view(np.uint8), axis=-1, count=length)


def qpsk(bits: NDArray[np.uint8]) -> NDArray[np.complex64]:
    """QPSK symbols of pairs of bits along the last axis (TS 36.211 clause 7.1.2, TS 38.211 clause 5.1.3).

    Parameters
    ----------
    bits : (..., 2 n) uint8

    Returns
    -------
    (..., n) complex64
        Of magnitude 1.
    """
    index = 2 * bits[..., 0::2] + bits[..., 1::2]
    return (np.array([1 + 1j, 1 - 1j, -1 + 1j, -1 - 1j], np.complex64) / np.float32(np.sqrt(2)))[index]


def random_qam(rng: np.random.Generator, shape: int | Sequence[int], bits_per_symbol: int = 2) -> NDArray[np.complex64]:
    """Random square QAM symbols of mean power 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : int or sequence of int
    bits_per_symbol : int
        2, 4, 6 or 8: QPSK, 16-QAM, 64-QAM, 256-QAM.

    Returns
    -------
    (*shape) complex64
    """
    return _constellation(bits_per_symbol)[rng.integers(0, 1 << bits_per_symbol, shape, np.uint8)]


@lru_cache
def _constellation(bits_per_symbol: int) -> NDArray[np.complex64]:
    """All points of a square QAM, of mean power 1: (2**bits_per_symbol,)."""
    if bits_per_symbol not in (2, 4, 6, 8):
        raise ValueError(f"bits_per_symbol is {bits_per_symbol}; a square QAM here has 2, 4, 6 or 8")
    side = 1 << (bits_per_symbol // 2)
    levels = np.arange(side) * 2.0 - (side - 1)
    points = (levels[:, None] + 1j * levels).ravel()
    return (points / np.sqrt(np.mean(np.abs(points) ** 2))).astype(np.complex64)


@lru_cache
def _packed_registers(length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """First register (words,), and second register for every single initial bit (31, words); bits packed."""
    identity = np.eye(_REGISTER, dtype=np.uint8)
    first = _run_register(identity[:1], _X1_TAPS, length)
    second = _run_register(identity, _X2_TAPS, length)
    return np.packbits(first, axis=1).view(np.uint64)[0], np.packbits(second, axis=1).view(np.uint64)


def _run_register(start: NDArray[np.uint8], taps: tuple[int, ...], length: int) -> NDArray[np.uint8]:
    """Bits N_C … N_C + length - 1 of x(n + 31) = Σ x(n + tap) mod 2, for every row of initial bits."""
    total = _DISCARDED + length
    x = np.zeros((len(start), total), np.uint8)
    x[:, :_REGISTER] = start
    known, stride = _REGISTER, 1
    while known < total:
        # Over GF(2) the recurrence also holds with all its delays doubled, so ever longer runs come at once.
        while known >= 2 * stride * _REGISTER:
            stride *= 2
        count = min(stride * (_REGISTER - max(taps)), total - known)
        begin = known - stride * _REGISTER
        for tap in taps:
            source = begin + stride * tap
            x[:, known : known + count] ^= x[:, source : source + count]
        known += count
    return np.ascontiguousarray(x[:, _DISCARDED:])
