# SPDX-License-Identifier: Apache-2.0
"""Bluetooth BR/EDR and Low Energy: packets that hop over the 2.4 GHz band.

Clause numbers are those of the Bluetooth Core Specification 5.4, volume 2 (BR/EDR) or 6 (LE), part B unless another
part is named. Slots, packet lengths, channels, modulation and LE's hop sequence follow it; the BR/EDR hop sequence,
which depends on clock and address, is a random one over the same channels, and bits after the preamble are random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.signals.bursts import Bursts, Signal
from training.signals.modulation import phasors, root_raised_cosine, shape, turns_of

BAND_CENTRE = 2441e6
"""Centre of the band in Hz: of BR/EDR channel 39, between LE's data channels 17 and 18."""

SLOT = 625e-6  # 2.2.3 of part B
N_CLASSIC_CHANNELS = 79
N_DATA_CHANNELS = 37
MIN_AFH_CHANNELS = 20  # volume 2 part B clause 2.3
INTER_FRAME_SPACE = 150e-6  # volume 6 part B clause 4.1
ADVERTISING_CHANNELS = (37, 38, 39)

_BANDWIDTH_TIME = 0.5  # volume 2 part A clause 3.1, volume 6 part A clause 3.1
_OVERSAMPLING = 16
_RAMP = 2e-6  # seconds in which a transmitter comes on and goes off
_EDR_ROLL_OFF = 0.4  # volume 2 part A clause 3.2
_EDR_GUARD = 5e-6  # between header and synchronisation sequence, volume 2 part B clause 6.6


@dataclass(frozen=True)
class Phy:
    """A modulation at 1 or 2 Msymbol/s.

    Attributes
    ----------
    symbol_rate : float
        In Hz.
    phase_states : int
        0 for GFSK; 4 or 8 for the payload in π/4-DQPSK or 8DPSK.
    bandwidth : float
        Band that holds 99 % of the power, in Hz, at the middle of the allowed modulation index.
    """

    symbol_rate: float
    phase_states: int
    bandwidth: float


PHYS = {
    "BR": Phy(1e6, 0, 0.86e6),
    "EDR2": Phy(1e6, 4, 1.2e6),
    "EDR3": Phy(1e6, 8, 1.2e6),
    "LE1M": Phy(1e6, 0, 1.03e6),
    "LE2M": Phy(2e6, 0, 2.06e6),
}

# Slots, air time range in seconds (access code and header to longest payload) and PHY of BR/EDR packets, volume 2
# part B clauses 6.5 and 6.7 and table 6.9 ff. POLL and NULL have no payload.
CLASSIC_PACKETS: dict[str, tuple[int, tuple[float, float], str]] = {
    "NULL": (1, (126e-6, 126e-6), "BR"),
    "DH1": (1, (150e-6, 366e-6), "BR"),
    "DH3": (3, (500e-6, 1622e-6), "BR"),
    "DH5": (5, (1700e-6, 2870e-6), "BR"),
    "HV3": (1, (366e-6, 366e-6), "BR"),
    "2-DH1": (1, (200e-6, 370e-6), "EDR2"),
    "2-DH3": (3, (500e-6, 1626e-6), "EDR2"),
    "2-DH5": (5, (1700e-6, 2875e-6), "EDR2"),
    "3-DH1": (1, (200e-6, 368e-6), "EDR3"),
    "3-DH3": (3, (500e-6, 1624e-6), "EDR3"),
    "3-DH5": (5, (1700e-6, 2873e-6), "EDR3"),
}
_HEADER = 126e-6  # access code of 72 and header of 54 bits, always GFSK


@dataclass(frozen=True)
class Device:
    """A transmitter as it is received.

    Attributes
    ----------
    power_db : float
        Relative to the strongest.
    frequency_offset : float
        Of its oscillator, in Hz; at most 75 kHz (volume 2 part A clause 3.3).
    index : float
        Modulation index of GFSK: 0.28 to 0.35 for BR/EDR, 0.45 to 0.55 for LE (part A clauses 3.1).
    """

    power_db: float = 0.0
    frequency_offset: float = 0.0
    index: float = 0.32


@dataclass(frozen=True)
class Packet:
    """A packet on the air: its first moment and length in seconds, carrier in Hz, PHY and sender."""

    start: float
    length: float
    frequency: float
    phy: str
    sender: Device


