# SPDX-License-Identifier: Apache-2.0
"""Digital single-carrier signals: GSM, FSK, OOK, IEEE 802.15.4, Mode S, QAM and CDMA.

Every generator takes a duration in seconds and a random generator, and gives a :class:`Signal` labelled ``other``.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.signal
from numpy.typing import NDArray

from training.signals.bursts import Bursts, Signal, gate, quick_rate, random_intervals
from training.signals.modulation import phasors, root_raised_cosine, shape, turns_of
from training.signals.sequences import random_qam

# --- GSM ---

GSM_SYMBOL_RATE = 13e6 / 48  # TS 45.010 clause 5.1
_GSM_OVERSAMPLING = 4
_GSM_SLOT = 625  # samples: 156.25 symbols (TS 45.002 clause 5.2)
_GSM_USEFUL = 147 / GSM_SYMBOL_RATE  # of a normal burst; its ramps lie in the guard period
_GSM_HALF_BAND = 125e3


def gsm(duration: float, rng: np.random.Generator, broadcast: bool = True, busy: float = 0.5) -> Signal:
    """One GSM carrier: GMSK of BT 0.3 in slots of 577 µs (TS 45.002, TS 45.004 clause 2).

    Parameters
    ----------
    duration : float
        In seconds; begins anywhere in a multiframe.
    rng : numpy.random.Generator
    broadcast : bool
        A BCCH carrier, which is on all the time, its frequency correction bursts a tone at 67.7 kHz; otherwise traffic
        slots, each with its own power.
    busy : float
        Share of the eight slots that carry traffic; of a carrier without BCCH.
    """
    rate = _GSM_OVERSAMPLING * GSM_SYMBOL_RATE
    n = round(duration * rate)
    n_slots = n // _GSM_SLOT + 3
    first = int(rng.integers(8 * 51))
    slots = np.arange(first, first + n_slots)
    cut = int(rng.integers(_GSM_SLOT))
    bits = rng.choice((-1.0, 1.0), (cut + n) // _GSM_OVERSAMPLING + 2)
    slot_start = np.arange(n_slots) * _GSM_SLOT - cut  # samples
    if broadcast:
        # TS 45.002 clause 7 table 3: slot 0 of frames 0, 10, 20, 30 and 40 of 51; the differential code of zeros.
        correcting = (slots % 8 == 0) & np.isin(slots // 8 % 51, (0, 10, 20, 30, 40))
        for symbol in (np.flatnonzero(correcting) * _GSM_SLOT) // _GSM_OVERSAMPLING:
            bits[symbol : symbol + 148] = 1
        samples = phasors(turns_of(bits, 0.5, 0.3, _GSM_OVERSAMPLING)[cut : cut + n])
        return Signal("other", samples, rate, Bursts.of([0.0], duration, -_GSM_HALF_BAND, _GSM_HALF_BAND))
    used = rng.random(8) < busy
    used[rng.integers(8)] = True
    levels = np.where(used, 10 ** (-2 * rng.integers(0, 8, 8) / 20), 0)
    levels /= levels.max()
    on = np.flatnonzero(used[slots % 8])
    start = slot_start[on] / rate
    stop = start + _GSM_USEFUL
    ramp = 3 / GSM_SYMBOL_RATE
    envelope = gate(n, rate, start - ramp, stop + ramp, ramp)
    envelope *= levels.astype(np.float32)[slots[(np.arange(n) + cut) // _GSM_SLOT] % 8]
    samples = phasors(turns_of(bits, 0.5, 0.3, _GSM_OVERSAMPLING)[cut : cut + n]) * envelope
    return Signal("other", samples, rate, Bursts.of(start, stop, -_GSM_HALF_BAND, _GSM_HALF_BAND))


# --- FSK and OOK, as sensors, meters and remote controls send ---


def fsk(
    duration: float,
    rng: np.random.Generator,
    symbol_rate: float = 50e3,
    index: float = 1.0,
    bandwidth_time: float = 0.5,
    levels: int = 2,
    busy: float = 0.4,
) -> Signal:
    """FSK in bursts of 1 to 30 ms.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    symbol_rate : float
        In Hz; at least 9.6 kHz, so that every time step sees all frequencies. Raised a little where samples are then
        quicker to transform.
    index : float
        Modulation index, up to 3: the distance of the outermost frequencies over the symbol rate.
    bandwidth_time : float
        Of the Gaussian filter; infinite for none.
    levels : int
        2 or 4.
    busy : float
        Share of the time in which bursts are on the air.
    """
    oversampling = 8
    rate = quick_rate(duration, oversampling * symbol_rate)
    symbol_rate = rate / oversampling
    n = round(duration * rate)
    symbols = 2 * rng.integers(0, levels, n // oversampling + 1) / (levels - 1) - 1
    start, stop = random_intervals(duration, rng, (1e-3, 30e-3), busy)
    samples = phasors(turns_of(symbols, index, bandwidth_time, oversampling)[:n])
    samples *= gate(n, rate, start, stop, 1 / symbol_rate)
    half = symbol_rate * (index + 0.9) / 2
    return Signal("other", samples, rate, Bursts.of(start, stop, -half, half))


def ook(duration: float, rng: np.random.Generator, chip_rate: float = 5e3, busy: float = 0.5) -> Signal:
    """On-off keying of random chips, in frames of 3 to 60 ms; a label wherever the carrier is on."""
    oversampling = 32
    rate = quick_rate(duration, oversampling * chip_rate)
    chip_rate = rate / oversampling
    n = round(duration * rate)
    start, stop = random_intervals(duration, rng, (3e-3, 60e-3), busy)
    chip = 1 / chip_rate
    edges = [
        _runs_of_ones(rng.random(int((till - at) / chip)) < 0.5) * chip + at
        for at, till in zip(start, stop, strict=True)
    ]
    pulse_start, pulse_stop = np.concatenate(edges).T
    envelope = gate(n, rate, pulse_start, pulse_stop, chip / 8)
    samples = np.complex64(np.exp(2j * np.pi * rng.random())) * envelope
    return Signal("other", samples, rate, Bursts.of(pulse_start, pulse_stop, -chip_rate, chip_rate))


def _runs_of_ones(bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First of each run and the one after its last: (run, 2)."""
    return np.flatnonzero(np.diff(np.pad(bits, 1).astype(np.int8))).reshape(-1, 2)


