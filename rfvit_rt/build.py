# SPDX-License-Identifier: Apache-2.0
"""``rfvit build``: TensorRT plans for this machine's GPU, kept where the engine looks for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from types import ModuleType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import import_engine, load_engine, prove_iq
from rfvit_rt.engines.iq_model import IQModel
from rfvit_rt.engines.plans import (
    PlanKey,
    make_folder,
    parse_batches,
    plan_folder,
    plan_path,
    read_plan,
    read_timings,
    timing_cache_path,
    write_file,
    write_plan,
)
from rfvit_rt.engines.precision import precision_name
from rfvit_rt.errors import EngineError
from rfvit_rt.models import default_model, find_model
from rfvit_rt.running import Stop, end, stopping_at_signals

Result = TypeVar("Result")

_LOOK_UP = 0.25  # seconds


@dataclass(frozen=True)
class BuildOptions:
    """What to build, and for what.

    Attributes
    ----------
    model : str or None
        Name or path; None is the one that ships.
    precision : str
        As :func:`rfvit_rt.engines.precision.precision_name` takes it.
    batches : str
        As :func:`rfvit_rt.engines.plans.parse_batches` takes it.
    device : str or None
        Such as ``cuda:1``; None is the first GPU.
    iq_rate : float or None
        Sample rate in Hz of a plan that takes raw IQ, to be built too.
    item_type : str
        Of the samples that it takes.
    portable : bool
        Whether the plans are for the lean runtime, which later releases of TensorRT can load.
    again : bool
        Whether to build what is up to date already.
    """

    model: str | None = None
    precision: str = "fp16"
    batches: str = "1,8,32"
    device: str | None = None
    iq_rate: float | None = None
    item_type: str = "cf32_le"
    portable: bool = False
    again: bool = False


def build(options: BuildOptions, console: Console) -> None:
    """Build the plans that are missing or stale, and have the engine prove itself on them.

    Raises
    ------
    RfvitError
        If TensorRT, PyCUDA or a GPU is missing, the model cannot be built, or a plan does not do what the model does.
    SystemExit
        After Ctrl-C or SIGTERM; plans that were finished by then are kept.
    """
    model = find_model(options.model) if options.model else default_model()
    precision, batches = precision_name(options.precision), parse_batches(options.batches)
    tensorrt = import_engine("tensorrt")
    tensorrt.check_builder(portable=options.portable)
    gpu = tensorrt.gpu_number(options.device)
    models = [model]
    if options.iq_rate is not None:
        takes_iq = IQModel.of(model, options.iq_rate, options.item_type)
        takes_iq.to_onnx()  # what is missing for it shows now, not after the minutes that the first plan takes
        models.append(takes_iq)
    with stopping_at_signals() as stop:
        for wanted in models:
            key = tensorrt.plan_key(wanted, precision, batches, gpu=gpu, portable=options.portable)
            if not stop.is_set():
                _bring_up_to_date(tensorrt, wanted, key, options, stop, console)
    end([], stop)
    with load_engine(model, "tensorrt", precision=precision, device=options.device) as engine:
        console.print(f"Engine: {engine.description}; it reproduces the model's golden output", soft_wrap=True)
        if options.iq_rate is not None:
            level = prove_iq(engine, model.contract.spectrogram, options.iq_rate, options.item_type)
            console.print(f"Pictures made of raw IQ are within {level:.2g} dB of the processor's", soft_wrap=True)
    command = "sense" if model.contract.task == "activity" else "segment"
    console.print(f"Use it: rfvit {command} SOURCE --engine tensorrt --precision {precision}", soft_wrap=True)


def _bring_up_to_date(
    tensorrt: ModuleType, model: ModelFile, key: PlanKey, options: BuildOptions, stop: Stop, console: Console
) -> None:
    """Build a plan unless the one that is there will do; says which, and why."""
    folder = plan_folder()
    path = plan_path(folder, model.contract.name, key.precision, key.gpu)
    reason = _reason_to_build(path, key, options.again)
    if reason is None:
        console.print(f"Up to date: {path}", soft_wrap=True)
        return
    make_folder(folder)  # now, not after minutes of work for nothing
    timings = timing_cache_path(folder, key)
    batches = ", ".join(map(str, key.batches))
    console.print(reason, style="yellow" if path.exists() else None, soft_wrap=True)
    console.print(
        f"Building {model.contract.name} in {key.precision} for batches of {batches} with TensorRT {key.tensorrt} on "
        f"{key.gpu}; this takes minutes",
        soft_wrap=True,
    )
    with build_bars(console) as bars:
        shown = BuildBars(bars, stop)
        measured = read_timings(timings)
        # While TensorRT works this thread could not handle Ctrl-C, so that another one waits for TensorRT.
        built = _in_thread(lambda: tensorrt.build_plan(model, key, measured, shown, device=options.device))
    if built is None:
        console.print("Stopped; nothing was written", soft_wrap=True)
        return
    write_plan(path, key, built.plan)
    write_file(timings, built.timings)
    console.print(f"Plan: {path} ({len(built.plan) / 1e6:.1f} MB)", soft_wrap=True)


def _reason_to_build(path: Path, key: PlanKey, again: bool) -> str | None:
    """Why the plan that is there will not do; None where it will. No byte of it reaches TensorRT here."""
    if not path.exists():
        return f"There is no plan {path} yet"
    try:
        obstacle = read_plan(path).key.obstacle(key)
    except EngineError as error:
        return f"{error}; it is replaced"
    if obstacle is not None:
        return f"The plan {path} is stale: {obstacle}; it is replaced"
    return f"The plan {path} is up to date, and built again as asked" if again else None


def build_bars(console: Console) -> Progress:
    """Bars, one for each phase of a build that is under way, on terminals only."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)


class BuildBars:
    """Shows what TensorRT tells of a build (:class:`rfvit_rt.engines.plans.BuildProgress`), and lets `stop` end it.

    Parameters
    ----------
    bars : Progress
        From :func:`build_bars`.
    stop : Event
        Once it is set, the build ends at its next step.
    """

    def __init__(self, bars: Progress, stop: Event) -> None:
        self._bars, self._stop = bars, stop
        self._phases: dict[str, tuple[TaskID, int]] = {}  # and how deep they are nested
        self._lock = Lock()  # TensorRT tells of phases from several threads

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Begin a phase of so many steps; phases nest."""
        with self._lock:
            depth = self._phases[parent][1] + 1 if parent in self._phases else 0
            self._phases[phase] = self._bars.add_task("  " * depth + phase, total=steps), depth

    def step(self, phase: str, step: int) -> bool:
        """Finish a step of a phase; False where the build is to end."""
        with self._lock:
            if phase in self._phases:
                self._bars.update(self._phases[phase][0], completed=step + 1)
        return not self._stop.is_set()

    def finish(self, phase: str) -> None:
        """End a phase."""
        with self._lock:
            if phase in self._phases:
                self._bars.remove_task(self._phases.pop(phase)[0])


def _in_thread(call: Callable[[], Result]) -> Result:
    """Wait for a call in a thread of its own, which a second Ctrl-C does not wait for."""
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="rfvit-build", daemon=True).start()
    while not wait([future], _LOOK_UP).done:
        pass  # signals are handled now, whichever thread they came to
    return future.result()
