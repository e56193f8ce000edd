# SPDX-License-Identifier: Apache-2.0
"""What happens to a signal between a transmitter and a receiver: tapped delay lines of TR 38.901."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# TR 38.901 tables 7.7.2-1 to 7.7.2-5: taps as pairs of delay in units of the delay spread and power in dB. The first
# tap of D and E is the line of sight, and the second has the same delay.
Taps = tuple[tuple[float, float], ...]
PROFILES: dict[str, Taps] = {
    "TDL-A": (
        *((0, -13.4), (0.3819, 0), (0.4025, -2.2), (0.5868, -4), (0.461, -6), (0.5375, -8.2)),
        *((0.6708, -9.9), (0.575, -10.5), (0.7618, -7.5), (1.5375, -15.9), (1.8978, -6.6), (2.2242, -16.7)),
        *((2.1718, -12.4), (2.4942, -15.2), (2.5119, -10.8), (3.0582, -11.3), (4.081, -12.7), (4.4579, -16.2)),
        *((4.5695, -18.3), (4.7966, -18.9), (5.0066, -16.6), (5.3043, -19.9), (9.6586, -29.7)),
    ),
    "TDL-B": (
        *((0, 0), (0.1072, -2.2), (0.2155, -4), (0.2095, -3.2), (0.287, -9.8), (0.2986, -1.2)),
        *((0.3752, -3.4), (0.5055, -5.2), (0.3681, -7.6), (0.3697, -3), (0.57, -8.9), (0.5283, -9)),
        *((1.1021, -4.8), (1.2756, -5.7), (1.5474, -7.5), (1.7842, -1.9), (2.0169, -7.6), (2.8294, -12.2)),
        *((3.0219, -9.8), (3.6187, -11.4), (4.1067, -14.9), (4.279, -9.2), (4.7834, -11.3)),
    ),
    "TDL-C": (
        *((0, -4.4), (0.2099, -1.2), (0.2219, -3.5), (0.2329, -5.2), (0.2176, -2.5), (0.6366, 0)),
        *((0.6448, -2.2), (0.656, -3.9), (0.6584, -7.4), (0.7935, -7.1), (0.8213, -10.7), (0.9336, -11.1)),
        *((1.2285, -5.1), (1.3083, -6.8), (2.1704, -8.7), (2.7105, -13.2), (4.2589, -13.9), (4.6003, -13.9)),
        *((5.4902, -15.8), (5.6077, -17.1), (6.3065, -16), (6.6374, -15.7), (7.0427, -21.6), (8.6523, -22.8)),
    ),
    "TDL-D": (
        *((0, -0.2), (0, -13.5), (0.035, -18.8), (0.612, -21), (1.363, -22.8), (1.405, -17.9)),
        *((1.804, -20.1), (2.596, -21.9), (1.775, -22.9), (4.042, -27.8), (7.937, -23.6), (9.424, -24.8)),
        *((9.708, -30), (12.525, -27.7)),
    ),
    "TDL-E": (
        *((0, -0.03), (0, -22.03), (0.5133, -15.8), (0.544, -18.1), (0.563, -19.8), (0.544, -22.9)),
        *((0.7112, -22.4), (1.9092, -18.6), (1.9293, -20.8), (1.9589, -22.6), (2.6426, -22.3), (3.7136, -25.6)),
        *((5.4524, -20.2), (12.0034, -29.8), (20.6519, -29.2)),
    ),
}
LINE_OF_SIGHT = ("TDL-D", "TDL-E")

# Delay spreads in seconds and Doppler spreads in Hz that are drawn from: indoor to hilly, standing to fast.
DELAY_SPREADS = (10e-9, 30e-9, 100e-9, 300e-9, 1000e-9)
DOPPLER_SPREADS = (0.0, 0.0, 5.0, 70.0, 300.0)

_N_ARRIVALS = 8  # plane waves that make up a tap


@dataclass(frozen=True)
class Channel:
    """A way from a transmitter to a receiver; the default is a cable.

    Attributes
    ----------
    profile : str
        Key of ``PROFILES``; empty for a single path that does not fade.
    delay_spread : float
        Root-mean-square delay spread in seconds.
    doppler : float
        Largest Doppler shift in Hz; 0 freezes the channel.
    """

    profile: str = ""
    delay_spread: float = 0.0
    doppler: float = 0.0

    def gains(
        self, times: NDArray[np.float64], frequencies: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.complex64]:
        """Draw the channel's gain over time and frequency.

        Parameters
        ----------
        times : (time,) float64
            In seconds, ascending.
        frequencies : (frequency,) float64
            In Hz.
        rng : numpy.random.Generator

        Returns
        -------
        (time, frequency) complex64
            Of mean square 1: a signal keeps its power, whatever the fading; (1, frequency) where nothing moves.
        """
        if not self.profile:
            return np.ones((1, len(frequencies)), np.complex64)
        delays, powers_db = np.array(PROFILES[self.profile]).T
        taps = np.sqrt(10 ** (powers_db / 10)) * self._fading(len(delays), times, rng)  # (time, tap)
        paths = np.exp(-2j * np.pi * np.outer(delays * self.delay_spread, frequencies))  # (tap, frequency)
        result = taps.astype(np.complex64) @ paths.astype(np.complex64)
        result /= np.sqrt(np.mean(result.real**2 + result.imag**2))
        return result

    def _fading(self, n_taps: int, times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.complex128]:
        """Taps of mean power 1 over time, sums of plane waves from all sides (Jakes): (time or 1, tap)."""
        knots = times[:1]
        if self.doppler > 0:
            knots = np.linspace(times[0], times[-1], 2 + int(20 * self.doppler * (times[-1] - times[0])))
        shifts = self.doppler * np.cos(rng.uniform(0, 2 * np.pi, (1, n_taps, _N_ARRIVALS)))
        phases = rng.uniform(0, 2 * np.pi, (1, n_taps, _N_ARRIVALS))
        waves = np.exp(1j * (2 * np.pi * shifts * knots[:, None, None] + phases))
        taps: NDArray[np.complex128] = waves.sum(axis=2) / np.sqrt(_N_ARRIVALS)
        if self.profile in LINE_OF_SIGHT:
            taps[:, 0] = np.exp(2j * np.pi * 0.7 * self.doppler * knots)  # clause 7.7.2
        if len(knots) == 1:
            return taps
        parts = [np.interp(times, knots, part) for tap in taps.T for part in (tap.real, tap.imag)]
        return np.ascontiguousarray(np.stack(parts, axis=1)).view(np.complex128)


CABLE = Channel()


def random_channel(rng: np.random.Generator) -> Channel:
    """Draw a channel: a fifth are cables or plain lines of sight, a fifth have one and echoes, the rest fade."""
    profile = str(rng.choice(["", *PROFILES], p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1]))
    return Channel(profile, float(rng.choice(DELAY_SPREADS)), float(rng.choice(DOPPLER_SPREADS)))
