# SPDX-License-Identifier: Apache-2.0
"""One band, one class: what the pixels of a band say of its class is pooled over time and frequency.

A model sees 40 ms at a time and may take one burst of a carrier for LTE and the next for NR. A transmitter keeps its
band and its standard for far longer than that. Whether a pixel carries a signal is left as the model says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from rfvit_rt.datatypes import Mask

DOUBT = 1e-3  # steps of evidence that every class has from the start, so that a silent band has no class


@dataclass(frozen=True)
class ConsensusSettings:
    """How far evidence reaches.

    Attributes
    ----------
    memory : float
        Time constant in s with which evidence is forgotten.
    reach : float
        Standard deviation of the pooling over frequency, as a share of the occupied band's width: wide enough that a
        carrier speaks with one voice, narrow enough that two that touch keep their own.
    gap : float
        Widest empty band, in Hz, inside one occupied band.
    occupied : float
        Time steps that a bin must have carried a signal, lately, to belong to an occupied band.
    """

    memory: float = 0.08
    reach: float = 0.3
    gap: float = 400e3
    occupied: float = 1.5


DEFAULT_SETTINGS = ConsensusSettings()


def agree(masks: Iterable[Mask], settings: ConsensusSettings = DEFAULT_SETTINGS) -> Iterator[Mask]:
    """Share every pixel's signal probability out among the classes as its band's evidence says.

    Parameters
    ----------
    masks : iterable of Mask
        Consecutive ones, as :func:`rfvit_rt.stitching.stitch` yields them. A gap, a retune or a change of rate ends the
        memory.
    settings : ConsensusSettings

    Yields
    ------
    Mask
        Of the same background probabilities.
    """
    last: Mask | None = None
    evidence = np.zeros((0, 0), np.float32)
    for mask in masks:
        signal = _signal(mask)
        fresh = _evidence(mask)
        if last is not None and _continues(last, mask):
            forgotten = math.exp(-mask.sample_count / mask.sample_rate / settings.memory)
            evidence = evidence * np.float32(forgotten) + fresh
        else:
            evidence = fresh
        shares = _shares(evidence, mask.bin_width, settings)
        probabilities = np.empty_like(mask.probabilities)
        probabilities[:, :, 0] = mask.probabilities[:, :, 0]
        for number in range(shares.shape[1]):
            np.multiply(signal, shares[:, number], out=probabilities[:, :, 1 + number])
        last = mask
        yield replace(mask, probabilities=probabilities)


def _continues(last: Mask, mask: Mask) -> bool:
    return (
        mask.segment == last.segment
        and abs(mask.sample_start - last.sample_end) <= 1  # ends are rounded to samples
        and mask.frequency == last.frequency
        and mask.sample_rate == last.sample_rate
    )


def _signal(mask: Mask) -> NDArray[np.float32]:
    """Probability that a pixel carries a signal, whatever its class: (step, bin).

    One class after the other: several times faster than a sum along so short an axis.
    """
    total = mask.probabilities[:, :, 1].copy()
    for number in range(2, mask.probabilities.shape[2]):
        total += mask.probabilities[:, :, number]
    return total


def _evidence(mask: Mask) -> NDArray[np.float32]:
    """Class probabilities, summed over the steps in which a bin likely carries a signal: (bin, class - 1)."""
    carries = (mask.probabilities[:, :, 0] < 0.5).astype(np.float32)
    classes = range(1, mask.probabilities.shape[2])
    return np.stack([np.einsum("sb,sb->b", carries, mask.probabilities[:, :, number]) for number in classes], axis=1)


def _shares(evidence: NDArray[np.float32], bin_width: float, settings: ConsensusSettings) -> NDArray[np.float32]:
    """Each class's share of a bin's signal, pooled over the occupied band that the bin lies in: (bin, class - 1)."""
    pooled = evidence + np.float32(DOUBT)
    occupied = np.flatnonzero(evidence.sum(axis=1) > settings.occupied)
    apart = np.flatnonzero(np.diff(occupied) * bin_width > max(settings.gap, 2 * bin_width)) + 1
    for bins in np.split(occupied, apart) if len(occupied) else []:
        band = slice(int(bins[0]), int(bins[-1]) + 1)
        sigma = settings.reach * (band.stop - band.start)
        pooled[band] = gaussian_filter1d(pooled[band], max(1.0, sigma), axis=0, mode="nearest")
    # Squared: two pixels that agree are worth more than one, as for independent witnesses.
    squared = pooled**2
    return squared / squared.sum(axis=1, keepdims=True)
