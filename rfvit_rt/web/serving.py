# SPDX-License-Identifier: Apache-2.0
"""A run's page from its beginning to its end: opened where it is wanted, told of on the terminal, closed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from rfvit_rt.activity import UNKNOWN
from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine
from rfvit_rt.figures import Figures
from rfvit_rt.sinks.image import COLOURS
from rfvit_rt.sources.recording import Recording
from rfvit_rt.web.board import Board
from rfvit_rt.web.cells import Cells
from rfvit_rt.web.place import Place, check_folder
from rfvit_rt.web.protocol import Hello
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.saver import Saver
from rfvit_rt.web.saving import CorrectedCopy
from rfvit_rt.web.sensing import MOST_AMPLITUDE, SensingView
from rfvit_rt.web.server import Server
from rfvit_rt.web.spectrum import SpectrumView
from rfvit_rt.web.waterfall import history_seconds

View = TypeVar("View", SpectrumView, SensingView)


@dataclass(frozen=True)
class Subject:
    """What a page shows.

    Attributes
    ----------
    title : str
        Name of the recording or stream.
    engine : Engine
    model : ModelFile
    figures : callable
        Gives the run's figures of the moment.
    sample_rate, frequency : float or None
        In Hz, where they are known before the first sample.
    recording : Recording or None
        What is read, where that is one.
    """

    title: str
    engine: Engine
    model: ModelFile
    figures: Callable[[], Figures]
    sample_rate: float | None = None
    frequency: float | None = None
    recording: Recording | None = None


@dataclass(frozen=True)
class Page(Generic[View]):
    """A page that is served.

    Attributes
    ----------
    view : SpectrumView or SensingView
        Takes what the run hands out.
    url : str
        Where to find it, with the token that it takes.
    """

    view: View
    url: str
    server: Server

    def end(self, failures: Sequence[Exception], is_stopped: bool) -> None:
        """Tell whoever looks that the run is over, and why; the page goes on being served."""
        reason = "the run was stopped" if is_stopped else "the run is over"
        self.server.end(str(failures[0]) if failures else reason)


@contextmanager
def serving_spectrum(place: Place, subject: Subject, console: Console) -> Iterator[Page[SpectrumView]]:
    """Serve the page of a segmentation.

    Yields
    ------
    Page

    Raises
    ------
    OutputError
        If there is no such address, the port is taken, or nothing can be saved where it should be.
    """
    contract, recording = subject.model.contract, subject.recording
    spec = contract.spectrogram
    folder = place.folder or (recording.meta_path.parent if recording else Path())
    check_folder(folder)
    ring = IQRing()
    n_bins = spec.n_fft(subject.sample_rate) if subject.sample_rate else 0
    hello = Hello(
        task="segmentation",
        title=subject.title,
        run=secrets.token_hex(8),
        labels=contract.labels,
        colours=_colours(contract.labels),
        model=f"{contract.name} ({subject.model.sha256[:12]})",
        engine=subject.engine.description,
        sample_rate=subject.sample_rate,
        frequency=subject.frequency,
        recorded=None,
        simulated=recording is not None and _is_simulated(recording),
        step_seconds=spec.time_step,
        n_bins=n_bins,
        db_min=spec.db_min,
        db_max=spec.db_max,
        power_unit="dB over the noise floor",
        history_seconds=history_seconds(n_bins or spec.n_bins),
        duration=recording.sample_count / recording.sample_rate if recording else None,
        can_save=True,
        can_correct=True,
        save_seconds=ring.seconds_at(subject.sample_rate or 1.0),
    )
    board = Board(hello, subject.figures)
    copy = CorrectedCopy(recording, folder, subject.model) if recording else None
    saver = Saver(board, ring, folder, subject.title, subject.model, copy)
    with _serving(Server(place.address, board, saver), saver, console) as server:
        view = SpectrumView(server, board, Cells(spec.db_min, spec.db_max), ring, contract.labels)
        yield Page(view, server.access.url, server)


@contextmanager
def serving_sensing(place: Place, subject: Subject, console: Console) -> Iterator[Page[SensingView]]:
    """Serve the page of a run of sensing; yields and raises as :func:`serving_spectrum`."""
    contract = subject.model.contract
    spec = contract.csi
    labels = (UNKNOWN, *contract.labels)
    hello = Hello(
        task="activity",
        title=subject.title,
        run=secrets.token_hex(8),
        labels=labels,
        colours=_colours(labels),
        model=f"{contract.name} ({subject.model.sha256[:12]})",
        engine=subject.engine.description,
        sample_rate=None,
        frequency=None,
        recorded=None,
        simulated=False,
        step_seconds=1 / spec.frame_rate,
        n_bins=0,
        db_min=0.0,
        db_max=MOST_AMPLITUDE,
        power_unit="times the mean amplitude",
        history_seconds=history_seconds(spec.n_bins),
        duration=None,
        can_save=False,
        can_correct=False,
        save_seconds=0.0,
    )
    board = Board(hello, subject.figures)
    with _serving(Server(place.address, board), None, console) as server:
        yield Page(SensingView(server, board, labels, hello.step_seconds, spec.max_gap), server.access.url, server)


def _is_simulated(recording: Recording) -> bool:
    """Whether a recording says that no radio received it, as those do that rfvit makes."""
    return str(recording.metadata["global"].get("core:description", "")).lower().startswith("simulated")


def _colours(labels: tuple[str, ...]) -> dict[str, str]:
    """The colours that pictures have."""
    return {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels[1:])}


@contextmanager
def _serving(server: Server, saver: Saver | None, console: Console) -> Iterator[Server]:
    """Say where a page is, and in the end what was written of it."""
    try:
        with server:
            _tell(server, console)
            yield server
    finally:
        if saver is not None:
            _tell_written(saver, console)


def _tell_written(saver: Saver, console: Console) -> None:
    for path, count in saver.written.items():
        console.print(f"Saved from the page: {path} ({count} annotations)", soft_wrap=True)
    for problem in saver.problems.values():
        console.print(f"Corrections were not written: {problem}", style="bold red", soft_wrap=True)
    if saver.lost:
        console.print(f"Corrections that are lost with their samples: {saver.lost}", style="bold red", soft_wrap=True)


def _tell(server: Server, console: Console) -> None:
    console.print(f"Page: {server.access.url}", soft_wrap=True)
    if server.access.token:
        console.print(
            "The page is open to other machines: whoever has this address, with its token, sees everything and may "
            "correct and save. Nothing is encrypted.",
            style="yellow",
            soft_wrap=True,
        )
