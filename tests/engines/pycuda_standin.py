# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``pycuda.driver``: no PyCUDA and no GPU, but memory of this process and streams that are lists.

Work that is enqueued happens as late as CUDA may do it (when somebody waits for it), at once, or in between at random:
a wait that is missing shows as a wrong result. New memory holds NaN, every access is held to what was allocated, and
what CUDA refuses without a current context is refused here. It shows in which order things are asked for, and that
everything is freed; not that a GPU does them.

Names without an underscore in front are PyCUDA's, with its arguments; test_tensorrt_contract.py holds them to it.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rfvit_rt.engines.cuda_graph import CudaGraphError


class Error(Exception):
    """What PyCUDA raises."""


class LogicError(Error):
    """A call that CUDA refuses."""


class MemoryError(Error):
    """No memory left."""


class LaunchError(Error):
    """Work that failed on the GPU."""


class _Machine:
    """The machine that the stand-in plays; tests set what it has and see what was done to it."""

    def __init__(self, schedule: Literal["late", "at once", "random"] = "late") -> None:
        self.schedule = schedule
        self.random = random.Random(1)
        self.gpus = ["Stand-in GPU", "Other GPU"]
        self.failure: str | None = None  # of the driver
        self.bytes_left = 1 << 30
        self.captures = True
        self.memory: dict[int, NDArray[np.uint8]] = {}  # by address
        self.pinned: dict[int, int] = {}  # address and size
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.objects = 0  # streams and events
        self.leaks: list[str] = []
        self.pageable_copies = 0
        self.graph_launches = 0
        self.contexts: dict[int, Context] = {}

    def at(self, address: int, size: int) -> NDArray[np.uint8]:
        """Memory at an address, which must be allocated."""
        for start, memory in self.memory.items():
            if start <= address and address + size <= start + len(memory):
                return memory[address - start : address - start + size]
        raise LaunchError("an illegal memory access was encountered")

    @property
    def is_clean(self) -> bool:
        """Whether everything that was taken has been given back, with a context current."""
        return not (self.memory or self.pinned or self.objects or self.leaks)


_machine = _Machine()
_stacks = threading.local()
_handles = count(0x1000)


def _reset(**facts: Any) -> _Machine:
    global _machine
    _machine = _Machine(**facts)
    return _machine


def _stack() -> list[Context]:
    if not hasattr(_stacks, "contexts"):
        _stacks.contexts = []
    return _stacks.contexts


def _require_context() -> Context:
    if not _stack():
        raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")
    return _stack()[-1]


def _forgotten(machine: _Machine, what: str) -> None:
    machine.objects -= 1
    if not _stack():
        machine.leaks.append(f"{what} was forgotten with no context current")


def init(flags: int = 0) -> None:
    if _machine.failure:
        raise Error(_machine.failure)


class Device:
    def __init__(self, ordinal: int, /) -> None:
        if not 0 <= ordinal < len(_machine.gpus):
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        self._ordinal = ordinal

    @staticmethod
    def count() -> int:
        return len(_machine.gpus)

    def name(self) -> str:
        return _machine.gpus[self._ordinal]

    def compute_capability(self) -> tuple[int, int]:
        return 9, 0

    def retain_primary_context(self) -> Context:
        return _machine.contexts.setdefault(self._ordinal, Context._of(self._ordinal))


class Context:
    _ordinal: int

    @classmethod
    def _of(cls, ordinal: int) -> Context:
        context = cls()
        context._ordinal = ordinal
        return context

    def push(self) -> None:
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        if not _stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        _stack().pop()


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _require_context()
        self._flags = flags
        self._queue: deque[Callable[[], None]] = deque()
        self._done = self._queued = 0
        self._captured: list[Callable[[], None]] | None = None
        self._handle = next(_handles)
        _machine.streams[self._handle] = self
        _machine.objects += 1
        weakref.finalize(self, _forgotten, _machine, "a stream").atexit = False

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        self._refuse_while_capturing()
        self._advance(self._queued)

    def wait_for_event(self, event: Event, /) -> None:
        recorded = event._recorded
        if recorded is not None:
            stream, mark = recorded
            self._enqueue(lambda: stream._advance(mark))

    def _enqueue(self, work: Callable[[], None]) -> None:
        _require_context()
        if self._captured is not None:
            self._captured.append(work)
            return
        self._queue.append(work)
        self._queued += 1
        if _machine.schedule == "at once":
            self._advance(self._queued)
        while _machine.schedule == "random" and _machine.random.random() < 0.5:
            stream = _machine.random.choice(list(_machine.streams.values()))
            stream._advance(min(stream._done + 1, stream._queued))

    def _advance(self, mark: int) -> None:
        while self._done < mark:
            self._done += 1
            self._queue.popleft()()

    def _refuse_while_capturing(self) -> None:
        if self._captured is not None:
            raise LogicError("operation not permitted when stream is capturing")


