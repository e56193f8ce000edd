# SPDX-License-Identifier: Apache-2.0
"""What the page costs: share of a core that the server's thread takes, by its own processor time. Run by hand.

    .venv/bin/python -m tests.web.measure --sample-rate 61.44e6 --clients 1

Stretches of labels and pictures are made beforehand and handed over at the pace of a stream of that rate, with blocks
of samples for the ring, as a run of ``rfvit segment`` does; each client is a process of its own, at 20 frames/s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from websockets.sync.client import connect

from rfvit_rt.datatypes import Annotation, IQBlock, Mask
from rfvit_rt.models import default_model
from rfvit_rt.sinks.prometheus import Address
from rfvit_rt.web.board import Board
from rfvit_rt.web.cells import Cells
from rfvit_rt.web.protocol import Hello, decode_tile
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.saver import Saver
from rfvit_rt.web.server import Server
from rfvit_rt.web.spectrum import SpectrumView
from rfvit_rt.wire.samples import to_complex64

from .serving import figures

KINDS = 16  # different stretches, used in turn
SETTLING = 3.0  # s before the first figure


def read(port: int, columns: int, rows_per_second: float, results: Connection) -> None:
    """Be a page; tell frames per second, bytes per second and the newest status in the end."""
    with connect(f"ws://127.0.0.1:{port}/stream", max_size=None) as socket:
        view = {"type": "view", "columns": columns, "rows_per_second": rows_per_second}
        socket.send(json.dumps(view))
        frames = size = dropped = 0
        began = time.monotonic()
        while not results.poll():
            data = socket.recv(10)
            size += len(data)
            if isinstance(data, bytes):
                frames += len(decode_tile(data).power) > 0
            elif data.startswith('{"type":"status"'):
                dropped = json.loads(data)["frames_dropped"]
        elapsed = time.monotonic() - began
    results.send((frames / elapsed, size / elapsed, dropped))


def holding(rate: float, seconds: float) -> float:
    """Share of a core that it takes to hold the last samples: to make blocks of them with the ring, less without."""
    ring, size = IQRing(), 2**16
    raw = np.random.default_rng(1).integers(-100, 100, (size, 2), np.int8).tobytes()
    filled, total = (round(span * rate / size) for span in (1.1 * ring.seconds_at(rate), seconds))

    def make(first: int, count: int, is_held: bool) -> float:
        before = time.process_time()
        for number in range(first, first + count):
            block = IQBlock(to_complex64(raw, "ci8"), number * size, rate)
            if is_held:
                ring.add(block)
        return time.process_time() - before

    make(0, filled, True)
    return (make(filled, total, True) - make(0, total, False)) / seconds


def main() -> None:
    """Measure, and print a line for each second and one for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample-rate", type=float, default=61.44e6, help="samples per second")
    parser.add_argument("--clients", type=int, default=1, help="pages that look on")
    parser.add_argument("--seconds", type=int, default=20, help="how long to measure")
    parser.add_argument("--columns", type=int, default=1024, help="most columns that the pages show")
    parser.add_argument("--rows-per-second", type=float, default=200.0, help="rows per second that they show")
    parser.add_argument("--labels", type=int, default=7, help="classes, background included")
    arguments = parser.parse_args()
    rate = arguments.sample_rate
    spec = default_model().contract.spectrogram
    steps, bins = 192, spec.n_fft(rate)
    stretch = round(steps * spec.step_length(rate))
    labels = ("background", *(f"label {number}" for number in range(1, arguments.labels)))
    hello = Hello(
        *("segmentation", "synthetic", "one", labels, {}, "none", "none", rate, 2.14e9, False, True),
        *(spec.time_step, bins, spec.db_min, spec.db_max, "dB", 60.0, None, True, True, 10.0),
    )
    board, ring = Board(hello, figures), IQRing()
    saver = Saver(board, ring, Path(), "synthetic", default_model(), None)
    rng = np.random.default_rng(1)
    pictures = [rng.normal(3, 6, (256, bins)).astype(np.float32) for _ in range(KINDS)]
    probabilities = [rng.dirichlet(np.full(len(labels), 0.1), (steps, bins)).astype(np.float32) for _ in range(KINDS)]
    samples = np.zeros(stretch, np.complex64)
    shares, costs, ends = [], [], []
    with Server(Address("127.0.0.1", 0), board, saver) as server:
        view = SpectrumView(server, board, Cells(spec.db_min, spec.db_max), ring, labels)
        for _ in range(arguments.clients):
            ours, theirs = multiprocessing.Pipe()
            place = (server.access.address.port, arguments.columns, arguments.rows_per_second, theirs)
            process = multiprocessing.get_context("spawn").Process(target=read, args=place)
            process.start()
            ends.append((ours, process))
        while board.clients < arguments.clients:
            time.sleep(0.05)
        began = mark = time.monotonic()
        used, handed = server.processor_seconds, 0.0
        number = late = 0
        while mark < began + SETTLING + arguments.seconds:
            place = Mask(probabilities[number % KINDS], number * stretch, stretch, rate, 2.14e9)
            window = Mask(probabilities[0], number * stretch, round(stretch * 256 / steps), rate, 2.14e9)
            before = time.thread_time()
            view.add_block(IQBlock(samples, number * stretch, rate, 2.14e9, received=time.monotonic()))
            view.add_picture(pictures[number % KINDS], window)
            view.add_mask(place)
            if number % 4 == 0:
                view.write(Annotation("label 1", number * stretch, stretch, 2.139e9, 2.141e9, 0.9, rate, 2.14e9))
            handed += time.thread_time() - before
            number += 1
            pause = began + number * stretch / rate - time.monotonic()
            late += pause < 0
            time.sleep(max(0.0, pause))
            if time.monotonic() >= mark + 1:
                now, busy = time.monotonic(), server.processor_seconds
                if mark >= began + SETTLING:
                    shares.append((busy - used) / (now - mark))
                    costs.append(handed / (now - mark))
                mark, used, handed = now, busy, 0.0
        for ours, _ in ends:
            ours.send("enough")
        told = [ours.recv() for ours, _ in ends]
    for frames, size, dropped in told:
        print(f"a page: {frames:.1f} frames/s, {size / 1e3:.0f} kB/s, {dropped} dropped")
    print(f"rows dropped by the server: {board.stretches_dropped}; stretches handed over late: {late} of {number}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(
        f"{rate / 1e6:g} MS/s, {bins} bins, {len(labels)} labels, {arguments.clients} page(s): server's thread "
        f"{100 * statistics.median(shares):.1f} % of a core (median of {len(shares)} s, {100 * min(shares):.1f} to "
        f"{100 * max(shares):.1f}); handing over takes the pipeline {100 * statistics.median(costs):.2f} %"
    )
    held = [holding(rate, arguments.seconds / 2) for _ in range(3)]
    print(f"holding the last samples, once it is full: {100 * statistics.median(held):.1f} % of a core")


if __name__ == "__main__":
    main()
