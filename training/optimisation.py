# SPDX-License-Identifier: Apache-2.0
"""What pretraining and finetuning share: parameter groups, schedule, running mean of the weights, time budget."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from training.adapt import effective_weights
from training.config import Optimisation

Item = TypeVar("Item")
Result = TypeVar("Result")
Sums = Callable[..., Tensor]
"""What a loss adds up over a part of a batch: takes a part of every tensor of the batch, gives (k,) float32."""
OfSums = Callable[[Tensor], Tensor]
"""The loss of a batch, of what was added up over all of it: takes (k,) float32, gives a number."""
Add = Callable[[Tensor], Tensor]
"""Adds to a process's sums those of the others: takes and gives (k,) float32."""


def alone(sums: Tensor) -> Tensor:
    """The sums of a process that has no others beside it, which are its own."""
    return sums


def make_optimisers(
    model: nn.Module, depth: int, options: Optimisation, bf16: bool = False
) -> list[torch.optim.Optimizer]:
    """Optimisers of the parameters that learn, with a group for each rate and decay.

    AdamW takes all parameters, or, where the recipe has Muon (Jordan 2024), those that are neither matrices of
    transformer blocks nor kernels of convolutions (but the last): Muon steps along a matrix's momentum with all its
    singular values made equal, scaled to the size of AdamW's steps (Liu et al. 2025, arXiv 2502.16982, section 2.2),
    which it finds in bfloat16 where `bf16` is set. With a `layer_decay` below 1 a block learns slower the closer it is
    to the input (Clark et al. 2020, ELECTRA).
    """
    groups: dict[tuple[bool, int, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = ("blocks." in name and parameter.ndim == 2) or (parameter.ndim == 4 and "classify" not in name)
            by_muon = options.optimiser == "muon" and inner
            groups.setdefault((by_muon, _layer(name, depth), parameter.ndim > 1), []).append(parameter)
    of_adam, of_muon = (
        [
            {
                "params": parameters,
                "weight_decay": options.weight_decay if decays else 0.0,
                "rate_factor": options.layer_decay ** (depth + 1 - layer) * (options.muon_factor if chosen else 1),
            }
            for (by_muon, layer, decays), parameters in groups.items()
            if by_muon is chosen
        ]
        for chosen in (False, True)
    )
    optimisers: list[torch.optim.Optimizer] = []
    if of_adam:
        betas = (0.9, options.beta2)
        optimisers.append(torch.optim.AdamW(of_adam, lr=options.learning_rate, betas=betas, fused=True))
    if of_muon:
        optimisers.append(Muon(of_muon, options.learning_rate, bf16))
    return optimisers


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) for matrices, and for kernels as the matrices that they are: outputs times all that is seen.

    Not torch's: that takes no kernels, and computes in bfloat16 on every processor, most of which are slow at it.

    Parameters
    ----------
    groups : list of dict
        As other optimisers take them.
    learning_rate : float
    bf16 : bool
        Whether directions are found in bfloat16.
    """

    MOMENTUM = 0.95

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, bf16: bool) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0})
        self._bf16 = bf16

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nobody here has a closure
        """Take a step down the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if (gradient := parameter.grad) is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                momentum = state["momentum_buffer"].lerp_(gradient, 1 - self.MOMENTUM)
                ahead = gradient.lerp(momentum, self.MOMENTUM)  # as Nesterov has it
                direction = orthogonalised(ahead.flatten(1), self._bf16)
                size = 0.2 * math.sqrt(max(direction.shape))  # that of AdamW's steps, arXiv 2502.16982, eq. 4
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(direction.reshape(parameter.shape), alpha=group["lr"] * size)


def orthogonalised(matrix: Tensor, bf16: bool) -> Tensor:
    """Make all singular values of a matrix about one, by the Newton-Schulz iteration of Jordan (2024).

    Parameters
    ----------
    matrix : (rows, columns) float32 Tensor
    bf16 : bool
        Whether to compute in bfloat16.

    Returns
    -------
    (rows, columns) float32 Tensor
        Its singular values lie between 0.68 and 1.14 where those of the matrix were more than a hundredth of its norm;
        in bfloat16 about there.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide.to(torch.bfloat16 if bf16 else torch.float32)
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).float()


def has_bf16(device: torch.device) -> bool:
    """Say whether a device has instructions for bfloat16; without, products take tens of times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _layer(name: str, depth: int) -> int:
    """0 for the embeddings, 1 to `depth` for the blocks, `depth` + 1 for all that follows."""
    if name.startswith("encoder.blocks."):
        return 1 + int(name.split(".")[2])
    return 0 if name.startswith(("encoder.embed", "encoder.bin_width")) else depth + 1


def rate_factor(progress: float, warm_up: float) -> float:
    """Learning rate over its peak: a linear rise over `warm_up`, then half a cosine down to 0 at a progress of 1."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


class Workers:
    """Threads that each take a part of a batch through the network and back, on one core each.

    They meet twice a step, where torch's own threads meet after every operation: that is faster, and by far where other
    processes want the cores too.

    Parameters
    ----------
    threads : int
        Number of threads; 0 for one a core. Torch itself is left with one.
    bf16 : bool
        Whether matrix products run in bfloat16; pays on processors that have instructions for it.

    Attributes
    ----------
    device : torch.device
        Where the model and its batches belong.
    bf16 : bool
    loaders : int
        Threads that should make batches meanwhile.
    """

    device = torch.device("cpu")
    loaders = 1

    def __init__(self, threads: int, bf16: bool = False) -> None:
        self.count = threads or os.cpu_count() or 1
        self.bf16 = bf16
        _use_one_core()
        self._pool = ThreadPoolExecutor(self.count, initializer=_use_one_core)

    def gradients(self, model: nn.Module, sums: Sums, loss: OfSums, *batch: Tensor, add: Add = alone) -> float:
        """Set every learning parameter's gradient to what these windows have of the whole batch's.

        All parts go forward before one goes back: the loss is that of the whole batch, however many parts it is cut
        into, though a weighted mean and Dice are no means of those of parts.

        Parameters
        ----------
        model : Module
        sums : callable
            As `Sums`.
        loss : callable
            As `OfSums`.
        *batch : (batch, …) Tensor
        add : callable, optional
            As `Add`, where other processes have windows of the batch too.

        Returns
        -------
        float
            The loss.
        """
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        parts = zip(*(tensor.split(-(-len(batch[0]) // self.count)) for tensor in batch), strict=True)

        def forward(part: tuple[Tensor, ...]) -> Tensor:
            with self._autocast():
                return sums(*part)

        own = list(self._pool.map(forward, parts))
        whole = add(torch.stack([part.detach() for part in own]).sum(dim=0))

        def back(part: Tensor) -> list[Tensor]:
            return list(torch.autograd.grad(loss(part + (whole - part.detach())), learning))

        total, *others = self._pool.map(back, own)
        for gradients in others:
            torch._foreach_add_(total, gradients)
        for parameter, gradient in zip(learning, total, strict=True):
            if gradient.stride() != parameter.stride():
                # A convolution's, in another order in memory: the fused AdamW would take it for the weight's.
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient
        return float(loss(whole).item())

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Apply a function to all items, without gradients; results are in order."""

        def work(item: Item) -> Result:
            with torch.no_grad(), self._autocast():
                return function(item)

        return self._pool.map(work, items)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)


