# SPDX-License-Identifier: Apache-2.0
"""Runs of an experiment: each leaves a file and is made once, several at a time on one core each."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import typer
from safetensors.torch import save
from torch import Tensor

from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import replace_file
from training.command import progress_bar

Trial = TypeVar("Trial")
_stopped = False  # in a worker: Ctrl-C has ended its last trial


def run_trials(work: Callable[[Trial], str], trials: Sequence[Trial], processes: int) -> None:
    """Call `work` for every trial, in processes that compute on one core each; the first to fail ends all.

    So does Ctrl-C, once all that are under way have saved what they have.

    Parameters
    ----------
    work : callable
        Can be pickled; leaves a file, and returns a line that says what came out.
    trials : sequence
        In the order in which they are begun; long ones first leave no core idle at the end.
    processes : int
    """
    if not trials:
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the processes share the cores
    context = multiprocessing.get_context("spawn")
    count = min(processes, len(trials))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool, progress_bar() as bar:
        task = bar.add_task("runs", total=len(trials))
        try:
            for done in as_completed([pool.submit(_unless_stopped, work, trial) for trial in trials]):
                bar.update(task, advance=1, description=done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)  # which waits for what is under way
            raise


def _end_with_parent() -> None:
    """Let a worker end where its parent was killed and could not end it; what it saved last is gone on with."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unless_stopped(work: Callable[[Trial], str], trial: Trial) -> str:
    """Call `work`; but a pool has handed its workers the next trials already when Ctrl-C comes."""
    global _stopped
    if _stopped:
        raise KeyboardInterrupt
    try:
        return work(trial)
    except (KeyboardInterrupt, typer.Exit):
        _stopped = True
        raise


def write_json(result: Any, file: Path) -> None:
    """Write a result, in one step: a file that is there is complete.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    _write(json.dumps(result, indent=1, allow_nan=False).encode() + b"\n", file)


def write_weights(weights: dict[str, Tensor], file: Path) -> None:
    """Write weights, in one step: other processes may be about to read them."""
    _write(save(weights), file)


def _write(content: bytes, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, content)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}") from error
