# SPDX-License-Identifier: Apache-2.0
"""Masked modelling of pictures without labels: of CSI, of radio spectrograms, or of one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfvit_rt.vit import VitConfig
from training.config import Masking, Optimisation
from training.msm import MaskedModel, shuffle_patches
from training.optimisation import Budget, WeightMean, Workers, make_optimisers, update


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Pictures of one kind, of which any part as large as the network's input may be shown.

    Attributes
    ----------
    pictures : (picture, step, bin) float16
        Not smaller than the network's input.
    bin_widths : (picture,) float32
        Second input of the network.
    """

    pictures: NDArray[np.float16]
    bin_widths: NDArray[np.float32]


def pretrain(
    sets: Sequence[Unlabelled],
    vit: VitConfig,
    masking: Masking,
    options: Optimisation,
    seed: int,
    workers: Workers,
    start: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Learn to rebuild hidden patches.

    Parameters
    ----------
    sets : sequence of Unlabelled
        Every picture of every set is drawn equally often.
    vit : VitConfig
    masking : Masking
    options : Optimisation
    seed : int
    workers : Workers
    start : dict of str to Tensor, optional
        Weights of an encoder to start from.

    Returns
    -------
    dict of str to Tensor
        Weights of the encoder, as :class:`rfvit_rt.vit.Encoder` names them.
    """
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng([seed, 5]), torch.Generator().manual_seed(seed)
    model = MaskedModel(vit, masking)
    if start is not None:
        model.encoder.load_state_dict(start)
    optimisers, mean = make_optimisers(model, vit.depth, options), WeightMean(model, options.ema_decay)
    ends = np.cumsum([len(entry.pictures) for entry in sets])
    step, budget = 0, Budget(options)
    missing = torch.zeros(options.batch_size, vit.n_steps, vit.n_bins, dtype=torch.bool)
    while budget.progress(step) < 1:
        drawn = [_draw(sets, ends, vit, rng) for _ in range(options.batch_size)]
        shown = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
        bin_widths = torch.tensor([bin_width for _, bin_width in drawn])
        visible, hidden = shuffle_patches(options.batch_size, vit.grid, masking, generator)
        workers.gradients(model, model.sums, model.loss, shown, bin_widths, missing, visible, hidden)
        update(model, optimisers, budget.progress(step), options)
        step += 1
        mean.update(model, step)
    prefix = "encoder."
    weights = mean.model.state_dict().items()
    return {name.removeprefix(prefix): part.clone() for name, part in weights if name.startswith(prefix)}


def _draw(
    sets: Sequence[Unlabelled], ends: NDArray[np.int64], vit: VitConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    place = int(rng.integers(ends[-1]))
    number = int(np.searchsorted(ends, place, side="right"))
    entry = sets[number]
    place -= int(ends[number]) - len(entry.pictures)
    steps, bins = entry.pictures.shape[1:]
    row, column = int(rng.integers(steps - vit.n_steps + 1)), int(rng.integers(bins - vit.n_bins + 1))
    part = entry.pictures[place, row : row + vit.n_steps, column : column + vit.n_bins]
    return part.astype(np.float32), float(entry.bin_widths[place])
