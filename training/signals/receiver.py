# SPDX-License-Identifier: Apache-2.0
"""A receiver's faults: each a function of samples, and all of them in the order of a direct-conversion receiver.

The functions leave their input alone and give new samples. Levels are linear powers in the unit of the samples, or
decibels of what the docstring names. What the receiver does to frequencies alone (:func:`signal_and_noise`) is given as
amplitudes over the band, because scenes are put together in the frequency domain, where it costs one multiplication.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from training.signals.transform import Curve, band_blocks


@dataclass(frozen=True)
class Spur:
    """A line that the receiver makes itself.

    Attributes
    ----------
    frequency : float
        From the centre of the band, as a share of the sample rate: -0.5 to 0.5.
    level_db : float
        Power relative to the noise in the whole band.
    """

    frequency: float
    level_db: float


@dataclass(frozen=True)
class Receiver:
    """A front end and its faults; the default has none.

    Attributes
    ----------
    roll_off : float
        Share of the band, at either edge, over which the filter falls.
    depth_db : float
        Attenuation at the end of the roll-off.
    stop : float
        Share of the band, at either edge, beyond the roll-off, that is attenuated by `depth_db` throughout.
    tilt_db : float
        Gain at the upper edge over that at the lower.
    ripple_db : float
        Largest deviation of the pass band's gain from its mean.
    ripple_period : float
        Of the ripple, as a share of the band.
    noise_tilt_db : float
        Noise density at the upper edge over that at the lower, before the filter.
    noise_hump_db, noise_hump_at, noise_hump_width : float
        A rise of the noise floor: its height, and its centre and width (standard deviation) as shares of the band.
    compression_db : float
        Magnitude at which the front end saturates over the root mean square of its input; infinite for never.
    linewidth : float
        Of the local oscillator, in Hz at half power: the Wiener part of its phase noise.
    plateau_dbc : float
        Phase noise within the synthesiser's loop bandwidth, in dB of the carrier per Hz: the white part.
    loop_bandwidth : float
        In Hz.
    gain_imbalance_db, phase_imbalance : float
        Of Q to I: gain in dB, error of the right angle in degrees.
    dc_db : float
        Power of the offset at the centre, relative to the noise in the whole band.
    flicker_db : float
        Power of the 1/f noise about the centre, relative to the noise in the whole band.
    flicker_corner : float
        Frequency in Hz up to which the 1/f noise reaches.
    agc_rate : float
        Changes of the gain per second, in the mean.
    agc_step_db : float
        Size of one.
    spurs : tuple of Spur
        Lines after the filter.
    adc_noise_db : float
        White noise after the filter, relative to the noise before it.
    headroom_db : float
        Converter's full scale over the root mean square of its input; at little headroom it saturates.
    bits : int
        Resolution of the converter.
    """

    roll_off: float = 0.0
    depth_db: float = 0.0
    stop: float = 0.0
    tilt_db: float = 0.0
    ripple_db: float = 0.0
    ripple_period: float = 0.5
    noise_tilt_db: float = 0.0
    noise_hump_db: float = 0.0
    noise_hump_at: float = 0.0
    noise_hump_width: float = 0.1
    compression_db: float = np.inf
    linewidth: float = 0.0
    plateau_dbc: float = -np.inf
    loop_bandwidth: float = 100e3
    gain_imbalance_db: float = 0.0
    phase_imbalance: float = 0.0
    dc_db: float = -np.inf
    flicker_db: float = -np.inf
    flicker_corner: float = 10e3
    agc_rate: float = 0.0
    agc_step_db: float = 1.0
    spurs: tuple[Spur, ...] = ()
    adc_noise_db: float = -np.inf
    headroom_db: float = 15.0
    bits: int = 16


# --- Over the band ---


def signal_and_noise(
    receiver: Receiver, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Amplitudes, at a band's blocks, that signals and white noise are multiplied by to be what leaves the filter.

    The converter's own noise is part of the second, for the sum of independent noises is noise of the sum of their
    powers, and need be drawn only once.

    Returns
    -------
    (block,) float32, (block,) float32
        As :func:`training.signals.transform.scale_band` takes them.
    """
    passed = _response(receiver, n, rng)
    noise = np.sqrt((passed * _noise_shape(receiver, n)) ** 2 + np.float32(10 ** (receiver.adc_noise_db / 10)))
    return passed, noise


