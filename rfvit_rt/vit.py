# SPDX-License-Identifier: Apache-2.0
"""The Vision Transformer in torch: an encoder over patches of a picture; heads that label every pixel, or the whole.

Imported by ``training/`` and ``engines/pytorch.py`` alone; the runtime reads the exported ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfvit_rt.errors import ModelError

EMBEDDINGS = ("linear", "staged")
HEADS = ("decoder", "linear", "blocks")


@dataclass(frozen=True)
class VitConfig:
    """Geometry of the network.

    Attributes
    ----------
    n_steps, n_bins : int
        Time steps and bins of a picture, as in :class:`rfvit_rt.spectrogram.SpectrogramSpec` or
        :class:`rfvit_rt.csi.CSISpec`.
    n_classes : int
        Labels of a pixel, or of a picture.
    patch : int
        Side of a square patch in pixels.
    width, depth, heads, mlp_ratio : int
        Features of a token, blocks, attention heads, and hidden over outer width of a block's MLP.
    head : {"decoder", "linear", "blocks"}
        What makes labels of pixels of tokens: :class:`SegmentationHead`, :class:`LinearHead`, or the latter behind two
        more blocks.
    embedding : {"linear", "staged"}
        What makes a token of a patch's pixels: one linear layer, or :class:`StagedEmbedding`.
    longest_wavelength : int
        Longest wavelength of the positions, in 2π patches. Features that hardly differ over the picture say nothing: a
        number near the grid's side spends them better than the 10,000 that text models have.
    head_features, head_hidden : int
        Of the decoder: features that a place at half resolution gets from its token, and features between its two
        convolutions.

    Raises
    ------
    ModelError
        If the numbers do not divide as the network needs, or there is no such head or embedding.
    """

    n_steps: int
    n_bins: int
    n_classes: int
    patch: int = 16
    width: int = 192
    depth: int = 8
    heads: int = 3
    mlp_ratio: int = 4
    head: str = "decoder"
    embedding: str = "linear"
    longest_wavelength: int = 10_000
    head_features: int = 12
    head_hidden: int = 16

    def __post_init__(self) -> None:
        if self.embedding not in EMBEDDINGS:
            raise ModelError(f"there is no embedding {self.embedding!r:.40}; choose of {', '.join(EMBEDDINGS)}")
        if self.head not in HEADS:
            raise ModelError(f"there is no head {self.head!r:.40}; choose of {', '.join(HEADS)}")
        sizes = (self.n_steps, self.n_bins, self.n_classes, self.patch, self.width, self.depth, self.heads)
        if min(*sizes, self.longest_wavelength, self.head_features, self.head_hidden) < 1:
            raise ModelError(f"a network has positive sizes only, got {self}")
        if self.patch % 2 or self.n_steps % self.patch or self.n_bins % self.patch:
            raise ModelError(
                f"patches of {self.patch} do not tile a picture of {self.n_steps} x {self.n_bins}; "
                "choose an even patch that divides both"
            )
        if self.width % self.heads or self.width % 4:
            raise ModelError(f"width {self.width} must be a multiple of 4 and of the {self.heads} heads")
        if self.embedding == "staged" and self.patch % StagedEmbedding.side:
            raise ModelError(
                f"a staged embedding needs patches of a multiple of {StagedEmbedding.side}, got {self.patch}"
            )
        if self.head == "blocks" and (self.width // 2) % self.heads:
            raise ModelError(f"half of the width {self.width} must be a multiple of the {self.heads} heads")

    @property
    def head_alone(self) -> dict[str, Any]:
        """What concerns the head and not the encoder, as arguments."""
        names = ("n_classes", "head", "head_features", "head_hidden")
        return {name: getattr(self, name) for name in names}

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and along frequency."""
        return self.n_steps // self.patch, self.n_bins // self.patch


