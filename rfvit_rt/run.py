# SPDX-License-Identifier: Apache-2.0
"""One stream on its way through the model: results handed out as they come, and what the report at the end needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rich.progress import Progress, TaskID

from rfvit_rt import terminal
from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, IQBlock, Mask
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.engines import Engine
from rfvit_rt.errors import OutputError, RfvitError, SpecMismatch
from rfvit_rt.outputs import Outputs, Sink
from rfvit_rt.pipeline import Analysed, PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.image import ImageSink
from rfvit_rt.stitching import stitch
from rfvit_rt.wire.results import Result, Status

Item = TypeVar("Item")

STATUS_SECONDS = 1.0  # stream time between two status messages


@dataclass(frozen=True)
class Losses:
    """Samples that did not reach the model; fields as in :class:`rfvit_rt.terminal.RunReport`."""

    transport: int = 0
    radio: int = 0
    dropped: int = 0
    unusable: int = 0
    restarts: int = 0


class Stop(threading.Event):
    """The wish to end the run, and the signal it came with, if it did."""

    signal: int | None = None


class Run:
    """Takes a stream through the model, hands out what comes of it, and keeps what the report needs."""

    def __init__(
        self, title: str, engine: Engine, model: ModelFile, outputs: Outputs, sinks: list[Sink], stop: Stop
    ) -> None:
        self.stop = stop
        self.model = model
        self.annotations: list[Annotation] = []
        self.failures: list[RfvitError] = []
        self.flowgraph_seconds = 0.0
        self._engine = engine
        self._outputs = outputs
        self._sinks = sinks
        self._statistics = PipelineStatistics()
        self._emissions = EmissionTracker()
        self._image: ImageSink | None = None
        if outputs.png:
            self._image = ImageSink(
                outputs.png, model.contract.labels, title, model.contract.name, overwrite=outputs.overwrite
            )
        self._live = False
        self._annotation_count = 0
        self._losses: Callable[[], Losses] = lambda: Losses(radio=self._radio_lost)
        self._radio_lost = 0
        self._place: _Place | None = None
        self._status_at: int | None = None
        self._started: float | None = None
        self._elapsed = 0.0
        self._processor = 0.0

    @property
    def analysed(self) -> bool:
        """Whether there is anything to write: a window went through the model."""
        return self._place is not None

    def process(
        self,
        blocks: Iterable[IQBlock],
        sample_count: int | None,
        losses: Callable[[], Losses] | None = None,
        live: bool = False,
    ) -> None:
        """Analyse a stream to its end, its failure or a signal; what came before that is not lost.

        Parameters
        ----------
        blocks : iterable of IQBlock
        sample_count : int or None
            How many samples to expect.
        losses : callable or None
            Asked for the losses so far; None sums what the blocks say the radio lost.
        live : bool
            Tell of every annotation as it comes, and do not keep them: the stream may have no end.
        """
        self._live = live
        self._losses = losses or self._losses
        contract = self.model.contract
        with terminal.progress_bar(self._outputs.console, sample_count) as progress:
            task = progress.add_task("segmenting", total=sample_count, note="")
            stream = self._until_failure(self._until_stopped(self._timed(blocks)))
            windows = analyse(stream, self._engine, contract, PipelineSettings(), self._statistics)
            masks = agree(stitch(self._observed(self._until_failure(windows), progress, task)))
            for annotation in annotate(self._drawn(masks), contract.labels):
                self._take(annotation)
                if live:
                    progress.console.print(terminal.annotation_line(annotation), soft_wrap=True)
        if self._started is not None:
            self._elapsed = time.monotonic() - self._started
            self._processor = time.process_time() - self._processor
        if not (self.analysed or self.failures or self.stop.is_set()):
            self.failures.append(self._nothing_to_see())

    def finish(self) -> None:
        """Write what is written once, at the end, and tell how it went."""
        console = self._outputs.console
        emissions = self._emissions.emissions()
        for emission in emissions:
            self._send(emission)
        if self._place:
            self._send(self._status(self._place))
            self._finish_image()
            shown = sorted(self.annotations, key=lambda a: (a.sample_start, a.freq_lower_edge))
            console.print(terminal.annotation_table(shown, self._annotation_count))
            console.print(terminal.emission_table(emissions, self._place.sample_rate))
        for line in terminal.report_lines(self._report()):
            console.print(line, soft_wrap=True)

    def _finish_image(self) -> None:
        if self._image:
            try:
                self._image.close()
                self._outputs.console.print(f"Picture: {self._outputs.png}", soft_wrap=True)
            except OutputError as error:
                self.failures.append(error)

    def _report(self) -> terminal.RunReport:
        losses = self._losses()
        return terminal.RunReport(
            samples=self._statistics.samples,
            windows=self._statistics.windows,
            sample_rate=self._place.sample_rate if self._place else None,
            elapsed=self._elapsed,
            transport_lost=losses.transport,
            radio_lost=losses.radio,
            dropped=losses.dropped,
            unusable=losses.unusable,
            restarts=losses.restarts,
            sample_age=self._statistics.age_percentiles(),
            processor_seconds=self._processor,
            flowgraph_seconds=self.flowgraph_seconds,
            engine=f"{self._engine.description}, model {self.model.contract.name} ({self.model.sha256[:12]})",
        )

    def _status(self, place: _Place) -> Status:
        losses, ages = self._losses(), self._statistics.age_percentiles()
        assert self._started is not None  # a window has been analysed
        elapsed = self._elapsed or time.monotonic() - self._started
        return Status(
            position=place.position,
            sample_rate=place.sample_rate,
            frequency=place.frequency,
            achieved_rate=self._statistics.samples / elapsed,
            transport_lost=losses.transport,
            radio_lost=losses.radio,
            dropped=losses.dropped,
            sample_age=ages[0] if ages else None,
        )

    def _nothing_to_see(self) -> RfvitError:
        step = self.model.contract.spectrogram.time_step
        return SpecMismatch(
            f"{self._statistics.samples} samples came, and no uninterrupted stretch of them fills a time step of "
            f"{step * 1e3:g} ms; there is nothing to segment: give a longer recording or stream"
        )

    def _take(self, annotation: Annotation) -> None:
        self._annotation_count += 1
        if not self._live or len(self.annotations) < terminal.SHOWN_ROWS:
            self.annotations.append(annotation)
        self._emissions.add(annotation)
        if self._image:
            self._image.add_annotation(annotation)
        self._send(annotation)

    def _send(self, result: Result) -> None:
        """Hand a result to all sinks; one that fails ends the run, which still writes all else."""
        for sink in list(self._sinks):
            try:
                sink.write(result)
            except OutputError as error:
                self.failures.append(error)
                self._sinks.remove(sink)
                self.stop.set()

    def _timed(self, blocks: Iterable[IQBlock]) -> Iterator[IQBlock]:
        """Start the clocks with the first samples: what came before was waiting for the sender."""
        for block in blocks:
            if self._started is None:
                self._started = time.monotonic()
                self._processor = time.process_time()
            self._radio_lost += block.radio_lost
            yield block

    def _until_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self.stop.is_set():
                return
            yield item

    def _until_failure(self, items: Iterable[Item]) -> Iterator[Item]:
        """End where the source fails, so that everything before still comes out at the other end."""
        try:
            yield from items
        except RfvitError as error:
            self.failures.append(error)

    def _observed(self, windows: Iterable[Analysed], progress: Progress, task: TaskID) -> Iterator[Mask]:
        for window in windows:
            mask = window.mask
            self._place = _Place(mask.sample_end, mask.sample_rate, mask.frequency)
            if self._image:
                self._image.add_picture(window.picture, mask)
            self._tell_status(self._place)
            progress.update(task, completed=self._statistics.samples, note=self._note())
            yield mask

    def _tell_status(self, place: _Place) -> None:
        if self._status_at is None:
            self._status_at = place.position
        passed = place.position - self._status_at
        if passed >= STATUS_SECONDS * place.sample_rate or passed < 0:  # it goes back where the sender began anew
            self._status_at = place.position
            self._send(self._status(place))

    def _drawn(self, masks: Iterable[Mask]) -> Iterator[Mask]:
        for mask in masks:
            if self._image:
                self._image.add_mask(mask)
            yield mask

    def _note(self) -> str:
        ages = self._statistics.sample_ages
        return f"sample age {ages[-1] * 1e3:.0f} ms" if ages else ""


@dataclass(frozen=True)
class _Place:
    """How far the stream was analysed, and what held there."""

    position: int
    sample_rate: float
    frequency: float | None
