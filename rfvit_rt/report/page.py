# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML page that loads nothing: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from rfvit_rt import __version__, terminal
from rfvit_rt.consensus import DEFAULT_SETTINGS as CONSENSUS
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.report.gathering import MAX_ROWS, Gathered
from rfvit_rt.run import Run
from rfvit_rt.segments import DEFAULT_SETTINGS as SEGMENTS
from rfvit_rt.sinks.image import COLOURS
from rfvit_rt.sources.recording import Recording

MAX_VALUE = 1000  # characters of a value of the metadata
MAX_FIELDS = 100  # of the metadata, and captures
WIDTH, HEIGHT = 1000, 240  # of the plot, in its own units
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 10, 40
DASHES = ("", "9 4", "2 4", "9 4 2 4")  # tell lines apart where colours do not


def render(recording: Recording, run: Run, gathered: Gathered) -> bytes:
    """Write the page.

    Parameters
    ----------
    recording : Recording
        What was segmented.
    run : Run
        After its process.
    gathered : Gathered
        What was kept of it.

    Returns
    -------
    bytes
        HTML in UTF-8. All that comes from the recording and the model is escaped.
    """
    environment = Environment(
        loader=PackageLoader("rfvit_rt.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = files("rfvit_rt.report").joinpath("page.css").read_text(encoding="utf-8")
    labels = run.model.contract.labels
    report = run.report()
    emissions = run.emissions
    page = environment.get_template("page.html").render(
        style=style,
        # The one style sheet may apply; nothing may be loaded, run or sent.
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        title=recording.meta_path.name,
        description=_value(recording.metadata["global"].get("core:description", "")),
        problems=[str(failure) for failure in run.failures] + (["it was interrupted"] if run.stop.is_set() else []),
        picture=base64.b64encode(gathered.picture.png()).decode("ascii"),
        plot=_plot(gathered, labels),
        annotations=[_annotation(a, recording) for a in sorted(gathered.annotations, key=lambda a: a.sample_start)],
        annotation_count=sum(gathered.counts.values()),
        counts=gathered.counts.most_common(),
        emissions=[_emission(emission, recording) for emission in emissions[:MAX_ROWS]],
        emission_count=run.emission_count,
        is_relative=any(capture.frequency is None for capture in recording.captures),
        run_lines=terminal.report_lines(report),
        stages=list(_stages(run)),
        settings=list(_settings(run)),
        card=_card(run.model),
        metadata=_fields(recording.metadata["global"]),
        captures=list(_captures(recording)),
        capture_count=len(recording.captures),
    )
    return page.encode("utf-8", "backslashreplace")  # a file's name may hold bytes that are no text


@dataclass(frozen=True)
class _Line:
    """One label of the plot: its polylines, one for each stretch with samples."""

    label: str
    mean: str
    colour: str
    dash: str
    stretches: list[str]


@dataclass(frozen=True)
class _Plot:
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    lines: list[_Line]
    times: list[tuple[float, str]]
    levels: list[tuple[float, str]]
    column: str


def _plot(gathered: Gathered, labels: Sequence[str]) -> _Plot:
    shares = gathered.occupancy.shares()[:, 1:] * 100
    means = gathered.occupancy.means()[1:] * 100
    top = max(10.0, float(np.ceil(np.nanmax(shares, initial=0.0) / 10) * 10))
    seconds = len(shares) * gathered.occupancy.column_seconds
    x = LEFT + (np.arange(len(shares)) + 0.5) / max(1, len(shares)) * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - shares / top * (HEIGHT - TOP - BOTTOM)
    unit, name = (1.0, "s") if seconds > 10 else (1e3, "ms")
    return _Plot(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        lines=[
            _Line(
                label,
                f"{means[number]:.1f} %",
                COLOURS[number % len(COLOURS)],
                DASHES[number % len(DASHES)],
                list(_stretches(x, y[:, number])),
            )
            for number, label in enumerate(labels[1:])
        ],
        times=[
            (LEFT + part * (WIDTH - LEFT - RIGHT) / 4, f"{seconds * part / 4 * unit:.4g} {name}") for part in range(5)
        ],
        levels=[(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM) / 2, f"{top * part / 2:g} %") for part in range(3)],
        column=f"{gathered.occupancy.column_seconds * 1e3:.4g} ms",
    )


def _stretches(x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[str]:
    """Points of polylines in SVG's notation, one for each stretch without NaN."""
    known = np.flatnonzero(np.isfinite(y))
    for stretch in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(stretch):
            if len(stretch) == 1:  # a line needs two points
                stretch = np.repeat(stretch, 2)
            yield " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[stretch], y[stretch], strict=True))


def _annotation(annotation: Annotation, recording: Recording) -> list[str]:
    start = (annotation.sample_start - recording.sample_start) / annotation.sample_rate
    return [
        annotation.label,
        f"{start * 1e3:,.2f}",
        f"{annotation.sample_count / annotation.sample_rate * 1e3:,.2f}",
        f"{annotation.freq_lower_edge / 1e6:,.3f}",
        f"{annotation.freq_upper_edge / 1e6:,.3f}",
        f"{annotation.confidence:.0%}",
    ]


def _emission(emission: Emission, recording: Recording) -> list[str]:
    first, last = ((seen - recording.sample_start) for seen in (emission.first_seen, emission.last_seen))
    return [
        emission.label,
        f"{emission.freq_lower_edge / 1e6:,.3f}",
        f"{emission.freq_upper_edge / 1e6:,.3f}",
        f"{first / recording.sample_rate * 1e3:,.1f}",
        f"{last / recording.sample_rate * 1e3:,.1f}",
        f"{emission.burst_count:,}",
        terminal.share(emission.duty_cycle),
        f"{emission.confidence:.0%}",
    ]


def _stages(run: Run) -> Iterator[tuple[str, str]]:
    """Mean time that a window spent in each stage."""
    for stage, histogram in run.figures().stages.items():
        count = sum(histogram.counts)
        if count:
            yield stage, f"{histogram.total / count * 1e3:.1f} ms"


def _settings(run: Run) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    model, contract = run.model, run.model.contract
    yield (
        "Model",
        [
            ("name", contract.name),
            ("file", model.path.name),
            ("SHA-256", model.sha256),
            ("labels", ", ".join(contract.labels)),
        ],
    )
    parts = (("Spectrogram", contract.spec), ("Windows", run.settings), ("Consensus", CONSENSUS))
    for name, settings in (*parts, ("Boxes", SEGMENTS)):
        yield name, _fields(dataclasses.asdict(settings))


def _card(model: ModelFile) -> str:
    """The text that ships with a model; empty where there is none."""
    try:
        return model.path.with_suffix(".md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _captures(recording: Recording) -> Iterator[list[str]]:
    for capture in recording.captures[:MAX_FIELDS]:
        yield [
            f"{capture.sample_start:,}",
            f"{capture.sample_count:,}",
            "unknown" if capture.frequency is None else f"{capture.frequency / 1e6:,.6g}",
            _value(capture.datetime or ""),
            f"{capture.radio_lost:,}",
        ]


def _fields(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_value(name), _value(value)) for name, value in list(values.items())[:MAX_FIELDS]]


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]} …"
