# SPDX-License-Identifier: Apache-2.0
"""One run of `rfvit` from source to results: opens both ends, lets the pipeline run between them, reports."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import OutputError, StreamError
from rfvit_rt.flowgraph import Flowgraph, find_gnuradio_python
from rfvit_rt.flowgraph import replay as replay_flowgraph
from rfvit_rt.models import default_model, find_model
from rfvit_rt.outputs import Outputs, check_outputs, open_sinks
from rfvit_rt.run import Losses, Run, Stop
from rfvit_rt.sinks.sigmf import check_annotations_output, default_output, write_annotations
from rfvit_rt.sources.recording import DATA_SUFFIX, Recording, open_recording
from rfvit_rt.sources.timeline import StreamStatistics
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource, parse_zmq_url

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


@contextmanager
def _running(
    title: str,
    options: Options,
    outputs: Outputs,
    sample_rate: float | None,
    inputs: Iterable[Path] = (),
    results: Iterable[Path] = (),
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
    """
    model = find_model(options.model) if options.model else default_model()
    check_outputs(outputs, [*inputs, model.path], results)
    if sample_rate is not None:
        model.contract.spectrogram.check_sample_rate(sample_rate)
    with (
        load_engine(model, options.engine, precision=options.precision, threads=options.threads) as engine,
        _stopping_at_signals() as stop,
        open_sinks(outputs) as sinks,
    ):
        run = Run(title, engine, model, outputs, sinks, stop)
        yield run
        run.finish()
    if run.failures:
        for further in run.failures[1:]:
            run.failures[0].add_note(str(further))
        raise run.failures[0]
    if stop.signal is not None:
        raise SystemExit(_STOPPED + stop.signal)


@contextmanager
def _annotating(recording: Recording, output: Path | None, options: Options, outputs: Outputs) -> Iterator[Run]:
    """As :func:`_running`, with the annotations written beside the recording."""
    target = output or default_output(recording)
    check_annotations_output(recording, target, outputs.overwrite)
    inputs, results = (recording.meta_path, recording.data_path), (target, target.with_suffix(DATA_SUFFIX))
    with _running(recording.meta_path.name, options, outputs, recording.sample_rate, inputs, results) as run:
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


@contextmanager
def _stopping_at_signals() -> Iterator[Stop]:
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