@dataclass(frozen=True)
class Piconet:
    """A BR/EDR connection: a central and a peripheral taking turns (volume 2 part B clauses 2.2 and 8.6).

    Every packet has a channel drawn by chance: the peripheral's are not the central's, as adaptive hopping makes them.

    Attributes
    ----------
    central, peripheral : Device
    channels : tuple of int
        Of the adaptive frequency hopping map, 0 to 78; at least 20.
    forward, backward : str
        Packet types that carry data either way, keys of ``CLASSIC_PACKETS``.
    load : float
        Share of the turns in which the central sends, 0 to 1.
    backward_load : float
        Share of the turns in which the peripheral answers with data rather than a NULL.
    synchronous : bool
        A voice link besides: HV3 in either direction every six slots.

    Raises
    ------
    ValueError
        If the map is too small or a packet type unknown.
    """

    central: Device = Device()
    peripheral: Device = Device()
    channels: tuple[int, ...] = tuple(range(N_CLASSIC_CHANNELS))
    forward: str = "DH5"
    backward: str = "DH1"
    load: float = 1.0
    backward_load: float = 0.1
    synchronous: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) < MIN_AFH_CHANNELS or not set(self.channels) <= set(range(N_CLASSIC_CHANNELS)):
            raise ValueError(f"channels are {self.channels}; a map has at least {MIN_AFH_CHANNELS} of 0 to 78")
        for name in (self.forward, self.backward):
            if name not in CLASSIC_PACKETS:
                raise ValueError(f"{name!r} is no BR/EDR packet; there are {', '.join(CLASSIC_PACKETS)}")

    def packets(self, duration: float, rng: np.random.Generator) -> Iterator[Packet]:
        """Packets in slots: the central begins in even ones, the peripheral answers in the one after."""
        origin = -rng.uniform(0, 12) * SLOT
        slot = 0
        voice_slot = 2 * int(rng.integers(3))
        while origin + slot * SLOT < duration:
            voice = self.synchronous and slot % 6 == voice_slot
            active = voice or rng.random() < self.load
            n_forward, n_backward = 1, 1
            if active:
                data = rng.random() < self.backward_load
                kinds = ("HV3", "HV3") if voice else (self.forward, self.backward if data else "NULL")
                n_forward, n_backward = (CLASSIC_PACKETS[kind][0] for kind in kinds)
                for kind, sender, at in zip(kinds, (self.central, self.peripheral), (0, n_forward), strict=True):
                    _, lengths, phy = CLASSIC_PACKETS[kind]
                    frequency = classic_frequency(int(rng.choice(self.channels)))
                    yield Packet(origin + (slot + at) * SLOT, rng.uniform(*lengths), frequency, phy, sender)
            slot += n_forward + n_backward
            slot += slot % 2


@dataclass(frozen=True)
class Inquiry:
    """A device that looks for others: two ID packets of 68 µs in every other slot (volume 2 part B clause 8.4.2)."""

    device: Device = Device()

    def packets(self, duration: float, rng: np.random.Generator) -> Iterator[Packet]:
        """Pairs of ID packets."""
        train = rng.choice(N_CLASSIC_CHANNELS, 32, replace=False)  # clause 2.6.4.1: 32 of the 79 channels
        origin = -rng.uniform(0, 2) * SLOT
        for index in range(int((duration - origin) / SLOT) + 1):
            if index % 2 == 0:
                for half in (0, 1):
                    frequency = classic_frequency(int(train[(index + half) % 16]))
                    yield Packet(origin + (index + half / 2) * SLOT, 68e-6, frequency, "BR", self.device)


