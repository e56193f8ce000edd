# SPDX-License-Identifier: Apache-2.0
"""Whether a confidence means what it says, how to make it so, and what is gained by leaving out what is unsure.

A pixel's confidence is the probability of its likeliest label. Everything here comes from counts of pixels by
confidence, which add up over windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from rfvit_rt.vit import Segmenter
from training.accelerator import Accelerator
from training.batches import Batch, evaluation_batches
from training.datasets import IGNORED, Windows
from training.optimisation import Workers

BINS = 15  # as Guo et al. 2017 use
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_FINE = 3000  # cells of a count; a multiple of BINS and of 100, so that bins and thresholds lie on their edges
_PIXELS = 4096  # of a window, drawn by chance, that a temperature is fitted on
TEMPERATURES = (0.1, 10.0)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Counts of pixels by confidence.

    Attributes
    ----------
    pixels, right : (cell,) int64
        Pixels with a confidence in the cell, and those of them whose label is right.
    confidence : (cell,) float64
        Sum of their confidences.
    """

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_FINE, np.int64))
    right: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_FINE, np.int64))
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_FINE))

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count pixels: two arrays of one shape."""
        cells = np.clip(np.ceil(confidence.ravel().astype(np.float64) * _FINE) - 1, 0, _FINE - 1).astype(np.int64)
        self.pixels[:] += np.bincount(cells, minlength=_FINE)
        self.right[:] += np.bincount(cells, weights=right.ravel(), minlength=_FINE).astype(np.int64)
        self.confidence[:] += np.bincount(cells, weights=confidence.ravel(), minlength=_FINE)

    def expected_calibration_error(self) -> float | None:
        """Mean of ``|accuracy - confidence|`` over bins, weighted by their pixels (Guo et al. 2017, eq. 3).

        The bins are the intervals ``((m - 1) / 15, m / 15]``. None where there are no pixels.
        """
        if not self.pixels.sum():
            return None
        right, confidence = (part.reshape(BINS, -1).sum(axis=1) for part in (self.right, self.confidence))
        return round(float(np.abs(right - confidence).sum() / self.pixels.sum()), 5)

    def curve(self) -> list[dict[str, float]]:
        """Pixels, mean confidence and accuracy of every bin that has any."""
        parts = (part.reshape(BINS, -1).sum(axis=1) for part in (self.pixels, self.confidence, self.right))
        return [
            {"pixels": int(n), "confidence": round(float(c / n), 5), "accuracy": round(float(r / n), 5)}
            for n, c, r in zip(*parts, strict=True)
            if n
        ]

    def risk_coverage(self) -> list[dict[str, float | None]]:
        """What is left and how much of it is wrong, where pixels below a confidence get no label.

        Geifman and El-Yaniv 2017, section 2: coverage is the share of pixels that keep their label, risk the share of
        those whose label is wrong.
        """
        total, rows = self.pixels.sum(), []
        for threshold in THRESHOLDS:
            first = round(threshold * _FINE)
            kept, right = int(self.pixels[first:].sum()), int(self.right[first:].sum())
            rows.append(
                {
                    "threshold": threshold,
                    "coverage": round(kept / total, 5) if total else None,
                    "risk": round(1 - right / kept, 5) if kept else None,
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """All of it, for a report."""
        return {
            "expected_calibration_error": self.expected_calibration_error(),
            "bins": BINS,
            "reliability": self.curve(),
            "risk_coverage": self.risk_coverage(),
        }


def fit_temperature(model: Segmenter, windows: Windows, limit: int, workers: Workers | Accelerator) -> float:
    """Temperature that logits are to be divided by, so that the likelihood of held-out pixels is largest.

    Temperature scaling (Guo et al. 2017, section 4.2): it changes confidences and no label.

    Returns
    -------
    float
        Between the two of `TEMPERATURES`.
    """

    def draw(item: tuple[slice, Batch]) -> tuple[Tensor, Tensor]:
        places, batch = item
        moved = batch.to(workers.device)
        logits = model(moved.pictures, moved.bin_widths).float().cpu()
        flat, masks = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), batch.masks.reshape(-1).long()
        known = torch.from_numpy(np.flatnonzero(masks.numpy() != IGNORED))
        order = np.random.default_rng(places.start).permutation(len(known))[: _PIXELS * len(batch.pictures)]
        return flat[known[order]], masks[known[order]]

    parts = list(workers.map(draw, evaluation_batches(windows, 4, limit)))
    logits, true = (torch.cat(each) for each in zip(*parts, strict=True))
    if not len(true):
        return 1.0

    def negative_log_likelihood(log_temperature: float) -> float:
        return F.cross_entropy(logits / float(np.exp(log_temperature)), true).item()

    found = minimize_scalar(
        negative_log_likelihood, bounds=(np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1])), method="bounded"
    )
    return float(np.exp(found.x))


@torch.no_grad()
def fold_temperature(model: Segmenter, temperature: float) -> None:
    """Divide a segmenter's logits by a temperature, in the weights and biases of its last layer."""
    model.head.classify.weight /= temperature
    assert model.head.classify.bias is not None
    model.head.classify.bias /= temperature
