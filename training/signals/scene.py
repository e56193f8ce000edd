# SPDX-License-Identifier: Apache-2.0
"""Whole scenes: transmitters side by side in a band, through channels into one receiver, with every pixel's label.

A scene is put together in the frequency domain, where resampling, shifting in frequency, transmit filters, frozen
channels, noise and the receiver's filter are all one multiplication and addition. It is circular: its end runs into its
start, so a margin is cut off at either end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.segments import OTHER
from rfvit_rt.spectrogram import SpectrogramSpec
from training.datasets import IGNORED, UNNAMED
from training.signals import receiver as rx
from training.signals.bursts import Signal
from training.signals.bursts import occupancy as burst_occupancy
from training.signals.channel import CABLE, Channel
from training.signals.grid import ResourceGrid, modulate, occupancy, visible
from training.signals.transform import band_blocks, fft, ifft, scale_band

MARGIN = 1e-3  # seconds cut off at either end
LEAST_BANDWIDTH = 100e3  # in Hz, about a bin: the band that the SNR of a narrower signal is said in
LEAST_SNR_DB = -12.0  # below it nothing can be seen, not even over 40 ms
RULES = ("occupancy", "carrier")
"""What a pixel's label means: energy is allocated in it; or it lies in a carrier's band, in use or not."""

# Share of what can be seen that a signal without an edge fills: all but two bins or steps of rounding. Of a tile of a
# wider band this is not asked: it has 30 MHz or more, which no signal of no name fills.
_WHOLE_BAND = 0.99
_ROLL_OFF = 0.03  # of a transmit filter, as a share of the carrier: its guard band


class Transmitter(Protocol):
    """Something in a scene that sends.

    Attributes
    ----------
    label : str
        Class name.
    offset : float
        Of its centre from the scene's centre, in Hz.
    snr_db : float
        Power density where it sends over that of the noise, in dB.
    """

    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def offset(self) -> float: ...  # noqa: D102
    @property
    def snr_db(self) -> float: ...  # noqa: D102

    def received(
        self, whole: float, half_band: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.complex64], float, float] | None:
        """Spectrum of what arrives, where the noise has power 1 per Hz.

        Parameters
        ----------
        whole : float
            Length in seconds, with margins.
        half_band : float
            What is further than this from the scene's centre, in Hz, need not be made.
        rng : numpy.random.Generator
            Draws the channel.

        Returns
        -------
        (n,) complex64, float, float
            A transform of the samples, their rate and the centre's offset from the scene's centre, in Hz; None where
            nothing falls into the band.
        """

    def occupies(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Pixels in which it has allocated energy: (step, bin), edges in seconds and in Hz from the scene's centre."""

    def covers(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Bins of its band, in use or not: (bin,)."""


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
    channel : Channel
        Applied to every OFDM symbol alone: it changes little within one, and its delays are short against the prefix.
    regrowth_db : float
        Level of its spectral regrowth next to the carrier, relative to the carrier.
    """

    grid: ResourceGrid
    offset: float
    snr_db: float
    channel: Channel = CABLE
    regrowth_db: float = -60.0

    @property
    def label(self) -> str:
        """Class name."""
        return self.grid.label

    @property
    def edges(self) -> tuple[float, float]:
        """Of the carrier, in Hz from the scene's centre."""
        lower = self.offset + (self.grid.lowest_subcarrier - 0.5) * self.grid.subcarrier_spacing
        return lower, lower + self.grid.bandwidth

    def received(
        self, whole: float, half_band: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.complex64], float, float] | None:
        """As :class:`Transmitter` says."""
        grid, centre = visible(self.grid, -half_band - self.offset, half_band - self.offset)
        if grid.values.shape[1] == 0:
            return None
        offset = self.offset + centre
        iq = modulate(_faded(grid, self.channel, rng))[: round(whole * grid.sample_rate)]
        spectrum = fft(iq)
        at = offset + band_blocks(len(iq)) * grid.sample_rate
        lower, upper = self.edges
        beyond = np.maximum(lower - at, at - upper)
        slope = np.clip(beyond / (_ROLL_OFF * self.grid.bandwidth), 0, 1)
        floor = 10 ** (self.regrowth_db / 20)
        gain = floor + (1 - floor) * 0.5 * (1 + np.cos(np.pi * slope))
        gain *= np.sqrt(grid.subcarrier_spacing * 10 ** (self.snr_db / 10))
        scale_band(spectrum, gain.astype(np.float32))
        return spectrum, grid.sample_rate, offset

    def occupies(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As :class:`Transmitter` says."""
        return occupancy(self.grid, step_edges, bin_edges - self.offset)

    def covers(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As :class:`Transmitter` says."""
        lower, upper = self.edges
        return np.logical_and(bin_edges[1:] > lower, bin_edges[:-1] < upper)


def _faded(grid: ResourceGrid, channel: Channel, rng: np.random.Generator) -> ResourceGrid:
    """Send every resource element through a channel's gain at its time and frequency."""
    if not channel.profile:
        return grid
    times = np.asarray(grid.symbol_start[:-1] / grid.sample_rate)
    columns = np.arange(grid.values.shape[1], dtype=np.float64)
    frequencies = (grid.lowest_subcarrier + columns) * grid.subcarrier_spacing
    return replace(grid, values=grid.values * channel.gains(times, frequencies, rng))


@dataclass(frozen=True, eq=False)
class Emitter:
    """A signal that comes in bursts, and its place in a scene.

    Attributes
    ----------
    signal : Signal
        As long as the scene and its margins.
    offset : float
        Of its centre from the scene's centre, in Hz.
    snr_db : float
        Power where the strongest of it is on, over the noise in the band that it then occupies, in dB; at least in
        ``LEAST_BANDWIDTH``.
    channel : Channel
        Frozen for the scene.
    """

    signal: Signal
    offset: float
    snr_db: float
    channel: Channel = CABLE

    @property
    def label(self) -> str:
        """Class name."""
        return self.signal.label

    @cached_property
    def bandwidth(self) -> float:
        """Occupied while anything is sent, in the mean, in Hz."""
        bursts = self.signal.bursts
        order = np.argsort(bursts.start)
        ends = np.maximum.accumulate(bursts.stop[order])
        begins = np.maximum(bursts.start[order], np.concatenate(([-np.inf], ends[:-1])))
        time = np.sum(np.maximum(ends - begins, 0))
        area = np.sum((bursts.stop - bursts.start) * (bursts.high - bursts.low))
        return float(max(area / max(time, 1e-9), LEAST_BANDWIDTH))

    def received(
        self, whole: float, half_band: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.complex64], float, float] | None:
        """As :class:`Transmitter` says."""
        if abs(self.offset) - self.signal.sample_rate / 2 >= half_band:
            return None
        spectrum = fft(self.signal.samples)
        gain = np.float32(np.sqrt(self.bandwidth * 10 ** (self.snr_db / 10)))
        if self.channel.profile:
            # An eighth of the blocks will do: a thousandth of the band is far less than any channel's coherence.
            blocks = band_blocks(len(spectrum))
            gains = self.channel.gains(np.zeros(1), blocks[::8] * self.signal.sample_rate, rng)[0]
            scale_band(spectrum, gain * np.repeat(gains, 8)[: len(blocks)])
        else:
            spectrum *= gain
        return spectrum, self.signal.sample_rate, self.offset

    def occupies(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As :class:`Transmitter` says."""
        return burst_occupancy(self.signal.bursts, step_edges, bin_edges - self.offset)

    def covers(self, step_edges: NDArray[np.float64], bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As :class:`Transmitter` says; of a hopping one, the channels that it used."""
        return np.logical_or.reduce(self.occupies(step_edges, bin_edges), axis=0)


@dataclass(frozen=True, eq=False)
class Scene:
    """A band for a while.

    Attributes
    ----------
    samples : (n,) complex64
        What the receiver gave.
    sample_rate : float
        In Hz.
    transmitters : tuple of Transmitter
        What was on the air.
    receiver : Receiver
    """

    samples: NDArray[np.complex64]
    sample_rate: float
    transmitters: tuple[Transmitter, ...]
    receiver: rx.Receiver

    def mask(self, spec: SpectrogramSpec, labels: tuple[str, ...], rule: str = "occupancy") -> NDArray[np.uint8]:
        """Label every pixel of the scene's spectrogram; where transmitters overlap, the one with the higher SNR counts.

        The SNR is that of its strongest part: weaker beams of an NR cell, stations and devices count as that.

        Parameters
        ----------
        spec : SpectrogramSpec
        labels : tuple of str
            The first is the background. Transmitters that have none of them are background.
        rule : str
            One of ``RULES``.

        Returns
        -------
        (step, n_fft) uint8
            Index into `labels`; `IGNORED` where the receiver's filter leaves nothing of a signal that can be seen;
            `UNNAMED` where a signal of no name has no edge in time or frequency, and could as well be noise.
        """
        n_steps = int(len(self.samples) / spec.step_length(self.sample_rate) + 1e-6)
        n_fft = spec.n_fft(self.sample_rate)
        step_edges = MARGIN + np.arange(n_steps + 1, dtype=np.float64) * spec.time_step
        bin_edges = (np.arange(n_fft + 1, dtype=np.float64) - n_fft / 2 - 0.5) * (self.sample_rate / n_fft)
        loss_db = rx.snr_loss_db(self.receiver, (bin_edges[:-1] + bin_edges[1:]) / (2 * self.sample_rate))
        mask = np.zeros((n_steps, n_fft), np.uint8)
        for sent in sorted(self.transmitters, key=lambda one: one.snr_db):
            if sent.label not in labels:
                continue
            occupied = sent.occupies(step_edges, bin_edges)
            pixels = sent.covers(step_edges, bin_edges) if rule == "carrier" else occupied
            clear = sent.snr_db - loss_db > LEAST_SNR_DB
            name = labels.index(sent.label)
            if sent.label == OTHER and clear.any() and occupied[:, clear].mean() > _WHOLE_BAND:
                name = UNNAMED
            label = np.where(clear, name, IGNORED)
            np.copyto(mask, label.astype(np.uint8), where=pixels)
        return mask


def on_the_air(
    transmitters: tuple[Transmitter, ...],
    sample_rate: float,
    duration: float,
    receiver: rx.Receiver,
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Send signals through their channels into one receiver.

    Parameters
    ----------
    transmitters : tuple of Transmitter
        May reach beyond the band; only what falls inside is received.
    sample_rate : float
        Of the receiver, in Hz.
    duration : float
        In seconds.
    receiver : Receiver
    rng : numpy.random.Generator

    Returns
    -------
    (n,) complex64
        As many as fill the duration; at most 1 in either part.
    """
    whole = duration + 2 * MARGIN
    n = round(whole * sample_rate)
    passed, noise_gain = rx.signal_and_noise(receiver, n, rng)
    spectrum = np.zeros(n, np.complex64)
    for transmitter in transmitters:
        arrived = transmitter.received(whole, sample_rate / 2, rng)
        if arrived is not None:
            _add(spectrum, *arrived, whole)
    scale_band(spectrum, passed)
    noise = _noise(n, rng)
    scale_band(noise, noise_gain * np.float32(np.sqrt(sample_rate * n)))
    spectrum += noise
    samples = rx.mix(ifft(spectrum), sample_rate, sample_rate, receiver, rng)
    margin = round(MARGIN * sample_rate)
    samples = samples[margin : margin + math.ceil(duration * sample_rate - 1e-6)]
    return rx.digitise(samples, sample_rate, sample_rate, receiver, rng)


def _noise(n: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Transform of white noise, of power 1.

    Either part is evenly distributed: many times faster to draw than Gaussian, and a sum over some hundred of them, as
    every pixel of a spectrogram is, is Gaussian all the same.
    """
    draws = rng.integers(-(2**15), 2**15, 2 * n, np.int16)
    return (draws * np.float32(np.sqrt(1.5) / 2**15)).view(
        np.complex64
    )  # a part's variance is a third of its bound's square


def _add(
    spectrum: NDArray[np.complex64],
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
    scale = np.float32(n / m)
    # Both are in the order of a transform: negative frequencies come last.
    for first, last in pairwise(sorted({low, high, *(cut for cut in (0, -shift) if low < cut < high)})):
        source, target = first % m, (first + shift) % n
        spectrum[target : target + last - first] += signal[source : source + last - first] * scale
