# SPDX-License-Identifier: Apache-2.0
"""The Vision Transformer in torch: an encoder over patches of a picture; heads that label every pixel, or the whole.

Imported by ``training/`` and ``engines/pytorch.py`` alone; the runtime reads the exported ONNX file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfvit_rt.errors import ModelError

EMBEDDINGS = ("linear", "convolutions")
HEADS = ("decoder", "pyramid", "linear", "blocks")


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
    head : {"decoder", "pyramid", "linear", "blocks"}
        What makes labels of pixels of tokens: :class:`SegmentationHead`, :class:`PyramidHead`, :class:`LinearHead`, or
        the latter behind two more blocks.
    embedding : {"linear", "convolutions"}
        What makes tokens of pixels: one linear layer for each patch, or :class:`ConvolutionalEmbedding`.
    longest_wavelength : int
        Longest wavelength of the positions, in 2π patches. Features that hardly differ over the picture say nothing: a
        number near the grid's side spends them better than the 10,000 that text models have.
    head_features, head_hidden : int
        Of the decoder: features that a place at half resolution gets from its token, and features between its two
        convolutions.
    stem_features : int
        Of the convolutions' embedding: features of a place at half resolution; each coarser one has twice as many.

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
    stem_features: int = 24

    def __post_init__(self) -> None:
        if self.embedding not in EMBEDDINGS:
            raise ModelError(f"there is no embedding {self.embedding!r:.40}; choose of {', '.join(EMBEDDINGS)}")
        if self.head not in HEADS:
            raise ModelError(f"there is no head {self.head!r:.40}; choose of {', '.join(HEADS)}")
        sizes = (self.n_steps, self.n_bins, self.n_classes, self.patch, self.width, self.depth, self.heads)
        others = (self.longest_wavelength, self.head_features, self.head_hidden, self.stem_features)
        if min(*sizes, *others) < 1:
            raise ModelError(f"a network has positive sizes only, got {self}")
        if self.patch % 2 or self.n_steps % self.patch or self.n_bins % self.patch:
            raise ModelError(
                f"patches of {self.patch} do not tile a picture of {self.n_steps} x {self.n_bins}; "
                "choose an even patch that divides both"
            )
        if self.width % self.heads or self.width % 4:
            raise ModelError(f"width {self.width} must be a multiple of 4 and of the {self.heads} heads")
        if self.embedding == "convolutions" and (self.patch < 4 or self.patch & (self.patch - 1)):
            raise ModelError(f"convolutions halve a picture to patches of 4, 8, 16, … pixels, not of {self.patch}")
        if self.head == "pyramid" and self.embedding != "convolutions":
            raise ModelError(
                "the head 'pyramid' takes the maps of the embedding 'convolutions'; choose both or neither"
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
        if tokens.is_cuda:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:  # written out: on a processor, gradients of the fused operation take longer in bfloat16
            scores = (query * (width // self.heads) ** -0.5) @ key.transpose(2, 3)
            mixed = scores.softmax(dim=3) @ value
        return self.project(mixed.transpose(1, 2).reshape(batch, count, width))


class Stage(nn.Module):
    """Convolution of 3 x 3, a norm over the features of every place, GELU: (batch, before, row, column) to the same.

    Parameters
    ----------
    before, after : int
        Features of a place.
    stride : int
        Places from one to the next that is kept.
    norm : bool
        At half resolution there is none: it would hide how strong a place is, which is most of what four pixels say.
    """

    def __init__(self, before: int, after: int, stride: int = 1, norm: bool = True) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(before, after, 3, stride, padding=1)
        self.norm = nn.LayerNorm(after, eps=1e-6) if norm else nn.Identity()
        nn.init.kaiming_normal_(self.convolve.weight, nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:  # noqa: D102
        maps = self.convolve(maps).permute(0, 2, 3, 1)
        return F.gelu(self.norm(maps)).permute(0, 3, 1, 2)


class ConvolutionalEmbedding(nn.Module):
    """Convolutions that halve a picture until a place is a patch, in the place of one linear layer a patch.

    Transformers learn faster behind a stem of convolutions (Xiao et al. 2021, arXiv 2106.14881),
    and what it sees on the way keeps edges sharp in :class:`PyramidHead`. Four pixels are one place with four features
    in the first layer: the costly full resolution is left out.
    """

    def __init__(self, patch: int, width: int, features: int) -> None:
        super().__init__()
        widths = stem_widths(patch, features)
        self.first = Stage(4, widths[0], norm=False)
        self.halve = nn.ModuleList(
            nn.Sequential(Stage(fine, coarse, stride=2), Stage(coarse, coarse)) for fine, coarse in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], width, 3, stride=2, padding=1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed pictures.

        Parameters
        ----------
        pictures : (batch, n_steps, n_bins) float32

        Returns
        -------
        tokens : (batch, token, width) float32
        maps : list of (batch, feature, row, column) float32
            What was seen at half, quarter, … resolution.
        """
        quads = F.pixel_unshuffle(pictures[:, None], 2)
        maps = [self.first(quads.contiguous(memory_format=torch.channels_last))]
        for halve in self.halve:
            maps.append(halve(maps[-1]))
        return self.last(maps[-1]).flatten(2).transpose(1, 2), maps


def stem_widths(patch: int, features: int) -> list[int]:
    """Features of a place at half, quarter, … resolution, up to the last before a patch."""
    return [features << level for level in range(patch.bit_length() - 2)]


