# SPDX-License-Identifier: Apache-2.0
"""One run of `rfvit` from source to results: opens both ends, lets the pipeline run between them, reports."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID

from rfvit_rt import terminal
from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, Emission, IQBlock, Mask
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import OutputError, RfvitError, StreamError
from rfvit_rt.flowgraph import Flowgraph
from rfvit_rt.flowgraph import replay as replay_flowgraph
from rfvit_rt.models import default_model, find_model
from rfvit_rt.pipeline import Analysed, PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.image import ImageSink
from rfvit_rt.sinks.jsonl import JsonLinesSink
from rfvit_rt.sinks.sigmf import check_annotations_output, default_output, write_annotations
from rfvit_rt.sinks.zmq import ZmqSink
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.sources.timeline import StreamStatistics
from rfvit_rt.sources.zmq import ZmqSource, parse_zmq_url
from rfvit_rt.stitching import stitch

Item = TypeVar("Item")

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


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


class Outputs:
    """Where results go besides the annotated recording: terminal, JSON lines, ZeroMQ, picture.

    Parameters
    ----------
    console : Console
        For people.
    jsonl : str or None
        File, or ``-``.
    png : Path or None
        File.
    publish : str or None
        Endpoint of the PUB socket.
    overwrite : bool
        Whether existing files may be replaced.
    """

    def __init__(
        self, console: Console, jsonl: str | None, png: Path | None, publish: str | None, overwrite: bool
    ) -> None:
        self.console = console
        self.png = png
        self.overwrite = overwrite
        with ExitStack() as stack:
            self.sinks: list[JsonLinesSink | ZmqSink] = []
            if publish:
                self.sinks.append(stack.enter_context(ZmqSink(publish)))
            if jsonl:
                self.sinks.append(stack.enter_context(JsonLinesSink(jsonl, overwrite)))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Losses:
    """Samples that did not reach the model; fields as in :class:`rfvit_rt.terminal.RunReport`."""

    transport: int = 0
    radio: int = 0
    dropped: int = 0
    unusable: int = 0


def segment_recording(path: Path, output: Path | None, options: Options, outputs: Outputs) -> None:
    """Segment a recording as it lies on disk, and write its annotations.

    Raises
    ------
    RfvitError
        If the recording, the model or an output cannot be used; what was found until then is written.
    SystemExit
        After Ctrl-C, with everything so far written.
    """
    recording = open_recording(path)
    with _annotating(recording, output, options, outputs) as run:
        run.process(recording.blocks(), recording.sample_count)
        run.losses = Losses(radio=sum(capture.radio_lost for capture in recording.captures))


def replay_recording(path: Path, speed: float, output: Path | None, options: Options, outputs: Outputs) -> None:
    """Segment a recording as GNU Radio replays it, and write its annotations; raises as :func:`segment_recording`."""
    recording = open_recording(path)
    with _annotating(recording, output, options, outputs) as run, replay_flowgraph(recording, speed) as flowgraph:
        config = parse_zmq_url(
            flowgraph.endpoint.replace("tcp://", "zmq+pull://"),
            tags=True,
            sample_rate=recording.sample_rate,
            sample_count=recording.sample_count,
        )
        with ZmqSource(config, run.stop.is_set) as source:
            run.process(_in_recording(source, recording, flowgraph), recording.sample_count)
            run.losses = _losses(source.statistics)


def segment_stream(
    url: str, stream_options: dict[str, Any], duration: float | None, options: Options, outputs: Outputs
) -> None:
    """Segment what arrives over ZeroMQ until it ends, fails or is interrupted; raises as :func:`segment_recording`."""
    config = parse_zmq_url(url, **stream_options)
    if duration is not None:
        if config.sample_rate is None:
            raise StreamError("--duration counts samples; give --sample-rate too")
        config = replace(config, sample_count=round(duration * config.sample_rate))
    with _running(url, options, outputs) as run, ZmqSource(config, run.stop.is_set) as source:
        run.process(source, config.sample_count, live=True)
        run.losses = _losses(source.statistics)


class _Run:
    """Takes a stream through the model, hands out what comes of it, and keeps what the report needs."""

    def __init__(self, title: str, engine: Engine, model: ModelFile, outputs: Outputs, stop: threading.Event) -> None:
        self.stop = stop
        self.model = model
        self.annotations: list[Annotation] = []
        self.losses = Losses()
        self.failures: list[RfvitError] = []
        self._engine = engine
        self._outputs = outputs
        self._sinks = list(outputs.sinks)
        self._statistics = PipelineStatistics()
        self._emissions = EmissionTracker()
        self._image: ImageSink | None = None
        if outputs.png:
            self._image = ImageSink(
                outputs.png, model.contract.labels, title, model.contract.name, overwrite=outputs.overwrite
            )
        self._sample_rate: float | None = None
        self._elapsed = 0.0
        self._processor = time.process_time()

    def process(self, blocks: Iterable[IQBlock], sample_count: int | None, live: bool = False) -> None:
        """Analyse a stream to its end, its failure or Ctrl-C; what came before that is not lost."""
        started = time.monotonic()
        contract = self.model.contract
        with terminal.progress_bar(self._outputs.console, sample_count) as progress:
            task = progress.add_task("segmenting", total=sample_count, note="")
            stream = self._until_failure(self._until_stopped(blocks))
            windows = analyse(stream, self._engine, contract, PipelineSettings(), self._statistics)
            masks = agree(stitch(self._observed(self._until_failure(windows), progress, task)))
            for annotation in annotate(self._drawn(masks), contract.labels):
                self._take(annotation)
                if live:
                    progress.console.print(terminal.annotation_line(annotation))
        self._elapsed = time.monotonic() - started

    def finish(self) -> None:
        """Write what is written once, at the end, and tell how it went."""
        outputs = self._outputs
        emissions = self._emissions.emissions()
        for emission in emissions:
            self._send(emission)
        if self._image:
            try:
                self._image.close()
                outputs.console.print(f"Picture: {outputs.png}")
            except OutputError as error:
                self.failures.append(error)
        if self._sample_rate:
            outputs.console.print(terminal.annotation_table(self.annotations))
            outputs.console.print(terminal.emission_table(emissions, self._sample_rate))
        for line in terminal.report_lines(self._report()):
            outputs.console.print(line)

    def _report(self) -> terminal.RunReport:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return terminal.RunReport(
            samples=self._statistics.samples,
            windows=self._statistics.windows,
            sample_rate=self._sample_rate,
            elapsed=self._elapsed,
            transport_lost=self.losses.transport,
            radio_lost=self.losses.radio,
            dropped=self.losses.dropped,
            unusable=self.losses.unusable,
            sample_age=self._statistics.age_percentiles(),
            processor_seconds=time.process_time() - self._processor,
            flowgraph_seconds=children.ru_utime + children.ru_stime,
            engine=f"{self._engine.description}, model {self.model.contract.name} ({self.model.sha256[:12]})",
        )

    def _take(self, annotation: Annotation) -> None:
        self.annotations.append(annotation)
        self._emissions.add(annotation)
        if self._image:
            self._image.add_annotation(annotation)
        self._send(annotation)

    def _send(self, result: Annotation | Emission) -> None:
        """Hand a result to all sinks; one that fails ends the run, which still writes all else."""
        for sink in list(self._sinks):
            try:
                sink.write(result)
            except OutputError as error:
                self.failures.append(error)
                self._sinks.remove(sink)
                self.stop.set()

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
            self._sample_rate = window.mask.sample_rate
            if self._image:
                self._image.add_picture(window.picture, window.mask)
            progress.update(task, completed=self._statistics.samples, note=self._note())
            yield window.mask

    def _drawn(self, masks: Iterable[Mask]) -> Iterator[Mask]:
        for mask in masks:
            if self._image:
                self._image.add_mask(mask)
            yield mask

    def _note(self) -> str:
        ages = self._statistics.sample_ages
        return f"sample age {ages[-1] * 1e3:.0f} ms" if ages else ""


@contextmanager
def _running(title: str, options: Options, outputs: Outputs) -> Iterator[_Run]:
    """Load the model for a run; at the run's end, however it ends, write what was found and say how it went."""
    model = find_model(options.model) if options.model else default_model()
    with (
        load_engine(model, options.engine, precision=options.precision, threads=options.threads) as engine,
        _stopping_at_ctrl_c() as stop,
    ):
        run = _Run(title, engine, model, outputs, stop)
        yield run
        run.finish()
    if run.failures:
        raise run.failures[0]
    if stop.is_set():
        raise SystemExit(INTERRUPTED)


