# SPDX-License-Identifier: Apache-2.0
"""Whole scenes: carriers side by side in a band, on the air, through a receiver, with the label of every pixel.

A scene is put together in the frequency domain, where resampling, shifting in frequency, transmit filters and the
receiver's response are all one multiplication and addition. It is circular: its end runs into its start, so a margin is
cut off at either end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from rfvit_rt.spectrogram import SpectrogramSpec
from training.signals import channel
from training.signals.grid import ResourceGrid, modulate, occupancy
from training.signals.lte import lte_downlink
from training.signals.nr import nr_downlink
from training.signals.other import OTHERS, Generator
from training.signals.priors import random_lte_config, random_nr_config

MARGIN = 1e-3  # seconds cut off at either end

# Rates in Hz that radios commonly run at; all give whole numbers of samples a millisecond.
SAMPLE_RATES = (1.92e6, 2.4e6, 3.84e6, 5e6, 7.68e6, 10e6, 11.52e6, 15.36e6, 19.2e6, 20e6, 23.04e6, 25e6, 30.72e6, 40e6)
WIDE_SAMPLE_RATES = (46.08e6, 50e6, 56e6, 61.44e6)


@dataclass(frozen=True, eq=False)
class Carrier:
    """An LTE or NR carrier and its place in a scene.

    Attributes
    ----------
    grid : ResourceGrid
        At least as long as the scene and its margins.
    offset : float
        Of its centre from the scene's centre, in Hz.
    snr_db : float
        Mean power of an occupied resource element of magnitude 1 over the noise in one subcarrier, in dB.
    delay_spread, doppler : float
        Of its channel, in seconds and Hz.
    fading : bool
        Whether the channel has Rayleigh taps; a cabled or line-of-sight carrier has not.
    regrowth_db : float
        Level of its spectral regrowth next to the carrier, relative to the carrier.
    """

    grid: ResourceGrid
    offset: float
    snr_db: float
    delay_spread: float = 0.0
    doppler: float = 0.0
    fading: bool = False
    regrowth_db: float = -60.0


@dataclass(frozen=True, eq=False)
class Interferer:
    """A signal of no named class and its place in a scene, in Hz; its power in dB over the noise in 100 kHz."""

    generator: Generator
    offset: float
    power_db: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A band for a while.

    Attributes
    ----------
    samples : (n,) complex64
        What the receiver gave.
    sample_rate : float
        In Hz.
    carriers : tuple of Carrier
        What was on the air.
    """

    samples: NDArray[np.complex64]
    sample_rate: float
    carriers: tuple[Carrier, ...]

    def mask(self, spec: SpectrogramSpec, labels: tuple[str, ...]) -> NDArray[np.uint8]:
        """Label every pixel of the scene's spectrogram by occupancy; where carriers overlap, the stronger one counts.

        Returns
        -------
        (step, n_fft) uint8
            Index into `labels`; 0 where no carrier has allocated energy.
        """
        n_steps = int(len(self.samples) / spec.step_length(self.sample_rate) + 1e-6)
        n_fft = spec.n_fft(self.sample_rate)
        step_edges = MARGIN + np.arange(n_steps + 1, dtype=np.float64) * spec.time_step
        bin_edges = (np.arange(n_fft + 1, dtype=np.float64) - n_fft / 2 - 0.5) * (self.sample_rate / n_fft)
        mask = np.zeros((n_steps, n_fft), np.uint8)
        for carrier in sorted(self.carriers, key=lambda c: c.snr_db):
            mask[occupancy(carrier.grid, step_edges, bin_edges - carrier.offset)] = labels.index(carrier.grid.label)
        return mask


@dataclass(frozen=True)
class SceneSettings:
    """What random scenes are drawn from.

    Attributes
    ----------
    snr_db : (float, float)
        Range of every carrier's signal-to-noise ratio, in dB; equal bounds fix it.
    noise_only : float
        Share of scenes without any carrier.
    duration : float
        In seconds.
    max_sample_rate : float
        Highest sample rate drawn, in Hz.
    """

    snr_db: tuple[float, float] = (-5.0, 40.0)
    noise_only: float = 0.12
    duration: float = 0.04
    max_sample_rate: float = 61.44e6


def random_scene(settings: SceneSettings, rng: np.random.Generator) -> Scene:
    """Draw a scene: a receiver, a band, up to five carriers in it, perhaps other signals."""
    wide = [rate for rate in WIDE_SAMPLE_RATES if rate <= settings.max_sample_rate]
    narrow = [rate for rate in SAMPLE_RATES if rate <= settings.max_sample_rate]
    sample_rate = float(rng.choice(wide if wide and rng.random() < 0.25 else narrow))
    carriers: list[Carrier] = []
    if rng.random() >= settings.noise_only:
        carriers = _random_carriers(settings, sample_rate, rng)
    interferers = _random_interferers(sample_rate, rng) if rng.random() < 0.35 else []
    receiver = channel.random_receiver(rng)
    samples = on_the_air(carriers, interferers, sample_rate, settings.duration, receiver, rng)
    return Scene(samples, sample_rate, tuple(carriers))


