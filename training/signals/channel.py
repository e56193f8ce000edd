# SPDX-License-Identifier: Apache-2.0
"""What happens to a signal between a transmitter's baseband and a receiver's samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Delay spreads in seconds and Doppler spreads in Hz that scenes draw from: indoor to hilly, standing to fast.
DELAY_SPREADS = (0.0, 30e-9, 100e-9, 300e-9, 1000e-9)
DOPPLER_SPREADS = (0.0, 0.0, 5.0, 70.0, 300.0)


def multipath(
    iq: NDArray[np.complex64], sample_rate: float, delay_spread: float, doppler: float, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Tapped delay line with exponential power profile and Rayleigh taps, as TDL models are (TR 38.901 clause 7.7.2).

    Parameters
    ----------
    iq : (n,) complex64
    sample_rate : float
        In Hz; tap delays are rounded to whole samples.
    delay_spread : float
        Root-mean-square delay spread in seconds; 0 leaves a single tap.
    doppler : float
        Largest Doppler shift in Hz; 0 freezes the channel.

    Returns
    -------
    (n,) complex64
        Of the same mean power on the average over channels. Starts are wrapped around, as scenes are circular.
    """
    n_taps = 6 if delay_spread > 0 else 1
    delays = np.sort(rng.exponential(delay_spread, n_taps)) if delay_spread > 0 else np.zeros(1)
    shifts = np.unique(np.round((delays - delays[0]) * sample_rate).astype(int))
    powers = np.exp(-shifts / max(delay_spread * sample_rate, 1e-9))
    powers /= powers.sum()
    result = np.zeros_like(iq)
    for shift, power in zip(shifts, powers, strict=True):
        result += np.roll(iq, shift) * (np.sqrt(power) * _tap_gain(len(iq), sample_rate, doppler, rng))
    return result


