# SPDX-License-Identifier: Apache-2.0
"""Batches of windows, shuffled by seed and step alone, so that a resumed run sees what an unbroken one would."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.errors import RecordingError
from rfvit_rt.spectrogram import SpectrogramSpec
from training.config import Augmentation
from training.datasets import IGNORED, RECORD, Windows, read_record


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows as torch tensors.

    Attributes
    ----------
    pictures : (batch, n_steps, n_bins) float32
    bin_widths : (batch,) float32
    masks : (batch, n_steps, n_bins) uint8
    """

    pictures: Tensor
    bin_widths: Tensor
    masks: Tensor

    @property
    def missing(self) -> Tensor:
        """Pixels of steps that a window does not have: (batch, n_steps, n_bins) bool.

        Pixels of unknown signals are ignored too, but they are there and can be seen.
        """
        silent = ((self.masks == IGNORED) & (self.pictures == 0)).all(dim=2)
        return silent[:, :, None].expand_as(self.pictures)

    def to(self, device: torch.device) -> Batch:
        """Move to a device, not waiting for the copy."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in (self.pictures, self.bin_widths, self.masks)))

    def pin(self) -> Batch:
        """Copy into memory that a GPU can read from while the processor goes on."""
        return Batch(self.pictures.pin_memory(), self.bin_widths.pin_memory(), self.masks.pin_memory())


@dataclass(frozen=True, eq=False)
class Part:
    """Windows that make up a share of every batch.

    Attributes
    ----------
    windows : Windows
    share : float
    places : (used,) int64, optional
        Of the windows that are used; all where not given.
    """

    windows: Windows
    share: float = 1.0
    places: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.windows if self.places is None else self.places)


def some_scenes(windows: Windows, share: float, seed: int) -> NDArray[np.int64]:
    """Places of the windows of a share of the scenes, one at least, drawn by seed; a larger share holds a smaller."""
    scenes = np.random.default_rng([seed, 2]).permutation(np.unique(windows.scenes))
    kept = scenes[: max(1, round(share * len(scenes)))]
    return np.flatnonzero(np.isin(windows.scenes, kept))


def read_spec(folder: Path, windows: Windows) -> SpectrogramSpec:
    """The spec that a split's pictures were made with, from its scenes.json.

    Raises
    ------
    RecordingError
        If scenes.json is malformed, or does not fit the pictures.
    """
    shape = windows.pictures.shape[1:]
    path = folder / RECORD
    try:
        spec = SpectrogramSpec(**read_record(folder)["spec"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path} does not hold a spectrogram's spec ({error}); make the windows again") from error
    if (spec.n_steps, spec.n_bins) != shape:
        raise RecordingError(
            f"{path} speaks of {spec.n_steps} x {spec.n_bins} pixels, the pictures have {shape[0]} x {shape[1]}; "
            "make the windows again"
        )
    return spec


def training_batches(
    parts: Sequence[Part],
    spec: SpectrogramSpec,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    own: slice | None = None,
    threads: int = 1,
    pin: bool = False,
) -> Iterator[Batch]:
    """Augmented batches without end, from `first_step` on; every epoch of every part has its own order.

    The next two batches are made while the caller works on the last. A window is varied by a generator of its own, so
    that it does not matter which process or thread makes it.

    Parameters
    ----------
    parts : sequence of Part
        Their shares sum to 1.
    spec, augmentation, batch_size, seed
    first_step : int
    own : slice, optional
        Places in the batch that this process works on; all where not given.
    threads : int
        Threads that make windows.
    pin : bool
        Make batches in memory that a GPU can read from.
    """

    def assemble(step: int) -> Batch:
        places = list(enumerate(drawn(parts, batch_size, seed, step)))[own or slice(None)]
        pictures, masks, bin_widths = zip(*pool.map(lambda place: make(step, *place), places), strict=True)
        batch = Batch(torch.from_numpy(np.stack(pictures)), torch.tensor(bin_widths), torch.from_numpy(np.stack(masks)))
        return batch.pin() if pin else batch

    def make(step: int, place: int, origin: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint8], float]:
        windows, index = parts[origin[0]].windows, origin[1]
        rng = np.random.default_rng([seed, 1, step, place])
        picture, mask = augment(windows.pictures[index], windows.masks[index], spec, augmentation, rng)
        return picture, mask, float(windows.bin_widths[index])

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as ahead:
        coming = deque(ahead.submit(assemble, step) for step in (first_step, first_step + 1))
        step = first_step + 2
        while True:
            batch = coming.popleft().result()
            coming.append(ahead.submit(assemble, step))
            step += 1
            yield batch


def drawn(parts: Sequence[Part], batch_size: int, seed: int, step: int) -> list[tuple[int, int]]:
    """Windows of one step: part and place in it. Over many steps every part has exactly its share."""
    shares = np.cumsum([0.0, *(part.share for part in parts)])
    counts = [[round(k * batch_size * edge) for edge in shares] for k in (step, step + 1)]
    chosen: list[tuple[int, int]] = []
    for number, part in enumerate(parts):
        first, last = (edges[number + 1] - edges[number] for edges in counts)
        orders = indices(len(part), first, last, seed + number * 1_000_003)
        chosen += [(number, int(i)) for i in (orders if part.places is None else part.places[orders])]
    return chosen


def indices(count: int, first: int, last: int, seed: int) -> NDArray[np.int64]:
    """Windows at the places `first` to `last` of an endless row of epochs, each in an order of its own."""
    places = np.arange(first, last)
    epochs = places // count
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(count) for epoch in np.unique(epochs).tolist()}
    return np.array(
        [orders[epoch][place % count] for epoch, place in zip(epochs.tolist(), places, strict=True)], np.int64
    )


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
        torch.from_numpy(np.array(windows.masks[chosen])),
    )


def augment(
    picture: NDArray[np.floating[Any]],
    mask: NDArray[np.uint8],
    spec: SpectrogramSpec,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Vary a window as :class:`training.config.Augmentation` says; steps that it lacks stay at 0.

    Parameters
    ----------
    picture, mask : (n_steps, n_bins)
        As in :class:`training.datasets.Windows`; left as they are.

    Returns
    -------
    picture : (n_steps, n_bins) float32
    mask : (n_steps, n_bins) uint8
    """
    picture, mask = picture.astype(np.float32), mask.copy()
    missing = ((mask == IGNORED) & (picture == 0)).all(axis=1)  # (step,)
    if augmentation.mirror and rng.random() < 0.5:
        picture, mask = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    if augmentation.level_db > 0:
        picture += np.float32(rng.uniform(-augmentation.level_db, augmentation.level_db) / spec.db_scale)
    if augmentation.noise_db > 0:
        noise = rng.standard_normal(picture.shape, np.float32)
        picture += np.multiply(noise, np.float32(augmentation.noise_db / spec.db_scale), out=noise)
    np.clip(picture, spec.picture_min, spec.picture_max, out=picture)
    if rng.random() < augmentation.truncate:
        # As many of a few steps as of many: recordings of single bursts have a few.
        missing[math.ceil(len(picture) ** rng.random()) :] = True
    picture[missing], mask[missing] = 0.0, IGNORED
    return picture, mask
