# SPDX-License-Identifier: Apache-2.0
"""The waterfall that the server holds: what came last in full, what was before that coarsely, in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.web.protocol import MAX_ROWS, Tile, View

FINE_BYTES = 96 * 2**20
"""Held in full: 20 s of 256 bins at 6400 steps/s."""

COARSE_BYTES = 24 * 2**20
"""Held coarsely: 10 min of 256 bins."""

OVERHEAD = 1024  # bytes of a stretch besides its cells; CSI's are of one row
COARSE_SECONDS = 0.02  # duration of a coarse row
COARSE_ROWS = 64  # made at a time
ROUNDING = 1e-6  # share of a row by which times that are one may differ


@dataclass(frozen=True)
class _Stretch:
    """A tile and the numbers of its rows, which count the rows of the whole run as they came."""

    begin: int
    end: int
    tile: Tile

    @property
    def is_full(self) -> bool:
        return self.end - self.begin == len(self.tile.power)


class Waterfall:
    """Stretches of the stream in order.

    Rows are numbered from 0 as they come; a reader keeps the number of the row that it wants next. For one thread only.

    Parameters
    ----------
    fine_bytes, coarse_bytes : int
        Most bytes held in full, and coarsely.

    Attributes
    ----------
    end : int
        Number of the row that will come next.
    closed : bool
        Whether nothing more will come.
    """

    def __init__(self, fine_bytes: int = FINE_BYTES, coarse_bytes: int = COARSE_BYTES) -> None:
        self.end = 0
        self.closed = False
        self._fine = _Held(fine_bytes)
        self._coarse = _Held(coarse_bytes)

    @property
    def begin(self) -> int:
        """Number of the oldest row that is held."""
        return next((stretch.begin for stretch in self._stretches()), self.end)

    def append(self, tile: Tile) -> None:
        """Take up the next stretch; as many bytes of the oldest ones fade, or go."""
        self._fine.append(_Stretch(self.end, self.end + len(tile.power), tile))
        self.end += len(tile.power)
        while self._fine.is_too_large:
            for stretch in _coarse(self._fine.take_run()):
                self._coarse.append(stretch)
        while self._coarse.is_too_large:
            self._coarse.take()

    def number_at(self, seconds: float) -> int:
        """Number of the row at a time of the stream: of the next one that is held, where it is not."""
        for stretch in self._stretches():
            duration = len(stretch.tile.power) * stretch.tile.row_seconds
            inside = (seconds - stretch.tile.time_start) / duration
            if inside < 1 - ROUNDING:
                return stretch.begin + int((stretch.end - stretch.begin) * max(0.0, inside + ROUNDING))
        return self.end

    def time_of(self, number: int, otherwise: float) -> float:
        """Time of a row in s of the stream, or of the next one that is held; `otherwise` where none is."""
        stretch = next(self._stretches(number), None)
        if stretch is None:
            return otherwise
        inside = max(0, number - stretch.begin) / (stretch.end - stretch.begin)
        return stretch.tile.time_start + inside * len(stretch.tile.power) * stretch.tile.row_seconds

    def mark(self, number: int) -> Tile | None:
        """Give a tile without rows at the place where reading from a row begins; None where nothing is held there."""
        stretch = next(self._stretches(number), None)
        if stretch is None:
            return None
        return _rows(stretch.tile, first := (max(0, number - stretch.begin) if stretch.is_full else 0), first)

    def read(self, number: int, view: View) -> tuple[Tile | None, int]:
        """Read on from a row, decimated to a view, as many rows as make one tile.

        Parameters
        ----------
        number : int
            Of the row to begin with, or of one that is no longer held.
        view : View

        Returns
        -------
        Tile or None
            None where there is nothing yet: rows of the stream that fill a row of the view only in part are left until
            the others came.
        int
            Number of the row to read next.
        """
        run = self._run(number, view)
        if not run:
            return None, number
        begin, tile = max(number, run[0].begin), _join([stretch.tile for stretch in run])
        if not run[0].is_full:
            return decimate(tile, _whole_factor(tile, view), view.columns), run[-1].end
        tile = _rows(tile, begin - run[0].begin, len(tile.power))
        rows, factor = len(tile.power), _factor(tile, view)
        if rows < factor:
            if not self._is_over(run[-1]):
                return None, begin
            factor = rows
        rows = min(MAX_ROWS, rows // factor) * factor
        return decimate(_rows(tile, 0, rows), factor, view.columns), begin + rows

    def _run(self, number: int, view: View) -> list[_Stretch]:
        """Stretches from a row on that can be one tile and suffice for it; faded ones are tiles of their own."""
        run: list[_Stretch] = []
        for stretch in self._stretches(number):
            if run and not (run[-1].is_full and stretch.is_full and _continues(run[-1].tile, stretch.tile)):
                break
            run.append(stretch)
            if stretch.end - max(number, run[0].begin) >= MAX_ROWS * _factor(stretch.tile, view):
                break
        return run

    def _is_over(self, last: _Stretch) -> bool:
        """Whether what follows a stretch, if anything will, does not continue it."""
        return self.closed or last.end < self.end

    def _stretches(self, number: int = 0) -> Iterator[_Stretch]:
        """Those that end behind a row, the oldest first."""
        for held in (self._coarse, self._fine):
            yield from held.behind(number)


class _Held:
    """Stretches up to a number of bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._size = 0
        self._stretches: deque[_Stretch] = deque()

    @property
    def is_too_large(self) -> bool:
        return self._size > self._room and len(self._stretches) > 1

    def append(self, stretch: _Stretch) -> None:
        self._stretches.append(stretch)
        self._size += _size(stretch)

    def take(self) -> _Stretch:
        oldest = self._stretches.popleft()
        self._size -= _size(oldest)
        return oldest

    def take_run(self) -> list[_Stretch]:
        """Take the oldest, and those that continue it, up to what makes `COARSE_ROWS`; the newest stays."""
        run = [self.take()]
        enough = COARSE_ROWS * _coarse_factor(run[0].tile)
        while (
            len(self._stretches) > 1
            and run[-1].end - run[0].begin < enough
            and _continues(run[-1].tile, self._stretches[0].tile)
        ):
            run.append(self.take())
        return run

    def behind(self, number: int) -> Iterable[_Stretch]:
        if not self._stretches or self._stretches[-1].end <= number:
            return ()
        wanted: deque[_Stretch] = deque()  # gathered from the newest: who reads as it comes wants but a few
        for stretch in reversed(self._stretches):
            if stretch.end <= number:
                break
            wanted.appendleft(stretch)
        return wanted


