# SPDX-License-Identifier: Apache-2.0
"""What the model saw in one window, small enough to be sent for each: the share of every class, and a coarse map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask

MAX_STEPS = 16
"""Most time steps of a map."""

MAX_BINS = 256
"""Most frequency bins of a map."""

MAX_LABELS = 64
"""Most classes, background included."""

SIGNAL = 0.5
"""Probability that all signals must have together for a pixel to carry one, as where a box continues."""


@dataclass(frozen=True, eq=False)
class WindowSummary:
    """What the model made of one stretch of the stream; those of a stream follow each other and do not overlap.

    Attributes
    ----------
    sample_start, sample_count : int
        Where it is in the stream, in samples.
    sample_rate : float
        Samples per second, in Hz.
    frequency : float or None
        Centre frequency in Hz; None where unknown.
    labels : tuple of str
        Names of the classes; the first is background.
    shares : tuple of float
        Share of the window's pixels that each class has, 0 to 1.
    class_map : (step, bin) uint8
        Numbers of the classes in ``labels``, in at most `MAX_STEPS` and `MAX_BINS` equal cells; bins ascend in
        frequency. A cell carries the signal that most of its labelled pixels carry, however few they are, so that a
        short burst shows.
    """

    sample_start: int
    sample_count: int
    sample_rate: float
    frequency: float | None
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    class_map: NDArray[np.uint8]

    @property
    def sample_end(self) -> int:
        """Position just past the last sample."""
        return self.sample_start + self.sample_count


def summarise(mask: Mask, labels: Sequence[str]) -> WindowSummary:
    """Summarise a mask.

    Parameters
    ----------
    mask : Mask
        With at least one time step.
    labels : sequence of str
        Name of every class; the first is background.

    Raises
    ------
    ValueError
        If the mask has another number of classes than there are labels.
    """
    if mask.probabilities.shape[2] != len(labels):
        raise ValueError(f"a mask has {mask.probabilities.shape[2]} classes; the labels are {list(labels)}")
    label = class_numbers(mask)
    class_map = _largest(np.stack([_pool(label == number) for number in range(1, len(labels))]))
    shares = np.bincount(label.ravel(), minlength=len(labels)) / label.size
    return WindowSummary(
        sample_start=mask.sample_start,
        sample_count=mask.sample_count,
        sample_rate=mask.sample_rate,
        frequency=mask.frequency,
        labels=tuple(labels),
        shares=tuple(shares.tolist()),
        class_map=class_map,
    )


def class_numbers(mask: Mask) -> NDArray[np.uint8]:
    """Number of the class that each pixel carries, (step, bin); 0 is background."""
    return classify(mask)[0]


def classify(mask: Mask) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Number of the class that each pixel carries, 0 for background, and its probability; both (step, bin)."""
    planes = np.ascontiguousarray(np.moveaxis(mask.probabilities, 2, 0))  # (class, step, bin)
    number = _largest(planes[1:])
    number *= planes[0] <= 1 - SIGNAL
    return number, np.where(number, planes[1:].max(axis=0), planes[0])


def _largest(planes: NDArray[Any]) -> NDArray[np.uint8]:
    """Number of the plane, from 1, that has the largest value; 0 where none has any."""
    # One after the other, and without masks: many times faster than argmax along so short an axis.
    number = np.zeros(planes.shape[1:], np.uint8)
    largest = np.zeros(planes.shape[1:], planes.dtype)
    for count, plane in enumerate(planes, 1):
        number += (plane > largest) * (np.uint8(count) - number)
        np.maximum(largest, plane, out=largest)
    return number


def _pool(pixels: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Count the pixels in each cell of the map."""
    counts = pixels.astype(np.int32)
    for axis, most in ((0, MAX_STEPS), (1, MAX_BINS)):
        cells = min(most, counts.shape[axis])
        counts = np.add.reduceat(counts, np.arange(cells) * counts.shape[axis] // cells, axis=axis)
    return counts
