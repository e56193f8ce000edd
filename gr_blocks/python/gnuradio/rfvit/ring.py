# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest samples of a stream, by their positions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


class Ring:
    """Holds the newest `capacity` samples that were written.

    Parameters
    ----------
    capacity : int
        Samples; 8 bytes each, which the system hands out as they are first written.
    """

    def __init__(self, capacity: int) -> None:
        self._samples = np.empty(capacity, np.complex64)

    def write(self, position: int, samples: NDArray[np.complex64]) -> None:
        """Store the samples from `position` on; of more than fit, the last."""
        capacity = len(self._samples)
        skipped = max(0, len(samples) - capacity)
        for place, part in self._parts(position + skipped, len(samples) - skipped):
            self._samples[place] = samples[skipped:][part]

    def read(self, position: int, out: NDArray[np.complex64]) -> None:
        """Fill `out` with the samples from `position` on, which must be held."""
        for place, part in self._parts(position, len(out)):
            out[part] = self._samples[place]

    def _parts(self, position: int, count: int) -> Iterator[tuple[slice, slice]]:
        """Where so many samples lie here, and where in a row."""
        if not count:
            return
        start = position % len(self._samples)
        first = min(count, len(self._samples) - start)
        yield slice(start, start + first), slice(0, first)
        if first < count:
            yield slice(0, count - first), slice(first, count)
