# SPDX-License-Identifier: Apache-2.0
"""What the network has to beat: classical classifiers on hand-made features, and a small convolutional net."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

_QUANTILES = (10, 25, 50, 75, 90)
_PARTS = 8  # of a window, whose means tell how an activity goes on


def features(plain: NDArray[np.float16]) -> NDArray[np.float32]:
    """Quantiles of every bin over time, means over eight parts of the window, and how much and how fast a bin changes.

    Parameters
    ----------
    plain : (window, n_steps, n_bins) float16

    Returns
    -------
    (window, feature) float32
    """
    values = plain.astype(np.float32)
    count = len(values)
    quantiles = np.percentile(values, _QUANTILES, axis=1).transpose(1, 0, 2).reshape(count, -1)
    parts = np.stack([part.mean(axis=1) for part in np.array_split(values, _PARTS, axis=1)], axis=1).reshape(count, -1)
    spread, speed = values.std(axis=1), np.abs(np.diff(values, axis=1)).mean(axis=1)
    return np.concatenate([quantiles, parts, spread, speed], axis=1).astype(np.float32)


def classifier(name: str, seed: int) -> Any:
    """``svm`` or ``extra trees``, as scikit-learn has them."""
    if name == "svm":
        return make_pipeline(StandardScaler(), SVC(C=10))
    return ExtraTreesClassifier(300, random_state=seed)


class SmallCNN(nn.Module):
    """Four convolutions of 3 × 3 with strides of 2, and a linear layer on their mean; takes what the ViT takes."""

    def __init__(self, n_classes: int, width: int = 24) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 4 * width, 4 * width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, after) for after in widths[1:])
        self.classify = nn.Linear(widths[-1], n_classes)

    def forward(self, pictures: Tensor, bin_widths: Tensor) -> Tensor:
        """Label (batch, n_steps, n_bins) pictures: (batch, class) logits; the bin width is one for all, and unused."""
        maps = pictures[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.relu(norm(convolution(maps)))
        return self.classify(maps.mean(dim=(2, 3)))
