# SPDX-License-Identifier: Apache-2.0
"""One GPU in the place of a CPU's worker threads: the whole batch at once, in bfloat16 where it can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from training.config import Optimisation
from training.optimisation import Add, Item, OfSums, Result, Sums, Workers, alone, has_bf16
from training.processes import Processes


class Accelerator:
    """Computes on one device; takes the place of :class:`training.optimisation.Workers`.

    Parameters
    ----------
    device : torch.device
    bf16 : bool
        Whether matrix products run in bfloat16; weights, sums and the loss stay float32.
    loaders : int
        Threads that make batches meanwhile; a GPU is hungry.
    """

    def __init__(self, device: torch.device, bf16: bool, loaders: int = 1) -> None:
        self.device = device
        self.loaders = loaders
        self.bf16 = bf16
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # of what is not done in bfloat16

    def gradients(self, model: nn.Module, sums: Sums, loss: OfSums, *batch: Tensor, add: Add = alone) -> float:
        """Set every learning parameter's gradient; see :meth:`training.optimisation.Workers.gradients`."""
        model.zero_grad(set_to_none=True)
        with self._autocast():
            own = sums(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        whole = add(own.detach())
        value = loss(own + (whole - own.detach()))
        value.backward()
        return float(value.item())

    @torch.no_grad()
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Apply a function to all items, without gradients; results are in order."""
        with self._autocast():
            results = [function(item) for item in items]
        return iter(results)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def choose_workers(options: Optimisation, processes: Processes) -> Workers | Accelerator:
    """Threads on a CPU, or the process's GPU; in bfloat16 where the recipe says so, or by default where it pays."""
    device = processes.device
    # Replicas stay equal only where all take the same steps, so the machine of the first decides.
    bf16 = options.precision == "bf16" or (options.precision == "auto" and processes.agree(has_bf16(device)) > 0)
    cores = max(1, (os.cpu_count() or 1) // processes.local_count)
    if device.type == "cuda":
        return Accelerator(device, bf16, loaders=cores)
    return Workers(options.threads or cores, bf16)
