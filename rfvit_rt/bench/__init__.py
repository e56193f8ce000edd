# SPDX-License-Identifier: Apache-2.0
"""``rfvit bench``: what this machine sustains, engine by engine, stage by stage, and the whole way from GNU Radio."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rfvit_rt.bench.engines import LeftOut, measure_engines, over_eager
from rfvit_rt.bench.machine import Busy, this_machine
from rfvit_rt.bench.picture import draw
from rfvit_rt.bench.report import Benchmark
from rfvit_rt.bench.report import for_people as for_people  # part of this module's interface
from rfvit_rt.bench.report import to_dict as to_dict
from rfvit_rt.bench.search import highest_of, highest_rate
from rfvit_rt.bench.stages import StageInputs, measure_stages
from rfvit_rt.bench.stream import Trial, expected_seconds, try_rate
from rfvit_rt.contract import ModelFile
from rfvit_rt.engines.choice import AUTO
from rfvit_rt.errors import ModelError, StreamError
from rfvit_rt.flowgraph import find_flowgraph, find_gnuradio_python
from rfvit_rt.models import default_model, find_model
from rfvit_rt.pipeline import PipelineSettings
from rfvit_rt.running import Options, Stop, end, open_engine, stopping_at_signals
from rfvit_rt.sinks.image import check_png, put_png
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.spectrogram import SpectrogramSpec

RECORDING = "recordings/lte_nr_20MHz.sigmf-meta"
START_RATE = 5e6  # Hz: where the search begins, or as near as the model takes
_WARM_UP = 1.0  # s of stream, at the rate where the search begins
# For the progress bar alone: trials and engines with their batches, and seconds of loading and stages.
_USUAL_TRIALS, _USUAL_ENGINES, _LOADING = 12, 8, 15.0


@dataclass(frozen=True)
class BenchSettings:
    """How long and how often to measure.

    Attributes
    ----------
    seconds : float
        Of stream that the rate which was found has to hold for.
    probe_seconds : float
        Of stream in each trial of the search; at most `seconds`.
    rates : tuple of float
        Sample rates to try, in Hz; the search chooses them where there are none.
    runs : int
        How often engines and stages are measured; the median counts.
    run_seconds : float
        Length of one run of an engine.
    """

    seconds: float = 20.0
    probe_seconds: float = 4.0
    rates: tuple[float, ...] = ()
    runs: int = 5
    run_seconds: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise StreamError(f"--seconds is {self.seconds:g}, expected a positive number of seconds")


def parse_rates(text: str, model: ModelFile) -> tuple[float, ...]:
    """Read sample rates in Hz, divided by commas.

    Raises
    ------
    StreamError
        If they are no numbers.
    SpecMismatch
        If one is not for the model.
    """
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise StreamError(f"--rates is '{text}', expected sample rates in Hz such as 10e6,20e6,40e6") from None
    for rate in rates:
        model.contract.spectrogram.check_sample_rate(rate)
    return rates


def find_segmenter(name: str | None) -> ModelFile:
    """Read the model to measure with.

    Raises
    ------
    ModelError
        If there is none, or it is of CSI.
    """
    model = find_model(name) if name else default_model()
    if model.contract.task != "segmentation":
        raise ModelError(f"{model.path} is a model of {model.contract.task}; bench measures models of spectra")
    return model


def run_bench(
    options: Options, only: str | None, settings: BenchSettings, console: Console, png: Path | None, overwrite: bool
) -> Benchmark:
    """Measure everything, with a progress bar.

    Parameters
    ----------
    options : Options
        What runs the model in the stages and on the whole way.
    only : str or None
        The one engine to measure; None, or ``auto``, measures all.
    settings : BenchSettings
    console : Console
        For people.
    png : Path or None
        Where :func:`write_picture` is to draw them: whether it can is checked now.
    overwrite : bool
        Whether it may be replaced.

    Raises
    ------
    RfvitError
        If the model or the engine cannot be used, or a flowgraph fails.
    SystemExit
        After Ctrl-C or SIGTERM.
    """
    if png:
        check_png(png, overwrite)
    model = find_segmenter(options.model)
    recording = open_recording(find_flowgraph(RECORDING))
    with stopping_at_signals() as stop, _Progress(console, stop, settings) as progress:
        before = Busy.now()
        speeds, left_out = measure_engines(
            model, None if only == AUTO else only, options.threads, settings.runs, settings.run_seconds, progress.say
        )
        with open_engine(model, options, console) as engine:
            pipeline = PipelineSettings.overlapping(options.overlap, model.contract.spectrogram.n_steps)
            stages = measure_stages(_inputs(recording), engine, model.contract, pipeline, settings.runs, progress.say)
            _, _, others = Busy.now().cores_since(before)
            trials: list[Trial] = []
            zero_loss = None
            try:
                find_gnuradio_python()
            except StreamError as error:
                left_out.append(LeftOut("the whole way", str(error)))
            else:

                def try_for(rate: float, seconds: float) -> Trial:
                    progress.say(f"whole way: {rate / 1e6:.1f} MS/s for {seconds:g} s")
                    return try_rate(recording, engine, model, pipeline, rate, seconds, stop)

                trials, zero_loss = whole_way(try_for, settings, model.contract.spectrogram)
            progress.say("done")  # or out, where somebody wants that
            description = engine.description
    return Benchmark(
        machine=this_machine(),
        model=model.contract.name,
        model_sha256=model.sha256,
        engine=description,
        sample_rate=recording.sample_rate,
        overlap=options.overlap,
        runs=settings.runs,
        engines=tuple(speeds),
        over_eager_f32=over_eager(speeds),
        stages=tuple(stages),
        other_cores=others,
        trials=tuple(trials),
        zero_loss_sample_rate=zero_loss,
        confirmed_seconds=settings.seconds,
        left_out=tuple(left_out),
    )


def write_picture(benchmark: Benchmark, png: Path, overwrite: bool) -> bool:
    """Draw sample age against sample rate; False where no trial was made, and nothing was written.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if benchmark.trials:
        put_png(png, draw(benchmark), overwrite)
    return bool(benchmark.trials)


