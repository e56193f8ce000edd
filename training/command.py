# SPDX-License-Identifier: Apache-2.0
"""How every script of `training/` meets its user: one line an error, progress with its end in sight, an exit status."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rfvit_rt.errors import OutputError, RfvitError
from rfvit_rt.sinks.files import check_output


def run(main: Callable[..., None]) -> None:
    """Run a script's `main` with arguments from the command line.

    The exit status is 0, 1 after an error of the user's making, 2 after wrong arguments, or 130 after Ctrl-C.
    """
    try:
        typer.run(main)
    except (RfvitError, OSError) as error:  # the latter: a disk that is full, a folder that is not one's own
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until what belongs together is done: what is saved then is from before it or after it."""
    if threading.current_thread() is not threading.main_thread():  # Python's signals never interrupt others
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def prepare_output(path: Path) -> None:
    """Make a report's folder, before the work that fills the report.

    Raises
    ------
    OutputError
        If that cannot be done, or the report could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
    check_output(path, overwrite=True)


def progress_bar() -> Progress:
    """Progress with time elapsed and time to go; the estimate looks back over two minutes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("to go"),
        TimeRemainingColumn(),
        speed_estimate_period=120,
    )
