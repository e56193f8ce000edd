# SPDX-License-Identifier: Apache-2.0
"""The highest rate that holds, found by short trials that may err and confirmed by long ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Trial = Callable[[float], bool]
"""Takes a rate in Hz, and returns whether it held."""


def highest_rate(
    probe: Trial, confirm: Trial, *, start: float, least: float, most: float, resolution: float = 1.06
) -> float | None:
    """Search for the highest rate that holds.

    From `start` the rate is doubled, or halved, until one rate holds and the next does not; then the interval between
    them is bisected. A rate that fails is tried once more, because another program may have had the machine for a
    moment. What is found has to be confirmed; if it is not, ever lower rates are, in growing steps.

    Parameters
    ----------
    probe : callable
        A short trial. Trials need not agree with each other.
    confirm : callable
        A long one: its word is final.
    start, least, most : float
        Where to begin, and between which rates to stay, in Hz.
    resolution : float
        Where the rate that failed is at most so many times the one that held, the search ends.

    Returns
    -------
    float or None
        The highest rate that was confirmed, in Hz; None where not even one near `least` was.

    Examples
    --------
    >>> highest_rate(lambda rate: rate <= 30e6, lambda rate: rate <= 29e6, start=5e6, least=2e6, most=500e6)
    27864644.263009418
    """
    if not 0 < least <= start <= most < math.inf or not resolution > 1:
        raise ValueError(f"cannot search from {start} between {least} and {most} with a resolution of {resolution}")
    holds, fails = _bracket(probe, start, least, most)
    if holds is None:
        return None
    while fails is not None and fails > resolution * holds:
        middle = math.sqrt(holds * fails)
        if _holds(probe, middle):
            holds = middle
        else:
            fails = middle
    return _confirmed(confirm, holds, least, resolution)


def highest_of(rates: Sequence[float], probe: Trial, confirm: Trial) -> float | None:
    """As :func:`highest_rate`, among given rates, of which all are tried."""
    holding = [rate for rate in sorted(set(rates)) if _holds(probe, rate)]
    return next((rate for rate in reversed(holding) if confirm(rate)), None)


def _bracket(probe: Trial, start: float, least: float, most: float) -> tuple[float | None, float | None]:
    """A rate that holds, and a higher one that does not; None where there is none within the limits."""
    if not _holds(probe, start):
        fails, rate = start, start
        while rate > least:
            rate = max(rate / 2, least)
            if _holds(probe, rate):
                return rate, fails
            fails = rate
        return None, fails
    holds = start
    while holds < most:
        rate = min(2 * holds, most)
        if not _holds(probe, rate):
            return holds, rate
        holds = rate
    return holds, None


def _holds(probe: Trial, rate: float) -> bool:
    return probe(rate) or probe(rate)


def _confirmed(confirm: Trial, rate: float, least: float, step: float) -> float | None:
    while not confirm(rate):
        if rate <= least:
            return None
        rate, step = max(rate / step, least), step**2
    return rate
