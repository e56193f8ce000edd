# SPDX-License-Identifier: Apache-2.0
"""Signals that a model has no name for, so that it does not take everything that is not noise for one it has.

``KINDS`` lists them, with the ranges that their parameters are drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

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
    # Keyed: a line that is always there and stays where it is, is as likely the receiver's own.
    Kind("tone", analogue.tone, 1.0, {"drift": Choice((0.0, 0.0, -200e3, 50e3)), "busy": Choice((0.2, 0.5, 0.8))}),
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


def random_kind(rng: np.random.Generator) -> Kind:
    """Draw a kind by their weights."""
    weights = np.array([kind.weight for kind in KINDS])
    return KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))]
