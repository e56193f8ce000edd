# SPDX-License-Identifier: Apache-2.0
"""A real browser on the page of a real run, and what can be seen there."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

from rfvit_rt.errors import WireError
from rfvit_rt.web.protocol import Tile, decode_tile

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, WebSocket

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RECORDING = REPOSITORY / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
PATIENCE = 40  # seconds until a test gives up what it waits for
LAPTOP = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}

# Debian's; Playwright would have its own downloaded.
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# Also what a policy stops without a word on the console; and where on the canvas the pointer is, null where it is not
# there, since a busy browser takes its time.
WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
window.pointed = null;
document.addEventListener("pointermove", ({ target, offsetX, offsetY }) =>
  (window.pointed = target.id === "plot" ? [offsetX, offsetY] : null), true);
"""


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


# ---- the run ----

Value = TypeVar("Value", float, NDArray[np.float64])


@dataclass
class Run:
    """A run in a process of its own, and where its page is."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """As Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(log: Path, *arguments: str | Path, address: str = "127.0.0.1:0") -> Iterator[Run]:
    """Run ``rfvit`` with a page until the end of the block, in the folder of its log."""
    command = [*RFVIT, *map(str, arguments), "--web-address", address]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield Run(process, _url(process, log), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if found := re.search(r"^Page: (\S+)$", text, re.MULTILINE):
            return found[1]
        assert process.poll() is None, text
        time.sleep(0.05)
    raise AssertionError(f"no page after {PATIENCE} s: {text}")


# ---- the page ----


@dataclass
class Window:
    """A page that is open, what came over its WebSockets, what it asked for there, and what it complained of."""

    page: Page
    host: str
    tiles: list[Tile] = field(default_factory=list)
    marks: int = 0
    views: list[dict[str, Any]] = field(default_factory=list)
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    may_lose_connection: bool = False

    def note(self, problem: str) -> None:
        if not (self.may_lose_connection and "WebSocket connection to" in problem):
            self.problems.append(problem)

    def watch(self) -> None:
        self.page.add_init_script(WATCH)
        self.page.on("console", lambda said: self.note(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.note(f"{error.name}: {error.message}\n{error.stack}"))
        self.page.on("request", lambda request: self._check_host(request.url))
        self.page.on("websocket", self._listen)

    def _check_host(self, url: str) -> None:
        if urlsplit(url).netloc != self.host and not url.startswith("data:"):
            self.note(f"request to another host: {url}")

    def _listen(self, socket: WebSocket) -> None:
        self._check_host(socket.url)
        socket.on("framereceived", self._take)
        socket.on("framesent", self._note_view)

    def _note_view(self, payload: str | bytes) -> None:
        request = json.loads(payload)
        if request["type"] == "view":
            self.views.append(request)

    def _take(self, payload: str | bytes) -> None:
        if isinstance(payload, str):
            message = json.loads(payload)
            self.messages.setdefault(message["type"], []).append(message)
            return
        try:
            tile = decode_tile(payload)
        except WireError as error:
            self.note(str(error))
            return
        if not len(tile.power):  # what begins here comes anew
            self.marks += 1
            self.tiles = [known for known in self.tiles if known.time_start < tile.time_start]
        else:
            self.tiles.append(tile)

    @property
    def hello(self) -> dict[str, Any]:
        return self.messages["hello"][-1]

    def decibels(self, power: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What cells of tiles stand for."""
        least, most = self.hello["db_min"], self.hello["db_max"]
        return np.asarray(least + power / 255.0 * (most - least))

    # ---- what is to be seen ----

    def wait(self, condition: str, argument: object = None) -> None:
        """Wait until a JavaScript condition holds."""
        self.page.wait_for_function(condition, arg=argument, timeout=1000 * PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, as of what came over the WebSocket."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not come"
            self.page.wait_for_timeout(20)

    @property
    def end(self) -> float:
        """Time up to which the waterfall has come; 0 for a moment where all of it comes anew."""
        return max((tile.time_start + len(tile.power) * tile.row_seconds for tile in self.tiles), default=0.0)

    @property
    def is_answered(self) -> bool:
        """Whether rows have come as the page asked for them last: as long as that, or less than a step longer."""
        if not self.views:
            return False  # rows that come before it asks come again
        least, step = 1 / self.views[-1]["rows_per_second"], self.hello["step_seconds"]
        return any(-1e-6 < tile.row_seconds - least < 1.01 * step for tile in self.tiles)

    def wait_for_rows(self, seconds: float) -> None:
        """Wait until the waterfall has come to a time of the stream, up to a row, which comes when it is whole."""
        self.until(lambda: self.is_answered and self.end > seconds - self.tiles[-1].row_seconds)
        self.settle()

    def wait_for_text(self, selector: str, text: str) -> None:
        self.wait("([at, text]) => document.querySelector(at)?.innerText.includes(text)", [selector, text])

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text().replace("\u00a0", " ")

    def choose_span(self, seconds: float) -> None:
        """Show so many seconds, and wait until the tiles for it begin to come."""
        self.until(lambda: self.is_answered)
        views, marks = len(self.views), self.marks
        self.page.locator("#span").select_option(f"{seconds:g}")
        self.until(lambda: len(self.views) > views and self.marks > marks and self.is_answered)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self) -> NDArray[np.float64]:
        """The canvas as it is to be seen, (y, x, red green blue), 0 to 1, without the cursor."""
        self.page.mouse.move(2, 2)
        self.wait("() => !window.pointed")
        self.settle()
        shot = self.page.locator("#plot").screenshot(animations="disabled")
        return np.asarray(imread(io.BytesIO(shot)), np.float64)[:, :, :3]

    def point(self, x: float, y: float) -> str:
        """Point at a place of the canvas, and say what is to be read there."""
        self.page.locator("#plot").hover(position={"x": x, "y": y})
        self._wait_for_pointer(x, y)
        self.settle()
        return self.text("#readout")

    def move(self, x: float, y: float, steps: int = 1) -> None:
        """Move the mouse to a place of the canvas, with its button as it is."""
        corner = self.page.locator("#plot").bounding_box()
        assert corner is not None
        self.page.mouse.move(corner["x"] + x, corner["y"] + y, steps=steps)
        self._wait_for_pointer(x, y)

    def _wait_for_pointer(self, x: float, y: float) -> None:
        self.wait("([x, y]) => window.pointed && Math.hypot(window.pointed[0] - x, window.pointed[1] - y) < 2", [x, y])

    def axes(self) -> Axes:
        """Where time and frequency are, by what is to be read at two places; where rows come meanwhile, not per_y."""
        box = self.page.locator("#plot").bounding_box()
        assert box is not None
        near, far = (80.0, 40.0), (box["width"] - 160.0, box["height"] - 60.0)
        (f0, t0), (f1, t1) = (_place(self.point(*at)) for at in (near, far))
        return Axes(near[0], f0, (f1 - f0) / (far[0] - near[0]), near[1], t0, (t1 - t0) / (far[1] - near[1]))


@dataclass(frozen=True)
class Axes:
    """Frequency in MHz (or subcarrier) at an x and its change per pixel, and time in s at an y and its change."""

    left: float
    frequency: float
    per_x: float
    top: float
    time: float
    per_y: float

    def x(self, frequency: Value) -> Value:
        return self.left + (frequency - self.frequency) / self.per_x

    def y(self, time: Value) -> Value:
        return self.top + (time - self.time) / self.per_y


def _place(readout: str) -> tuple[float, float]:
    found = re.match(r"(?:subcarrier )?([-+]?[\d.]+)[^·]* · (-?[\d.]+) s", readout)
    assert found, readout
    return float(found[1]), float(found[2])


@contextmanager
def window(
    browser: Browser, url: str, size: dict[str, int] | None = None, script: str = "", **options: Any
) -> Iterator[Window]:
    """Open the page, after a script if one is given; nothing may go wrong there."""
    context = browser.new_context(viewport=size or LAPTOP, **options)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        opened = Window(page, urlsplit(url).netloc)
        opened.watch()
        page.add_init_script(script)
        answer = page.goto(url)
        assert answer is not None
        assert "unsafe" not in answer.headers["content-security-policy"]
        yield opened
        assert opened.problems == []
    finally:
        context.close()


def colourfulness(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much red exceeds blue: above 0 in LTE's orange, below in NR's blue, about 0 in all grey."""
    return picture[..., 0] - picture[..., 2]
