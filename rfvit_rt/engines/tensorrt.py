# SPDX-License-Identifier: Apache-2.0
"""TensorRT on NVIDIA GPUs: builds plans and runs them. The only file that knows TensorRT and PyCUDA.

One way serves TensorRT 10 (from 10.12 on) and 11: strongly typed networks, tensors by name, ``execute_async_v3``.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine
from rfvit_rt.engines.cuda_graph import CudaGraph, CudaGraphError
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.iq_model import IQModel, iq_words
from rfvit_rt.engines.plans import BuildProgress, PlanKey, plan_folder, plan_path, read_plan
from rfvit_rt.engines.precision import PRECISIONS, in_precision, precision_name
from rfvit_rt.engines.scheduling import overlapped, portions
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.spectrogram import SpectrogramSpec

if find_spec("tensorrt") is None and find_spec("tensorrt_lean") is not None:
    import tensorrt_lean as trt  # runs version-compatible plans, and builds none
else:
    import tensorrt as trt

Thing = TypeVar("Thing")

DEFAULT_BATCHES = (1, 8, 32)
# The golden output is stored as float16 (rounding up to 2.5e-4). f16 keeps 11 bits of every factor, bf16 keeps 8.
_GOLDEN_TOLERANCE = {"f32": 2e-3, "f16": 1e-2, "bf16": 5e-2}
_SLOTS = 2  # one computes while the other's copies are under way
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the stream that torch uses by default and ours do not wait for each other
_LEAN = not hasattr(trt, "Builder")
_MAX_MESSAGES = 20


@dataclass(frozen=True)
class Built:
    """A plan, and the timings that TensorRT measured for it."""

    plan: bytes
    timings: bytes


class TensorRTEngine(Engine):
    """A plan that 'rfvit build' made here, run by TensorRT.

    Copies to the GPU, computation and copies back have a stream each, and two sets of buffers alternate. Every batch
    size of the plan is a CUDA graph of its own. A size whose results differ in any bit from those of the middle one is
    not used, so that a picture's result does not depend on its batch.

    Parameters
    ----------
    model : ModelFile
    precision : str, optional
        ``f16``, ``bf16`` or ``f32``; the first of these that a plan is there for, where not given.
    threads : int, optional
        Refused: the processor does not compute here.
    device : str, optional
        ``cuda``, ``cuda:1`` or ``1``; the first GPU where not given.

    Raises
    ------
    EngineError
        If there is no such GPU, or no plan for this model, GPU and release of TensorRT.
    ModelError
        If the plan does not do what the model's contract says.
    """

    name = "tensorrt"
    on_gpu = True

    def __init__(
        self,
        model: ModelFile,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        if threads is not None:
            raise EngineError("the tensorrt engine uses no processor threads; leave --threads out")
        self._runner: PlanRunner | None = None
        self._iq_runners: dict[tuple[float, str], PlanRunner] = {}
        self._model, self._gpu = model, gpu_number(device)
        key, plan = find_plan(model, precision, self._gpu)
        spec = model.contract.spec
        self.takes_iq = isinstance(spec, SpectrogramSpec)
        self.precision = key.precision
        self.golden_tolerance = _GOLDEN_TOLERANCE[key.precision]
        self.input_shape = (spec.n_steps, spec.n_bins)
        self._runner = PlanRunner(plan, key, self._gpu)
        try:
            self._runner.check([self.input_shape, ()], [model.contract.output_shape], str(model.path))
            self._runner.keep_equal_sizes(model.contract.golden.inputs(spec))
        except BaseException:
            self.close()
            raise
        self.description = f"TensorRT {trt.__version__} on {key.gpu}, {key.precision}, {self._runner.description}"

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        if self._runner is None:
            raise EngineError("the tensorrt engine is closed; load it again")
        (probabilities,) = self._runner.run(pictures, bin_widths)
        return probabilities.astype(np.float32, copy=False)

    def infer_iq(self, iq: NDArray[np.generic], sample_rate: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Label full windows of IQ; see :meth:`rfvit_rt.engines.Engine.infer_iq`. The plan of the rate must be there.

        Raises
        ------
        EngineError
            If no plan was built for the rate and the type of the samples.
        """
        results = self._run_iq(iq, sample_rate)
        return results["pictures"].astype(np.float32, copy=False), results["probabilities"].astype(
            np.float32, copy=False
        )

    def mask_iq(self, iq: NDArray[np.generic], sample_rate: float) -> NDArray[np.uint8]:
        """Most probable classes in full windows of IQ; see :meth:`rfvit_rt.engines.Engine.mask_iq`."""
        return self._run_iq(iq, sample_rate)["masks"].astype(np.uint8, copy=False)

    def close(self) -> None:
        """Free the plans and their memory on the GPU."""
        if self._runner is not None:
            for runner in (self._runner, *self._iq_runners.values()):
                runner.close()
            self._runner = None
            self._iq_runners.clear()

    def _run_iq(self, iq: NDArray[np.generic], sample_rate: float) -> dict[str, NDArray[np.generic]]:
        if self._runner is None:
            raise EngineError("the tensorrt engine is closed; load it again")
        values = iq_words(iq)
        item_type = "ci16_le" if values.dtype == np.int32 else "cf32_le"
        if (sample_rate, item_type) not in self._iq_runners:
            self._iq_runners[sample_rate, item_type] = self._load_iq(values, sample_rate, item_type)
        runner = self._iq_runners[sample_rate, item_type]
        return dict(zip(runner.output_names, runner.run(values), strict=True))

    def _load_iq(self, values: NDArray[np.generic], sample_rate: float, item_type: str) -> PlanRunner:
        source = IQModel.of(self._model, sample_rate, item_type)
        key, plan = find_plan(source, self.precision, self._gpu)
        n_steps, classes = self.input_shape[0], len(self._model.contract.labels)
        picture = (n_steps, self._model.contract.spectrogram.n_fft(sample_rate))
        runner = PlanRunner(plan, key, self._gpu)
        try:
            runner.check([values.shape[1:]], [picture, (*picture, classes), picture], source.contract.name)
            runner.keep_equal_sizes((values[:1],))
        except BaseException:
            runner.close()
            raise
        return runner