def stem_size(config: VitConfig) -> int:
    """Weights that an embedding of convolutions has at the least."""
    widths = [*stem_widths(config.patch, config.stem_features), config.width]
    return 9 * sum(fine * coarse for fine, coarse in pairwise(widths))


class Encoder(nn.Module):
    """Pictures and bin widths to tokens; on a subset of the patches where only some are visible."""

    positions: Tensor

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, config.grid
        self.embed: nn.Module
        if config.embedding == "convolutions":
            self.embed = ConvolutionalEmbedding(config.patch, config.width, config.stem_features)
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
        return self.with_maps(pictures, bin_widths, visible)[0]

    def with_maps(
        self, pictures: Tensor, bin_widths: Tensor, visible: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode as :meth:`forward` does; with the maps that an embedding of convolutions made on the way."""
        tokens, maps = self._embed(pictures, visible)
        positions = self.positions if visible is None else self.positions[visible]
        tokens = tokens + positions + self.bin_width(bin_widths[:, None])[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens), maps

    def _embed(self, pictures: Tensor, visible: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        if isinstance(self.embed, ConvolutionalEmbedding):
            # What is hidden must not reach its visible neighbours: it looks like the noise floor, 0, to them.
            tokens, maps = self.embed(pictures if visible is None else pictures * self._seen(visible))
            return (tokens if visible is None else pick(tokens, visible)), maps
        cut = patches(pictures, self.patch)
        return self.embed(cut if visible is None else pick(cut, visible)), []

    def _seen(self, visible: Tensor) -> Tensor:
        """1 where a pixel lies in a visible patch, else 0: (batch, n_steps, n_bins) float32."""
        rows, columns = self.grid
        seen = torch.zeros(len(visible), rows * columns, device=visible.device).scatter(1, visible, 1.0)
        return F.interpolate(seen.reshape(-1, 1, rows, columns), scale_factor=float(self.patch))[:, 0]


def pick(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Tokens at the (batch, kept) places `chosen`: (batch, token, width) to (batch, kept, width)."""
    return tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))


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

    def forward(self, tokens: Tensor, pictures: Tensor, maps: Sequence[Tensor] = ()) -> Tensor:
        """Label.

        Parameters
        ----------
        tokens : (batch, token, width) float32
        pictures : (batch, n_steps, n_bins) float32
        maps : sequence of (batch, feature, row, column) float32
            Of the encoder's embedding; unused.

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


class PyramidHead(nn.Module):
    """Tokens and the maps of :class:`ConvolutionalEmbedding` to class logits of every pixel.

    From patches up to half resolution, each time with what the embedding saw there, as in a U-Net (Ronneberger et al.
    2015); the transformer is its lowest level.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        widths = stem_widths(config.patch, config.stem_features)[::-1]
        self.grid = config.grid
        self.narrow = nn.Linear(config.width, widths[0])
        self.join = nn.ModuleList(
            Stage(below + beside, beside, norm=beside > widths[-1])
            for below, beside in zip([widths[0], *widths], widths, strict=False)
        )
        self.classify = nn.Conv2d(widths[-1], 4 * config.n_classes, 1)
        initialise(self)

    def forward(self, tokens: Tensor, pictures: Tensor, maps: Sequence[Tensor] = ()) -> Tensor:
        """Label; arguments and result as those of :meth:`SegmentationHead.forward`, the pictures unused."""
        rows, columns = self.grid
        found = self.narrow(tokens).reshape(-1, rows, columns, self.narrow.out_features).permute(0, 3, 1, 2)
        for join, beside in zip(self.join, reversed(maps), strict=True):
            found = join(torch.cat([doubled(found), beside], dim=1))
        return F.pixel_shuffle(self.classify(found), 2)


def doubled(maps: Tensor) -> Tensor:
    """Repeat every place in both directions: (batch, feature, row, column) to twice the rows and columns.

    In operations that half precision has everywhere; that of ONNX for this, Resize, does not.
    """
    batch, features, rows, columns = maps.shape
    places = maps.permute(0, 2, 3, 1)  # the order in memory behind a convolution or a norm
    wide = torch.stack([places, places], dim=3).reshape(batch, rows, 2 * columns, features)
    tall = torch.stack([wide, wide], dim=2).reshape(batch, 2 * rows, 2 * columns, features)
    return tall.permute(0, 3, 1, 2)


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

    def forward(self, tokens: Tensor, pictures: Tensor, maps: Sequence[Tensor] = ()) -> Tensor:
        """Label; arguments and result as those of :meth:`SegmentationHead.forward`, pictures and maps unused."""
        tokens = self.narrow(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        (rows, columns), side = self.grid, self.patch
        pixels = self.classify(tokens).reshape(-1, rows, columns, self.n_classes, side, side)
        return pixels.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.n_classes, rows * side, columns * side)


def make_head(config: VitConfig) -> SegmentationHead | PyramidHead | LinearHead:
    """Untrained head that a configuration asks for.

    The last layer of each is called ``classify``, and its outputs are ordered by class.
    """
    if config.head == "decoder":
        return SegmentationHead(config)
    if config.head == "pyramid":
        return PyramidHead(config)
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
        tokens, maps = self.encoder.with_maps(pictures, bin_widths)
        return self.head(tokens, pictures, maps)


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
