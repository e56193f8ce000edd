# SPDX-License-Identifier: Apache-2.0
"""The page of the example recording, as somebody sees it who only looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.web.protocol import Tile
from rfvit_rt.web.server import PAGE

from .browser import PHONE, RECORDING, Axes, Run, Window, colourfulness, serving, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What training/example.py made, as the recording's own annotations say, in MHz and s.
LTE = (2132.7425, 2137.2575)
NR = (2138.32, 2147.68)
NR_START = 0.05
EMPTY = ((2130.3, 2132.2), (2148.6, 2149.7))
DURATION = 0.15
LABELS = ("background", "LTE", "NR")

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("run")
    options = ("--output", folder / "out.sigmf-meta", "--save-dir", folder)
    with serving(folder / "log.txt", "segment", RECORDING, *options) as run:
        yield run


@pytest.fixture
def seen(browser: Browser, run: Run) -> Iterator[Window]:
    """The page once all is there, light, so that what is not labelled is grey or white."""
    with window(browser, run.url, color_scheme="light") as seen:
        wait_for_all(seen)
        yield seen


def wait_for_all(seen: Window) -> None:
    seen.wait_for_text("#connection", "run over")
    seen.wait("() => document.querySelectorAll('#emissions tbody tr').length > 0")
    seen.wait_for_rows(DURATION)
    seen.page.get_by_role("button", name="Hide this message").click()
    seen.settle()


def model_annotations(run: Run) -> list[dict[str, float | str]]:
    found = json.loads((run.log.parent / "out.sigmf-meta").read_text())["annotations"]
    assert isinstance(found, list)
    return [annotation for annotation in found if "rfvit:model" in annotation]  # the others are the recording's own


def cells(tiles: list[Tile], count: int) -> Iterator[tuple[float, float, int, float]]:
    """Some cells of what was received: MHz and s of their centres, class and confidence."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        tile = tiles[rng.integers(len(tiles))]
        row, column = rng.integers(len(tile.power)), rng.integers(tile.power.shape[1])
        frequency = (tile.low_edge + (column + 0.5) * tile.column_width) / 1e6
        time = tile.time_start + (row + 0.5) * tile.row_seconds
        yield frequency, time, int(tile.class_number[row, column]), tile.confidence[row, column] / 255


def band(
    picture: NDArray[np.float64], axes: Axes, low: float, high: float, start: float, end: float
) -> NDArray[np.float64]:
    rows = slice(round(axes.y(end)) + 2, round(axes.y(start)) - 2)
    return picture[rows, round(axes.x(low)) + 2 : round(axes.x(high)) - 2]


def test_no_more_columns_are_asked_for_than_are_taken(seen: Window) -> None:
    """However many pixels a screen has."""
    script = """async () => {
        const { View } = await import("/static/view.js");
        return new View().request(10, { width: 5000, height: 500 }, 10000, 60).columns;
    }"""
    assert seen.page.evaluate(script) == 1024


def test_carriers_are_where_they_are(seen: Window) -> None:
    axes = seen.axes()
    assert axes.per_x == pytest.approx(20 / 711, rel=0.1)  # the whole band of 20 MHz
    assert axes.per_y == pytest.approx(-DURATION / 450, rel=0.1)  # the newest is on top
    colour = colourfulness(seen.picture())
    lte = band(colour, axes, *LTE, 0.0, 0.06)
    assert np.mean(lte > 0.15) > 0.7
    nr = band(colour, axes, 2140.5, NR[1], 0.105, DURATION)
    assert np.mean(nr < -0.1) > 0.15  # in bursts
    assert np.mean(band(colour, axes, *NR, 0.0, 0.045) < -0.1) == 0  # it begins later
    for empty in EMPTY:
        assert np.mean(abs(band(colour, axes, *empty, 0.0, 0.14)) > 0.1) < 0.02


def test_the_mask_is_what_the_model_said(seen: Window) -> None:
    """Cell by cell: the colour of the canvas at the centre of each, against the tiles that came."""
    axes, colour = seen.axes(), colourfulness(seen.picture())
    agreed = total = 0
    for frequency, time, number, confidence in cells(seen.tiles, 1500):
        x, y = axes.x(frequency), axes.y(time)
        if number and confidence < 0.5:
            continue
        here = colour[round(y), round(x)]
        agreed += bool((abs(here) < 0.06, here > 0.1, here < -0.05)[number])
        total += 1
    assert total > 1000
    assert agreed / total > 0.93  # the others are below outlines and tags of boxes, or a pixel off