def on_the_air(
    carriers: list[Carrier],
    interferers: list[Interferer],
    sample_rate: float,
    duration: float,
    receiver: channel.Receiver,
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Send carriers through their channels into one receiver.

    Parameters
    ----------
    carriers, interferers : list
        May reach beyond the band; only what falls inside is received.
    sample_rate : float
        Of the receiver, in Hz.
    duration : float
        In seconds.
    receiver : Receiver
    rng : numpy.random.Generator

    Returns
    -------
    (duration * sample_rate,) complex64
        At most 1 in either part.
    """
    whole = duration + 2 * MARGIN
    n = round(whole * sample_rate)
    # Noise of power 1 per Hz; white in time is white in frequency.
    noise = rng.standard_normal((n, 2), np.float32).view(np.complex64)[:, 0]
    spectrum = noise * np.float32(np.sqrt(sample_rate * n / 2))
    for carrier in carriers:
        _add(spectrum, sample_rate, *_transmitted(carrier, whole, rng), carrier.offset, whole)
    for interferer in interferers:
        signal, rate = interferer.generator(whole, rng)
        amplitude = np.float32(np.sqrt(100e3 * 10 ** (interferer.power_db / 10)))
        _add(spectrum, sample_rate, scipy.fft.fft(signal * amplitude), rate, interferer.offset, whole)
    spectrum *= channel.response(receiver, n, rng)
    channel.add_lines(spectrum, sample_rate, receiver, rng)
    samples = scipy.fft.ifft(spectrum, overwrite_x=True)
    margin = round(MARGIN * sample_rate)
    return channel.digitise(samples[margin : n - margin], sample_rate, receiver, rng)


def _transmitted(carrier: Carrier, whole: float, rng: np.random.Generator) -> tuple[NDArray[np.complex64], float]:
    """Spectrum of what arrives of a carrier, and its sample rate."""
    grid = carrier.grid
    n = round(whole * grid.sample_rate)
    iq = modulate(grid)[:n]
    if carrier.fading:
        iq = channel.multipath(iq, grid.sample_rate, carrier.delay_spread, carrier.doppler, rng)
    spectrum = scipy.fft.fft(iq, overwrite_x=True)
    centre = (grid.lowest_subcarrier + (grid.values.shape[1] - 1) / 2) * grid.subcarrier_spacing
    beyond = np.abs(np.fft.fftfreq(n, 1 / grid.sample_rate) - centre) - grid.bandwidth / 2
    # Cosine roll-off of the transmit filter over 3 % of the carrier, its guard band, down to the regrowth it leaves.
    slope = np.clip(beyond / (0.03 * grid.bandwidth), 0, 1)
    floor = 10 ** (carrier.regrowth_db / 20)
    spectrum *= (floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * slope))).astype(np.float32)
    return spectrum * np.float32(np.sqrt(grid.subcarrier_spacing * 10 ** (carrier.snr_db / 10))), grid.sample_rate


def _add(
    spectrum: NDArray[np.complex64],
    sample_rate: float,
    signal: NDArray[np.complex64],
    signal_rate: float,
    offset: float,
    whole: float,
) -> None:
    """Add a signal's spectrum to a band's, resampled and shifted; what lies outside the band is dropped."""
    n, m = len(spectrum), len(signal)
    shift = round(offset * whole)
    low = max(-(m // 2), -(n // 2) - shift)
    high = min((m + 1) // 2, (n + 1) // 2 - shift)
    if high <= low:
        return
    source = np.arange(low, high)
    spectrum[(source + shift) % n] += signal[source % m] * np.float32(n / m)


def _random_carriers(settings: SceneSettings, sample_rate: float, rng: np.random.Generator) -> list[Carrier]:
    """Draw the carriers of a scene: one that the receiver is tuned to, or a row of them."""
    level = rng.uniform(*settings.snr_db)
    if settings.snr_db[0] < settings.snr_db[1] and rng.random() < 0.08:
        level = rng.uniform(40, 80)  # cabled, or made by a computer
    whole = settings.duration + 2 * MARGIN
    if rng.random() < 0.3:
        grid = _random_grid(whole, sample_rate, 6, rng)
        return [_random_carrier(grid, rng.normal(0, 0.02) * sample_rate, level, rng)]
    return _row_of_carriers(settings, whole, sample_rate, level, rng)


def _row_of_carriers(
    settings: SceneSettings, whole: float, sample_rate: float, level: float, rng: np.random.Generator
) -> list[Carrier]:
    """Fill the band from its lower edge upwards, with gaps; the band's edges may cut off the outermost carriers."""
    wanted = 1 + rng.binomial(4, 0.12 + 0.25 * min(1.0, sample_rate / 60e6))
    edge = sample_rate / 2
    position = -edge + rng.exponential(0.15) * sample_rate
    if rng.random() < 0.3:  # the first carrier begins below the band
        position = -edge - rng.uniform(0.05, 1.0) * min(sample_rate, 10e6)
    spread_db = 6 if settings.snr_db[0] < settings.snr_db[1] else 0
    carriers: list[Carrier] = []
    for _ in range(20):
        if len(carriers) == wanted or position > 0.85 * edge:
            break
        grid = _random_grid(whole, edge - position if rng.random() < 0.8 else np.inf, 1, rng)
        visible = min(edge, position + grid.bandwidth) - max(-edge, position)
        if visible < min(0.1 * grid.bandwidth, 0.2 * sample_rate):
            position += 0.2 * sample_rate
            continue
        low = grid.lowest_subcarrier * grid.subcarrier_spacing
        carriers.append(_random_carrier(grid, position - low, level + rng.normal(0, spread_db), rng))
        position += grid.bandwidth * rng.uniform(1.03, 1.15) + rng.choice([0, 1]) * rng.exponential(0.2) * sample_rate
    return carriers


def _random_grid(whole: float, room: float, draws: int, rng: np.random.Generator) -> ResourceGrid:
    """Draw an LTE or NR carrier: the widest of a number of draws that is no wider than `room` Hz."""
    n_subframes = int(np.ceil(whole * 1e3)) + 2
    first = int(rng.integers(0, 40))
    if rng.random() < 0.5:
        fitting = [n_prb for n_prb in (6, 15, 25, 50, 75, 100) if n_prb * 180e3 <= max(room, 1.1e6)]
        lte = replace(random_lte_config(rng), n_prb=int(rng.choice(fitting, draws + 1).max()))
        grid = lte_downlink(lte, rng, n_subframes, first)
    else:
        limit = float(np.clip(room * 1.03, 5e6, 100e6))
        drawn = [random_nr_config(rng, max_bandwidth=limit) for _ in range(draws)]
        grid = nr_downlink(max(drawn, key=lambda config: config.bandwidth), rng, n_subframes, first)
    return _switched(_started(grid, rng.uniform(0, 1e-3)), whole, rng)


def _started(grid: ResourceGrid, late: float) -> ResourceGrid:
    """Drop the symbols before `late` seconds, so that scenes begin anywhere in a subframe."""
    first = int(np.searchsorted(grid.symbol_start, late * grid.sample_rate))
    return ResourceGrid(
        grid.label,
        grid.values[first:],
        grid.lowest_subcarrier,
        grid.subcarrier_spacing,
        grid.n_fft,
        grid.cp_lengths[first:],
    )


def _switched(grid: ResourceGrid, whole: float, rng: np.random.Generator) -> ResourceGrid:
    """Now and then let a carrier come on the air or leave it in mid-scene."""
    if rng.random() > 0.12:
        return grid
    change = int(np.searchsorted(grid.symbol_start, rng.uniform(0.1, 0.9) * whole * grid.sample_rate))
    values = grid.values.copy()
    if rng.random() < 0.5:
        values[:change] = 0
    else:
        values[change:] = 0
    return ResourceGrid(
        grid.label, values, grid.lowest_subcarrier, grid.subcarrier_spacing, grid.n_fft, grid.cp_lengths
    )


def _random_carrier(grid: ResourceGrid, offset: float, snr_db: float, rng: np.random.Generator) -> Carrier:
    return Carrier(
        grid,
        float(offset + rng.normal(0, 500)),
        snr_db,
        delay_spread=float(rng.choice(channel.DELAY_SPREADS)),
        doppler=float(rng.choice(channel.DOPPLER_SPREADS)),
        fading=bool(rng.random() < 0.7),
        regrowth_db=rng.uniform(-70, -30) if rng.random() < 0.9 else 0.0,  # 0: sent with no filter at all
    )


def _random_interferers(sample_rate: float, rng: np.random.Generator) -> list[Interferer]:
    return [
        Interferer(
            OTHERS[rng.integers(len(OTHERS))],
            rng.uniform(-0.5, 0.5) * sample_rate,
            rng.uniform(0, 35),
        )
        for _ in range(rng.integers(1, 4))
    ]
