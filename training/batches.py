# SPDX-License-Identifier: Apache-2.0
"""Batches of windows, shuffled by seed and step alone, so that a resumed run sees what an unbroken one would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.errors import RecordingError
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


def read_spec(folder: Path, windows: Windows) -> SpectrogramSpec:
    """The spec that a split's pictures were made with, from its scenes.json, which is written when all are made.

    Raises
    ------
    RecordingError
        If scenes.json is missing or malformed, or does not fit the pictures.
    """
    shape = windows.pictures.shape[1:]
    path = folder / "scenes.json"
    if not path.is_file():
        raise RecordingError(
            f"{path} is missing, so the windows are not complete; let 'python -m training.scenes' finish"
        )
    try:
        spec = SpectrogramSpec(**json.loads(path.read_text(encoding="utf-8"))["spec"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path} does not hold a spectrogram's spec ({error}); make the windows again") from error
    if (spec.n_steps, spec.n_bins) != shape:
        raise RecordingError(
            f"{path} speaks of {spec.n_steps} x {spec.n_bins} pixels, the pictures have {shape[0]} x {shape[1]}; "
            "make the windows again"
        )
    return spec


def training_batches(
    windows: Windows, spec: SpectrogramSpec, augmentation: Augmentation, batch_size: int, seed: int, first_step: int = 0
) -> Iterator[Batch]:
    """Augmented batches without end, from `first_step` on; every epoch has its own order.

    The next batch is made while the caller works on the last.
    """

    def make(step: int) -> Batch:
        rng = np.random.default_rng([seed, 1, step])
        return augment(read(windows, indices(len(windows), batch_size, seed, step)), spec, augmentation, rng)

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as ahead:
        step = first_step
        coming = ahead.submit(make, step)
        while True:
            batch, step = coming.result(), step + 1
            coming = ahead.submit(make, step)
            yield batch


def indices(count: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Windows of one step; where an epoch ends in mid-batch, the batch goes on in the next."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // count
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(count) for epoch in np.unique(epochs).tolist()}
    return np.array([orders[epoch][place % count] for epoch, place in zip(epochs.tolist(), places, strict=True)])


def evaluation_batches(windows: Windows, batch_size: int, limit: int | None = None) -> Iterator[tuple[slice, Batch]]:
    """All windows in order, or `limit` of them; each batch with its place among those chosen."""
    chosen = evaluation_indices(len(windows), limit)
    for first in range(0, len(chosen), batch_size):
        part = chosen[first : first + batch_size]
        yield slice(first, first + len(part)), read(windows, part)


def evaluation_indices(count: int, limit: int | None = None) -> NDArray[np.int64]:
    """Places of at most `limit` windows, always the same for one count.

    They are drawn, not taken at even distances: the test split repeats its signal-to-noise ratios in turn.
    """
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


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
