# SPDX-License-Identifier: Apache-2.0
"""Tables of trials, for people and for programs: Markdown, JSON, and pictures of both kinds of axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

Point = tuple[float, float, float]  # place on the axis, mean, spread


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and the standard deviation that they are a sample of; 0 for one seed."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return round(float(np.mean(values)), 5), round(float(spread), 5)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(headings), *lines[1:]])


def draw_bars(
    texts: Sequence[str],
    means: Sequence[float],
    spreads: Sequence[float],
    path: Path,
    *,
    title: str,
    label: str,
    limit: float | None = 1.0,
) -> None:
    """Draw a bar for every row, with its spread, as a PNG; on an axis to `limit`, or to the longest."""
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(texts)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(texts))
    axes.barh(places, means, xerr=spreads, color="tab:blue", alpha=0.7)
    axes.set_yticks(places, texts, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlim=(0, limit), xlabel=label, title=title)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_lines(
    series: Mapping[str, Sequence[Point]], path: Path, *, title: str, x: str, y: str, logarithmic: bool = False
) -> None:
    """Draw a line for every row over a number, with its spread, as a PNG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for text, points in series.items():
        places, means, spreads = zip(*sorted(points), strict=True)
        axes.errorbar(places, means, spreads, marker="o", markersize=4, capsize=3, label=text)
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(0, 1))
    if logarithmic:
        ticks = sorted({point[0] for points in series.values() for point in points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
