# SPDX-License-Identifier: Apache-2.0
"""Pictures that overlap and labels that do not, joined to cells of the waterfall."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask
from rfvit_rt.web.cells import MOST_PICTURES, Cells
from rfvit_rt.web.clock import StreamClock
from rfvit_rt.web.protocol import Tile

RATE, FREQUENCY, STEP = 2e6, 800e6, 100  # samples in a step
BINS = 4


def mask(first: int, steps: int, segment: int = 0, labels: NDArray[np.int64] | None = None) -> Mask:
    if labels is None:
        labels = np.zeros((steps, BINS), int)
    probabilities = np.where(np.arange(3) == labels[:, :, None], 0.8, 0.1).astype(np.float32)
    return Mask(probabilities, first * STEP, steps * STEP, RATE, FREQUENCY, segment)


def picture(first: int, steps: int) -> NDArray[np.float32]:
    """Each step has its own number in dB."""
    return np.repeat(np.arange(first, first + steps, dtype=np.float32)[:, None], BINS, axis=1)


def show(cells: Cells, stretch: Mask) -> Tile:
    clock = StreamClock()
    clock.note(stretch.sample_start, stretch.sample_end, RATE)
    return cells.tile(stretch, clock)


def test_power_class_and_confidence_of_every_pixel() -> None:
    cells = Cells(0.0, 255.0)
    labels = np.random.default_rng(1).integers(0, 3, (8, BINS))
    cells.add_picture(picture(10, 8), mask(10, 8))
    tile = show(cells, mask(10, 8, labels=labels))
    np.testing.assert_array_equal(tile.power, picture(10, 8))
    np.testing.assert_array_equal(tile.class_number, labels)
    assert (tile.confidence == 204).all()  # 0.8 of 255
    assert (tile.sample_start, tile.samples_per_row) == (1000, 100)
    assert tile.row_seconds == pytest.approx(STEP / RATE)
    assert tile.time_start == 1000 / RATE
    assert tile.column_width == RATE / BINS
    assert tile.low_edge == FREQUENCY - RATE / 2 - RATE / BINS / 2


def test_windows_that_overlap_fill_the_stretches_between_them() -> None:
    cells = Cells(0.0, 255.0)
    cells.add_picture(picture(0, 8), mask(0, 8))
    np.testing.assert_array_equal(show(cells, mask(0, 6)).power[:, 0], range(6))
    cells.add_picture(picture(6, 8), mask(6, 8))
    np.testing.assert_array_equal(show(cells, mask(6, 6)).power[:, 0], range(6, 12))
    cells.add_picture(picture(12, 8), mask(12, 8))
    np.testing.assert_array_equal(show(cells, mask(12, 8)).power[:, 0], range(12, 20))


def test_power_is_clipped_to_what_a_byte_can_say() -> None:
    cells = Cells(-10.0, 50.0)
    levels = np.array([[-99.0, -10.0, 20.0, 99.0]], np.float32)
    cells.add_picture(levels, mask(0, 1))
    assert show(cells, mask(0, 1)).power.tolist() == [[0, 0, 127, 255]]


def test_pictures_of_another_segment_are_left_for_it() -> None:
    cells = Cells(0.0, 255.0)
    cells.add_picture(picture(0, 4), mask(0, 4))
    cells.add_picture(picture(2, 4), mask(2, 4, segment=1))  # positions began anew
    np.testing.assert_array_equal(show(cells, mask(0, 4)).power[:, 0], range(4))
    np.testing.assert_array_equal(show(cells, mask(2, 4, segment=1)).power[:, 0], range(2, 6))


def test_where_no_picture_came_there_is_no_power() -> None:
    cells = Cells(0.0, 255.0)
    cells.add_picture(picture(2, 2), mask(2, 2))
    np.testing.assert_array_equal(show(cells, mask(0, 6)).power[:, 0], [0, 0, 2, 3, 0, 0])


def test_pictures_without_labels_do_not_gather() -> None:
    cells = Cells(0.0, 255.0)
    for first in range(0, 10 * MOST_PICTURES, 4):
        cells.add_picture(picture(0, 4), mask(first, 4))
    assert len(cells._pictures) == MOST_PICTURES