def find_plan(model: ModelFile, precision: str | None, gpu: int) -> tuple[PlanKey, bytes]:
    """Read the plan of a model for a GPU, in a precision or the fastest that there is one for.

    Raises
    ------
    EngineError
        If there is none that may be run here; the message says why, and how to build one.
    """
    wanted = [precision_name(precision)] if precision else list(PRECISIONS)
    for name in wanted:
        here = plan_key(model, name, DEFAULT_BATCHES, gpu=gpu, portable=_LEAN)
        path = plan_path(plan_folder(), model.contract.name, name, here.gpu)
        if not path.exists():
            continue
        try:
            stored = read_plan(path)
        except EngineError as error:
            raise EngineError(f"{error}; {_command(model, name)}") from error
        asked = replace(here, batches=stored.key.batches)  # whichever it was built for
        if reason := stored.key.obstacle(asked):
            raise EngineError(f"the plan {path} cannot be run here: {reason}; {_command(model, name)}")
        return stored.key, stored.plan
    raise EngineError(
        f"there is no TensorRT plan of {model.contract.name} for this GPU in {plan_folder()}; "
        f"{_command(model, wanted[0])}"
    )


def _command(model: ModelFile, precision: str) -> str:
    """What to do where a plan is missing or stale."""
    iq = f" --iq-in {model.sample_rate!r} --item-type {model.item_type}" if isinstance(model, IQModel) else ""
    command = f"rfvit build {model.path} --precision {precision}{iq}"
    if _LEAN:
        return f"build it with '{command} --version-compatible' where all of TensorRT is, on a GPU of the same kind"
    return f"build it here with '{command}'"


def plan_key(
    model: ModelFile, precision: str, batches: tuple[int, ...], *, gpu: int = 0, portable: bool = False
) -> PlanKey:
    """What a plan that is built here and now depends on."""
    device = _device(gpu)
    capability = ".".join(map(str, device.compute_capability()))
    return PlanKey(model.sha256, trt.__version__, device.name(), capability, precision, batches, portable)