def _use_one_core() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def update(model: nn.Module, optimisers: list[torch.optim.Optimizer], progress: float, options: Optimisation) -> float:
    """Take one step down the gradients; return the learning rate."""
    nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    # The first update of a run would have a rate of 0 and be wasted.
    rate = options.learning_rate * max(rate_factor(progress, options.warm_up), 1e-3)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["rate_factor"]
        optimiser.step()
    return rate


class WeightMean:
    """Exponential running mean of a model's weights; evaluates better than the weights themselves in short runs.

    Attributes
    ----------
    model : Module
        A copy of the model, with the mean for weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._mean = dict(self.model.named_parameters())

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` updates; those of adapters as part of the weights that they add to."""
        # A mean that is younger than its horizon would remember the random start.
        decay = min(self.decay, (1 + step) / (10 + step))
        now = effective_weights(model)
        torch._foreach_lerp_(list(self._mean.values()), [now[name] for name in self._mean], 1 - decay)


class Budget:
    """How far a run is: the share of its updates or of its time, whichever is larger."""

    def __init__(self, options: Optimisation, elapsed: float = 0.0) -> None:
        self.options = options
        self.start = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.monotonic() - self.start

    def progress(self, step: int) -> float:
        """Share of the run that lies behind after `step` updates, at most 1."""
        share = step / self.options.steps
        if self.options.max_minutes is not None:
            share = max(share, self.elapsed / (60 * self.options.max_minutes))
        return min(share, 1.0)