def test_power_is_what_the_model_saw(seen: Window) -> None:
    """Spectrum and time course: medians over all rows, and over the columns of NR's band."""
    for label in LABELS[1:]:
        seen.page.get_by_role("checkbox", name=re.compile(f"^{label}")).uncheck()  # no mask, no boxes
    assert seen.text("#unit") == "dB over the noise floor"
    seen.page.locator("#least").fill(str(seen.hello["db_min"]))
    seen.page.locator("#most").fill(str(seen.hello["db_max"]))
    axes, darkness = seen.axes(), 1 - seen.picture().mean(axis=2)
    first = seen.tiles[0]
    frequencies = (first.low_edge + (np.arange(first.power.shape[1]) + 0.5) * first.column_width) / 1e6
    x = np.rint(axes.x(frequencies)).astype(int)
    top, bottom = round(axes.y(DURATION)) + 20, round(axes.y(0)) - 2
    spectrum = np.median(np.concatenate([tile.power for tile in seen.tiles]), axis=0)
    assert np.corrcoef(np.median(darkness[top:bottom, x], axis=0), spectrum)[0, 1] > 0.97
    inside = (frequencies > 2141) & (frequencies < 2145)
    course, shown = [], []
    for tile in seen.tiles:
        times = tile.time_start + (np.arange(len(tile.power)) + 0.5) * tile.row_seconds
        course.extend(np.median(tile.power[:, inside], axis=1))
        shown.extend(np.median(darkness[np.rint(axes.y(times)).astype(int)][:, x[inside]], axis=1))
    assert np.corrcoef(shown, course)[0, 1] > 0.9
    seen.page.locator("#least").fill("20")
    seen.page.locator("#most").fill("21")
    assert np.median(seen.picture()[top:bottom, x[0] : x[-1]]) > 0.99  # all noise is white now


def test_boxes_have_their_places_and_tags(seen: Window, run: Run) -> None:
    axes, picture = seen.axes(), seen.picture()
    for annotation in model_annotations(run):
        low, high = float(annotation["core:freq_lower_edge"]) / 1e6, float(annotation["core:freq_upper_edge"]) / 1e6
        start = float(annotation["core:sample_start"]) / 20e6
        end = start + float(annotation["core:sample_count"]) / 20e6
        if end - start < 0.01:  # but a thin line
            continue
        middle = axes.y((start + end) / 2)
        for edge in (low, high):
            column = round(axes.x(edge))
            about = picture[round(middle) - 12 : round(middle) + 12, column - 3 : column + 4].min(axis=(1, 2))
            assert np.median(about) < 0.3, f"no outline at {edge} MHz"  # dark below the label's colour
        read = seen.point(axes.x(high) - 6, middle)
        width = f"{high - low:.3g} MHz" if high - low >= 1 else f"{1e3 * (high - low):.3g} kHz"
        assert re.search(rf"box: {annotation['core:label']} {width} \d+ %", read), read


def test_short_bursts_do_not_hide_what_lies_below_them(seen: Window, run: Run) -> None:
    """Where there are hundreds, and the mask is off, there would be nothing else to see."""
    seen.page.locator("#opacity").fill("0")
    axes, colour = seen.axes(), abs(colourfulness(seen.picture()))
    flat = [found for found in model_annotations(run) if float(found["core:sample_count"]) < 0.001 * 20e6]
    assert flat
    for annotation in flat:
        low, high = (float(annotation[f"core:freq_{edge}_edge"]) / 1e6 for edge in ("lower", "upper"))
        time = (float(annotation["core:sample_start"]) + float(annotation["core:sample_count"]) / 2) / 20e6
        rows = slice(round(axes.y(time)) - 3, round(axes.y(time)) + 4)
        left, right = round(axes.x(low)), round(axes.x(high))
        assert colour[rows, left : left + 4].max() > 0.2  # its ends are there
        assert colour[rows, right - 4 : right].max() > 0.2
        assert colour[rows, left + 10 : right - 10].max() < 0.1


def test_what_is_to_be_read_at_a_place(seen: Window) -> None:
    axes = seen.axes()
    for frequency, time, *_ in cells(seen.tiles, 12):
        read = seen.point(axes.x(frequency), axes.y(time))
        found = re.match(r"([\d.]+) MHz · ([\d.]+) s · (?:[≤≥] )?(-?[\d.]+) dB[^·]* · (\w+) (\d+) %", read)
        assert found, read
        assert float(found[1]) == pytest.approx(frequency, abs=2 * abs(axes.per_x))
        assert float(found[2]) == pytest.approx(time, abs=2 * abs(axes.per_y))
        about = cells_about(seen, float(found[1]), float(found[2]))
        assert any(
            label == found[4] and abs(sure - int(found[5])) <= 1 and abs(power - float(found[3])) < 0.11
            for label, sure, power in about
        ), read


