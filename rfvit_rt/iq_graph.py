# SPDX-License-Identifier: Apache-2.0
"""Raw IQ in, labels out: :mod:`rfvit_rt.spectrogram` and the network as one torch module, for a GPU.

The picture is the one that :func:`rfvit_rt.spectrogram.spectrogram` makes, for full windows at one sample rate. A GPU
takes a window in one copy; the DFT is a product with a matrix, which at few bins costs it next to nothing. No second
definition: matrix, steps and floor come from the spec's own functions, and tests hold both equal.

The noise floor is searched with operators alone that ONNX runtimes have: sorting is a top-k, an index is a sum over a
mask.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rfvit_rt.errors import SpecMismatch
from rfvit_rt.spectrogram import (
    SpectrogramSpec,
    bin_width_feature,
    frame_edges,
    hann_taper,
    join_tiles,
    quiet_rank_and_bias,
)

OUTPUTS = ("masks", "probabilities", "pictures")
ITEM_TYPES = ("ci16_le", "cf32_le")
MAX_BINS = 4096  # of the whole band: the matrix has four times the square of it in values

INPUT = "iq"
OPSET = 17
LARGEST_TOP_K = 3839  # TensorRT's limit, as the operators.md of its ONNX parser has it

_FULL_SCALE = {"ci16_le": 2.0**15, "cf32_le": 1.0}  # as rfvit_rt.wire.samples has it
_WORD = 2**16
_DB = 10 / math.log(10)  # of a natural logarithm
_TINY = float(np.finfo(np.float32).tiny)
_ABOVE_ALL_LEVELS = 1e9  # in dB


class FrontEnd(nn.Module):
    """Samples of full windows to pictures of the whole band, in float32.

    Parameters
    ----------
    spec : SpectrogramSpec
    sample_rate : float
        In Hz.
    item_type : str
        One of `ITEM_TYPES`.

    Raises
    ------
    SpecMismatch
        If the spec does not fit the rate, or the band has more than `MAX_BINS` bins.
    """

    matrix: Tensor
    frames: Tensor
    weights: Tensor
    ranks: Tensor

    def __init__(self, spec: SpectrogramSpec, sample_rate: float, item_type: str) -> None:
        super().__init__()
        spec.check_sample_rate(sample_rate)
        self.spec = spec
        self.n_fft = spec.n_fft(sample_rate)
        if self.n_fft > MAX_BINS:
            raise SpecMismatch(
                f"{sample_rate / 1e6:g} MS/s take {self.n_fft} bins, the graph that takes IQ at most {MAX_BINS}; "
                "leave --front-end gpu out"
            )
        self.n_samples = spec.window_length(sample_rate)
        self.item_type = item_type
        hop = self.n_fft // 2
        n_frames = (self.n_samples - self.n_fft) // hop + 1
        edges = frame_edges(spec.n_steps, spec.step_length(sample_rate), self.n_fft, n_frames)
        self.n_halves = n_frames + 1
        self.rank, self.bias = quiet_rank_and_bias(spec.n_steps, self.n_fft, sample_rate, spec)
        self.top_count = max(1, spec.n_steps * self.n_fft // 100)
        frames, weights = _averaging(edges)
        self.register_buffer("matrix", torch.from_numpy(_dft_matrix(self.n_fft, _FULL_SCALE[item_type])), False)
        self.register_buffer("frames", torch.from_numpy(frames.reshape(-1)), False)
        self.register_buffer("weights", torch.from_numpy(weights[:, None]), False)
        self.register_buffer("ranks", torch.arange(self.n_fft, dtype=torch.float32), False)

    def forward(self, iq: Tensor) -> Tensor:
        """Make pictures.

        Parameters
        ----------
        iq : (batch, n_samples, 2) float32 or (batch, n_samples) int32
            As :func:`rfvit_rt.engines.iq_model.iq_words` gives it for the item type.

        Returns
        -------
        (batch, n_steps, n_fft) float32
        """
        power = self.power(_unpacked(iq) if self.item_type == "ci16_le" else iq)
        level = _DB * torch.log(power + _TINY) - self.floor_db(power)[:, :, None]
        return level.clamp(self.spec.db_min, self.spec.db_max) / self.spec.db_scale

    def power(self, pairs: Tensor) -> Tensor:
        """Mean power, (batch, n_steps, n_fft): see :func:`rfvit_rt.spectrogram.power`."""
        halves = pairs[:, : self.n_halves * self.n_fft // 2].reshape(-1, self.n_halves, self.n_fft)
        frames = torch.cat([halves[:, :-1], halves[:, 1:]], dim=2)  # (batch, frame, 2 n_fft), half-overlapping
        spectra = frames @ self.matrix  # real parts of all bins, then imaginary ones
        squares = spectra * spectra
        power = squares[:, :, : self.n_fft] + squares[:, :, self.n_fft :]
        gathered = power.index_select(1, self.frames)
        by_step = gathered.reshape(-1, self.spec.n_steps, self.weights.shape[2], self.n_fft)
        return (self.weights @ by_step).squeeze(2)

    def floor_db(self, power: Tensor) -> Tensor:
        """Noise floor in dB, (batch, 1): see :func:`rfvit_rt.spectrogram.noise_floor`."""
        spec = self.spec
        quiet = power.topk(self.rank + 1, dim=1, largest=False).values[:, self.rank] / self.bias
        levels = _decibels(quiet).topk(self.n_fft, dim=1, largest=False).values  # (batch, n_fft), ascending
        count = max(2, int(self.n_fft * spec.floor_share))
        lower = levels[:, : self.n_fft - count + 1]
        spreads = levels[:, count - 1 :] - lower
        # The lowest level that enough bins share; where there is none, the limit is the densest stretch's own spread.
        limit = spreads.amin(dim=1, keepdim=True).clamp(min=spec.floor_spread)
        lowest = torch.where(spreads <= limit, lower, _ABOVE_ALL_LEVELS).amin(dim=1, keepdim=True)
        below = (levels < lowest).float().sum(dim=1, keepdim=True)
        size = (levels <= lowest + 2.5 * spec.floor_spread).float().sum(dim=1, keepdim=True) - below
        middle = self._at(levels, below + ((size - 1) / 2).floor()) + self._at(levels, below + (size / 2).floor())
        top = power.flatten(1).topk(self.top_count, dim=1).values  # (batch, top_count), descending
        strongest = torch.where(
            top[:, self.top_count - 1 :] > 0, top[:, self.top_count - 1 :], top[:, :1]
        )  # (batch, 1)
        floor = torch.maximum(middle / 2, _decibels(strongest) - spec.dynamic_range)
        return torch.where(strongest > 0, floor, _DB * math.log(_TINY))

    def _at(self, levels: Tensor, rank: Tensor) -> Tensor:
        """One level of each row, (batch, 1): the one at its (batch, 1) rank."""
        return torch.where(self.ranks == rank, levels, 0.0).sum(dim=1, keepdim=True)


class IQGraph(nn.Module):
    """Samples of full windows to labels, probabilities and pictures.

    Parameters
    ----------
    network : nn.Module
        :class:`rfvit_rt.vit.Probabilities`, or anything that takes and gives what it does.
    spec : SpectrogramSpec
    sample_rate : float
        In Hz.
    item_type : str
        One of `ITEM_TYPES`.

    Raises
    ------
    SpecMismatch
        As :class:`FrontEnd`.
    """

    bin_width: Tensor
    fades: Tensor

    def __init__(self, network: nn.Module, spec: SpectrogramSpec, sample_rate: float, item_type: str) -> None:
        super().__init__()
        # The name is known to rfvit_rt.engines.precision: below it, all stays in float32.
        self.front_end = FrontEnd(spec, sample_rate, item_type)
        self.network = network
        self.starts = spec.tile_starts(self.front_end.n_fft)
        self.spec = spec
        self.register_buffer("bin_width", torch.tensor([bin_width_feature(sample_rate, spec)]), False)
        self.register_buffer("fades", torch.from_numpy(_fades(self.front_end.n_fft, spec)), False)

    def forward(self, iq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label.

        Parameters
        ----------
        iq : (batch, n_samples, 2) float32 or (batch, n_samples) int32
            As :func:`rfvit_rt.engines.iq_model.iq_words` gives it for the item type.

        Returns
        -------
        masks : (batch, n_steps, n_fft) uint8
            Most probable class.
        probabilities : (batch, n_steps, n_fft, class) float32
        pictures : (batch, n_steps, n_fft) float32
            What the network saw.
        """
        pictures = self.front_end(iq)
        tiles = torch.stack([pictures[:, :, start : start + self.spec.n_bins] for start in self.starts], dim=1)
        tiles = tiles.reshape(-1, self.spec.n_steps, self.spec.n_bins)
        probabilities = self._joined(self.network(tiles, self.bin_width.expand(tiles.shape[0])).float())
        # By way of float32, the one type that TensorRT makes uint8 of.
        masks = probabilities.argmax(dim=3).to(torch.float32).to(torch.uint8)
        return masks, probabilities, pictures

    def _joined(self, outputs: Tensor) -> Tensor:
        """Cross-fade the tiles' probabilities, as :func:`rfvit_rt.spectrogram.join_tiles` does."""
        if len(self.starts) == 1:
            return outputs
        classes, n_fft = outputs.shape[3], self.front_end.n_fft
        faded = outputs.reshape(-1, len(self.starts), self.spec.n_steps, self.spec.n_bins, classes) * self.fades
        padded = [
            F.pad(faded[:, tile], (0, 0, start, n_fft - start - self.spec.n_bins))
            for tile, start in enumerate(self.starts)
        ]
        return torch.stack(padded).sum(dim=0)


