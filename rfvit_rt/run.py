# SPDX-License-Identifier: Apache-2.0
"""One stream on its way through the model: results handed out as they come, and what the report at the end needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.progress import Progress, TaskID

from rfvit_rt import terminal
from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, Emission, IQBlock, Mask
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.engines import Engine
from rfvit_rt.errors import OutputError, RfvitError, SpecMismatch
from rfvit_rt.figures import SegmentationFigures
from rfvit_rt.outputs import Listener, Outputs, Sink, Viewer
from rfvit_rt.pipeline import Analysed, PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.running import Stop, until_failure, until_stopped
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.image import ImageSink
from rfvit_rt.sinks.zmq import ZmqSink
from rfvit_rt.stitching import stitch
from rfvit_rt.wire.results import Result, Status
from rfvit_rt.wire.summary import summarise

STATUS_SECONDS = 1.0  # stream time between two status messages
DEFAULT_SETTINGS = PipelineSettings()


@dataclass(frozen=True)
class Losses:
    """Samples that did not reach the model; fields as in :class:`rfvit_rt.terminal.RunReport`."""

    transport: int = 0
    radio: int = 0
    dropped: int = 0
    unusable: int = 0
    restarts: int = 0


class Run:
    """Takes a stream through the model, hands out what comes of it, and keeps what the report needs."""

    def __init__(
        self,
        title: str,
        engine: Engine,
        model: ModelFile,
        outputs: Outputs,
        sinks: list[Sink],
        stop: Stop,
        settings: PipelineSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.stop = stop
        self.model = model
        self.annotations: list[Annotation] = []
        self.failures: list[RfvitError] = []
        self.flowgraph_seconds = 0.0
        self.simulated = False  # whether it is known that no radio received these samples
        self._engine = engine
        self.settings = settings
        self._outputs = outputs
        self._sinks = sinks
        self._statistics = PipelineStatistics()
        self._emissions = EmissionTracker()
        self._image: ImageSink | None = None
        self._viewers: list[Viewer] = []
        self._listeners: list[Listener] = []
        if outputs.png:
            self._image = ImageSink(
                outputs.png, model.contract.labels, title, model.contract.name, overwrite=outputs.overwrite
            )
            self._viewers.append(self._image)
        self._live: bool | None = None  # before it is known
        self._keep = True
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

    @property
    def emissions(self) -> list[Emission]:
        """The emissions so far, without those let go: sinks were told of these."""
        return self._emissions.emissions()

    @property
    def emission_count(self) -> int:
        """All emissions so far."""
        return self._emissions.count

    def add(self, sink: Sink) -> None:
        """Hand results to one more sink; samples too if it is a listener, and what the model sees if it is a viewer."""
        self._sinks.append(sink)
        if isinstance(sink, Viewer):
            self._viewers.append(sink)
        if isinstance(sink, Listener):
            self._listeners.append(sink)

    def figures(self) -> SegmentationFigures:
        """How it goes; any thread may ask."""
        place, losses = self._place, self._losses()
        return SegmentationFigures(
            samples=self._statistics.samples,
            windows=self._statistics.windows,
            lost={name: getattr(losses, name) for name in ("transport", "radio", "dropped", "unusable")},
            restarts=losses.restarts,
            recorded=None if self._live is None else not self._live,
            simulated=self.simulated,
            sample_rate=place.sample_rate if place else None,
            frequency=place.frequency if place else None,
            sample_age=self._statistics.age_histogram,
            stages=self._statistics.stages,
        )

    def process(
        self,
        blocks: Iterable[IQBlock],
        sample_count: int | None,
        losses: Callable[[], Losses] | None = None,
        live: bool = False,
        keep: bool = True,
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
        keep : bool
            Whether to keep all annotations of a stream that is not live; else the first few, for the table.
        """
        self._live = live
        self._keep = keep and not live
        self._losses = losses or self._losses
        contract = self.model.contract
        with terminal.progress_bar(self._outputs.console, sample_count) as progress:
            task = progress.add_task("segmenting", total=sample_count, note="")
            stream = until_failure(until_stopped(self._timed(blocks), self.stop), self.failures)
            windows = analyse(stream, self._engine, contract, self.settings, self._statistics)
            masks = agree(stitch(self._observed(until_failure(windows, self.failures), progress, task)))
            for annotation in annotate(self._shown(masks), contract.labels):
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
        emissions = self.emissions
        for emission in emissions:
            self._send(emission)
        if self._place:
            self._send(self._status(self._place))
            self._finish_image()
            if self._annotation_count:
                shown = sorted(self.annotations, key=lambda a: (a.sample_start, a.freq_lower_edge))
                console.print(terminal.annotation_table(shown, self._annotation_count))
                console.print(terminal.emission_table(emissions, self.emission_count, self._place.sample_rate))
            else:
                console.print("Nothing was found.")
        for line in terminal.report_lines(self.report()):
            console.print(line, soft_wrap=True)

    def _finish_image(self) -> None:
        if self._image:
            try:
                self._image.close()
                self._outputs.console.print(f"Picture: {self._outputs.png}", soft_wrap=True)
            except OutputError as error:
                self.failures.append(error)

    def report(self) -> terminal.RunReport:
        """How it went."""
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
            emissions=self._emissions.count,
            emissions_let_go=self._emissions.let_go,
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
        if self._keep or len(self.annotations) < terminal.SHOWN_ROWS:
            self.annotations.append(annotation)
        ended = self._emissions.add(annotation)
        if self._image:
            self._image.add_annotation(annotation)
        self._send(annotation)
        if ended:
            self._send(ended)

    def _send(self, result: Result, sinks: Sequence[Sink] | None = None) -> None:
        """Hand a result to sinks, all if none are named; one that fails ends the run, which still writes all else."""
        for sink in list(self._sinks if sinks is None else sinks):
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
            for listener in self._listeners:
                listener.add_block(block)
            yield block

    def _observed(self, windows: Iterable[Analysed], progress: Progress, task: TaskID) -> Iterator[Mask]:
        for window in windows:
            mask = window.mask
            self._place = _Place(mask.sample_end, mask.sample_rate, mask.frequency)
            for viewer in self._viewers:
                viewer.add_picture(window.picture, mask)
            self._tell_status(self._place)
            progress.update(task, completed=self._statistics.samples, note=self._note())
            yield mask
            # All that became final with this window has gone out by now.
            self._statistics.stages["results"].observe(time.monotonic() - window.ready)

    def _tell_status(self, place: _Place) -> None:
        if self._status_at is None:
            self._status_at = place.position
        passed = place.position - self._status_at
        if passed >= STATUS_SECONDS * place.sample_rate or passed < 0:  # it goes back where the sender began anew
            self._status_at = place.position
            self._send(self._status(place))

    def _shown(self, masks: Iterable[Mask]) -> Iterator[Mask]:
        for mask in masks:
            for viewer in self._viewers:
                viewer.add_mask(mask)
            # Only to who follows live: a file of them would be many times as long, and say less, than the annotations.
            followed = [sink for sink in self._sinks if isinstance(sink, ZmqSink)]
            if followed and mask.step_count:
                self._send(summarise(mask, self.model.contract.labels), followed)
            self._emissions.listen(mask.sample_start, mask.sample_end, mask.frequency)
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
