# SPDX-License-Identifier: Apache-2.0
"""Analogue signals: lines, amplitude and frequency modulation, television.

Every generator takes a duration in seconds and a random generator, and gives a :class:`Signal` labelled ``other``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from training.signals.bursts import Bursts, Signal, gate, join, quick_rate, random_intervals
from training.signals.modulation import phasors

_LINE = 500.0  # half of the band, in Hz, in which a line is taken to have its energy


def tone(duration: float, rng: np.random.Generator, drift: float = 0.0, busy: float = 1.0) -> Signal:
    """Unmodulated carrier that may drift, in Hz per second, or be keyed, on for a share `busy` of the time."""
    rate = 200e3
    n = round(duration * rate)
    at = np.arange(n) / rate
    start, stop = random_intervals(duration, rng, (1e-3, 15e-3), busy)
    samples = phasors(rng.random() + drift / 2 * at**2) * gate(n, rate, start, stop, 50e-6)
    # Rectangles of a millisecond follow the drift.
    edges = [np.linspace(a, b, 2 + int(1e3 * (b - a))) for a, b in zip(start, stop, strict=True)]
    pieces = [
        Bursts.of(
            e[:-1],
            e[1:],
            np.minimum(drift * e[:-1], drift * e[1:]) - _LINE,
            np.maximum(drift * e[:-1], drift * e[1:]) + _LINE,
        )
        for e in edges
    ]
    return Signal("other", samples, rate, join(pieces))


def comb(duration: float, rng: np.random.Generator, spacing: float = 100e3, n_lines: int = 11) -> Signal:
    """Lines at equal distances, as the harmonics of a clock or a switching supply: odd `n_lines`, `spacing` in Hz."""
    half = n_lines // 2
    rate = quick_rate(duration, 1.5 * n_lines * spacing)
    at = np.arange(round(duration * rate)) / rate
    amplitudes = 10 ** (-rng.uniform(0, 15, n_lines) / 20)
    amplitudes /= np.linalg.norm(amplitudes)
    numbers = np.arange(-half, half + 1)
    # The fundamental's powers are its harmonics.
    base = phasors(spacing * at)
    power = phasors(-half * spacing * at)
    samples = np.zeros(len(at), np.complex64)
    for amplitude, angle in zip(amplitudes, rng.random(n_lines), strict=True):
        samples += power * np.complex64(amplitude * np.exp(2j * np.pi * angle))
        power *= base
    return Signal(
        "other", samples, rate, Bursts.of(0.0, duration, numbers * spacing - _LINE, numbers * spacing + _LINE)
    )


def amplitude_modulated(
    duration: float, rng: np.random.Generator, audio_bandwidth: float = 4.5e3, depth: float = 0.6
) -> Signal:
    """AM of noise in place of speech (ITU-R BS.559): both sidebands and the carrier."""
    rate = 64e3
    audio = _audio(round(duration * rate), rate, audio_bandwidth, rng)
    samples = 1 + depth * np.clip(audio / 2.5, -1, 1)
    samples /= np.sqrt(np.mean(samples**2))
    bursts = Bursts.of([0.0], duration, -audio_bandwidth, audio_bandwidth)
    return Signal("other", samples.astype(np.complex64), rate, bursts)


def narrow_fm(
    duration: float,
    rng: np.random.Generator,
    deviation: float = 2.5e3,
    audio_bandwidth: float = 3e3,
    busy: float = 1.0,
) -> Signal:
    """Speech radio: FM of noise in place of speech; its band is Carson's, 2 (deviation + audio bandwidth)."""
    rate = 100e3
    n = round(duration * rate)
    audio = np.clip(_audio(n, rate, audio_bandwidth, rng) / 2, -1, 1)
    start, stop = random_intervals(duration, rng, (10e-3, 100e-3), busy)
    samples = phasors(np.cumsum(deviation / rate * audio)) * gate(n, rate, start, stop, 0.5e-3)
    half = deviation + audio_bandwidth
    return Signal("other", samples, rate, Bursts.of(start, stop, -half, half))