@torch.no_grad()
def to_onnx(graph: IQGraph, metadata: Mapping[str, str]) -> bytes:
    """Export the graph with a free batch dimension, as `INPUT` and `OUTPUTS`.

    Parameters
    ----------
    graph : IQGraph
        On the processor, ready for use.
    metadata : mapping of str to str
        To write into the file.

    Returns
    -------
    bytes
        An ONNX model; it takes what :func:`rfvit_rt.engines.iq_model.iq_words` gives.

    Raises
    ------
    SpecMismatch
        If the band has more bins than TensorRT can search for the floor.
    """
    front_end = graph.front_end
    if front_end.top_count > LARGEST_TOP_K:
        raise SpecMismatch(
            f"a band of {front_end.n_fft} bins needs the largest {front_end.top_count} of its pixels, TensorRT finds "
            f"{LARGEST_TOP_K} at most; export for a lower sample rate"
        )
    words = graph.front_end.item_type == "ci16_le"
    shape = (2, front_end.n_samples) if words else (2, front_end.n_samples, 2)
    example = torch.zeros(shape, dtype=torch.int32 if words else torch.float32)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but the other one needs packages that nothing else here has a use for.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding")  # of something that the runtimes fold themselves
        torch.onnx.export(
            graph,
            (example,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _state_shapes(model, [tuple(output.shape) for output in graph(example)])
    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name = "rfvit-rt"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _state_shapes(model: onnx.ModelProto, shapes: Sequence[tuple[int, ...]]) -> None:
    """Write the outputs' sizes, which the exporter leaves open, but for the batch."""
    for output, shape in zip(model.graph.output, shapes, strict=True):
        for dimension, size in zip(output.type.tensor_type.shape.dim[1:], shape[1:], strict=True):
            dimension.dim_value = size


def _unpacked(words: Tensor) -> Tensor:
    """(batch, n) int32 words of two int16 to (batch, n, 2) float32."""
    lower = torch.remainder(words, _WORD)  # 0 to 65535
    upper = (words - lower).float() / _WORD  # exact: at most 16 of its bits are not zero
    real = lower.float()
    return torch.stack([real - torch.where(real >= _WORD / 2, float(_WORD), 0.0), upper], dim=2)


def _decibels(power: Tensor) -> Tensor:
    return _DB * torch.log(power.clamp(min=_TINY))


def _dft_matrix(n_fft: int, full_scale: float) -> NDArray[np.float32]:
    """Tapered DFT of interleaved real and imaginary parts.

    Returns
    -------
    (2 n_fft, 2 n_fft) float32
        From real and imaginary part of each sample to the real parts of all bins, then their imaginary parts. Bins
        ascend in frequency, the centre frequency is bin ``n_fft // 2``.
    """
    times, bins = np.arange(n_fft), np.arange(n_fft) - n_fft // 2
    # Angles of whole turns are taken off as integers, which is exact.
    angles = 2 * np.pi * (np.outer(times, bins) % n_fft) / n_fft
    taper = hann_taper(n_fft)[:, None].astype(np.float64) / full_scale
    cosines, sines = taper * np.cos(angles), taper * np.sin(angles)
    matrix = np.empty((n_fft, 2, 2, n_fft))  # (sample, its part, the bin's part, bin)
    matrix[:, 0, 0], matrix[:, 0, 1] = cosines, -sines
    matrix[:, 1, 0], matrix[:, 1, 1] = sines, cosines
    return matrix.reshape(2 * n_fft, 2 * n_fft).astype(np.float32)


def _averaging(edges: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frames of every step and their weights, (step, most frames); steps of fewer frames are filled with weight 0."""
    counts = np.diff(edges)
    place = np.arange(counts.max())
    frames = np.minimum(edges[:-1, None] + place, edges[1:, None] - 1)
    weights = np.where(place < counts[:, None], 1 / counts[:, None], 0)
    return frames, weights.astype(np.float32)


def _fades(n_fft: int, spec: SpectrogramSpec) -> NDArray[np.float32]:
    """Weight of every tile in every bin, (tile, 1, bin, 1); those of one bin sum to one."""
    starts = spec.tile_starts(n_fft)
    units = np.eye(len(starts), dtype=np.float32)[:, None, None, :]  # each tile a class of its own
    outputs = np.broadcast_to(units, (len(starts), 1, spec.n_bins, len(starts)))
    joined = join_tiles(outputs, n_fft, spec)[0]  # (bin of the band, tile)
    return np.stack([joined[start : start + spec.n_bins, tile] for tile, start in enumerate(starts)])[:, None, :, None]
