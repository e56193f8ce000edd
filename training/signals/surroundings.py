# SPDX-License-Identifier: Apache-2.0
"""What is met in a band: cells side by side, WLAN and Bluetooth together, signals of no name, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from training.signals.bluetooth import BAND_CENTRE, Device, Link, bluetooth, random_links
from training.signals.bursts import quick_rate
from training.signals.channel import random_channel
from training.signals.grid import ResourceGrid
from training.signals.lte import lte_downlink
from training.signals.nr import nr_downlink
from training.signals.other import random_kind
from training.signals.priors import random_lte_config, random_nr_config
from training.signals.receiver import random_receiver
from training.signals.scene import MARGIN, Carrier, Emitter, Scene, Transmitter, on_the_air
from training.signals.wlan import random_wlan_config, wlan

LABELS = ("background", "LTE", "NR", "WLAN", "Bluetooth", "other")
"""All classes of generated scenes; the background is the first."""

# Rates in Hz that radios commonly run at; all give whole numbers of samples a millisecond.
SAMPLE_RATES = (
    *(1.92e6, 2.048e6, 2.4e6, 3.2e6, 3.84e6, 5e6, 7.68e6, 8e6, 10e6, 11.52e6, 12.5e6, 15.36e6, 16e6),
    *(19.2e6, 20e6, 20e6, 23.04e6, 25e6, 30.72e6, 32e6, 40e6),
)
WIDE_SAMPLE_RATES = (46.08e6, 50e6, 56e6, 61.44e6, 80e6, 92.16e6, 100e6, 122.88e6)

_BLUETOOTH_BAND = 84e6  # in Hz, with what its outermost channels need
_SHORTEST = 1e-3  # in seconds
_CABLED_DB = (40.0, 80.0)


@dataclass(frozen=True)
class SceneSettings:
    """What random scenes are drawn from, and how they are labelled.

    Attributes
    ----------
    labels : tuple of str
        The background's, then those of the classes that scenes are about, of ``LABELS``. Other signals stand beside
        them now and then, as background.
    rule : str
        One of :data:`training.signals.scene.RULES`.
    snr_db : (float, float)
        Range of every transmitter's signal-to-noise ratio, in dB; equal bounds fix it.
    noise_only : float
        Share of scenes without any transmitter.
    beside : float
        Share of scenes about named classes in which other signals stand beside them.
    short : float
        Share of scenes of which only the first milliseconds are kept, as recordings of single bursts are.
    duration : float
        In seconds.
    max_sample_rate : float
        Highest sample rate drawn, in Hz.
    sample_rate : float or None
        The only one, in Hz.
    """

    labels: tuple[str, ...] = LABELS
    rule: str = "occupancy"
    snr_db: tuple[float, float] = (-5.0, 40.0)
    noise_only: float = 0.12
    beside: float = 0.35
    short: float = 0.1
    duration: float = 0.04
    max_sample_rate: float = 61.44e6
    sample_rate: float | None = None


@dataclass(frozen=True)
class _Band:
    """What a receiver is tuned to, and how strong what it hears is."""

    settings: SceneSettings
    sample_rate: float
    level: float  # SNR of the first transmitter, in dB

    @property
    def whole(self) -> float:
        """Length of a scene with its margins, in seconds."""
        return self.settings.duration + 2 * MARGIN

    @property
    def half(self) -> float:
        """Upper edge of the band in Hz."""
        return self.sample_rate / 2

    @property
    def weakest(self) -> float:
        """Least SNR in dB."""
        return self.settings.snr_db[0]

    def snr_db(self, spread: float, rng: np.random.Generator) -> float:
        """SNR of a transmitter, `spread` dB about that of the first."""
        if self.settings.snr_db[0] == self.settings.snr_db[1]:
            return self.level
        return max(self.weakest, self.level + rng.normal(0, spread))


def random_scene(settings: SceneSettings, rng: np.random.Generator) -> Scene:
    """Draw a scene: a receiver, a band, and what is met in it."""
    sample_rate = settings.sample_rate or _random_rate(settings, rng)
    transmitters: list[Transmitter] = []
    if rng.random() >= settings.noise_only:
        level = rng.uniform(*settings.snr_db)
        if settings.snr_db[0] < settings.snr_db[1] and rng.random() < 0.08:
            level = rng.uniform(*_CABLED_DB)  # cabled, or made by a computer
        band = _Band(settings, sample_rate, level)
        about = [kind for kind in _SURROUNDINGS if set(kind[2]) & set(settings.labels)]
        weights = np.array([kind[0] for kind in about])
        transmitters = about[int(rng.choice(len(about), p=weights / weights.sum()))][1](band, rng)
    sent, receiver = tuple(transmitters), random_receiver(rng)
    samples = on_the_air(sent, sample_rate, settings.duration, receiver, rng)
    if rng.random() < settings.short:
        kept = np.exp(rng.uniform(np.log(_SHORTEST), np.log(settings.duration)))
        samples = samples[: round(kept * sample_rate)]
    return Scene(samples, sample_rate, sent, receiver)


def _random_rate(settings: SceneSettings, rng: np.random.Generator) -> float:
    wide = [rate for rate in WIDE_SAMPLE_RATES if rate <= settings.max_sample_rate]
    narrow = [rate for rate in SAMPLE_RATES if rate <= settings.max_sample_rate]
    return float(rng.choice(wide if wide and rng.random() < 0.25 else narrow))


# --- Surroundings ---


def _cellular(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """A carrier that the receiver is tuned to, or a row of them; perhaps other signals."""
    found: list[Transmitter] = []
    if rng.random() < 0.3:
        grid = _random_grid(band.whole, band.sample_rate, 6, rng)
        found.append(_random_carrier(grid, rng.normal(0, 0.02) * band.sample_rate, band.level, rng))
    else:
        found += _row_of_carriers(band, rng)
    return found + _beside(band, rng)


def _industrial(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """The 2.4 GHz band: up to three WLAN channels, Bluetooth hopping over all, perhaps other signals."""
    channels = 2407e6 + 5e6 * np.array([1, 6, 11] if rng.random() < 0.8 else rng.choice(13, 3, replace=False) + 1)
    centre = float(rng.choice(channels)) if rng.random() < 0.5 else rng.uniform(2400e6, 2483.5e6)
    count = int(rng.choice(4, p=[0.25, 0.4, 0.2, 0.15]))
    found: list[Transmitter] = []
    for channel in rng.permutation(channels)[:count].tolist():
        found += _wlan(band, channel - centre, low_band=True, rng=rng)
    if not found or rng.random() < 0.8:
        found.append(_bluetooth(band, centre, rng))
    return found + _beside(band, rng)


def _five_gigahertz(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """WLAN at 5 GHz: up to three neighbouring channels, perhaps radar or other signals."""
    found: list[Transmitter] = []
    first = rng.uniform(-0.5, 0.2) * band.sample_rate if rng.random() < 0.5 else rng.normal(0, 0.02) * band.sample_rate
    for index in range(1 + int(rng.choice(3, p=[0.55, 0.3, 0.15]))):
        found += _wlan(band, first + index * 20e6, low_band=False, rng=rng)
    return found + _beside(band, rng)


def _unnamed(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """Signals of no named class alone."""
    return [one for _ in range(int(rng.integers(1, 5))) for one in _others(band, rng)]


def _anything(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """What does not belong together, anywhere: a model must not tell one by another."""
    found: list[Transmitter] = []
    for _ in range(int(rng.integers(2, 4))):
        kind = rng.integers(4)
        if kind == 0:
            grid = _random_grid(band.whole, band.sample_rate, 1, rng)
            offset = rng.uniform(-0.5, 0.5) * band.sample_rate
            found.append(_random_carrier(grid, offset, band.snr_db(10, rng), rng))
        elif kind == 1:
            found += _wlan(band, rng.uniform(-0.5, 0.5) * band.sample_rate, low_band=bool(rng.random() < 0.5), rng=rng)
        elif kind == 2:
            found.append(_bluetooth(band, rng.uniform(2400e6, 2483.5e6), rng))
        else:
            found += _others(band, rng)
    return found


# How often each is met, and the classes that it is about.
_SURROUNDINGS: tuple[tuple[float, Callable[[_Band, np.random.Generator], list[Transmitter]], tuple[str, ...]], ...] = (
    (0.46, _cellular, ("LTE", "NR")),
    (0.24, _industrial, ("WLAN", "Bluetooth")),
    (0.09, _five_gigahertz, ("WLAN",)),
    (0.13, _unnamed, ("other",)),
    (0.08, _anything, ("WLAN", "Bluetooth", "other")),
)


# --- Carriers ---


def _row_of_carriers(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """Fill the band from its lower edge upwards, with gaps; the band's edges may cut off the outermost carriers."""
    sample_rate, edge = band.sample_rate, band.half
    wanted = 1 + rng.binomial(4, 0.12 + 0.25 * min(1.0, sample_rate / 60e6))
    position = -edge + rng.exponential(0.15) * sample_rate
    if rng.random() < 0.3:  # the first carrier begins below the band
        position = -edge - rng.uniform(0.05, 1.0) * min(sample_rate, 10e6)
    carriers: list[Transmitter] = []
    for _ in range(20):
        if len(carriers) == wanted or position > 0.85 * edge:
            break
        grid = _random_grid(band.whole, edge - position if rng.random() < 0.8 else np.inf, 1, rng)
        visible = min(edge, position + grid.bandwidth) - max(-edge, position)
        if visible < min(0.1 * grid.bandwidth, 0.2 * sample_rate):
            position += 0.2 * sample_rate
            continue
        low = grid.lowest_subcarrier * grid.subcarrier_spacing
        carriers.append(_random_carrier(grid, position - low, band.snr_db(6, rng), rng))
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
    return replace(grid, values=grid.values[first:], cp_lengths=grid.cp_lengths[first:])


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
    return replace(grid, values=values)