def build_plan(
    model: ModelFile, key: PlanKey, timings: bytes, progress: BuildProgress, *, device: str | None = None
) -> Built | None:
    """Build a plan on this machine's GPU; that takes minutes.

    Parameters
    ----------
    model : ModelFile
    key : PlanKey
        Of this machine, from :func:`plan_key`.
    timings : bytes
        Of an earlier build; empty where there was none. Those of another GPU or release are not used.
    progress : BuildProgress
        Is told how far the build is, from TensorRT's threads.
    device : str, optional
        As :class:`TensorRTEngine` takes it.

    Returns
    -------
    Built or None
        None where `progress` ended the build.

    Raises
    ------
    EngineError
        If TensorRT cannot build here.
    ModelError
        If TensorRT cannot make a network of the model.
    """
    check_builder(portable=False)
    data = model.to_onnx() if isinstance(model, IQModel) else read_graph(model)
    graph = in_precision(data, key.precision)
    messages = _Messages()
    monitor = _Monitor(progress)
    with _current(_primary_context(gpu_number(device))):
        builder = _started(trt.Builder, "start its builder", messages)
        network = builder.create_network(_network_flags())
        _parse(graph, network, messages, model.path)
        config = builder.create_builder_config()
        config.progress_monitor = monitor
        for flag in _builder_flags(key.portable):
            config.set_flag(flag)
        config.clear_flag(trt.BuilderFlag.TF32)  # f32 means f32
        config.add_optimization_profile(_profile(builder, network, key.batches))
        cache = _timing_cache(config, timings)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            if monitor.stopped:
                return None
            raise ModelError(f"TensorRT cannot build a plan of {model.path} ({messages.last}); try another --precision")
        return Built(bytes(plan), bytes(cache.serialize()))


def check_builder(*, portable: bool) -> None:
    """Find out whether plans can be built, and proved, before there are minutes of work in them.

    Raises
    ------
    EngineError
        If only the lean runtime is installed, which builds none; or if that is missing for a version-compatible plan.
    """
    if _LEAN:
        raise EngineError(
            "the lean runtime of TensorRT builds no plans; pip install -e '.[tensorrt]' in the repository, or build "
            "with --version-compatible elsewhere and point RFVIT_PLANS at the folder"
        )
    if portable and _lean_release() != trt.__version__:
        raise EngineError(
            f"a version-compatible plan has to prove itself in the lean runtime of TensorRT {trt.__version__}, here is "
            f"{_lean_release() or 'none'}; pip install tensorrt-lean=={trt.__version__}"
        )


def _network_flags() -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # TensorRT 11 knows no other, 10 has to be told


def _builder_flags(portable: bool) -> list[trt.BuilderFlag]:
    # A layer then treats every picture of a batch with the same operations.
    flags = [trt.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE]
    if portable:
        # A plan that carried its runtime could only be loaded by letting it bring code for the processor.
        flags += [trt.BuilderFlag.VERSION_COMPATIBLE, trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME]
    return flags


def _parse(graph: bytes, network: trt.INetworkDefinition, messages: _Messages, path: Path) -> None:
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(graph):
        errors: list[trt.ParserError] = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [f"{error.desc()}, at {error.node_name() or error.node_operator()}" for error in errors]
        raise ModelError(f"TensorRT cannot read {path} ({' '.join((reasons or [messages.last])[0].split())[:300]})")


def _profile(builder: trt.Builder, network: trt.INetworkDefinition, batches: Sequence[int]) -> trt.IOptimizationProfile:
    """Batches from the smallest to the largest, fastest at the middle one."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        picture = tuple(tensor.shape[axis] for axis in range(1, len(tensor.shape)))
        smallest, best, largest = batches[0], batches[len(batches) // 2], batches[-1]
        profile.set_shape(
            tensor.name,
            min=trt.Dims([smallest, *picture]),
            opt=trt.Dims([best, *picture]),
            max=trt.Dims([largest, *picture]),
        )
    return profile


def _timing_cache(config: trt.IBuilderConfig, timings: bytes) -> trt.ITimingCache:
    cache: trt.ITimingCache = config.create_timing_cache(timings)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    empty: trt.ITimingCache = config.create_timing_cache(b"")
    config.set_timing_cache(empty, ignore_mismatch=False)
    return empty


class _Monitor(trt.IProgressMonitor):
    """Passes on what TensorRT tells of a build."""

    def __init__(self, progress: BuildProgress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._progress = progress
        self.stopped = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._progress.start(phase_name, parent_phase, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        if not self._progress.step(phase_name, step):
            self.stopped = True
        return not self.stopped

    def phase_finish(self, phase_name: str) -> None:
        self._progress.finish(phase_name)


class _Messages(trt.ILogger):
    """Keeps the last errors that TensorRT logs; its calls say only that something failed."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: deque[str] = deque(maxlen=_MAX_MESSAGES)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self._errors.append(" ".join(msg.split())[:300])

    @property
    def any(self) -> bool:
        """Whether there was an error."""
        return bool(self._errors)

    @property
    def last(self) -> str:
        """The newest error."""
        return self._errors[-1] if self._errors else "no reason given"


