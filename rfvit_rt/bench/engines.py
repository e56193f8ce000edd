# SPDX-License-Identifier: Apache-2.0
"""How fast each engine is here, in each precision and with several windows at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from rfvit_rt.bench.figures import Milliseconds
from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine, engine_names, load_engine
from rfvit_rt.engines.choice import gpu_count
from rfvit_rt.errors import EngineError, ModelError

BATCHES = (1, 8)
REFERENCE = "pytorch"  # as its engine calls itself: in f32 on the processor, the network as it was trained, run eagerly
_PRECISIONS = ("f32", "bf16", "f16")  # the last on GPUs alone


@dataclass(frozen=True)
class EngineSpeed:
    """One engine in one precision with one number of windows at a time.

    Attributes
    ----------
    engine, precision, description : str
        As the engine says.
    on_gpu : bool
    batch : int
        Windows of one tile each that are handed over together.
    windows_per_second : float
        Median over the runs.
    runs : tuple of float
        Windows per second of each run.
    milliseconds : Milliseconds
        Until all results of a batch are there.
    """

    engine: str
    precision: str
    description: str
    on_gpu: bool
    batch: int
    windows_per_second: float
    runs: tuple[float, ...]
    milliseconds: Milliseconds


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why."""

    what: str
    reason: str


def measure_engines(
    model: ModelFile,
    only: str | None,
    threads: int | None,
    runs: int,
    seconds: float,
    progress: Callable[[str], None],
) -> tuple[list[EngineSpeed], list[LeftOut]]:
    """Measure all engines that start here, or one, in turns, so that what disturbs the machine disturbs all of them.

    Parameters
    ----------
    model : ModelFile
    only : str or None
        Name of the engine to measure.
    threads : int or None
        Processor threads for the engines; as many as they like where None.
    runs : int
        How often each is measured.
    seconds : float
        Length of a run.
    progress : callable
        Told what is measured.
    """
    left_out: list[LeftOut] = []
    with ExitStack() as stack:
        engines = []
        for name in [only] if only else engine_names():
            progress(f"loading {name}")
            started = [stack.enter_context(engine) for engine in _start(model, name, threads, left_out)]
            engines += started
        measured: dict[tuple[int, int], list[list[float]]] = {}
        for run in range(runs):
            for number, engine in enumerate(engines):
                for batch in BATCHES:
                    progress(f"{engine.name} {engine.precision}, {batch} at a time, run {run + 1} of {runs}")
                    measured.setdefault((number, batch), []).append(_calls(engine, model, batch, seconds))
        speeds = [_speed(engines[number], batch, calls) for (number, batch), calls in measured.items()]
    return speeds, left_out


def over_eager(speeds: Sequence[EngineSpeed]) -> float | None:
    """How many times as fast as the eager float32 network the fastest other engine is on the processor.

    None where one of them was not measured.
    """
    here = [speed for speed in speeds if not speed.on_gpu]
    eager = [speed.windows_per_second for speed in here if (speed.engine, speed.precision) == (REFERENCE, "f32")]
    others = [speed.windows_per_second for speed in here if speed.engine != REFERENCE]
    return max(others) / max(eager) if eager and others else None


def _start(model: ModelFile, name: str, threads: int | None, left_out: list[LeftOut]) -> Iterator[Engine]:
    """The engine in every precision that it has here; says why where it has none."""
    has_gpu = gpu_count() > 0
    obstacles, started = [], []
    precisions = _PRECISIONS if has_gpu else _PRECISIONS[:-1]
    for precision in precisions:
        try:
            engine = load_engine(model, name, precision=precision, threads=threads)
        except (EngineError, ModelError) as error:
            obstacles.append(str(error))
        else:
            started.append(engine.name)
            yield engine
    if not started:
        left_out.append(LeftOut(name, obstacles[0]))
    elif REFERENCE in started and has_gpu:
        yield load_engine(model, name, precision="f32", threads=threads, device="cpu")


def _calls(engine: Engine, model: ModelFile, batch: int, seconds: float) -> list[float]:
    """Seconds of successive calls, for so many seconds in all, after one that does not count."""
    pictures, bin_widths = (
        np.repeat(part, batch, axis=0) for part in model.contract.golden.inputs(model.contract.spec)
    )
    engine.infer(pictures, bin_widths)
    calls: list[float] = []
    until = time.perf_counter() + seconds
    while not calls or time.perf_counter() < until:
        begun = time.perf_counter()
        engine.infer(pictures, bin_widths)
        calls.append(time.perf_counter() - begun)
    return calls


def _speed(engine: Engine, batch: int, runs: Sequence[Sequence[float]]) -> EngineSpeed:
    rates = tuple(batch * len(calls) / sum(calls) for calls in runs)
    return EngineSpeed(
        engine=engine.name,
        precision=engine.precision,
        description=engine.description,
        on_gpu=engine.on_gpu,
        batch=batch,
        windows_per_second=float(np.median(rates)),
        runs=rates,
        milliseconds=Milliseconds.of([call for calls in runs for call in calls]),
    )