def cells_about(seen: Window, frequency: float, time: float) -> Iterator[tuple[str, float, float]]:
    """Label, confidence in percent and power in dB of the cell at a place, and of those beside it."""
    for tile in seen.tiles:
        row = int((time - tile.time_start) / tile.row_seconds)
        column = int((1e6 * frequency - tile.low_edge) / tile.column_width)
        for y in range(max(0, row - 1), min(len(tile.power), row + 2)):
            for x in range(max(0, column - 1), min(tile.power.shape[1], column + 2)):
                label = LABELS[tile.class_number[y, x]]
                yield label, tile.confidence[y, x] / 2.55, float(seen.decibels(tile.power[y, x]))


def test_opacity(seen: Window) -> None:
    axes = seen.axes()
    tints = []
    for percent in (0, 30, 100):
        seen.page.locator("#opacity").fill(str(percent))
        tints.append(band(colourfulness(seen.picture()), axes, 2133.5, 2136.5, 0.0, 0.05).mean())
    assert abs(tints[0]) < 0.06  # the greys are not quite grey
    assert 0.05 < tints[1] < 0.6 * tints[2]


def test_classes_can_be_switched(seen: Window) -> None:
    axes = seen.axes()

    def share_of_lte() -> float:
        return float(np.mean(band(colourfulness(seen.picture()), axes, *LTE, 0.0, 0.05) > 0.1))

    box = seen.page.get_by_role("checkbox", name=re.compile("^LTE"))
    assert share_of_lte() > 0.7
    assert "box: LTE" in seen.point(axes.x(2137.3), axes.y(0.03))
    box.uncheck()
    assert share_of_lte() == 0
    assert "box:" not in seen.point(axes.x(2137.3), axes.y(0.03))
    assert np.mean(colourfulness(seen.picture()) < -0.1) > 0.01  # NR is still there
    seen.page.locator("#plot").press("1")
    assert box.is_checked()
    assert share_of_lte() > 0.7


def test_occupancy_is_drawn_and_written(seen: Window) -> None:
    axes = seen.axes()
    strip = colourfulness(seen.picture())[:, round(axes.x(2150)) + 8 :]
    rows = slice(round(axes.y(0.12)), round(axes.y(0.03)))
    assert np.mean((strip[rows] > 0.3).any(axis=1)) > 0.95  # LTE's line, without a break
    assert (strip[rows] < -0.2).any()
    shares = {name: int(share) for name, share in re.findall(r"(LTE|NR)\s+(\d+) %", seen.text("#legend"))}
    assert set(shares) == {"LTE", "NR"}
    newest = seen.tiles[-1].class_number[-round(0.03 / seen.tiles[-1].row_seconds) :]
    for name, share in shares.items():
        # Cells of the waterfall are a signal's as soon as it touches them, so they are a little more.
        assert share == pytest.approx(100 * np.mean(newest == LABELS.index(name)), abs=15)


def test_emissions_and_health(seen: Window, run: Run) -> None:
    # The last word on them may come after that the run is over.
    seen.until(lambda: not any(row["is_current"] for row in seen.messages["emissions"][-1]["list"]))
    rows = [row.replace("\u00a0", " ") for row in seen.page.locator("#emissions tbody tr").all_inner_texts()]
    lte = next(row for row in rows if "LTE" in row)
    bands = re.findall(r"LTE\s*│\s*([\d.]+) to ([\d.]+)", run.output)
    assert any(f"{float(low):.2f}–{float(high):.2f}" in lte for low, high in bands)
    assert re.search(r"\d+ % sure", lte)
    assert re.search(r"\d+\.\d s ago", lte)  # the run is over: nothing is on the air
    health = seen.text("#health")
    assert "Lost\n0 samples" in health
    assert re.search(r"Sample age\np50 [\d.]+ m?s · p95 [\d.]+ m?s · p99 [\d.]+ m?s", health)
    assert re.search(r"Rate\n[\d.]+ MS/s, [\d.]+ × real time", health)
    assert re.search(r"Windows\n\d+, [\d.]+ a second", health)
    assert "Model\nspectrum-small" in health
    assert "OpenVINO" in health