def _size(stretch: _Stretch) -> int:
    return OVERHEAD + 3 * stretch.tile.power.size


def history_seconds(columns: int) -> float:
    """How far back a waterfall of so many columns goes, coarsely, in s."""
    return COARSE_BYTES / (3 * columns + OVERHEAD / COARSE_ROWS) * COARSE_SECONDS


def decimate(tile: Tile, factor: int, most_columns: int) -> Tile:
    """Pool cells: the strongest power, the signal with most pixels, and the highest confidence of those.

    Parameters
    ----------
    tile : Tile
        Its rows are a multiple of `factor`.
    factor : int
        Rows that become one.
    most_columns : int
        Neighbouring columns become one until there are at most so many. The last one may be of fewer than the others.
    """
    width = math.ceil(tile.power.shape[1] / most_columns)
    if factor == 1 and width == 1:
        return tile
    class_number, confidence = _pooled_classes(tile, factor, width)
    return replace(
        tile,
        row_seconds=tile.row_seconds * factor,
        samples_per_row=tile.samples_per_row * factor,
        column_width=tile.column_width * width,
        power=_pool(np.maximum, tile.power, factor, width),
        class_number=class_number,
        confidence=confidence,
    )


def _pooled_classes(tile: Tile, factor: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rows, columns = len(tile.power) // factor, math.ceil(tile.power.shape[1] / width)
    counted = np.uint8 if factor * width < 256 else np.uint32
    number, most = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), counted)
    for label in np.flatnonzero(np.bincount(tile.class_number.ravel(), minlength=1)):
        if label:
            count = _pool(np.add, (tile.class_number == label).astype(counted), factor, width)
            np.copyto(number, np.uint8(label), where=count > most)
            np.maximum(most, count, out=most)
    wins = tile.class_number == np.repeat(np.repeat(number, factor, 0), width, 1)[:, : tile.power.shape[1]]
    return number, _pool(np.maximum, tile.confidence * wins, factor, width)


def _pool(function: np.ufunc, cells: NDArray[Any], factor: int, width: int) -> NDArray[Any]:
    rows, columns = cells.shape
    if factor > 1:
        cells = function.reduce(cells.reshape(rows // factor, factor, columns), axis=1, dtype=cells.dtype)
    if width > 1:
        cells = function.reduceat(cells, np.arange(0, columns, width), axis=1)
    return cells


def _coarse(run: Sequence[_Stretch]) -> Iterator[_Stretch]:
    """Make a run coarse; what does not fill the last row becomes a short one of its own."""
    tile = _join([stretch.tile for stretch in run])
    begin, rows, factor = run[0].begin, len(tile.power), _coarse_factor(tile)
    whole = rows // factor * factor
    for first, last, pooled in ((0, whole, factor), (whole, rows, rows - whole)):
        if last > first:
            part = decimate(_rows(tile, first, last), pooled, tile.power.shape[1])
            yield _Stretch(begin + first, begin + last, part)


def _coarse_factor(tile: Tile) -> int:
    return max(1, round(COARSE_SECONDS / tile.row_seconds))


def _factor(tile: Tile, view: View) -> int:
    """Rows of a tile that become one row of a view."""
    return max(1, math.ceil(1 / (view.rows_per_second * tile.row_seconds) - ROUNDING))


def _whole_factor(tile: Tile, view: View) -> int:
    """The same of a tile that is given whole, so that no row is left: at most that, and a divisor of its rows."""
    rows = len(tile.power)
    return next(factor for factor in range(min(_factor(tile, view), rows), 0, -1) if rows % factor == 0)


def _continues(one: Tile, other: Tile) -> bool:
    """Whether a tile goes on where another ends, with the same cells."""
    end = one.time_start + len(one.power) * one.row_seconds
    return (
        (one.kind, one.low_edge, one.column_width) == (other.kind, other.low_edge, other.column_width)
        and one.power.shape[1] == other.power.shape[1]
        and math.isclose(one.row_seconds, other.row_seconds, rel_tol=0.01)
        and abs(other.time_start - end) <= one.row_seconds
    )


def _join(tiles: Sequence[Tile]) -> Tile:
    if len(tiles) == 1:
        return tiles[0]
    return replace(
        tiles[0],
        power=np.concatenate([tile.power for tile in tiles]),
        class_number=np.concatenate([tile.class_number for tile in tiles]),
        confidence=np.concatenate([tile.confidence for tile in tiles]),
    )


def _rows(tile: Tile, first: int, last: int) -> Tile:
    """Some rows of a tile."""
    if first == 0 and last == len(tile.power):
        return tile
    return replace(
        tile,
        sample_start=tile.sample_start + round(first * tile.samples_per_row),
        time_start=tile.time_start + first * tile.row_seconds,
        power=tile.power[first:last],
        class_number=tile.class_number[first:last],
        confidence=tile.confidence[first:last],
    )
