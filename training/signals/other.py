# SPDX-License-Identifier: Apache-2.0
"""Signals that a model has no name for, so that it does not take everything that is not noise for one it has.

``KINDS`` lists them, with the ranges that their parameters are drawn from. The generators at the end give samples
alone, without what they occupy; ``OTHERS`` are those that scenes are made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from training.signals import analogue, broadcast, keyed, swept
from training.signals.bursts import Signal


class Range(Protocol):
    """Values that a parameter is drawn from."""

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw one."""


@dataclass(frozen=True)
class Uniform:
    """Spread evenly between two bounds."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """Spread evenly in logarithm between two positive bounds."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number."""
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True)
class Choice:
    """One of some values, all as likely; a value listed twice is twice as likely."""

    values: Sequence[Any]

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Kind:
    """A kind of signal.

    Attributes
    ----------
    name : str
    generate : callable
        Takes a duration in seconds, a random generator and the parameters.
    weight : float
        How often it is met, relative to the other kinds.
    parameters : mapping of str to Range
        What is drawn for every signal.
    """

    name: str
    generate: Callable[..., Signal]
    weight: float = 1.0
    parameters: Mapping[str, Range] = field(default_factory=dict)

    def draw(self, duration: float, rng: np.random.Generator) -> Signal:
        """Draw a signal of this kind, labelled ``other``, for a number of seconds."""
        drawn = {name: values.draw(rng) for name, values in self.parameters.items()}
        return self.generate(duration, rng, **drawn)


_SHARE = Uniform(0.1, 0.9)
_MOSTLY_ALWAYS = Choice((1.0, 1.0, 0.2, 0.5, 0.8))
_FLAG = Choice((False, True))

KINDS: tuple[Kind, ...] = (
    Kind("GSM", keyed.gsm, 2.0, {"broadcast": _FLAG, "busy": Uniform(0.1, 1.0)}),
    Kind(
        "FSK",
        keyed.fsk,
        1.5,
        {
            "symbol_rate": LogUniform(9.6e3, 500e3),
            "index": Uniform(0.4, 2.5),
            "bandwidth_time": Choice((0.3, 0.5, 1.0, np.inf)),
            "levels": Choice((2, 2, 4)),
            "busy": _SHARE,
        },
    ),
    Kind("OOK", keyed.ook, 1.0, {"chip_rate": LogUniform(1e3, 50e3), "busy": _SHARE}),
    Kind("IEEE 802.15.4", keyed.ieee802154, 1.0, {"busy": _SHARE}),
    Kind("Mode S", keyed.mode_s, 1.0, {"rate": LogUniform(30, 3000)}),
    Kind(
        "QAM",
        keyed.single_carrier,
        2.0,
        {
            "symbol_rate": LogUniform(20e3, 10e6),
            "bits": Choice((2, 4, 6, 8)),
            "roll_off": Choice((0.15, 0.2, 0.25, 0.35, 0.5)),
            "busy": _MOSTLY_ALWAYS,
        },
    ),
    Kind("UMTS", keyed.cdma, 1.5, {"n_codes": Choice((2, 8, 20, 60, 128))}),
    Kind("CDMA2000", keyed.cdma, 0.5, {"chip_rate": Choice((1.2288e6,)), "n_codes": Choice((2, 8, 20, 60, 128))}),
    Kind(
        "LoRa",
        swept.lora,
        1.5,
        {
            "spreading_factor": Choice((7, 8, 9, 10, 11, 12)),
            "bandwidth": Choice((125e3, 125e3, 250e3, 500e3)),
            "n_payload": Choice((8, 16, 24, 40)),
            "busy": _SHARE,
        },
    ),
    Kind(
        "sweeps",
        swept.sweeps,
        1.5,
        {
            "width": LogUniform(0.2e6, 20e6),
            "sweep": LogUniform(10e-6, 10e-3),
            "duty": Choice((1.0, 0.1, 0.3, 0.7)),
            "triangular": _FLAG,
        },
    ),
    Kind(
        "radar pulses",
        swept.radar_pulses,
        1.0,
        {
            "chip": LogUniform(0.3e-6, 5e-6),
            "n_chips": Choice((1, 1, 1, 5, 7, 11, 13)),
            "interval": LogUniform(0.2e-3, 4e-3),
            "stagger": Choice((0.0, 0.0, 0.1, 0.3)),
        },
    ),
    Kind("tone", analogue.tone, 1.0, {"drift": Choice((0.0, 0.0, -200e3, 50e3)), "busy": _MOSTLY_ALWAYS}),
    Kind("comb", analogue.comb, 0.7, {"spacing": LogUniform(20e3, 1e6), "n_lines": Choice((3, 5, 7, 11, 17))}),
    Kind("AM", analogue.amplitude_modulated, 0.5, {"audio_bandwidth": Uniform(3e3, 9e3), "depth": Uniform(0.3, 0.9)}),
    Kind(
        "narrow FM",
        analogue.narrow_fm,
        0.7,
        {"deviation": Uniform(1.5e3, 5e3), "audio_bandwidth": Uniform(2.7e3, 3.4e3), "busy": _MOSTLY_ALWAYS},
    ),
    Kind(
        "broadcast FM",
        analogue.broadcast_fm,
        1.0,
        {"loudness": Uniform(0.1, 0.6), "stereo": Choice((True, True, False)), "rds": _FLAG},
    ),
    Kind("television AM", analogue.television_am, 0.7, {"system": Choice(tuple(analogue.TELEVISION))}),
    Kind(
        "television FM",
        analogue.television_fm,
        0.7,
        {"system": Choice(tuple(analogue.TELEVISION)), "deviation": Uniform(2e6, 6e6)},
    ),
    Kind(
        "broadcast OFDM",
        broadcast.broadcast_ofdm,
        2.0,
        {"system": Choice(tuple(broadcast.BROADCASTS)), "guard": Choice((0, 1, 2, 3))},
    ),
    Kind("NB-IoT", broadcast.nb_iot, 1.0, {"cell_id": Choice(range(126)), "load": Uniform(0.0, 0.9)}),
)


def random_other(duration: float, rng: np.random.Generator) -> Signal:
    """Draw a signal of any kind, by their weights, labelled ``other``, for a number of seconds."""
    weights = np.array([kind.weight for kind in KINDS])
    return KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))].draw(duration, rng)


# --- Samples alone: a duration in seconds to ((n,) complex64 of power about 1 while it is on, sample rate in Hz) ---

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
