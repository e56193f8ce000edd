#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit CSI Sink, read with pyzmq."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import numpy as np
import pmt
import zmq
from gnuradio import blocks, gr, gr_unittest, rfvit
from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.csi import decode_csi

PATIENCE = 20  # seconds until a test gives up what it waits for
LONGEST_STOP = 2.0  # seconds, promised to users
SUBCARRIERS = [-2, -1, 1, 2]


class Commander(gr.basic_block):
    """Sends messages."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, "commander", None, None)
        self.message_port_register_out(pmt.intern("pdus"))

    def send(self, message: pmt.pmt_base) -> None:
        self.message_port_pub(pmt.intern("pdus"), message)


def vectors(count: int) -> np.ndarray:
    """(frame, antenna, subcarrier) values that say where they belong."""
    return (np.arange(count * 8) * (1 - 2j)).astype(np.complex64).reshape(count, 2, 4)


def pdu(values: np.ndarray, **metadata: object) -> pmt.pmt_base:
    return pmt.cons(pmt.to_pmt(metadata), pmt.init_c32vector(values.size, values.ravel().tolist()))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class QaCSISink(gr_unittest.TestCase):
    def setUp(self) -> None:
        self.context = zmq.Context()
        self.folder = tempfile.TemporaryDirectory()
        self.flowgraph = gr.top_block()
        self.running = False

    def tearDown(self) -> None:
        self.stop()
        self.context.destroy(linger=0)
        self.folder.cleanup()

    def build(self, kind: str, socket: str = "push", source: gr.basic_block | None = None, **options: object) -> None:
        endpoint = f"ipc://{self.folder.name}/csi"
        self.sink = rfvit.CSISink(kind, 2, SUBCARRIERS, "test", endpoint=endpoint, socket=socket, **options)
        self.source = source or Commander()
        if kind == "pdu":
            self.flowgraph.msg_connect(self.source, "pdus", self.sink, "pdus")
        else:
            self.flowgraph.connect(self.source, self.sink)
        self.flowgraph.start()
        self.running = True

    def stop(self) -> float:
        before = time.monotonic()
        if self.running:
            self.flowgraph.stop()
            self.flowgraph.wait()
            self.running = False
        return time.monotonic() - before

    def reader(self, kind: int = zmq.PULL, **options: int) -> zmq.Socket:
        socket = self.context.socket(kind)
        for name, value in {"rcvtimeo": PATIENCE * 1000, **options}.items():
            setattr(socket, name, value)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.sink.endpoint)
        return socket

    def read(self, socket: zmq.Socket, count: int) -> list[CSIFrame]:
        return [decode_csi(socket.recv()) for _ in range(count)]

    def stream(self, count: int, tags: tuple = ()) -> gr.basic_block:
        return blocks.vector_source_c(vectors(count).ravel(), False, 8, list(tags))

    def test_a_stream_arrives_complete(self) -> None:
        self.build("stream", source=self.stream(5000), frame_rate=200.0)
        frames = self.read(self.reader(), 5000)
        self.assertEqual([frame.frame_index for frame in frames], list(range(5000)))
        np.testing.assert_array_equal([frame.csi for frame in frames], vectors(5000))
        np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(5000) / 200)
        self.assertEqual(frames[0].subcarriers.tolist(), SUBCARRIERS)
        self.assertEqual(frames[0].device, "test")
        self.assertEqual((frames[0].rssi, frames[0].agc), (None, None))
        self.assertEqual((self.sink.sent(), self.sink.dropped()), (5000, 0))

    def test_a_stream_s_time_tags_are_followed(self) -> None:
        tag = gr.tag_t()
        tag.offset, tag.key = 2, pmt.intern("rx_time")
        tag.value = pmt.make_tuple(pmt.from_uint64(1000), pmt.from_double(0.5))
        self.build("stream", source=self.stream(4, (tag,)), frame_rate=10.0)
        frames = self.read(self.reader(), 4)
        np.testing.assert_allclose([frame.timestamp for frame in frames], [0, 0.1, 1000.5, 1000.6])

    def test_pdus_say_what_they_know(self) -> None:
        self.build("pdu")
        reader = self.reader()
        before = time.time()
        wait_until(lambda: bool(self.sink.sent()) or self.source.send(pdu(vectors(1))))  # the reader has connected
        (first,) = self.read(reader, 1)
        while reader.poll(50):
            reader.recv()
        known = {"timestamp": 12.5, "frame_index": 700, "rssi": -40.5, "agc": 3}
        self.source.send(pdu(vectors(2)[1], **known))
        self.source.send(pdu(vectors(1), rssi=np.array([-40, -50], np.float32)))
        told, next_one = self.read(reader, 2)
        np.testing.assert_array_equal(first.csi, vectors(1)[0])
        self.assertTrue(before <= first.timestamp <= time.time())
        np.testing.assert_array_equal(told.csi, vectors(2)[1])
        self.assertEqual((told.timestamp, told.frame_index, told.rssi.tolist(), told.agc), (12.5, 700, [-40.5], 3.0))
        self.assertEqual((next_one.frame_index, next_one.rssi.tolist()), (701, [-40.0, -50.0]))

    def test_senseless_pdus_are_counted(self) -> None:
        self.build("pdu")
        nonsense = [
            pmt.PMT_NIL,
            pmt.cons(pmt.PMT_NIL, pmt.init_u8vector(8, [0] * 8)),
            pdu(vectors(2)),
            pdu(vectors(1) * np.nan),
            pdu(vectors(1), timestamp="now"),
            pdu(vectors(1), frame_index=-1),
            pdu(vectors(1), frame_index=float("nan")),
            pdu(vectors(1), frame_index=float("inf")),
            pdu(vectors(1), rssi="strong"),
            pdu(vectors(1), rssi=np.zeros(5, np.float32)),
            pdu(vectors(1), timestamp=float("nan")),
        ]
        for message in nonsense:
            self.source.send(message)
        wait_until(lambda: self.sink.refused() == len(nonsense))
        self.assertEqual((self.sink.sent(), self.sink.dropped()), (0, 0))

    def test_what_nobody_reads_is_counted_and_seen(self) -> None:
        throttle = blocks.throttle(gr.sizeof_gr_complex * 8, 2000)
        repeated = blocks.vector_source_c(vectors(1).ravel(), True, 8)
        self.flowgraph.connect(repeated, throttle)
        self.build("stream", "pub", throttle)
        wait_until(lambda: self.sink.dropped() > 10)
        (first,) = self.read(self.reader(zmq.SUB), 1)
        self.assertEqual(first.frame_index, self.sink.dropped())

    def test_stops_within_two_seconds_whoever_reads(self) -> None:
        for socket, kind in (("push", zmq.PULL), ("pub", zmq.SUB)):
            for stuck in (False, True):
                self.flowgraph = gr.top_block()
                self.build("stream", socket, blocks.null_source(gr.sizeof_gr_complex * 8))
                reader = self.reader(kind, rcvhwm=1) if stuck else None
                if reader is not None:
                    reader.poll(PATIENCE * 1000)
                self.assertLess(self.stop(), LONGEST_STOP)
                if reader is not None:
                    reader.close(linger=0)

    def test_senseless_parameters_are_refused(self) -> None:
        for options, reason in (
            ({"input_kind": "file"}, "input is 'file', expected one of stream, pdu"),
            ({"antennas": 0}, "0 antennas, 56 subcarriers, 'GNU Radio' cannot be"),
            ({"antennas": "two"}, "two antennas"),
            ({"subcarriers": [1, 1]}, "do not ascend"),
            ({"subcarriers": []}, "0 subcarriers"),
            ({"device": ""}, "cannot be"),
            ({"frame_rate": 0}, "the frame rate is 0"),
            ({"socket": "rep"}, "socket is 'rep'"),
            ({"endpoint": "nonsense"}, "cannot listen at nonsense"),
        ):
            with self.subTest(options=options), self.assertRaisesRegex(StreamError, reason):
                rfvit.CSISink(**{"endpoint": "tcp://127.0.0.1:*", **options})


if __name__ == "__main__":
    gr_unittest.run(QaCSISink)
