# SPDX-License-Identifier: Apache-2.0
"""The waterfall that the server holds: every row once, decimated as pages ask, coarser with age, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.web.protocol import MAX_ROWS, SPECTRUM, Tile, View
from rfvit_rt.web.waterfall import Waterfall, decimate

STEP = 1 / 6400  # s
WHOLE = View(columns=4096, rows_per_second=1e6)


def tile(first: int, rows: int, columns: int = 8, seed: int = 0, low_edge: float = 0.0) -> Tile:
    """Rows of a stream that counts 100 samples a row, from a row on."""
    rng = np.random.default_rng(seed + first)
    power, confidence = rng.integers(0, 256, (2, rows, columns), np.uint8)
    classes = rng.integers(0, 3, (rows, columns), np.uint8) * rng.integers(0, 2, (rows, columns), np.uint8)
    return Tile(SPECTRUM, 100 * first, first * STEP, STEP, low_edge, 1.0, power, classes, confidence, 100.0)


def read_all(waterfall: Waterfall, view: View = WHOLE, number: int = 0) -> list[Tile]:
    tiles = []
    while True:
        found, number = waterfall.read(number, view)
        if found is None:
            return tiles
        tiles.append(found)


def pooled(whole: Tile, factor: int, width: int) -> tuple[NDArray[np.uint8], ...]:
    """What the protocol says of a cell that stands for several pixels, one cell after the other."""
    rows, columns = len(whole.power) // factor, -(-whole.power.shape[1] // width)
    power, number, confidence = np.zeros((3, rows, columns), np.uint8)
    for row in range(rows):
        for column in range(columns):
            place = slice(row * factor, (row + 1) * factor), slice(column * width, (column + 1) * width)
            power[row, column] = whole.power[place].max()
            labels = whole.class_number[place]
            counts = np.bincount(labels[labels > 0], minlength=1)
            number[row, column] = counts.argmax() if counts.any() else 0
            confidence[row, column] = whole.confidence[place][labels == number[row, column]].max()
    return power, number, confidence


@pytest.mark.parametrize(("factor", "columns", "most"), [(1, 8, 8), (4, 8, 8), (1, 8, 3), (5, 9, 4), (20, 16, 1)])
def test_cells_are_pooled_as_the_protocol_says(factor: int, columns: int, most: int) -> None:
    whole = tile(0, 20, columns)
    width = -(-columns // most)
    small = decimate(whole, factor, most)
    power, number, confidence = pooled(whole, factor, width)
    np.testing.assert_array_equal(small.power, power)
    np.testing.assert_array_equal(small.class_number, number)
    np.testing.assert_array_equal(small.confidence, confidence)
    assert small.row_seconds == pytest.approx(factor * STEP)
    assert small.column_width == width
    assert small.samples_per_row == 100 * factor


def test_whoever_reads_on_gets_every_row_once() -> None:
    waterfall, number, seen = Waterfall(), 0, []
    for first in range(0, 1000, 50):
        waterfall.append(tile(first, 50))
        found, number = waterfall.read(number, View(8, 6400 / 32))
        if found is not None:
            seen.append(found)
    assert number == 1000 - 1000 % 32
    assert np.concatenate([part.power for part in seen]).shape == (31, 8)
    starts = [part.sample_start for part in seen]
    ends = [part.sample_start + round(len(part.power) * part.samples_per_row) for part in seen]
    assert starts == [0, *ends[:-1]]
    power = np.concatenate([tile(first, 50).power for first in range(0, 1000, 50)])[: 31 * 32]
    np.testing.assert_array_equal(np.concatenate([part.power for part in seen]), power.reshape(31, 32, 8).max(axis=1))


def test_what_fills_a_row_in_part_waits_until_nothing_can_follow() -> None:
    view = View(8, 6400 / 32)
    waterfall = Waterfall()
    waterfall.append(tile(0, 40))
    first, number = waterfall.read(0, view)
    assert first is not None
    assert (len(first.power), number) == (1, 32)
    assert waterfall.read(number, view) == (None, 32)
    waterfall.append(tile(100, 40))  # 60 rows were lost: nothing continues the first stretch
    rest, number = waterfall.read(number, view)
    assert rest is not None
    assert (len(rest.power), rest.row_seconds, number) == (1, pytest.approx(8 * STEP), 40)
    after, number = waterfall.read(number, view)
    assert after is not None
    assert after.time_start == pytest.approx(100 * STEP)
    waterfall.closed = True
    assert waterfall.read(number, view)[1] == 80


def test_a_retune_begins_a_tile_of_its_own() -> None:
    waterfall = Waterfall()
    waterfall.append(tile(0, 10))
    waterfall.append(tile(10, 10, low_edge=5e6))
    waterfall.append(tile(20, 10, columns=16, low_edge=5e6))
    waterfall.closed = True
    assert [(part.low_edge, part.power.shape) for part in read_all(waterfall)] == [
        (0.0, (10, 8)),
        (5e6, (10, 8)),
        (5e6, (10, 16)),
    ]


def test_a_tile_has_no_more_rows_than_a_page_takes() -> None:
    waterfall = Waterfall()
    for first in range(0, 3000, 100):
        waterfall.append(tile(first, 100))
    waterfall.closed = True
    parts = read_all(waterfall)
    assert [len(part.power) for part in parts] == [MAX_ROWS, MAX_ROWS, 3000 - 2 * MAX_ROWS]


def test_what_is_old_fades_and_then_goes_and_memory_stays_the_same() -> None:
    fine, coarse = 2**18, 2**14
    waterfall = Waterfall(fine, coarse)
    rows = 100_000
    for first in range(0, rows, 200):
        waterfall.append(tile(first, 200))
    waterfall.closed = True
    assert 3 * sum(part.power.size for part in read_all(waterfall)) < 1.2 * (fine + coarse)
    assert 0 < waterfall.begin < waterfall.end == rows
    parts = read_all(waterfall)
    assert {round(part.row_seconds / STEP) for part in parts} >= {1, 128}  # 20 ms is 128 rows
    # Nothing between the oldest and the newest is missing or told twice.
    starts = [part.time_start for part in parts]
    ends = [part.time_start + len(part.power) * part.row_seconds for part in parts]
    np.testing.assert_allclose(starts[1:], ends[:-1], atol=STEP / 100)
    assert ends[-1] == pytest.approx(rows * STEP)
    np.testing.assert_array_equal(parts[-1].power[-200:], tile(rows - 200, 200).power)


@pytest.mark.parametrize("rows_per_second", [1e6, 6400, 333.3, 70, 48, 26.7, 2.67, 0.1])
@pytest.mark.parametrize("stretch", [192, 200, 177])
def test_what_has_faded_is_read_by_every_page(stretch: int, rows_per_second: float) -> None:
    waterfall = Waterfall(2**17, 2**15)
    for first in range(0, 200 * stretch, stretch):
        waterfall.append(tile(first, stretch))
    waterfall.closed = True
    parts = read_all(waterfall, View(5, rows_per_second), waterfall.begin)
    assert parts[0].row_seconds > 2 * STEP
    starts = [part.time_start for part in parts]
    ends = [part.time_start + len(part.power) * part.row_seconds for part in parts]
    np.testing.assert_allclose(starts[1:], ends[:-1], atol=STEP / 100)
    assert ends[-1] == pytest.approx(200 * stretch * STEP)
    assert all(part.power.shape[1] == 4 for part in parts)


def test_reading_from_a_time() -> None:
    waterfall = Waterfall()
    waterfall.append(tile(0, 100))
    waterfall.append(tile(200, 100))
    assert waterfall.number_at(0.0) == 0
    assert waterfall.number_at(50 * STEP) == 50
    assert waterfall.number_at(150 * STEP) == 100  # lost: the next one
    assert waterfall.number_at(250 * STEP) == 150
    assert waterfall.number_at(1e6) == 200
    assert waterfall.time_of(150, -1.0) == pytest.approx(250 * STEP)
    assert waterfall.time_of(200, -1.0) == -1.0
    mark = waterfall.mark(150)
    assert mark is not None
    assert (len(mark.power), mark.time_start) == (0, pytest.approx(250 * STEP))
    assert waterfall.mark(200) is None


def test_an_empty_waterfall_has_nothing_to_say() -> None:
    waterfall = Waterfall()
    assert waterfall.read(0, WHOLE) == (None, 0)
    assert (waterfall.begin, waterfall.end, waterfall.mark(0)) == (0, 0, None)


def test_a_band_wider_than_the_page_is_pooled() -> None:
    waterfall = Waterfall()
    waterfall.append(replace(tile(0, 64, columns=1000), column_width=1e3))
    waterfall.closed = True
    (found,) = read_all(waterfall, View(300, 100.0))
    assert found.power.shape == (1, 250)
    assert found.column_width == 4e3
