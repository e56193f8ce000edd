# SPDX-License-Identifier: Apache-2.0
"""The one definition of the picture that an activity model sees, used by training and by the runtime.

Frames of Channel State Information come at uneven times, with gaps, and with a gain that the receiver sets anew for every
frame. They become windows on an even time grid, and pictures of what moves: the change of every subcarrier's amplitude
over time, and its Doppler spectrogram.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import ModelError, SpecMismatch

FEATURES = ("amplitude", "doppler", "both")
GAINS = ("rssi", "none")
ANY = 0  # as a number of antennas or subcarriers
LARGEST_WINDOW = 4096  # steps
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
        Time steps per second that frames are resampled to, in Hz.
    min_frame_rate : float
        Fewest frames per second that make a window, in Hz.
    max_gap : float
        Longest time between two frames that is bridged, in seconds; a longer one ends the window.
    antennas, subcarriers : int
        What the device must have; 0 for any.
    features : str
        ``amplitude``, ``doppler``, or ``both`` side by side: amplitude in the lower half of the bins.
    gain : str
        ``rssi``: where frames carry one, their power is scaled to it, which undoes the receiver's gain control;
        ``none``: amplitudes as they come.
    doppler_steps : int
        Time steps under the Hann window of the Doppler spectrogram; odd.
    amplitude_scale : float
        Change of amplitude, relative to the window's mean amplitude, that gives a picture value of 1.
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
    min_frame_rate: float = 10.0
    max_gap: float = 0.5
    antennas: int = ANY
    subcarriers: int = ANY
    features: str = "both"
    gain: str = "rssi"
    doppler_steps: int = 31
    amplitude_scale: float = 0.25
    doppler_floor: float = -40.0
    doppler_scale: float = 20.0
    picture_min: float = -4.0
    picture_max: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            right = {"int": type(value) is int, "str": type(value) is str}.get(
                field.type, type(value) in (int, float) and math.isfinite(value)
            )
            if not right:
                raise ModelError(f"the CSI spec's {field.name} is {value!r:.40}, not of type {field.type}")
        possible = (
            0 < self.n_steps <= LARGEST_WINDOW
            and 0 < self.n_bins <= LARGEST_WINDOW
            and 0 < self.min_frame_rate <= self.frame_rate
            and self.max_gap > 0
            and min(self.antennas, self.subcarriers) >= 0
            and self.features in FEATURES
            and (self.features != "both" or self.n_bins % 2 == 0)
            and self.gain in GAINS
            and self.doppler_steps % 2 == 1
            and 1 < self.doppler_steps <= self.n_steps
            and min(self.amplitude_scale, self.doppler_scale) > 0
            and self.picture_min < self.picture_max
        )
        if not possible:
            raise ModelError(f"no picture can be made as {self} says")

    @property
    def window_seconds(self) -> float:
        """Length of a window in seconds."""
        return self.n_steps / self.frame_rate


@dataclass(frozen=True, eq=False)
class CSIWindow:
    """What one model input is made of: amplitudes on an even time grid.

    Attributes
    ----------
    amplitude : (n_steps, antenna, subcarrier) float32
        Mean amplitude over each time step, in units of the device, or of the received power where frames carry an RSSI.
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
    """Second input of the model: the physical scale of a time step, as the logarithm of its length in seconds."""
    return -math.log10(spec.frame_rate)


# ---- frames to windows ----


