#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of rfvit Band Gate."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pmt
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.band_gate import MAX_OPEN
from gnuradio.rfvit.testbed import plain_tags, positions, ramp, tag, wait_until
from rfvit_rt.errors import StreamError

COUNT = 150_000  # the imaginary parts of the ramp change too


@dataclass(frozen=True)
class Burst:
    """Samples from start to end."""

    start: int
    end: int
    label: str = "LTE"
    confidence: float = 0.9

    def said(self, burst_id: int) -> dict:
        """What the tag on its first sample says."""
        return {
            "burst_id": burst_id,
            "label": self.label,
            "confidence": self.confidence,
            "sample_start": self.start,
            "sample_count": self.end - self.start,
        }


def tags_of(bursts: list[Burst]) -> list[gr.tag_t]:
    """Tags as rfvit Annotation Tagger puts them."""
    starts = [tag(burst.start, "rfvit_start", burst.said(number)) for number, burst in enumerate(bursts)]
    return starts + [tag(burst.end - 1, "rfvit_end", number) for number, burst in enumerate(bursts)]


def expected_stretches(bursts: list[Burst], before: int, after: int) -> list[tuple[int, int]]:
    """Reckon what the gate lets through: first sample, and just past the last."""
    stretches: list[list[int]] = []
    for burst in sorted(bursts, key=lambda burst: burst.start):
        shut = stretches[-1][1] if stretches else 0
        if stretches and burst.start < shut:
            stretches[-1][1] = max(shut, burst.end + after)
        else:
            stretches.append([max(burst.start - before, shut), burst.end + after])
    return [(start, min(end, COUNT)) for start, end in stretches]


class QaBandGate(gr_unittest.TestCase):
    """Ramps through real flowgraphs, in chunks of any size."""

    def stream(
        self, bursts: list[Burst], chunk: int = 8191, more: list[gr.tag_t] | None = None, **parameters: object
    ) -> tuple[np.ndarray, list[tuple[int, str, object]]]:
        """Give the positions of the samples that pass, and the tags on them."""
        source = blocks.vector_source_c(ramp(0, COUNT), tags=tags_of(bursts) + (more or []))
        self.gate = rfvit.BandGate(["LTE"], **parameters)
        sink = blocks.vector_sink_c()
        top = gr.top_block()
        top.connect(source, self.gate, sink)
        top.run(chunk)
        return positions(sink.data()), plain_tags(sink.tags())

    def test_only_the_wanted_samples_pass(self) -> None:
        bursts = [
            Burst(10, 20),
            Burst(1000, 9000),
            Burst(2000, 3000, "NR"),
            Burst(9000, 9500, "NR"),
            Burst(70_000, 70_001),
            Burst(100_000, 110_000, confidence=0.49),
            Burst(140_000, COUNT),
        ]
        passed, tags = self.stream(bursts, min_confidence=0.5)
        wanted = [bursts[number] for number in (0, 1, 4, 6)]
        np.testing.assert_array_equal(passed, np.concatenate([np.arange(burst.start, burst.end) for burst in wanted]))
        place = 0
        for number in (0, 1, 4, 6):
            burst = bursts[number]
            last = place + burst.end - burst.start - 1
            self.assertIn((place, "rfvit_start", burst.said(number)), tags)
            self.assertIn((place, "gate_start", {**burst.said(number), "offset": burst.start}), tags)
            self.assertIn((last, "rfvit_end", number), tags)
            self.assertIn((last, "gate_end", burst.end - 1), tags)
            place = last + 1
        self.assertEqual(sum(key.startswith("gate_") for _, key, _ in tags), 8)
        self.assertEqual(self.gate.bursts(), 4)

    def test_any_bursts_guards_and_chunks(self) -> None:
        for seed in range(25):
            numbers = random.Random(seed)
            spots = [(numbers.randrange(COUNT), numbers.choice((1, 2, 100, 5000))) for _ in range(30)]
            spots += [(numbers.randrange(500), numbers.choice((1, 10, 100))) for _ in range(30)]
            bursts = [Burst(start, min(COUNT, start + length)) for start, length in spots]
            before, after = (numbers.choice((0, 0, 1, 7, 3000, 20_000)) for _ in range(2))
            chunk = numbers.choice((1, 3, 100, 8191)) if seed < 15 else 8191
            with self.subTest(seed=seed, before=before, after=after, chunk=chunk):
                passed, tags = self.stream(bursts, chunk, guard_before=before, guard_after=after)
                stretches = expected_stretches(bursts, before, after)
                np.testing.assert_array_equal(
                    passed, np.concatenate([np.arange(start, end) for start, end in stretches])
                )
                starts = [(place, value["offset"]) for place, key, value in tags if key == "gate_start"]
                ends = [(place, value) for place, key, value in tags if key == "gate_end"]
                edges = np.cumsum([0, *(end - start for start, end in stretches)])
                self.assertEqual(starts, [(edge, start) for edge, (start, _) in zip(edges, stretches, strict=False)])
                self.assertEqual(
                    [end for end in ends if end[1] != COUNT - 1],
                    [(edge - 1, end - 1) for edge, (_, end) in zip(edges[1:], stretches, strict=True) if end != COUNT],
                )

    def test_tags_of_samples_that_pass_pass_with_them(self) -> None:
        more = [tag(place, "rx_freq", float(place)) for place in range(0, 1000, 5)]
        passed, tags = self.stream([Burst(200, 300)], 37, more, guard_before=50, guard_after=50)
        self.assertEqual((passed[0], passed[-1]), (150, 349))
        found = [(place, value) for place, key, value in tags if key == "rx_freq"]
        self.assertEqual(found, [(place - 150, float(place)) for place in range(150, 350, 5)])

    def test_other_labels_are_wanted_from_now_on(self) -> None:
        gate = rfvit.BandGate(["LTE"])
        gate.set_labels(["NR"])
        gate.set_min_confidence(0.5)
        source = blocks.vector_source_c(
            ramp(0, COUNT), tags=tags_of([Burst(5, 50), Burst(60, 70, "NR", 0.4), Burst(80, 90, "NR")])
        )
        sink = blocks.vector_sink_c()
        top = gr.top_block()
        top.connect(source, gate, sink)
        top.run()
        self.assertEqual(positions(sink.data()).tolist(), list(range(80, 90)))
        with self.assertRaisesRegex(StreamError, "min_confidence is 2"):
            gate.set_min_confidence(2)
        with self.assertRaisesRegex(StreamError, "labels is"):
            gate.set_labels([])

    def test_nothing_wanted(self) -> None:
        passed, tags = self.stream([Burst(5, 500, "NR")], guard_before=10)
        self.assertEqual((len(passed), tags), (0, []))

    def test_parameters_are_checked(self) -> None:
        for name, value in [
            ("labels", []),
            ("labels", [""]),
            ("labels", [1]),
            ("output", "file"),
            ("min_confidence", 1.1),
            ("guard_before", -1),
            ("guard_after", 0.5),
            ("guard_after", 2**40),
        ]:
            with self.subTest(name=name, value=value), self.assertRaisesRegex(StreamError, f"^{name} is .*; expected"):
                rfvit.BandGate(**{"labels": ["LTE"], name: value})
        with self.assertRaisesRegex(StreamError, "max_samples is 0"):
            rfvit.BandGate(["LTE"], "pdu", max_samples=0)


