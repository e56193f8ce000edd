# SPDX-License-Identifier: Apache-2.0
"""The page when its server comes, goes and comes back, and when there is something to be worried about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rfvit_rt.datatypes import Mask
from rfvit_rt.sinks.prometheus import Address
from rfvit_rt.web import connection

from .browser import Window, window
from .serving import FREQUENCY, LABELS, PATIENCE, RATE, STRETCH, Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECONDS = STRETCH / RATE  # of one stretch

# Those that connect, which none does as long as the server is away.
KEEP_SOCKETS = """
window.sockets = [];
window.isAway = false;
window.WebSocket = class extends WebSocket {
  constructor(address) {
    super(window.isAway ? new URL("/nowhere", address) : address);
    if (!window.isAway) window.sockets.push(this);
  }
};
"""


def power_at(shown: Window, seconds: float) -> float:
    """What is to be read at a time, in the middle of the band."""
    axes = shown.axes()
    read = shown.point(axes.x(FREQUENCY / 1e6), axes.y(seconds))
    found = re.search(r"([\d.]+) dB", read)
    assert found, read
    return float(found[1])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(connection, "FIRST_VIEW", PATIENCE)  # a page gets what it asks for, however slow it is
    with serving(tmp_path) as served:
        served.feed(40)
        yield served


@pytest.fixture
def shown(browser: Browser, served: Served) -> Iterator[Window]:
    with window(browser, served.server.access.url, script=KEEP_SOCKETS) as shown:
        shown.wait_for_rows(40 * SECONDS)
        shown.choose_span(2)
        shown.wait_for_rows(40 * SECONDS)
        yield shown


def test_a_lost_connection_goes_on_where_it_was(shown: Window, served: Served) -> None:
    """The same run: what was there stays, and what came meanwhile is fetched."""
    before = len(shown.tiles)
    shown.may_lose_connection = True
    shown.page.evaluate("() => { window.isAway = true; window.sockets.at(-1).close(); }")
    shown.wait_for_text("#connection", "connection lost")
    assert "Connection lost. What is shown is from before. Trying again" in shown.text("#lost")
    shown.page.locator("#plot").press("s")
    assert shown.text("#message").startswith("There is no connection; nothing was saved.")
    served.feed(8)
    shown.page.evaluate("() => (window.isAway = false)")
    shown.wait_for_text("#connection", "live")  # by itself
    shown.may_lose_connection = False
    assert shown.page.locator("#lost").is_hidden()
    assert shown.page.evaluate("() => window.sockets.length") == 2
    shown.wait_for_rows(48 * SECONDS)
    served.feed(2)
    shown.wait_for_rows(50 * SECONDS)
    again = [tile for tile in shown.tiles[before:] if tile.time_start < 39 * SECONDS]
    assert not again  # nothing came twice
    # Each stretch has a power of its own: all are there, from before, meanwhile and after.
    for number in (5, 30, 39, 41, 46, 49):
        assert power_at(shown, (number + 0.5) * SECONDS) == number


def test_another_run_begins_anew(shown: Window, served: Served, browser: Browser, tmp_path: Path) -> None:
    served.find(3000, 100_000)
    shown.until(lambda: "annotation" in shown.messages)
    shown.may_lose_connection = True
    served.server.end("the stream is over")
    shown.wait_for_text("#connection", "run over")
    shown.until(lambda: "end" in shown.messages)
    assert shown.text("#message").startswith("The stream is over. What was received can still be looked at.")
    served.server.close()
    shown.wait_for_text("#lost", "The run is over, and the server is gone. What is shown is from before.")
    assert shown.text("#connection") == "connection lost"
    assert power_at(shown, 10.5 * SECONDS) == 10  # it can
    shown.tiles.clear()
    with serving(tmp_path, Address("127.0.0.1", served.port), run="two") as another:
        another.feed(3, label=2)
        shown.page.evaluate("() => document.getElementById('retry').click()")  # if it is not back already
        shown.wait_for_text("#connection", "live")
        shown.wait_for_rows(3 * SECONDS)
        axes = shown.axes()
        assert axes.time < 3 * SECONDS  # time began anew
        assert shown.point(axes.x(805.5), axes.y(1.5 * SECONDS)).endswith("NR 90 %")  # and the old box is gone
        assert shown.point(axes.x(805.5), axes.y(-0.5)).endswith("no data")


def test_what_was_lost_is_said_and_left_out(shown: Window, served: Served) -> None:
    assert "⚠ samples: 1 on the way, 2 in the radio" in shown.text("#health")
    assert "p50 10 ms · p95 25 ms · p99 50 ms" in shown.text("#health")
    served.stretches += 10
    served.feed(10)
    shown.wait_for_rows(60 * SECONDS)
    axes = shown.axes()
    assert shown.point(axes.x(806.2), axes.y(45 * SECONDS)).endswith("no data")
    assert power_at(shown, 39.5 * SECONDS) == 39
    assert power_at(shown, 50.5 * SECONDS) == 0  # 50 stretches later, powers begin again
    gap = shown.picture()[round(axes.y(50 * SECONDS)) + 4 : round(axes.y(40 * SECONDS)) - 4]
    hatching = gap[:, round(axes.x(805.2)) : round(axes.x(805.5))]
    assert hatching.std() > 0.05  # not just empty


def test_bands_that_change(shown: Window, served: Served) -> None:
    """A survey: each stretch is where it was received, and the newest can have the whole width."""
    width = shown.axes().per_x
    probabilities = np.full((192, 64, len(LABELS)), 1 / 3, np.float32)
    at = served.stretches * STRETCH
    for number, frequency in enumerate((FREQUENCY, FREQUENCY + 2e6)):
        mask = Mask(probabilities, at + number * STRETCH, STRETCH, RATE, frequency)
        served.view.add_block(served.block(at + number * STRETCH))
        served.view.add_picture(np.full((192, 64), 30, np.float32), mask)
        served.view.add_mask(mask)
    shown.wait_for_rows(42 * SECONDS)
    shown.wait("() => !document.getElementById('newest-band-label').hidden")
    axes = shown.axes()
    assert axes.per_x == pytest.approx(2 * width, rel=0.02)
    assert "30.0 dB" in shown.point(axes.x(808), axes.y(41.5 * SECONDS))
    assert shown.point(axes.x(806), axes.y(41.5 * SECONDS)).endswith("no data")
    shown.page.get_by_role("checkbox", name="newest band").check()
    axes = shown.axes()
    assert axes.per_x == pytest.approx(width, rel=0.02)
    assert axes.frequency > 807


def test_zooming_in_on_what_is_paused(shown: Window) -> None:
    """What was looked at stays, and only becomes finer."""
    plot = shown.page.locator("#plot")
    plot.press("Space")
    held, coarse = shown.axes(), shown.tiles[-1].row_seconds
    shown.choose_span(0.2)
    shown.wait_for_rows(40 * SECONDS)
    assert shown.tiles[-1].row_seconds < coarse / 4
    axes = shown.axes()
    assert axes.time + 20 * -axes.per_y == pytest.approx(held.time + 20 * -held.per_y, abs=0.01)  # the same end
    assert axes.per_y == pytest.approx(held.per_y / 10, rel=0.02)
    for number in (38, 36, 34):
        assert power_at(shown, (number + 0.5) * SECONDS) == number
    assert shown.text("#connection") == "paused"


def test_a_paused_view_keeps_its_rows(shown: Window, served: Served) -> None:
    """However much comes meanwhile, more than the page can hold, and then goes on without a gap."""
    shown.choose_span(0.1)
    shown.wait_for_rows(40 * SECONDS)
    shown.page.locator("#plot").press("Space")
    assert power_at(shown, 38.5 * SECONDS) == 38
    shown.page.locator("#span").focus()
    picture = shown.picture()
    for _ in range(10):
        served.feed(40)
        shown.wait_for_rows((served.stretches - 1) * SECONDS)
    assert np.abs(shown.picture() - picture).max() < 0.1
    assert power_at(shown, 38.5 * SECONDS) == 38
    marks = shown.marks
    shown.page.get_by_role("button", name="Resume").click()
    shown.until(lambda: shown.marks > marks)  # what was let go is fetched
    served.feed(1)
    shown.wait_for_rows(served.stretches * SECONDS)
    end = served.stretches
    for number in (end - 1, end - 3):
        assert power_at(shown, (number + 0.5) * SECONDS) == number % 50
