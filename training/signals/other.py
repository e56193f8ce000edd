# SPDX-License-Identifier: Apache-2.0
"""Signals that are neither LTE nor NR, so that a model does not take everything that is not noise for one of them.

Each generator takes a duration in seconds and gives ((n,) complex64 baseband of power about 1 while it is on, its own
sample rate in Hz).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.signal
from numpy.typing import NDArray

Generator = Callable[[float, np.random.Generator], tuple[NDArray[np.complex64], float]]

_NARROW_RATE = 2e6


def carrier_wave(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Unmodulated carrier, or one that is keyed on and off."""
    tone = np.ones(round(duration * _NARROW_RATE), np.complex64)
    return _perhaps_in_bursts(tone, _NARROW_RATE, rng), _NARROW_RATE


def frequency_modulated(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Analogue FM of noise in place of speech or music, about 10 to 200 kHz wide."""
    n = round(duration * _NARROW_RATE)
    n_knots = int(duration * 10e3) + 2
    audio = np.interp(np.linspace(0, n_knots - 1, n), np.arange(n_knots), rng.standard_normal(n_knots))
    phase = 2 * np.pi * np.cumsum(rng.uniform(3e3, 75e3) * audio) / _NARROW_RATE
    return np.exp(1j * phase).astype(np.complex64), _NARROW_RATE


def chirps(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Repeated linear sweeps, as LoRa or radar send."""
    width = rng.choice([125e3, 500e3, 2e6, 10e6])
    rate = 2 * max(width, 1e6)
    at = np.arange(round(duration * rate)) / rate
    sweep = (at / rng.uniform(0.1e-3, 10e-3)) % 1 - 0.5
    signal = np.exp(2j * np.pi * np.cumsum(width * sweep) / rate).astype(np.complex64)
    return _perhaps_in_bursts(signal, rate, rng), rate


def frequency_keyed(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """FSK or GMSK, continuous or in bursts, as GSM, Bluetooth or a remote control send."""
    symbol_rate = rng.choice([20e3, 100e3, 270.833e3, 1e6])
    rate = 5e6 if symbol_rate == 1e6 else _NARROW_RATE
    n = round(duration * rate)
    position = np.arange(n) / rate * symbol_rate
    bits = rng.choice([-1.0, 1.0], int(position[-1]) + 2)
    # Ramps between the symbols stand for the pulse-shaping filter.
    drive = np.interp(position, np.arange(len(bits)), bits)
    phase = np.pi * rng.uniform(0.5, 1.0) * np.cumsum(drive) * symbol_rate / rate
    return _perhaps_in_bursts(np.exp(1j * phase).astype(np.complex64), rate, rng), rate


def single_carrier(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Band-limited noise-like modulation (QAM, DVB, a jammer) of 0.1 to 16 MHz."""
    rate = float(rng.choice([0.5e6, 2e6, 10e6, 20e6]))
    taps = scipy.signal.firwin(65, rng.uniform(0.2, 0.8)).astype(np.float32)
    signal = scipy.signal.oaconvolve(_noise(round(duration * rate), rng), taps, mode="same").astype(np.complex64)
    return _perhaps_in_bursts(signal / np.float32(np.sqrt(np.sum(taps**2))), rate, rng), rate


def packets(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """OFDM packets of 0.05 to 3 ms, 52 of 64 subcarriers over 20 MHz used, as IEEE 802.11 sends (clause 17)."""
    rate = 20e6
    n = round(duration * rate)
    grid = np.zeros((n // 80 + 1, 64), np.complex64)
    grid[:, np.r_[1:27, 38:64]] = np.exp(0.5j * np.pi * rng.integers(0, 4, (len(grid), 52)))
    body = np.fft.ifft(grid, axis=1) * (64 / np.sqrt(52))
    signal = np.concatenate((body[:, -16:], body), axis=1).astype(np.complex64).ravel()[:n]
    return signal * _bursts(n, rate, rng, 0.05e-3, 3e-3), rate


def pulses(duration: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Very short pulses, as transponders, radars or a switching supply make."""
    rate = 10e6
    n = round(duration * rate)
    gate = np.zeros(n, np.float32)
    width = int(rng.uniform(0.5e-6, 20e-6) * rate)
    for start in rng.integers(0, n, rng.integers(3, 200)):
        gate[start : start + width] = 1
    return gate * _noise(n, rng), rate


OTHERS: tuple[Generator, ...] = (
    carrier_wave,
    frequency_modulated,
    chirps,
    frequency_keyed,
    single_carrier,
    packets,
    pulses,
)


def _perhaps_in_bursts(signal: NDArray[np.complex64], rate: float, rng: np.random.Generator) -> NDArray[np.complex64]:
    return signal if rng.random() < 0.4 else signal * _bursts(len(signal), rate, rng, 0.1e-3, 10e-3)


def _bursts(n: int, rate: float, rng: np.random.Generator, shortest: float, longest: float) -> NDArray[np.float32]:
    """On-off envelope of random bursts whose lengths, in seconds, are spread evenly in logarithm."""
    gate = np.zeros(n, np.float32)
    busy = rng.uniform(0.1, 0.8)
    position = 0
    while position < n:
        length = int(np.exp(rng.uniform(np.log(shortest), np.log(longest))) * rate) + 1
        gate[position : position + length] = 1
        position += length + int(rng.exponential(length * (1 - busy) / busy)) + 1
    return np.roll(gate, rng.integers(n))


def _noise(n: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    return rng.standard_normal((n, 2), np.float32).view(np.complex64)[:, 0] * np.float32(np.sqrt(0.5))