def _tap_gain(n: int, sample_rate: float, doppler: float, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Rayleigh gain over time, a sum of sinusoids (Jakes): (n,) or, without Doppler, (1,)."""
    if doppler == 0:
        return (rng.standard_normal((1, 2)) / np.sqrt(2)).astype(np.float32).view(np.complex64)[:, 0]
    knots = np.linspace(0, n / sample_rate, max(3, int(n / sample_rate * doppler * 20)))
    arrivals = rng.uniform(0, 2 * np.pi, (12, 1))
    phases = rng.uniform(0, 2 * np.pi, (12, 1))
    gain = np.exp(1j * (2 * np.pi * doppler * np.cos(arrivals) * knots + phases)).sum(axis=0) / np.sqrt(12)
    at = np.arange(n) / sample_rate
    result = np.empty(n, np.complex64)
    result.real = np.interp(at, knots, gain.real)
    result.imag = np.interp(at, knots, gain.imag)
    return result


@dataclass(frozen=True)
class Receiver:
    """A front end and its faults.

    Attributes
    ----------
    skirt : float
        Share of the band, at either edge, over which the filter rolls off.
    depth_db : float
        Attenuation that the filter reaches at the band edge.
    stop : float
        Share of the band beyond the skirt, at either edge, that lies in the filter's stop band.
    tilt_db, ripple_db : float
        Slope over the band, and depth of a slow ripple, in dB.
    adc_noise_db : float
        White noise after the filter, relative to the noise before it.
    dc_db, spur_db : float
        Power of the offset at the centre and of each spur, relative to the noise in the whole band.
    n_spurs : int
        Number of spurs.
    image_db : float
        Image rejection: power of the mirrored spectrum, relative to the signal.
    clip : float
        Amplitude, relative to the root mean square, above which the converter clips.
    bits : int
        Resolution of the converter.
    """

    skirt: float = 0.0
    depth_db: float = 0.0
    stop: float = 0.0
    tilt_db: float = 0.0
    ripple_db: float = 0.0
    adc_noise_db: float = -60.0
    dc_db: float = -60.0
    spur_db: float = -60.0
    n_spurs: int = 0
    image_db: float = -80.0
    clip: float = 6.0
    bits: int = 16


def random_receiver(rng: np.random.Generator) -> Receiver:
    """Draw a front end: from a clean one to a cheap dongle."""
    filtered = rng.random() < 0.75
    return Receiver(
        skirt=rng.uniform(0.01, 0.2) if filtered else 0.0,
        depth_db=rng.uniform(10, 60) if filtered else 0.0,
        stop=rng.uniform(0.0, 0.1) if filtered and rng.random() < 0.3 else 0.0,
        tilt_db=rng.normal(0, 1.5) if rng.random() < 0.4 else 0.0,
        ripple_db=rng.uniform(0, 2) if rng.random() < 0.4 else 0.0,
        adc_noise_db=rng.uniform(-50, -8),
        dc_db=rng.uniform(-35, 5) if rng.random() < 0.6 else -60.0,
        spur_db=rng.uniform(-40, -10),
        n_spurs=int(rng.integers(1, 7)) if rng.random() < 0.4 else 0,
        image_db=rng.uniform(-60, -25),
        clip=rng.uniform(2, 6),
        bits=int(rng.choice([8, 8, 12, 16])),
    )


def response(receiver: Receiver, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Amplitude response of a receiver over the band: (n,) float32, in the order of FFT bins."""
    offset = np.fft.fftfreq(n).astype(np.float32)  # share of the band, -0.5 to 0.5
    edge = 0.5 - receiver.stop - receiver.skirt
    depth = np.clip((np.abs(offset) - edge) / max(receiver.skirt, 1e-6), 0, 1)
    # Power 1.5: flat where the pass band ends, steeper towards the stop band, as real filters are.
    attenuation_db = receiver.depth_db * depth**1.5
    ripple = receiver.ripple_db * np.cos(2 * np.pi * (offset * rng.uniform(0.5, 3) + rng.random()))
    return (10 ** ((ripple - attenuation_db + receiver.tilt_db * offset) / 20)).astype(np.float32)


def add_lines(
    spectrum: NDArray[np.complex64], noise_power: float, receiver: Receiver, rng: np.random.Generator
) -> None:
    """Add the offset at the centre and the spurs to a scene's spectrum, in place.

    Parameters
    ----------
    spectrum : (n,) complex64
        After the filter, in the order of FFT bins.
    noise_power : float
        Mean power of the noise before the filter, to which the receiver's levels relate.
    receiver : Receiver
    rng : numpy.random.Generator
    """
    n = len(spectrum)
    lines = [(0, receiver.dc_db)] + [(rng.integers(n), receiver.spur_db) for _ in range(receiver.n_spurs)]
    for at, level_db in lines:
        spectrum[at] += _phasor(rng) * np.float32(n * np.sqrt(noise_power * 10 ** (level_db / 10)))


def digitise(
    samples: NDArray[np.complex64], noise_power: float, receiver: Receiver, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Add what comes after the filter: converter noise, the image, clipping and rounding.

    Parameters
    ----------
    samples : (n,) complex64
        Output of the filter.
    noise_power : float
        As in :func:`add_lines`.
    receiver : Receiver
    rng : numpy.random.Generator

    Returns
    -------
    (n,) complex64
        At most 1 in either part.
    """
    n = len(samples)
    sigma = np.float32(np.sqrt(noise_power * 10 ** (receiver.adc_noise_db / 10) / 2))
    result = rng.standard_normal((n, 2), np.float32).view(np.complex64)[:, 0]
    result *= sigma
    result += samples
    result += np.conj(result) * (_phasor(rng) * np.float32(10 ** (receiver.image_db / 20)))
    limit = receiver.clip * np.sqrt(np.mean(np.abs(result[:: max(1, n // 65536)]) ** 2))
    levels = np.float32(2 ** (receiver.bits - 1) - 1)
    parts = result.view(np.float32)
    parts *= levels / np.float32(limit)
    np.clip(parts, -levels, levels, out=parts)
    np.round(parts, out=parts)
    parts /= levels
    return result


def _phasor(rng: np.random.Generator) -> np.complex64:
    return np.complex64(np.exp(2j * np.pi * rng.random()))
