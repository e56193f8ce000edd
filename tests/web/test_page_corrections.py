# SPDX-License-Identifier: Apache-2.0
"""Boxes corrected, drawn and deleted in the browser, up to the SigMF file that comes of it; and hostile names."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sigmf

from .browser import PATIENCE, PHONE, RECORDING, Run, Window, serving, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE_NAME = "<img src=x onerror=document.title='taken'>"
HOSTILE_LABEL = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
RATE = 20e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrections")
    for suffix in ("-meta", "-data"):
        shutil.copy(RECORDING.with_suffix(f".sigmf{suffix}"), folder / f"{HOSTILE_NAME}.sigmf{suffix}")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    recording = folder / f"{HOSTILE_NAME}.sigmf-meta"
    with serving(folder / "log.txt", "segment", recording, "--save-dir", folder) as run:
        yield run
        assert run.stop() == 0


@pytest.fixture
def shown(browser: Browser, run: Run) -> Iterator[Window]:
    with window(browser, run.url) as shown:
        ready(shown)
        yield shown


def ready(shown: Window) -> None:
    shown.wait_for_text("#connection", "run over")
    shown.wait("() => document.querySelectorAll('#emissions tbody tr').length > 0")
    shown.until(lambda: "end" in shown.messages)  # after all boxes
    shown.wait_for_rows(0.15)


def written(folder: Path, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The annotations of the corrected copy, once they fulfil a condition."""
    path = folder / f"{HOSTILE_NAME}.corrected.sigmf-meta"
    deadline = time.monotonic() + PATIENCE
    annotations: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        if path.exists():
            annotations = json.loads(path.read_text())["annotations"]
            if condition(annotations):
                return annotations
        time.sleep(0.1)
    raise AssertionError(annotations)


def select_lte(shown: Window) -> None:
    """The longest box, by its lower right corner, which no other reaches."""
    axes = shown.axes()
    shown.page.locator("#plot").click(position={"x": axes.x(2137.3), "y": axes.y(0.02)})
    shown.wait("() => !document.getElementById('editor').hidden")


def choose_other(shown: Window, label: str) -> None:
    shown.page.locator("#editor [name=label]").select_option("another label …")
    shown.page.locator("#editor [name=other]").fill(label)


def keep(shown: Window) -> None:
    shown.page.locator("#editor [type=submit]").click()
    shown.wait("() => document.getElementById('editor').hidden")


def test_a_corrected_label_is_in_the_file(shown: Window, folder: Path) -> None:
    select_lte(shown)
    shown.page.locator("#editor [name=label]").select_option("NR")
    keep(shown)
    shown.wait_for_text("#message", "annotations")  # where it was written
    assert ".corrected.sigmf-meta" in shown.text("#message")
    corrected = next(box for box in shown.messages["annotation"] if box["origin"] == "corrected")
    annotations = written(folder, lambda found: any("rfvit:origin" in one for one in found))
    mine = [one for one in annotations if one.get("rfvit:origin") == "corrected"]
    assert [one["core:label"] for one in mine] == ["NR"]
    assert mine[0]["core:sample_start"] == corrected["sample_start"]
    assert mine[0]["core:sample_count"] == corrected["sample_count"]
    assert mine[0]["core:freq_lower_edge"] == corrected["freq_lower_edge"]
    assert mine[0]["core:comment"].startswith("corrected by a person; the model said LTE")
    assert len(annotations) == len({box["id"] for box in shown.messages["annotation"]})  # all others are there too
    # Any SigMF reader reads it, with the samples.
    handle = sigmf.fromfile(str(folder / f"{HOSTILE_NAME}.corrected.sigmf-meta"))
    assert handle.sample_count == 3_000_000
    # And back again, so that the next test finds what the model found.
    select_lte(shown)
    assert "The model said LTE." in shown.text("#editor .was")
    shown.page.locator("#editor [name=label]").select_option("LTE")
    keep(shown)


