# SPDX-License-Identifier: Apache-2.0
"""Batches of windows, shuffled by seed and step alone, so that a resumed run sees what an unbroken one would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.spectrogram import SpectrogramSpec
from training.config import Augmentation
from training.datasets import IGNORED, Windows


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows as torch tensors.

    Attributes
    ----------
    pictures : (batch, n_steps, n_bins) float32
    bin_widths : (batch,) float32
    masks : (batch, n_steps, n_bins) int64
    """

    pictures: Tensor
    bin_widths: Tensor
    masks: Tensor


def training_batches(
    windows: Windows, spec: SpectrogramSpec, augmentation: Augmentation, batch_size: int, seed: int, first_step: int = 0
) -> Iterator[Batch]:
    """Augmented batches without end, from `first_step` on; every epoch has its own order."""
    step = first_step
    while True:
        rng = np.random.default_rng([seed, 1, step])
        yield augment(read(windows, indices(len(windows), batch_size, seed, step)), spec, augmentation, rng)
        step += 1


def indices(count: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Windows of one step; where an epoch ends in mid-batch, the batch goes on in the next."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // count
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(count) for epoch in np.unique(epochs).tolist()}
    return np.array([orders[epoch][place % count] for epoch, place in zip(epochs.tolist(), places, strict=True)])


def evaluation_batches(windows: Windows, batch_size: int, limit: int | None = None) -> Iterator[tuple[slice, Batch]]:
    """All windows in order, or `limit` of them spread evenly; each batch with its place among those chosen."""
    chosen = evaluation_indices(len(windows), limit)
    for first in range(0, len(chosen), batch_size):
        part = chosen[first : first + batch_size]
        yield slice(first, first + len(part)), read(windows, part)


def evaluation_indices(count: int, limit: int | None = None) -> NDArray[np.int64]:
    """Places of at most `limit` windows, spread evenly over all."""
    wanted = count if limit is None else min(limit, count)
    return np.arange(wanted) * count // wanted


def read(windows: Windows, chosen: NDArray[np.int64]) -> Batch:
    """Read windows by their places."""
    return Batch(
        torch.from_numpy(windows.pictures[chosen].astype(np.float32)),
        torch.from_numpy(windows.bin_widths[chosen].astype(np.float32)),
        torch.from_numpy(windows.masks[chosen].astype(np.int64)),
    )


def augment(batch: Batch, spec: SpectrogramSpec, augmentation: Augmentation, rng: np.random.Generator) -> Batch:
    """Vary a batch as :class:`training.config.Augmentation` says; steps that a window lacks stay at 0."""
    count, n_steps, _ = batch.pictures.shape
    if augmentation.mirror:
        mirrored = torch.from_numpy(rng.random(count) < 0.5)[:, None, None]
        pictures = torch.where(mirrored, batch.pictures.flip(2), batch.pictures)
        masks = torch.where(mirrored, batch.masks.flip(2), batch.masks)
    else:
        pictures, masks = batch.pictures.clone(), batch.masks.clone()
    if augmentation.level_db > 0:
        offsets = rng.uniform(-augmentation.level_db, augmentation.level_db, count) / spec.db_scale
        pictures += torch.from_numpy(offsets.astype(np.float32))[:, None, None]
    if augmentation.noise_db > 0:
        noise = rng.standard_normal(pictures.shape, np.float32)
        pictures += torch.from_numpy(noise).mul_(augmentation.noise_db / spec.db_scale)
    pictures.clamp_(spec.db_min / spec.db_scale, spec.db_max / spec.db_scale)
    cut_short = rng.random(count) < augmentation.truncate
    lengths = np.where(cut_short, rng.integers(1, n_steps, count, endpoint=True), n_steps)
    beyond = torch.arange(n_steps) >= torch.from_numpy(lengths)[:, None]
    missing = beyond | (masks == IGNORED).all(dim=2)  # (batch, step)
    pictures[missing] = 0.0
    masks[missing] = IGNORED
    return Batch(pictures, batch.bin_widths, masks)
