# SPDX-License-Identifier: Apache-2.0
"""In which portions and in which order work goes to a device that copies and computes at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Portion:
    """Some pictures of a batch, run together.

    Attributes
    ----------
    start, count : int
        Which pictures: `count` from `start` on.
    size : int
        Batch size that they are run in, at least `count`; what is more is padding, whose results nobody reads.
    """

    start: int
    count: int
    size: int


@dataclass(frozen=True)
class Step:
    """One thing to do: hand a portion to a slot's buffers and start it, or wait for it and take its results."""

    action: Literal["submit", "collect"]
    slot: int
    portion: Portion


def portions(count: int, sizes: Sequence[int]) -> Iterator[Portion]:
    """Divide a batch into the sizes that a device is prepared for.

    Parameters
    ----------
    count : int
        Number of pictures.
    sizes : sequence of int
        Batch sizes, in ascending order.

    Yields
    ------
    Portion
        In order, without a gap. The size is the largest that is filled, or the next above where padding does less than
        double the work.

    Examples
    --------
    >>> [portion.size for portion in portions(45, (1, 8, 32))]
    [32, 8, 8]
    """
    start = 0
    while start < count:
        left = count - start
        filled = max((size for size in sizes if size <= left), default=sizes[0])
        padded = next((size for size in sizes if left < size < 2 * left), filled)
        taken = min(left, padded)
        yield Portion(start, taken, padded)
        start += taken


def overlapped(work: Iterable[Portion], slots: int = 2) -> Iterator[Step]:
    """Order in which portions are submitted and collected, so that up to `slots` of them are under way.

    A slot is collected before it is submitted again: at that moment nothing on the device reads or writes its buffers.
    While the results of one portion are copied and read, the next one computes.
    """
    under_way: deque[tuple[int, Portion]] = deque()
    for number, portion in enumerate(work):
        if len(under_way) == slots:
            yield Step("collect", *under_way.popleft())
        under_way.append((number % slots, portion))
        yield Step("submit", *under_way[-1])
    while under_way:
        yield Step("collect", *under_way.popleft())
