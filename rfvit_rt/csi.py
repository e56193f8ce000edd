# SPDX-License-Identifier: Apache-2.0
"""The one definition of the picture that an activity model sees, used by training and by the runtime.

Frames of Channel State Information come at uneven times, with gaps, and with a gain that the receiver sets anew for
every frame. They become windows on an even time grid, and those become pictures of what moves.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import ModelError, SpecMismatch

GAINS = ("rssi", "none")
ANY = 0  # as a number of antennas or subcarriers
LARGEST_VALUE = 1e6  # of a picture; far more than any needs, and far less than float32 holds
LARGEST_WINDOW = 4096  # grid steps
LARGEST_GAP = 2.0  # s that a window may reach over; what restarts or changes its sender leaves longer ones
LARGEST_FRAME = 4096  # antennas times subcarriers; more is not CSI
_CUTS = 16  # interruptions in a row without one whole window, after which a stream counts as unfit


@dataclass(frozen=True)
class CSISpec:
    """How CSI frames become a model's input; travels inside the model file.

    Attributes
    ----------
    n_steps, n_bins : int
        Time steps and bins of one picture.
    frame_rate : float
        Steps per second of the time grid that frames are resampled to, in Hz.
    stride : int
        Steps of that grid in one time step of the picture.
    min_frame_rate : float
        Fewest frames per second that make a window, in Hz.
    max_gap : float
        Longest time between two frames that is bridged, in seconds; a longer one ends the window.
    antennas, subcarriers : int
        What the device must have; 0 for any.
    bands : int
        Parts that all subcarriers of all antennas, in this order, are cut into. Each has its own panel in the picture:
        3 bands show the 3 antennas of a device that has as many, and 3 parts of the band of one with a single antenna.
    amplitude_bins : int
        Bins, of the `n_bins`, that show the change of amplitude over the subcarriers; the others show its Doppler
        spectrogram, and come first. 0 for Doppler alone, `n_bins` for amplitudes alone.
    keep_static : bool
        Whether the amplitude bins also show what does not move: the shape of the channel, which tells places in a room
        that the model was trained in, and misleads in any other.
    gain : str
        ``rssi``: where frames carry one, their power is scaled to it, which undoes the receiver's gain control;
        ``none``: amplitudes as they come.
    doppler_steps : int
        Steps of the grid under the Hann window of the Doppler spectrogram; odd.
    amplitude_scale : float
        Change of amplitude, relative to the window's root mean square, that gives a picture value of 1.
    doppler_floor, doppler_scale : float
        Level in dB, relative to the window's mean power, that gives a picture value of 0, and dB over that for 1.
    picture_min, picture_max : float
        Range that pictures are clipped to.

    Raises
    ------
    ModelError
        If the numbers cannot be.
    """

    n_steps: int = 192
    n_bins: int = 64
    frame_rate: float = 20.0
    stride: int = 1
    min_frame_rate: float = 10.0
    max_gap: float = 0.5
    antennas: int = ANY
    subcarriers: int = ANY
    bands: int = 1
    amplitude_bins: int = 16
    keep_static: bool = False
    gain: str = "rssi"
    doppler_steps: int = 31
    amplitude_scale: float = 0.2
    doppler_floor: float = -40.0
    doppler_scale: float = 15.0
    picture_min: float = -4.0
    picture_max: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = {"int": (int,), "str": (str,), "bool": (bool,)}.get(str(field.type), (int, float))
            if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
                raise ModelError(f"the CSI spec's {field.name} is {value!r:.40}, not of type {field.type}")
        possible = (
            min(self.n_steps, self.n_bins, self.stride, self.bands) > 0
            and self.window_steps <= LARGEST_WINDOW
            and self.n_bins <= LARGEST_WINDOW
            and 0 < self.min_frame_rate <= self.frame_rate
            and 0 < self.max_gap < min(self.window_seconds, LARGEST_GAP)
            and min(self.antennas, self.subcarriers) >= 0
            and 0 <= self.amplitude_bins <= self.n_bins
            and self.amplitude_bins % self.bands == 0
            and self.doppler_bins % self.bands == 0
            and self.gain in GAINS
            and self.doppler_steps % 2 == 1
            and 1 < self.doppler_steps <= self.window_steps
            and min(self.amplitude_scale, self.doppler_scale) > 0
            and -LARGEST_VALUE <= self.picture_min < self.picture_max <= LARGEST_VALUE
        )
        if not possible:
            raise ModelError(f"no picture can be made as {self} says")

    @property
    def doppler_bins(self) -> int:
        """Bins that show the Doppler spectrogram."""
        return self.n_bins - self.amplitude_bins

    @property
    def window_steps(self) -> int:
        """Steps of the time grid in a window."""
        return self.n_steps * self.stride

    @property
    def window_seconds(self) -> float:
        """Length of a window in seconds."""
        return self.window_steps / self.frame_rate


@dataclass(frozen=True, eq=False)
class CSIWindow:
    """What one model input is made of: amplitudes on an even time grid.

    Attributes
    ----------
    amplitude : (window_steps, antenna, subcarrier) float32
        Mean amplitude over each step of the grid, in units of the device, or, where frames carry an RSSI, of the square
        root of the received power in mW.
    subcarriers : (subcarrier,) int16
        OFDM subcarrier indices, ascending.
    time_start, time_end : float
        Seconds on the clock of the frames' time stamps.
    frame_start, frame_count : int
        Position of the first frame in the sender's own count, and frames from there to the last, lost ones included.
    lost : int
        Frames among them that did not arrive.
    frame_rate : float
        Frames that arrived per second.
    device : str
        As in :class:`rfvit_rt.datatypes.CSIFrame`.
    received : float
        ``time.monotonic()`` when the last frame was complete in this process, in seconds.
    segment : int
        Number of the uninterrupted stretch of stream that it was cut from.
    """

    amplitude: NDArray[np.float32]
    subcarriers: NDArray[np.int16]
    time_start: float
    time_end: float
    frame_start: int
    frame_count: int
    lost: int
    frame_rate: float
    device: str
    received: float
    segment: int = 0


def bin_width_feature(spec: CSISpec) -> float:
    """Second input of the model: the physical scale of the picture, as log10 of a time step's length in seconds."""
    return math.log10(spec.stride / spec.frame_rate)


