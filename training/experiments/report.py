# SPDX-License-Identifier: Apache-2.0
"""What came of it: every table as Markdown, as JSON with the value of every seed, and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfvit_rt.segments import OTHER
from training.datasets import CELLULAR
from training.experiments.captures import CAPTURES, summary
from training.experiments.captures import TABLES as ON_CAPTURES
from training.experiments.models import Encoder, Place, encoder_of
from training.experiments.sets import WindowSet, window_sets
from training.experiments.trials import ENERGY, Trial
from training.tables import Point, draw_bars, draw_lines, markdown, mean_and_spread
from training.trials import write_json

Figures = dict[str, float | None]

TITLES = {
    "labels": "few labels: pretrained or not",
    "larger": "pretrained against four times as large from scratch",
    "masking": "what Masked Spectrogram Modeling hides",
    "targets": "what is rebuilt in Masked Spectrogram Modeling",
    "recordings": "what recordings without labels add to pretraining",
    "decoders": "what rebuilds in Masked Spectrogram Modeling",
    "networks": "stems, heads and optimisers, all from scratch",
    "heads": "heads, on a frozen encoder and on one that learns",
    "adapt": "what of the encoder learns",
    "losses": "what finetuning minimises",
    "paper": "the paper's setting",
    "snr": "mIoU by signal-to-noise ratio",
    "alarms": "share of pixels that get a name, where there is nothing to name",
    "rates": "mIoU by sample rate, at 10 to 30 dB",
    "captures": "recordings that somebody made",
}
ENCODERS = ("masking", "targets", "recordings", "decoders")  # tables that compare encoders, by probes too


@dataclass(frozen=True)
class Row:
    """One way to come by a model: what it is in words, and its figures, a value a seed."""

    trial: Trial
    figures: dict[str, list[float]]

    @property
    def text(self) -> str:
        """The first cell."""
        return self.trial.text


def gather(table: str, asked: Iterable[Trial], place: Place, labels: tuple[str, ...]) -> list[Row]:
    """Read the results of a table's trials, and put the seeds of one way together; what is not made is left out."""
    read = _reader(table, place, labels)
    figures: dict[Trial, dict[str, list[float]]] = {}
    for trial in asked:
        if (found := read(trial)) is None:
            continue
        row = figures.setdefault(dataclasses.replace(trial, seed=0), defaultdict(list))
        for name, value in found.items():
            if value is not None:
                row[name].append(value)
    return [Row(trial, dict(values)) for trial, values in figures.items()]


def _reader(table: str, place: Place, labels: tuple[str, ...]) -> Callable[[Trial], Figures | None]:
    def result(trial: Trial, kind: str) -> dict[str, Any] | None:
        path = place.result(trial, kind)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def read(trial: Trial) -> Figures | None:
        if window_sets(table, labels):
            found = result(trial, table)
            return _levels(table, found["levels"], labels) if found else None
        figures: Figures = {}
        if table in ON_CAPTURES:
            if (found := result(trial, CAPTURES)) is None:
                return None
            figures |= summary(found["recordings"])
        if table != CAPTURES:
            if (found := result(trial, "test")) is None:
                return None
            figures |= _on_test(found)
        return figures | (_of_encoder(encoder_of(trial, place), place) if table in ENCODERS else {})

    return read


def _on_test(result: dict[str, Any]) -> Figures:
    calibration = result.get("calibration", {}).get("all_pixels", {})
    return {
        "mIoU": result["overall"]["miou"],
        "mIoU from 10 dB": result["from_10_db"]["miou"],
        "mIoU at 0 dB": result["by_snr_db"].get("0", {}).get("miou"),
        "class-mean accuracy": result["overall"]["class_mean_accuracy"],
        "pixel accuracy": result["overall"]["pixel_accuracy"],
        "signal on noise alone": result["noise_only"]["signal_share"],
        "calibration error": calibration.get("expected_calibration_error"),
        "million weights": result["parameters"] / 1e6 if "parameters" in result else None,
        "minutes": result.get("minutes"),
    }


def _of_encoder(encoder: Encoder | None, place: Place) -> Figures:
    if encoder is None:
        return {}
    result = json.loads(encoder.result(place).read_text(encoding="utf-8"))
    return {
        "linear probe, mIoU": result["last"].get("linear_probe"),
        "nearest neighbour, accuracy": result["last"].get("nearest_neighbour"),
    }