def broadcast_fm(
    duration: float, rng: np.random.Generator, loudness: float = 0.5, stereo: bool = True, rds: bool = True
) -> Signal:
    """Stereo broadcast with a pilot at 19 kHz and RDS at 57 kHz (ITU-R BS.450-3), 75 kHz peak deviation.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    loudness : float
        Root mean square of the programme over its peak.
    stereo, rds : bool
        Whether the pilot and difference signal, and the data, are sent.
    """
    rate = 480e3
    n = round(duration * rate)
    at = np.arange(n) / rate
    left, right = (np.clip(loudness * _audio(n, rate, 15e3, rng), -1, 1) for _ in range(2))
    programme = 0.45 * (left + right) if stereo else 0.9 * left
    if stereo:
        programme += 0.45 * (left - right) * np.sin(2 * np.pi * 38e3 * at) + 0.1 * np.sin(2 * np.pi * 19e3 * at)
    if rds:
        bits = rng.choice((-1.0, 1.0), int(duration * 1187.5) + 2)[(at * 1187.5).astype(int)]
        half = np.where((at * 1187.5) % 1 < 0.5, 1, -1)  # biphase
        programme += 0.04 * bits * half * np.sin(2 * np.pi * 57e3 * at)
    samples = phasors(np.cumsum(75e3 / rate * programme))
    # Carson's rule with the deviation that the programme has most of the time.
    reach = 75e3 * float(np.quantile(np.abs(programme), 0.99)) + (53e3 if stereo else 15e3) / 2
    return Signal("other", samples, rate, Bursts.of([0.0], duration, -reach, reach))


