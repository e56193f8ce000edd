# SPDX-License-Identifier: Apache-2.0
"""rfvit IQ Sink in a real flowgraph, read by rfvit's own source; readers are killed and stopped while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import StreamError
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds until a test gives up what it waits for
LONGEST_STOP = 2.0  # seconds, promised to users
RATE = 1e6
LARGEST_MESSAGE = 1 << 17  # samples, as the sink has it
PERIOD = 1 << 20  # samples until the ramp begins again

_FLOWGRAPH = """
import json, sys, time
import numpy as np
import pmt
from gnuradio import blocks, gr, rfvit

options = json.loads(sys.argv[1])
retunes, speed, length = options.pop("retunes"), options.pop("speed"), options.pop("length")
n = np.arange(1 << 20)
ramp = ((n & 0x3ff) + 1j * (n >> 10)).astype(np.complex64)


def tag(offset, frequency):
    made = gr.tag_t()
    made.offset, made.key, made.value = offset, pmt.intern("rx_freq"), pmt.from_double(frequency)
    return made


flowgraph = gr.top_block()
source = blocks.vector_source_c(ramp, True, 1, [tag(*retune) for retune in retunes])
chain = [source]
if length:
    chain.append(blocks.head(8, length))
if speed:
    chain.append(blocks.throttle(8, speed))
if options["item_type"] == "sc16":
    chain.append(blocks.complex_to_interleaved_short(True, 1.0))
sink = rfvit.IQSink(**options)
flowgraph.connect(*chain, sink)
print(json.dumps(sink.endpoint), flush=True)
flowgraph.start()
for word in sys.stdin:
    if word == "counts\\n":
        print(json.dumps([sink.sent(), sink.dropped()]), flush=True)
    elif word == "stop\\n":
        before = time.monotonic()
        flowgraph.stop()
        flowgraph.wait()
        print(json.dumps(time.monotonic() - before), flush=True)
"""

_READER = """
import sys
from rfvit_rt.sources.zmq import ZmqSource, parse_zmq_url
with ZmqSource(parse_zmq_url(sys.argv[1], tags=True, idle_timeout=20.0)) as source:
    for block in source:
        print(block.sample_start, block.sample_end, block.sample_rate, block.frequency, flush=True)