class QaBandGatePDUs(gr_unittest.TestCase):
    """The same, as messages."""

    def pdus(self, bursts: list[Burst], count: int, chunk: int = 8191, **parameters: object) -> list[tuple[dict, list]]:
        """Give metadata and positions of the samples of all PDUs."""
        # The stream goes on after the last burst, so that the gate lives while its messages are delivered.
        source = blocks.vector_source_c(ramp(0, COUNT), tags=tags_of(bursts))
        nothing = blocks.null_source(gr.sizeof_gr_complex)
        joined = blocks.stream_mux(gr.sizeof_gr_complex, (COUNT, 1 << 30))
        self.gate = rfvit.BandGate("LTE", "pdu", **parameters)
        debug = blocks.message_debug()
        top = gr.top_block()
        top.connect(source, (joined, 0))
        top.connect(nothing, (joined, 1))
        top.connect(joined, self.gate)
        top.msg_connect(self.gate, "pdus", debug, "store")
        top.start(chunk)
        wait_until(lambda: debug.num_messages() >= count, f"{count} PDUs")
        top.stop()
        top.wait()
        self.assertEqual(debug.num_messages(), count)
        pairs = [debug.get_message(number) for number in range(count)]
        for pair in pairs:
            self.assertTrue(pmt.is_c32vector(pmt.cdr(pair)))
        return [(pmt.to_python(pmt.car(pair)), positions(pmt.to_python(pmt.cdr(pair))).tolist()) for pair in pairs]

    def test_one_for_every_burst(self) -> None:
        bursts = [Burst(1000, 9000), Burst(2000, 3000), Burst(2500, 60_000, "NR"), Burst(70_000, 70_001)]
        for chunk in (100, 8191):
            pdus = self.pdus(bursts, 3, chunk)
            for (said, samples), number in zip(pdus, (1, 0, 3), strict=True):  # in the order of their ends
                burst = bursts[number]
                self.assertEqual(said, {**burst.said(number), "offset": burst.start, "part": 0, "last": True})
                self.assertEqual(samples, list(range(burst.start, burst.end)))
            self.assertEqual((self.gate.bursts(), self.gate.split(), self.gate.skipped()), (3, 0, 0))

    def test_guards(self) -> None:
        bursts = [Burst(30, 50), Burst(60_000, 60_010), Burst(60_005, 60_020)]
        pdus = self.pdus(bursts, 3, 1000, guard_before=5000, guard_after=300)
        self.assertEqual(
            [(samples[0], samples[-1]) for _, samples in pdus], [(0, 349), (55_000, 60_309), (55_005, 60_319)]
        )
        for _, samples in pdus:
            self.assertEqual(samples, list(range(samples[0], samples[-1] + 1)))

    def test_long_bursts_come_in_parts(self) -> None:
        bursts = [Burst(500, 1500), Burst(20_000, 45_500), Burst(50_000, 52_000)]
        pdus = self.pdus(bursts, 8, 777, max_samples=5000)
        parts = [(said["burst_id"], said["part"], said["last"], said["offset"], len(samples)) for said, samples in pdus]
        self.assertEqual(
            parts,
            [
                (0, 0, True, 500, 1000),
                *((1, part, False, 20_000 + 5000 * part, 5000) for part in range(5)),
                (1, 5, True, 45_000, 500),
                (2, 0, True, 50_000, 2000),
            ],
        )
        self.assertEqual(self.gate.split(), 1)

    def test_a_burst_that_just_fits_comes_in_one(self) -> None:
        pdus = self.pdus([Burst(500, 1500)], 1, max_samples=1000)
        self.assertEqual((pdus[0][0]["last"], len(pdus[0][1])), (True, 1000))
        self.assertEqual(self.gate.split(), 0)

    def test_too_many_at_once_are_counted(self) -> None:
        bursts = [Burst(1000 + number, 20_000) for number in range(MAX_OPEN + 3)] + [Burst(20_000, 20_010)]
        self.pdus(bursts, MAX_OPEN + 1)
        self.assertEqual((self.gate.bursts(), self.gate.skipped()), (MAX_OPEN + 1, 3))


if __name__ == "__main__":
    gr_unittest.main()
