# SPDX-License-Identifier: Apache-2.0
"""The reference engine: the network in torch, as it was trained, with the weights of the ONNX file; fast on CUDA."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from rfvit_rt import iq_graph
from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.iq_model import iq_words
from rfvit_rt.engines.torch_passes import Item, Passes
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.vit import ActivityProbabilities, Probabilities, VitConfig, network_that_ships, stem_size

Network = TypeVar("Network", bound=torch.nn.Module)
_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# The golden output is stored as float16 (rounding up to 2.5e-4). f16 keeps 11 bits of every factor, bf16 keeps 8.
_GOLDEN_TOLERANCE = {"f32": 2e-3, "f16": 1e-2, "bf16": 5e-2}
# On a processor a true batch is no faster.
_SIZES = {"cpu": (1,), "cuda": (1, 8, 32)}
_WORDS = ("head", "embedding")  # of a network's geometry; the rest are sizes
_KEPT_RATES = 2  # sample rates, or item types, whose graphs are kept ready
_MOST_IQ = 1 << 28  # bytes of IQ in a batch


class PyTorchEngine(Engine):
    """The torch network: on a processor the reference, one picture at a time in f32; on CUDA as fast as torch goes.

    On CUDA every batch size is a graph of its own with static buffers, and copies overlap with computation. A size
    whose results differ in any bit from those of the middle one is not used, so that a picture's result does not
    depend on its batch.

    Parameters
    ----------
    model : ModelFile
        Its contract's provenance holds the network's geometry under ``vit``.
    precision : str, optional
        ``f32``, ``f16`` or ``bf16``; ``f32`` on a processor and ``f16`` on CUDA where not given. In the latter two
        matrix products and convolutions take half precision, sums and norms do not (torch's autocast).
    threads : int, optional
        Processor threads to use; torch keeps this number for the whole process.
    device : str, optional
        ``cpu``, ``cuda`` or ``cuda:1``; the first GPU where not given, or the processor where there is none.

    Raises
    ------
    EngineError
        If this machine lacks the device, or there is no such precision.
    ModelError
        If the file does not hold the weights of the network that its contract describes.
    """

    name = "pytorch"

    def __init__(
        self,
        model: ModelFile,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise EngineError(f"got {threads} threads, at least 1 is needed")
        self._device = _find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.on_gpu = self._device.type == "cuda"
        self.precision = _check_precision(precision, self._device)
        self.golden_tolerance = _GOLDEN_TOLERANCE[self.precision]
        self._spec = model.contract.spec
        self.takes_iq = isinstance(self._spec, SpectrogramSpec)
        self.input_shape = (self._spec.n_steps, self._spec.n_bins)
        network = build_network(model)
        if threads is not None:
            torch.set_num_threads(threads)
        self._network: InPrecision | None = _moved(InPrecision(network, _DTYPES[self.precision]), self._device).eval()
        self._iq_passes: OrderedDict[tuple[float, str], Passes] = OrderedDict()
        items = [Item(self.input_shape), Item(())]
        self._passes = Passes(self._label, items, _SIZES[self._device.type], self._device)
        self._passes.keep_equal_sizes(*model.contract.golden.inputs(self._spec))
        self.description = f"PyTorch {torch.__version__} on {_device_name(self._device)}, {self.precision}"
        if self.on_gpu:
            self.description += f", CUDA graphs for batches of {', '.join(map(str, self._passes.sizes))}"

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        self._check_open()
        (probabilities,) = self._passes.run(pictures, bin_widths)
        return probabilities

    def infer_iq(self, iq: NDArray[Any], sample_rate: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Label full windows of IQ; see :meth:`rfvit_rt.engines.Engine.infer_iq`."""
        pictures, probabilities = self._run_iq(iq, sample_rate, ("pictures", "probabilities"))
        return pictures, probabilities

    def mask_iq(self, iq: NDArray[Any], sample_rate: float) -> NDArray[np.uint8]:
        """Most probable classes in full windows of IQ; see :meth:`rfvit_rt.engines.Engine.mask_iq`."""
        (masks,) = self._run_iq(iq, sample_rate, ("masks",))
        return masks

    def close(self) -> None:
        """Free the network and its buffers."""
        if self._network is not None:
            self._network = None
            self._iq_passes.clear()
            del self._passes

    def _check_open(self) -> InPrecision:
        if self._network is None:
            raise EngineError("the pytorch engine is closed; load it again")
        return self._network

    def _label(self, pictures: torch.Tensor, bin_widths: torch.Tensor) -> tuple[torch.Tensor]:
        assert self._network is not None
        return (self._network(pictures, bin_widths),)

    def _run_iq(self, iq: NDArray[Any], sample_rate: float, outputs: Sequence[str]) -> list[NDArray[Any]]:
        network = self._check_open()
        if not isinstance(self._spec, SpectrogramSpec):
            raise EngineError("a model of activities takes pictures of CSI, not IQ; leave --front-end gpu out")
        expected = self._spec.window_length(sample_rate)
        if iq.shape[1] != expected:
            raise ValueError(f"a window at {sample_rate:g} Hz has {expected} samples, not {iq.shape[1]}")
        values = iq_words(iq)
        item_type = "ci16_le" if values.dtype == np.int32 else "cf32_le"
        key = (sample_rate, item_type)
        if key not in self._iq_passes:
            while len(self._iq_passes) >= _KEPT_RATES:
                self._iq_passes.popitem(last=False)
            graph = _moved(iq_graph.IQGraph(network, self._spec, sample_rate, item_type), self._device).eval()
            item = Item(values.shape[1:], torch.from_numpy(values[:0]).dtype)
            sizes = [size for size in _SIZES[self._device.type] if size * values[0].nbytes <= _MOST_IQ] or [1]
            passes = Passes(graph, [item], sizes, self._device)
            passes.keep_equal_sizes(values[:1], outputs=len(iq_graph.OUTPUTS))
            self._iq_passes[key] = passes
        self._iq_passes.move_to_end(key)
        return self._iq_passes[key].run(values, take=[iq_graph.OUTPUTS.index(name) for name in outputs])


class InPrecision(torch.nn.Module):
    """A network whose products and convolutions take a number format, and the rest float32; gives float32.

    Parameters
    ----------
    network : Probabilities or ActivityProbabilities
        Its weights are converted.
    dtype : torch.dtype
    """

    def __init__(self, network: Probabilities | ActivityProbabilities, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        for part in network.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
                part.to(dtype)  # once, where autocast would do it in every run

    def forward(self, pictures: torch.Tensor, bin_widths: torch.Tensor) -> torch.Tensor:
        """As the network's."""
        halved = self.dtype != torch.float32
        with torch.autocast(pictures.device.type, self.dtype if halved else None, enabled=halved, cache_enabled=False):
            probabilities: torch.Tensor = self.network(pictures, bin_widths)
        return probabilities.float()


def _check_precision(precision: str | None, device: torch.device) -> str:
    if precision is None:
        return "f16" if device.type == "cuda" else "f32"
    name = precision.lower().replace("fp", "f")
    if name not in _DTYPES:
        raise EngineError(
            f"the pytorch engine cannot compute in '{precision}'; leave the precision out, or use {', '.join(_DTYPES)}"
        )
    return name


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise EngineError(f"torch cannot use the device '{name}' here ({reason}); use cpu") from error
    if device.type not in _SIZES:
        raise EngineError(
            f"torch cannot use the device '{name}' here (only {' and '.join(_SIZES)} are supported); use cpu"
        )
    return device


def _moved(module: Network, device: torch.device) -> Network:
    try:
        return module.to(device)
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{device} has too little memory free for the network; end what else uses it") from error


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def build_network(model: ModelFile) -> Probabilities | ActivityProbabilities:
    """Make the network that the contract describes, and fill it from the graph's initialisers of the same names."""
    data = read_graph(model)
    config = _config(model)
    # A contract may claim any size; a network that cannot have come from this file is not even built.
    first = stem_size(config) if config.embedding == "convolutions" else config.width * config.patch**2
    if config.depth * config.width**2 + first > len(data):
        raise ModelError(
            f"{model.path} is too small for the network that its contract describes; export the model again"
        )
    try:
        network = network_that_ships(model.contract.task, config)
        network.load_state_dict(_weights(network.state_dict().keys(), data))
    except (RuntimeError, TypeError, ValueError, KeyError) as error:  # the last of an unknown number format
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"the weights in {model.path} do not fit its network ({reason}); export it again") from error
    return network


def _config(model: ModelFile) -> VitConfig:
    """Read the network's geometry, and hold it to the contract."""
    try:
        config = VitConfig(**model.contract.provenance["vit"])
        if not all(type(size) is int for name, size in dataclasses.asdict(config).items() if name not in _WORDS):
            raise TypeError("its sizes are not all whole numbers")
    except (KeyError, TypeError, ModelError) as error:
        raise ModelError(
            f"the contract of {model.path} does not describe its network ({error}); "
            "export the model again, or use another engine"
        ) from error
    spec = model.contract.spec
    promised = (spec.n_steps, spec.n_bins, len(model.contract.labels))
    described = (config.n_steps, config.n_bins, config.n_classes)
    if described != promised:
        raise ModelError(
            f"{model.path} describes a network of {described} steps, bins and classes, its contract says {promised}; "
            "export the model again"
        )
    return config


def _weights(names: Iterable[str], data: bytes) -> dict[str, torch.Tensor]:
    graph = onnx.load_model_from_string(data).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # in the order of computation
        # Weights are stored as float16 and cast; those that are equal, as untrained biases are, are stored once.
        if node.op_type in ("Cast", "Identity") and len(node.input) == 1 and node.input[0] in stored:
            stored.update(dict.fromkeys(node.output, stored[node.input[0]]))
    if missing := sorted(set(names) - stored.keys()):
        raise ValueError(f"it lacks {len(missing)}, {missing[0]} among them")
    return {name: torch.tensor(onnx.numpy_helper.to_array(stored[name]), dtype=torch.float32) for name in names}