"""


class Flowgraph:
    """A ramp into an IQ Sink, in a process with GNU Radio's Python."""

    def __init__(self, python: Path, **options: Any) -> None:
        defaults: dict[str, Any] = {"item_type": "complex", "endpoint": "tcp://127.0.0.1:*", "sample_rate": RATE}
        options = defaults | {"retunes": [], "speed": 0, "length": 0} | options
        self.process = subprocess.Popen(
            [str(python), "-c", _FLOWGRAPH, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "gr_blocks" / "python")},
        )
        self.endpoint: str = self._answer()

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("[", '"')) or line[0].isdigit():  # the rest is GNU Radio's log
                return json.loads(line)
        raise AssertionError("the flowgraph has died")

    def source(self, kind: str = "pull", **options: Any) -> ZmqSource:
        return ZmqSource(ZmqConfig(kind, self.endpoint, **({"tags": True, "idle_timeout": PATIENCE} | options)))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Reader:
    """rfvit's source in a process of its own, which can be killed or stopped."""

    def __init__(self, flowgraph: Flowgraph, kind: str) -> None:
        url = flowgraph.endpoint.replace("tcp:", f"zmq+{kind}:")
        self.process = subprocess.Popen([sys.executable, "-c", _READER, url], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._lines = iter(self.process.stdout)

    def next(self) -> tuple[int, int, float, float | None]:
        start, end, rate, frequency = next(self._lines).split()
        return int(start), int(end), float(rate), None if frequency == "None" else float(frequency)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def flowgraph(gnuradio_python: Path) -> Iterator[Callable[..., Flowgraph]]:
    made: list[Flowgraph] = []

    def make(**options: Any) -> Flowgraph:
        made.append(Flowgraph(gnuradio_python, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def reader() -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(*arguments: Any) -> Reader:
        made.append(Reader(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ramp(start: int, count: int) -> np.ndarray:
    position = np.arange(start, start + count) % PERIOD
    return ((position & 0x3FF) + 1j * (position >> 10)).astype(np.complex64)


def assert_ramp(blocks: list[IQBlock], scale: float = 1.0) -> None:
    for block in blocks:
        np.testing.assert_array_equal(block.samples * np.float32(scale), ramp(block.sample_start, len(block.samples)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def slowly(source: ZmqSource) -> Iterator[IQBlock]:
    for block in source:
        yield block
        time.sleep(0.002)


def read(source: ZmqSource, until: int) -> list[IQBlock]:
    blocks: list[IQBlock] = []
    for block in source:
        blocks.append(block)
        if block.sample_end >= until:
            break
    return blocks


@pytest.mark.parametrize(("item_type", "wire", "scale"), [("complex", "cf32_le", 1.0), ("sc16", "ci16_le", 32768.0)])
def test_nothing_is_lost_on_the_way(flowgraph: Any, item_type: str, wire: str, scale: float) -> None:
    graph = flowgraph(item_type=item_type, frequency=2.4e9, length=3_000_001)
    with graph.source(item_type=wire, sample_count=3_000_001) as source:
        blocks = list(source)
    assert [one.sample_start for one in blocks] == [0, *(one.sample_end for one in blocks[:-1])]
    assert blocks[-1].sample_end == 3_000_001
    assert {(one.sample_rate, one.frequency, one.radio_lost) for one in blocks} == {(RATE, 2.4e9, 0)}
    assert_ramp(blocks, scale)
    assert source.statistics.transport_lost == source.statistics.without_rate == 0
    assert graph.ask("counts") == [3_000_001, 0]


@pytest.mark.parametrize("kind", ["pull", "sub"])
def test_retunes_in_mid_stream_are_followed_to_the_sample(flowgraph: Any, kind: str) -> None:
    retunes = [(100_001, 2e9), (300_007, 3e9), (300_008, 1e9), (900_000, 4e9)]
    graph = flowgraph(
        socket="push" if kind == "pull" else "pub", frequency=1e9, length=1_000_000, repeat_period=0.05, retunes=retunes
    )
    with graph.source(kind, sample_count=1_000_000, policy="block") as source:
        blocks = list(source)
    assert_ramp(blocks)
    changes = [(one.sample_start, one.frequency) for one in blocks]
    changes = [new for old, new in zip([(0, None), *changes], changes, strict=False) if new[1] != old[1]]
    assert changes == [(0, 1e9), *retunes]


@pytest.mark.parametrize("policy", ["block", "drop"])
def test_a_late_listener_learns_rate_and_frequency(flowgraph: Any, policy: str) -> None:
    graph = flowgraph(socket="pub", policy=policy, retunes=[(5, 3e9)], frequency=1e9, speed=2e6, repeat_period=1e6)
    with graph.source("sub") as first:
        read(first, 500_000)  # it has been running for a while
        with graph.source("sub") as late:
            (block,) = read(late, 0)
            assert block.sample_start > 0
            assert (block.sample_rate, block.frequency) == (RATE, 3e9)
            # A subscription may take effect within the very call that sends a message; the next one says everything.
            assert late.statistics.without_rate <= LARGEST_MESSAGE


def test_what_the_sink_drops_is_what_the_reader_misses(flowgraph: Any) -> None:
    """As fast as it goes, far faster than this reader reads."""
    length = 60_000_000
    retuned = PERIOD - 7
    graph = flowgraph(policy="drop", high_water_mark=2, length=length, retunes=[(retuned, 5e9)])
    blocks: list[IQBlock] = []
    with graph.source(receive_hwm=1, ring_samples=1 << 16, idle_timeout=1.5) as source:
        with pytest.raises(StreamError, match="the sender has gone"):
            blocks.extend(slowly(source))
        sent, dropped = graph.ask("counts")
    assert sent + dropped == length
    assert source.statistics.samples_received == sent
    gaps = [new.sample_start - old.sample_end for old, new in pairwise(blocks)]
    assert min(gaps) == 0 < sum(gaps) == source.statistics.transport_lost
    # Before the first and after the last that came, only the sink knows.
    assert blocks[0].sample_start + sum(gaps) + length - blocks[-1].sample_end == dropped
    assert_ramp(blocks)
    # After every gap the frequency is known at once: the sink says it again, also where the retune was dropped.
    for block in blocks:
        assert block.frequency == (5e9 if block.sample_end > retuned else None)


@pytest.mark.parametrize(("socket", "policy"), [("push", "block"), ("push", "drop"), ("pub", "block"), ("pub", "drop")])
def test_a_reader_killed_and_started_again(flowgraph: Any, reader: Any, socket: str, policy: str) -> None:
    kind = "pull" if socket == "push" else "sub"
    graph = flowgraph(socket=socket, policy=policy, frequency=2.4e9, speed=2e6)
    first = reader(graph, kind)
    for _ in range(20):
        _, last, rate, frequency = first.next()
        assert (rate, frequency) == (RATE, 2.4e9)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    before = graph.ask("counts")
    if policy == "drop":  # the flowgraph goes on, and counts
        wait_until(lambda: graph.ask("counts")[1] > before[1] + 500_000)
    else:  # it waits, with what fits into the buffers
        time.sleep(0.3)
    assert graph.process.poll() is None
    second = reader(graph, kind)
    start, end, rate, frequency = second.next()
    assert (rate, frequency) == (RATE, 2.4e9)  # said again
    assert start >= last  # its place in the stream says what is missing
    for _ in range(20):
        expected = end
        start, end, _, frequency = second.next()
        assert (start, frequency) == (expected, 2.4e9)
    wait_until(lambda: sum(graph.ask("counts")) >= end)  # it counts what it has sent
    _, dropped = graph.ask("counts")
    assert dropped == 0 if policy == "block" else dropped > 500_000
    assert graph.ask("stop") < LONGEST_STOP


@pytest.mark.parametrize(("socket", "policy"), [("push", "block"), ("push", "drop"), ("pub", "block"), ("pub", "drop")])
def test_the_flowgraph_stops_beside_a_reader_that_hangs(flowgraph: Any, reader: Any, socket: str, policy: str) -> None:
    graph = flowgraph(socket=socket, policy=policy)
    stuck = reader(graph, "pull" if socket == "push" else "sub")
    stuck.next()
    stuck.process.send_signal(signal.SIGSTOP)
    # Long enough for all buffers to fill: it sends as fast as it goes.
    counts: list[list[int]] = []
    wait_until(lambda: counts.append(graph.ask("counts")) or _stuck(counts, socket, policy))
    assert graph.ask("stop") < LONGEST_STOP


def _stuck(counts: list[list[int]], socket: str, policy: str) -> bool:
    sent, dropped = counts[-1]
    if policy == "block":
        return len(counts) > 30 and counts[-30][0] == sent
    return dropped > 0 if socket == "push" else sent > 20_000_000


def test_one_reader_that_hangs_does_not_rob_the_others(flowgraph: Any, reader: Any) -> None:
    graph = flowgraph(socket="pub", policy="drop", speed=5e6)
    stuck = reader(graph, "sub")
    stuck.next()
    stuck.process.send_signal(signal.SIGSTOP)
    with graph.source("sub") as source:
        blocks = read(source, 10_000_000)
    assert_ramp(blocks)
    assert source.statistics.transport_lost == source.statistics.dropped == 0
