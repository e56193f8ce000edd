# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``tensorrt``: no TensorRT, but its names, with ONNX Runtime computing where a GPU would.

A plan is the ONNX graph with the profile in front. What TensorRT refuses, as its documentation has it, is refused here:
shapes outside of the profile, missing addresses, plans of another release, and so on. It shows that our side of the
calls is right, as far as these rules go; not that TensorRT builds or runs a plan.

Names without an underscore in front are TensorRT's, with its arguments; test_tensorrt_contract.py holds them to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import IntEnum
from threading import Thread
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from . import half_precision as _half
from . import pycuda_standin as _cuda

__version__ = "11.4.0.106"
_HEAD = b"stand-in plan\n"
_TIMINGS = b"stand-in timings of "


class _Behaviour:
    """What tests make TensorRT do, and what it was asked to do."""

    def __init__(self) -> None:
        self.broken: str | None = None  # why builders and runtimes come empty, or
        self.null = False  # not at all
        self.no_plan: str | None = None  # why there is none
        self.loaded = 0  # plans that were given to it
        self.executions = 0
        self.refuse_execution: str | None = None
        self.rounding: Callable[[int], float] = lambda size: 0.0  # added to the results of a batch of a size
        self.freed_empty = 0  # builders and runtimes that would have ended the process
        self.flags: set[int] = set()
        self.reused_timings = 0
        self.phases_seen: list[str] = []


_behaviour = _Behaviour()


def _reset() -> _Behaviour:
    global _behaviour
    _behaviour = _Behaviour()
    return _behaviour


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(float16)": DataType.HALF,
    "tensor(int32)": DataType.INT32,
    "tensor(uint8)": DataType.UINT8,
}


def nptype(trt_type: DataType) -> type[np.generic]:
    return {
        DataType.FLOAT: np.float32,
        DataType.HALF: np.float16,
        DataType.INT32: np.int32,
        DataType.UINT8: np.uint8,
    }[trt_type]


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 0


class BuilderFlag(IntEnum):
    TF32 = 6
    VERSION_COMPATIBLE = 12
    EXCLUDE_LEAN_RUNTIME = 13
    DISTRIBUTIVE_INDEPENDENCE = 27


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


def _break(is_empty: bool, logger: ILogger) -> None:
    """As TensorRT where CUDA fails."""
    if is_empty:
        _fail(logger, str(_behaviour.broken))
    if is_empty and _behaviour.null:
        raise TypeError("pybind11::init(): factory function returned nullptr")


def _fail(logger: ILogger, reason: str) -> None:
    assert logger._ready, "a logger whose base was not initialised"
    logger.log(ILogger.Severity.WARNING, "this warning is no reason")
    logger.log(ILogger.Severity.ERROR, reason)


class IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class Dims:
    def __init__(self, shape: Sequence[int]) -> None:
        self._sizes = tuple(shape)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, arg0: int) -> int:
        return self._sizes[arg0]


class IHostMemory(bytes):
    """TensorRT's has the buffer protocol, as bytes do."""


class ITensor:
    name: str
    shape: Dims


class INetworkDefinition:
    _graph: bytes | None = None

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    @property
    def _inputs(self) -> list[ITensor]:
        assert self._graph is not None
        found = []
        for value in onnx.load_model_from_string(self._graph).graph.input:
            tensor = ITensor()
            tensor.name = value.name
            tensor.shape = Dims([size.dim_value or -1 for size in value.type.tensor_type.shape.dim])
            found.append(tensor)
        return found


class ParserError:
    _about: tuple[str, str, str] = ("", "", "")

    def desc(self) -> str:
        return self._about[0]

    def node_name(self) -> str:
        return self._about[1]

    def node_operator(self) -> str:
        return self._about[2]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        proto = onnx.load_model_from_string(model)
        for node in proto.graph.node:
            if node.domain not in ("", "ai.onnx"):
                error = ParserError()
                error._about = (f"No importer registered for op:\n {node.op_type}", node.name, node.op_type)
                self._errors.append(error)
        if self._errors:
            _fail(self._logger, "the parser failed")
            return False
        self._network._graph = bytes(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IOptimizationProfile:
    _shapes: dict[str, list[list[int]]]

    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError("the shapes of a profile must ascend")
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    _content = b""

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)