def patches(pictures: Tensor, patch: int) -> Tensor:
    """Cut (batch, step, bin) pictures into (batch, token, patch * patch), time-major."""
    batch, steps, bins = pictures.shape
    cut = pictures.reshape(batch, steps // patch, patch, bins // patch, patch).transpose(2, 3)
    return cut.reshape(batch, -1, patch * patch)


def sincos_positions(grid: tuple[int, int], width: int, longest: int) -> Tensor:
    """Fixed positions: half of the features for time, half for frequency, each sines and cosines.

    Wavelengths run from 2π to `longest` · 2π patches (Vaswani et al. 2017, section 3.5, has 10,000 there).

    Returns
    -------
    (token, width) float32
    """
    scales = longest ** -(torch.arange(width // 4) / (width // 4))
    time, frequency = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = torch.stack(
        [time.reshape(-1, 1) * scales, frequency.reshape(-1, 1) * scales], dim=1
    )  # (token, 2, width/4)
    return torch.cat([angles.sin(), angles.cos()], dim=2).reshape(-1, width)


class Block(nn.Module):
    """Pre-norm transformer block: tokens (batch, token, width) to the same."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:  # noqa: D102
        tokens = tokens + self.attend(self.norm1(tokens))
        return tokens + self.contract(F.gelu(self.expand(self.norm2(tokens))))

    def attend(self, tokens: Tensor) -> Tensor:
        """Multi-head self-attention."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, head, token, feature)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, count, width))


class StagedEmbedding(nn.Module):
    """A patch's pixels to a token in two layers, the first one on squares of 4 x 4 pixels.

    With a step that is not linear between them a token can hold how much of a patch is in use, not only its mean:
    a burst of one time step and a faint carrier of the same energy differ. Patches stay apart, so masked ones stay
    hidden.
    """

    side = 4
    features = 48

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.squares = patch // self.side
        self.look = nn.Linear(self.side**2, self.features)
        self.join = nn.Linear(self.squares**2 * self.features, width)

    def forward(self, cut: Tensor) -> Tensor:
        """Embed (batch, token, patch * patch) pixels: (batch, token, width)."""
        batch, count, _ = cut.shape
        squares = cut.reshape(batch, count, self.squares, self.side, self.squares, self.side).transpose(3, 4)
        seen = F.gelu(self.look(squares.reshape(batch, count, self.squares**2, self.side**2)))
        return self.join(seen.reshape(batch, count, -1))


class Encoder(nn.Module):
    """Pictures and bin widths to tokens; on a subset of the patches where only some are visible."""

    positions: Tensor

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.embed: nn.Module
        if config.embedding == "staged":
            self.embed = StagedEmbedding(config.patch, config.width)
        else:
            self.embed = nn.Linear(config.patch**2, config.width)
        # The physical scale decides what a pattern can be: an LTE frame looks different at every bin width.
        self.bin_width = nn.Sequential(nn.Linear(1, config.width), nn.GELU(), nn.Linear(config.width, config.width))
        self.register_buffer(
            "positions", sincos_positions(config.grid, config.width, config.longest_wavelength), persistent=False
        )
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        initialise(self)

    def forward(self, pictures: Tensor, bin_widths: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode.

        Parameters
        ----------
        pictures : (batch, n_steps, n_bins) float32
        bin_widths : (batch,) float32
            As :func:`rfvit_rt.spectrogram.bin_width_feature` gives them.
        visible : (batch, kept) int64, optional
            Tokens to encode; all where not given.

        Returns
        -------
        (batch, token or kept, width) float32
        """
        cut, positions = patches(pictures, self.patch), self.positions
        if visible is not None:
            cut = cut.gather(1, visible[:, :, None].expand(-1, -1, cut.shape[2]))
            positions = positions[visible]
        tokens = self.embed(cut) + positions + self.bin_width(bin_widths[:, None])[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class SegmentationHead(nn.Module):
    """Tokens and the picture itself to class logits of every pixel.

    All convolutions run at half resolution, where they cost a fraction of the encoder. The picture's own pixels, four
    to a place, join there, so that the edges are as sharp as the input's and need not pass through the tokens.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.coarse = config.patch // 2  # a patch's side at half resolution
        self.features = config.head_features
        self.unfold = nn.Linear(config.width, self.coarse**2 * self.features)
        self.mix = nn.Conv2d(self.features + 4, config.head_hidden, 3, padding=1)
        self.classify = nn.Conv2d(config.head_hidden, 4 * config.n_classes, 3, padding=1)
        initialise(self)

    def forward(self, tokens: Tensor, pictures: Tensor) -> Tensor:
        """Label.

        Parameters
        ----------
        tokens : (batch, token, width) float32
        pictures : (batch, n_steps, n_bins) float32

        Returns
        -------
        (batch, class, n_steps, n_bins) float32
            Logits.
        """
        (rows, columns), side = self.grid, self.coarse
        unfolded = self.unfold(tokens).reshape(-1, rows, columns, side, side, self.features).transpose(2, 3)
        coarse = unfolded.reshape(-1, rows * side, columns * side, self.features).permute(0, 3, 1, 2)
        fine = F.pixel_unshuffle(pictures[:, None], 2)
        mixed = F.gelu(self.mix(torch.cat([coarse, fine], dim=1)))
        return F.pixel_shuffle(self.classify(mixed), 2)


class LinearHead(nn.Module):
    """Tokens to class logits of every pixel, each patch from its own token alone.

    The plainest of heads, and the one that the paper has: a projection (`depth` 0), or in front of it a narrower layer
    and two more transformer blocks (`depth` 2, as "Building 6G Radio Foundation Models with Transformer Architectures",
    arXiv 2411.09996, does). A token must hold every edge within its patch.

    Parameters
    ----------
    config : VitConfig
    depth : int
        Blocks of half the encoder's width in front of the projection.
    """

    def __init__(self, config: VitConfig, depth: int = 0) -> None:
        super().__init__()
        width = config.width // 2 if depth else config.width
        self.grid, self.patch, self.n_classes = config.grid, config.patch, config.n_classes
        self.narrow = nn.Linear(config.width, width) if depth else nn.Identity()
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(depth))
        self.classify = nn.Linear(width, config.n_classes * config.patch**2)
        initialise(self)

    def forward(self, tokens: Tensor, pictures: Tensor) -> Tensor:
        """Label; arguments and result as those of :meth:`SegmentationHead.forward`, the pictures unused."""
        tokens = self.narrow(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        (rows, columns), side = self.grid, self.patch
        pixels = self.classify(tokens).reshape(-1, rows, columns, self.n_classes, side, side)
        return pixels.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.n_classes, rows * side, columns * side)


def make_head(config: VitConfig) -> SegmentationHead | LinearHead:
    """Untrained head that a configuration asks for.

    The last layer of each is called ``classify``, and its outputs are ordered by class.
    """
    if config.head == "decoder":
        return SegmentationHead(config)
    return LinearHead(config, depth=2 if config.head == "blocks" else 0)


class Segmenter(nn.Module):
    """The whole network: pictures and bin widths to class logits of every pixel."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = make_head(config)

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:
        """Label (batch, n_steps, n_bins) pictures with (batch,) bin widths: (batch, class, n_steps, n_bins) logits."""
        return self.head(self.encoder(pictures, bin_widths), pictures)


class Probabilities(nn.Module):
    """A segmenter as it ships: (batch, n_steps, n_bins, class) probabilities in place of logits."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:  # noqa: D102
        return self.segmenter(pictures, bin_widths).softmax(dim=1).permute(0, 2, 3, 1)


class ActivityClassifier(nn.Module):
    """The encoder with one linear layer on the mean of its tokens: pictures of CSI to class logits."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.classify = nn.Linear(config.width, config.n_classes)
        initialise(self.classify)

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:
        """Label (batch, n_steps, n_bins) pictures with (batch,) bin widths: (batch, class) logits."""
        return self.classify(self.features(pictures, bin_widths))

    def features(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:
        """Mean token of every picture: (batch, width)."""
        return self.encoder(pictures, bin_widths).mean(dim=1)


class ActivityProbabilities(nn.Module):
    """A classifier as it ships: (batch, class) probabilities in place of logits."""

    def __init__(self, classifier: ActivityClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:  # noqa: D102
        return self.classifier(pictures, bin_widths).softmax(dim=1)


def network_that_ships(task: str, config: VitConfig) -> Probabilities | ActivityProbabilities:
    """Return an untrained network as a model file of that task holds it; tasks as in :mod:`rfvit_rt.contract`."""
    if task == "activity":
        return ActivityProbabilities(ActivityClassifier(config))
    return Probabilities(Segmenter(config))


def initialise(module: nn.Module) -> None:
    """Draw linear and convolution weights: Xavier for linear layers, as the MAE paper does; biases start at zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)
