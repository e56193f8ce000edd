# SPDX-License-Identifier: Apache-2.0
"""Masked Spectrogram Modeling: hide most patches of a picture, rebuild them from the rest.

After He et al. 2022 (MAE) and arXiv 2411.09996, which applies it to radio spectrograms.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rfvit_rt.vit import Block, Encoder, PyramidHead, VitConfig, initialise, patches, pick, sincos_positions
from training.config import Masking
from training.textures import COMPONENTS, Textures

TEXTURE_WEIGHT = 0.5


def shuffle_patches(
    count: int, grid: tuple[int, int], masking: Masking, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Choose which patches stay visible and which are hidden.

    Every patch has the score of the stripe or square that it lies in, and a little of its own to break ties; those with
    the highest scores are hidden. So every picture hides the same number, whatever the geometry.

    Parameters
    ----------
    count : int
        Pictures.
    grid : (int, int)
        Patches along time and frequency.
    masking : Masking
    generator : torch.Generator, optional

    Returns
    -------
    visible : (count, kept) int64
    hidden : (count, token - kept) int64
        Together every token once.
    """
    rows, columns = grid
    total = rows * columns
    kept = min(max(1, round(total * (1 - masking.ratio))), total - 1)
    sides = {
        "random": (1, 1),
        "time": (1, columns),
        "frequency": (rows, 1),
        "region": (min(masking.region, rows), min(masking.region, columns)),
    }
    tall, wide = sides[masking.geometry]
    scores = torch.rand(count, rows // tall + 2, columns // wide + 2, generator=generator)
    # The squares' grid starts anywhere, so that their edges are not always in the same places.
    row_shift = (
        torch.randint(tall, (count, 1), generator=generator) if masking.geometry == "region" else torch.zeros(count, 1)
    )
    column_shift = (
        torch.randint(wide, (count, 1), generator=generator) if masking.geometry == "region" else torch.zeros(count, 1)
    )
    row = ((torch.arange(rows) + row_shift) // tall).long()  # (count, rows)
    column = ((torch.arange(columns) + column_shift) // wide).long()  # (count, columns)
    of_patch = scores[torch.arange(count)[:, None, None], row[:, :, None], column[:, None, :]].reshape(count, total)
    order = (of_patch + 1e-4 * torch.rand(count, total, generator=generator)).argsort(dim=1)
    return order[:, :kept].sort(dim=1).values, order[:, kept:].sort(dim=1).values


class MaskedModel(nn.Module):
    """The encoder that is wanted, and a light decoder that makes it learn.

    The decoder is a narrow transformer on visible tokens and places that are asked for. It rebuilds patches itself, one
    token each; or, as in SparK (Tian et al. 2023, arXiv 2301.03580), fills the gaps between the encoder's tokens for
    :class:`PyramidHead`, which then is pretrained too: all but its last layer goes into a segmenter.
    """

    positions: Tensor

    def __init__(self, config: VitConfig, masking: Masking) -> None:
        super().__init__()
        self.grid, self.patch, self.normalises = config.grid, config.patch, masking.target == "normalised"
        width = masking.decoder_width
        self.encoder = Encoder(config)
        self.narrow = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer(
            "positions", sincos_positions(config.grid, width, config.longest_wavelength), persistent=False
        )
        self.blocks = nn.ModuleList(
            Block(width, masking.decoder_heads, config.mlp_ratio) for _ in range(masking.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.rebuild = nn.Linear(width, config.width if masking.decoder == "pyramid" else config.patch**2)
        self.textures = Textures(config.patch) if masking.target == "textures" else None
        self.describe = nn.Linear(width, COMPONENTS) if self.textures else None
        for part in (self.narrow, self.blocks, self.rebuild, self.describe):
            if part is not None:
                initialise(part)
        self.head = PyramidHead(replace(config, head="pyramid", n_classes=1)) if masking.decoder == "pyramid" else None
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, pictures: Tensor, bin_widths: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Rebuild the hidden patches.

        Parameters
        ----------
        pictures : (batch, n_steps, n_bins) float32
        bin_widths : (batch,) float32
        visible, hidden : (batch, kept) and (batch, rest) int64
            From :func:`shuffle_patches`.

        Returns
        -------
        (batch, rest, patch * patch) float32
        """
        return self._rebuild(pictures, visible, hidden, *self._tokens(pictures, bin_widths, visible, hidden))

    def _tokens(
        self, pictures: Tensor, bin_widths: Tensor, visible: Tensor, hidden: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """What the encoder makes of visible patches, its maps, and the decoder's tokens, of visible patches first."""
        seen, maps = self.encoder.with_maps(pictures, bin_widths, visible)
        asked = self.mask_token + self.positions[hidden]
        tokens = torch.cat([self.narrow(seen) + self.positions[visible], asked], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return seen, maps, self.norm(tokens)

    def _rebuild(
        self, pictures: Tensor, visible: Tensor, hidden: Tensor, seen: Tensor, maps: list[Tensor], tokens: Tensor
    ) -> Tensor:
        rebuilt: Tensor = self.rebuild(tokens[:, visible.shape[1] :])
        if self.head is None:
            return rebuilt
        in_place = torch.cat([visible, hidden], dim=1).argsort(dim=1)
        everywhere = pick(torch.cat([seen, rebuilt.to(seen.dtype)], dim=1), in_place)
        return pick(patches(self.head(everywhere, pictures, maps)[:, 0], self.patch), hidden)

    def loss(self, sums: Tensor) -> Tensor:
        """Mean squared error over hidden pixels, of the sums over a whole batch.

        Where textures are asked for, their mean squared error over all patches is added.
        """
        means = sums.view(-1, 2)
        means = means[:, 0] / means[:, 1].clamp(min=1)
        return means[0] + TEXTURE_WEIGHT * means[1:].sum()

    def sums(self, pictures: Tensor, bin_widths: Tensor, missing: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """What adds up over the parts of a batch; pixels of steps that a short window lacks do not count.

        Parameters
        ----------
        missing : (batch, n_steps, n_bins) bool
            Pixels that the window does not have.

        Returns
        -------
        (2,) or (4,) float32
            Squared errors of hidden pixels, their number; and of textures, where they are asked for.
        """
        seen, maps, tokens = self._tokens(pictures, bin_widths, visible, hidden)
        rebuilt = self._rebuild(pictures, visible, hidden, seen, maps, tokens)
        target = pick(patches(pictures, self.patch), hidden)
        weight = 1 - pick(patches(missing.float(), self.patch), hidden)
        if self.normalises:
            target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
        pixels = [((rebuilt - target) ** 2 * weight).sum(), weight.sum()]
        if self.textures is None or self.describe is None:
            return torch.stack(pixels)
        textures, whole = self.textures(pictures, missing)
        order = torch.cat([visible, hidden], dim=1)
        counted = pick(whole[:, :, None].float(), order)
        error = ((self.describe(tokens) - pick(textures, order)) ** 2).mean(dim=2, keepdim=True)
        return torch.stack([*pixels, (error * counted).sum(), counted.sum()])
