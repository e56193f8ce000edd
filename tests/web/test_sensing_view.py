# SPDX-License-Identifier: Apache-2.0
"""CSI on the page: amplitudes on an even grid, gaps left open, answers and activities at the page's time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.figures import Histogram, SensingFigures
from rfvit_rt.web.board import Board
from rfvit_rt.web.protocol import CSI, Hello, Tile
from rfvit_rt.web.sensing import MOST_AMPLITUDE, SensingView
from rfvit_rt.web.server import Server
from rfvit_rt.wire.results import SensingStatus

from .serving import FREE, Page, end_of, page

LABELS = ("unknown", "still", "moving")
ROW, GAP = 0.05, 0.5  # s
INDICES = np.array([-3, -2, -1, 1, 2, 3], np.int16)
FIGURES = SensingFigures(70, 7, 1, 2, 3, 4, 0, True, Histogram())
ANSWER = SensingStatus("moving", 0.8, 0.1, 42.0, True, 70, 1, 2, 3, 4, None)


@dataclass
class Sensed:
    """A page and what feeds it."""

    shown: Page
    view: SensingView

    def frame(self, seconds: float, level: float = 1.0, number: int = 0, indices: NDArray[np.int16] = INDICES) -> None:
        amplitude = np.full((2, len(indices)), level, np.float32)
        frame = CSIFrame(amplitude.astype(np.complex64), indices, seconds, number, "made for tests")
        self.view.add_frame(frame, amplitude)

    def tiles(self, until: float) -> list[Tile]:
        self.shown.next_tile(until)
        return self.shown.tiles


@pytest.fixture
def sensed() -> Iterator[Sensed]:
    hello = Hello(
        task="activity",
        title="esp32",
        run="one",
        labels=LABELS,
        colours={},
        model="none",
        engine="none",
        sample_rate=None,
        frequency=None,
        recorded=None,
        simulated=False,
        step_seconds=ROW,
        n_bins=0,
        db_min=0.0,
        db_max=MOST_AMPLITUDE,
        power_unit="times the mean amplitude",
        history_seconds=60.0,
        duration=None,
        can_save=False,
        can_correct=False,
        save_seconds=0.0,
    )
    board = Board(hello, lambda: FIGURES)
    with Server(FREE, board) as server, page(server.access.address.port) as shown:
        shown.send("view", columns=100, rows_per_second=1 / ROW)
        yield Sensed(shown, SensingView(server, board, LABELS, ROW, GAP))


def power(times: float) -> int:
    return round(255 * times / MOST_AMPLITUDE)


def test_amplitudes_relative_to_their_recent_mean(sensed: Sensed) -> None:
    for number in range(20):  # two in a row
        sensed.frame(number * ROW / 2, 500.0, number)
    sensed.frame(10 * ROW, 1000.0, 20)
    sensed.frame(11 * ROW, 500.0, 21)
    tiles = sensed.tiles(11 * ROW)
    assert {tile.kind for tile in tiles} == {CSI}
    rows = np.concatenate([tile.power for tile in tiles])
    assert rows.shape == (11, 7)
    assert (rows[:10, [0, 1, 2, 4, 5, 6]] == power(1)).all()
    assert not rows[:, 3].any()  # the carrier, which no frame has
    mean = (20 * 500 + 1000) / 21
    mean += (500 - mean) / 22
    assert rows[10, 0] == pytest.approx(power(1000 / mean), abs=3)
    assert (tiles[0].low_edge, tiles[0].column_width) == (-3.5, 1.0)
    assert tiles[0].row_seconds == ROW
    starts = [tile.time_start for tile in tiles]
    np.testing.assert_allclose(starts, [0.0, *(end_of(tile) for tile in tiles[:-1])], atol=1e-6)


def test_a_short_silence_is_bridged_and_a_long_one_left_open(sensed: Sensed) -> None:
    for number, seconds in enumerate((0.0, 0.3, 1.3, 1.35, 1.4)):
        sensed.frame(seconds + 0.01, number=number)
    tiles = sensed.tiles(1.4)
    covered = np.concatenate(
        [np.round((tile.time_start + np.arange(len(tile.power)) * ROW) / ROW).astype(int) for tile in tiles]
    )
    assert covered.tolist() == [0, 1, 2, 3, 4, 5, 6, 26, 27]


def test_a_clock_that_is_set_back_goes_on(sensed: Sensed) -> None:
    for seconds in (0.0, 0.05, 0.1, 0.15, 0.0, 0.05, 0.1, 0.15):
        sensed.frame(seconds + 0.01)
    tiles = sensed.tiles(0.35)
    starts = [tile.time_start for tile in tiles]
    assert starts == sorted(starts)
    assert sum(len(tile.power) for tile in tiles) == 7


def test_another_device_has_columns_of_its_own(sensed: Sensed) -> None:
    for number in range(3):
        sensed.frame(number * ROW + 0.01)
    wide = np.arange(-28, 28, 2, dtype=np.int16)
    for number in range(3, 6):
        sensed.frame(number * ROW + 0.01, 70.0, indices=wide)
    tiles = sensed.tiles(5 * ROW)
    shapes = [(tile.power.shape[1], tile.low_edge, tile.column_width) for tile in tiles]
    assert set(shapes) == {(7, -3.5, 1.0), (28, -28.5, 2.0)}
    assert (tiles[-1].power == power(1)).all()  # in units of its own


def test_answers_and_activities(sensed: Sensed) -> None:
    for number in range(4):
        sensed.frame(number * ROW + 0.01)
    sensed.view.write(ANSWER)
    answer = sensed.shown.next("answer")
    assert (answer["label"], answer["confidence"], answer["time"]) == ("moving", 0.8, pytest.approx(0.1))
    sensed.frame(4 * ROW + 0.01)
    sensed.frame(5 * ROW + 0.01)
    rows = sensed.tiles(5 * ROW)[-1]
    assert (rows.class_number[-1] == 2).all()
    assert (rows.confidence[-1] == 204).all()
    sensed.view.write(replace(ANSWER, label="unknown"))
    sensed.view.write(Activity("moving", 0.05, 0.2, 1, 3, 0.75, 20.0, 1))
    activity = sensed.shown.next("activity")
    assert (activity["label"], activity["confidence"], activity["lost"]) == ("moving", 0.75, 1)
    assert (activity["time_start"], activity["time_end"]) == (pytest.approx(0.05), pytest.approx(0.2))
    status = sensed.shown.next("status", position=70, achieved_rate=42.0)
    assert status["lost"] == {"lost": 1, "dropped": 2, "foreign": 3, "malformed": 4}
    assert (status["age"], status["recorded"], status["windows"]) == (None, True, 7)


def test_there_is_nothing_to_correct_or_save(sensed: Sensed) -> None:
    sensed.shown.send("save", seconds=1)
    assert "nothing of this" in sensed.shown.next("error")["message"]


def test_amplitudes_that_are_nothing(sensed: Sensed) -> None:
    for number in range(4):
        sensed.frame(number * ROW + 0.01, level=0.0)
    assert not sensed.tiles(3 * ROW)[-1].power.any()