# ---- frames to windows ----


def csi_windows(
    frames: Iterable[CSIFrame],
    spec: CSISpec,
    hop_seconds: float,
    left_out: Callable[[CSIWindow], object] = lambda window: None,
) -> Generator[CSIWindow]:
    """Cut a stream of frames into overlapping windows on an even time grid.

    Between two frames amplitudes run in a straight line; a step of the grid has the mean over its length. So a stream
    with more frames than steps is averaged, one with fewer is interpolated. A window comes out with the first frame at
    or after its end. A gap of more than ``spec.max_gap``, a change of device or of subcarriers, and time or a count of
    frames that runs backwards end a window without a result, and a new one starts.

    Parameters
    ----------
    frames : iterable of CSIFrame
        In the order in which they came.
    spec : CSISpec
    hop_seconds : float
        From one window's start to the next one's, at most a window's length; rounded to whole time steps.
    left_out : callable
        Told of every window that is left out because it has too few frames.

    Yields
    ------
    CSIWindow

    Raises
    ------
    SpecMismatch
        If the device has other antennas or subcarriers than the model takes, or frames come too rarely for it from the
        start. Later, windows with too few frames are left out: a stream that falters for a while goes on.
    """
    hop = round(hop_seconds * spec.frame_rate)
    if not 0 < hop <= spec.window_steps:
        raise ValueError(f"a hop of {hop_seconds} s is {hop} steps, must be 1 to {spec.window_steps}")
    segment: _Segment | None = None
    number, cuts, any_yet = 0, 0, False
    for frame in frames:
        if segment is None or not segment.continues_with(frame):
            if segment is not None:
                number, cuts = number + 1, 0 if any_yet else cuts + 1
                _check_cuts(cuts, spec)
            _check_shape(frame, spec)
            segment = _Segment(number, frame, spec, hop)
            continue
        for window in segment.push(frame):
            if window.frame_rate >= spec.min_frame_rate:
                any_yet = True
                yield window
            elif not any_yet:
                raise SpecMismatch(
                    f"{window.device} gives {window.frame_rate:.1f} frames/s, the model needs at least "
                    f"{spec.min_frame_rate:g}; have the device send more often"
                )
            else:
                left_out(window)


def _check_shape(frame: CSIFrame, spec: CSISpec) -> None:
    antennas, subcarriers = frame.csi.shape
    for name, came, expected in (("antennas", antennas, spec.antennas), ("subcarriers", subcarriers, spec.subcarriers)):
        if expected not in (ANY, came):
            raise SpecMismatch(
                f"{frame.device} gives {came} {name}, the model takes {expected}; set the device to that or use "
                "a model that was trained for it"
            )
    if not 0 < antennas * subcarriers <= LARGEST_FRAME:
        raise SpecMismatch(
            f"{frame.device} gives {antennas} x {subcarriers} values a frame, at most {LARGEST_FRAME} are taken; "
            "choose a narrower bandwidth"
        )


