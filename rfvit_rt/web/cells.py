# SPDX-License-Identifier: Apache-2.0
"""What the model saw and what it made of it → cells of the waterfall: one for each of the model's pixels."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask
from rfvit_rt.web.clock import StreamClock
from rfvit_rt.web.protocol import SPECTRUM, Tile
from rfvit_rt.wire.summary import classify

MOST_PICTURES = 64  # that wait for their stretch of labels; two or three do


class Cells:
    """Joins windows' pictures, which overlap, to stretches of labels, which follow each other.

    Where windows overlap, the newer one's picture is taken.

    Parameters
    ----------
    db_min, db_max : float
        What power 0 and 255 stand for, in dB over the noise floor.
    """

    def __init__(self, db_min: float, db_max: float) -> None:
        self._db = (db_min, db_max)
        self._pictures: deque[tuple[NDArray[np.float32], Mask]] = deque(maxlen=MOST_PICTURES)

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take up a window, as :class:`rfvit_rt.outputs.Viewer` has it."""
        self._pictures.append((picture, mask))

    def tile(self, mask: Mask, clock: StreamClock) -> Tile:
        """Join a stretch of labels with the pictures that came before it.

        Parameters
        ----------
        mask : Mask
            With at least one time step. Each begins where the one before it ended, or later, or in another segment.
        clock : StreamClock
            Knows the stretch.
        """
        rows = mask.step_count
        step = mask.sample_count / rows
        number, probability = classify(mask)
        start, end = clock.seconds(mask.sample_start, mask.sample_end)
        return Tile(
            kind=SPECTRUM,
            sample_start=mask.sample_start,
            time_start=start,
            row_seconds=(end - start) / rows,
            low_edge=mask.lower_edge(0),
            column_width=mask.bin_width,
            power=self._power(mask),
            class_number=number,
            confidence=np.rint(probability * 255).astype(np.uint8),
            samples_per_row=step,
        )

    def _power(self, mask: Mask) -> NDArray[np.uint8]:
        """(step, bin); 0 where no picture reaches, which lost ones alone leave."""
        low, high = self._db
        power = np.zeros((mask.step_count, mask.probabilities.shape[1]), np.uint8)
        step = mask.sample_count / mask.step_count
        while self._pictures and not self._reaches(self._pictures[0][1], mask):
            self._pictures.popleft()
        for picture, window in self._pictures:
            if window.segment != mask.segment or picture.shape[1] != power.shape[1]:
                break  # of a stretch that comes later
            first = round((window.sample_start - mask.sample_start) / step)
            rows = slice(max(0, first), min(len(power), first + len(picture)))
            if rows.start < rows.stop:
                part = picture[rows.start - first : rows.stop - first]
                power[rows] = np.clip((part - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        return power

    def _reaches(self, window: Mask, mask: Mask) -> bool:
        """Whether a window is of a stretch or of one after it."""
        return window.segment > mask.segment or (
            window.segment == mask.segment and window.sample_end > mask.sample_start
        )
