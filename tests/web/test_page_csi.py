# SPDX-License-Identifier: Apache-2.0
"""The page of WiFi CSI: amplitudes as a heat map, and what a person does beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ..csi_bytes import esp32_line
from ..csi_streams import channels
from .browser import Run, Window, serving, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RATE = 50.0
SECONDS = 6.0
MOVING = (False, True, False)  # in stretches of so many seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csi")
    with (folder / "simulated-room.csv").open("wb") as file:
        for number, row in enumerate(channels(MOVING, SECONDS)):
            values = np.fft.ifftshift(row) / 8  # from subcarrier 0 on, imaginary before real
            parts = np.stack([values.imag, values.real], axis=1).round().astype(int).ravel()
            file.write(esp32_line(parts, sequence=number, clock=round(1e6 / RATE) * number))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    with serving(folder / "log.txt", "sense", "simulated-room.csv", "--jsonl", folder / "out.jsonl") as run:
        yield run


@pytest.fixture
def seen(browser: Browser, run: Run) -> Iterator[Window]:
    with window(browser, run.url, color_scheme="dark") as seen:
        seen.wait_for_text("#connection", "run over")
        seen.choose_span(20)
        seen.wait_for_rows(SECONDS * len(MOVING) - 0.1)
        yield seen


def test_amplitudes_are_a_heat_map(seen: Window) -> None:
    seen.page.locator("#opacity").fill("0")
    axes, picture = seen.axes(), seen.picture().mean(axis=2)
    assert axes.x(26) - axes.x(-26) == pytest.approx(53 / axes.per_x, rel=0.05)
    column = round(axes.x(-10))
    changes = []
    for number in range(len(MOVING)):
        begin, end = number * SECONDS + 1, (number + 1) * SECONDS - 1
        changes.append(picture[round(axes.y(end)) : round(axes.y(begin)), column].std())
    still, moving, still_again = changes
    assert moving > 3 * still
    assert moving > 3 * still_again
    # Cell by cell, as it came.
    shown, received = [], []
    rng = np.random.default_rng(0)
    for _ in range(800):
        tile = seen.tiles[rng.integers(len(seen.tiles))]
        row, place = rng.integers(len(tile.power)), rng.integers(tile.power.shape[1])
        received.append(tile.power[row, place])
        time = tile.time_start + (row + 0.5) * tile.row_seconds
        shown.append(picture[round(axes.y(time)), round(axes.x(tile.low_edge + (place + 0.5) * tile.column_width))])
    assert np.corrcoef(shown, received)[0, 1] > 0.9


def test_activities_stand_beside_it(seen: Window, folder: Path) -> None:
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    activities = [result for result in results if result["type"] == "activity"]
    assert activities
    axes = seen.axes()
    for activity in activities:
        if activity["rfvit:time_end"] - activity["rfvit:time_start"] < 0.5:
            continue
        read = seen.point(axes.x(5), axes.y((activity["rfvit:time_start"] + activity["rfvit:time_end"]) / 2))
        assert re.search(
            rf"^subcarrier 5 · [\d.]+ s · [\d.]+ times the mean amplitude · {activity['core:label']} \d+ %$", read
        )
    strip = seen.picture()[:, round(axes.x(26.5)) + 9 :][:, :10]
    inside = strip[round(axes.y(SECONDS * len(MOVING) - 0.5)) : round(axes.y(0.5))]
    assert np.mean(inside.std(axis=2).max(axis=1) > 0.1) > 0.5
    # Nothing there is of radio signals, and nothing can be corrected.
    assert seen.page.locator("#emissions").is_hidden()
    assert seen.page.locator("#draw").is_hidden()
    assert seen.text("#labels-title").lower() == "activities"
    assert "frames/s" in seen.text("#health")
    assert "Lost\n0 frames" in seen.text("#health")
    assert "not live" in seen.text("#banner")


def test_screenshot(seen: Window, screenshots: Path) -> None:
    seen.page.locator("#palette").select_option("cividis")
    seen.page.get_by_role("button", name="Hide this message").click()
    seen.picture()
    seen.page.screenshot(path=screenshots / "csi.png")