class PlanRunner:
    """A plan on a GPU with its buffers: arrays in, arrays out, any number of items at a time.

    Parameters
    ----------
    plan : bytes
        What TensorRT serialised.
    key : PlanKey
        Its record.
    gpu : int
        Its number.

    Raises
    ------
    EngineError
        If TensorRT or the GPU refuses.
    """

    def __init__(self, plan: bytes, key: PlanKey, gpu: int) -> None:
        self._context = _primary_context(gpu)
        self._messages = _Messages()
        self._held = ExitStack()  # what is on the GPU, freed in the opposite order
        self.sizes = key.batches
        try:
            with self._working():
                self._load(plan, key)
        except BaseException:
            with suppress(EngineError):  # the first error says more
                self.close()
            raise

    def _load(self, plan: bytes, key: PlanKey) -> None:
        self._runtimes = _runtimes(key, self._messages)
        self._held.callback(self._forget, "_runtimes")
        loaded = self._runtimes[-1].deserialize_cuda_engine(plan)
        self._engine: trt.ICudaEngine = _made(loaded, "load the plan", self._messages)
        self._held.callback(self._forget, "_engine")
        del loaded
        self._tensors = _tensors(self._engine)
        self._streams = _Streams(*(cuda.Stream(_NON_BLOCKING) for _ in range(3)))
        self._held.callback(self._forget, "_streams")
        # All passes compute on one stream, one after the other, so they can share what they scribble on.
        self._scratch_size = max(1, self._engine.device_memory_size_v2)
        self._scratch = cuda.mem_alloc(self._scratch_size)
        self._held.callback(self._scratch.free)
        self._slots: list[_Slot] = []
        for _ in range(_SLOTS):
            self._slots.append(_Slot(self._tensors, key.batches[-1], self._held))
            for size in key.batches:
                self._slots[-1].passes[size] = self._prepare(self._slots[-1], size)
        self._held.callback(self._streams.synchronize)

    def _forget(self, name: str) -> None:
        """PyCUDA and TensorRT free what nothing refers to any more; that has to be while the context is current."""
        delattr(self, name)

    @property
    def description(self) -> str:
        """Batch sizes, and whether CUDA graphs run them."""
        passes = [prepared for slot in self._slots for prepared in slot.passes.values()]
        graphs = "CUDA graphs" if all(prepared.graph for prepared in passes) else "no CUDA graphs"
        return f"batches of {', '.join(map(str, self.sizes))}, {graphs}"

    @property
    def output_names(self) -> list[str]:
        """Names of what :meth:`run` gives, in its order."""
        return [tensor.name for tensor in self._tensors if not tensor.is_input]

    def check(self, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]], name: str) -> None:
        """Hold the plan to the shapes, without the batch, that a contract says; raises :class:`ModelError`."""
        found = [[t.shape for t in self._tensors if t.is_input], [t.shape for t in self._tensors if not t.is_input]]
        if found != [list(inputs), list(outputs)]:
            raise ModelError(
                f"the plan of {name} takes and gives {found}, the contract says {[list(inputs), list(outputs)]}; "
                "build it again with 'rfvit build'"
            )

    def keep_equal_sizes(self, item: Sequence[NDArray[np.generic]]) -> None:
        """Leave out batch sizes in which an item comes out different, in any bit, from the middle size's result.

        Parameters
        ----------
        item : sequence of ndarray
            The inputs for a batch of one.
        """
        prepared, results = self.sizes, {}
        for size in prepared:
            self.sizes = (size,)
            results[size] = self.run(*(np.repeat(part, size, axis=0) for part in item))
        expected = [part[0] for part in results[prepared[len(prepared) // 2]]]
        # Results that are no numbers are equal too: whoever proves the engine says what is wrong with them.
        self.sizes = tuple(
            size
            for size in prepared
            if all(
                np.array_equal(found, np.broadcast_to(wanted, found.shape), equal_nan=True)
                for found, wanted in zip(results[size], expected, strict=True)
            )
        )
        if not self.sizes:
            raise ModelError("the plan gives one picture different results within a batch; build it again")

    def run(self, *inputs: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run items through the plan.

        Parameters
        ----------
        *inputs : (item, ...) ndarray
            One for each input of the plan, in its order.

        Returns
        -------
        list of (item, ...) ndarray
            One for each output of the plan, in its type.
        """
        count = len(inputs[0])
        shapes = [((count, *tensor.shape), tensor.dtype) for tensor in self._tensors if not tensor.is_input]
        results = [np.empty(shape, dtype) for shape, dtype in shapes]
        with self._working():
            try:
                for step in overlapped(portions(count, self.sizes), _SLOTS):
                    slot = self._slots[step.slot]
                    part = slice(step.portion.start, step.portion.start + step.portion.count)
                    if step.action == "submit":
                        slot.submit([values[part] for values in inputs], step.portion.size, self._streams)
                    else:
                        slot.collect([values[part] for values in results])
            except BaseException:
                with suppress(cuda.Error):  # the first error says more
                    self._streams.synchronize()  # or the next run would write over what is under way
                raise
        return results

    def close(self) -> None:
        """Free everything on the GPU. A second call does nothing."""
        with self._working():
            self._held.close()

    def _prepare(self, slot: _Slot, size: int) -> _Pass:
        context: trt.IExecutionContext = _made(
            self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED),
            "make an execution context",
            self._messages,
        )
        context.set_device_memory(int(self._scratch), self._scratch_size)
        stream = self._streams.compute
        accepted = [context.set_optimization_profile_async(0, stream.handle)]
        for tensor in self._tensors:
            if tensor.is_input:
                accepted.append(context.set_input_shape(tensor.name, (size, *tensor.shape)))
            accepted.append(context.set_tensor_address(tensor.name, int(slot.device[tensor.name])))
        if not all(accepted) or context.infer_shapes():
            raise EngineError(f"TensorRT refuses a batch of {size} ({self._messages.last}); build the plan again")
        prepared = _Pass(context, stream, self._messages)
        self._held.callback(prepared.close)
        prepared.capture()
        return prepared

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Make the context current in this thread, and turn what fails there into errors of ours."""
        try:
            with _current(self._context):
                yield
        except cuda.Error as error:
            raise EngineError(f"the GPU failed ({error}); 'rfvit doctor' tells its state") from error
        except CudaGraphError as error:
            raise EngineError(f"the GPU failed ({error}); 'rfvit doctor' tells its state") from error


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a plan; its shape leaves out the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_input: bool


@dataclass(frozen=True)
class _Streams:
    """Copies in, computation, copies out: each waits for the one before by events, otherwise they run side by side."""

    copy_in: cuda.Stream
    compute: cuda.Stream
    copy_out: cuda.Stream

    def synchronize(self) -> None:
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.synchronize()


class _Pass:
    """A batch size on a slot's buffers, ready to run."""

    def __init__(self, context: trt.IExecutionContext, stream: cuda.Stream, messages: _Messages) -> None:
        self._context = context
        self._stream = stream
        self._messages = messages
        self.graph: CudaGraph | None = None

    def capture(self) -> None:
        """Make a CUDA graph of it; some plans do not allow that and are enqueued layer by layer."""
        self._enqueue()  # TensorRT allocates on the first run, which cannot be captured
        self._stream.synchronize()
        with suppress(CudaGraphError, EngineError):
            self.graph = CudaGraph(self._stream.handle, self._enqueue)

    def launch(self) -> None:
        if self.graph is not None:
            self.graph.launch(self._stream.handle)
        else:
            self._enqueue()

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()
        del self._context

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT cannot run the plan ({self._messages.last}); build it again")


class _Slot:
    """A set of buffers, page-locked ones here and their mirrors on the GPU, and what runs on them."""

    def __init__(self, tensors: Sequence[_Tensor], most: int, held: ExitStack) -> None:
        self._inputs = [tensor.name for tensor in tensors if tensor.is_input]
        self._outputs = [tensor.name for tensor in tensors if not tensor.is_input]
        self.passes: dict[int, _Pass] = {}
        self.device: dict[str, cuda.DeviceAllocation] = {}
        self._host: dict[str, NDArray[np.generic]] = {}
        held.callback(vars(self).clear)  # which frees events and page-locked memory
        for tensor in tensors:
            # Copies are asynchronous from page-locked memory only.
            self._host[tensor.name] = cuda.pagelocked_empty((most, *tensor.shape), tensor.dtype)
            self.device[tensor.name] = cuda.mem_alloc(self._host[tensor.name].nbytes)
            held.callback(self.device[tensor.name].free)
        self._copied_in, self._computed, self._copied_out = cuda.Event(), cuda.Event(), cuda.Event()

    def submit(self, inputs: Sequence[NDArray[np.generic]], size: int, streams: _Streams) -> None:
        """Start a batch of `size`, which the inputs need not fill; the slot has been collected before."""
        for name, values in zip(self._inputs, inputs, strict=True):
            staged = self._host[name][:size]
            staged[: len(values)] = values
            staged[len(values) :] = 0
            cuda.memcpy_htod_async(self.device[name], staged, streams.copy_in)
        self._copied_in.record(streams.copy_in)
        streams.compute.wait_for_event(self._copied_in)
        self.passes[size].launch()
        self._computed.record(streams.compute)
        streams.copy_out.wait_for_event(self._computed)
        for name in self._outputs:
            cuda.memcpy_dtoh_async(self._host[name][:size], self.device[name], streams.copy_out)
        self._copied_out.record(streams.copy_out)

    def collect(self, results: Sequence[NDArray[np.generic]]) -> None:
        """Wait for the batch, and take the results of as many items as fit."""
        self._copied_out.synchronize()
        for name, values in zip(self._outputs, results, strict=True):
            values[...] = self._host[name][: len(values)]


def _tensors(engine: trt.ICudaEngine) -> list[_Tensor]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        _Tensor(
            name,
            tuple(engine.get_tensor_shape(name)[axis] for axis in range(1, len(engine.get_tensor_shape(name)))),
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    ]


def _runtimes(key: PlanKey, messages: _Messages) -> tuple[trt.Runtime, ...]:
    """Make what loads a plan, the last of these; a version-compatible one is for the lean runtime of its release."""
    runtime = _started(trt.Runtime, "start its runtime", messages)
    if not key.portable:
        return (runtime,)
    release = _lean_release()
    if release != key.tensorrt:
        raise EngineError(
            f"this plan is version-compatible and needs the lean runtime of TensorRT {key.tensorrt}, here is "
            f"{release or 'none'}; pip install tensorrt-lean=={key.tensorrt}, or build the plan again without "
            "--version-compatible"
        )
    if _LEAN:
        return (runtime,)
    folder = files("tensorrt_lean_libs")
    (library,) = [entry for entry in folder.iterdir() if entry.name.startswith("libnvinfer_lean.so.")]
    return runtime, _made(runtime.load_runtime(str(library)), "load its lean runtime", messages)


def _lean_release() -> str | None:
    """Release of the lean runtime that is installed."""
    if _LEAN:
        return str(trt.__version__)
    names = packages_distributions().get("tensorrt_lean_libs")
    return version(names[0]) if names else None


def _started(start: Callable[[_Messages], Thing], purpose: str, messages: _Messages) -> Thing:
    """Make a builder or a runtime; where CUDA fails, that gives nothing, or an empty shell whose use is a segfault."""
    try:
        thing = start(messages)
    except TypeError:  # what pybind11 makes of a null pointer
        return _made(None, purpose, messages)
    if messages.any:
        _keep_for_ever(thing)  # its end would be a segfault too
        return _made(None, purpose, messages)
    return thing


def _made(thing: Thing | None, purpose: str, messages: _Messages) -> Thing:
    if thing is None:
        raise EngineError(f"TensorRT cannot {purpose} ({messages.last}); 'rfvit doctor' tells what is installed")
    return thing


def gpu_number(device: str | None) -> int:
    """Read a device such as ``cuda:1``.

    Raises
    ------
    EngineError
        If it is no GPU.
    """
    match = re.fullmatch(r"(?:cuda)?:?(\d{1,3})?", (device or "cuda").lower())
    if match is None:
        raise EngineError(
            f"TensorRT runs on NVIDIA GPUs, not on '{device}'; --device is cuda, or cuda:1 for the second"
        )
    return int(match[1] or 0)


def _device(number: int) -> cuda.Device:
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise EngineError(
            f"no NVIDIA GPU can be used here ({error}); install NVIDIA's driver, or choose another --engine"
        ) from error
    if number >= count:
        raise EngineError(f"there is no GPU cuda:{number} here, only {count}; cuda:0 is the first")
    return cuda.Device(number)


@cache
def _primary_context(number: int) -> cuda.Context:
    """Hold on to the context that torch and the CUDA runtime use too, so that memory and streams are shared with them.

    It is kept until the process ends, and not freed then: PyCUDA 2026.1 would give it back by a call that CUDA has for
    contexts of one's own, in the thread that took it alone, and print that this failed.
    """
    context = _device(number).retain_primary_context()
    _keep_for_ever(context)
    return context


def _keep_for_ever(thing: object) -> None:
    """Keep an object from being freed, also when Python ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@contextmanager
def _current(context: cuda.Context) -> Iterator[None]:
    """Make a context current in this thread, whichever it is, and leave the thread as it was."""
    context.push()
    try:
        yield
    finally:
        cuda.Context.pop()
