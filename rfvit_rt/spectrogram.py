# SPDX-License-Identifier: Apache-2.0
"""The one definition of the picture that a model sees, used by training and by the runtime.

IQ samples become the power in a grid of fixed time steps and frequency bins, in dB over the window's own noise floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray

from rfvit_rt.errors import SpecMismatch

LARGEST_FFT = 2**20
LARGEST_WINDOW = 2**28  # samples: 2 GiB
LARGEST_NUMBER = 1e15  # of any setting
LARGEST_VALUE = 1e6  # of a picture; far more than any needs, and far less than float32 holds
# Complex values that are transformed at a time: few enough to stay in a core's cache, and enough for threads that work
# on windows at the same time not to wait for Python's lock between them.
_PART_VALUES = 2**18

# The equivalent number of independent spectra is a little below the number averaged, because Hann windows that overlap
# by half correlate: neighbours by 1/6, so the variance grows by 1 + 2/36 (Welch 1967, eq. 13).
_OVERLAP_VARIANCE = 1 + 2 / 36


@dataclass(frozen=True)
class SpectrogramSpec:
    """How IQ becomes a model's input; travels inside the model file.

    Attributes
    ----------
    n_steps, n_bins : int
        Time steps and frequency bins of one model input.
    time_step : float
        Length of a time step in seconds, the same at every sample rate.
    max_bin_width : float
        Wider bins than this, in Hz, are not used: a wider band takes 2, 4, … times as many bins, cut into tiles.
    tile_overlap : int
        Bins that neighbouring tiles share at the least.
    floor_quantile : float
        Quantile over time that stands for a bin's quiet level.
    floor_share : float
        Share of the band that must lie at one level to be taken for the noise floor.
    floor_spread : float
        How far apart, in dB, levels may lie and still count as one.
    dynamic_range : float
        Strongest signal over the floor, in dB, that still shows its texture; above that the floor is raised.
    db_min, db_max : float
        Limits of the picture, in dB over the floor.
    db_scale : float
        Picture values are dB divided by this.
    min_sample_rate, max_sample_rate : float
        Sample rates that the spec fits, in Hz.

    Raises
    ------
    ValueError
        If the numbers cannot be.
    """

    n_steps: int = 256
    n_bins: int = 256
    time_step: float = 156.25e-6
    max_bin_width: float = 240e3
    tile_overlap: int = 64
    floor_quantile: float = 0.1
    floor_share: float = 1 / 16
    floor_spread: float = 1.0
    dynamic_range: float = 45.0
    db_min: float = -10.0
    db_max: float = 50.0
    db_scale: float = 20.0
    min_sample_rate: float = 1.8e6
    max_sample_rate: float = 500e6

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int and (field.type == "int" or type(value) is not float or not math.isfinite(value)):
                raise ValueError(f"the spectrogram's {field.name} is {value!r:.40}, not a number of type {field.type}")
            if abs(value) > LARGEST_NUMBER:
                raise ValueError(f"the spectrogram's {field.name} is {value!r:.40}, beyond {LARGEST_NUMBER:g}")
        possible = (
            min(self.n_steps, self.n_bins) > 0
            and self.tile_overlap >= 0
            and min(self.time_step, self.max_bin_width, self.floor_spread, self.dynamic_range, self.db_scale) > 0
            and 0 <= self.floor_quantile < 1
            and 0 < self.floor_share <= 1
            and self.db_min < self.db_max
            and max(abs(self.db_min), abs(self.db_max)) <= LARGEST_VALUE * self.db_scale
            and 0 < self.min_sample_rate <= self.max_sample_rate
            and self.n_fft(self.max_sample_rate) <= LARGEST_FFT
            # Windows hold a transform at every rate, and are of a length that memory has room for.
            and self.n_steps * self.time_step * self.min_sample_rate >= self.n_bins
            and self.time_step * self.max_bin_width >= 1
            and self.n_steps * self.time_step * self.max_sample_rate <= LARGEST_WINDOW
        )
        if not possible:
            raise ValueError(f"no spectrogram can be made as {self} says")

    @property
    def picture_min(self) -> float:
        """Least value of a picture."""
        return self.db_min / self.db_scale

    @property
    def picture_max(self) -> float:
        """Largest value of a picture."""
        return self.db_max / self.db_scale

    def check_sample_rate(self, sample_rate: float) -> None:
        """Raise :class:`SpecMismatch` where the spec does not fit a sample rate in Hz."""
        if not self.min_sample_rate <= sample_rate <= self.max_sample_rate:
            raise SpecMismatch(
                f"the source has {sample_rate / 1e6:g} MS/s, the model takes {self.min_sample_rate / 1e6:g} to "
                f"{self.max_sample_rate / 1e6:g} MS/s; resample the source"
            )

    def n_fft(self, sample_rate: float) -> int:
        """Frequency bins over the whole band: `n_bins`, doubled until a bin is at most `max_bin_width`."""
        ratio = sample_rate / (self.n_bins * self.max_bin_width)
        return self.n_bins * 2 ** max(0, math.ceil(math.log2(ratio)))

    def step_length(self, sample_rate: float) -> float:
        """Samples in a time step; need not be whole."""
        return self.time_step * sample_rate

    def window_length(self, sample_rate: float) -> int:
        """Samples in a full window."""
        return math.ceil(self.n_steps * self.step_length(sample_rate) - 1e-6)

    def steps_in(self, n_samples: int, sample_rate: float) -> int:
        """Whole time steps in a number of samples, at most `n_steps`."""
        return min(self.n_steps, int(n_samples / self.step_length(sample_rate) + 1e-6))

    def tile_starts(self, n_fft: int) -> list[int]:
        """First bin of every tile that a band of `n_fft` bins is cut into."""
        span = n_fft - self.n_bins
        intervals = math.ceil(span / (self.n_bins - self.tile_overlap))
        return [round(i * span / intervals) for i in range(intervals + 1)] if intervals else [0]


def power(samples: NDArray[np.complex64], sample_rate: float, spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Mean power in every time step and frequency bin.

    All Hann-windowed, half-overlapping FFTs whose centre lies in a time step are averaged, so that no burst is missed
    (Welch's method). White noise of power p gives p in every bin.

    Parameters
    ----------
    samples : (n,) complex64
    sample_rate : float
        In Hz.
    spec : SpectrogramSpec

    Returns
    -------
    (step, n_fft) float32
        Bins ascend in frequency, the centre frequency is bin ``n_fft // 2``.

    Raises
    ------
    SpecMismatch
        If the sample rate does not fit, or the samples do not fill a single time step.
    """
    spec.check_sample_rate(sample_rate)
    n_steps = spec.steps_in(len(samples), sample_rate)
    if n_steps == 0:
        raise SpecMismatch(
            f"{len(samples)} samples at {sample_rate:g} Hz do not fill a time step of {spec.time_step:g} s"
        )
    n_fft = spec.n_fft(sample_rate)
    hop = n_fft // 2
    taper = hann_taper(n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
    parts = _averaging_parts(n_steps, spec.step_length(sample_rate), n_fft, len(frames))
    tapered = np.empty((max(part.averaging.shape[1] for part in parts), n_fft), np.complex64)
    means = np.empty((n_steps, 2 * n_fft), np.float32)  # of real and imaginary parts, side by side
    for part in parts:
        spectra = np.multiply(frames[part.frames], taper, out=tapered[: part.averaging.shape[1]])
        squares = scipy.fft.fft(spectra, axis=1, overwrite_x=True).view(np.float32)
        np.square(squares, out=squares)
        means[part.steps] = part.averaging @ squares
    return scipy.fft.fftshift(means[:, 0::2] + means[:, 1::2], axes=1)


def noise_floor(power: NDArray[np.float32], sample_rate: float, spec: SpectrogramSpec) -> float:
    """Noise power per bin, estimated from the window itself.

    Every bin's quiet level is a low quantile over time, corrected for the bias that a quantile of averaged noise
    spectra has (they follow a gamma distribution). The floor is the lowest level that a good share of the bins agree
    on: a receiver's filter skirt passes through many levels but rests on none, and an occupied band lies higher. Where
    no level is shared, the densest stretch is taken. A signal more than `dynamic_range` above the floor raises it.

    Parameters
    ----------
    power : (step, bin) float32
        As :func:`power` returns it.
    sample_rate : float
        In Hz.
    spec : SpectrogramSpec

    Returns
    -------
    float
        In the unit of `power`; 0 only where all is silent.
    """
    n_steps, n_fft = power.shape
    rank, bias = quiet_rank_and_bias(n_steps, n_fft, sample_rate, spec)
    quiet = np.partition(power, rank, axis=0)[rank] / bias
    levels = np.sort(10 * np.log10(np.maximum(quiet, np.finfo(np.float32).tiny)))
    count = max(2, int(n_fft * spec.floor_share))
    spreads = levels[count - 1 :] - levels[: len(levels) - count + 1]
    shared = np.flatnonzero(spreads <= spec.floor_spread)
    lowest = levels[shared[0] if len(shared) else np.argmin(spreads)]
    plateau = levels[(levels >= lowest) & (levels <= lowest + 2.5 * spec.floor_spread)]
    # The strongest but for a hundredth; of next to nothing, as of a short burst in a stream without noise, of all.
    strongest = float(np.partition(power, -max(1, power.size // 100), axis=None)[-max(1, power.size // 100)])
    strongest = strongest or float(power.max())
    floor = float(10 ** (np.median(plateau) / 10))
    return max(floor, strongest * 10 ** (-spec.dynamic_range / 10)) if strongest > 0 else 0.0


def picture(power: NDArray[np.float32], floor: float, spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Scale power to picture values: dB over the floor, clipped, divided by ``spec.db_scale``.

    Parameters
    ----------
    power : (step, bin) float32
    floor : float
        From :func:`noise_floor`.
    spec : SpectrogramSpec

    Returns
    -------
    (step, bin) float32
        Silence (no power at all, no floor) gives 0, as noise does.
    """
    tiny = np.finfo(np.float32).tiny
    db = 10 * np.log10((power + tiny) / max(np.float32(floor), tiny))
    return np.clip(db, spec.db_min, spec.db_max) / np.float32(spec.db_scale)


def spectrogram(samples: NDArray[np.complex64], sample_rate: float, spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Turn a window's samples into its picture: :func:`power`, over its :func:`noise_floor`, as a :func:`picture`.

    Returns
    -------
    (step, bin) float32
        As many steps as the samples fill.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> noise = rng.standard_normal((400_000, 2), np.float32).view(np.complex64)[:, 0]
    >>> spectrogram(noise, 10e6, SpectrogramSpec()).shape
    (256, 256)
    """
    energy = power(samples, sample_rate, spec)
    return picture(energy, noise_floor(energy, sample_rate, spec), spec)


def tiles(image: NDArray[np.float32], spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Cut a picture into model inputs; steps that a short window lacks are filled with 0, the noise floor.

    Parameters
    ----------
    image : (step, bin) float32

    Returns
    -------
    (tile, n_steps, n_bins) float32
    """
    padded = np.zeros((spec.n_steps, image.shape[1]), np.float32)
    padded[: len(image)] = image
    return np.stack([padded[:, start : start + spec.n_bins] for start in spec.tile_starts(image.shape[1])])


def join_tiles(outputs: NDArray[np.float32], n_fft: int, spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Put the outputs for a window's tiles together again, cross-fading where tiles overlap.

    Parameters
    ----------
    outputs : (tile, step, bin, class) float32
        Class probabilities of the tiles that :func:`tiles` made.
    n_fft : int
        Bins of the whole band.

    Returns
    -------
    (step, n_fft, class) float32
    """
    if len(outputs) == 1:
        return outputs[0]
    fade = np.minimum(np.arange(1, spec.n_bins + 1), np.arange(spec.n_bins, 0, -1)).astype(np.float32)[:, None]
    total = np.zeros((outputs.shape[1], n_fft, outputs.shape[3]), np.float32)
    weight = np.zeros((n_fft, 1), np.float32)
    for output, start in zip(outputs, spec.tile_starts(n_fft), strict=True):
        total[:, start : start + spec.n_bins] += output * fade
        weight[start : start + spec.n_bins] += fade
    return total / weight


def bin_width_feature(sample_rate: float, spec: SpectrogramSpec) -> float:
    """Tell the model the physical width of a bin: octaves over 60 kHz."""
    return math.log2(sample_rate / spec.n_fft(sample_rate) / 60e3)


def quiet_rank_and_bias(n_steps: int, n_fft: int, sample_rate: float, spec: SpectrogramSpec) -> tuple[int, float]:
    """Which of a bin's powers, counted from the least one, stands for its quiet level, and how much too low it is.

    Returns
    -------
    rank : int
    bias : float
        Expected power at that rank over the mean, in white noise.
    """
    averaged = max(1.0, spec.step_length(sample_rate) / (n_fft // 2)) / _OVERLAP_VARIANCE
    rank = int(spec.floor_quantile * (n_steps - 1))
    return rank, _gamma_quantile(averaged, (rank + 0.5) / n_steps)


@lru_cache
def hann_taper(n_fft: int) -> NDArray[np.float32]:
    """Hann window of `n_fft` samples, (n_fft,) float32, scaled so that white noise keeps its power in every bin."""
    taper = scipy.signal.get_window("hann", n_fft)
    return (taper / np.sqrt(np.sum(taper**2))).astype(np.float32)


@lru_cache
def _gamma_quantile(shape: float, probability: float) -> float:
    return float(scipy.stats.gamma.ppf(probability, shape) / shape)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some consecutive steps of a window.

    Attributes
    ----------
    steps, frames : slice
        The steps, and all frames that belong to them.
    averaging : (step, frame) sparse array of float32
        Takes the mean over each step's frames. As a product with a sparse array it is one call, and several times as
        fast as a reduction by ragged pieces.
    """

    steps: slice
    frames: slice
    averaging: scipy.sparse.csr_array


@lru_cache
def _averaging_parts(n_steps: int, step_length: float, n_fft: int, n_frames: int) -> tuple[_Part, ...]:
    edges = frame_edges(n_steps, step_length, n_fft, n_frames)
    stride = max(1, _PART_VALUES * n_steps // (n_frames * n_fft))
    cuts = [edges[first : first + stride + 1] for first in range(0, n_steps, stride)]
    return tuple(
        _Part(slice(index * stride, index * stride + len(cut) - 1), slice(cut[0], cut[-1]), _averaging(cut - cut[0]))
        for index, cut in enumerate(cuts)
    )


def _averaging(starts: NDArray[np.int64]) -> scipy.sparse.csr_array:
    counts = np.diff(starts)
    weights = np.repeat((1 / counts).astype(np.float32), counts)
    return scipy.sparse.csr_array((weights, np.arange(starts[-1]), starts), shape=(len(counts), starts[-1]))


@lru_cache
def frame_edges(n_steps: int, step_length: float, n_fft: int, n_frames: int) -> NDArray[np.int64]:
    """First frame of every step, and the end of the last: frames belong to the step that holds their centre."""
    hop = n_fft // 2
    edges = np.ceil((np.arange(n_steps + 1) * step_length - hop) / hop - 1e-9).astype(np.int64)
    edges = np.clip(edges, 0, n_frames)
    # A last step that ends with the samples may hold no frame's centre; it then repeats the last frame.
    edges[:-1] = np.minimum(edges[:-1], n_frames - 1)
    edges[1:] = np.maximum(edges[1:], edges[:-1] + 1)
    edges.flags.writeable = False
    return edges
