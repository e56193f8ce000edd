# SPDX-License-Identifier: Apache-2.0
"""The page of a live stream: it goes on, can be held and scrolled back, saved, lost and found again."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sigmf
import zmq
from numpy.typing import NDArray

from ..ports import free_port
from .browser import PATIENCE, Run, Window, serving, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RATE = 1.92e6
CENTRE = 806e6
OFFSET = 0.4e6  # of the carrier: above the centre in even seconds, below it in odd ones
BLOCK = round(0.02 * RATE)


class Sender:
    """Sends noise and a carrier in real time, as a flowgraph's ZMQ PUSH Sink does, until it is told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        rng = np.random.default_rng(1)
        noise = 0.01 * rng.standard_normal((50 * BLOCK, 2), np.float32).view(np.complex64)[:, 0]
        with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
            sender.linger = 0
            sender.sndtimeo = 200
            sender.bind(f"tcp://127.0.0.1:{self._port}")
            began: float | None = None
            while not self._stop.is_set():
                try:
                    sender.send(self._block(noise, rng).tobytes())
                except zmq.Again:
                    continue  # nobody is there yet, or any more
                began = began or time.monotonic()
                self.sent += BLOCK
                self._stop.wait(max(0.0, began + self.sent / RATE - time.monotonic()))

    def _block(self, noise: NDArray[np.complex64], rng: np.random.Generator) -> NDArray[np.complex64]:
        position = self.sent + np.arange(BLOCK)
        first = rng.integers(len(noise) - BLOCK)
        sign = 1 - 2 * (position[0] // round(RATE) % 2)
        carrier = 0.1 * np.exp(2j * np.pi * sign * OFFSET / RATE * position)
        return (noise[first : first + BLOCK] + carrier).astype(np.complex64)


@contextmanager
def live(folder: Path, address: str, stream: int) -> Iterator[Run]:
    source = f"zmq+pull://127.0.0.1:{stream}"
    options = ("--sample-rate", f"{RATE}", "--frequency", f"{CENTRE}", "--overlap", "0", "--save-dir", folder)
    with serving(folder / "log.txt", "segment", source, *options, address=address) as run:
        yield run


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    with Sender(free_port()) as sender:
        yield sender


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def run(folder: Path, sender: Sender) -> Iterator[Run]:
    with live(folder, "127.0.0.1:0", sender._port) as run:
        yield run


@pytest.fixture
def shown(browser: Browser, run: Run) -> Iterator[Window]:
    with window(browser, run.url) as shown:
        shown.wait_for_rows(3.5)
        shown.choose_span(5)
        shown.wait_for_rows(3.5)
        yield shown


def decibels(shown: Window, x: float, y: float) -> float | None:
    """What is to be read at a place; None where there is no data, as where this machine was too slow."""
    found = re.search(r"(-?[\d.]+) dB", shown.point(x, y))
    return float(found[1]) if found else None


def check_carrier(shown: Window, seconds: range) -> None:
    """The carrier is where it was sent, in the middle of each of these seconds of the stream."""
    axes = shown.axes()
    read = 0
    for second in seconds:
        y = axes.y(second + 0.5)
        upper, lower = (decibels(shown, axes.x((CENTRE + sign * OFFSET) / 1e6), y) for sign in (1, -1))
        if upper is None or lower is None:
            continue
        read += 1
        assert (upper > lower + 10) == (second % 2 == 0), f"second {second}: {upper} dB above, {lower} dB below"
    assert read >= 2


def test_it_goes_on_until_it_is_held(shown: Window) -> None:
    page = shown.page
    assert shown.text("#connection") == "live"
    assert page.locator("#banner").is_hidden()  # neither simulated nor recorded
    assert page.locator("#pause").inner_text() == "Pause"
    before = shown.axes().time
    shown.wait_for_rows(before + 1)
    assert shown.axes().time > before + 0.3
    page.locator("#plot").press("Space")
    shown.wait_for_text("#connection", "paused")
    held = shown.axes()
    shown.wait_for_rows(held.time + 2)  # boxes come after their rows, and the strip is drawn up to its next point
    picture = shown.picture()
    shown.wait_for_rows(held.time + 3)
    assert shown.axes() == held
    assert np.abs(shown.picture() - picture).max() < 0.1
    assert "back" in shown.text("#back")
    last = int(held.time - 0.5)  # second whose middle is shown
    check_carrier(shown, range(max(0, last - 3), last + 1))
    page.get_by_role("button", name="Resume").click()
    shown.wait_for_text("#connection", "live")
    shown.settle()
    assert shown.axes().time > held.time + 0.9


def test_scrolling_back(shown: Window) -> None:
    page = shown.page
    plot = page.locator("#plot")
    shown.wait("() => Number(document.getElementById('scroll').max) > 5")  # s beyond the 5 s that are shown
    plot.press("Space")
    newest = shown.axes()
    plot.press("PageDown")
    axes = shown.axes()
    assert axes.time == pytest.approx(newest.time - 4, abs=0.02)
    check_carrier(shown, range(int(axes.time) - 3, int(axes.time)))
    # The wheel, the slider and the mouse do the same.
    shown.move(300, 200)
    page.mouse.wheel(0, -100)
    shown.until(lambda: shown.axes().time == pytest.approx(axes.time + 0.5, abs=0.02))
    page.locator("#scroll").fill("1000")  # as far back as there is something
    held = shown.axes()
    assert held.time + 20 * -held.per_y == pytest.approx(5, abs=0.5)  # its end; the oldest is at 0
    shown.move(300, 200)
    page.mouse.down()
    shown.move(300, 300, steps=4)
    page.mouse.up()
    assert shown.axes().time == pytest.approx(held.time + 100 * -axes.per_y, abs=0.05)
    assert shown.text("#connection") == "paused"
    plot.press("Home")
    shown.wait_for_text("#connection", "live")
    shown.settle()
    assert shown.axes().time > newest.time


def test_a_late_page_sees_what_was_before(shown: Window, browser: Browser, run: Run) -> None:
    with window(browser, run.url) as late:
        late.wait_for_rows(max(10.0, shown.end))
        assert min(tile.time_start for tile in late.tiles) < 0.2
        late.choose_span(20)
        late.page.locator("#plot").press("Space")
        end = int(late.axes().time)
        late.wait_for_rows(end)
        check_carrier(late, range(max(0, end - 10), end - 4))
        late.wait_for_text("#health", "2 pages")


def test_the_last_seconds_become_a_recording(shown: Window, folder: Path) -> None:
    shown.page.get_by_role("button", name=re.compile("^Save last")).click()
    shown.wait_for_text("#message", ".sigmf-meta")
    path = Path(re.search(r"Saved (.*?\.sigmf-meta)", shown.text("#message"))[1])  # type: ignore[index]
    assert path.parent == folder
    handle = sigmf.fromfile(str(path))
    document = json.loads(path.read_text())
    samples = handle.read_samples()
    assert 2 * RATE < len(samples) <= 10 * RATE
    assert document["global"]["core:sample_rate"] == RATE
    assert document["captures"][0]["core:frequency"] == CENTRE
    # They are the samples that were sent: in an even second, the carrier is above the centre.
    start = document["captures"][0]["core:global_index"]
    even = round((2 * np.ceil(start / RATE / 2) + 0.5) * RATE) - start
    spectrum = np.abs(np.fft.fft(samples[even : even + 19200]))
    assert np.fft.fftfreq(19200, 1 / RATE)[spectrum.argmax()] == pytest.approx(OFFSET, abs=200)
