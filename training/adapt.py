# SPDX-License-Identifier: Apache-2.0
"""Which weights finetuning changes: all, the head's alone, or low-rank additions to the attention (LoRA).

An adapted linear layer computes ``(W + alpha / rank · B A) x + b`` with W and b fixed (Hu et al. 2021, section 4.1).
The additions live in training alone: the running mean of the weights, which is evaluated and shipped, has them added
in, so nothing behind it knows of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfvit_rt.vit import Block, Encoder
from training.config import Adapt


class LoRALinear(nn.Linear):
    """A linear layer that stays as it is, and a low-rank addition that learns.

    Attributes
    ----------
    down : (rank, in) Parameter
        A, drawn at random.
    up : (out, rank) Parameter
        B, zero at first: the layer begins as it was.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102
        return super().forward(inputs) + F.linear(F.linear(inputs, self.down), self.up) * self.scale

    def merged(self) -> Tensor:
        """The weight with its addition: (out, in)."""
        return self.weight + self.scale * (self.up @ self.down)


def adapt(encoder: Encoder, options: Adapt) -> None:
    """Fix the encoder's weights as the mode says, and give it adapters where it asks for them."""
    if options.mode == "full":
        return
    encoder.requires_grad_(False)
    if options.mode == "lora":
        for block in encoder.blocks:
            assert isinstance(block, Block)
            block.qkv = LoRALinear(block.qkv, options.rank, options.alpha)
            block.project = LoRALinear(block.project, options.rank, options.alpha)


@torch.no_grad()
def effective_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights by name as a model without adapters has them, and computes the same with."""
    weights: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            weights[name] = parameter
        if isinstance(module, LoRALinear):
            weights[f"{prefix}.weight"] = module.merged()
            del weights[f"{prefix}.down"], weights[f"{prefix}.up"]
    return weights