@dataclass(frozen=True)
class Advertiser:
    """An LE advertiser (volume 6 part B clause 4.4.2).

    Attributes
    ----------
    device : Device
    interval : float
        Between advertising events, 20 ms to 10.24 s, in seconds; up to 10 ms are added at random.
    spacing : float
        From one channel's packet to the next, in seconds.
    payload : int
        Bytes of advertising data, 0 to 31, after the address.
    scanner : Device or None
        Asks for more now and then, and gets a scan response.
    """

    device: Device = Device(index=0.5)
    interval: float = 0.1
    spacing: float = 0.5e-3
    payload: int = 30
    scanner: Device | None = None

    def packets(self, duration: float, rng: np.random.Generator) -> Iterator[Packet]:
        """Advertising events, with what scanners ask and are answered."""
        length = le_packet_length(6 + self.payload, "LE1M")
        start = -rng.uniform(0, self.interval + 5e-3)
        while start < duration:
            at = start
            for channel in ADVERTISING_CHANNELS:
                frequency = le_frequency(channel)
                yield Packet(at, length, frequency, "LE1M", self.device)
                after = at + length + INTER_FRAME_SPACE
                if self.scanner is not None and rng.random() < 0.5:
                    request = le_packet_length(12, "LE1M")
                    yield Packet(after, request, frequency, "LE1M", self.scanner)
                    after += request + INTER_FRAME_SPACE
                    response = le_packet_length(6 + int(rng.integers(32)), "LE1M")
                    yield Packet(after, response, frequency, "LE1M", self.device)
                    after += response + INTER_FRAME_SPACE
                at = max(at + self.spacing, after)
            start += self.interval + rng.uniform(0, 10e-3)


@dataclass(frozen=True)
class Connection:
    """An LE connection (volume 6 part B clause 4.5).

    Attributes
    ----------
    central, peripheral : Device
    interval : float
        Between connection events, 7.5 ms to 4 s, in seconds.
    phy : str
        ``LE1M`` or ``LE2M``.
    channels : tuple of int
        Of the channel map, data channels 0 to 36; at least 2.
    hop : int
        Increment of the hop sequence, 5 to 16.
    exchanges : int
        Pairs of packets in an event at the most; fewer where the interval is short.
    payload : int
        Longest payload of a data packet, 0 to 251 bytes; 0 sends empty packets alone.

    Raises
    ------
    ValueError
        If the map is too small, or a value cannot be.
    """

    central: Device = Device(index=0.5)
    peripheral: Device = Device(index=0.5)
    interval: float = 0.03
    phy: str = "LE1M"
    channels: tuple[int, ...] = tuple(range(N_DATA_CHANNELS))
    hop: int = 7
    exchanges: int = 1
    payload: int = 27

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or not set(self.channels) <= set(range(N_DATA_CHANNELS)):
            raise ValueError(f"channels are {self.channels}; a map has at least 2 of 0 to 36")
        if self.phy not in ("LE1M", "LE2M") or not 5 <= self.hop <= 16:
            raise ValueError(f"phy is {self.phy!r} and hop {self.hop}; there are LE1M and LE2M, and 5 to 16")

    def packets(self, duration: float, rng: np.random.Generator) -> Iterator[Packet]:
        """Connection events, each on its channel."""
        origin = -rng.uniform(0, self.interval)
        n_events = int((duration - origin) / self.interval) + 1
        channels = hop_sequence(self.hop, self.channels, int(rng.integers(N_DATA_CHANNELS)), n_events)
        for event, channel in enumerate(channels):
            at = origin + event * self.interval
            closing = at + self.interval - INTER_FRAME_SPACE
            for _ in range(1 + int(rng.integers(self.exchanges))):
                for sender in (self.central, self.peripheral):
                    payload = int(rng.integers(self.payload + 1)) if rng.random() < 0.6 else 0
                    length = le_packet_length(payload, self.phy)
                    if at + length > closing:
                        break
                    yield Packet(at, length, le_frequency(channel), self.phy, sender)
                    at += length + INTER_FRAME_SPACE


class Link(Protocol):
    """Devices that send packets."""

    def packets(self, duration: float, rng: np.random.Generator) -> Iterator[Packet]:
        """Packets in a number of seconds and from somewhat before; the first may have ended before it begins."""


def bluetooth(
    links: Sequence[Link],
    duration: float,
    rng: np.random.Generator,
    sample_rate: float = 80e6,
    centre: float = BAND_CENTRE,
) -> Signal:
    """Everything that some links send, in the part of the band that is looked at.

    Parameters
    ----------
    links : sequence of Link
    duration : float
        In seconds; begins anywhere in the links' lives.
    rng : numpy.random.Generator
    sample_rate : float
        In Hz. Packets that do not lie inside it whole are left out, and their labels too: where the edges matter, ask
        for 4 MHz more than the scene has.
    centre : float
        Frequency of the signal's centre, in Hz.

    Returns
    -------
    Signal
        Labelled ``Bluetooth``; (duration * sample_rate,) samples.
    """
    samples = np.zeros(round(duration * sample_rate), np.complex64)
    sent = []
    for link in links:
        for packet in link.packets(duration, rng):
            reach = PHYS[packet.phy].symbol_rate
            if abs(packet.frequency - centre) + reach <= sample_rate / 2 and packet.start < duration:
                _send(packet, samples, sample_rate, centre, rng)
                sent.append(packet)
    offset = np.array([packet.frequency + packet.sender.frequency_offset - centre for packet in sent])
    half = np.array([PHYS[packet.phy].bandwidth for packet in sent]) / 2
    start = np.array([packet.start for packet in sent])
    stop = start + np.array([packet.length for packet in sent])
    return Signal("Bluetooth", samples, sample_rate, Bursts.of(start, stop, offset - half, offset + half))


