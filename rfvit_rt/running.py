# SPDX-License-Identifier: Apache-2.0
"""What all runs have in common: what runs the model, the wish to stop, and how a run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from rfvit_rt.errors import RfvitError

Item = TypeVar("Item")

_STOPPED = 128  # plus the signal's number: the exit status after a signal, as shells have it


@dataclass(frozen=True)
class Options:
    """What runs the model; None leaves the choice to the engine.

    Attributes
    ----------
    model : str or None
        Name or path; None is the one that ships.
    engine : str
        Name of the engine.
    precision : str or None
    threads : int or None
    """

    model: str | None = None
    engine: str = "openvino"
    precision: str | None = None
    threads: int | None = None


class Stop(threading.Event):
    """The wish to end the run, and the signal it came with, if it did."""

    signal: int | None = None


@contextmanager
def stopping_at_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one ends the program at once."""
    stop = Stop()

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
    if stop.signal is not None:
        raise SystemExit(_STOPPED + stop.signal)
