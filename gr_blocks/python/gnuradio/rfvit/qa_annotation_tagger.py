#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of rfvit Annotation Tagger."""

from __future__ import annotations

import time

import numpy as np
import pmt
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.annotation_tagger import Scale
from gnuradio.rfvit.testbed import Publisher, plain_tags, ramp, tag, wait_until
from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.errors import StreamError

RATE = 1e6


def annotation(start: int, count: int, label: str = "LTE") -> Annotation:
    return Annotation(label, start, count, 806e6, 816e6, 0.97, RATE, 811e6)


class QaAnnotationTagger(gr_unittest.TestCase):
    """Ramps in real time, and results for them."""

    def setUp(self) -> None:
        self.publisher = Publisher()
        self.top = gr.top_block()

    def tearDown(self) -> None:
        self.top.stop()
        self.top.wait()
        self.publisher.close()
        self.top = None

    def run_stream(self, count: int, tags: list[gr.tag_t] | None = None, **parameters: float) -> None:
        """Start a ramp through the tagger; return once it listens."""
        self.source = blocks.vector_source_c(ramp(0, count), tags=tags or [])
        self.throttle = blocks.throttle(gr.sizeof_gr_complex, RATE)
        self.tagger = rfvit.AnnotationTagger(RATE, endpoint=self.publisher.endpoint, **parameters)
        self.sink = blocks.vector_sink_c(reserve_items=count)
        self.missed = blocks.message_debug()
        self.top.connect(self.source, self.throttle, self.tagger, self.sink)
        self.top.msg_connect(self.tagger, "missed", self.missed, "store")
        self.top.start()
        self.publisher.wait_for_listeners()

    def tags(self) -> list[tuple[int, str, object]]:
        return plain_tags(self.sink.tags())

    def test_tags_lie_on_the_first_and_the_last_sample(self) -> None:
        count = 400_000
        boxes = [annotation(300_000, 1), annotation(100_001, 199_998), annotation(150_000, 250_000, "NR")]
        self.run_stream(count, delay=0.7)
        self.publisher.publish(*boxes, Emission("NR", 0, 1, 0, 1, 1, 0.5, 0.5))
        self.top.wait()
        np.testing.assert_array_equal(self.sink.data(), ramp(0, count))
        found = self.tags()
        self.assertEqual(
            [(offset, key) for offset, key, _ in found],
            [
                (100_001, "rfvit_start"),
                (150_000, "rfvit_start"),
                (299_998, "rfvit_end"),
                (300_000, "rfvit_end"),
                (300_000, "rfvit_start"),
                (399_999, "rfvit_end"),
            ],
        )
        starts = {value["burst_id"]: value for _, key, value in found if key == "rfvit_start"}
        ends = {value: offset for offset, key, value in found if key == "rfvit_end"}
        for number, box in enumerate(boxes):
            self.assertEqual(starts[number], {"burst_id": number, **vars(box)})
            self.assertEqual(ends[number], box.sample_end - 1)
        self.assertEqual(self.tagger.tagged(), 3)
        self.assertEqual((self.tagger.late(), self.tagger.ahead(), self.tagger.refused()), (0, 0, 0))
        self.assertEqual(self.missed.num_messages(), 0)

    def test_tags_of_the_stream_stay_on_their_samples(self) -> None:
        places = (0, 1, 65_535, 65_536, 199_999)
        self.run_stream(200_000, [tag(place, "rx_freq", float(place)) for place in places], delay=0.3)
        self.top.wait()
        self.assertEqual(self.tags(), [(place, "rx_freq", float(place)) for place in places])

    def test_no_sample_leaves_before_the_delay_is_over(self) -> None:
        started = time.monotonic()
        self.run_stream(20_000, delay=0.5)
        wait_until(lambda: self.sink.data(), "the first samples")
        self.assertGreaterEqual(time.monotonic() - started, 0.5)

    def test_late_results_are_told_and_put_nowhere(self) -> None:
        self.run_stream(500_000, delay=0.02)
        wait_until(lambda: len(self.sink.data()) > 50_000, "samples")
        late = annotation(49_999, 300_000)
        self.publisher.publish(late)
        wait_until(self.missed.num_messages, "the message")
        self.top.wait()
        self.assertEqual(self.tags(), [])
        self.assertEqual((self.tagger.late(), self.tagger.tagged()), (1, 0))
        told = pmt.to_python(self.missed.get_message(0))
        self.assertEqual(told.pop("reason"), "late")
        self.assertGreater(told.pop("by"), 0)
        self.assertEqual(told, vars(late))
        self.assertGreater(self.tagger.lag(), 0)
        np.testing.assert_array_equal(self.sink.data(), ramp(0, 500_000))

    def test_results_of_another_run_are_told_and_put_nowhere(self) -> None:
        self.run_stream(300_000, delay=0.5)
        self.publisher.publish(annotation(0, 3_000_000), annotation(2**62, 5), annotation(2**63 - 1, 2**63 - 1))
        self.publisher.publish_bytes(b'{"type":"annotation","version":1}')
        self.publisher.publish(annotation(200_000, 10))
        self.top.wait()
        self.assertEqual([offset for offset, *_ in self.tags()], [200_000, 200_009])
        self.assertEqual((self.tagger.ahead(), self.tagger.late(), self.tagger.refused()), (1, 0, 3))
        self.assertEqual(pmt.to_python(self.missed.get_message(0))["reason"], "ahead")

    def test_another_rate_and_another_start(self) -> None:
        self.run_stream(200_000, delay=0.5, interpolation=3, decimation=10, shift=50_000)
        self.publisher.publish(annotation(33_334, 100_000))
        self.top.wait()
        self.assertEqual([offset for offset, *_ in self.tags()], [60_000, 90_000])
        value = self.tags()[0][2]
        self.assertEqual((value["sample_start"], value["sample_count"], value["sample_rate"]), (60_000, 30_001, 0.3e6))

    def test_stop_does_not_wait_for_the_delay(self) -> None:
        self.run_stream(5_000_000, delay=60.0)
        before = time.monotonic()
        self.top.stop()
        self.top.wait()
        self.assertLess(time.monotonic() - before, 2)

    def test_it_starts_again_from_nothing(self) -> None:
        self.run_stream(100_000, delay=0.3)
        self.publisher.publish(annotation(70_000, 10))
        wait_until(self.tagger.tagged, "the box")
        self.top.stop()
        self.top.wait()
        self.sink.reset()
        self.source.rewind()
        self.top.start()
        self.top.wait()
        self.assertEqual(self.tags(), [])
        self.assertEqual(self.tagger.tagged(), 0)

    def test_a_full_ring_holds_the_source_back_and_loses_nothing(self) -> None:
        count = 3_000_000
        source = blocks.vector_source_c(ramp(0, count))
        tagger = rfvit.AnnotationTagger(RATE, delay=0.4, endpoint=self.publisher.endpoint)
        sink = blocks.vector_sink_c(reserve_items=count)
        self.top.connect(source, tagger, sink)  # no throttle
        self.top.run()
        np.testing.assert_array_equal(sink.data(), ramp(0, count))

    def test_parameters_are_checked(self) -> None:
        for name, value in [
            ("sample_rate", 0.0),
            ("sample_rate", float("nan")),
            ("delay", -1.0),
            ("delay", 1e6),
            ("decimation", 0),
            ("interpolation", 1.5),
            ("shift", 0.5),
        ]:
            with self.subTest(name=name, value=value), self.assertRaisesRegex(StreamError, f"^{name} is .*; expected"):
                rfvit.AnnotationTagger(**{"sample_rate": RATE, name: value})
        with self.assertRaisesRegex(StreamError, "--publish"):
            rfvit.AnnotationTagger(RATE, endpoint="nowhere")


class QaScale(gr_unittest.TestCase):
    """Positions are whole numbers, also beyond what a float holds."""

    def test_far_positions_are_exact(self) -> None:
        far = 3 * 2**59 + 1
        scaled = Scale(interpolation=1, decimation=3).apply(annotation(far, 3))
        self.assertEqual((scaled.sample_start, scaled.sample_end), (2**59, 2**59 + 2))


if __name__ == "__main__":
    gr_unittest.main()