def _audio(n: int, sample_rate: float, bandwidth: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of power 1 that falls by 6 dB an octave above 500 Hz, up to `bandwidth`, loud and soft as syllables are."""
    frequency = scipy.fft.rfftfreq(n, 1 / sample_rate)
    n_used = int(np.searchsorted(frequency, bandwidth))
    spectrum = np.zeros(len(frequency), np.complex128)
    noise = rng.standard_normal((n_used - 1, 2)).view(np.complex128)[:, 0]
    spectrum[1:n_used] = noise / np.maximum(1, frequency[1:n_used] / 500)
    audio = scipy.fft.irfft(spectrum, n)
    knots = rng.uniform(0.3, 1.5, max(2, int(12 * n / sample_rate)))
    audio *= np.interp(np.linspace(0, len(knots) - 1, n), np.arange(len(knots)), knots)
    return audio / np.sqrt(np.mean(audio**2))


# --- Television ---


@dataclass(frozen=True)
class Television:
    """An analogue television system (ITU-R BT.1700, BT.1701): rates and distances in Hz, from the vision carrier.

    Lines have a whole number of samples, and that of all samples is quick to transform; so the line rate is up to a
    hundredth off.
    """

    line_rate: float
    lines: float  # of a field
    video_bandwidth: float
    colour: float
    sound: float


TELEVISION = {
    "PAL": Television(15625.0, 312.5, 5.0e6, 4.43361875e6, 5.5e6),
    "NTSC": Television(15734.264, 262.5, 4.2e6, 3.579545e6, 4.5e6),
}
_LINE_SAMPLES = 640
_VESTIGE = 0.75e6  # of the lower sideband that is left
_CHANNEL_CENTRE = 2.25e6  # above the vision carrier


def television_am(duration: float, rng: np.random.Generator, system: str = "PAL") -> Signal:
    """Terrestrial television: vestigial sideband with negative modulation, and FM sound 10 dB below.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    system : str
        ``PAL`` (B/G) or ``NTSC`` (M). The signal's centre lies 2.25 MHz above the vision carrier.
    """
    standard = TELEVISION[system]
    rate = quick_rate(duration, _LINE_SAMPLES * standard.line_rate)
    n = round(duration * rate)
    video = _video(n, standard, rate, rng)
    # Synchronisation at the peak, white at 12 % of it (BT.1701 table 1).
    carrier = 0.75 - 0.63 * video
    spectrum = scipy.fft.fft(carrier.astype(np.complex64), overwrite_x=True)
    frequency = np.fft.fftfreq(n, 1 / rate)
    spectrum[(frequency < -_VESTIGE) | (frequency > standard.video_bandwidth)] = 0
    spectrum = np.roll(spectrum, -round(_CHANNEL_CENTRE / rate * n))
    samples = scipy.fft.ifft(spectrum, overwrite_x=True).astype(np.complex64, copy=False)
    samples /= np.float32(np.sqrt(np.mean(np.abs(samples) ** 2) * 1.1))
    place = standard.sound - _CHANNEL_CENTRE
    audio = np.repeat(_audio(n // 100 + 1, rate / 100, 15e3, rng), 100)[:n]
    samples += phasors(np.cumsum((50e3 * np.clip(audio / 3, -1, 1) + place) / rate)) * np.float32(np.sqrt(0.1 / 1.1))
    picture = Bursts.of([0.0], duration, -_VESTIGE - _CHANNEL_CENTRE, standard.video_bandwidth - _CHANNEL_CENTRE)
    return Signal("other", samples, rate, join([picture, Bursts.of([0.0], duration, place - 60e3, place + 60e3)]))


def television_fm(duration: float, rng: np.random.Generator, system: str = "NTSC", deviation: float = 4e6) -> Signal:
    """Video links of drones and cameras, and satellite television: FM of the whole picture signal.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    system : str
        Key of ``TELEVISION``.
    deviation : float
        From black to white, in Hz.
    """
    standard = TELEVISION[system]
    rate = quick_rate(duration, 2 * _LINE_SAMPLES * standard.line_rate)
    video = _video(round(duration * rate), standard, rate, rng)
    samples = phasors(np.cumsum(deviation / rate * (video - 0.35)))
    low, high = np.quantile(video, (0.001, 0.999)) - 0.35
    margin = 0.2 * standard.video_bandwidth
    return Signal(
        "other", samples, rate, Bursts.of([0.0], duration, deviation * low - margin, deviation * high + margin)
    )


def _video(n: int, standard: Television, rate: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Composite picture signal of random bars: blanking 0, white 1, synchronisation -0.4: (n,) float32."""
    per_line = round(rate / standard.line_rate)
    n_lines = -(-n // per_line) + 1
    at = np.arange(per_line) / rate
    n_bars = int(rng.integers(3, 30))
    bars = np.cumsum(rng.normal(0, 0.25, (2, n_lines // 16 + 2, n_bars)), axis=1)  # luminance and chrominance
    # A picture changes little from line to line.
    rows = np.arange(n_lines) / 16
    low = rows.astype(int)
    share = (rows - low)[:, None]
    bars = bars[:, low] * (1 - share) + bars[:, low + 1] * share
    luminance = 0.5 + 0.5 * np.sin(bars[0] + rng.uniform(0, 6, n_bars))
    active = (at > 10.5e-6) & (at < 1 / standard.line_rate - 1.5e-6)
    which = np.clip(((at - 10.5e-6) * standard.line_rate * 1.2 * n_bars).astype(int), 0, n_bars - 1)
    video = luminance.astype(np.float32)[:, which]
    colour = np.sin(2 * np.pi * standard.colour * at).astype(np.float32)
    video += (0.15 * np.sin(bars[1])).astype(np.float32)[:, which] * colour
    video *= active
    video[:, (at > 5.6e-6) & (at < 7.9e-6)] = 0.2 * colour[(at > 5.6e-6) & (at < 7.9e-6)]
    video[:, at < 4.7e-6] = -0.4
    field = (np.arange(n_lines) + rng.integers(0, 300)) % standard.lines
    video[field < 25] *= video[field < 25] < 0  # vertical blanking
    video[field < 3] = np.where(at < 59e-6, -0.4, 0)
    return video.ravel()[:n]