def _levels(table: str, levels: dict[str, dict[str, Any]], labels: tuple[str, ...]) -> Figures:
    if table != "alarms":
        return {level: figures["miou"] for level, figures in levels.items()}
    named = [place for place, label in enumerate(labels) if place and label != OTHER]
    cellular = [place for place, label in enumerate(labels) if label in CELLULAR]
    found: Figures = {}
    for level, figures in levels.items():
        columns, total = [sum(column) for column in zip(*figures["confusion"], strict=True)], figures["pixels"]
        if level == "noise":
            found["any signal on noise"] = sum(columns[1:]) / total
        if level == "other":
            found["a class on other signals"] = sum(columns[place] for place in named) / total
        found[f"LTE or NR on {level if level == 'noise' else level + ' signals'}"] = (
            sum(columns[place] for place in cellular) / total
        )
    return found


def write(table: str, rows: list[Row], place: Place, labels: tuple[str, ...]) -> str:
    """Write a table's Markdown, JSON and picture into the folder of results; return the Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row.figures))
    shares = table == "alarms"
    lines = [
        [row.text, *(_cell(name, row.figures.get(name, []), shares) for name in columns), _seeds(row)] for row in rows
    ]
    text = f"## {TITLES[table]}\n\n" + markdown(["", *columns, "seeds"], lines) + "\n"
    if table in ON_CAPTURES:
        text += "\n" + _by_recording(rows, place) + "\n"
    folder = place.out / "tables"
    entries = [
        {"what": row.text, "trial": dataclasses.asdict(row.trial) | {"seed": None}, "figures": row.figures}
        for row in rows
    ]
    write_json(entries, folder / f"{table}.json")
    (folder / f"{table}.md").write_text(text, encoding="utf-8")
    _draw(table, rows, columns, folder / f"{table}.png", labels)
    return text


def _by_recording(rows: list[Row], place: Place) -> str:
    """One recording a line: frequency IoU of its carriers, or boxes that say LTE or NR where none is; of seed 1."""
    columns: dict[str, dict[str, str]] = {}
    for row in rows:
        path = place.result(dataclasses.replace(row.trial, seed=1), CAPTURES)
        found = json.loads(path.read_text(encoding="utf-8"))["recordings"]
        columns[row.text] = {each["recording"]: _recording_cell(each) for each in found}
    names = sorted({name for column in columns.values() for name in column})
    lines = [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    return markdown(["seed 1", *columns], lines)


def _recording_cell(row: dict[str, Any]) -> str:
    if not row["carriers"]:
        return f"{row['cellular_boxes']} boxes"
    return ", ".join(f"{carrier['label']} {carrier['frequency_iou']:.2f}" for carrier in row["carriers"])


def _cell(name: str, values: list[float], percent: bool) -> str:
    if not values:
        return "-"
    mean, spread = mean_and_spread(values)
    several = len(values) > 1 and spread > 0
    if percent or name in ("signal on noise alone", "calibration error"):
        return f"{mean:.3%}" + (f" ± {spread:.3%}" if several else "")
    if name in ("million weights", "minutes"):
        return f"{mean:.1f}"
    return f"{mean:.3f}" + (f" ± {spread:.3f}" if several else "")


def _seeds(row: Row) -> str:
    return str(max(len(values) for values in row.figures.values()))


def _draw(table: str, rows: list[Row], columns: list[str], path: Path, labels: tuple[str, ...]) -> None:
    title = TITLES[table]
    if table == "labels":
        y = "mIoU on the test split"
        draw_lines(_over_labels(rows), path, title=title, x="share of the labels", y=y, logarithmic=True)
    elif sets := [each for each in window_sets(table, labels) if table != "alarms"]:
        x = "signal-to-noise ratio in dB" if table == "snr" else "sample rate in MS/s"
        draw_lines(_over_levels(rows, sets), path, title=title, x=x, y="mIoU", logarithmic=table == "rates")
    else:
        first = columns[0]
        pairs = [mean_and_spread(row.figures.get(first, [0.0])) for row in rows]
        means, spreads = zip(*pairs, strict=True)
        limit = None if table == "alarms" else 1.0
        draw_bars([row.text for row in rows], means, spreads, path, title=title, label=first, limit=limit)


def _over_labels(rows: list[Row]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = defaultdict(list)
    for row in rows:
        if row.trial.method != ENERGY.method:
            point = (row.trial.labels, *mean_and_spread(row.figures["mIoU"]))
            series[dataclasses.replace(row.trial, labels=1.0).text].append(point)
    return series


def _over_levels(rows: list[Row], sets: list[WindowSet]) -> dict[str, list[Point]]:
    return {
        row.text: [
            (each.value, *mean_and_spread(row.figures[each.level])) for each in sets if each.level in row.figures
        ]
        for row in rows
    }