def _check_cuts(cuts: int, spec: CSISpec) -> None:
    if cuts >= _CUTS:
        raise SpecMismatch(
            f"the stream was interrupted {cuts} times in a row before a window of {spec.window_seconds:g} s was full "
            f"(gaps over {spec.max_gap:g} s, or changing devices); the model needs at least {spec.min_frame_rate:g} "
            "frames/s from one device: send more traffic, or choose one device"
        )


class _Segment:
    """One uninterrupted stretch of frames on one time grid, of which at most a window is kept."""

    def __init__(self, number: int, first: CSIFrame, spec: CSISpec, hop: int) -> None:
        self._number = number
        self._spec = spec
        self._hop = hop
        self._last = first
        self._value = compensated_amplitude(first, spec)
        self._origin = first.timestamp
        self._steps: deque[_Step] = deque(maxlen=spec.window_steps)  # those that are complete
        self._partial = np.zeros_like(self._value, np.float64)  # integral over the step that is not
        self._arrived = [first.frame_index]  # first and last frame of that step, and how many
        self._arrived_count = 1
        self._count = 0  # complete steps since the origin

    def continues_with(self, frame: CSIFrame) -> bool:
        last = self._last
        return (
            0 <= frame.timestamp - last.timestamp <= self._spec.max_gap
            and frame.frame_index > last.frame_index
            and frame.device == last.device
            and frame.csi.shape == last.csi.shape
            and np.array_equal(frame.subcarriers, last.subcarriers)
        )

    def push(self, frame: CSIFrame) -> Iterator[CSIWindow]:
        """Take one frame; give the windows that it completes."""
        line = _Line(self._last.timestamp, frame.timestamp, self._value, compensated_amplitude(frame, self._spec))
        self._last, self._value = frame, line.after
        position = line.start
        while (edge := self._time_of(self._count + 1)) <= line.end:
            self._partial += line.integral(position, edge)
            self._complete_step()
            position = edge
            if self._count >= self._spec.window_steps and (self._count - self._spec.window_steps) % self._hop == 0:
                yield self._window()
        self._partial += line.integral(position, line.end)
        self._arrived = [*self._arrived[:1], frame.frame_index]
        self._arrived_count += 1

    def _complete_step(self) -> None:
        amplitude = (self._partial * self._spec.frame_rate).astype(np.float32)
        self._steps.append(_Step(amplitude, tuple(self._arrived), self._arrived_count))
        self._partial = np.zeros_like(self._partial)
        self._arrived, self._arrived_count = [], 0
        self._count += 1

    def _time_of(self, step: int) -> float:
        return self._origin + step / self._spec.frame_rate

    def _window(self) -> CSIWindow:
        spec, last = self._spec, self._last
        indices = [index for step in self._steps for index in step.frames]
        arrived = sum(step.frame_count for step in self._steps)
        frame_count = indices[-1] - indices[0] + 1
        return CSIWindow(
            amplitude=np.stack([step.amplitude for step in self._steps]),
            subcarriers=last.subcarriers,
            time_start=self._time_of(self._count - spec.window_steps),
            time_end=self._time_of(self._count),
            frame_start=indices[0],
            frame_count=frame_count,
            lost=frame_count - arrived,
            frame_rate=arrived / spec.window_seconds,
            device=last.device,
            received=last.received,
            segment=self._number,
        )


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of the time grid: mean amplitudes, first and last frame in it if it has any, and how many."""

    amplitude: NDArray[np.float32]
    frames: tuple[int, ...]
    frame_count: int


@dataclass(frozen=True, eq=False)
class _Line:
    """Amplitudes between two frames, a straight line from `before` at `start` to `after` at `end`."""

    start: float
    end: float
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    def integral(self, lower: float, upper: float) -> NDArray[np.float64]:
        """Integral over a part of the time between the two."""
        if upper <= lower:
            return np.zeros(self.before.shape)
        middle = ((lower + upper) / 2 - self.start) / (self.end - self.start)
        return (upper - lower) * ((1 - middle) * self.before.astype(np.float64) + middle * self.after)


def compensated_amplitude(frame: CSIFrame, spec: CSISpec) -> NDArray[np.float32]:
    """Amplitudes with the receiver's gain control undone, as far as the frame tells.

    The power over all antennas and subcarriers is scaled to the received power, as Halperin's ``get_scaled_csi`` does
    for the Intel 5300: the receiver holds the level of the samples, not that of the air.

    Returns
    -------
    (antenna, subcarrier) float32
    """
    amplitude = np.abs(frame.csi).astype(np.float32)
    if spec.gain == "none" or frame.rssi is None:
        return amplitude
    received = float(np.sum(10 ** (np.asarray(frame.rssi, np.float64) / 10)))  # mW
    power = float(np.mean(np.square(amplitude, dtype=np.float64)))
    if power <= 0:
        return amplitude
    # In float64: of amplitudes next to nothing the factor is beyond float32, though the product is not.
    return (amplitude.astype(np.float64) * math.sqrt(received / power)).astype(np.float32)


# ---- windows to pictures ----


def csi_picture(window: CSIWindow, spec: CSISpec) -> NDArray[np.float32]:
    """Show what moves in a window, as :func:`picture_of` does."""
    return picture_of(window.amplitude, spec)


def picture_of(amplitude: NDArray[np.float32], spec: CSISpec) -> NDArray[np.float32]:
    """Show what moves: Doppler spectrograms of all bands, then their amplitudes, without the static part.

    Parameters
    ----------
    amplitude : (window_steps, antenna, subcarrier) float32
        As :class:`CSIWindow` holds them.
    spec : CSISpec

    Returns
    -------
    (n_steps, n_bins) float32
        Clipped to `picture_min` … `picture_max`. Time ascends. A band's Doppler bins ascend from 0 Hz to just below
        half the frame rate of the grid, its amplitude bins in subcarriers.
    """
    rows = amplitude.reshape(len(amplitude), -1)  # (grid step, antenna * subcarrier)
    level = math.sqrt(float(np.mean(np.square(rows, dtype=np.float64)))) or 1.0
    relative = rows / np.float32(level)
    change = relative - relative.mean(axis=0)
    panels = []
    if spec.doppler_bins:
        panels.append(_doppler_panels(change, spec))
    if spec.amplitude_bins:
        panels.append(_amplitude_panel(relative - 1 if spec.keep_static else change, spec))
    return np.clip(np.concatenate(panels, axis=1), spec.picture_min, spec.picture_max).astype(np.float32)


def _doppler_panels(change: NDArray[np.float32], spec: CSISpec) -> NDArray[np.float32]:
    """Power spectrum around every time step, a mean over each band's rows, in dB: (step, doppler_bins)."""
    bins, reach = spec.doppler_bins // spec.bands, spec.doppler_steps // 2
    padded = np.pad(change, ((reach, reach), (0, 0)))
    spans = np.lib.stride_tricks.sliding_window_view(padded, spec.doppler_steps, axis=0)  # (grid step, row, taper)
    spans = spans[spec.stride // 2 :: spec.stride]
    spectra = spans.reshape(-1, spec.doppler_steps) @ _tapered_dft(spec.doppler_steps, bins)
    power = (spectra[:, :bins] ** 2 + spectra[:, bins:] ** 2).reshape(len(spans), -1, bins)  # (step, row, bin)
    bands = _averaging(power.shape[1], spec.bands).T @ power  # (step, band, bin)
    level = 10 * np.log10(bands.reshape(len(bands), -1) + np.float32(1e-12))
    return (level - np.float32(spec.doppler_floor)) / np.float32(spec.doppler_scale)


def _amplitude_panel(relative: NDArray[np.float32], spec: CSISpec) -> NDArray[np.float32]:
    """Amplitudes over the subcarriers of all antennas, averaged to (step, amplitude_bins)."""
    steps = relative.reshape(spec.n_steps, spec.stride, -1).mean(axis=1)
    return steps @ _averaging(steps.shape[1], spec.amplitude_bins) / np.float32(spec.amplitude_scale)


@lru_cache(maxsize=8)
def _tapered_dft(length: int, bins: int) -> NDArray[np.float32]:
    """Matrix (length, 2 * bins) of a Hann-windowed DFT, real parts first; white noise of power p gives p in every bin.

    Bin k is at k / (2 * bins) of the rate of the samples.
    """
    taper = np.hanning(length + 2)[1:-1]
    waves = np.exp(-2j * np.pi * np.outer(np.arange(length), np.arange(bins)) / (2 * bins))
    waves *= (taper / np.sqrt(np.sum(taper**2)))[:, None]
    return np.concatenate([waves.real, waves.imag], axis=1).astype(np.float32)


@lru_cache(maxsize=64)
def _averaging(size: int, parts: int) -> NDArray[np.float32]:
    """Matrix (size, parts) that averages a row of values over equal parts of it, values at borders shared."""
    edges = np.linspace(0, size, parts + 1)
    values = np.arange(size)[:, None]
    cover = np.clip(np.minimum(values + 1, edges[1:]) - np.maximum(values, edges[:-1]), 0, None)
    return (cover / cover.sum(axis=0)).astype(np.float32)