class IBuilderConfig:
    progress_monitor: IProgressMonitor
    _profile: IOptimizationProfile | None = None
    _cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        _behaviour.flags.add(BuilderFlag(flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        _behaviour.flags.discard(BuilderFlag(flag))

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if serialized_timing_cache and not serialized_timing_cache.startswith(_TIMINGS):
            return None
        cache = ITimingCache()
        cache._content = serialized_timing_cache
        return cache

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        mine = _TIMINGS + _gpu_name().encode()
        if cache._content and cache._content != mine and not ignore_mismatch:
            return False
        _behaviour.reused_timings += bool(cache._content)
        cache._content = mine
        self._cache = cache
        return True


def _gpu_name() -> str:
    return _cuda._machine.gpus[_cuda._require_context()._ordinal]


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        _behaviour.flags = {BuilderFlag.TF32}  # set at the start, as in TensorRT
        self._is_empty = _behaviour.broken is not None
        _break(self._is_empty, logger)
        _cuda._require_context()

    def __del__(self) -> None:
        _behaviour.freed_empty += self._is_empty and not _behaviour.null

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        _refuse_empty(self)
        if not flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise AssertionError("TensorRT 10 would choose the types itself")
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        profile = IOptimizationProfile()
        profile._shapes = {}
        return profile

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        assert config._profile is not None
        assert network._graph is not None
        for tensor in network._inputs:
            for shape in config._profile._shapes[tensor.name]:
                if any(size not in (-1, wanted) for size, wanted in zip(tensor.shape, shape, strict=True)):
                    _fail(self._logger, f"the profile of {tensor.name} does not fit the network")
                    return None
        if not _work_with(config.progress_monitor):
            return None
        if _behaviour.no_plan is not None:
            _fail(self._logger, _behaviour.no_plan)
            return None
        about = {
            "version": __version__,
            "gpu": _gpu_name(),
            "profile": config._profile._shapes,
            "portable": BuilderFlag.VERSION_COMPATIBLE in _behaviour.flags,
        }
        return IHostMemory(_HEAD + json.dumps(about).encode() + b"\n" + network._graph)


def _work_with(monitor: IProgressMonitor) -> bool:
    """Two phases, one in the other, told from another thread; False where the monitor ends the work."""
    assert monitor._ready, "a monitor whose base was not initialised"
    going: list[bool] = []

    def tell() -> None:
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Timing", "Building Engine", 3)
        for step in range(3):
            going.append(monitor.step_complete("Timing", step))
            if not going[-1]:
                return
        monitor.phase_finish("Timing")
        going.extend(monitor.step_complete("Building Engine", step) for step in range(2))
        monitor.phase_finish("Building Engine")

    thread = Thread(target=tell)
    thread.start()
    thread.join()
    return all(going)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._is_lean = False
        self._is_empty = _behaviour.broken is not None
        _break(self._is_empty, logger)

    def __del__(self) -> None:
        _behaviour.freed_empty += self._is_empty and not _behaviour.null

    def load_runtime(self, path: str) -> Runtime:
        runtime = Runtime(self._logger)
        runtime._is_lean = True
        return runtime

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        _refuse_empty(self)
        _behaviour.loaded += 1
        head, _, rest = serialized_engine.partition(b"\n")
        about, _, graph = rest.partition(b"\n")
        if head + b"\n" != _HEAD:
            _fail(self._logger, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        facts = json.loads(about)
        if facts["gpu"] != _gpu_name():
            _fail(self._logger, "the plan is of another GPU")
            return None
        if facts["portable"] != self._is_lean:
            _fail(self._logger, "a version-compatible plan needs the lean runtime, and it takes no other")
            return None
        engine = ICudaEngine()
        engine._logger = self._logger
        engine._session = _half.session(graph)
        engine._profile = facts["profile"]
        return engine


def _refuse_empty(made: Builder | Runtime) -> None:
    if made._is_empty:
        raise AssertionError("TensorRT would end the process here")


class ICudaEngine:
    _logger: ILogger
    _session: onnxruntime.InferenceSession
    _profile: dict[str, list[list[int]]]

    @property
    def num_io_tensors(self) -> int:
        return len(self._ends)

    @property
    def device_memory_size_v2(self) -> int:
        return 4096

    def get_tensor_name(self, index: int) -> str:
        return str(self._ends[index].name)

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims([size if isinstance(size, int) else -1 for size in self._end(name).shape])

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self._end(name).type]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._profile else TensorIOMode.OUTPUT

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext:
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            raise NotImplementedError("the stand-in manages no memory")
        context = IExecutionContext()
        context._engine, context._shapes, context._addresses = self, {}, {}
        return context

    @property
    def _ends(self) -> list[Any]:
        return [*self._session.get_inputs(), *self._session.get_outputs()]

    def _end(self, name: str) -> Any:
        (end,) = [end for end in self._ends if end.name == name]
        return end


class IExecutionContext:
    _engine: ICudaEngine
    _shapes: dict[str, tuple[int, ...]]
    _addresses: dict[str, int]
    _scratch: tuple[int, int] | None = None
    _has_run = False

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % 256:
            raise AssertionError("TensorRT wants it aligned to 256 bytes")
        self._scratch = memory, size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index == 0 and stream_handle in _cuda._machine.streams

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine._profile[name]
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            _fail(self._engine._logger, f"the shape {shape} of {name} is not in the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._engine._end(name)
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._profile if name not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        _behaviour.executions += 1
        missing = {end.name for end in self._engine._ends} - self._addresses.keys()
        too_small = self._scratch is None or self._scratch[1] < self._engine.device_memory_size_v2
        if missing or too_small or self.infer_shapes() or _behaviour.refuse_execution is not None:
            _fail(self._engine._logger, _behaviour.refuse_execution or "something was not set")
            return False
        stream = _cuda._machine.streams[stream_handle]
        if stream._captured is not None and not self._has_run:
            _fail(self._engine._logger, "the first run allocates, which cannot be captured")
            return False
        self._has_run = True
        stream._enqueue(self._compute)
        return True

    def _compute(self) -> None:
        assert self._scratch is not None
        _cuda._machine.at(*self._scratch)[:] = 0x55
        given = {name: self._array(name, shape) for name, shape in self._shapes.items()}
        size = next(iter(self._shapes.values()))[0]
        outputs = self._engine._session.run(None, given)
        for end, values in zip(self._engine._session.get_outputs(), outputs, strict=True):
            rounded = (values + values.dtype.type(_behaviour.rounding(size))).astype(values.dtype)
            self._array(end.name, values.shape)[...] = rounded

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        kind = np.dtype(nptype(self._engine.get_tensor_dtype(name)))
        memory = _cuda._machine.at(self._addresses[name], int(np.prod(shape)) * kind.itemsize)
        return memory.view(kind).reshape(shape)