def whole_way(
    try_for: Callable[[float, float], Trial], settings: BenchSettings, spec: SpectrogramSpec
) -> tuple[list[Trial], float | None]:
    """Search for the highest sample rate that holds.

    Parameters
    ----------
    try_for : callable
        Takes a sample rate in Hz and seconds of stream.
    settings : BenchSettings
    spec : SpectrogramSpec
        Says which rates are possible.

    Returns
    -------
    trials : list of Trial
        All that were made but for the first, which is for warming up.
    zero_loss_sample_rate : float or None
        The highest that was confirmed, in Hz.
    """
    trials: list[Trial] = []

    def held(rate: float, seconds: float) -> bool:
        trials.append(try_for(rate, seconds))
        return trials[-1].kept_up

    def probe(rate: float) -> bool:
        return held(rate, min(settings.probe_seconds, settings.seconds))

    def confirm(rate: float) -> bool:
        return held(rate, settings.seconds)

    least, most = spec.min_sample_rate, spec.max_sample_rate
    start = min(max(START_RATE, least), most)
    try_for(start, _WARM_UP)
    if settings.rates:
        return trials, highest_of(settings.rates, probe, confirm)
    return trials, highest_rate(probe, confirm, start=start, least=least, most=most)


def _inputs(recording: Recording) -> StageInputs:
    blocks = list(recording.blocks())
    samples = np.concatenate([block.samples for block in blocks])
    return StageInputs(samples, recording.sample_rate, blocks[0].frequency)


class _Progress:
    """A bar that reaches its end about when all is measured, and what is measured now."""

    def __init__(self, console: Console, stop: Stop, settings: BenchSettings) -> None:
        self._stop = stop
        self._begun = time.monotonic()
        trials = 2 * len(settings.rates) or _USUAL_TRIALS
        self._expected = (
            _USUAL_ENGINES * settings.runs * settings.run_seconds
            + _LOADING
            + trials * expected_seconds(min(settings.probe_seconds, settings.seconds))
            + expected_seconds(settings.seconds)
        )
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
        self._bar = Progress(
            *columns,
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def say(self, what: str) -> None:
        """Show what is measured now; raises SystemExit where the user wants an end."""
        end([], self._stop)
        done = min(0.99, (time.monotonic() - self._begun) / self._expected)
        self._bar.update(self._task, completed=done, description=what)

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
