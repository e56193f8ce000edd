# SPDX-License-Identifier: Apache-2.0
"""A torch function prepared for some batch sizes: static buffers, and on CUDA graphs, page-locked memory and streams.

Everything but the CUDA calls themselves runs on a processor too, where tests hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.engines.scheduling import overlapped, portions
from rfvit_rt.errors import EngineError

Function = Callable[..., tuple[Tensor, ...]]
"""Takes and gives tensors whose first axis is the batch, on its own device."""

_WARM_UPS = 3  # libraries choose kernels and take workspaces in the first runs, which cannot be captured
_CUDA_SLOTS = 2  # one computes while the other's copies are under way


@dataclass(frozen=True)
class Item:
    """Shape, without the batch, and type of one input."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


class Passes:
    """Arrays in, arrays out, any number of items at a time.

    Parameters
    ----------
    function : callable
    items : sequence of Item
        Its inputs.
    sizes : sequence of int
        Batch sizes to prepare, ascending.
    device : torch.device

    Raises
    ------
    EngineError
        If the device fails or lacks memory.
    """

    def __init__(self, function: Function, items: Sequence[Item], sizes: Sequence[int], device: torch.device) -> None:
        self.sizes = tuple(sizes)
        self._device = device
        with self._working():
            streams = _Streams.on(device)
            count = _CUDA_SLOTS if device.type == "cuda" else 1
            self._slots = [_Slot(function, items, self.sizes, device, streams) for _ in range(count)]

    def run(self, *inputs: NDArray[Any], take: Sequence[int] = (0,)) -> list[NDArray[Any]]:
        """Run items through the function.

        Parameters
        ----------
        *inputs : (item, ...) ndarray
            One for each input of the function.
        take : sequence of int
            Which of its outputs to bring back.

        Returns
        -------
        list of (item, ...) ndarray
            In the order of `take`; the caller's own.
        """
        count = len(inputs[0])
        results = [np.empty((count, *shape), dtype) for shape, dtype in self._slots[0].outputs(take)]
        with self._working():
            for step in overlapped(portions(count, self.sizes), len(self._slots)):
                slot = self._slots[step.slot]
                part = slice(step.portion.start, step.portion.start + step.portion.count)
                if step.action == "submit":
                    slot.submit([values[part] for values in inputs], step.portion.size, take)
                else:
                    slot.collect([values[part] for values in results], take)
        return results

    def keep_equal_sizes(self, *item: NDArray[Any], outputs: int = 1) -> None:
        """Leave out batch sizes in which an item comes out different, in any bit, from the middle size's result.

        Kernels, and with them the rounding, depend on the size of the batch; a result must not.

        Parameters
        ----------
        *item : (1, ...) ndarray
            The inputs for a batch of one.
        outputs : int
            How many outputs the function has; all are compared.
        """
        prepared, results = self.sizes, {}
        for size in prepared:
            self.sizes = (size,)
            results[size] = self.run(*(np.repeat(part, size, axis=0) for part in item), take=range(outputs))
        expected = [part[0] for part in results[prepared[len(prepared) // 2]]]
        # Results that are no numbers are equal too: whoever proves the engine says what is wrong with them.
        self.sizes = tuple(
            size
            for size in prepared
            if all(
                np.array_equal(part, np.broadcast_to(wanted, part.shape), equal_nan=True)
                for part, wanted in zip(results[size], expected, strict=True)
            )
        )
        if not self.sizes:
            raise EngineError(
                "torch gives one picture different results within a batch; try --precision f32 or another --engine"
            )

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Make the device current in this thread, and turn what fails there into errors of ours."""
        current = torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()
        try:
            with current, torch.inference_mode(), full_precision():
                yield
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self._device} has too little memory free for batches of {self.sizes[-1]}; end what else uses it"
            ) from error
        except torch.AcceleratorError as error:
            raise EngineError(
                f"{self._device} failed ({str(error).splitlines()[0]}); 'rfvit doctor' tells its state"
            ) from error


@contextmanager
def full_precision() -> Iterator[None]:
    """Let float32 mean float32: torch lets convolutions, and if asked matrix products, keep 10 bits of it on CUDA."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # made at run time
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@dataclass(frozen=True)
class _Streams:
    """Copies in, computation, copies out: each waits for the one before by events, otherwise they run side by side.

    Graphs are launched on one stream, one after the other, so they share `scratch`, the memory they compute in.
    """

    copy_in: torch.cuda.Stream
    compute: torch.cuda.Stream
    copy_out: torch.cuda.Stream
    scratch: Any

    @classmethod
    def on(cls, device: torch.device) -> _Streams | None:
        """New streams of a GPU; None for a processor, where everything has happened when a call returns."""
        if device.type != "cuda":
            return None
        copy_in, compute, copy_out = (torch.cuda.Stream(device) for _ in range(3))
        return cls(copy_in, compute, copy_out, torch.cuda.graph_pool_handle())


class _Slot:
    """A set of buffers, here and on the device, and what runs on them."""

    def __init__(
        self,
        function: Function,
        items: Sequence[Item],
        sizes: Sequence[int],
        device: torch.device,
        streams: _Streams | None,
    ) -> None:
        most, self._streams = sizes[-1], streams
        # Copies are asynchronous from page-locked memory only.
        pinned = streams is not None
        self._host = [torch.zeros((most, *item.shape), dtype=item.dtype, pin_memory=pinned) for item in items]
        self._device = [torch.zeros_like(buffer, device=device, pin_memory=False) for buffer in self._host]
        self._passes = {size: _Pass(function, [buffer[:size] for buffer in self._device], streams) for size in sizes}
        self._results = [
            torch.empty((most, *output.shape[1:]), dtype=output.dtype, pin_memory=pinned)
            for output in self._passes[most].outputs
        ]
        self._copied = torch.cuda.Event() if streams is not None else None

    def outputs(self, take: Sequence[int]) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shapes, without the batch, and types of some outputs."""
        return [(tuple(self._results[index].shape[1:]), self._results[index].numpy().dtype) for index in take]

    def submit(self, inputs: Sequence[NDArray[Any]], size: int, take: Sequence[int]) -> None:
        """Start a batch of `size`, which the inputs need not fill; the slot has been collected before."""
        for buffer, values in zip(self._host, inputs, strict=True):
            staged = buffer.numpy()[:size]
            staged[: len(values)] = values
            staged[len(values) :] = 0
        prepared = self._passes[size]
        if self._streams is None:
            self._copy_in(size)
            prepared.run()
            self._copy_out(size, take)
            return
        streams = self._streams
        with torch.cuda.stream(streams.copy_in):
            self._copy_in(size)
        streams.compute.wait_stream(streams.copy_in)
        with torch.cuda.stream(streams.compute):
            prepared.run()
        streams.copy_out.wait_stream(streams.compute)
        with torch.cuda.stream(streams.copy_out):
            self._copy_out(size, take)
        assert self._copied is not None
        self._copied.record(streams.copy_out)

    def collect(self, results: Sequence[NDArray[Any]], take: Sequence[int]) -> None:
        """Wait for the batch, and take the results of as many items as fit."""
        if self._copied is not None:
            self._copied.synchronize()
        for values, index in zip(results, take, strict=True):
            values[...] = self._results[index].numpy()[: len(values)]

    def _copy_in(self, size: int) -> None:
        for buffer, mirror in zip(self._host, self._device, strict=True):
            mirror[:size].copy_(buffer[:size], non_blocking=True)

    def _copy_out(self, size: int, take: Sequence[int]) -> None:
        for index in take:
            self._results[index][:size].copy_(self._passes[size].outputs[index], non_blocking=True)


class _Pass:
    """The function on one batch size of a slot's buffers; on CUDA as a graph, which is launched as a whole."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], streams: _Streams | None) -> None:
        self._function = function
        self._inputs = inputs
        self._graph: torch.cuda.CUDAGraph | None = None
        if streams is None:
            self.outputs = [torch.empty_like(output) for output in function(*inputs)]
            return
        streams.compute.wait_stream(torch.cuda.current_stream())  # the buffers were made there
        with torch.cuda.stream(streams.compute):
            for _ in range(_WARM_UPS):
                outputs = function(*inputs)
            self.outputs = [torch.empty_like(output) for output in outputs]
        streams.compute.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=streams.scratch, stream=streams.compute, capture_error_mode="thread_local"):
            self._compute()
        self._graph = graph

    def run(self) -> None:
        """Compute the outputs anew from what the inputs hold now."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._compute()

    def _compute(self) -> None:
        # Copied, because graphs share the memory that they compute in: the next one would overwrite these.
        for output, result in zip(self.outputs, self._function(*self._inputs), strict=True):
            output.copy_(result)
