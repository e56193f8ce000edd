# SPDX-License-Identifier: Apache-2.0
"""One run of `rfvit` from source to results: opens both ends, lets the pipeline run between them, reports."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.engines import Engine
from rfvit_rt.errors import OutputError, StreamError
from rfvit_rt.flowgraph import Flowgraph, find_gnuradio_python
from rfvit_rt.flowgraph import replay as replay_flowgraph
from rfvit_rt.models import default_model, find_model
from rfvit_rt.outputs import Outputs, Sink, check_outputs, open_sinks, serving_metrics
from rfvit_rt.pipeline import PipelineSettings
from rfvit_rt.run import Losses, Run
from rfvit_rt.running import Options as Options  # part of this module's interface
from rfvit_rt.running import end, open_engine, stay, stopping_at_signals
from rfvit_rt.sinks.sigmf import check_annotations_output, default_output, write_annotations
from rfvit_rt.sinks.sigmf_stream import StreamAnnotations
from rfvit_rt.sources.recording import DATA_SUFFIX, Recording, open_recording
from rfvit_rt.sources.timeline import StreamStatistics
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource, parse_zmq_url

if TYPE_CHECKING:
    from rfvit_rt.web.serving import Page
    from rfvit_rt.web.spectrum import SpectrumView

MAX_SAMPLES = 2**62  # of a stream that ends
SIMULATED = "SIMULATED: the sender marks these samples as simulated; no radio received them."


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
                run.process(blocks, recording.sample_count, lambda: losses(source.statistics))
        run.flowgraph_seconds = _ended_children_seconds() - before


def segment_stream(
    url: str,
    stream_options: dict[str, Any],
    duration: float | None,
    options: Options,
    outputs: Outputs,
    output: Path | None = None,
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
    output : Path or None
        Where to write the annotations, as SigMF metadata without samples.

    Raises
    ------
    RfvitError, SystemExit
        As :func:`segment_recording`.
    """
    config = _stream_config(url, stream_options, duration)
    annotations = StreamAnnotations(output, url, f"Live from {url}", outputs.overwrite) if output else None
    results, sinks = ([output], [annotations]) if output and annotations else ([], [])
    with (
        segmenting(url, options, outputs, config.sample_rate, (), results, sinks, frequency=config.frequency) as run,
        ZmqSource(config, run.stop.is_set) as source,
    ):
        blocks = _marked(source, run, outputs)
        if annotations:
            blocks = annotations.observed(blocks)
        run.process(blocks, config.sample_count, lambda: losses(source.statistics), live=True)
        if annotations:
            if run.simulated:
                annotations.description = f"{SIMULATED} {annotations.description}"
            finish_annotations(annotations, run, outputs)


def _marked(source: ZmqSource, run: Run, outputs: Outputs) -> Iterator[IQBlock]:
    """Blocks of a source; says so as soon as its tags say that they are simulated."""
    for block in source:
        if source.statistics.simulated and not run.simulated:
            outputs.console.print(SIMULATED, style="bold red", soft_wrap=True)
            run.simulated = True
        yield block


def finish_annotations(annotations: StreamAnnotations, run: Run, outputs: Outputs) -> None:
    """Write the annotations of a stream, if there was anything to annotate; a failure is the run's."""
    if not run.analysed:
        return
    try:
        annotations.close(run.model.contract.name, run.model.sha256)
        outputs.console.print(f"Annotations: {annotations.path}", soft_wrap=True)
    except OutputError as error:  # the other outputs are still to be written
        run.failures.append(error)


def _stream_config(url: str, options: dict[str, Any], duration: float | None) -> ZmqConfig:
    patience = options.get("idle_timeout")
    config = parse_zmq_url(url, **options | {"idle_timeout": patience or None})
    if patience == 0:
        config = replace(config, idle_timeout=None)
    if duration is None:
        return config
    if config.sample_rate is None:
        raise StreamError("--duration counts samples; give --sample-rate too")
    return replace(config, sample_count=sample_count_of(duration, config.sample_rate))