def csi_windows(frames: Iterable[CSIFrame], spec: CSISpec, hop_seconds: float) -> Generator[CSIWindow]:
    """Cut a stream of frames into overlapping windows on an even time grid.

    Between two frames amplitudes run in a straight line; a time step has the mean over its length. So a stream with more
    frames than steps is averaged, one with fewer interpolated, and what comes out does not depend on how frames arrive.
    A window comes out with the first frame at or after its end. A gap of more than ``spec.max_gap``, a change of device
    or of subcarriers, and time that runs backwards end a window without a result, and a new one starts.

    Parameters
    ----------
    frames : iterable of CSIFrame
        In the order in which they came.
    spec : CSISpec
    hop_seconds : float
        From one window's start to the next one's, at most a window's length; rounded to whole time steps.

    Yields
    ------
    CSIWindow

    Raises
    ------
    SpecMismatch
        If the device has other antennas or subcarriers than the model takes, or frames come too rarely for it.
    """
    hop = round(hop_seconds * spec.frame_rate)
    if not 0 < hop <= spec.n_steps:
        raise ValueError(f"a hop of {hop_seconds} s is {hop} steps, must be 1 to {spec.n_steps}")
    segment: _Segment | None = None
    number, cuts = 0, 0
    for frame in frames:
        if segment is None or not segment.continues_with(frame):
            if segment is not None:
                number, cuts = number + 1, 0 if segment.emitted else cuts + 1
                _check_cuts(cuts, spec)
            _check_shape(frame, spec)
            segment = _Segment(number, frame, spec, hop)
        else:
            yield from segment.push(frame)


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
        self._first = first
        self._last = first
        self._value = compensated_amplitude(first, spec)
        self._origin = first.timestamp
        self._steps: deque[NDArray[np.float32]] = deque(maxlen=spec.n_steps)  # those that are complete
        self._partial = np.zeros_like(self._value, np.float64)  # integral over the step that is not
        self._count = 0  # complete steps since the origin
        self._frames: deque[tuple[float, int]] = deque([(first.timestamp, first.frame_index)])
        self.emitted = 0

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
        value = compensated_amplitude(frame, self._spec)
        start, end = self._last.timestamp, frame.timestamp
        before, self._value = self._value, value
        self._last = frame
        position = start
        while (edge := self._time_of(self._count + 1)) <= end:
            self._integrate(before, value, start, end, position, edge)
            self._steps.append((self._partial * self._spec.frame_rate).astype(np.float32))
            self._partial = np.zeros_like(self._partial)
            self._count += 1
            position = edge
            if self._count >= self._spec.n_steps and (self._count - self._spec.n_steps) % self._hop == 0:
                yield self._window()
        self._integrate(before, value, start, end, position, end)
        self._frames.append((frame.timestamp, frame.frame_index))

    def _time_of(self, step: int) -> float:
        return self._origin + step / self._spec.frame_rate

    def _integrate(
        self,
        before: NDArray[np.float32],
        value: NDArray[np.float32],
        start: float,
        end: float,
        lower: float,
        upper: float,
    ) -> None:
        """Add the integral from `lower` to `upper` of the line from `before` at `start` to `value` at `end`."""
        if upper > lower:
            middle = ((lower + upper) / 2 - start) / (end - start)
            self._partial += (upper - lower) * ((1 - middle) * before + middle * value)

    def _window(self) -> CSIWindow:
        spec, time_end = self._spec, self._time_of(self._count)
        time_start = self._time_of(self._count - spec.n_steps)
        while self._frames[0][0] < time_start:
            self._frames.popleft()
        frame_rate = len(self._frames) / spec.window_seconds
        if frame_rate < spec.min_frame_rate:
            raise SpecMismatch(
                f"{self._last.device} gives {frame_rate:.1f} frames/s, the model needs at least "
                f"{spec.min_frame_rate:g}; send more traffic to it"
            )
        frame_start = self._frames[0][1]
        frame_count = self._frames[-1][1] - frame_start + 1
        self.emitted += 1
        return CSIWindow(
            amplitude=np.stack(self._steps),
            subcarriers=self._last.subcarriers,
            time_start=time_start,
            time_end=time_end,
            frame_start=frame_start,
            frame_count=frame_count,
            lost=frame_count - len(self._frames),
            frame_rate=frame_rate,
            device=self._last.device,
            received=self._last.received,
            segment=self._number,
        )


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
    return amplitude * np.float32(math.sqrt(received / power)) if power > 0 else amplitude


