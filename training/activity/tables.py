# SPDX-License-Identifier: Apache-2.0
"""Tables of trials: mean over splits, mean and spread over seeds, as JSON and as a picture."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.tables import draw_bars, markdown, mean_and_spread

ASKED = ("data", "kind", "method", "start", "frozen", "show", "few", "adapt")


@dataclass(frozen=True)
class Row:
    """One way to learn on one kind of split.

    Attributes
    ----------
    asked : dict
        What was asked, by the names of :class:`training.activity.experiments.Trial`.
    mean : float
        Accuracy: a mean over splits, then over seeds.
    spread : float
        Standard deviation over seeds of the mean over splits; 0 where there is one seed.
    folds : dict of str to float
        Mean over seeds, for each split.
    seeds : int
    """

    asked: dict[str, Any]
    mean: float
    spread: float
    folds: dict[str, float]
    seeds: int

    @property
    def text(self) -> str:
        """What was asked in a line."""
        words = [self.asked["data"], self.asked["kind"].replace("_", " "), self.asked["method"]]
        if self.asked["method"] == "vit":
            words.append({"none": "from scratch"}.get(self.asked["start"], f"after MSM on {self.asked['start']}"))
            words += ["frozen"] if self.asked["frozen"] else []
        words += [f"({self.asked['show']})"] if self.asked["show"] != "both" else []
        words += [f"{self.asked['few']} labels a class"] if self.asked["few"] else []
        words += [f"adapted with {self.asked['adapt']} a class"] if self.asked["adapt"] else []
        return ", ".join(words)


def accuracy_of(result: dict[str, Any]) -> float:
    """The figure of a run: the mean over test sessions where there are some, else the accuracy of its recordings."""
    return float(result.get("session_mean", result["accuracy"]))


def rows(results: Iterable[dict[str, Any]]) -> list[Row]:
    """Gather runs that asked the same, but for split and seed."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[tuple(result[name] for name in ASKED)].append(result)
    return [_row(dict(zip(ASKED, key, strict=True)), groups[key]) for key in sorted(groups)]


def _row(asked: dict[str, Any], results: list[dict[str, Any]]) -> Row:
    seeds, folds = defaultdict(list), defaultdict(list)
    for result in results:
        seeds[result["seed"]].append(accuracy_of(result))
        folds[result["split"]].append(accuracy_of(result))
        for session, accuracy in result.get("sessions", {}).items():
            folds[session].append(accuracy)
    means = [float(np.mean(values)) for values in seeds.values()]
    mean, spread = mean_and_spread(means)
    return Row(
        asked,
        round(mean, 4),
        round(spread, 4),
        {name: round(float(np.mean(values)), 4) for name, values in sorted(folds.items())},
        len(means),
    )


def write(table: str, gathered: list[Row], folder: Path) -> None:
    """Write a table as JSON and as a bar chart."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        row.asked | {"accuracy": row.mean, "spread": row.spread, "splits": row.folds, "seeds": row.seeds}
        for row in gathered
    ]
    (folder / f"{table}.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
    draw_bars(
        [row.text for row in gathered],
        [row.mean for row in gathered],
        [row.spread for row in gathered],
        folder / f"{table}.png",
        title=table,
        label="accuracy, mean over splits; bars: standard deviation over seeds",
    )


def text(gathered: list[Row]) -> str:
    """A table as Markdown."""
    cells = []
    for row in gathered:
        folds = ", ".join(f"{name} {value:.3f}" for name, value in row.folds.items())
        cells.append((row.text, f"{row.mean:.3f} ± {row.spread:.3f}", str(row.seeds), folds))
    return markdown(("what", "accuracy", "seeds", "by split"), cells)