def _random_carrier(grid: ResourceGrid, offset: float, snr_db: float, rng: np.random.Generator) -> Carrier:
    regrowth_db = rng.uniform(-70, -30) if rng.random() < 0.9 else 0.0  # 0: sent with no filter at all
    return Carrier(grid, float(offset + rng.normal(0, 500)), snr_db, random_channel(rng), regrowth_db)


# --- Bursts ---


def _wlan(band: _Band, offset: float, low_band: bool, rng: np.random.Generator) -> list[Transmitter]:
    """A WLAN whose primary channel is centred on `offset` Hz; none if it lies outside the band."""
    widest = band.sample_rate * (2 if rng.random() < 0.25 else 1)
    config = random_wlan_config(rng, max(20e6, widest), low_band)
    offset += (config.bandwidth - 20e6) / 2 - config.primary * 20e6
    if abs(offset) - config.bandwidth / 2 > 0.95 * band.half:
        return []
    snr_db = band.snr_db(8, rng)
    stations = (replace(one, power_db=max(one.power_db, band.weakest - snr_db)) for one in config.stations)
    signal = wlan(replace(config, stations=tuple(stations)), band.whole, rng)
    # Every station has a channel of its own already.
    return [Emitter(signal, float(offset + rng.normal(0, 500)), snr_db)]


