# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training by several processes, as torchrun starts them: replicas that add up their gradients.

``torchrun --nproc-per-node 4 -m training.pretrain …`` trains on four GPUs, or on four parts of a CPU. A batch is shared
out, every process works on its part, and all take the same step; so the curve is that of one process with the whole
batch, but for rounding. The first process alone writes, draws and says anything. All must see the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn

from training.config import Optimisation, RecipeError

PATIENCE = timedelta(hours=4)  # the others wait while the first cuts recordings into windows
Result = TypeVar("Result")


class Processes:
    """The processes of a run; one alone where torchrun did not start it.

    Parameters
    ----------
    options : Optimisation
        Its device decides how processes talk: NCCL between GPUs, Gloo between CPUs.

    Attributes
    ----------
    count, rank : int
        How many there are, and which this is.
    device : torch.device
        Where this process computes.

    Raises
    ------
    RecipeError
        If the device is not there, or the batch does not divide by the number of processes.
    """

    def __init__(self, options: Optimisation) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.device = find_device(options.device, int(os.environ.get("LOCAL_RANK", 0)))
        if options.batch_size % self.count:
            raise RecipeError(
                f"[optimisation] batch_size is {options.batch_size}, to be shared by {self.count} processes; choose a "
                "multiple"
            )
        part = options.batch_size // self.count
        self.own = slice(self.rank * part, (self.rank + 1) * part)  # of a batch

    def __enter__(self) -> Self:
        if self.count > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
                dist.init_process_group("nccl", device_id=self.device, timeout=PATIENCE)
            else:
                dist.init_process_group("gloo", timeout=PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line, once."""
        if self.first:
            typer.echo(text, err=err)

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Let the first process do some work, and then the others, which find done what it wrote."""
        result = work() if self.first else None
        if self.count > 1:
            dist.barrier()
        return work() if result is None else result

    def agree(self, value: float) -> float:
        """Take the first process's value: clocks differ, and all must stop at the same step."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def add(self, own: Tensor) -> Tensor:
        """Add up a tensor over all processes."""
        if self.count == 1:
            return own
        total = own.clone()
        dist.all_reduce(total)
        return total

    def add_gradients(self, model: nn.Module) -> None:
        """Set every learning parameter's gradient to its sum over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
        total = self.add(torch.cat([g.reshape(-1) for g in gradients]))  # one message is faster than hundreds
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def own_part(self, tensor: Tensor) -> Tensor:
        """Take the rows of a batch that this process works on."""
        return tensor[self.own]


def find_device(name: str, local_rank: int) -> torch.device:
    """Where a process computes.

    Raises
    ------
    RecipeError
        If there is no GPU, or none for this process.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RecipeError(
            f"[optimisation] device is {name}: process {local_rank} finds {torch.cuda.device_count()} GPUs that torch "
            "can use; start fewer processes, or set it to cpu"
        )
    return torch.device("cuda", local_rank)