# --- IEEE 802.15.4 ---

_CHIPS_OF_ZERO = 0b11011001110000110101001000101110  # IEEE Std 802.15.4-2020 table 12-1, c0 first
_CHIP_RATE = 2e6
_SYMBOL = 16e-6


def chip_sequences() -> NDArray[np.int64]:
    """The 16 sequences of 32 chips of IEEE 802.15.4 at 2.4 GHz (table 12-1): (16, 32) of 0 and 1."""
    zero = np.array([_CHIPS_OF_ZERO >> (31 - place) & 1 for place in range(32)])
    lower = np.array([np.roll(zero, 4 * value) for value in range(8)])
    # The others have every odd chip inverted.
    return np.concatenate((lower, lower ^ (np.arange(32) % 2)))


def ieee802154_packet(payload: NDArray[np.int64], oversampling: int = 4) -> NDArray[np.complex64]:
    """O-QPSK with half-sine pulses of a packet of payload bytes (clause 12.2): preamble, SFD, length, payload.

    Parameters
    ----------
    payload : (byte,) int
    oversampling : int
        Samples per chip.

    Returns
    -------
    (n,) complex64
        At 2 MHz times `oversampling`, of magnitude 1.
    """
    data = np.concatenate((np.zeros(4, np.int64), [0xA7, len(payload)], payload))
    symbols = np.stack((data & 15, data >> 4), axis=1).ravel()  # the lower half first
    chips = 2.0 * chip_sequences()[symbols].ravel() - 1
    half_sine = np.sin(np.pi * (np.arange(2 * oversampling) + 0.5) / (2 * oversampling))
    in_phase = np.multiply.outer(chips[0::2], half_sine).ravel()
    quadrature = np.multiply.outer(chips[1::2], half_sine).ravel()
    samples = np.zeros(len(in_phase) + oversampling, np.complex64)
    samples.real[: len(in_phase)] = in_phase
    samples.imag[oversampling:] = quadrature
    return samples


def ieee802154(duration: float, rng: np.random.Generator, busy: float = 0.3) -> Signal:
    """Packets of IEEE 802.15.4 with acknowledgements 192 µs later."""
    oversampling = 4
    rate = oversampling * _CHIP_RATE
    samples = np.zeros(round(duration * rate), np.complex64)
    starts, stops = [], []
    now = -rng.uniform(0, 5e-3)
    while now < duration:
        begun = now
        for n_bytes, gain in ((int(rng.integers(5, 127)), 1.0), (5, 10 ** (-rng.uniform(0, 1)))):
            packet = ieee802154_packet(rng.integers(0, 256, n_bytes), oversampling)
            _insert(samples, packet * np.float32(gain), round(now * rate))
            starts.append(now)
            stops.append(now + len(packet) / rate)
            now = stops[-1] + 192e-6
        now += 20 * _SYMBOL * int(rng.integers(8)) + rng.exponential((now - begun) * (1 - busy) / busy)
    return Signal("other", samples, rate, Bursts.of(starts, stops, -1.3e6, 1.3e6))


def _insert(samples: NDArray[np.complex64], packet: NDArray[np.complex64], at: int) -> None:
    """Add a packet; what is before or after is cut off."""
    first, last = max(0, at), min(len(samples), at + len(packet))
    if last > first:
        samples[first:last] += packet[first - at : last - at]


# --- Mode S ---