# --- Channels and lengths ---


def classic_frequency(channel: int) -> float:
    """Carrier of BR/EDR channel 0 to 78 in Hz (volume 2 part A clause 2)."""
    return 2402e6 + channel * 1e6


def le_frequency(channel: int) -> float:
    """Carrier of LE channel index 0 to 39 in Hz (table 1.2 of volume 6 part B)."""
    special = {37: 2402e6, 38: 2426e6, 39: 2480e6}
    if channel in special:
        return special[channel]
    return 2404e6 + channel * 2e6 if channel <= 10 else 2428e6 + (channel - 11) * 2e6


def le_packet_length(payload: int, phy: str) -> float:
    """Air time in seconds of an LE packet: preamble, access address, header, payload and CRC (clause 2.1)."""
    preamble = 2 if phy == "LE2M" else 1
    return 8 * (preamble + 4 + 2 + payload + 3) / PHYS[phy].symbol_rate


def hop_sequence(hop: int, channels: Sequence[int], first: int, count: int) -> list[int]:
    """Data channels of consecutive connection events by channel selection algorithm #1 (clause 4.5.8.2).

    Parameters
    ----------
    hop : int
        Increment.
    channels : sequence of int
        Those of the channel map.
    first : int
        Unmapped channel of the event before the first.
    count : int
    """
    used = sorted(channels)
    unmapped = [(first + hop * (event + 1)) % N_DATA_CHANNELS for event in range(count)]
    return [channel if channel in used else used[channel % len(used)] for channel in unmapped]


# --- What a packet sounds like ---


def _send(
    packet: Packet, samples: NDArray[np.complex64], sample_rate: float, centre: float, rng: np.random.Generator
) -> None:
    """Add a packet to the samples, at their rate and at its place in the band; what is before or after is cut off."""
    phy = PHYS[packet.phy]
    first = max(0, int(np.ceil(packet.start * sample_rate)))
    last = min(len(samples), int(np.floor((packet.start + packet.length) * sample_rate)))
    if last <= first:
        return
    at = np.arange(first, last) / sample_rate - packet.start
    keyed = _HEADER if phy.phase_states else packet.length
    n_keyed = int(np.searchsorted(at, keyed))
    carrier = packet.frequency + packet.sender.frequency_offset - centre
    turns = carrier * at
    turns[:n_keyed] += _frequency_keyed(packet, phy, keyed, rng, at[:n_keyed])
    sent = phasors(turns)
    sent *= np.float32(10 ** (packet.sender.power_db / 20))
    if phy.phase_states:
        payload = _phase_keyed(phy, packet.length - keyed - _EDR_GUARD, rng, at[n_keyed:] - keyed - _EDR_GUARD)
        sent[n_keyed:] *= payload
    rising = int(np.searchsorted(at, _RAMP))
    falling = int(np.searchsorted(at, packet.length - _RAMP))
    sent[:rising] *= np.sin(np.pi / 2 / _RAMP * at[:rising]).astype(np.float32)
    sent[falling:] *= np.sin(np.pi / 2 / _RAMP * (packet.length - at[falling:])).astype(np.float32)
    samples[first:last] += sent


