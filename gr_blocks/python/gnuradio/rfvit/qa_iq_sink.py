#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit IQ Sink, read with pyzmq; what rfvit makes of it is tested in tests/gr_blocks."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np
import pmt
import zmq
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.iq_sink import LARGEST_MESSAGE
from gnuradio.rfvit.sending_socket import GRACE
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, decode_stream_message

PATIENCE = 20  # seconds until a test gives up what it waits for
LONGEST_STOP = 2.0  # seconds, promised to users
RATE = 1e6
COMBINATIONS = [("push", "block"), ("push", "drop"), ("pub", "block"), ("pub", "drop")]


def ramp(start: int, count: int) -> np.ndarray:
    """Samples that say their position."""
    position = np.arange(start, start + count)
    return ((position & 0xFFFF) + 1j * (position >> 16)).astype(np.complex64)


def tag(offset: int, key: str, value: object) -> gr.tag_t:
    made = gr.tag_t()
    made.offset, made.key, made.srcid = offset, pmt.intern(key), pmt.intern("radio")
    made.value = value if isinstance(value, pmt.pmt_base) else pmt.from_double(value)
    return made


def at(seconds: int, fraction: float) -> pmt.pmt_base:
    return pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(fraction))


class Steps(gr.sync_block):
    """A ramp that goes on only as far as it is told to."""

    def __init__(self) -> None:
        gr.sync_block.__init__(self, "steps", None, [np.complex64])
        self.end = 0
        self.tags: dict[int, list[tuple[str, pmt.pmt_base]]] = {}

    def work(self, input_items, output_items):
        written = self.nitems_written(0)
        give_up = time.monotonic() + 0.1
        while self.end <= written:  # GNU Radio asks a source that has nothing only four times a second
            if time.monotonic() > give_up:
                return 0
            time.sleep(0.001)
        count = min(self.end - written, len(output_items[0]))
        output_items[0][:count] = ramp(written, count)
        for offset in range(written, written + count) if self.tags else ():
            for key, value in self.tags.get(offset, ()):
                self.add_item_tag(0, offset, pmt.intern(key), value)
        return count


