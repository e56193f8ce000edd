# SPDX-License-Identifier: Apache-2.0
"""Chirps and pulses: LoRa and radars.

Every generator takes a duration in seconds and a random generator, and gives a :class:`Signal` labelled ``other``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.signals.bursts import Bursts, Signal, quick_rate
from training.signals.modulation import phasors

_PIECE = 100e-6  # seconds that a rectangle of a sweep's track lasts at the most: less than a time step


def lora(
    duration: float,
    rng: np.random.Generator,
    spreading_factor: int = 9,
    bandwidth: float = 125e3,
    n_payload: int = 24,
    busy: float = 0.7,
) -> Signal:
    """LoRa packets: eight up-chirps, two of the network, two and a quarter down-chirps, payload chirps (AN1200.22).

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    spreading_factor : int
        7 to 12: a symbol is 2**spreading_factor chips.
    bandwidth : float
        In Hz, also the chip rate.
    n_payload : int
        Symbols of the payload.
    busy : float
        Share of the time in which packets are on the air, in the long run; one is at the beginning.
    """
    n_chips = 2**spreading_factor
    symbol = n_chips / bandwidth
    packet = (12.25 + n_payload) * symbol
    starts = []  # of packets
    now = -rng.uniform(0, packet)
    while now < duration:
        starts.append(now)
        now += packet + rng.exponential(packet * (1 - busy) / busy)
    begins, lasts, from_, slopes = [], [], [], []
    for start in starts:
        values = np.concatenate((np.zeros(8), (8, 16), np.zeros(3), rng.integers(0, n_chips, n_payload)))
        directions = np.ones(len(values))
        directions[10:13] = -1
        lengths = np.full(len(values), symbol)
        lengths[12] = symbol / 4
        at = start + np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
        # An up-chirp of value k begins k chips up the band and falls to its lower edge once on its way.
        first = lengths.copy()
        first[directions > 0] *= 1 - values[directions > 0] / n_chips
        begins += [at, at + first]
        lasts += [first, lengths - first]
        begin = directions * -bandwidth / 2 + values * bandwidth / n_chips
        from_ += [np.where(directions > 0, begin, bandwidth / 2), np.full(len(values), -bandwidth / 2)]
        slopes += [directions * bandwidth / symbol] * 2
    segments = [np.concatenate(part) for part in (begins, lasts, from_, slopes)]
    order = np.argsort(segments[0])
    order = order[segments[1][order] > 0]
    return _chirped(duration, 2 * bandwidth, *(part[order] for part in segments))


def sweeps(
    duration: float,
    rng: np.random.Generator,
    width: float = 5e6,
    sweep: float = 100e-6,
    duty: float = 0.5,
    triangular: bool = False,
) -> Signal:
    """Radars that sweep: pulses of linear FM, or without a pause (`duty` 1) FMCW.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    width : float
        Of the sweep, in Hz.
    sweep : float
        Its length in seconds.
    duty : float
        Share of the time in which it is on.
    triangular : bool
        Whether every second sweep goes down.
    """
    begins = np.arange(-rng.random(), duration / sweep * duty + 1) * sweep / duty
    up = np.ones(len(begins)) * rng.choice((-1, 1))
    if triangular:
        up[1::2] *= -1
    lasts = np.full(len(begins), sweep)
    return _chirped(duration, 1.3 * width, begins, lasts, -up * width / 2, up * width / sweep)


def _chirped(
    duration: float,
    rate: float,
    begins: NDArray[np.float64],
    lasts: NDArray[np.float64],
    from_: NDArray[np.float64],
    slopes: NDArray[np.float64],
) -> Signal:
    """Linear sweeps one after the other, with silence where there is none; ascending in time.

    Parameters
    ----------
    duration : float
        In seconds.
    rate : float
        Least sample rate, in Hz.
    begins, lasts : (sweep,) float64
        Start and length of each, in seconds; none is of no length.
    from_ : (sweep,) float64
        First frequency of each, in Hz.
    slopes : (sweep,) float64
        In Hz per second.
    """
    rate = quick_rate(duration, rate)
    at = np.arange(round(duration * rate)) / rate
    which = np.clip(np.searchsorted(begins, at, side="right") - 1, 0, None)
    since = at - begins[which]
    frequency = from_[which] + slopes[which] * since
    samples = phasors(np.cumsum(frequency / rate))
    samples[(since < 0) | (since >= lasts[which])] = 0
    # Short rectangles follow the track; a chirp is as wide as sqrt(slope) at any moment.
    counts = np.ceil(lasts / _PIECE).astype(int)
    sweep = np.repeat(np.arange(len(lasts)), counts)
    piece = np.arange(len(sweep)) - np.repeat(np.cumsum(counts) - counts, counts)
    cuts = np.stack((piece, piece + 1)) * (lasts / counts)[sweep]  # start and stop, from the sweep's start
    track = from_[sweep] + slopes[sweep] * cuts
    margin = np.sqrt(np.abs(slopes[sweep])) / 2
    start, stop = begins[sweep] + cuts
    bursts = Bursts.of(start, stop, track.min(axis=0) - margin, track.max(axis=0) + margin)
    return Signal("other", samples, rate, bursts)


# Barker codes by length; 1 is a plain pulse.
_BARKER = {
    1: (1,),
    5: (1, 1, 1, -1, 1),
    7: (1, 1, 1, -1, -1, 1, -1),
    11: (1, 1, 1, -1, -1, -1, 1, -1, -1, 1, -1),
    13: (1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1),
}


def radar_pulses(
    duration: float,
    rng: np.random.Generator,
    chip: float = 0.5e-6,
    n_chips: int = 1,
    interval: float = 1e-3,
    stagger: float = 0.0,
) -> Signal:
    """Pulses of a radar, plain or phase-coded.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    chip : float
        Length of a plain pulse, or of each chip of a coded one, in seconds; shortened a little where samples are then
        quicker to transform.
    n_chips : int
        1, or the length of a Barker code: 5, 7, 11 or 13.
    interval : float
        From pulse to pulse, in seconds.
    stagger : float
        Largest change of the interval from one pulse to the next, as its share.
    """
    oversampling = 8
    rate = quick_rate(duration, oversampling / chip)
    chip = oversampling / rate
    # Rounded edges, as of a magnetron or a driver amplifier.
    edge = np.hanning(oversampling // 2 + 2)[1:-1]
    pulse = np.convolve(np.repeat(_BARKER[n_chips], oversampling), edge / edge.sum()).astype(np.complex64)
    length = n_chips * chip
    gaps = interval * (1 + stagger * rng.uniform(-1, 1, int(duration / interval / (1 - stagger)) + 2))
    starts = np.cumsum(gaps) - rng.uniform(0, 1) * interval - interval
    samples = np.zeros(round(duration * rate), np.complex64)
    starts = starts[(starts >= 0) & (starts * rate + len(pulse) < len(samples))]
    for start, angle in zip(starts, rng.random(len(starts)), strict=True):
        first = int(start * rate)
        samples[first : first + len(pulse)] = pulse * np.complex64(np.exp(2j * np.pi * angle))
    half = 1.4 / chip  # the main lobe and most of the first side lobes
    return Signal("other", samples, rate, Bursts.of(starts, starts + length + edge.size / rate, -half, half))