# ---- windows to pictures ----


def csi_picture(window: CSIWindow, spec: CSISpec) -> NDArray[np.float32]:
    """Show what moves: the static part of the channel is left out.

    Parameters
    ----------
    window : CSIWindow
    spec : CSISpec

    Returns
    -------
    (n_steps, n_bins) float32
        Clipped to `picture_min` … `picture_max`. Time ascends; amplitude bins follow antennas, then subcarriers; Doppler
        bins ascend from 0 Hz to half the frame rate.
    """
    change = relative_change(window.amplitude)
    half = spec.n_bins // 2
    if spec.features == "amplitude":
        picture = amplitude_panel(change, spec.n_bins, spec)
    elif spec.features == "doppler":
        picture = doppler_panel(change, spec.n_bins, spec)
    else:
        picture = np.concatenate([amplitude_panel(change, half, spec), doppler_panel(change, half, spec)], axis=1)
    return np.clip(picture, spec.picture_min, spec.picture_max).astype(np.float32)


def relative_change(amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Amplitudes less their mean over time, relative to the root mean square over the window.

    Parameters
    ----------
    amplitude : (step, antenna, subcarrier) float32

    Returns
    -------
    (step, antenna, subcarrier) float32
    """
    level = math.sqrt(float(np.mean(np.square(amplitude, dtype=np.float64))))
    if level == 0:
        return np.zeros_like(amplitude)
    return (amplitude - amplitude.mean(axis=0)) / np.float32(level)


def amplitude_panel(change: NDArray[np.float32], bins: int, spec: CSISpec) -> NDArray[np.float32]:
    """Change of amplitude over antennas and subcarriers, which are averaged or interpolated to (step, `bins`)."""
    rows = change.reshape(len(change), -1)  # (step, antenna * subcarrier)
    return rows @ resampling_matrix(rows.shape[1], bins) / np.float32(spec.amplitude_scale)


def doppler_panel(change: NDArray[np.float32], bins: int, spec: CSISpec) -> NDArray[np.float32]:
    """Mean power spectrum of the change around every time step, in dB, as (step, `bins`)."""
    rows = change.reshape(len(change), -1)
    reach = spec.doppler_steps // 2
    padded = np.pad(rows, ((reach, reach), (0, 0)))
    taper = np.hanning(spec.doppler_steps + 2)[1:-1].astype(np.float32)
    taper /= np.sqrt(np.sum(taper**2))
    spans = np.lib.stride_tricks.sliding_window_view(padded, spec.doppler_steps, axis=0)  # (step, row, taper)
    power = np.empty((len(rows), bins), np.float32)
    for step in range(len(rows)):
        spectra = np.fft.rfft(spans[step] * taper, 2 * bins, axis=1)[:, :bins]
        power[step] = np.mean(spectra.real**2 + spectra.imag**2, axis=0)
    return (10 * np.log10(power + 1e-12) - np.float32(spec.doppler_floor)) / np.float32(spec.doppler_scale)


def resampling_matrix(size: int, bins: int) -> NDArray[np.float32]:
    """Matrix (size, bins) that resamples a row: the mean over a bin's share where there are more values than bins,
    straight lines between values where there are fewer.
    """  # noqa: D205
    if size >= bins:
        edges = np.linspace(0, size, bins + 1)
        cover = np.minimum(np.arange(1, size + 1)[:, None], edges[1:]) - np.maximum(
            np.arange(size)[:, None], edges[:-1]
        )
        cover = np.clip(cover, 0, None)
        return (cover / cover.sum(axis=0)).astype(np.float32)
    places = np.clip((np.arange(bins) + 0.5) * size / bins - 0.5, 0, size - 1)
    return np.stack([np.interp(places, np.arange(size), unit) for unit in np.eye(size)]).astype(np.float32)