@contextmanager
def _annotating(recording: Recording, output: Path | None, options: Options, outputs: Outputs) -> Iterator[_Run]:
    """As :func:`_running`, with the annotations written beside the recording."""
    target = output or default_output(recording)
    check_annotations_output(recording, target, outputs.overwrite)
    with _running(recording.meta_path.name, options, outputs) as run:
        yield run
        write_annotations(
            recording,
            run.annotations,
            target,
            model_name=run.model.contract.name,
            model_hash=run.model.sha256,
            overwrite=outputs.overwrite,
        )
        outputs.console.print(f"Annotations: {target}")


@contextmanager
def _stopping_at_ctrl_c() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a wish to stop; a second one interrupts at once."""
    stop = threading.Event()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _in_recording(source: ZmqSource, recording: Recording, flowgraph: Flowgraph) -> Iterator[IQBlock]:
    """Blocks of a replay, at their positions in the recording."""
    try:
        for block in source:
            yield replace(block, sample_start=block.sample_start + recording.sample_start)
    except StreamError:
        flowgraph.check()  # if it died, its own last words explain more than our silence
        raise


def _losses(statistics: StreamStatistics) -> Losses:
    return Losses(
        statistics.transport_lost, statistics.radio_lost, statistics.dropped, unusable=statistics.without_rate
    )
