# SPDX-License-Identifier: Apache-2.0
"""Sensing on the page: CSI as a heat map on an even time grid, answers and activities beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.web.board import Board
from rfvit_rt.web.protocol import CSI, Tile
from rfvit_rt.web.server import Server
from rfvit_rt.wire.results import Result, SensingStatus

MOST_AMPLITUDE = 3.0
"""What power 255 stands for, in times the recent mean amplitude."""

RECENT_FRAMES = 500  # that the mean amplitude is taken over
MOST_WAITING = 20_000  # rows on their way to the server's thread: a file is read fast
TICKS = 1e6  # positions in a second on the board's clock: frames come when they like


class SensingView:
    """Takes frames and results of a run, and never makes it wait.

    Amplitudes are shown relative to the mean of the last few hundred frames, because devices count in units of their
    own. A row is a step of the model's time grid and has the mean of its frames; where none came for less than the gap
    that the model bridges, the last one is shown again.

    Parameters
    ----------
    server : Server
    board : Board
        The server's.
    labels : sequence of str
        As the page has them; the first stands for what is none of the others.
    row_seconds : float
        Duration of a row.
    max_gap : float
        Longest time between two frames that is bridged, in s.
    """

    def __init__(self, server: Server, board: Board, labels: Sequence[str], row_seconds: float, max_gap: float) -> None:
        self._server = server
        self._board = board
        self._labels = tuple(labels)
        self._row_seconds = row_seconds
        self._most_rows = max(1, round(max_gap / row_seconds))
        self._level = 0.0
        self._frames = 0
        self._layout: _Layout | None = None
        self._row: _Row | None = None

    def add_frame(self, frame: CSIFrame, amplitude: NDArray[np.float32]) -> None:
        """Take up a frame.

        Parameters
        ----------
        frame : CSIFrame
            Its time stamp is in seconds since the stream's start.
        amplitude : (antenna, subcarrier) float32
            What is to be shown of it, in any unit.
        """
        number = int(frame.timestamp / self._row_seconds)
        is_same = self._layout is not None and self._layout.fits(frame)
        if self._row is not None and not (is_same and number == self._row.number):
            following = number if is_same and 0 < number - self._row.number <= self._most_rows else self._row.number + 1
            self._finish(self._row, following - self._row.number)
            self._row = None
        if not is_same:
            self._layout, self._frames = _Layout(frame), 0
        assert self._layout is not None
        columns = self._layout.columns(amplitude)
        self._frames += 1
        self._level += (float(amplitude.mean()) - self._level) / min(self._frames, RECENT_FRAMES)
        if self._row is None:
            self._row = _Row(number, frame.frame_index, np.zeros(len(columns), np.float32))
        self._row.total += columns
        self._row.count += 1

    def write(self, result: Result) -> None:
        """Take up a result."""
        if isinstance(result, Activity):
            self._server.post(lambda: self._tell(result))
        elif isinstance(result, SensingStatus):
            self._server.post(lambda: self._answer(result))

    def _finish(self, row: _Row, times: int) -> None:
        """Show a row, so many times."""
        assert self._layout is not None
        relative = row.total / row.count / self._level if self._level > 0 else row.total
        power = np.rint(np.clip(relative * (255 / MOST_AMPLITUDE), 0, 255)).astype(np.uint8)
        low_edge, width = self._layout.low_edge, float(self._layout.step)
        self._server.post(lambda: self._show(row, np.tile(power, (times, 1)), low_edge, width), MOST_WAITING)

    # ---- in the server's thread ----

    def _show(self, row: _Row, power: NDArray[np.uint8], low_edge: float, column_width: float) -> None:
        begin = row.number * self._row_seconds
        start = self._note(begin, begin + len(power) * self._row_seconds)
        label, confidence = self._board.answer
        number = self._labels.index(label) if label in self._labels else 0
        self._board.describe_columns(power.shape[1], None)
        self._board.show(
            Tile(
                kind=CSI,
                sample_start=row.frame_index,
                time_start=start,
                row_seconds=self._row_seconds,
                low_edge=low_edge,
                column_width=column_width,
                power=power,
                class_number=np.full(power.shape, number, np.uint8),
                confidence=np.full(power.shape, round(255 * confidence), np.uint8),
                samples_per_row=self._row_seconds * (self._board.achieved_rate or 0.0),
            )
        )

    def _note(self, time_start: float, time_end: float) -> float:
        """Have the clock take up a stretch; return where it begins on the page."""
        first, last = round(time_start * TICKS), round(time_end * TICKS)
        self._board.clock.note(first, last, TICKS)
        return self._board.clock.seconds(first, last)[0]

    def _answer(self, status: SensingStatus) -> None:
        self._board.note_rate(status.frame_rate)
        moment = round(status.time * TICKS)
        seconds, _ = self._board.clock.seconds(moment, moment)
        self._board.note_answer(status.label, status.confidence, seconds)

    def _tell(self, activity: Activity) -> None:
        start, end = self._board.clock.seconds(round(activity.time_start * TICKS), round(activity.time_end * TICKS))
        self._board.tell(
            "activity",
            label=activity.label,
            time_start=start,
            time_end=end,
            confidence=activity.confidence,
            frame_rate=activity.frame_rate,
            lost=activity.lost,
        )


class _Row:
    """Sum of the frames of a row."""

    def __init__(self, number: int, frame_index: int, total: NDArray[np.float32]) -> None:
        self.number = number
        self.frame_index = frame_index
        self.total = total  # (column,)
        self.count = 0


class _Layout:
    """Where a device's subcarriers lie on even columns."""

    def __init__(self, frame: CSIFrame) -> None:
        self._subcarriers = frame.subcarriers
        self._device = frame.device
        indices = frame.subcarriers.astype(int)
        self.step = max(1, int(np.median(np.diff(indices)))) if len(indices) > 1 else 1
        self.low_edge = float(indices[0]) - 0.5
        self._column = (indices - indices[0]) // self.step
        self._size = np.maximum(1, np.bincount(self._column))

    def fits(self, frame: CSIFrame) -> bool:
        """Whether a frame is of the same device and subcarriers."""
        return frame.device == self._device and np.array_equal(frame.subcarriers, self._subcarriers)

    def columns(self, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean over the antennas and the subcarriers of each column; 0 where a column has none."""
        sums = np.bincount(self._column, weights=amplitude.mean(axis=0), minlength=len(self._size))
        return (sums / self._size).astype(np.float32)