def test_edges_follow_the_mouse(shown: Window, folder: Path) -> None:
    select_lte(shown)
    axes = shown.axes()
    upper = float(shown.page.locator("#editor [name=high]").input_value())
    x, y = axes.x(upper), axes.y(0.03)
    shown.move(x, y)
    assert shown.page.locator("#plot").get_attribute("data-grip") == "x"
    shown.page.mouse.down()
    shown.move(x + 30, y, steps=3)
    shown.page.mouse.up()
    moved = float(shown.page.locator("#editor [name=high]").input_value())
    assert moved == pytest.approx(upper + 30 * axes.per_x, abs=2 * axes.per_x)
    keep(shown)
    annotations = written(
        folder, lambda found: any(abs(one["core:freq_upper_edge"] / 1e6 - moved) < 1e-6 for one in found)
    )
    assert any(one.get("rfvit:origin") == "corrected" for one in annotations)


def test_a_new_box_and_its_end(shown: Window, folder: Path) -> None:
    axes = shown.axes()
    shown.page.get_by_role("button", name="Draw box").click()
    shown.move(axes.x(2138.5), axes.y(0.04))
    shown.page.mouse.down()
    shown.move(axes.x(2140.5), axes.y(0.02), steps=4)
    shown.page.mouse.up()
    shown.wait_for_text("#editor h2", "NEW BOX")
    choose_other(shown, "beacon")
    keep(shown)

    def drawn(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in found if one.get("rfvit:origin") == "drawn" and one["core:label"] == "beacon"]

    box = drawn(written(folder, lambda found: bool(drawn(found))))[0]
    assert box["core:freq_lower_edge"] / 1e6 == pytest.approx(2138.5, abs=3 * axes.per_x)
    assert box["core:freq_upper_edge"] / 1e6 == pytest.approx(2140.5, abs=3 * axes.per_x)
    assert box["core:sample_start"] / RATE == pytest.approx(0.02, abs=3 * -axes.per_y)
    assert (box["core:sample_start"] + box["core:sample_count"]) / RATE == pytest.approx(0.04, abs=3 * -axes.per_y)
    read = shown.point(axes.x(2139.5), axes.y(0.03))
    assert re.search(r"box: beacon (1\.9\d|2|2\.\d+) MHz drawn", read), read
    shown.page.locator("#plot").click(position={"x": axes.x(2139.5), "y": axes.y(0.03)})
    shown.page.get_by_role("button", name="Delete", exact=True).click()
    written(folder, lambda found: not drawn(found))
    shown.wait("() => document.getElementById('editor').hidden")
    assert "beacon" not in shown.point(axes.x(2139.5), axes.y(0.03))


def test_keyboard_alone(shown: Window, folder: Path) -> None:
    """A box is drawn, named, kept, found again and deleted without a mouse."""
    keyboard = shown.page.keyboard
    shown.page.locator("#plot").focus()
    keyboard.press("d")
    for _ in range(8):
        keyboard.press("Shift+ArrowDown")
    keyboard.press("Enter")
    for _ in range(4):
        keyboard.press("Shift+ArrowRight")
        keyboard.press("Shift+ArrowUp")
    keyboard.press("Enter")
    assert shown.page.evaluate("() => document.activeElement.name") == "label"
    keyboard.press("a")
    keyboard.press("Tab")
    assert shown.page.evaluate("() => document.activeElement.name") == "other"
    keyboard.type("by key")
    keyboard.press("Enter")
    shown.wait("() => document.getElementById('editor').hidden")
    assert shown.page.evaluate("() => document.activeElement.id") == "plot"  # where one was before

    def mine(found: list[dict[str, Any]]) -> bool:
        return any(one["core:label"] == "by key" and one.get("rfvit:origin") == "drawn" for one in found)

    written(folder, mine)
    for _ in range(12):
        keyboard.press("n")
        if shown.text("#editor .was").startswith("by key"):
            break
    assert shown.text("#announcement").startswith("by key")
    keyboard.press("Delete")
    written(folder, lambda found: not mine(found))


