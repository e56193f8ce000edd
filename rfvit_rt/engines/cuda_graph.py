# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs through the driver's own C interface: PyCUDA has streams and memory, but no graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_DRIVER = "libcuda.so.1"
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil the capture


class CudaGraphError(Exception):
    """The driver cannot capture or run a graph."""


class CudaGraph:
    """Work that was enqueued on a stream once, to be launched again and again with a single call.

    The CUDA context that it was captured in must be current for every call.

    Parameters
    ----------
    stream : int
        Handle of the stream to capture; not the default stream.
    enqueue : callable
        Enqueues the work on that stream, and on it alone.
    library : str
        The CUDA driver's library.

    Raises
    ------
    CudaGraphError
        If the work cannot be captured; the stream is as before then.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None], library: str = _DRIVER) -> None:
        self._driver = ctypes.CDLL(library)
        self._executable = ctypes.c_void_p()
        graph = self._capture(ctypes.c_void_p(stream), enqueue)
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, stream: int) -> None:
        """Enqueue the work on a stream; the call does not wait for it."""
        self._call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def close(self) -> None:
        """Free the graph; it must not be running. A second call does nothing."""
        if self._executable:
            executable, self._executable = self._executable, ctypes.c_void_p()
            self._call("cuGraphExecDestroy", executable)

    def _capture(self, stream: ctypes.c_void_p, enqueue: Callable[[], None]) -> ctypes.c_void_p:
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            # A stream that is left capturing would take no other work; what the capture holds is of no interest.
            if self._driver.cuStreamEndCapture(stream, ctypes.byref(graph)) == 0 and graph:
                self._driver.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        return graph

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
            raise CudaGraphError(f"{name}: {(text.value or b'error').decode(errors='replace')} ({status})")