def _frequency_keyed(
    packet: Packet, phy: Phy, length: float, rng: np.random.Generator, at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Phase, in turns, of a GFSK packet at times since its start: alternating preamble, then random bits."""
    bits = rng.choice((-1.0, 1.0), int(np.ceil(length * phy.symbol_rate)) + 1)
    preamble = 4 if packet.phy in ("BR", "EDR2", "EDR3") else 8 * round(phy.symbol_rate / 1e6)
    bits[:preamble] = bits[preamble] * (-1.0) ** np.arange(preamble, 0, -1)
    turns = turns_of(bits, packet.sender.index, _BANDWIDTH_TIME, _OVERSAMPLING)
    return np.interp(at * (phy.symbol_rate * _OVERSAMPLING), np.arange(len(turns)), turns)


def _phase_keyed(phy: Phy, length: float, rng: np.random.Generator, at: NDArray[np.float64]) -> NDArray[np.complex64]:
    """EDR payload at times since its start: differential phases through a root raised cosine pulse; 0 in the guard."""
    n = max(1, int(np.ceil(length * phy.symbol_rate)))
    states = phy.phase_states
    turns = (rng.integers(0, states, n) + (0.5 if states == 4 else 0)) / states
    symbols = np.exp(2j * np.pi * np.cumsum(turns)).astype(np.complex64)
    curve = shape(symbols, root_raised_cosine(_EDR_ROLL_OFF, _OVERSAMPLING), _OVERSAMPLING)
    position = at * (phy.symbol_rate * _OVERSAMPLING) - _OVERSAMPLING / 2
    result = np.empty(len(at), np.complex64)
    grid = np.arange(len(curve))
    result.real = np.interp(position, grid, curve.real)
    result.imag = np.interp(position, grid, curve.imag)
    result[at < 0] = 0
    return result


# --- Links as one meets them ---


def random_links(rng: np.random.Generator) -> tuple[Link, ...]:
    """One to five links, each with its own distance; headsets, phones and beacons."""
    return tuple(_random_link(rng) for _ in range(int(rng.choice([1, 2, 3, 5], p=[0.45, 0.3, 0.15, 0.1]))))


def _random_link(rng: np.random.Generator) -> Link:
    kind = rng.choice(["classic", "advertiser", "connection", "inquiry"], p=[0.4, 0.3, 0.25, 0.05])
    if kind == "classic":
        return _random_piconet(rng)
    if kind == "inquiry":
        return Inquiry(_random_device(rng, (0.28, 0.35)))
    if kind == "advertiser":
        return Advertiser(
            _random_device(rng, (0.45, 0.55)),
            interval=float(np.exp(rng.uniform(np.log(20e-3), np.log(1.0)))),
            spacing=float(rng.uniform(0.45e-3, 3e-3)),
            payload=int(rng.integers(0, 32)),
            scanner=_random_device(rng, (0.45, 0.55)) if rng.random() < 0.3 else None,
        )
    n_channels = N_DATA_CHANNELS if rng.random() < 0.4 else int(rng.integers(8, N_DATA_CHANNELS))
    return Connection(
        _random_device(rng, (0.45, 0.55)),
        _random_device(rng, (0.45, 0.55)),
        interval=1.25e-3 * int(rng.choice([6, 9, 12, 24, 40, 80])),
        phy=str(rng.choice(["LE1M", "LE2M"], p=[0.6, 0.4])),
        channels=tuple(sorted(rng.choice(N_DATA_CHANNELS, n_channels, replace=False).tolist())),
        hop=int(rng.integers(5, 17)),
        exchanges=int(rng.choice([1, 1, 2, 6, 12])),
        payload=int(rng.choice([0, 20, 27, 100, 251])),
    )


def _random_piconet(rng: np.random.Generator) -> Piconet:
    n_channels = N_CLASSIC_CHANNELS if rng.random() < 0.3 else int(rng.integers(MIN_AFH_CHANNELS, N_CLASSIC_CHANNELS))
    kinds = [kind for kind in CLASSIC_PACKETS if kind not in ("NULL", "HV3")]
    busy = rng.random() < 0.5
    return Piconet(
        _random_device(rng, (0.28, 0.35)),
        _random_device(rng, (0.28, 0.35)),
        # A map leaves out what a neighbouring WLAN uses: a run of channels.
        channels=tuple(sorted(((np.arange(n_channels) + rng.integers(79)) % 79).tolist())),
        forward=str(rng.choice(kinds)),
        backward=str(rng.choice(kinds)),
        load=float(rng.uniform(0.6, 1.0) if busy else rng.uniform(0.02, 0.5)),
        backward_load=float(rng.uniform(0, 0.4)),
        synchronous=bool(rng.random() < 0.2),
    )


def _random_device(rng: np.random.Generator, index: tuple[float, float]) -> Device:
    return Device(-float(rng.uniform(0, 25)), float(rng.normal(0, 15e3)), float(rng.uniform(*index)))
