# SPDX-License-Identifier: Apache-2.0
"""Reports, as a browser would read them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from matplotlib.image import imread
from rich.console import Console

from rfvit_rt import cli, report, terminal
from rfvit_rt.contract import METADATA_KEY
from rfvit_rt.datatypes import Annotation, Mask
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.errors import OutputError, RecordingError, StreamError
from rfvit_rt.models import default_model
from rfvit_rt.outputs import Outputs
from rfvit_rt.report.gathering import MAX_COLUMNS, MAX_ROWS, Gathered, Occupancy
from rfvit_rt.running import Options
from rfvit_rt.sinks.sigmf import write_recording

EXAMPLE = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
VOID = {"meta", "img", "br", "line"}
HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3", "p", "div"),
    *("img", "svg", "line", "text", "polyline", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"),
    *("details", "summary", "pre", "strong", "code"),
}
EVIL = "<script>alert('x')</script>\"'&{{ 7*7 }}$\\frac{"  # to HTML, to templates, and to Matplotlib


class Page(HTMLParser):
    """A page's elements, its text, and the rows of its tables by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[self._section][-1][-1] += data

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    return tmp_path / EXAMPLE.name


def make(recording: Path, output: Path | None = None, model: Path | None = None, overwrite: bool = False) -> None:
    outputs = Outputs(Console(file=io.StringIO()), overwrite=overwrite)
    report.report_recording(recording, output, Options(model=str(model) if model else None), outputs)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def check_harmless(page: Page) -> None:
    """Nothing is loaded, run or sent: not by what the page says, and not by what it asks the browser to allow."""
    assert {tag for tag, _ in page.elements} <= HARMLESS
    for tag, attributes in page.elements:
        assert not {"href", "srcset", "style", "background", "action"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    (picture,) = page.named("img")
    assert str(picture["src"]).startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import", page.text)
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    directives = dict(directive.split(maxsplit=1) for directive in policy.split("; "))
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
    assert directives["img-src"] == "data:"
    assert directives.keys() <= {"default-src", "style-src", "img-src", "base-uri", "form-action"}


def test_the_command_writes_a_page_with_everything(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rfvit", "report", str(example), "--output", str(tmp_path / "r.html")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert f"Report: {tmp_path / 'r.html'}" in capsys.readouterr().out.replace("\n", "")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 100_000 < len(text) < 3_000_000
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    check_harmless(page)

    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in text  # else the browser would not apply it
    assert "prefers-color-scheme: dark" in style
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.named("meta")

    (picture,) = page.named("img")
    pixels = imread(io.BytesIO(base64.b64decode(str(picture["src"]).partition(",")[2])))
    assert pixels.shape[1] == 1600
    assert picture["alt"]

    assert "Simulated: generated by" in page.text
    head, *annotations = page.rows["annotations"]
    assert head[0] == "Label"
    assert {row[0] for row in annotations} == {"LTE", "NR"}
    lte = next(row for row in annotations if row[0] == "LTE")
    assert float(lte[3].replace(",", "")) == pytest.approx(2132.75, abs=0.4)
    assert float(lte[4].replace(",", "")) == pytest.approx(2137.25, abs=0.4)
    assert {row[0] for row in page.rows["emissions"][1:]} == {"LTE", "NR"}
    for words in ("Lost samples: 0", "Achieved rate", "Sample age: p50", "Engine: OpenVINO"):
        assert words in page.text
    assert [row[0] for row in page.rows["run"]] == ["windowing", "spectrogram", "inference", "results"]
    settings = {row[0]: row[1] for row in page.rows["settings"]}
    assert settings["SHA-256"] == default_model().sha256
    assert {"time_step", "hop_steps", "memory", "enter"} <= settings.keys()
    metadata = {row[0]: row[1] for row in page.rows["recording"]}
    assert metadata["core:datatype"] == "ci8"
    assert metadata["0"] == "3,000,000"  # the capture's first sample, and how many
    card = default_model().path.with_suffix(".md").read_text(encoding="utf-8")
    assert card.strip() in "".join(page.texts)


def test_the_plot_shows_when_nr_comes_on_the_air(example: Path) -> None:
    make(example)
    page = read(example.with_name("lte_nr_20MHz.rfvit.html"))
    plots = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    width, height = map(float, str(plots[0]["viewbox"]).split()[2:])
    lines = [
        np.array([point.split(",") for point in str(line["points"]).split()], float) for line in page.named("polyline")
    ]
    assert len(lines) == len(default_model().contract.labels) - 1  # LTE, NR and others, with samples all the time
    for line in lines:
        assert (line >= 0).all()
        assert (line <= (width, height)).all()
        assert (np.diff(line[:, 0]) > 0).all()
    floor = lines[1][:, 1].max()  # the y axis points down
    middle = len(lines[1]) // 3  # 50 of 150 ms
    assert (lines[1][: middle - 3, 1] == floor).all()
    assert (lines[1][middle:, 1] < floor).mean() > 0.5
    assert (lines[0][:, 1] < floor - 10).mean() > 0.9  # LTE is there all the time


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    name = EVIL.replace("/", "∕")
    recording = tmp_path / f"{name}.sigmf-meta"
    metadata = json.loads(EXAMPLE.read_text())
    metadata["global"] |= {"core:description": f"</title></style>{EVIL}", "core:author": EVIL, EVIL: [EVIL]}
    recording.write_text(json.dumps(metadata))
    shutil.copy(EXAMPLE.with_suffix(".sigmf-data"), recording.with_suffix(".sigmf-data"))

    shipped = default_model()
    network = onnx.load(shipped.path)
    contract = dataclasses.replace(shipped.contract, labels=("background", EVIL, *shipped.contract.labels[2:]))
    for entry in network.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = contract.to_json()
    model = tmp_path / "evil.onnx"
    onnx.save(network, model)
    model.with_suffix(".md").write_text(f"# {EVIL} </pre>")

    make(recording, tmp_path / "r.html", model)
    page = read(tmp_path / "r.html")
    check_harmless(page)
    assert len(page.named("title")) == len(contract.labels)  # the page's, and those of the plot's lines
    assert EVIL in {row[0] for row in page.rows["annotations"]}
    assert page.text.count(EVIL) >= 8
    assert f"# {EVIL} </pre>" in page.text
    assert f"{name}.sigmf-meta" in page.text


def test_a_broken_recording_gives_a_report_that_says_so(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((400_000, 2), np.float32).view(np.complex64)[:, 0]
    samples[300_000] = np.nan
    recording = write_recording(tmp_path / "nan", samples, 2e6)
    with pytest.raises(StreamError, match="sample 300000"):
        make(recording)
    page = read(tmp_path / "nan.rfvit.html")
    check_harmless(page)
    assert "Incomplete." in page.text
    assert "sample 300000 is NaN" in page.text
    assert "offsets from the centre" in page.text  # the recording does not say its frequency


def test_files_are_not_lost(example: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        make(example, page)
    assert page.read_text() == "mine"
    make(example, page, overwrite=True)
    assert "rfvit" in page.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match=r"\.html"):
        make(example, example, overwrite=True)
    with pytest.raises(OutputError, match="no folder"):
        make(example, tmp_path / "no" / "r.html")
    with pytest.raises(RecordingError, match="missing"):
        make(tmp_path / "missing.sigmf-meta")


def test_a_run_keeps_no_more_than_is_shown(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(terminal, "SHOWN_ROWS", 2)
    monkeypatch.setattr(report, "render", lambda recording, run, gathered: seen.extend((run, gathered)) or b"")
    make(example)
    run, gathered = seen
    assert len(run.annotations) == 2
    assert sum(gathered.counts.values()) == len(gathered.annotations) > 2


def test_emissions_that_are_let_go_are_counted(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfvit_rt.run.EmissionTracker", partial(EmissionTracker, most=1))
    make(example)
    page = read(example.with_name("lte_nr_20MHz.rfvit.html"))
    let_go = re.search(r"Emissions let go: (\d+) of (\d+), ", page.text)
    assert let_go
    count = int(let_go[2])
    assert int(let_go[1]) == count - 1 > 0
    assert f"Emissions: the same label in the same band ({count})" in page.text
    assert f"1 of {count} are listed." in page.text
    assert len(page.rows["emissions"]) == 2  # the head, and the last


def test_of_many_annotations_the_first_are_listed_and_all_counted() -> None:
    gathered = Gathered(default_model(), 0, 20e6)
    for number in range(MAX_ROWS + 7):
        gathered.write(Annotation("LTE", number, 10, 1e6, 2e6, 0.5, 20e6))
    assert [annotation.sample_start for annotation in gathered.annotations] == [*range(MAX_ROWS)]
    assert gathered.counts == {"LTE": MAX_ROWS + 7}


# ---- occupancy ----

STEP = 100  # samples


def mask(start: int, shares: list[float], bins: int = 20) -> Mask:
    """Time steps in which class 1 has so much of the band, and class 2 as much of what is left."""
    probabilities = np.zeros((len(shares), bins, 3), np.float32)
    probabilities[:, :, 0] = 1
    for step, share in enumerate(shares):
        first = round(share * bins)
        second = first + round(share * (bins - first))
        probabilities[step, :first] = (0.2, 0.7, 0.1)
        probabilities[step, first:second] = (0.4, 0.2, 0.4)
    return Mask(probabilities, 1000 + start * STEP, len(shares) * STEP, 2e6, None)


def test_occupancy_is_the_share_of_the_band_at_each_time() -> None:
    occupancy = Occupancy(3, 1000, 2e6)
    occupancy.add(mask(0, [0.5, 0.0]))
    occupancy.add(mask(2, [1.0]))
    occupancy.add(mask(5, [0.25]))  # after a gap
    shares = occupancy.shares()
    assert occupancy.column_seconds == STEP / 2e6
    np.testing.assert_allclose(shares[:, 1], [0.5, 0, 1, np.nan, np.nan, 0.25])
    np.testing.assert_allclose(shares[:, 2], [0.25, 0, 0, np.nan, np.nan, 0.2])
    np.testing.assert_allclose(shares[[0, 1, 2, 5]].sum(axis=1), 1)
    np.testing.assert_allclose(occupancy.means(), [1 - 2.2 / 4, 1.75 / 4, 0.45 / 4])


def test_occupancy_of_a_long_recording_takes_no_more_memory() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.integers(0, 21, 10 * MAX_COLUMNS) / 20
    occupancy = Occupancy(3, 1000, 2e6)
    start = 0
    while start < len(wanted):
        count = int(rng.integers(1, 300))
        occupancy.add(mask(start, list(wanted[start : start + count])))
        start += count
    shares = occupancy.shares()
    assert occupancy.column_seconds == pytest.approx(16 * STEP / 2e6)
    assert len(shares) == len(wanted) // 16
    np.testing.assert_allclose(shares[:, 1], wanted.reshape(-1, 16).mean(axis=1))
    assert occupancy.means()[1] == pytest.approx(wanted.mean())
