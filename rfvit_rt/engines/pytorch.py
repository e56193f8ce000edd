# SPDX-License-Identifier: Apache-2.0
"""The reference engine: the network in torch, as it was trained, with the weights of the ONNX file; also on CUDA."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.vit import ActivityProbabilities, Probabilities, VitConfig, network_that_ships


class PyTorchEngine(Engine):
    """The torch network, one picture at a time, always in f32.

    Parameters
    ----------
    model : ModelFile
        Its contract's provenance holds the network's geometry under ``vit``.
    precision : str, optional
        Only ``f32``: a reference has one precision.
    threads : int, optional
        Processor threads to use; torch keeps this number for the whole process.
    device : str, optional
        ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    EngineError
        If this machine lacks the device, or the precision is another one.
    ModelError
        If the file does not hold the weights of the network that its contract describes.
    """

    name = "pytorch"
    precision = "f32"
    golden_tolerance = 2e-3

    def __init__(
        self,
        model: ModelFile,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        if precision not in (None, "f32"):
            raise EngineError(f"the pytorch engine computes in f32, not in '{precision}'; leave the precision out")
        if threads is not None and threads < 1:
            raise EngineError(f"got {threads} threads, at least 1 is needed")
        self._device = _find_device(device or "cpu")
        self._network: Probabilities | ActivityProbabilities | None = _build(model).to(self._device).eval()
        if threads is not None:
            torch.set_num_threads(threads)
        self.input_shape = (model.contract.spec.n_steps, model.contract.spec.n_bins)
        self.description = f"PyTorch {torch.__version__} on {_device_name(self._device)}, f32"

    @torch.inference_mode()
    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        if self._network is None:
            raise EngineError("the pytorch engine is closed; load it again")
        # Copies, because torch takes only arrays that are contiguous and can be written.
        inputs = [torch.from_numpy(np.array(array, np.float32, order="C")) for array in (pictures, bin_widths)]
        # One by one, because the kernels, and with them the rounding, depend on the size of the batch.
        pairs = zip(inputs[0].to(self._device).split(1), inputs[1].to(self._device).split(1), strict=True)
        return torch.cat([self._network(picture, bin_width) for picture, bin_width in pairs]).cpu().numpy()

    def close(self) -> None:
        """Free the network."""
        self._network = None


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise EngineError(f"torch cannot use the device '{name}' here ({reason}); use cpu") from error
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _build(model: ModelFile) -> Probabilities | ActivityProbabilities:
    """Make the network that the contract describes, and fill it from the graph's initialisers of the same names."""
    data = read_graph(model)
    config = _config(model)
    # A contract may claim any size; a network that cannot have come from this file is not even built.
    if config.width * (config.depth * config.width + config.patch**2) > len(data):
        raise ModelError(
            f"{model.path} is too small for the network that its contract describes; export the model again"
        )
    try:
        network = network_that_ships(model.contract.task, config)
        network.load_state_dict(_weights(network.state_dict().keys(), data))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"the weights in {model.path} do not fit its network ({reason}); export it again") from error
    return network


def _config(model: ModelFile) -> VitConfig:
    """Read the network's geometry, and hold it to the contract."""
    try:
        config = VitConfig(**model.contract.provenance["vit"])
        if not all(type(size) is int for size in dataclasses.asdict(config).values()):
            raise TypeError("its sizes are not all whole numbers")
    except (KeyError, TypeError) as error:
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