class Event:
    def __init__(self, flags: int = 0, /) -> None:
        _require_context()
        self._recorded: tuple[Stream, int] | None = None
        _machine.objects += 1
        weakref.finalize(self, _forgotten, _machine, "an event").atexit = False

    def record(self, stream: Stream | None = None) -> Event:
        _require_context()
        if stream is None:
            raise NotImplementedError("the stand-in has no default stream")
        self._recorded = stream, stream._queued
        return self

    def synchronize(self) -> Event:
        if self._recorded is not None:
            stream, mark = self._recorded
            stream._refuse_while_capturing()
            stream._advance(mark)
        return self


class DeviceAllocation:
    _address: int | None

    @classmethod
    def _at(cls, address: int) -> DeviceAllocation:
        allocation = cls()
        allocation._address = address
        return allocation

    def __int__(self) -> int:
        if self._address is None:
            raise LogicError("the memory has been freed")
        return self._address

    def free(self) -> None:
        _require_context()
        _machine.bytes_left += len(_machine.memory.pop(int(self)))
        self._address = None


def mem_alloc(nbytes: int, /) -> DeviceAllocation:
    _require_context()
    if nbytes < 1:
        raise LogicError("cuMemAlloc failed: invalid argument")
    if nbytes > _machine.bytes_left:
        raise MemoryError("cuMemAlloc failed: out of memory")
    _machine.bytes_left -= nbytes
    memory = _garbage(nbytes + 256)
    offset = -memory.ctypes.data % 256  # as CUDA aligns it
    memory = memory[offset : offset + nbytes]
    _machine.memory[memory.ctypes.data] = memory
    return DeviceAllocation._at(memory.ctypes.data)


def pagelocked_empty(
    shape: int | tuple[int, ...], dtype: DTypeLike, order: Literal["C", "F"] = "C", mem_flags: int = 0
) -> NDArray[Any]:
    _require_context()
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    memory = _garbage(size)
    _machine.pinned[memory.ctypes.data] = size
    weakref.finalize(memory, _unpin, _machine, memory.ctypes.data).atexit = False
    return memory.view(kind).reshape(shape, order=order)


def memcpy_htod_async(dest: DeviceAllocation, src: NDArray[Any], stream: Stream | None = None) -> None:
    source, target = _bytes_of(src), int(dest)
    if not _is_pinned(source):
        _machine.pageable_copies += 1
        source = source.copy()  # CUDA takes a copy of what could be paged out

    def copy() -> None:
        _machine.at(target, len(source))[:] = source

    _on(stream)._enqueue(copy)


def memcpy_dtoh_async(dest: NDArray[Any], src: DeviceAllocation, stream: Stream | None = None) -> None:
    target, source = _bytes_of(dest), int(src)
    if not _is_pinned(target):
        _machine.pageable_copies += 1

    def copy() -> None:
        target[:] = _machine.at(source, len(target))

    _on(stream)._enqueue(copy)


class _Graph:
    """Stands in for :class:`rfvit_rt.engines.cuda_graph.CudaGraph`."""

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        captured = _machine.streams[stream]
        captured._captured = []
        try:
            enqueue()
            self._work = captured._captured
        finally:
            captured._captured = None
        if not _machine.captures:
            raise CudaGraphError("cuStreamEndCapture: operation not permitted when stream is capturing (900)")
        _machine.objects += 1

    def launch(self, stream: int) -> None:
        _machine.graph_launches += 1
        for work in self._work:
            _machine.streams[stream]._enqueue(work)

    def close(self) -> None:
        _forgotten(_machine, "a graph")


@contextmanager
def _other_context() -> Iterator[Context]:
    """A context that somebody else, such as torch, has made current in this thread."""
    context = Context._of(-1)
    context.push()
    try:
        yield context
    finally:
        Context.pop()


def _garbage(size: int) -> NDArray[np.uint8]:
    return np.full(size, 0xFF, np.uint8)  # NaN as a float of any size


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    if not array.flags.c_contiguous:
        raise ValueError("ndarray is not contiguous")
    return array.reshape(-1).view(np.uint8)


def _is_pinned(memory: NDArray[np.uint8]) -> bool:
    start = memory.ctypes.data
    return any(first <= start and start + len(memory) <= first + size for first, size in _machine.pinned.items())


def _unpin(machine: _Machine, address: int) -> None:
    del machine.pinned[address]
    if not _stack():
        machine.leaks.append("page-locked memory was forgotten with no context current")


def _on(stream: Stream | None) -> Stream:
    if stream is None:
        raise NotImplementedError("the stand-in has no default stream")
    return stream
