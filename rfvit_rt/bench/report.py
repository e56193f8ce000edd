# SPDX-License-Identifier: Apache-2.0
"""All figures of a benchmark, as tables for people and as one object for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from rfvit_rt.bench.engines import EngineSpeed, LeftOut
from rfvit_rt.bench.figures import Milliseconds
from rfvit_rt.bench.machine import Machine
from rfvit_rt.bench.stages import StageSpeed
from rfvit_rt.bench.stream import Trial

VERSION = 1  # of the JSON object; counted up where a field changes its meaning or goes
BUSY = 0.1  # cores that others may use before it is worth a word


@dataclass(frozen=True)
class Benchmark:
    """What was found.

    Attributes
    ----------
    machine : Machine
    model, model_sha256 : str
        Name, and SHA-256 of the file.
    engine : str
        What ran the model in the stages and on the whole way.
    sample_rate : float
        Of the recording that the stages were measured on, in Hz.
    overlap : float
        Part of a window that the next one covers again, in the stages and on the whole way.
    runs : int
        How often engines and stages were measured.
    engines : tuple of EngineSpeed
    over_eager_f32 : float or None
        How many times as fast the fastest engine on the processor is as the same network in eager float32 PyTorch on
        the same cores; None where PyTorch is not installed or not asked for.
    stages : tuple of StageSpeed
    other_cores : float
        Processor cores that other programs kept busy while engines and stages were measured.
    trials : tuple of Trial
        Of the whole way, in the order they were made.
    zero_loss_sample_rate : float or None
        Highest sample rate that the whole way kept up with, without a lost sample, for `confirmed_seconds`, in Hz; None
        where the whole way was not measured, or no rate held.
    confirmed_seconds : float
    left_out : tuple of LeftOut
        What could not be measured here.
    """

    machine: Machine
    model: str
    model_sha256: str
    engine: str
    sample_rate: float
    overlap: float
    runs: int
    engines: tuple[EngineSpeed, ...]
    over_eager_f32: float | None
    stages: tuple[StageSpeed, ...]
    other_cores: float
    trials: tuple[Trial, ...]
    zero_loss_sample_rate: float | None
    confirmed_seconds: float
    left_out: tuple[LeftOut, ...]

    @property
    def confirmed(self) -> Trial | None:
        """The long trial at `zero_loss_sample_rate`."""
        held = [trial for trial in self.trials if trial.kept_up and trial.sample_rate == self.zero_loss_sample_rate]
        return held[-1] if held else None


def to_dict(benchmark: Benchmark) -> dict[str, Any]:
    """Everything, ready for JSON; rates in Hz, durations as their names say."""
    return {"type": "benchmark", "version": VERSION, **dataclasses.asdict(benchmark)}


def for_people(benchmark: Benchmark) -> Iterator[Table | str]:
    """Tables and lines, in the order to show them in."""
    machine = benchmark.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    features = ", ".join(machine.features) or "no AVX2"
    yield f"Machine: {machine.processor}, {machine.cores} cores, {features}; {machine.system}"
    yield f"Versions: {versions}"
    yield f"Model: {benchmark.model} ({benchmark.model_sha256[:12]}); stages and the whole way: {benchmark.engine}"
    yield _engine_table(benchmark)
    if benchmark.over_eager_f32 is not None:
        doubt = "; other programs were busy, so do not rely on it" if benchmark.other_cores > BUSY else ""
        times = f"{benchmark.over_eager_f32:.1f} times the windows/s of eager float32 PyTorch"
        yield f"The fastest engine has {times}{doubt}."
    yield _stage_table(benchmark)
    if benchmark.trials:
        yield _trial_table(benchmark)
    yield from _verdict(benchmark)
    others = max([benchmark.other_cores, *(trial.other_cores for trial in benchmark.trials)])
    if others > BUSY:
        yield (
            f"Other programs kept up to {others:.1f} of {benchmark.machine.cores} cores busy meanwhile; without them "
            "figures may be better"
        )
    for left_out in benchmark.left_out:
        yield f"Left out: {left_out.what}: {left_out.reason}"


def _engine_table(benchmark: Benchmark) -> Table:
    table = _table(f"Engines: median of {benchmark.runs} runs", "Engine", "Precision", "Batch", "Windows/s", _TIMES)
    for speed in benchmark.engines:
        name = f"{speed.engine}{' (GPU)' if speed.on_gpu else ''}"
        rate = f"{speed.windows_per_second:.1f}"
        table.add_row(name, speed.precision, str(speed.batch), rate, _times(speed.milliseconds))
    return table


def _stage_table(benchmark: Benchmark) -> Table:
    title = f"Stages, one at a time: {benchmark.sample_rate / 1e6:g} MS/s, overlap {benchmark.overlap:g}"
    table = _table(title, "Stage", "Windows/s", "Real time", _TIMES)
    for stage in benchmark.stages:
        speed = (f"{stage.windows_per_second:.0f}", f"{stage.times_real_time:.1f} x")
        table.add_row(stage.stage, *speed, _times(stage.milliseconds))
    return table


def _trial_table(benchmark: Benchmark) -> Table:
    title = f"The whole way: GNU Radio → ZeroMQ → annotations, windows that overlap by {benchmark.overlap:.0%}"
    table = _table(title, "MS/s", "Seconds", f"Age {_TIMES}", "rfvit", "GNU Radio", "Others", "Verdict")
    table.caption = "rfvit, GNU Radio, others: processor cores busy"
    for trial in benchmark.trials:
        table.add_row(
            f"{trial.sample_rate / 1e6:.2f}",
            f"{trial.seconds:g}",
            _times(trial.sample_age, 0),
            *(f"{cores:.2f}" for cores in (trial.rfvit_cores, trial.flowgraph_cores, trial.other_cores)),
            _word(trial),
        )
    return table


def _word(trial: Trial) -> str:
    if trial.lost:
        return f"lost {trial.lost / (trial.lost + trial.samples):.2%}"
    return "kept up" if trial.kept_up else "fell behind"


def _verdict(benchmark: Benchmark) -> Iterator[str]:
    confirmed = benchmark.confirmed
    if not benchmark.trials:
        return
    if confirmed is None or confirmed.sample_age is None:
        yield "Zero loss: at none of the rates"
        return
    age = confirmed.sample_age
    yield (
        f"Zero loss: {confirmed.sample_rate / 1e6:.2f} MS/s for {confirmed.seconds:g} s, windows that overlap by "
        f"{benchmark.overlap:.0%} (rfvit segment's by a quarter, unless told otherwise); sample age p50 "
        f"{age.p50:.0f} ms, p95 {age.p95:.0f} ms, p99 {age.p99:.0f} ms after the window's end"
    )


_TIMES = "p50/p95/p99 ms"


def _times(milliseconds: Milliseconds | None, digits: int = 1) -> str:
    if milliseconds is None:
        return ""
    return " / ".join(f"{value:.{digits}f}" for value in (milliseconds.p50, milliseconds.p95, milliseconds.p99))


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column == "Verdict" else "right")
    return table
