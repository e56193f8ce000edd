#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of rfvit Annotation Source."""

from __future__ import annotations

import threading
import time

import numpy as np
import pmt
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.testbed import Publisher, wait_until
from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.results import MAX_BYTES, Status
from rfvit_rt.wire.summary import WindowSummary

ANNOTATION = Annotation("LTE", 2**40, 5678, 806e6, 816e6, 0.97, 61.44e6, 811e6)
EMISSION = Emission("NR", -3.6e6, 3.6e6, 100, 2**40, 12, 0.125, 0.5)
STATUS = Status(10**12, 23.04e6, None, 23.03e6, 1, 2, 3, 0.061)
WINDOW = WindowSummary(
    7, 30000, 1e6, None, ("background", "LTE", "NR"), (0.5, 0.25, 0.25), np.arange(6, dtype=np.uint8).reshape(2, 3) % 3
)
PORTS = ("annotations", "windows", "emissions", "status")


class QaAnnotationSource(gr_unittest.TestCase):
    """A real publisher, a real flowgraph."""

    def setUp(self) -> None:
        self.publisher = Publisher()
        self.source = rfvit.AnnotationSource(self.publisher.endpoint)
        self.top = gr.top_block()
        self.debug = {port: blocks.message_debug() for port in PORTS}
        for port, debug in self.debug.items():
            self.top.msg_connect(self.source, port, debug, "store")
        self.top.start()
        self.publisher.wait_for_listeners(4)

    def tearDown(self) -> None:
        self.top.stop()
        self.top.wait()
        self.publisher.close()
        self.top = self.source = None

    def message(self, port: str, number: int = 0) -> dict:
        wait_until(lambda: self.debug[port].num_messages() > number, f"message {number} of {port}")
        return pmt.to_python(self.debug[port].get_message(number))

    def test_every_kind_of_result_has_its_port(self) -> None:
        self.publisher.publish(ANNOTATION, EMISSION, STATUS, WINDOW)
        self.assertEqual(self.message("annotations"), vars(ANNOTATION))
        self.assertEqual(self.message("emissions"), vars(EMISSION))
        self.assertEqual(self.message("status"), vars(STATUS))
        window = self.message("windows")
        np.testing.assert_array_equal(window.pop("class_map"), WINDOW.class_map.ravel())
        np.testing.assert_array_equal(window.pop("shares"), WINDOW.shares)
        self.assertEqual((window.pop("steps"), window.pop("bins")), (2, 3))
        self.assertEqual(list(window.pop("labels")), list(WINDOW.labels))
        self.assertEqual(window, {"sample_start": 7, "sample_count": 30000, "sample_rate": 1e6, "frequency": None})
        for debug in self.debug.values():
            self.assertEqual(debug.num_messages(), 1)

    def test_the_label_is_a_symbol_and_the_position_a_long(self) -> None:
        self.publisher.publish(ANNOTATION)
        self.message("annotations")
        message = self.debug["annotations"].get_message(0)
        self.assertTrue(pmt.is_symbol(pmt.dict_ref(message, pmt.intern("label"), pmt.PMT_NIL)))
        self.assertEqual(pmt.to_long(pmt.dict_ref(message, pmt.intern("sample_start"), pmt.PMT_NIL)), 2**40)

    def test_hostile_bytes_are_counted_and_dropped(self) -> None:
        hostile = [
            b'{"type":"annotation",',
            b'{"type":"annotation","version":2}',
            b'{"type":"annotation",' + b"9" * (MAX_BYTES + 1),
            b'{"type":"window","version":1,"core:sample_start":-1}',
            b'{"type":"annotation",' + b"[" * MAX_BYTES,
        ]
        for data in hostile:
            self.publisher.publish_bytes(data)
        self.publisher.publish_bytes(b'{"type":"annotation",', b"a second frame")
        self.publisher.publish(ANNOTATION)
        self.assertEqual(self.message("annotations"), vars(ANNOTATION))
        wait_until(lambda: self.source.refused(), "the count")
        self.assertEqual(self.source.refused(), len(hostile) + 1)
        self.assertEqual(self.debug["windows"].num_messages(), 0)

    def test_what_is_not_asked_for_does_not_come(self) -> None:
        self.publisher.publish_bytes(b'{"type":"of a later release","version":1}')
        self.publisher.publish(ANNOTATION)
        self.message("annotations")
        self.assertEqual(self.source.refused(), 0)

    def test_an_overlong_message_ends_the_connection_not_the_block(self) -> None:
        self.publisher.publish_bytes(b'{"type":"annotation",' + b" " * (1 << 20))
        self.publisher.wait_for_listeners(4)  # it comes back
        self.publisher.publish(ANNOTATION)
        self.assertEqual(self.message("annotations"), vars(ANNOTATION))

    def test_what_was_sent_just_before_the_end_arrives(self) -> None:
        for _ in range(300):
            self.publisher.publish(ANNOTATION)
        self.publisher.publish(EMISSION)
        self.publisher.close()
        self.assertEqual(self.message("emissions"), vars(EMISSION))
        self.assertEqual(self.debug["annotations"].num_messages(), 300)

    def test_it_outlives_rfvit(self) -> None:
        self.publisher.close()
        self.publisher = Publisher(self.publisher.endpoint)
        self.publisher.wait_for_listeners(4)
        self.publisher.publish(ANNOTATION)
        self.assertEqual(self.message("annotations"), vars(ANNOTATION))

    def test_it_ends_promptly_and_starts_again(self) -> None:
        before = time.monotonic()
        self.top.stop()
        self.top.wait()
        self.assertLess(time.monotonic() - before, 2)
        self.assertFalse([thread for thread in threading.enumerate() if thread.name == "rfvit-annotations"])
        self.top.start()
        self.publisher.wait_for_listeners(4)
        self.publisher.publish(ANNOTATION)
        self.assertEqual(self.message("annotations"), vars(ANNOTATION))

    def test_an_endpoint_that_is_none(self) -> None:
        with self.assertRaisesRegex(StreamError, "--publish"):
            rfvit.AnnotationSource("carrier-pigeon://coop")


if __name__ == "__main__":
    gr_unittest.run(QaAnnotationSource)