def snr_loss_db(receiver: Receiver, offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the filter takes signals down into the converter's own noise, in dB.

    Parameters
    ----------
    receiver : Receiver
    offset : (frequency,) float64
        From the centre of the band, as shares of the sample rate.
    """
    return 10 * np.log10(1 + 10 ** ((receiver.adc_noise_db + _roll_off_db(receiver, offset)) / 10))


def _response(receiver: Receiver, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Amplitude response at the blocks of a band of n frequencies."""
    offset = band_blocks(n)
    gain_db = receiver.tilt_db * offset - _roll_off_db(receiver, offset)
    gain_db += receiver.ripple_db * np.cos(2 * np.pi * (offset / receiver.ripple_period + rng.random()))
    return _amplitude(gain_db)


def _roll_off_db(receiver: Receiver, offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Attenuation towards the edges of the band."""
    edge = 0.5 - receiver.stop - receiver.roll_off
    into = np.clip((np.abs(offset) - edge) / max(receiver.roll_off, 1e-6), 0, 1)
    # Power 1.5: flat where the pass band ends, steeper towards the stop band, as real filters are.
    return np.asarray(receiver.depth_db * into**1.5)


def _noise_shape(receiver: Receiver, n: int) -> NDArray[np.float32]:
    """Amplitude of the noise before the filter at the blocks of a band of n frequencies."""
    offset = band_blocks(n)
    hump = np.exp(-(((offset - receiver.noise_hump_at) / receiver.noise_hump_width) ** 2) / 2)
    shape = _amplitude(receiver.noise_tilt_db * offset + receiver.noise_hump_db * hump)
    return shape / np.sqrt(np.mean(shape**2))


def _amplitude(gain_db: NDArray[np.float64]) -> NDArray[np.float32]:
    return (10 ** (gain_db / 20)).astype(np.float32)


# --- The mixer ---


def oscillator(
    n: int,
    sample_rate: float,
    rng: np.random.Generator,
    linewidth: float,
    plateau_dbc: float = -np.inf,
    loop_bandwidth: float = 100e3,
) -> Curve:
    """Phasors of a noisy oscillator: their phase is a Wiener process plus noise that is white within the loop.

    A Wiener phase whose variance grows by 2π `linewidth` a second gives the carrier a Lorentzian line of that full
    width at half power (Demir, Mehrotra and Roychowdhury, 2000, section VIII).

    Parameters
    ----------
    n : int
        Number of samples.
    sample_rate : float
        In Hz.
    rng : numpy.random.Generator
    linewidth, plateau_dbc, loop_bandwidth : float
        As in :class:`Receiver`; beyond the loop bandwidth the white part falls by 12 dB an octave.
    """
    stride = max(1, int(sample_rate / (4 * loop_bandwidth)))
    n_knots = scipy.fft.next_fast_len(n // stride + 2, real=True)
    phase = np.cumsum(rng.normal(0, np.sqrt(2 * np.pi * linewidth * stride / sample_rate), n_knots))
    # White noise of the density of the plateau over the band of the knots, then the loop's low-pass.
    density = 10 ** (plateau_dbc / 10)
    white = scipy.fft.rfft(rng.normal(0, np.sqrt(density * sample_rate / stride), n_knots))
    frequency = scipy.fft.rfftfreq(n_knots, stride / sample_rate)
    phase += scipy.fft.irfft(white / (1 + (frequency / loop_bandwidth) ** 2), n_knots)
    return Curve(np.exp(1j * phase).astype(np.complex64), stride)


def iq_imbalance(samples: NDArray[np.complex64], gain_db: float, phase: float) -> NDArray[np.complex64]:
    """Add the image that a Q branch of other gain, in dB, and an angle off by `phase` degrees make.

    With Q' = g (Q cos φ + I sin φ) the samples become (1 + g e^jφ) / 2 · x + (1 - g e^-jφ) / 2 · x* (Valkama, Renfors
    and Koivunen, 2001, equation 4).
    """
    turn = 10 ** (gain_db / 20) * np.exp(1j * np.radians(phase))
    result = np.conj(samples)
    result *= np.complex64((1 - np.conj(turn)) / 2)
    result += samples * np.complex64((1 + turn) / 2)
    return result


def dc_offset(
    n: int,
    sample_rate: float,
    rng: np.random.Generator,
    power: float,
    flicker_power: float = 0.0,
    flicker_corner: float = 10e3,
) -> Curve:
    """An offset and the 1/f noise about it.

    Parameters
    ----------
    n : int
        Number of samples.
    sample_rate : float
        In Hz.
    rng : numpy.random.Generator
    power, flicker_power : float
        Of the offset, and of the noise, whose density falls as 1/f.
    flicker_corner : float
        In Hz; it ends there.
    """
    stride = max(1, int(sample_rate / (8 * flicker_corner)))
    n_knots = scipy.fft.next_fast_len(n // stride + 2)
    frequency = np.abs(np.fft.fftfreq(n_knots, stride / sample_rate))
    inside = (frequency > 0) & (frequency <= flicker_corner)
    shape = np.zeros(n_knots)
    shape[inside] = 1 / np.sqrt(frequency[inside])
    shape *= n_knots * np.sqrt(flicker_power / max(np.sum(shape**2), 1e-30))
    noise = scipy.fft.ifft(shape * np.sqrt(0.5) * rng.standard_normal((n_knots, 2)).view(np.complex128)[:, 0])
    noise += np.sqrt(power) * np.exp(2j * np.pi * rng.random())
    return Curve(noise.astype(np.complex64), stride)


def compress(samples: NDArray[np.complex64], limit: float) -> NDArray[np.complex64]:
    """Saturate as an amplifier does: the magnitude approaches `limit`, the phase stays (Rapp, 1991, smoothness 2)."""
    parts = np.square(samples.view(np.float32).reshape(-1, 2))
    ratio = parts[:, 0] + parts[:, 1]
    ratio *= np.float32(1 / limit**2)
    np.square(ratio, out=ratio)
    ratio += 1
    return samples / np.sqrt(np.sqrt(ratio))


# --- Gain and converter ---


def agc_steps(
    samples: NDArray[np.complex64], sample_rate: float, rng: np.random.Generator, rate: float, step_db: float
) -> NDArray[np.complex64]:
    """Change the gain at random moments, up or down by one step, never more than three steps from where it was.

    Parameters
    ----------
    samples : (n,) complex64
    sample_rate : float
        In Hz.
    rng : numpy.random.Generator
    rate : float
        Mean number of changes per second.
    step_db : float
        Size of a step.
    """
    n = len(samples)
    moments = np.sort(rng.integers(0, n, rng.poisson(rate * n / sample_rate)))
    edges = np.append(moments, n)
    result = samples.copy()
    position = 0
    for first, last in pairwise(edges.tolist()):
        steps = (-1, 1) if abs(position) < 3 else (-np.sign(position),)
        position += int(rng.choice(steps))
        result[first:last] *= np.float32(10 ** (position * step_db / 20))
    return result


def spurious(
    samples: NDArray[np.complex64], rng: np.random.Generator, spurs: tuple[Spur, ...], noise_power: float
) -> NDArray[np.complex64]:
    """Add lines, their levels relative to `noise_power`; each begins with a random phase."""
    block = 4096
    n_blocks = -(-len(samples) // block)
    frequencies = np.array([spur.frequency for spur in spurs])[:, None]
    levels = np.sqrt(noise_power * 10 ** (np.array([spur.level_db for spur in spurs])[:, None] / 10))
    # A line is the product of its phasors within and between blocks; their matrix product sums over the lines.
    within = np.exp(2j * np.pi * frequencies * np.arange(block))
    starts = levels * np.exp(2j * np.pi * (frequencies * block * np.arange(n_blocks) + rng.random((len(spurs), 1))))
    lines = (starts.T.astype(np.complex64) @ within.astype(np.complex64)).ravel()[: len(samples)]
    lines += samples
    return lines


def quantise(samples: NDArray[np.complex64], bits: int, full_scale: float) -> NDArray[np.complex64]:
    """Round I and Q to the levels of a converter, 2**bits - 1 of them from -`full_scale` to `full_scale`, and clip.

    Parameters
    ----------
    samples : (n,) complex64
    bits : int
        8 of RTL-SDR and HackRF One, 12 of Pluto, bladeRF and Lime, 14 or 16 of others.
    full_scale : float
        In the unit of the samples.

    Returns
    -------
    (n,) complex64
        At most 1 in either part: full scale is 1, as recordings have it.
    """
    levels = np.float32(2 ** (bits - 1) - 1)
    parts = samples.view(np.float32) * (levels / np.float32(full_scale))
    np.round(parts, out=parts)
    np.clip(parts, -levels, levels, out=parts)
    parts /= levels
    return parts.view(np.complex64)


# --- All of it ---


def mix(
    samples: NDArray[np.complex64], sample_rate: float, noise_power: float, receiver: Receiver, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Compression, phase noise, imbalance, offset; what the filter leaves of neighbours is in the samples already.

    Faults that a receiver does not have cost nothing.

    Parameters
    ----------
    samples : (n,) complex64
        From the antenna, with its noise.
    sample_rate : float
        In Hz.
    noise_power : float
        Mean power of the noise, to which the receiver's levels relate.
    receiver : Receiver
    rng : numpy.random.Generator
    """
    stages: list[_Stage] = []
    if receiver.compression_db < np.inf:
        limit = _level(samples) * 10 ** (receiver.compression_db / 20)
        stages.append(lambda piece, _: compress(piece, limit))
    if receiver.linewidth > 0 or receiver.plateau_dbc > -np.inf:
        purity = receiver.linewidth, receiver.plateau_dbc, receiver.loop_bandwidth
        phasors = oscillator(len(samples), sample_rate, rng, *purity)
        stages.append(lambda piece, first: piece * phasors.piece(first, len(piece)))
    if receiver.gain_imbalance_db != 0 or receiver.phase_imbalance != 0:
        stages.append(lambda piece, _: iq_imbalance(piece, receiver.gain_imbalance_db, receiver.phase_imbalance))
    if max(receiver.dc_db, receiver.flicker_db) > -np.inf:
        power, flicker = (noise_power * 10 ** (level / 10) for level in (receiver.dc_db, receiver.flicker_db))
        offset = dc_offset(len(samples), sample_rate, rng, power, flicker, receiver.flicker_corner)
        stages.append(lambda piece, first: piece + offset.piece(first, len(piece)))
    return _in_pieces(samples, stages)


def digitise(
    samples: NDArray[np.complex64], sample_rate: float, noise_power: float, receiver: Receiver, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """What comes after the filter: spurs, gain steps, saturation, rounding.

    Parameters
    ----------
    samples : (n,) complex64
        After the filter.
    sample_rate, noise_power : float
        As in :func:`mix`.
    receiver : Receiver
    rng : numpy.random.Generator

    Returns
    -------
    (n,) complex64
        At most 1 in either part.
    """
    if receiver.spurs:
        samples = spurious(samples, rng, receiver.spurs, noise_power)
    # The converter's scale is set for the level that the gain control starts from.
    level = _level(samples)
    if receiver.agc_rate > 0:
        samples = agc_steps(samples, sample_rate, rng, receiver.agc_rate, receiver.agc_step_db)
    full_scale = level * 10 ** (receiver.headroom_db / 20)
    return _in_pieces(samples, [lambda piece, _: quantise(piece, receiver.bits, full_scale)])


_Stage = Callable[[NDArray[np.complex64], int], NDArray[np.complex64]]
_PIECE = 2**15  # samples that stay in the processor's cache from one stage to the next


def _in_pieces(samples: NDArray[np.complex64], stages: Sequence[_Stage]) -> NDArray[np.complex64]:
    """Send samples through stages, each a function of some samples and the number of the first."""
    result = np.empty_like(samples)
    for first in range(0, len(samples), _PIECE):
        piece = samples[first : first + _PIECE]
        for stage in stages:
            piece = stage(piece, first)
        result[first : first + _PIECE] = piece
    return result


def _level(samples: NDArray[np.complex64]) -> float:
    """Root mean square of samples spread over all."""
    return float(np.sqrt(np.mean(np.abs(samples[:: max(1, len(samples) // 2**16)]) ** 2)))


# --- Receivers as one meets them ---


def random_receiver(rng: np.random.Generator) -> Receiver:
    """Draw a front end: from a laboratory's to a cheap dongle."""
    cheap = rng.random() < 0.4
    is_filtered, is_coloured = rng.random() < 0.6, rng.random() < 0.4
    has_dc, has_spurs = rng.random() < 0.6, rng.random() < (0.6 if cheap else 0.25)
    # Most filters are flat but for their edges; some, and most that a protocol's own receiver has, are round all over.
    roll_off = rng.uniform(0.05, 0.2) if rng.random() < 0.9 else rng.uniform(0.2, 0.45)
    return Receiver(
        roll_off=roll_off if is_filtered else 0.0,
        depth_db=rng.uniform(20, 60) if is_filtered else 0.0,
        stop=rng.uniform(0, 0.1) if is_filtered and roll_off < 0.2 and rng.random() < 0.3 else 0.0,
        tilt_db=rng.normal(0, 1.5) if rng.random() < 0.4 else 0.0,
        ripple_db=rng.uniform(0, 2.5) if rng.random() < 0.4 else 0.0,
        ripple_period=rng.uniform(0.1, 1.0),
        noise_tilt_db=rng.normal(0, 2) if is_coloured else 0.0,
        noise_hump_db=rng.uniform(-4, 6) if is_coloured else 0.0,
        noise_hump_at=rng.uniform(-0.5, 0.5),
        noise_hump_width=rng.uniform(0.03, 0.3),
        compression_db=rng.uniform(3, 15) if rng.random() < 0.15 else np.inf,
        linewidth=_log_uniform(rng, 1, 300) if cheap else _log_uniform(rng, 0.01, 10),
        plateau_dbc=rng.uniform(-95, -75) if cheap else rng.uniform(-115, -90),
        loop_bandwidth=_log_uniform(rng, 30e3, 500e3),
        gain_imbalance_db=rng.normal(0, 0.5 if cheap else 0.1),
        phase_imbalance=rng.normal(0, 3 if cheap else 0.5),
        dc_db=rng.uniform(-35, 25) if has_dc else -np.inf,
        flicker_db=rng.uniform(-45, -15) if has_dc and rng.random() < 0.7 else -np.inf,
        flicker_corner=_log_uniform(rng, 1e3, 100e3),
        agc_rate=_log_uniform(rng, 10, 200) if rng.random() < 0.15 else 0.0,
        agc_step_db=float(rng.choice([0.5, 1.0, 2.0, 3.0])),
        spurs=_random_spurs(rng) if has_spurs else (),
        adc_noise_db=rng.uniform(-50, -8),
        headroom_db=rng.uniform(3, 10) if rng.random() < 0.2 else rng.uniform(10, 25),
        bits=8 if cheap else int(rng.choice([8, 12, 12, 14, 16])),
    )


def _random_spurs(rng: np.random.Generator) -> tuple[Spur, ...]:
    """Lines anywhere, or at multiples of a clock."""
    count = int(rng.integers(1, 7))
    places: NDArray[np.floating] = rng.uniform(-0.5, 0.5, count)
    if rng.random() < 0.5:
        places = (rng.uniform(0, 1) + rng.uniform(0.02, 0.3) * np.arange(count)) % 1 - 0.5
    return tuple(Spur(float(place), rng.uniform(-40, 8)) for place in places)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
