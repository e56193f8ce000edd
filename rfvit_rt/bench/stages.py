# SPDX-License-Identifier: Apache-2.0
"""What each stage of the way costs by itself, on a recording's windows, with the other stages at rest."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from rfvit_rt.bench.figures import Milliseconds
from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelContract
from rfvit_rt.datatypes import IQBlock, Mask
from rfvit_rt.engines import Engine
from rfvit_rt.pipeline import PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.jsonl import JsonLinesSink
from rfvit_rt.sinks.zmq import ZmqSink
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource
from rfvit_rt.spectrogram import bin_width_feature, spectrogram, tiles
from rfvit_rt.stitching import stitch
from rfvit_rt.windowing import windows
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, encode_stream_message
from rfvit_rt.wire.results import Result
from rfvit_rt.wire.summary import summarise

Item = TypeVar("Item")

WINDOWS = 25  # of a run: at the recording's rate and no overlap, one second
MESSAGE_SAMPLES = 1 << 15


@dataclass(frozen=True)
class StageSpeed:
    """What one stage takes.

    Attributes
    ----------
    stage : str
    windows_per_second : float
        Median over the runs.
    runs : tuple of float
        Windows per second of each run.
    times_real_time : float
        ``windows_per_second`` over the windows that a second of the stream has.
    milliseconds : Milliseconds
        For one window.
    """

    stage: str
    windows_per_second: float
    runs: tuple[float, ...]
    times_real_time: float
    milliseconds: Milliseconds


@dataclass(frozen=True, eq=False)
class StageInputs:
    """What the stages are measured on: a recording's samples, again and again.

    Attributes
    ----------
    samples : (n,) complex64
    sample_rate : float
        In Hz.
    frequency : float or None
        In Hz.
    """

    samples: NDArray[np.complex64]
    sample_rate: float
    frequency: float | None

    def blocks(self, count: int) -> Iterator[IQBlock]:
        """A stream of so many samples."""
        for start in range(0, count, MESSAGE_SAMPLES):
            place = np.arange(start, min(start + MESSAGE_SAMPLES, count)) % len(self.samples)
            yield IQBlock(self.samples[place], start, self.sample_rate, self.frequency)


def measure_stages(
    inputs: StageInputs,
    engine: Engine,
    contract: ModelContract,
    settings: PipelineSettings,
    runs: int,
    progress: Callable[[str], None],
) -> list[StageSpeed]:
    """Measure receive, spectrogram, inference, decode and sinks, each `runs` times over `WINDOWS` windows.

    ``receive`` is from ZeroMQ messages on this machine, sent as fast as they go, to windows; ``decode`` from masks to
    annotations: stitching, consensus and boxes; ``sinks`` writes JSON lines and publishes over ZeroMQ, a window's
    summary too.
    """
    spec = contract.spectrogram
    hop = round(settings.hop_steps * spec.step_length(inputs.sample_rate))
    stream = list(inputs.blocks(spec.window_length(inputs.sample_rate) + (WINDOWS - 1) * hop))
    cut = list(windows(stream, spec, settings.hop_steps))
    width = bin_width_feature(inputs.sample_rate, spec)
    analysed = list(analyse(stream, engine, contract, settings, PipelineStatistics()))
    masks = [window.mask for window in analysed]
    pictures = [tiles(window.picture / np.float32(spec.db_scale), spec) for window in analysed]
    results = _results(masks, contract.labels)
    with _sinks() as write:
        stages: dict[str, Callable[[], list[float]]] = {
            "receive": lambda: _receive(stream, settings, contract),
            "spectrogram": lambda: _seconds(lambda w: spectrogram(w.samples, w.sample_rate, spec), cut),
            "inference": lambda: _seconds(lambda p: engine.infer(p, np.full(len(p), width, np.float32)), pictures),
            "decode": lambda: _decode(masks, contract.labels),
            "sinks": lambda: [write(group) for group in results],
        }
        measured = []
        for name, measure in stages.items():
            progress(f"stage {name}")
            measure()  # what is slow the first time is not of interest
            measured.append(_speed(name, [measure() for _ in range(runs)], inputs.sample_rate / hop))
    return measured


def _speed(stage: str, runs: Sequence[Sequence[float]], windows_of_a_second: float) -> StageSpeed:
    rates = tuple(len(times) / sum(times) for times in runs)
    speed = float(np.median(rates))
    every = [seconds for times in runs for seconds in times]
    return StageSpeed(stage, speed, rates, speed / windows_of_a_second, Milliseconds.of(every))


def _seconds(work: Callable[[Item], object], items: Sequence[Item]) -> list[float]:
    """What the work on each item takes."""
    times = []
    for item in items:
        begun = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - begun)
    return times


def _receive(stream: Sequence[IQBlock], settings: PipelineSettings, contract: ModelContract) -> list[float]:
    """Seconds from each window to the next, as they come out of a source that a thread sends to."""
    form = StreamFormat(tags=True)
    messages = [encode_stream_message(StreamMessage(block.samples, block.sample_start), form)[0] for block in stream]
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        count = sum(len(block.samples) for block in stream)
        config = ZmqConfig(
            "pull", f"tcp://127.0.0.1:{port}", tags=True, sample_rate=stream[0].sample_rate, sample_count=count
        )
        with ZmqSource(config) as source:
            sender = threading.Thread(target=lambda: [socket.send(message, copy=False) for message in messages])
            begun = time.perf_counter()
            sender.start()
            times = []
            for _ in windows(source, contract.spectrogram, settings.hop_steps):
                now = time.perf_counter()
                times.append(now - begun)
                begun = now
            sender.join()
    return times


def _decode(masks: Sequence[Mask], labels: Sequence[str]) -> list[float]:
    """Seconds from taking up each mask to taking up the next, or to the end."""
    taken: list[float] = []

    def noted() -> Iterator[Mask]:
        for mask in masks:
            taken.append(time.perf_counter())
            yield mask

    for _ in annotate(agree(stitch(noted())), labels):
        pass
    return [float(seconds) for seconds in np.diff([*taken, time.perf_counter()])]


def _results(masks: Sequence[Mask], labels: tuple[str, ...]) -> list[list[Result]]:
    """What a run writes for every mask: its summary, and the annotations that became final with it."""
    groups: list[list[Result]] = []

    def noted() -> Iterator[Mask]:
        for mask in agree(stitch(masks)):
            groups.append([summarise(mask, labels)])
            yield mask

    for annotation in annotate(noted(), labels):
        groups[-1].append(annotation)
    return groups


@contextmanager
def _sinks() -> Iterator[Callable[[Sequence[Result]], float]]:
    """What writes results to a file and to a listener, and returns how many seconds it took."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rfvit-bench-"))
        lines = stack.enter_context(JsonLinesSink(Path(folder) / "results.jsonl"))
        publisher = stack.enter_context(ZmqSink("tcp://127.0.0.1:*"))
        listener = stack.enter_context(zmq.Context()).socket(zmq.SUB)
        stack.callback(listener.close, 0)
        listener.subscribe(b"")
        listener.connect(publisher.endpoint)

        def write(results: Sequence[Result]) -> float:
            begun = time.perf_counter()
            for result in results:
                lines.write(result)
                publisher.write(result)
            seconds = time.perf_counter() - begun
            while listener.poll(0):
                listener.recv()
            return seconds

        yield write