def test_hostile_names_stay_text_on_all_pages(shown: Window, browser: Browser, run: Run) -> None:
    """In the title, the editor, on the canvas, in the read-out; on the page where it was typed, and on another."""
    assert HOSTILE_NAME in shown.text("#title")
    with window(browser, run.url, PHONE) as other:
        ready(other)
        elements = "() => document.querySelectorAll('img, script').length"
        before = other.page.evaluate(elements)
        select_lte(shown)
        choose_other(shown, HOSTILE_LABEL[:64])
        keep(shown)
        other.until(lambda: any(box["label"] == HOSTILE_LABEL[:64] for box in other.messages["annotation"]))
        axes = other.axes()
        assert f"box: {HOSTILE_LABEL[:64]}" in other.point(axes.x(2137.3), axes.y(0.02))
        assert other.page.evaluate(elements) == before
        select_lte(shown)
        assert shown.text("#editor .was").startswith(HOSTILE_LABEL[:64])
        assert shown.page.locator("#editor [name=label]").input_value() == HOSTILE_LABEL[:64]
        assert other.page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
        for page in (shown.page, other.page):
            assert page.evaluate(elements) == before
            assert page.title() == f"{shown.text('#title')} · rfvit"
        # Somebody else changes what is open here, and then takes it away.
        select_lte(other)
        other.page.locator("#editor [name=label]").select_option("LTE")
        keep(other)
        shown.wait("() => document.querySelector('#editor .was').innerText.startsWith('LTE')")
        other.wait_for_text("#health", "2 pages")


def test_a_finger_draws(browser: Browser, run: Run, folder: Path) -> None:
    with window(browser, run.url, PHONE, is_mobile=True, has_touch=True) as shown:
        ready(shown)
        axes = shown.axes()
        shown.page.get_by_role("button", name="Draw box").click()
        shown.settle()  # from then on a finger does not scroll there
        corner = shown.page.locator("#plot").bounding_box()
        assert corner is not None
        touch = shown.page.context.new_cdp_session(shown.page)
        for kind, frequency, at in (
            ("Start", 2138.5, 0.04),
            ("Move", 2140, 0.03),
            ("Move", 2141.5, 0.02),
            ("End", 0, 0),
        ):
            points = [{"x": corner["x"] + axes.x(frequency), "y": corner["y"] + axes.y(at)}] if frequency else []
            touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
        shown.wait_for_text("#editor h2", "NEW BOX")
        assert float(shown.page.locator("#editor [name=low]").input_value()) == pytest.approx(2138.5, abs=0.3)
        assert float(shown.page.locator("#editor [name=high]").input_value()) == pytest.approx(2141.5, abs=0.3)
        assert float(shown.page.locator("#editor [name=end]").input_value()) == pytest.approx(0.04, abs=0.002)
        shown.page.get_by_role("button", name="Cancel").click()
        shown.wait("() => document.getElementById('editor').hidden")


def test_half_a_box_is_none(shown: Window) -> None:
    """Given up with Escape, by mouse and by keyboard, a new box leaves nothing."""
    shown.page.get_by_role("button", name="Hide this message").click()
    before = shown.picture()
    shown.page.get_by_role("button", name="Draw box").click()
    shown.move(400, 350)
    shown.page.mouse.down()
    shown.move(500, 450, steps=3)
    shown.page.keyboard.press("Escape")
    shown.page.mouse.up()
    assert shown.page.locator("#draw").get_attribute("aria-pressed") == "false"
    for key in ("d", "Enter", "Shift+ArrowLeft", "Escape"):
        shown.page.keyboard.press(key)
    assert shown.page.locator("#editor").is_hidden()
    shown.page.locator("#span").focus()
    shown.page.get_by_role("button", name="Hide this message").click()
    shown.point(400, 350)  # the cursor goes where the pointer leaves the canvas, not the message over it
    assert np.abs(shown.picture() - before).max() < 0.1


def test_what_cannot_be_is_said(shown: Window) -> None:
    select_lte(shown)
    form = shown.page.locator("#editor")
    start, low = form.locator("[name=start]"), form.locator("[name=low]")
    was = start.input_value()
    for value, problem in (("", "Every edge needs a number."), ("9", "The start is not before the end.")):
        start.fill(value)
        form.locator("[type=submit]").click()
        assert shown.text("#editor-problem") == problem
    start.fill(was)
    low.fill("3000")
    form.locator("[type=submit]").click()
    assert shown.text("#editor-problem") == "The lower edge is not below the upper."
    low.fill("2132.7")
    form.locator("[name=end]").fill("7")
    start.fill("5")  # where there is no stream: the server says so
    form.locator("[type=submit]").click()
    shown.wait_for_text("#editor-problem", "the stream reaches to")
    choose_other(shown, "x" * 70)
    assert form.locator("[name=other]").input_value() == "x" * 64
    choose_other(shown, "   ")
    form.locator("[type=submit]").click()
    assert "1 to 64 characters" in shown.text("#editor-problem")
    assert not any(box["time_start"] == 5 for box in shown.messages["annotation"])