_PREAMBLE = np.array((1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0), bool)  # half microseconds (ICAO Annex 10 IV)


def mode_s_message(n_bits: int, rng: np.random.Generator, oversampling: int = 4) -> NDArray[np.float32]:
    """Envelope of a Mode S reply or ADS-B squitter of 56 or 112 random bits: pulses of half a microsecond.

    Returns
    -------
    ((16 + 2 * n_bits) * oversampling,) float32
        At 2 MHz times `oversampling`.
    """
    bits = rng.random(n_bits) < 0.5
    chips = np.concatenate((_PREAMBLE, np.stack((bits, ~bits), axis=1).ravel()))
    square = np.repeat(chips, oversampling).astype(np.float32)
    # Edges of 0.1 µs, as the standard has them.
    return np.convolve(square, np.array((0.25, 0.5, 0.25), np.float32), mode="same")


def mode_s(duration: float, rng: np.random.Generator, rate: float = 300.0) -> Signal:
    """Transponders of aircraft near and far: `rate` messages a second, Mode S short and long."""
    oversampling = 4
    sample_rate = 2e6 * oversampling
    samples = np.zeros(round(duration * sample_rate), np.complex64)
    starts = np.sort(rng.uniform(-112e-6, duration, 1 + rng.poisson(rate * duration)))
    lengths = []
    for index, start in enumerate(starts):
        message = mode_s_message(int(rng.choice((56, 112))), rng, oversampling)
        gain = 1.0 if index == 0 else 10 ** (-rng.uniform(0, 1))
        carrier = phasors(rng.normal(0, 0.2e6) / sample_rate * np.arange(len(message), dtype=np.float64) + rng.random())
        _insert(samples, carrier * (message * np.float32(gain * np.sqrt(2))), round(start * sample_rate))
        lengths.append(len(message) / sample_rate)
    return Signal("other", samples, sample_rate, Bursts.of(starts, starts + np.array(lengths), -2e6, 2e6))


# --- QAM and CDMA ---


def single_carrier(
    duration: float,
    rng: np.random.Generator,
    symbol_rate: float = 1e6,
    bits: int = 2,
    roll_off: float = 0.35,
    busy: float = 1.0,
) -> Signal:
    """QAM through a root raised cosine, as microwave links, satellites and modems send.

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    symbol_rate : float
        In Hz; raised a little where samples are then quicker to transform.
    bits : int
        Of a point: 2, 4, 6 or 8.
    roll_off : float
    busy : float
        Share of the time in which bursts of 0.1 to 10 ms are on the air.
    """
    rate = quick_rate(duration, 2 * symbol_rate)
    symbol_rate = rate / 2
    n = round(duration * rate)
    samples = shape(random_qam(rng, n // 2 + 1, bits), root_raised_cosine(roll_off, 2), 2)[:n]
    start, stop = random_intervals(duration, rng, (max(0.1e-3, 20 / symbol_rate), max(10e-3, 100 / symbol_rate)), busy)
    if busy < 1:
        samples = samples * gate(n, rate, start, stop, 4 / symbol_rate)
    half = symbol_rate * (1 + roll_off) / 2
    return Signal("other", samples, rate, Bursts.of(start, stop, -half, half))


_SPREADING = 256


def cdma(
    duration: float,
    rng: np.random.Generator,
    chip_rate: float = 3.84e6,
    roll_off: float = 0.22,
    n_codes: int = 20,
) -> Signal:
    """Downlink of many spread and scrambled channels, as UMTS (TS 25.213 clause 5, TS 25.104 clause 6.8.1).

    Parameters
    ----------
    duration : float
        In seconds.
    rng : numpy.random.Generator
    chip_rate : float
        In Hz: 3.84 MHz of UMTS, 1.2288 MHz of CDMA2000.
    roll_off : float
    n_codes : int
        Channels of spreading factor 256, 1 to 256; the first, a pilot, has a tenth of the power.
    """
    rate = 2 * chip_rate
    n = round(duration * rate)
    n_symbols = n // (2 * _SPREADING) + 2
    powers = rng.exponential(1.0, n_codes)
    powers[0] = 0.1 * powers.sum()
    symbols = random_qam(rng, (n_symbols, n_codes))
    symbols[:, 0] = np.sqrt(0.5) * (1 + 1j)
    codes = scipy.linalg.hadamard(_SPREADING)[:n_codes].astype(np.float32)
    chips = (symbols * np.sqrt(powers / powers.sum()).astype(np.float32)) @ codes
    chips = chips.ravel() * random_qam(rng, n_symbols * _SPREADING)
    first = int(rng.integers(2 * _SPREADING))
    samples = shape(chips, root_raised_cosine(roll_off, 2), 2)[first : first + n]
    half = chip_rate * (1 + roll_off) / 2
    return Signal("other", samples, rate, Bursts.of([0.0], duration, -half, half))
