# SPDX-License-Identifier: Apache-2.0
"""One run of `rfvit` from source to results: opens both ends, lets the pipeline run between them, reports."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID

from rfvit_rt import terminal
from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, IQBlock, Mask
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import OutputError, RfvitError, SpecMismatch, StreamError
from rfvit_rt.flowgraph import Flowgraph, find_gnuradio_python
from rfvit_rt.flowgraph import replay as replay_flowgraph
from rfvit_rt.models import default_model, find_model
from rfvit_rt.pipeline import Analysed, PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.files import check_output
from rfvit_rt.sinks.image import ImageSink
from rfvit_rt.sinks.jsonl import JsonLinesSink, is_device
from rfvit_rt.sinks.sigmf import check_annotations_output, default_output, write_annotations
from rfvit_rt.sinks.zmq import ZmqSink
from rfvit_rt.sources.recording import DATA_SUFFIX, Recording, open_recording
from rfvit_rt.sources.timeline import StreamStatistics
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource, parse_zmq_url
from rfvit_rt.stitching import stitch
from rfvit_rt.wire.results import Result, Status

Item = TypeVar("Item")
Sink = JsonLinesSink | ZmqSink

STATUS_SECONDS = 1.0  # stream time between two status messages
MAX_SAMPLES = 2**62  # of a stream that ends
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


@dataclass(frozen=True)
class Outputs:
    """Where results shall go besides the annotated recording; nothing is opened before a run can begin.

    Attributes
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

    console: Console
    jsonl: str | None = None
    png: Path | None = None
    publish: str | None = None
    overwrite: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files among them, by the option that names them."""
        named = {"--jsonl": None if self.jsonl == "-" else self.jsonl, "--png": self.png}
        return {option: Path(path) for option, path in named.items() if path}


@dataclass(frozen=True)
class Losses:
    """Samples that did not reach the model; fields as in :class:`rfvit_rt.terminal.RunReport`."""

    transport: int = 0
    radio: int = 0
    dropped: int = 0
    unusable: int = 0
    restarts: int = 0


def segment_recording(path: Path, output: Path | None, options: Options, outputs: Outputs) -> None:
    """Segment a recording as it lies on disk, and write its annotations.

    Raises
    ------
    RfvitError
        If the recording, the model or an output cannot be used; what was found until then is written.
    SystemExit
        After Ctrl-C or SIGTERM, with everything so far written.
    """
    recording = open_recording(path)
    with _annotating(recording, output, options, outputs) as run:
        run.process(recording.blocks(), recording.sample_count)


def replay_recording(path: Path, speed: float, output: Path | None, options: Options, outputs: Outputs) -> None:
    """Segment a recording as GNU Radio replays it, and write its annotations; raises as :func:`segment_recording`."""
    recording = open_recording(path)
    with _annotating(recording, output, options, outputs) as run:
        find_gnuradio_python()  # now, so that the processes it tries are not counted as the flowgraph
        before = _ended_children_seconds()
        with replay_flowgraph(recording, speed) as flowgraph:
            config = parse_zmq_url(
                flowgraph.endpoint.replace("tcp://", "zmq+pull://"),
                tags=True,
                sample_rate=recording.sample_rate,
                sample_count=recording.sample_count,
            )
            with ZmqSource(config, run.stop.is_set) as source:
                blocks = _in_recording(source, recording, flowgraph)
                run.process(blocks, recording.sample_count, lambda: _losses(source.statistics))
        run.flowgraph_seconds = _ended_children_seconds() - before


def segment_stream(
    url: str, stream_options: dict[str, Any], duration: float | None, options: Options, outputs: Outputs
) -> None:
    """Segment what arrives over ZeroMQ until it ends, fails or is interrupted.

    Parameters
    ----------
    url : str
        As :func:`rfvit_rt.sources.zmq.parse_zmq_url` takes it.
    stream_options : dict
        Attributes of :class:`rfvit_rt.sources.zmq.ZmqConfig`; an ``idle_timeout`` of 0 waits for ever.
    duration : float or None
        Seconds of samples after which to end.
    options : Options
    outputs : Outputs

    Raises
    ------
    RfvitError, SystemExit
        As :func:`segment_recording`.
    """
    config = _stream_config(url, stream_options, duration)
    with _running(url, options, outputs, config.sample_rate) as run, ZmqSource(config, run.stop.is_set) as source:
        run.process(source, config.sample_count, lambda: _losses(source.statistics), live=True)


def _stream_config(url: str, options: dict[str, Any], duration: float | None) -> ZmqConfig:
    patience = options.get("idle_timeout")
    config = parse_zmq_url(url, **options | {"idle_timeout": patience or None})
    if patience == 0:
        config = replace(config, idle_timeout=None)
    if duration is None:
        return config
    if config.sample_rate is None:
        raise StreamError("--duration counts samples; give --sample-rate too")
    if not 0 < duration * config.sample_rate <= MAX_SAMPLES:
        raise StreamError(f"--duration is {duration:g}, expected a positive number of seconds; leave it out for ever")
    return replace(config, sample_count=max(1, round(duration * config.sample_rate)))


class _Stop(threading.Event):
    """The wish to end the run, and the signal it came with, if it did."""

    signal: int | None = None


class _Run:
    """Takes a stream through the model, hands out what comes of it, and keeps what the report needs."""

    def __init__(
        self, title: str, engine: Engine, model: ModelFile, outputs: Outputs, sinks: list[Sink], stop: _Stop
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


@contextmanager
def _running(
    title: str,
    options: Options,
    outputs: Outputs,
    sample_rate: float | None,
    inputs: Iterable[Path] = (),
    results: Iterable[Path] = (),
) -> Iterator[_Run]:
    """Load the model for a run; at the run's end, however it ends, write what was found and say how it went.

    Parameters
    ----------
    title : str
        What is being segmented.
    options : Options
    outputs : Outputs
    sample_rate : float or None
        In Hz, where it is known before the first sample.
    inputs, results : iterable of Path
        Files that are read, and that are written besides `outputs`; no output may be one of them.
    """
    model = find_model(options.model) if options.model else default_model()
    _check_outputs(outputs, [*inputs, model.path], results)
    if sample_rate is not None:
        model.contract.spectrogram.check_sample_rate(sample_rate)
    with (
        load_engine(model, options.engine, precision=options.precision, threads=options.threads) as engine,
        _stopping_at_signals() as stop,
        _open_sinks(outputs) as sinks,
    ):
        run = _Run(title, engine, model, outputs, sinks, stop)
        yield run
        run.finish()
    if run.failures:
        for further in run.failures[1:]:
            run.failures[0].add_note(str(further))
        raise run.failures[0]
    if stop.signal is not None:
        raise SystemExit(_STOPPED + stop.signal)


@contextmanager
def _annotating(recording: Recording, output: Path | None, options: Options, outputs: Outputs) -> Iterator[_Run]:
    """As :func:`_running`, with the annotations written beside the recording."""
    target = output or default_output(recording)
    check_annotations_output(recording, target, outputs.overwrite)
    inputs, results = (recording.meta_path, recording.data_path), (target, target.with_suffix(DATA_SUFFIX))
    with _running(recording.meta_path.name, options, outputs, recording.sample_rate, inputs, results) as run:
        yield run
        if run.analysed:
            _write_annotations(recording, run, target, outputs)


def _write_annotations(recording: Recording, run: _Run, target: Path, outputs: Outputs) -> None:
    try:
        write_annotations(
            recording,
            run.annotations,
            target,
            model_name=run.model.contract.name,
            model_hash=run.model.sha256,
            overwrite=outputs.overwrite,
        )
        outputs.console.print(f"Annotations: {target}", soft_wrap=True)
    except OutputError as error:  # the other outputs are still to be written
        run.failures.append(error)


def _check_outputs(outputs: Outputs, inputs: Iterable[Path], results: Iterable[Path]) -> None:
    """Refuse outputs that cannot be written, or would destroy what is read or another output."""
    for option, path in outputs.files.items():
        for read in inputs:
            if _same_file(path, read):
                raise OutputError(f"{option} {path} is the same file as {read}, which is read; name another file")
        for written in results:
            if _same_file(path, written):
                raise OutputError(f"{option} {path} is also where the annotations go; name another file")
    for (one, path), (other, same) in combinations(outputs.files.items(), 2):
        if _same_file(path, same):
            raise OutputError(f"{one} and {other} are the same file, {path}; name two")
    for path in outputs.files.values():
        if not is_device(path):
            check_output(path, outputs.overwrite)


def _same_file(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


@contextmanager
def _open_sinks(outputs: Outputs) -> Iterator[list[Sink]]:
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if outputs.publish:
            sinks.append(stack.enter_context(ZmqSink(outputs.publish)))
        if outputs.jsonl:
            sinks.append(stack.enter_context(JsonLinesSink(outputs.jsonl, outputs.overwrite)))
        yield sinks


@contextmanager
def _stopping_at_signals() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one ends the program at once."""
    stop = _Stop()

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


def _ended_children_seconds() -> float:
    """Processor time of the child processes that have ended; those that run are not in it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
        transport=statistics.transport_lost,
        radio=statistics.radio_lost,
        dropped=statistics.dropped,
        unusable=statistics.without_rate,
        restarts=statistics.restarts,
    )
