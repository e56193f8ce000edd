# SPDX-License-Identifier: Apache-2.0
"""The default engine: OpenVINO, on any processor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.errors import EngineError, ModelError


@contextmanager
def telemetry_hidden() -> Iterator[None]:
    """Hide the package that reports every import of OpenVINO to its maker, unasked; OpenVINO then uses its own stub."""
    name = "openvino_telemetry"
    if name in sys.modules:  # someone else has imported it: theirs to decide
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what must not be imported
    try:
        yield
    finally:
        del sys.modules[name]


with telemetry_hidden():
    import openvino as openvino  # for who must import it the same way

# The golden output is stored as float16 (rounding up to 2.5e-4) and f32 itself errs by some 1e-5;
# bf16 keeps 8 bits of every factor.
_GOLDEN_TOLERANCE = {"f32": 2e-3, "bf16": 5e-2}


class OpenVINOEngine(Engine):
    """A model compiled by OpenVINO.

    Every picture of a batch is a request of its own, spread over one stream a core. A true batch is no faster on a
    processor, and its results could depend on what else is in the batch.

    Parameters
    ----------
    model : ModelFile
    precision : str, optional
        ``f32``, or ``bf16`` where the device computes in it; then it is the default.
    threads : int, optional
        Processor threads to use; all cores where not given.
    device : str, optional
        An OpenVINO device, for example ``GPU``; ``CPU`` where not given.

    Raises
    ------
    EngineError
        If this machine lacks the device or the precision.
    ModelError
        If OpenVINO cannot run the model, or it is not of the shape that its contract says.
    """

    name = "openvino"

    def __init__(
        self,
        model: ModelFile,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        core = openvino.Core()
        device = _check_device(core, device)
        self.precision = _check_precision(core, device, precision)
        self.golden_tolerance = _GOLDEN_TOLERANCE[self.precision]
        spec = model.contract.spec
        self.input_shape = (spec.n_steps, spec.n_bins)
        self._output_shape = model.contract.output_shape
        # Pictures of CSI come one by one, seconds apart: all cores work on one. Those of spectra come by the dozen.
        hint = "LATENCY" if model.contract.task == "activity" else "THROUGHPUT"
        options = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self.precision}
        if device == "CPU":
            # GNU Radio, or a second rfvit, runs beside: threads tied to cores would wait for theirs while others idle.
            options["ENABLE_CPU_PINNING"] = "NO"
            if self.precision == "f32":
                # Attention fused by its code generator: with few patches 2026.4.1 gives other results from call to call
                # (8 patches, an AMD EPYC with AVX2, where spectrum-small takes as long without).
                options["SNIPPETS_MODE"] = "DISABLE"
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(_check_threads(threads))
        compiled = _compile(core, model, device, options)
        self._queue: Any = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(_collect)
        self.description = (
            f"OpenVINO {openvino.__version__.split('-')[0]} on {device} "
            f"({core.get_property(device, 'FULL_DEVICE_NAME').strip()}), {self.precision}, "
            f"{compiled.get_property('NUM_STREAMS')} streams"
        )

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        if self._queue is None:
            raise EngineError("the openvino engine is closed; load it again")
        result = np.empty((len(pictures), *self._output_shape), np.float32)
        for place, picture, bin_width in zip(result, pictures, bin_widths, strict=True):
            self._queue.start_async({0: picture[None], 1: bin_width[None]}, place)
        self._queue.wait_all()
        return result

    def close(self) -> None:
        """Free the compiled model."""
        self._queue = None


def _collect(request: Any, place: NDArray[np.float32]) -> None:
    place[...] = request.get_output_tensor(0).data[0]


def _check_device(core: Any, device: str | None) -> str:
    chosen = (device or "CPU").upper()
    if chosen not in core.available_devices:
        raise EngineError(
            f"OpenVINO finds no device '{device}' here, only {', '.join(core.available_devices)}; choose one of these"
        )
    return chosen


def _check_precision(core: Any, device: str, precision: str | None) -> str:
    usable = ["f32"]
    if "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        usable.insert(0, "bf16")
    if precision is not None and precision not in usable:
        raise EngineError(
            f"OpenVINO cannot compute in '{precision}' on this {device}; leave the precision out, or use "
            f"{' or '.join(usable)}"
        )
    return precision or usable[0]


def _check_threads(threads: int) -> int:
    if threads < 1:
        raise EngineError(f"got {threads} threads, at least 1 is needed")
    return threads


def _compile(core: Any, model: ModelFile, device: str, options: dict[str, str]) -> Any:
    """Compile for one picture at a time, and hold the graph to its contract's shapes."""
    spec, output_shape = model.contract.spec, model.contract.output_shape
    content = read_graph(model)
    try:
        graph = core.read_model(content)
        graph.reshape({0: [1, spec.n_steps, spec.n_bins], 1: [1]})
        compiled = core.compile_model(graph, device, options)
    except Exception as error:  # OpenVINO's errors are RuntimeError and others, over many lines
        reason = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(f"OpenVINO cannot run {model.path} ({reason[-1].strip()}); export the model again") from error
    shapes = [tuple(output.shape) for output in compiled.outputs]
    if shapes != [(1, *output_shape)]:
        raise ModelError(
            f"{model.path} gives outputs of {shapes}, its contract says {(1, *output_shape)}; export the model again"
        )
    return compiled
