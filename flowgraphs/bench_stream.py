#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stream a recording's samples again and again at any rate, as a radio would: for measuring what a machine sustains.

``rfvit bench`` starts this and reads the samples. What to send comes as one line of JSON on standard input, as
``rfvit_rt.flowgraph.describe`` makes it. The samples lie in memory, so that nothing but the rate is measured; they are
sent at the rate under test, whatever the rate that they were taken at.

It prints "endpoint" and the bound address, begins when a line "start" comes, and ends when standard input closes. The
sink is rfvit's IQ Sink, which drops what its reader does not take in time; the reader sees what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from gnuradio import blocks, gr, rfvit

from rfvit_rt.errors import RfvitError
from rfvit_rt.wire.samples import item_size, to_complex64

# A throttle sleeps for what one call hands it: 2 ms, unless the messages that come of it would be tiny.
LONGEST_SLEEP = 0.002
SMALLEST_STEP = 4096


class Stream(gr.top_block):
    """Samples in memory, throttle, IQ Sink."""

    def __init__(self, description: dict, address: str, sample_rate: float, high_water_mark: int) -> None:
        gr.top_block.__init__(self, "Bench stream", catch_exceptions=False)
        self.source = blocks.vector_source_c(read_samples(description), True)
        self.throttle = blocks.throttle(gr.sizeof_gr_complex, sample_rate)
        step = max(SMALLEST_STEP, round(sample_rate * LONGEST_SLEEP))
        for block in (self.source, self.throttle):
            block.set_min_output_buffer(2 * step)
        self.throttle.set_max_noutput_items(step)
        self.iq_sink = rfvit.IQSink(
            "complex", address, "push", "drop", sample_rate, 2.14e9, high_water_mark=high_water_mark
        )
        self.connect(self.source, self.throttle, self.iq_sink)


def read_samples(description: dict):
    """All samples of a recording, as complex64."""
    size = item_size(description["datatype"])
    with Path(description["data_path"]).open("rb") as file:
        file.seek(description["byte_start"])
        return to_complex64(file.read(description["sample_count"] * size), description["datatype"])


def main() -> None:
    """Build, announce, wait for the word, run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="tcp://127.0.0.1:*", help="where to bind; * takes a free port")
    parser.add_argument("--sample-rate", type=float, required=True, help="samples per second")
    parser.add_argument("--high-water-mark", type=int, default=64, help="most messages that queue for the reader")
    arguments = parser.parse_args()
    description = json.loads(sys.stdin.readline())
    try:
        flowgraph = Stream(description, arguments.address, arguments.sample_rate, arguments.high_water_mark)
    except (OSError, RfvitError) as error:
        sys.exit(f"cannot build the flowgraph: {error}")
    print("endpoint", flowgraph.iq_sink.endpoint, flush=True)
    if sys.stdin.readline().strip() != "start":
        return
    flowgraph.start()
    sys.stdin.read()
    os._exit(0)  # nobody waits for what is still queued


if __name__ == "__main__":
    main()
