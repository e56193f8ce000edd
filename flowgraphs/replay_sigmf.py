#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay a recording: file source, samples with tags, throttle, ZeroMQ PUSH sink. For GNU Radio 3.10.1 and later.

``rfvit replay`` starts this and reads the samples. What to replay comes as one line of JSON on standard input, made by
``rfvit_rt.flowgraph.describe`` from the recording's metadata, since GNU Radio's Python has no SigMF reader:

    {"data_path": ..., "datatype": "ci16_le", "byte_start": 0, "sample_count": ..., "sample_rate": 1e6,
     "captures": [{"offset": 0, "rx_freq": 1e9, "rx_time": [1700000000, 0.5]}, ...]}

It prints "endpoint" and the bound address, then "sent" and the count when the last sample went to the socket. PUSH
loses nothing: it waits for its reader. The process stays until standard input closes, because samples that still queue
in the socket are lost with it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from typing import NoReturn

import numpy as np
import pmt
from gnuradio import blocks, gr, zeromq

from rfvit_rt.wire.samples import item_size, to_complex64

# Messages that may queue in the socket: enough to keep the link busy, few enough to keep the samples young.
HIGH_WATER_MARK = 8
# A throttle sleeps for what one call hands it; short sleeps end soon when the flowgraph is stopped.
LONGEST_SLEEP = 0.05


class Samples(gr.decim_block):
    """File bytes to complex64 as rfvit reads them itself, tagged where a capture starts."""

    def __init__(self, datatype: str, sample_rate: float, captures: list[dict]) -> None:
        self._size = item_size(datatype)
        gr.decim_block.__init__(self, "SigMF samples", [np.uint8], [np.complex64], self._size)
        self._datatype = datatype
        self._sample_rate = sample_rate
        self._captures = captures
        self._next = 0
        self._frequency_told = False

    def work(self, input_items, output_items):
        """Convert as many samples as fit."""
        try:
            return self._convert(input_items, output_items[0])
        except Exception as error:
            fail(f"cannot convert the samples: {error!r}")

    def _convert(self, input_items, out):
        out[:] = to_complex64(input_items[0][: len(out) * self._size], self._datatype)
        end = self.nitems_written(0) + len(out)
        while self._next < len(self._captures) and self._captures[self._next]["offset"] < end:
            self._tag(self._captures[self._next])
            self._next += 1
        return len(out)

    def _tag(self, capture: dict) -> None:
        values = {"rx_rate": pmt.from_double(self._sample_rate)}
        if capture["rx_freq"] is not None:
            values["rx_freq"] = pmt.from_double(capture["rx_freq"])
            self._frequency_told = True
        elif self._frequency_told:
            values["rx_freq"] = pmt.PMT_NIL  # not known from here on; without this the one before would seem to stay
        if capture["rx_time"] is not None:
            seconds, fraction = capture["rx_time"]
            values["rx_time"] = pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(fraction))
        for key, value in values.items():
            self.add_item_tag(0, capture["offset"], pmt.intern(key), value)


class Replay(gr.top_block):
    """File source, samples, throttle (unless speed is 0), PUSH sink."""

    def __init__(self, description: dict, address: str, speed: float, block: int) -> None:
        # A block that fails has to end the process: with its exception caught, the rest would wait for it for ever.
        gr.top_block.__init__(self, "SigMF replay", catch_exceptions=False)
        size = item_size(description["datatype"])
        rate = description["sample_rate"]
        self.source = blocks.file_source(
            gr.sizeof_char,
            description["data_path"],
            False,
            description["byte_start"],
            description["sample_count"] * size,
        )
        self.source.set_min_output_buffer(2 * block * size)
        self.samples = Samples(description["datatype"], rate, description["captures"])
        self.samples.set_min_output_buffer(2 * block)
        self.sink = zeromq.push_sink(gr.sizeof_gr_complex, 1, address, 100, True, HIGH_WATER_MARK)
        self.connect(self.source, self.samples)
        if speed:
            self.throttle = blocks.throttle(gr.sizeof_gr_complex, rate * speed)
            self.throttle.set_min_output_buffer(2 * block)
            self.throttle.set_max_noutput_items(max(1, min(block, int(rate * speed * LONGEST_SLEEP))))
            self.connect(self.samples, self.throttle, self.sink)
        else:
            self.connect(self.samples, self.sink)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="tcp://127.0.0.1:*", help="where to bind; * takes a free port")
    parser.add_argument("--speed", type=float, default=1.0, help="1 is real time, 0 is as fast as it goes")
    parser.add_argument("--block", type=int, default=2**15, help="most samples handed on at a time")
    return parser.parse_args()


def main() -> None:
    """Replay what standard input describes."""
    arguments = parse_arguments()
    description = json.loads(sys.stdin.readline())
    try:
        flowgraph = Replay(description, arguments.address, arguments.speed, arguments.block)
    except RuntimeError as error:
        sys.exit(f"cannot build the flowgraph on {arguments.address}: {error}")
    print("endpoint", flowgraph.sink.last_endpoint().rstrip("\0"), flush=True)
    flowgraph.start(arguments.block)
    threading.Thread(target=report_end, args=(flowgraph, description["sample_count"]), daemon=True).start()
    sys.stdin.read()
    flowgraph.stop()
    flowgraph.wait()


def report_end(flowgraph: Replay, expected: int) -> None:
    """Say when the last sample went to the socket."""
    flowgraph.wait()
    if flowgraph.sink.nitems_read(0) == expected:
        print("sent", expected, flush=True)


def fail(reason: str) -> NoReturn:
    """End the process at once, from any thread."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
