# SPDX-License-Identifier: Apache-2.0
"""What all runs have in common: what runs the model, the wish to stop, and how a run ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console

from rfvit_rt.console import PipedConsole
from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.engines.choice import AUTO, choose_engine
from rfvit_rt.errors import EngineError, RfvitError

Item = TypeVar("Item")

FRONT_ENDS = ("cpu", "gpu")
STOP_CHECKED = 0.2  # s between two looks at whether to stop
_STOPPED = 128  # plus the signal's number: the exit status after a signal, as shells have it


@dataclass(frozen=True)
class Options:
    """What runs the model; None leaves the choice to the engine.

    Attributes
    ----------
    model : str or None
        Name or path; None is the one that ships.
    engine : str
        Name of the engine, or ``auto`` for the fastest here.
    precision : str or None
    threads : int or None
    overlap : float
        Part of a window that the next one covers again, from 0 up to but less than 1.
    device : str or None
        In the engine's own terms, such as ``cuda:1``.
    front_end : str
        Where pictures are made of IQ: one of `FRONT_ENDS`; ``gpu`` is wherever the engine runs.
    """

    model: str | None = None
    engine: str = "openvino"
    precision: str | None = None
    threads: int | None = None
    overlap: float = 0.25
    device: str | None = None
    front_end: str = "cpu"


def open_engine(model: ModelFile, options: Options, console: Console) -> Engine:
    """Open the engine that the options ask for, and tell people what they should know of it.

    Raises
    ------
    EngineError, ModelError
        As :func:`rfvit_rt.engines.load_engine`; and where the engine cannot make pictures but is asked to.
    """
    if options.front_end not in FRONT_ENDS:
        raise EngineError(f"there is no front end '{options.front_end}'; choose one of {', '.join(FRONT_ENDS)}")
    takes_iq = options.front_end == "gpu"
    asked: dict[str, Any] = {"precision": options.precision, "threads": options.threads, "device": options.device}
    if options.engine == AUTO:
        choice = choose_engine(model, takes_iq=takes_iq, **asked)
        for reason in choice.reasons:
            console.print(f"Engine {reason}", soft_wrap=True)
        engine = choice.engine
    else:
        engine = load_engine(model, options.engine, **asked)
    if takes_iq and not engine.takes_iq:
        engine.close()
        raise EngineError(
            f"the {engine.name} engine takes pictures, not IQ; leave --front-end gpu out, or use --engine torch"
        )
    if takes_iq and not engine.on_gpu:
        console.print(
            f"--front-end gpu without a GPU: the {engine.name} engine makes the pictures on the processor, and slowly",
            style="yellow",
            soft_wrap=True,
        )
    return engine


class Stop(threading.Event):
    """The wish to end the run, and the signal it came with, if it did."""

    signal: int | None = None
    is_awaited = False  # whether the run is over, and waits for nothing but this


@contextmanager
def stopping_at_signals(console: Console | None = None) -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop, as when nobody reads the console any more.

    A second signal ends the program at once.
    """
    stop = Stop()
    if isinstance(console, PipedConsole):
        console.on_left = stop.set

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise SystemExit(_STOPPED + signum)
        stop.signal = signum
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stay(stop: Stop, url: str, console: Console) -> None:
    """Wait for Ctrl-C or SIGTERM while a page is served of a run that is over; neither is a failure then."""
    if stop.is_set():
        return
    console.print(f"The run is over. The page stays at {url} until Ctrl-C.", soft_wrap=True)
    stop.is_awaited = True
    while not stop.is_set():
        time.sleep(STOP_CHECKED)


def until_stopped(items: Iterable[Item], stop: Stop) -> Iterator[Item]:
    """Pass items on until the run is to end."""
    for item in items:
        if stop.is_set():
            return
        yield item


def until_failure(items: Iterable[Item], failures: list[RfvitError]) -> Iterator[Item]:
    """End where the source fails, and note why, so that everything before still comes out at the other end."""
    try:
        yield from items
    except RfvitError as error:
        failures.append(error)


def end(failures: Sequence[RfvitError], stop: Stop) -> None:
    """Raise what went wrong, the first failure with the others as its notes, or exit as the signal has it."""
    if failures:
        for further in failures[1:]:
            failures[0].add_note(str(further))
        raise failures[0]
    if stop.signal is not None and not stop.is_awaited:
        raise SystemExit(_STOPPED + stop.signal)
