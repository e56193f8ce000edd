# SPDX-License-Identifier: Apache-2.0
"""The whole way: samples from a GNU Radio flowgraph over ZeroMQ to annotations, at one sample rate for some seconds."""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rfvit_rt.bench.figures import Milliseconds
from rfvit_rt.bench.machine import Busy
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import IQBlock, Mask
from rfvit_rt.engines import Engine
from rfvit_rt.flowgraph import Flowgraph, describe, find_flowgraph
from rfvit_rt.outputs import Outputs, open_sinks
from rfvit_rt.pipeline import PipelineSettings
from rfvit_rt.run import Run
from rfvit_rt.running import Stop, end
from rfvit_rt.session import losses
from rfvit_rt.sources.recording import Recording
from rfvit_rt.sources.zmq import ZmqSource, parse_zmq_url
from rfvit_rt.wire.results import Result

FLOWGRAPH = "bench_stream.py"
LARGEST_BACKLOG = 0.25  # s: what is older than this at the end of a trial was not kept up with, but merely stored
_SETTLE = 0.2  # s: until the reader is connected


@dataclass(frozen=True)
class Trial:
    """How one sample rate went.

    Attributes
    ----------
    sample_rate : float
        In Hz.
    seconds : float
        Of stream.
    samples, lost, windows, annotations : int
        Samples that came, and that did not: what the sink dropped, before the first that came too, and what was lost on
        the way; windows and annotations that were made of them.
    achieved_rate : float
        Samples per second that came, those lost on the way included, in Hz.
    sample_age : Milliseconds or None
        From when a window's last sample was due in GNU Radio to the window's mask; None where no window came.
    backlog : float or None
        The same for the last window of all, in s.
    rfvit_cores, flowgraph_cores, other_cores : float
        Processor cores that were busy with rfvit, with the flowgraph, and with anything else on the machine.
    kept_up : bool
        Whether nothing was lost and no backlog was left. A flowgraph that does not reach its rate shows as backlog too.
    reason : str
        What speaks against it; empty where nothing does.
    """

    sample_rate: float
    seconds: float
    samples: int
    lost: int
    windows: int
    annotations: int
    achieved_rate: float
    sample_age: Milliseconds | None
    backlog: float | None
    rfvit_cores: float
    flowgraph_cores: float
    other_cores: float
    kept_up: bool
    reason: str


def try_rate(
    recording: Recording,
    engine: Engine,
    model: ModelFile,
    settings: PipelineSettings,
    sample_rate: float,
    seconds: float,
    stop: Stop,
) -> Trial:
    """Stream a recording's samples from GNU Radio at a sample rate, and segment them as `rfvit segment` does.

    Its windows overlap as the settings say: none by default of the bench, a quarter by that of `rfvit segment`.

    Annotations are written as JSON lines, to a file that is deleted.

    Parameters
    ----------
    recording : Recording
        Whose samples are sent, again and again, whatever rate they were taken at.
    engine : Engine
        Loaded with `model`.
    model : ModelFile
    settings : PipelineSettings
    sample_rate : float
        In Hz.
    seconds : float
        Of stream; at least a window.
    stop : Stop
        Ends the trial when set.

    Raises
    ------
    StreamError
        If the flowgraph cannot be started.
    SystemExit
        After Ctrl-C or SIGTERM while it was starting.
    """
    window = model.contract.spectrogram.window_length(sample_rate)
    count = max(round(sample_rate * seconds), window)
    flowgraph = Flowgraph(
        find_flowgraph(FLOWGRAPH), ["--sample-rate", repr(sample_rate)], describe(recording), stop.is_set
    )
    ages = _Ages(sample_rate)
    with tempfile.TemporaryDirectory(prefix="rfvit-bench-") as folder, flowgraph:
        end([], stop)  # or it is not bound yet
        outputs = Outputs(Console(file=io.StringIO()), jsonl=str(Path(folder) / "results.jsonl"))
        config = parse_zmq_url(
            flowgraph.endpoint.replace("tcp://", "zmq+pull://"), tags=True, sample_rate=sample_rate, sample_count=count
        )
        with open_sinks(outputs) as sinks, ZmqSource(config, stop.is_set) as source:
            run = Run(FLOWGRAPH, engine, model, outputs, [*sinks], stop, settings)
            run.add(ages)
            time.sleep(_SETTLE)
            flowgraph.start()
            before = Busy.now(flowgraph.pid)
            run.process(ages.observed(source), count, lambda: losses(source.statistics), live=True)
            after = Busy.now(flowgraph.pid)
            if run.failures:
                flowgraph.check()  # if it died, its own last words explain more than our silence
                raise run.failures[0]
            statistics = source.statistics
    lost = ages.missed + statistics.transport_lost + statistics.dropped + statistics.radio_lost
    return ages.trial(count, statistics.samples_received, lost, run.report().windows, before, after)


class _Ages:
    """Looks on, and knows when each sample was due: the sender's clock is that of the message that came earliest."""

    def __init__(self, sample_rate: float) -> None:
        self.missed = 0  # samples before the first that came: no gap shows them
        self._sample_rate = sample_rate
        self._clock = math.inf  # `time.monotonic()` at which sample 0 was due
        self._first: tuple[float, int] | None = None  # when the first block came, and the position of its last sample
        self._last = (0.0, 0)  # the same of the newest
        self._results: list[tuple[float, int]] = []  # when each window's mask was there, and the position of its end
        self._annotations = 0

    def observed(self, blocks: Iterable[IQBlock]) -> Iterator[IQBlock]:
        """Pass on the stream."""
        for block in blocks:
            end = block.sample_start + len(block.samples)
            self._clock = min(self._clock, block.received - end / self._sample_rate)
            self._last = (block.received, end)
            if self._first is None:
                self._first = self._last
                self.missed = block.sample_start
            yield block

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take the time of a window that went through the model."""
        self._results.append((time.monotonic(), mask.sample_end))

    def add_mask(self, mask: Mask) -> None:
        """Not of interest."""

    def write(self, result: Result) -> None:
        """Count."""
        self._annotations += 1

    def trial(self, count: int, samples: int, lost: int, windows: int, before: Busy, after: Busy) -> Trial:
        """Sum up, after the last window."""
        ages = [when - self._clock - end / self._sample_rate for when, end in self._results]
        backlog = ages[-1] if ages else None
        own, flowgraph, others = after.cores_since(before)
        reasons = []
        if lost:
            reasons.append(f"{lost:,} samples lost")
        if backlog is None:
            reasons.append("no window came")
        elif backlog > LARGEST_BACKLOG:
            reasons.append(f"{backlog:.2f} s behind at the end")
        return Trial(
            sample_rate=self._sample_rate,
            seconds=count / self._sample_rate,
            samples=samples,
            lost=lost,
            windows=windows,
            annotations=self._annotations,
            achieved_rate=self._achieved_rate(),
            sample_age=Milliseconds.of(ages) if ages else None,
            backlog=backlog,
            rfvit_cores=own,
            flowgraph_cores=flowgraph,
            other_cores=others,
            kept_up=not reasons,
            reason=", ".join(reasons),
        )

    def _achieved_rate(self) -> float:
        if self._first is None or self._last[0] <= self._first[0]:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


def expected_seconds(seconds: float) -> float:
    """How long a trial of so many seconds of stream takes, with the start and end of its flowgraph."""
    return seconds + 2.5
