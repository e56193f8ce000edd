# SPDX-License-Identifier: Apache-2.0
"""What a pretraining run is judged by while it goes: what its tokens know of classes, and what it rebuilds.

A loss that falls may still teach nothing: a blurred mean of the picture has a fair loss. So two probes, neither of
which touches the encoder, ask whether the class of a patch can be read off its token: ridge regression, and the nearest
neighbour among other windows' tokens. Both are measured before the first update too; a run that does not rise above
that has gone wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.vit import Encoder, patches
from training.accelerator import Accelerator
from training.batches import Batch, evaluation_batches
from training.config import Masking
from training.datasets import IGNORED, Windows
from training.metrics import confusion, figures
from training.msm import MaskedModel, shuffle_patches
from training.optimisation import Workers

RIDGE = 1e-2  # weight of the penalty, relative to the features' variance of 1
REFERENCES, QUERIES = 8192, 4096  # tokens that neighbours are looked for among, and for
_BATCH = 4


def probe(encoder: Encoder, windows: Windows, limit: int, workers: Workers | Accelerator) -> dict[str, Any]:
    """Read the class of every patch off its token, by two probes that learn on one half of the windows.

    A patch's class is that of :func:`patch_classes`.

    Returns
    -------
    dict
        ``linear_probe`` (mIoU), ``linear_probe_accuracy`` and ``nearest_neighbour`` (mean accuracy of the classes), on
        the other half.
    """
    count = len(windows.labels)

    def encode(item: tuple[slice, Batch]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        batch = item[1].to(workers.device)
        tokens = encoder(batch.pictures, batch.bin_widths)
        return tokens.float().cpu().numpy(), patch_classes(item[1].masks, encoder.patch, count)

    parts = list(workers.map(encode, evaluation_batches(windows, _BATCH, limit)))
    tokens, classes = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )  # (window, token, width), (window, token)
    half = max(1, len(tokens) // 2)
    learn, test = ((tokens[s][classes[s] != IGNORED], classes[s][classes[s] != IGNORED]) for s in _halves(half))
    if not len(learn[1]) or not len(test[1]):
        return {"linear_probe": None, "linear_probe_accuracy": None, "nearest_neighbour": None}
    linear = figures(confusion(test[1], ridge(*learn, test[0], count), count), windows.labels)
    rng = np.random.default_rng(0)
    few, asked = (_some(pair, most, rng) for pair, most in ((learn, REFERENCES), (test, QUERIES)))
    neighbour = figures(confusion(asked[1], nearest(*few, asked[0]), count), windows.labels)
    return {
        "linear_probe": linear["miou"],
        "linear_probe_accuracy": linear["class_mean_accuracy"],
        "nearest_neighbour": neighbour["class_mean_accuracy"],
    }


def _halves(half: int) -> tuple[slice, slice]:
    return slice(0, half), slice(half, None)


def _some(
    pair: tuple[NDArray[Any], NDArray[np.int64]], most: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    chosen = rng.permutation(len(pair[1]))[:most]
    return pair[0][chosen], pair[1][chosen]


def patch_classes(masks: Tensor, patch: int, count: int) -> NDArray[np.int64]:
    """Class of every patch: its commonest signal where signals fill a quarter of it, as bursts do; else background.

    Parameters
    ----------
    masks : (batch, n_steps, n_bins) uint8

    Returns
    -------
    (batch, token) int64
        `IGNORED` where none of a patch's pixels counts.
    """
    votes = torch.stack([patches((masks == label).float(), patch).sum(dim=2) for label in range(count)], dim=2)
    signals = votes[:, :, 1:]
    classes = torch.where(signals.sum(dim=2) >= votes.sum(dim=2) / 4, signals.argmax(dim=2) + 1, 0)
    classes[votes.sum(dim=2) == 0] = IGNORED
    return classes.numpy()


def ridge(
    features: NDArray[np.float32], classes: NDArray[np.int64], asked: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """Classes of `asked` by ridge regression onto one-hot classes; each class weighs the same in all."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    known = np.column_stack([(features - mean) / spread, np.ones(len(features))]).astype(np.float64)
    weight = 1 / np.maximum(np.bincount(classes, minlength=count), 1)[classes]
    weighted = known * weight[:, None]
    penalty = RIDGE * weight.sum() * np.eye(known.shape[1])
    penalty[-1, -1] = 0  # the constant is free
    solution = np.linalg.solve(
        weighted.T @ known + penalty + 1e-9 * np.eye(len(penalty)), weighted.T @ np.eye(count)[classes]
    )
    scores = np.column_stack([(asked - mean) / spread, np.ones(len(asked))]) @ solution
    scores[:, np.bincount(classes, minlength=count) == 0] = -np.inf
    return scores.argmax(axis=1)