def test_what_is_served(seen: Window) -> None:
    assert seen.text("#title").endswith("lte_nr_20MHz.sigmf-meta")
    assert seen.text("#tuning") == "2140 MHz · 20 MS/s"
    banner = seen.page.locator("#banner")
    assert banner.is_visible()
    assert "not live" in seen.text("#banner")


def lightness(colour: str) -> float:
    """Relative luminance (WCAG 2) of an rgb() colour."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


CONTRASTS = """() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() &&
  [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !one.matches(":disabled *, :disabled"))
  .map((one) => {
    let behind = one;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [one.textContent.trim().slice(0, 40), getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
  })"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_dark_and_light(browser: Browser, run: Run, scheme: str) -> None:
    with window(browser, run.url, color_scheme=scheme) as seen:
        wait_for_all(seen)
        ground = seen.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert (lightness(ground) < 0.1) == (scheme == "dark")
        seen.page.locator("#plot").focus()
        seen.page.keyboard.press("n")  # the editor too
        for text, front, back in seen.page.evaluate(CONTRASTS):
            high, low = sorted((lightness(front), lightness(back)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text!r} is hardly to be read: {front} on {back}"
        axes, picture = seen.axes(), seen.picture()
        noise = band(picture, axes, *EMPTY[0], 0.0, 0.14).mean()
        assert (noise < 0.4) == (scheme == "dark")
        seen.page.get_by_role("button", name="Switch between dark and light").click()
        after = seen.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert (lightness(after) < 0.1) != (scheme == "dark")
        assert (band(seen.picture(), axes, *EMPTY[0], 0.0, 0.14).mean() < 0.4) != (scheme == "dark")
        seen.page.reload()
        wait_for_all(seen)
        kept = seen.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert kept == after


@pytest.mark.parametrize("width", [320, PHONE["width"]])
def test_on_a_phone(browser: Browser, run: Run, width: int) -> None:
    size = {"width": width, "height": PHONE["height"]}
    with window(browser, run.url, size, is_mobile=True, has_touch=True) as seen:
        wait_for_all(seen)
        page = seen.page
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        plot = page.locator("#plot").bounding_box()
        assert plot is not None
        assert plot["x"] >= 0
        assert plot["x"] + plot["width"] <= width
        assert plot["height"] >= 300
        for name in ("pause", "span", "opacity", "draw", "save", "theme"):
            box = page.locator(f"#{name}").bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width, name
        # A finger selects a box; the editor comes, and is no wider either.
        page.locator("#plot").tap(position={"x": plot["width"] * 0.3, "y": plot["height"] * 0.8})
        seen.wait_for_text("#readout", "box: LTE")
        assert page.locator("#editor").is_visible()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_screenshots(browser: Browser, run: Run, screenshots: Path) -> None:
    """Those of the README."""
    with window(browser, run.url, color_scheme="dark") as seen:
        wait_for_all(seen)
        seen.wait_for_text("#health", "1 page")
        axes = seen.axes()
        seen.point(axes.x(2143.2), axes.y(0.1102))
        seen.page.screenshot(path=screenshots / "laptop.png")
    with window(browser, run.url, PHONE, color_scheme="light", is_mobile=True, has_touch=True) as seen:
        wait_for_all(seen)
        seen.page.screenshot(path=screenshots / "phone.png")


def test_fits_a_laptop_without_scrolling(seen: Window) -> None:
    size = "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    assert seen.page.evaluate(size) == [1280, 720]


def test_keyboard_alone(seen: Window, run: Run) -> None:
    """From the address bar to all that there is to see."""
    page = seen.page
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.id") == "plot":
            break
    else:
        raise AssertionError("the waterfall cannot be reached with Tab")
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("ArrowRight")
    seen.settle()
    before = seen.text("#readout")
    page.keyboard.press("Shift+ArrowRight")
    seen.settle()
    after = seen.text("#readout")
    moved = float(after.split()[0]) - float(before.split()[0])
    assert moved == pytest.approx(10 * 20 / 711, rel=0.15)
    assert seen.text("#announcement").startswith(after.split(" · ")[0])  # and is to be heard
    page.keyboard.press("n")
    seen.settle()
    first = min(model_annotations(run), key=lambda a: a["core:sample_start"])
    width = (first["core:freq_upper_edge"] - first["core:freq_lower_edge"]) / 1e6
    assert seen.text("#editor .was").startswith(f"LTE {width:.3g} MHz")
    page.keyboard.press("n")
    seen.settle()
    assert seen.text("#editor .was").startswith("NR")
    page.keyboard.press("p")
    page.keyboard.press("e")
    assert page.evaluate("() => document.activeElement.name") == "label"
    page.keyboard.press("Escape")
    assert page.locator("#editor").is_hidden()
    assert page.evaluate("() => document.activeElement.id") == "plot"
    page.keyboard.press("[")
    assert page.locator("#opacity").input_value() == "55"
    page.keyboard.press("+")
    seen.settle()
    assert page.locator("#span").input_value() == "0.1"
    page.keyboard.press("-")
    page.keyboard.press("?")
    assert page.locator("#shortcuts").is_visible()
    assert page.locator("#shortcuts dt").count() >= 15
    page.keyboard.press("Escape")
    assert page.locator("#shortcuts").is_hidden()
    # Keys mean what they say where something is typed.
    page.locator("#plot").focus()
    page.keyboard.press("n")
    page.keyboard.press("e")
    page.keyboard.press("a")  # the first letter of "another label …"
    seen.settle()
    other = page.locator("#editor [name=other]")
    other.focus()
    page.keyboard.type("dnp 1?")
    assert other.input_value() == "dnp 1?"
    assert page.locator("#legend input").first.is_checked()


def test_zoom_asks_for_finer_rows(seen: Window) -> None:
    coarse = min(tile.row_seconds for tile in seen.tiles)
    seen.choose_span(0.05)
    seen.until(lambda: bool(seen.tiles) and seen.tiles[-1].row_seconds < 0.7 * coarse)
    assert seen.axes().per_y == pytest.approx(-0.05 / 450, rel=0.1)


# Machado, Oliveira and Fernandes (doi:10.1109/TVCG.2009.113), severity 1, on linear RGB.
COLOUR_VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none at all": [[0.2126, 0.7152, 0.0722]] * 3,
}

SWATCHES = """async (count) => {
  const { looksOf, fillHatched } = await import("/static/colours.js");
  const labels = Array.from({ length: count + 1 }, (_, number) => `label ${number}`);
  return [...looksOf(labels, new Map()).values()].map((look) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [24, 24];
    const context = canvas.getContext("2d");
    fillHatched(context, look, [0, 0, 24, 24]);
    return { colour: look.colour, dash: look.dash, pixels: [...context.getImageData(0, 0, 24, 24).data] };
  });
}"""


def perceived_lightness(pixels: Array, vision: str) -> Array:
    """CIE L* of pixels, (y, x, channel) from 0 to 1, as somebody sees them whose colour vision is named."""
    rgb = pixels[..., :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = np.clip(linear @ np.transpose(COLOUR_VISION[vision]), 0, 1) @ (0.2126, 0.7152, 0.0722)
    return np.asarray(116 * np.where(luminance > 0.008856, np.cbrt(luminance), 7.787 * luminance + 16 / 116) - 16)


def test_labels_differ_in_more_than_hue(seen: Window) -> None:
    """In lightness, or in a pattern of lightness: looked at as grey pictures, no two are alike."""
    swatches = seen.page.evaluate(SWATCHES, 14)
    pixels = [np.reshape(one["pixels"], (24, 24, 4)) / 255 for one in swatches]
    for vision in COLOUR_VISION:
        for number, one in enumerate(pixels):
            for other in range(number):
                differ = difference(one, pixels[other], vision)
                assert differ > 5, f"with {vision}, labels {other + 1} and {number + 1} look alike"
    assert len({tuple(one["dash"]) for one in swatches[:7]}) == 7  # outlines differ too


def difference(one: Array, other: Array, vision: str) -> float:
    """How far two swatches differ in lightness, or in the pattern of it, in L*."""
    one, other = perceived_lightness(one, vision), perceived_lightness(other, vision)
    pattern = np.abs((one - one.mean()) - (other - other.mean())).mean()
    return float(max(abs(one.mean() - other.mean()), pattern))


def test_nothing_can_become_markup() -> None:
    """Names come from outside; there is no way from text to elements or to code in any of the page's files."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser"
    )
    for path in PAGE.glob("*.js"):
        assert not forbidden.search(path.read_text()), path
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|https?://", html)


def test_the_wheel_has_the_whole_page(run: Run) -> None:
    """What the page asks for is there: each file that another one names."""
    names = {path.name for path in PAGE.iterdir()}
    for path in PAGE.iterdir():
        text = path.read_text()
        for name in re.findall(r"\"(?:\./|/static/)([a-z0-9_.-]+)\"", text):
            assert name in names
    assert Path(PAGE / "app.js").is_file()
