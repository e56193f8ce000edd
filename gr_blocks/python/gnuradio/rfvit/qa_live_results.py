#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way round: samples → rfvit → results → tags → gated samples, with the real rfvit as a child process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pmt
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.testbed import plain_tags, wait_until

RATE = 20e6
FREQUENCY = 2.14e9
SLOWNESS = 4  # so that this test passes on a busy machine
BURSTS = 2
GAP = 1_000_000  # samples of noise after each burst
DELAY = 10.0  # s: a burst, and rfvit's time on a busy machine
PATIENCE = 60.0

REPOSITORY = Path(__file__).resolve().parents[4]
RECORDING = REPOSITORY / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-data"
COMMAND = os.environ.get("RFVIT_COMMAND") or str(REPOSITORY / ".venv" / "bin" / "rfvit")


def free_endpoint() -> str:
    """Give an address with a port that nobody has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def simulated_samples() -> np.ndarray:
    """Bursts of the example recording, which is simulated, with noise between them."""
    burst = np.fromfile(RECORDING, np.int8).astype(np.float32).view(np.complex64) / 128
    noise = np.random.default_rng(1).normal(size=(GAP, 2)).astype(np.float32).view(np.complex64)[:, 0] / 128
    return np.tile(np.concatenate([burst, noise]), BURSTS)


@unittest.skipUnless(RECORDING.is_file(), f"there is no {RECORDING.name} here; run this in a checkout")
@unittest.skipUnless(Path(COMMAND).is_file(), "no rfvit here; 'make test' installs it, or name RFVIT_COMMAND")
class QaLiveResults(gr_unittest.TestCase):
    """IQ Sink, rfvit, Annotation Source, Annotation Tagger, Band Gate."""

    def test_gated_samples_are_those_of_the_annotations(self) -> None:
        samples = simulated_samples()
        publish = free_endpoint()
        top = gr.top_block()
        # The stream goes on after them: a sink whose stream ends waits for its reader, but not for ever.
        source, silence = blocks.vector_source_c(samples), blocks.null_source(gr.sizeof_gr_complex)
        stream = blocks.stream_mux(gr.sizeof_gr_complex, (len(samples), 1 << 30))
        throttle = blocks.throttle(gr.sizeof_gr_complex, RATE / SLOWNESS)
        sink = rfvit.IQSink("complex", "tcp://127.0.0.1:*", "push", "block", RATE, FREQUENCY)
        tagger = rfvit.AnnotationTagger(RATE / SLOWNESS, DELAY, publish)
        gate = rfvit.BandGate(["LTE"])
        gated = blocks.vector_sink_c(reserve_items=len(samples))
        results = rfvit.AnnotationSource(publish)
        debug = {port: blocks.message_debug() for port in ("annotations", "windows", "emissions", "status")}
        top.connect(source, stream, throttle, sink)
        top.connect(silence, (stream, 1))
        top.connect(throttle, tagger, gate, gated)
        for port, store in debug.items():
            top.msg_connect(results, port, store, "store")
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder) / "results.jsonl"
            url = sink.endpoint.replace("tcp://", "zmq+pull://")
            duration = str(len(samples) / RATE)
            command = [COMMAND, "segment", url, "--tags", "--publish", publish, "--jsonl", str(lines)]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            child = subprocess.Popen(
                [*command, "--sample-rate", str(RATE), "--duration", duration],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                top.start()
                said, _ = child.communicate(timeout=PATIENCE)
                self.assertEqual(child.returncode, 0, said)
                found = [json.loads(line) for line in lines.read_text().splitlines()]
                wait_until(debug["emissions"].num_messages, "emissions")
                wait_until(lambda: tagger.tagged() + tagger.late() >= self.count(found, "annotation"), "annotations")
                self.check_messages(found, debug, len(samples))
                wait_until(lambda: gate._gate.nitems_read(0) >= len(samples), "the last samples")
                wait_until(lambda: gated.nitems_read(0) == gate._gate.nitems_written(0), "those that pass")
            finally:
                child.kill()
                child.wait()
                top.stop()
                top.wait()
        lag = tagger.lag()
        print(f"\nthe slowest result came {lag:.2f} s after its box's first sample, at 1/{SLOWNESS} of real time")
        self.assertEqual((tagger.late(), tagger.ahead(), tagger.refused(), results.refused()), (0, 0, 0, 0))
        self.check_gated(found, samples, np.array(gated.data(), np.complex64), plain_tags(gated.tags()))

    @staticmethod
    def count(found: list[dict], kind: str) -> int:
        return sum(result["type"] == kind for result in found)

    def check_messages(self, found: list[dict], debug: dict[str, blocks.message_debug], count: int) -> None:
        """Annotation Source tells what rfvit wrote to its file, and of every window, one after the other."""
        messages = {
            port: [pmt.to_python(store.get_message(number)) for number in range(store.num_messages())]
            for port, store in debug.items()
        }
        self.assertEqual(
            sorted((said["label"], said["sample_start"], said["sample_count"]) for said in messages["annotations"]),
            sorted(
                (line["core:label"], line["core:sample_start"], line["core:sample_count"])
                for line in found
                if line["type"] == "annotation"
            ),
        )
        self.assertEqual(len(messages["emissions"]), self.count(found, "emission"))
        self.assertEqual(len(messages["status"]), self.count(found, "status"))
        self.assertEqual(self.count(found, "window"), 0)  # they are for who follows live
        windows = messages["windows"]
        ends = [window["sample_start"] + window["sample_count"] for window in windows]
        self.assertEqual([window["sample_start"] for window in windows[1:]], ends[:-1])
        self.assertLess(abs(ends[-1] - count), 3125)  # all but the rest of a time step
        self.assertGreater(len(windows), 10)
        lte = [np.array(window["shares"])[list(window["labels"]).index("LTE")] for window in windows]
        self.assertGreater(max(lte), 0.1)

    def check_gated(self, found: list[dict], samples: np.ndarray, gated: np.ndarray, tags: list[tuple]) -> None:
        """The gate let through the annotations' samples, and nothing else."""
        wanted = np.zeros(len(samples), bool)
        boxes = [line for line in found if line["type"] == "annotation" and line["core:label"] == "LTE"]
        for box in boxes:
            wanted[box["core:sample_start"] :][: box["core:sample_count"]] = True
        self.assertGreaterEqual(len(boxes), BURSTS)
        self.assertFalse(wanted.all())
        np.testing.assert_array_equal(gated, samples[wanted])
        positions = np.flatnonzero(wanted)
        opened = [(place, said["offset"]) for place, key, said in tags if key == "gate_start"]
        self.assertGreaterEqual(len(opened), BURSTS)
        self.assertEqual(opened, [(place, positions[place]) for place, _ in opened])
        starts = sorted(box["core:sample_start"] for box in boxes)
        told = sorted(positions[place] for place, key, said in tags if key == "rfvit_start" and said["label"] == "LTE")
        self.assertEqual(told, starts)


if __name__ == "__main__":
    gr_unittest.main()
