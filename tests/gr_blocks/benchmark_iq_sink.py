# SPDX-License-Identifier: Apache-2.0
"""How fast samples leave GNU Radio: rfvit IQ Sink into rfvit's source, beside a stock PUSH sink into bare pyzmq.

Both in turn, several times, each flowgraph in a process of GNU Radio's Python and each reader here, over TCP on this
machine, without any signal processing. What counts is the ratio; the rates are this machine's, at this moment.

    .venv/bin/python tests/gr_blocks/benchmark_iq_sink.py [--runs 5] [--seconds 3] [--source null]

The stock side does less: its messages have no header, and its reader looks at nothing. rfvit's source finds each
message's place in the stream, follows its tags, copies the samples into arrays that are aligned and writeable, and
hands them from its receiving thread to the one that iterates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from rfvit_rt.flowgraph import find_gnuradio_python
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource

MODULE = Path(__file__).resolve().parents[2] / "gr_blocks" / "python"
WARM_UP = 1.0  # seconds before it counts
SAMPLE_BYTES = 8

FLOWGRAPH = """
import sys
import numpy as np
from gnuradio import blocks, gr, rfvit, zeromq

kind, source_kind = sys.argv[1:]
C = gr.sizeof_gr_complex
if source_kind == "null":
    source = blocks.null_source(C)
else:
    source = blocks.vector_source_c(np.ones(100_000, np.complex64), True)
    source.set_min_output_buffer(1 << 17)
if kind == "stock":
    sink = zeromq.push_sink(C, 1, "tcp://127.0.0.1:*")
    endpoint = sink.last_endpoint().rstrip(chr(0))
else:
    sink = rfvit.IQSink("complex", "tcp://127.0.0.1:*", sample_rate=100e6, frequency=2.4e9)
    endpoint = sink.endpoint
flowgraph = gr.top_block()
flowgraph.connect(source, sink)
flowgraph.start()
print(endpoint, flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each time")
    parser.add_argument(
        "--source",
        choices=["null", "vector"],
        default="null",
        help="null: GNU Radio's default buffers; vector: a source with large ones, as drivers of fast radios have",
    )
    arguments = parser.parse_args()
    readers: dict[str, Callable[[str, float], float]] = {"stock": read_bare, "rfvit": read_rfvit}
    rates: dict[str, list[float]] = {kind: [] for kind in readers}
    for run in range(arguments.runs):
        for kind in sorted(readers, reverse=bool(run % 2)):  # neither always goes first
            with flowgraph(kind, arguments.source) as endpoint:
                rates[kind].append(readers[kind](endpoint, arguments.seconds) / 1e6)
        print(f"run {run + 1}: " + ", ".join(f"{kind} {values[-1]:.1f} MS/s" for kind, values in rates.items()))
    stock, rfvit = (statistics.median(rates[kind]) for kind in ("stock", "rfvit"))
    print(f"zeromq.push_sink → bare pyzmq      median {stock:6.1f} MS/s ({spread(rates['stock'])})")
    print(f"rfvit IQ Sink → rfvit ZmqSource    median {rfvit:6.1f} MS/s ({spread(rates['rfvit'])})")
    print(f"ratio {rfvit / stock:.2f}; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


def spread(values: list[float]) -> str:
    """Smallest to largest."""
    return f"{min(values):.1f} to {max(values):.1f}"


@contextmanager
def flowgraph(kind: str, source: str) -> Iterator[str]:
    """Run one of the flowgraphs; yields its endpoint."""
    environment = os.environ | {"PYTHONPATH": str(MODULE)}
    command = [str(find_gnuradio_python()), "-c", FLOWGRAPH, kind, source]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout)
            yield next(line.strip() for line in lines if line.startswith("tcp://"))
        finally:
            process.kill()


def read_bare(endpoint: str, seconds: float) -> float:
    """Samples per second that arrive, looked at by nobody."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        counts = (len(socket.recv()) // SAMPLE_BYTES for _ in iter(int, 1))
        return rate(counts, seconds)


def read_rfvit(endpoint: str, seconds: float) -> float:
    """Samples per second that rfvit's source yields."""
    with ZmqSource(ZmqConfig("pull", endpoint, tags=True)) as source:
        measured = rate((len(block.samples) for block in source), seconds)
        assert source.statistics.transport_lost == source.statistics.dropped == 0
        return measured


def rate(counts: Iterator[int], seconds: float) -> float:
    """Sum up for a while, once warm, and divide."""
    begin = time.monotonic() + WARM_UP
    while time.monotonic() < begin:
        next(counts)
    begin, total = time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        total += next(counts)
    return total / (now - begin)


if __name__ == "__main__":
    main()