class Commander(gr.basic_block):
    """Sends messages."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, "commander", None, None)
        self.message_port_register_out(pmt.intern("command"))

    def send(self, message: pmt.pmt_base) -> None:
        self.message_port_pub(pmt.intern("command"), message)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class QaIQSink(gr_unittest.TestCase):
    def setUp(self) -> None:
        self.context = zmq.Context()
        self.readers: list[zmq.Socket] = []
        self.folder = tempfile.TemporaryDirectory()
        self.address = f"ipc://{self.folder.name}/iq"
        self.flowgraph = gr.top_block()
        self.running = False

    def tearDown(self) -> None:
        if self.running:
            self.stop()
        for socket in self.readers:
            socket.close(linger=0)
        self.context.term()
        self.folder.cleanup()

    def build(self, source: gr.basic_block, **options: object) -> rfvit.IQSink:
        self.source = source
        self.sink = rfvit.IQSink(**{"endpoint": self.address, "sample_rate": RATE, **options})
        self.flowgraph.connect(self.source, self.sink)
        return self.sink

    def start(self) -> None:
        self.flowgraph.start()
        self.running = True

    def stop(self) -> float:
        before = time.monotonic()
        self.running = False
        self.flowgraph.stop()
        self.flowgraph.wait()
        return time.monotonic() - before

    def reader(self, kind: int = zmq.PULL, hwm: int = 1000) -> zmq.Socket:
        socket = self.context.socket(kind)
        self.readers.append(socket)
        socket.rcvtimeo, socket.rcvhwm = PATIENCE * 1000, hwm
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.sink.endpoint)
        return socket

    def read(self, socket: zmq.Socket, until: int, item_type: str = "cf32_le") -> list[StreamMessage]:
        form = StreamFormat(tags=True, item_type=item_type)
        messages: list[StreamMessage] = []
        while not messages or messages[-1].offset + len(messages[-1].samples) < until:
            messages.append(decode_stream_message(socket.recv_multipart(), form))
        return messages

    def tags(self, messages: list[StreamMessage], key: str) -> list[tuple[int, object]]:
        return [(one.offset, one.value) for message in messages for one in message.tags if one.key == key]

    def assert_ramp(self, messages: list[StreamMessage]) -> None:
        for message in messages:
            np.testing.assert_array_equal(message.samples, ramp(message.offset, len(message.samples)))

    # What travels.

    def test_samples_arrive_complete_and_say_rate_and_frequency(self) -> None:
        count = 300_001  # no multiple of any buffer
        self.build(blocks.vector_source_c(ramp(0, count)), frequency=2.45e9)
        self.start()
        messages = self.read(self.reader(), count)
        self.assert_ramp(messages)
        ends = [message.offset + len(message.samples) for message in messages]
        self.assertEqual([message.offset for message in messages], [0, *ends[:-1]])
        self.assertEqual(ends[-1], count)
        self.assertEqual(self.tags(messages, "rx_rate")[0], (0, RATE))
        self.assertEqual(self.tags(messages, "rx_freq")[0], (0, 2.45e9))
        self.assertEqual(self.tags(messages, "rx_time"), [])
        wait_until(lambda: self.sink.sent() == count)
        self.assertEqual(self.sink.dropped(), 0)

    def test_sc16_and_sc8(self) -> None:
        for item_type, wire, kind, source in (
            ("sc16", "ci16_le", np.int16, blocks.vector_source_s),
            ("sc8", "ci8", np.int8, blocks.vector_source_b),
        ):
            values = np.arange(2000).astype(kind)
            items = values.view(np.uint8) if kind == np.int8 else values  # GNU Radio's bytes have no sign here
            self.flowgraph = gr.top_block()
            self.build(source(items.tolist(), False, 2), item_type=item_type, endpoint=f"{self.address}-{item_type}")
            self.start()
            messages = self.read(self.reader(), 1000, wire)
            samples = np.concatenate([message.samples for message in messages])
            np.testing.assert_array_equal(samples.view(np.float32) * -float(np.iinfo(kind).min), values)
            self.stop()

    def test_the_stream_s_own_tags_win_and_are_repeated(self) -> None:
        own = [
            tag(0, "rx_time", at(1700000000, 0.25)),
            tag(0, "rx_rate", 2e5),
            tag(0, "rx_freq", 3e9),
            tag(30_000, "rx_freq", 4e9),
            tag(50_000, "burst", pmt.to_pmt({"a": (1, 2)})),
        ]
        self.build(blocks.vector_source_c(ramp(0, 300_000), False, 1, own), frequency=1e9, repeat_period=0.1)
        self.start()
        messages = self.read(self.reader(), 300_000)
        came = [one for message in messages for one in message.tags if one.source == "radio"]
        self.assertEqual(
            [(one.offset, one.key, one.value) for one in came],
            [
                (0, "rx_time", (1700000000, 0.25)),
                (0, "rx_rate", 2e5),
                (0, "rx_freq", 3e9),
                (30_000, "rx_freq", 4e9),
                (50_000, "burst", {"a": (1, 2)}),
            ],
        )
        said = [one for message in messages for one in message.tags if one.source == "rfvit_iq_sink"]
        self.assertGreaterEqual(len(said), 2)  # rate and frequency, at least once after 20,000 samples
        for one in said:
            self.assertGreater(one.offset, 0)
            self.assertEqual(one.value, 2e5 if one.key == "rx_rate" else 3e9 if one.offset <= 30_000 else 4e9)

    def test_rate_and_frequency_are_said_again_every_period(self) -> None:
        source = self.build(Steps(), frequency=1e9, repeat_period=0.01) and self.source
        self.start()
        reader = self.reader()
        heard = []
        for end in range(2500, 50_001, 2500):
            source.end = end
            heard += self.tags(self.read(reader, end), "rx_freq")
        self.assertEqual(heard, [(offset, 1e9) for offset in range(0, 50_000, 10_000)])

    def test_a_late_subscriber_is_told_at_once(self) -> None:
        source = self.build(Steps(), socket="pub", policy="block", frequency=1e9, repeat_period=1e6) and self.source
        self.start()
        first = self.reader(zmq.SUB)
        source.end = 1000
        self.read(first, 1000)
        late = self.reader(zmq.SUB)
        # Nothing tells when its subscription has arrived but its first message.
        while not late.poll(10):
            source.end += 100
        messages = self.read(late, source.end)
        self.assertGreater(messages[0].offset, 900)
        self.assertEqual(self.tags(messages, "rx_freq"), [(messages[0].offset, 1e9)])
        self.assertEqual(self.tags(messages, "rx_rate"), [(messages[0].offset, RATE)])

    # Retunes.

    def retune(self, *messages: object) -> list[tuple[int, object]]:
        source = self.build(Steps(), frequency=1e9, repeat_period=1e6) and self.source
        self.commander = commander = Commander()  # kept: GNU Radio does not
        self.flowgraph.msg_connect(commander, "command", self.sink, "command")
        self.start()
        reader = self.reader()
        source.end = 10_007
        came = self.read(reader, source.end)
        for message in messages:
            if callable(message):
                message()
            else:
                commander.send(message)
        # A message is handled before work(), where there is one.
        time.sleep(0.1)
        source.end += 10_000
        came += self.read(reader, source.end)
        self.rates = self.tags(came, "rx_rate")
        return self.tags(came, "rx_freq")

    def test_a_retune_message_holds_from_the_next_item_on(self) -> None:
        message = pmt.cons(pmt.intern("freq"), pmt.from_double(2e9))
        self.assertEqual(self.retune(message), [(0, 1e9), (10_007, 2e9)])

    def test_a_command_dict_retunes_and_sets_the_rate(self) -> None:
        message = pmt.to_pmt({"freq": 2e9, "rate": 2e6, "gain": 10})
        self.assertEqual(self.retune(message), [(0, 1e9), (10_007, 2e9)])
        self.assertEqual(self.rates, [(0, RATE), (10_007, 2e6)])

    def test_set_frequency_to_unknown(self) -> None:
        self.assertEqual(self.retune(lambda: self.sink.set_frequency(None)), [(0, 1e9), (10_007, None)])

    def test_senseless_commands_are_ignored(self) -> None:
        nonsense = [
            pmt.cons(pmt.intern("freq"), pmt.intern("high")),
            pmt.cons(pmt.intern("freq"), pmt.from_double(float("nan"))),
            pmt.cons(pmt.intern("rate"), pmt.from_double(0)),
            pmt.to_pmt({"rate": None}),
            pmt.cons(pmt.intern("gain"), pmt.from_double(3)),
            pmt.PMT_NIL,
            pmt.PMT_T,
        ]
        self.assertEqual(self.retune(*nonsense), [(0, 1e9)])
        self.assertEqual(self.rates, [(0, RATE)])

    # Nobody reads.

    def test_drops_are_counted_and_seen_to_the_sample(self) -> None:
        for kind, socket in (("push", zmq.PULL), ("pub", zmq.SUB)):
            self.flowgraph = gr.top_block()
            address = f"{self.address}-{kind}"
            options = {"policy": "drop", "socket": kind, "frequency": 1e9, "endpoint": address, "repeat_period": 1e6}
            source = self.build(Steps(), **options) and self.source
            # In the order in which UHD sends them.
            tags = [("rx_time", at(100, 0.5)), ("rx_rate", pmt.from_double(RATE)), ("rx_freq", pmt.from_double(2e9))]
            source.tags = {5000: tags}
            self.start()
            source.end = 12_345
            wait_until(lambda: self.sink.dropped() == 12_345)
            reader = self.reader(socket)
            while not reader.poll(10):
                source.end += 1000
            messages = self.read(reader, source.end)
            first = messages[0].offset
            self.assertEqual(self.sink.dropped(), first)
            wait_until(lambda end=source.end: self.sink.sent() == end - self.sink.dropped())
            self.assert_ramp(messages)
            # The reader learns what the dropped samples said: the retune, and the radio's time.
            self.assertEqual(self.tags(messages, "rx_freq"), [(first, 2e9)])
            self.assertEqual(self.tags(messages, "rx_rate"), [(first, RATE)])
            ((offset, (seconds, fraction)),) = self.tags(messages, "rx_time")
            self.assertEqual(offset, first)
            self.assertAlmostEqual((seconds - 100) + fraction - 0.5, (first - 5000) / RATE, places=9)
            self.stop()

    def test_a_reader_that_is_too_slow_sees_what_was_dropped(self) -> None:
        source = self.build(Steps(), policy="drop", high_water_mark=1, repeat_period=1e6) and self.source
        self.start()
        reader = self.reader(hwm=1)
        while not reader.poll(10):  # it is connecting
            source.end += 100
        self.assertLess(source.end, 10_000)
        while self.sink.dropped() < 1_000_000:  # it sleeps, and the kernel's buffers fill
            source.end += 100_000
            time.sleep(0.001)
        wait_until(lambda: self.sink.sent() + self.sink.dropped() == source.end)
        messages: list[StreamMessage] = []
        deadline = time.monotonic() + PATIENCE
        while not messages or messages[-1].offset + len(messages[-1].samples) < source.end:
            self.assertLess(time.monotonic(), deadline)
            if reader.poll(200):
                messages.append(decode_stream_message(reader.recv_multipart(), StreamFormat(tags=True)))
            else:  # the last ones were dropped; it takes more samples to show that
                source.end += 10
        self.assert_ramp(messages)
        starts = [message.offset for message in messages]
        ends = [message.offset + len(message.samples) for message in messages]
        gaps = starts[0] + sum(start - end for start, end in zip(starts[1:], ends, strict=False))
        self.assertEqual(gaps, self.sink.dropped())
        self.assertEqual(sum(len(message.samples) for message in messages), self.sink.sent())
        for message, end in zip(messages[1:], ends, strict=False):  # after every gap, everything is said again
            self.assertEqual([one.key for one in message.tags], ["rx_rate"] if message.offset > end else [])

    def test_blocking_loses_nothing(self) -> None:
        for kind, socket in (("push", zmq.PULL), ("pub", zmq.SUB)):
            self.flowgraph = gr.top_block()
            options = {"socket": kind, "policy": "block", "high_water_mark": 1, "endpoint": f"{self.address}-{kind}"}
            source = self.build(Steps(), **options) and self.source
            source.end = 2_000_000
            self.start()
            time.sleep(0.3)  # nobody is there yet
            self.assertEqual(self.sink.sent(), 0)
            reader = self.reader(socket, hwm=1)
            reader.poll(PATIENCE * 1000)
            time.sleep(0.3)  # nor does it read yet
            self.assertLess(self.sink.sent(), 2_000_000)
            messages = self.read(reader, 2_000_000)
            self.assertEqual(messages[0].offset, 0)
            self.assertEqual(sum(len(message.samples) for message in messages), 2_000_000)
            self.assert_ramp(messages)
            self.assertEqual(self.sink.dropped(), 0)
            self.stop()

    def test_stops_within_two_seconds_whoever_reads(self) -> None:
        for stuck in (False, True):
            for kind, policy in COMBINATIONS:
                with self.subTest(kind=kind, policy=policy, stuck=stuck):
                    self.flowgraph = gr.top_block()
                    address = f"{self.address}-{kind}-{policy}-{stuck}"
                    options = {"socket": kind, "policy": policy, "endpoint": address, "high_water_mark": 2}
                    self.build(blocks.null_source(gr.sizeof_gr_complex), **options)
                    reader = self.reader(zmq.PULL if kind == "push" else zmq.SUB, hwm=1) if stuck else None
                    self.start()
                    if reader is not None:
                        reader.poll(PATIENCE * 1000)  # the first message is there, and never read
                    time.sleep(0.1)
                    self.assertLess(self.stop(), LONGEST_STOP)

    def test_the_counts_port_says_what_was_sent_and_dropped(self) -> None:
        source = self.build(Steps(), policy="drop") and self.source
        heard = blocks.message_debug()
        self.flowgraph.msg_connect(self.sink, "counts", heard, "store")
        self.start()
        while heard.num_messages() < 2:  # it says them once a second, with the next item
            source.end += 1
            time.sleep(0.05)
        counts = pmt.to_python(heard.get_message(1))
        self.assertEqual(counts["sent"], 0)
        self.assertIn(counts["dropped"], (source.end - 1, source.end))

    # Beginning and end.

    def test_what_is_queued_at_the_end_is_delivered(self) -> None:
        count = 600_000  # more than the kernel's buffers hold
        self.build(blocks.vector_source_c(ramp(0, count)), high_water_mark=10_000)  # and all of it can be queued
        reader = self.reader(hwm=1)
        running = threading.Thread(target=self.flowgraph.run, daemon=True)
        running.start()
        wait_until(lambda: self.sink.sent() == count)
        time.sleep(0.1)  # the flowgraph is at its end, and the socket is being closed
        messages = self.read(reader, count)
        running.join()
        self.assert_ramp(messages)
        self.assertEqual(sum(len(message.samples) for message in messages), count)

    def test_at_a_streams_end_a_slow_reader_gets_everything(self) -> None:
        """It takes longer in all than a stuck one is given, but far less for any two messages: it holds as many."""
        count = 16 * LARGEST_MESSAGE
        self.build(blocks.vector_source_c(ramp(0, count)), high_water_mark=10_000)
        reader = self.reader(hwm=1)
        running = threading.Thread(target=self.flowgraph.run, daemon=True)
        running.start()
        wait_until(lambda: self.sink.sent() == count)
        ended = time.monotonic()
        messages: list[StreamMessage] = []
        while not messages or messages[-1].offset + len(messages[-1].samples) < count:
            position = messages[-1].offset if messages else 0
            while time.monotonic() < ended + 2.5 * GRACE * position / count:
                time.sleep(0.001)
            messages += self.read(reader, 0)
        running.join(PATIENCE)
        self.assert_ramp(messages)
        self.assertEqual(sum(len(message.samples) for message in messages), count)
        self.assertEqual((self.sink.sent(), self.sink.dropped()), (count, 0))

    def test_what_nobody_takes_at_the_end_is_counted(self) -> None:
        """Whether the stream ends or is stopped; a message that was half on its way may count as either."""
        count = 600_000
        for is_stopped in (False, True):
            self.flowgraph = gr.top_block()
            endless = Steps() if is_stopped else None
            self.build(endless or blocks.vector_source_c(ramp(0, count)), high_water_mark=10_000)
            reader = self.reader(hwm=1)
            self.start()
            if endless:
                endless.end = count
            wait_until(lambda: self.sink.sent() == count)
            self.assertLess(self.stop(), LONGEST_STOP)
            self.assertEqual(self.sink.sent() + self.sink.dropped(), count)
            self.assertGreater(self.sink.dropped(), 0)
            reader.rcvtimeo = 500
            taken = 0
            with contextlib.suppress(zmq.Again):
                while True:
                    taken += len(self.read(reader, 0)[0].samples)
            self.assertIn(self.sink.sent() - taken, range(LARGEST_MESSAGE + 1))

    def test_a_flowgraph_can_be_started_again(self) -> None:
        source = self.build(Steps(), frequency=1e9) and self.source
        reader = self.reader()
        for _ in range(2):
            source.end = 0
            self.start()
            time.sleep(0.3)  # the reader has connected (again), and nothing has been tried in vain
            source.end = 1000
            messages = self.read(reader, 1000)
            self.assertEqual(messages[0].offset, 0)
            self.assertEqual(self.tags(messages, "rx_freq"), [(0, 1e9)])
            self.stop()

    def test_senseless_parameters_are_refused(self) -> None:
        for options, reason in (
            ({"item_type": "float"}, "type is 'float', expected one of complex, sc16, sc8"),
            ({"socket": "rep"}, "socket is 'rep', expected one of push, pub"),
            ({"policy": "wait"}, "policy is 'wait', expected one of block, drop"),
            ({"sample_rate": 0}, "the sample rate is 0, expected a positive number"),
            ({"sample_rate": float("nan")}, "the sample rate is nan"),
            ({"frequency": "2.4G"}, "the centre frequency is '2.4G'"),
            ({"repeat_period": 0}, "the repeat period is 0 s"),
            ({"high_water_mark": 0}, "the high-water mark is 0"),
            ({"endpoint": "127.0.0.1:5555"}, "cannot listen at 127.0.0.1:5555: .* expected tcp://HOST:PORT"),
            ({"endpoint": "ipc:///nowhere/at/all"}, "cannot listen at ipc:///nowhere/at/all"),
        ):
            with self.subTest(options=options), self.assertRaisesRegex(StreamError, reason):
                rfvit.IQSink(**{"endpoint": self.address, **options})

    def test_a_taken_port_is_said(self) -> None:
        taken = rfvit.IQSink(endpoint="tcp://127.0.0.1:*")
        self.assertRegex(taken.endpoint, r"^tcp://127\.0\.0\.1:\d+$")
        with self.assertRaisesRegex(StreamError, f"{taken.endpoint}: .*; another program or block uses it"):
            rfvit.IQSink(endpoint=taken.endpoint)

    def test_no_argument_of_the_stock_sinks_is_needed(self) -> None:
        """They differ between GNU Radio's releases: bind since 3.10.6, drop_on_hwm since 3.10.5. None is there here."""
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("gnuradio.zeromq")}
        sys.modules["gnuradio.zeromq"] = None
        try:
            self.build(blocks.vector_source_c(ramp(0, 1000)))
            self.start()
            self.assert_ramp(self.read(self.reader(), 1000))
        finally:
            del sys.modules["gnuradio.zeromq"]
            sys.modules.update(hidden)


if __name__ == "__main__":
    gr_unittest.run(QaIQSink)
