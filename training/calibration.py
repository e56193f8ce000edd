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
from scipy.optimize import minimize
from torch import Tensor, nn

from rfvit_rt.vit import Segmenter
from training.accelerator import Accelerator
from training.batches import Batch, evaluation_batches
from training.datasets import UNNAMED, Windows
from training.optimisation import Workers
from training.unet import UNet

BINS = 15  # as Guo et al. 2017 use
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_FINE = 3000  # cells of a count; a multiple of BINS and of 100, so that bins and thresholds lie on their edges
_PIXELS = 4096  # of a window, drawn by chance, that a calibration is fitted on
TEMPERATURES = (0.1, 10.0)
BIASES = (-10.0, 10.0)


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


@dataclass(frozen=True)
class Calibration:
    """Calibrated logits are ``logits / temperature + class_bias``.

    Attributes
    ----------
    temperature : float
    class_bias : tuple of float
        One for each label, with a mean of 0.
    """

    temperature: float
    class_bias: tuple[float, ...]


def fit_calibration(
    model: nn.Module, windows: Windows, limit: int, workers: Workers | Accelerator, *, bias: bool = True
) -> Calibration:
    """Temperature and biases of the classes with which the likelihood of held-out pixels is largest.

    Temperature scaling (Guo et al. 2017, section 4.2) changes confidences and no label. Biases, the other half of what
    they call vector scaling, undo what weights of the classes in the loss did to the confidences; they change labels
    too. The problem is convex in ``1 / temperature`` and the biases.

    Parameters
    ----------
    model : Module
        Takes pictures and bin widths, gives logits.
    windows : Windows
        At most `limit` of them are used.
    limit : int
    workers : Workers or Accelerator
    bias : bool
        Whether to fit biases; they are 0 otherwise, and where a class has no pixel in `windows`: the likeliest bias
        of such a class is one with which the model never says it.

    Returns
    -------
    Calibration
        Its temperature lies between the two of `TEMPERATURES`, its biases between the two of `BIASES`.
    """
    logits, true = _drawn_pixels(model, windows, limit, workers)
    count = len(windows.labels)
    none = Calibration(1.0, (0.0,) * count)
    if not len(true):
        return none
    bias = bias and len(true.unique()) == count

    def objective(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.tensor(numbers, dtype=torch.float32, requires_grad=True)
        loss = F.cross_entropy(logits * free[0] + free[1:], true) + 1e-6 * (free[1:] ** 2).sum()
        loss.backward()
        assert free.grad is not None
        return loss.item(), free.grad.double().numpy()

    found = minimize(
        objective,
        np.array([1.0, *none.class_bias]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1 / TEMPERATURES[1], 1 / TEMPERATURES[0])] + [BIASES if bias else (0.0, 0.0)] * count,
    ).x
    offsets = found[1:] - found[1:].mean()
    return Calibration(float(1 / found[0]), tuple(round(float(offset), 5) for offset in offsets))


def _drawn_pixels(
    model: nn.Module, windows: Windows, limit: int, workers: Workers | Accelerator
) -> tuple[Tensor, Tensor]:
    """Logits (pixel, class) and labels (pixel,) of pixels drawn by chance."""

    def draw(item: tuple[slice, Batch]) -> tuple[Tensor, Tensor]:
        places, batch = item
        moved = batch.to(workers.device)
        logits = model(moved.pictures, moved.bin_widths).float().cpu()
        flat, masks = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), batch.masks.reshape(-1).long()
        known = torch.from_numpy(np.flatnonzero(masks.numpy() < UNNAMED))
        order = np.random.default_rng(places.start).permutation(len(known))[: _PIXELS * len(batch.pictures)]
        return flat[known[order]], masks[known[order]]

    parts = list(workers.map(draw, evaluation_batches(windows, 4, limit)))
    logits, true = (torch.cat(each) for each in zip(*parts, strict=True))
    return logits, true


@torch.no_grad()
def fold(model: Segmenter | UNet, calibration: Calibration) -> None:
    """Calibrate a network's logits in the weights and biases of its last layer, whose outputs are ordered by class."""
    last = model.classify if isinstance(model, UNet) else model.head.classify
    assert last.bias is not None
    last.weight /= calibration.temperature
    last.bias /= calibration.temperature
    offsets = torch.tensor(calibration.class_bias)
    last.bias += offsets.repeat_interleave(len(last.bias) // len(offsets)).to(last.bias)