def _bluetooth(band: _Band, centre: float, rng: np.random.Generator) -> Emitter:
    """Bluetooth as a receiver at `centre` Hz hears it, most likely with a packet or more in the band."""
    snr_db = band.snr_db(8, rng)
    # Packets that do not lie inside whole are not made: 2 MHz more at either edge.
    wanted, offset = band.sample_rate + 4e6, 0.0
    if wanted > _BLUETOOTH_BAND:
        wanted, offset = _BLUETOOTH_BAND, BAND_CENTRE - centre
    for _ in range(4):  # rare advertisements and short maps pass narrow bands by
        links = _levelled(random_links(rng), band.weakest - snr_db)
        signal = bluetooth(links, band.whole, rng, quick_rate(band.whole, wanted), centre + offset)
        if len(signal.bursts):
            break
    return Emitter(signal, offset, snr_db)


def _levelled(links: Sequence[Link], least_db: float) -> tuple[Link, ...]:
    """Give the strongest device 0 dB, and no other less than `least_db`."""
    named = [{field.name: getattr(link, field.name) for field in fields(link)} for link in links]  # type: ignore[arg-type]
    devices = [{name: value for name, value in one.items() if isinstance(value, Device)} for one in named]
    strongest = max(device.power_db for one in devices for device in one.values())
    changed = (
        {name: replace(device, power_db=max(device.power_db - strongest, least_db)) for name, device in one.items()}
        for one in devices
    )
    return tuple(replace(link, **one) for link, one in zip(links, changed, strict=True))  # type: ignore[type-var]


def _beside(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """Other signals now and then."""
    if rng.random() >= band.settings.beside:
        return []
    return [one for _ in range(int(rng.integers(1, 4))) for one in _others(band, rng)]


def _others(band: _Band, rng: np.random.Generator) -> list[Transmitter]:
    """A signal of no named class anywhere in the band, or now and then several of a kind on a raster."""
    kind, offset = random_kind(rng), rng.uniform(-0.5, 0.5) * band.sample_rate
    count = int(rng.integers(2, 6)) if rng.random() < 0.15 else 1
    found: list[Transmitter] = []
    for _ in range(count):
        signal = kind.draw(band.whole, rng)
        if len(signal.bursts) == 0 or offset > band.half:
            break
        found.append(Emitter(signal, offset, band.snr_db(8, rng), random_channel(rng)))
        offset += (signal.bursts.high.max() - signal.bursts.low.min() + 50e3) * rng.uniform(1.0, 3.0)
    return found
