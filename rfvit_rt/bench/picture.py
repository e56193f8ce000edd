# SPDX-License-Identifier: Apache-2.0
"""Sample age against sample rate, as a PNG."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from rfvit_rt.bench.report import Benchmark
from rfvit_rt.bench.stream import Trial

SIZE = (8.0, 5.0)  # inches
DPI = 120
MARKS = {"p50": "o", "p95": "s", "p99": "^"}


def draw(benchmark: Benchmark) -> bytes:
    """Draw the trials of the whole way: those that kept up filled, the others hollow; both axes logarithmic."""
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    trials = sorted((trial for trial in benchmark.trials if trial.sample_age), key=lambda trial: trial.sample_rate)
    held = [trial for trial in trials if trial.kept_up]
    failed = [trial for trial in trials if not trial.kept_up]
    for (name, mark), colour in zip(MARKS.items(), ("C0", "C1", "C3"), strict=True):
        axes.plot(*_points(held, name), marker=mark, color=colour, label=name)
        axes.plot(*_points(failed, name), marker=mark, color=colour, fillstyle="none", linestyle="none")
    if benchmark.zero_loss_sample_rate is not None:
        rate = benchmark.zero_loss_sample_rate / 1e6
        label = f"zero loss for {benchmark.confirmed_seconds:g} s: {rate:.1f} MS/s"
        axes.axvline(rate, color="0.5", linestyle="--", label=label)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Sample rate (MS/s)")
    axes.set_ylabel("Sample age after the window's end (ms)")
    machine = benchmark.machine
    axes.set_title(
        f"{machine.processor}, {machine.cores} cores; {benchmark.model}; hollow: did not keep up", fontsize=9
    )
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def _points(trials: list[Trial], name: str) -> tuple[list[float], list[float]]:
    return [trial.sample_rate / 1e6 for trial in trials], [getattr(trial.sample_age, name) for trial in trials]