def nearest(features: NDArray[np.float32], classes: NDArray[np.int64], asked: NDArray[np.float32]) -> NDArray[np.int64]:
    """Class of the neighbour with the largest cosine, for each of `asked`."""
    mean = features.mean(axis=0)
    known, query = (
        (part - mean) / (np.linalg.norm(part - mean, axis=1, keepdims=True) + 1e-9) for part in (features, asked)
    )
    return classes[(query @ known.T).argmax(axis=1)]


def held_out_loss(
    model: MaskedModel, windows: Windows, masking: Masking, limit: int, workers: Workers | Accelerator
) -> float:
    """The pretraining loss of windows that it does not train on; always the same patches are hidden."""

    def sums(item: tuple[slice, Batch]) -> Tensor:
        places, batch = item
        visible, hidden = _fixed_patches(model, masking, places)
        moved = batch.to(workers.device)
        parts = (moved.pictures, moved.bin_widths, moved.missing, visible.to(workers.device), hidden.to(workers.device))
        return model.sums(*parts)

    every = list(workers.map(sums, evaluation_batches(windows, _BATCH, limit)))
    return float(model.loss(torch.stack(every).sum(dim=0)).item())


@torch.no_grad()
def draw_reconstructions(
    model: MaskedModel, windows: Windows, masking: Masking, count: int, device: torch.device, path: Path
) -> None:
    """Draw a PNG with a row for each of `count` windows: what it is, what was seen of it, what was made of that.

    Where the model rebuilds patches without their level and contrast, these are taken from the picture itself, as He et
    al. 2022 do in their figures.
    """
    (_, batch) = next(evaluation_batches(windows, count, count))
    visible, hidden = _fixed_patches(model, masking, slice(0, len(batch.pictures)))
    moved = batch.to(device)
    rebuilt = model(moved.pictures, moved.bin_widths, visible.to(device), hidden.to(device)).float().cpu()
    cut = patches(batch.pictures, model.patch)
    places = hidden[:, :, None].expand(-1, -1, cut.shape[2])
    if model.normalises:
        target = cut.gather(1, places)
        rebuilt = rebuilt * (target.var(2, keepdim=True) + 1e-6).sqrt() + target.mean(2, keepdim=True)
    masked = _join(cut.scatter(1, places, float("nan")), model)
    whole = _join(cut.scatter(1, places, rebuilt), model)
    figure = Figure(figsize=(9, 3 * len(cut)), layout="constrained")
    axes = figure.subplots(len(cut), 3, squeeze=False)
    for row, images in zip(axes, zip(batch.pictures.numpy(), masked, whole, strict=True), strict=True):
        low, high = np.nanpercentile(images[0], (1, 99.5))
        for axis, image, title in zip(row, images, ("window", "seen", "rebuilt"), strict=True):
            axis.imshow(image, aspect="auto", origin="lower", vmin=low, vmax=high, interpolation="nearest")
            axis.set(title=title, xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _fixed_patches(model: MaskedModel, masking: Masking, places: slice) -> tuple[Tensor, Tensor]:
    """The same patches of the same windows at every look."""
    generator = torch.Generator().manual_seed(places.start)
    return shuffle_patches(places.stop - places.start, model.grid, masking, generator)


def _join(cut: Tensor, model: MaskedModel) -> NDArray[np.float32]:
    """Undo :func:`rfvit_rt.vit.patches`: (batch, n_steps, n_bins)."""
    rows, columns = model.grid
    pictures = cut.reshape(-1, rows, columns, model.patch, model.patch).transpose(2, 3)
    return pictures.reshape(-1, rows * model.patch, columns * model.patch).numpy()
