# SPDX-License-Identifier: Apache-2.0
"""What the transformer has to beat: a small U-Net, trained by the same code on the same pictures."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import UNetSize


class UNet(nn.Module):
    """Convolutions over ever coarser pictures and back (Ronneberger et al. 2015), pictures and bin widths to logits.

    Four pixels are one place with four features in the first layer, and a place is four pixels again in the last, as in
    the transformer's head: the costly full resolution is left out on both sides. The bin width is an input feature that
    is the same everywhere.

    Parameters
    ----------
    n_classes : int
    size : UNetSize
    """

    def __init__(self, n_classes: int, size: UNetSize) -> None:
        super().__init__()
        widths = [size.width * 2**level for level in range(size.levels)]
        self.down = nn.ModuleList(Stage(before, after) for before, after in pairwise([5, *widths]))
        self.up = nn.ModuleList(Stage(low + high, high) for low, high in pairwise(widths[::-1]))
        self.classify = nn.Conv2d(size.width, 4 * n_classes, 1)

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:
        """Label (batch, n_steps, n_bins) pictures with (batch,) bin widths: (batch, class, n_steps, n_bins) logits.

        Steps and bins divide by two to the power of the levels.
        """
        fine = F.pixel_unshuffle(pictures[:, None], 2)  # (batch, 4, n_steps / 2, n_bins / 2)
        maps = torch.cat([fine, bin_widths[:, None, None, None].expand_as(fine[:, :1])], dim=1)
        maps = maps.contiguous(memory_format=torch.channels_last)  # faster on a CPU
        kept: list[Tensor] = []
        for stage in self.down:
            maps = stage(F.max_pool2d(maps, 2) if kept else maps)
            kept.append(maps)
        for stage, beside in zip(self.up, kept[-2::-1], strict=True):
            maps = stage(torch.cat([F.interpolate(maps, scale_factor=2.0), beside], dim=1))
        return F.pixel_shuffle(self.classify(maps), 2)


class Stage(nn.Module):
    """Two convolutions of 3 × 3 at one resolution: (batch, before, row, column) to (batch, after, row, column)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(n, after, 3, padding=1, bias=False) for n in (before, after))
        self.norms = nn.ModuleList(nn.GroupNorm(4, after) for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:  # noqa: D102
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.relu(norm(convolution(maps)))
        return maps
