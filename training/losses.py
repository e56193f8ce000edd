# SPDX-License-Identifier: Apache-2.0
"""What finetuning minimises: weighted cross-entropy or focal loss of the pixels, and soft Dice of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rfvit_rt.errors import ModelError
from training.batches import Part, evaluation_indices
from training.config import Loss
from training.datasets import IGNORED, UNNAMED


@dataclass(frozen=True, eq=False)
class SegmentationLoss:
    """Cross-entropy or focal loss, and Dice loss beside it, as the recipe says.

    Attributes
    ----------
    weights : (class,) float32
    options : Loss
    other : int, optional
        Index of the class that `UNNAMED` pixels may be of beside the background.
    """

    weights: Tensor
    options: Loss
    other: int | None = None

    def sums(self, logits: Tensor, masks: Tensor) -> Tensor:
        """What adds up over the parts of a batch.

        Parameters
        ----------
        logits : (batch, class, n_steps, n_bins) float32
        masks : (batch, n_steps, n_bins) uint8

        Returns
        -------
        (2,) or (2 + 2 * class,) float32
            Of :func:`focal_sums`, and of :func:`dice_sums` where Dice counts.
        """
        masks = masks.long()  # where the loss is computed: eight times smaller on the way there
        focal = focal_sums(logits, masks, self.weights, self.options.focal, self.other)
        return torch.cat([focal, dice_sums(logits, masks).flatten()]) if self.options.dice else focal

    def of(self, sums: Tensor) -> Tensor:
        """The loss, of the sums over a whole batch.

        A weighted mean over pixels, and one minus the soft Dice coefficient, which is a mean over classes (Milletari et
        al. 2016, eq. 4, without squares).
        """
        loss = sums[0] / sums[1].clamp(min=1e-6)  # a batch may have no known pixel
        if not self.options.dice:
            return loss
        overlap, size = sums[2:].view(2, -1)
        return loss + self.options.dice * (1 - ((2 * overlap + 1) / (size + 1)).mean())


def focal_sums(logits: Tensor, masks: Tensor, weights: Tensor, gamma: float, other: int | None = None) -> Tensor:
    """Weighted sum of ``-(1 - p)^gamma log p`` over pixels, and the sum of the weights: (2,) float32.

    Lin et al. 2017, eq. 5; without a gamma, cross-entropy.

    Of an `UNNAMED` pixel p is the probability of background or `other`, so that it teaches that no class has it.
    A window counts by the square root of its share of known pixels: short recordings, of which a row or two is known,
    would teach nothing beside whole ones otherwise.
    """
    counted, unnamed = masks != IGNORED, masks == UNNAMED
    labels = masks.where(masks < UNNAMED, 0)
    logs = logits.log_softmax(dim=1)
    negative_log = F.nll_loss(logs, labels, reduction="none")
    if other is not None:
        negative_log = torch.where(unnamed, -torch.logaddexp(logs[:, 0], logs[:, other]), negative_log)
    else:
        counted = counted & ~unnamed
    known = counted.float().mean(dim=(1, 2), keepdim=True)
    weight = weights[labels] * counted * known.clamp(min=1 / masks.shape[1]).rsqrt()
    if gamma:
        missed = (1 - torch.exp(-negative_log)).clamp(min=1e-6)  # below a gamma of 1 the power's slope at 0 is infinite
        negative_log = missed**gamma * negative_log
    return torch.stack([(weight * negative_log).sum(), weight.sum()])


def dice_sums(logits: Tensor, masks: Tensor) -> Tensor:
    """Every class's overlap of probability and truth, and the sum of both: (2, class) float32.

    Parameters
    ----------
    logits : (batch, class, n_steps, n_bins) float32
    masks : (batch, n_steps, n_bins) int64
    """
    counted = (masks < UNNAMED)[:, None]
    probabilities = logits.softmax(dim=1) * counted
    classes = torch.arange(logits.shape[1], device=masks.device)[None, :, None, None]
    true = (masks[:, None] == classes).float()
    overlap = (probabilities * true).sum(dim=(0, 2, 3))
    size = probabilities.sum(dim=(0, 2, 3)) + true.sum(dim=(0, 2, 3))
    return torch.stack([overlap, size])


def class_weights(part: Part, given: list[float] | None) -> Tensor:
    """Weight of each label: as given, or one over the square root of its share, scaled to a mean of 1 over pixels.

    Parameters
    ----------
    part : Part
        The windows to train on.
    given : list of float, optional

    Raises
    ------
    ModelError
        If the number given is not that of the labels.
    """
    labels = part.windows.labels
    if given is not None:
        if len(given) != len(labels):
            raise ModelError(
                f"[loss] class_weights has {len(given)} numbers; {len(labels)} are needed: {', '.join(labels)}"
            )
        return torch.tensor(given)
    chosen = evaluation_indices(len(part), 512)
    masks = part.windows.masks[chosen if part.places is None else part.places[chosen]]
    share = np.array([np.count_nonzero(masks == label) for label in range(len(labels))], np.float64)
    # A label that hardly occurs must not drown the others.
    share = np.maximum(share / max(1.0, share.sum()), 1e-3)
    weights = 1 / np.sqrt(share)
    return torch.from_numpy(weights / np.sum(share * weights)).float()
