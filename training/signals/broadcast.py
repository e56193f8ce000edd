# SPDX-License-Identifier: Apache-2.0
"""OFDM that is neither LTE, NR nor WLAN: broadcast television and radio, NB-IoT.

Every generator takes a duration in seconds and a random generator, and gives a :class:`Signal` labelled ``other``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.signals.bursts import Signal, grid_bursts
from training.signals.grid import ResourceGrid, modulate
from training.signals.modulation import phasors
from training.signals.sequences import gold_sequences, qpsk, random_qam


@dataclass(frozen=True)
class Broadcast:
    """A broadcast system.

    Attributes
    ----------
    sample_rate : float
        In Hz.
    n_fft : int
    n_carriers : int
        Including the centre.
    guards : tuple of float
        Guard intervals, as shares of the symbol.
    bits : int
        Of a point of the constellation.
    pilot_boost : float
        Amplitude of scattered pilots, of which there is one in twelve carriers; 0 for none.
    centre : bool
        Whether the centre carrier is used.
    frame, null : int
        Symbols of a frame, and samples of silence before each; 0 for none.
    """

    sample_rate: float
    n_fft: int
    n_carriers: int
    guards: tuple[float, ...]
    bits: int
    pilot_boost: float = 4 / 3
    centre: bool = True
    frame: int = 0
    null: int = 0


_QUARTERS = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
BROADCASTS = {
    # EN 300 744 table 4 and annex F.
    "DVB-T 2k 8 MHz": Broadcast(64e6 / 7, 2048, 1705, _QUARTERS, 4),
    "DVB-T 8k 8 MHz": Broadcast(64e6 / 7, 8192, 6817, _QUARTERS, 6),
    "DVB-T 8k 7 MHz": Broadcast(8e6, 8192, 6817, _QUARTERS, 6),
    "DVB-T 8k 6 MHz": Broadcast(48e6 / 7, 8192, 6817, _QUARTERS, 4),
    # ARIB STD-B31 table 3-1, mode 3, 13 segments.
    "ISDB-T": Broadcast(512e6 / 63, 8192, 5617, _QUARTERS, 6),
    # EN 300 401 table 38, mode I: differential QPSK, 76 symbols after a null symbol.
    "DAB": Broadcast(2.048e6, 2048, 1537, (504 / 2048,), 2, pilot_boost=0, centre=False, frame=76, null=2656),
}


def broadcast_ofdm(duration: float, rng: np.random.Generator, system: str = "DVB-T 8k 8 MHz", guard: int = 0) -> Signal:
    """Digital television or radio: all carriers all the time.

    Parameters
    ----------
    duration : float
        In seconds; begins anywhere in a symbol.
    rng : numpy.random.Generator
    system : str
        Key of ``BROADCASTS``.
    guard : int
        Which of the system's guard intervals, from the longest; counted modulo their number.
    """
    standard = BROADCASTS[system]
    prefix = round(standard.guards[guard % len(standard.guards)] * standard.n_fft)
    n_symbols = int(duration * standard.sample_rate / (standard.n_fft + prefix)) + 3
    values = random_qam(rng, (n_symbols, standard.n_carriers), standard.bits)
    if standard.pilot_boost:
        # EN 300 744 clause 4.5.3: they move by three carriers from symbol to symbol.
        for phase in range(4):
            pilots = values[phase::4, 3 * phase :: 12]
            pilots[:] = standard.pilot_boost * (2.0 * rng.integers(0, 2, pilots.shape[1]) - 1)
    if not standard.centre:
        values[:, standard.n_carriers // 2] = 0
    lengths = np.full(n_symbols, prefix, np.int64)
    if standard.frame:
        # The null symbol is a symbol of nothing, whose prefix makes up its length.
        silent = (np.arange(n_symbols) + rng.integers(standard.frame + 1)) % (standard.frame + 1) == 0
        values[silent] = 0
        lengths[silent] = standard.null - standard.n_fft
    values /= np.float32(np.sqrt(standard.n_carriers))
    grid = ResourceGrid(
        "other",
        values,
        -(standard.n_carriers // 2),
        standard.sample_rate / standard.n_fft,
        standard.n_fft,
        lengths,
    )
    return _cut(grid, duration, int(rng.integers(standard.n_fft)))


def _cut(grid: ResourceGrid, duration: float, first: int, half: bool = False) -> Signal:
    """Signal of a grid from some sample on, perhaps half a subcarrier up."""
    n = round(duration * grid.sample_rate)
    samples = modulate(grid)[first : first + n]
    bursts = grid_bursts(grid).moved(time=-first / grid.sample_rate)
    if half:
        samples *= phasors(0.5 / grid.n_fft * np.arange(first, first + n, dtype=np.float64))
        bursts = bursts.moved(frequency=grid.subcarrier_spacing / 2)
    return Signal(grid.label, samples, grid.sample_rate, bursts)


# --- NB-IoT ---

_NPSS_COVER = (1, 1, 1, 1, -1, -1, 1, 1, 1, -1, 1)


def narrowband_primary_sync() -> NDArray[np.complex64]:
    """NPSS (TS 36.211 clause 10.2.7.1): symbols 3 to 13, subcarriers 0 to 10 of subframe 5: (11, 11)."""
    n = np.arange(11)
    sequence = np.exp(-1j * np.pi * 5 * n * (n + 1) / 11)
    return np.multiply.outer(np.array(_NPSS_COVER), sequence).astype(np.complex64)


def narrowband_secondary_sync(cell_id: int, frame: int) -> NDArray[np.complex64]:
    """NSSS (TS 36.211 clause 10.2.7.2) of cells 0 to 125: symbols 3 to 13 of subframe 9 of even frames: (11, 12)."""
    n = np.arange(132)
    root = cell_id % 126 + 3
    cyclic = np.exp(-2j * np.pi * 33 / 132 * (frame // 2 % 4) * n)
    zadoff_chu = np.exp(-1j * np.pi * root * (n % 131) * (n % 131 + 1) / 131)
    return (cyclic * zadoff_chu).reshape(11, 12).astype(np.complex64)


def narrowband_references(cell_id: int) -> tuple[NDArray[np.int64], NDArray[np.complex64]]:
    """NRS of port 0 in a radio frame (TS 36.211 clause 10.2.6): subcarriers (symbol, 2) and values (20, 2, 2).

    The subcarriers are those of the last two symbols of a slot, the values those of every slot.
    """
    slots, symbols = np.meshgrid(np.arange(20), (5, 6), indexing="ij")
    c_init = 1024 * (7 * (slots + 1) + symbols + 1) * (2 * cell_id + 1) + 2 * cell_id + 1
    # The middle two of the values for 110 resource blocks.
    values = qpsk(gold_sequences(c_init, 440))[..., 109:111]
    return np.array([[(v + cell_id) % 6, (v + cell_id) % 6 + 6] for v in (0, 3)]), values


def nb_iot(duration: float, rng: np.random.Generator, cell_id: int = 0, load: float = 0.3) -> Signal:
    """Standalone NB-IoT downlink of one port: NPSS, NSSS, NPBCH, NRS, and NPDSCH in a share `load` of the rest.

    Raises
    ------
    ValueError
        If `cell_id` is not 0 to 125, for which alone the NSSS is implemented.
    """
    if not 0 <= cell_id <= 125:
        raise ValueError(f"cell_id is {cell_id}; 0 to 125 are implemented")
    first = int(rng.integers(0, 40))
    subframes = first + np.arange(int(np.ceil(duration * 1e3)) + 2)
    values = np.zeros((len(subframes), 14, 12), np.complex64)
    in_frame = subframes % 10
    columns, references = narrowband_references(cell_id)
    busy = (rng.random(len(subframes)) < load) | (in_frame == 0)
    values[busy] = random_qam(rng, (int(busy.sum()), 14, 12))
    values[np.ix_(np.flatnonzero(busy & (in_frame == 0)), np.arange(3))] = 0  # NPBCH leaves LTE's control region out
    for half in (0, 1):
        for index in (0, 1):
            values[:, 7 * half + 5 + index, columns[index]] = references[2 * in_frame + half, index]
    values[in_frame == 5] = 0
    values[in_frame == 5, 3:, :11] = narrowband_primary_sync()
    for secondary in np.flatnonzero((in_frame == 9) & (subframes // 10 % 2 == 0)):
        values[secondary] = 0
        values[secondary, 3:] = narrowband_secondary_sync(cell_id, int(subframes[secondary] // 10))
    return _cut(narrowband_grid(values.reshape(-1, 12)), duration, int(rng.integers(1920)), half=True)


def narrowband_grid(values: NDArray[np.complex64]) -> ResourceGrid:
    """Grid of whole slots of NB-IoT, (symbol, 12), at 1.92 MS/s, to be moved up by half a subcarrier (10.2.8).

    The standard's half subcarrier begins anew with every symbol, where a shift of the whole signal goes on turning:
    each symbol is turned back by as much.
    """
    prefixes = np.resize(np.array([10] + [9] * 6, np.int64), len(values))  # table 6.12-1, for 128
    grid = ResourceGrid("other", values / np.float32(np.sqrt(12)), -6, 15e3, 128, prefixes)
    bodies = grid.symbol_start[:-1] + prefixes
    grid.values[:] *= np.exp(-1j * np.pi * bodies / 128)[:, None]
    return grid
