# SPDX-License-Identifier: Apache-2.0
"""Figures of a segmentation, all from confusion matrices, which add up over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets import UNNAMED


def confusion(true: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Count pixels.

    Parameters
    ----------
    true, predicted : integer arrays of one shape
        Labels; where `true` is `IGNORED` or `UNNAMED` a pixel does not count.

    Returns
    -------
    (true class, predicted class) int64
    """
    counted = true < UNNAMED
    pairs = true[counted].astype(np.int64) * n_classes + predicted[counted].astype(np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def figures(matrix: NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy and intersection over union from a confusion matrix.

    Classes that neither occur nor are predicted have no IoU, those that do not occur no accuracy: they are None, and
    left out of the means. ``signal_iou`` takes all classes but the first as one.
    """
    total, right = matrix.sum(), np.diag(matrix)
    with np.errstate(invalid="ignore"):
        accuracy = right / matrix.sum(axis=1)
        iou = right / (matrix.sum(axis=1) + matrix.sum(axis=0) - right)
        signal_iou = matrix[1:, 1:].sum() / (total - matrix[0, 0])
    return {
        "pixels": int(total),
        "pixel_accuracy": _figure(right.sum() / total) if total else None,
        "class_mean_accuracy": _mean(accuracy),
        "miou": _mean(iou),
        "signal_iou": _figure(signal_iou),
        "accuracy": {label: _figure(value) for label, value in zip(labels, accuracy, strict=True)},
        "iou": {label: _figure(value) for label, value in zip(labels, iou, strict=True)},
        "confusion": matrix.tolist(),
    }


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(known.mean()), 5) if len(known) else None