def sample_count_of(duration: float | None, sample_rate: float) -> int | None:
    """Return how many samples a duration in seconds is, at least one; None for a stream without an end.

    Raises
    ------
    StreamError
        If it is none at all, or too many to count.
    """
    if duration is None:
        return None
    if not 0 < duration * sample_rate <= MAX_SAMPLES:
        raise StreamError(f"--duration is {duration:g}, expected a positive number of seconds; leave it out for ever")
    return max(1, round(duration * sample_rate))


@contextmanager
def segmenting(
    title: str,
    options: Options,
    outputs: Outputs,
    sample_rate: float | None,
    inputs: Iterable[Path] = (),
    results: Iterable[Path] = (),
    more_sinks: Iterable[Sink] = (),
    *,
    frequency: float | None = None,
    recording: Recording | None = None,
) -> Iterator[Run]:
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
    more_sinks : iterable of Sink
        Take results besides those of `outputs`.
    frequency : float or None
        Centre frequency in Hz, where it is known before the first sample.
    recording : Recording or None
        What is read, where that is one: its page stays until somebody ends it.
    """
    model = find_model(options.model) if options.model else default_model()
    check_outputs(outputs, [*inputs, model.path], results)
    spec = model.contract.spectrogram
    if sample_rate is not None:
        spec.check_sample_rate(sample_rate)
    with (
        open_engine(model, options, outputs.console) as engine,
        stopping_at_signals(outputs.console) as stop,
        open_sinks(outputs) as sinks,
    ):
        settings = PipelineSettings.overlapping(options.overlap, spec.n_steps, options.front_end == "gpu")
        run = Run(title, engine, model, outputs, [*sinks, *more_sinks], stop, settings)
        with (
            serving_metrics(outputs, engine, model, run.figures) as metrics,
            _serving_page(outputs, run, engine, title, sample_rate, frequency, recording) as page,
        ):
            for sink in metrics:
                run.add(sink)
            yield run
            run.finish()
            if page is not None:
                page.end(run.failures, stop.is_set())
                if recording is not None and not run.failures:
                    stay(stop, page.url, outputs.console)
    end(run.failures, stop)


@contextmanager
def _serving_page(
    outputs: Outputs,
    run: Run,
    engine: Engine,
    title: str,
    sample_rate: float | None,
    frequency: float | None,
    recording: Recording | None,
) -> Iterator[Page[SpectrumView] | None]:
    """Show a run on a page, if that is wanted."""
    if outputs.web is None:
        yield None
        return
    from rfvit_rt.web.serving import Subject, serving_spectrum  # brings a web server, which most runs do without

    subject = Subject(title, engine, run.model, run.figures, sample_rate, frequency, recording)
    with serving_spectrum(outputs.web, subject, outputs.console) as page:
        run.add(page.view)
        yield page


@contextmanager
def _annotating(recording: Recording, output: Path | None, options: Options, outputs: Outputs) -> Iterator[Run]:
    """As :func:`segmenting`, with the annotations written beside the recording."""
    target = output or default_output(recording)
    check_annotations_output(recording, target, outputs.overwrite)
    inputs, results = (recording.meta_path, recording.data_path), (target, target.with_suffix(DATA_SUFFIX))
    name, rate = recording.meta_path.name, recording.sample_rate
    frequency = recording.captures[0].frequency if recording.captures else None
    with segmenting(name, options, outputs, rate, inputs, results, frequency=frequency, recording=recording) as run:
        yield run
        if run.analysed:
            _write_annotations(recording, run, target, outputs)


def _write_annotations(recording: Recording, run: Run, target: Path, outputs: Outputs) -> None:
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


def losses(statistics: StreamStatistics) -> Losses:
    """Return a stream's losses as the report at the end shows them."""
    return Losses(
        transport=statistics.transport_lost,
        radio=statistics.radio_lost,
        dropped=statistics.dropped,
        unusable=statistics.without_rate,
        restarts=statistics.restarts,
    )
