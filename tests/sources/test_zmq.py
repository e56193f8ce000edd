# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import itertools
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.sources import zmq as zmq_source
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource, parse_zmq_url
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, encode_stream_message

from .ramps import RATE, assert_ramp, message, ramp, segments

TAGGED, RAW = StreamFormat(tags=True), StreamFormat()


# Configuration.


@pytest.mark.parametrize(
    ("url", "kind", "endpoint"),
    [
        ("zmq+pull://127.0.0.1:5555", "pull", "tcp://127.0.0.1:5555"),
        ("zmq+sub+tcp://radio.local:5555/", "sub", "tcp://radio.local:5555"),
        ("zmq+req://[::1]:2000", "req", "tcp://[::1]:2000"),
        ("zmq+pull://*:5555", "pull", "tcp://*:5555"),
        ("zmq+pull+ipc:///tmp/iq.sock", "pull", "ipc:///tmp/iq.sock"),
    ],
)
def test_urls(url: str, kind: str, endpoint: str) -> None:
    config = parse_zmq_url(url, sample_rate=RATE)
    assert (config.kind, config.endpoint) == (kind, endpoint)


def test_url_query_gives_options_and_arguments_win() -> None:
    query = "tags=1&key=ch0&frequency=3.6e9&sample_rate=1e6&vlen=4&bind=no&idle_timeout=2.5&item_type=ci16_le"
    config = parse_zmq_url(f"zmq+sub://127.0.0.1:5555?{query}", sample_rate=2e6, frequency=None)
    assert config == ZmqConfig(
        *("sub", "tcp://127.0.0.1:5555"),
        **dict(tags=True, key="ch0", frequency=3.6e9, sample_rate=2e6, vlen=4, idle_timeout=2.5, item_type="ci16_le"),
    )
    assert config.stream_format == StreamFormat(True, b"ch0", "ci16_le", 4)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("zmq+push://127.0.0.1:5555", "is not a ZeroMQ source; expected zmq"),
        ("http://127.0.0.1:5555", "is not a ZeroMQ source"),
        ("zmq+pull+udp://127.0.0.1:5555", "is not a ZeroMQ source"),
        ("zmq+pull://127.0.0.1", "no host and port"),
        ("zmq+pull://127.0.0.1:99999", "not a URL"),
        ("zmq+pull://[::1:5", "not a URL"),
        ("zmq+pull+ipc://tmp", "no socket file"),
        ("zmq+pull://127.0.0.1:5555", "give --sample-rate"),
        ("zmq+pull://127.0.0.1:5555?tag=1", "'tag' in the URL is not known; use tags"),
        ("zmq+pull://127.0.0.1:5555?tags=maybe", "tags in the URL is 'maybe'"),
        ("zmq+pull://127.0.0.1:5555?sample_rate=fast", "sample_rate in the URL is 'fast'"),
        ("zmq+pull://127.0.0.1:5555?sample_rate=nan", "sample_rate is nan"),
        ("zmq+pull://127.0.0.1:5555?sample_rate=-1", r"sample_rate is -1\.0"),
        ("zmq+pull://127.0.0.1:5555?tags=1&frequency=inf", "frequency is inf"),
        ("zmq+pull://127.0.0.1:5555?tags=1&key=a", "only a PUB sink has a key"),
        ("zmq+pull://127.0.0.1:5555?tags=1&policy=newest", "policy is 'newest', expected one of block, drop-oldest"),
        ("zmq+pull://127.0.0.1:5555?tags=1&request=all", "request is 'all'"),
        ("zmq+pull://127.0.0.1:5555?tags=1&item_type=f32", "'f32'"),
        ("zmq+pull://127.0.0.1:5555?tags=1&ring_samples=0", "ring_samples is 0"),
        ("zmq+pull://127.0.0.1:5555?tags=1&sample_count=-1", "sample_count is -1"),
    ],
)
def test_impossible_configurations_are_refused(url: str, match: str) -> None:
    with pytest.raises(StreamError, match=match):
        parse_zmq_url(url)


def test_empty_key_is_none_as_in_gnuradio() -> None:
    assert parse_zmq_url("zmq+pull://h:1?key=", tags=True).stream_format.key is None


def test_only_a_publisher_is_not_held_back_by_default() -> None:
    kinds = ("pull", "sub", "req")
    assert [parse_zmq_url(f"zmq+{kind}://h:1", tags=True).drops_oldest for kind in kinds] == [False, True, False]
    assert parse_zmq_url("zmq+pull://h:1", tags=True, policy="drop-oldest").drops_oldest


# Sockets, with pyzmq at the other end.


Peer = Callable[..., "zmq.Socket[bytes]"]
PATIENCE = 30  # seconds until a test gives up what it waits for


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Make the sockets at the other end, listening where an address is given. None of them waits for ever."""
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int, address: str | None = None, **options: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        for name, value in {"sndtimeo": PATIENCE * 1000, "rcvtimeo": PATIENCE * 1000, **options}.items():
            setattr(made[-1], name, value)
        if address is not None:
            made[-1].bind(address)
        return made[-1]

    with zmq.Context() as context:
        yield make
        context.destroy(linger=0)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/iq"


def source(address: str, kind: str = "pull", **options: Any) -> ZmqSource:
    options = {"tags": True, "sample_rate": RATE, "idle_timeout": 20.0} | options
    return ZmqSource(ZmqConfig(kind, address, **options))


def send(sender: zmq.Socket[bytes], *messages: StreamMessage, form: StreamFormat = TAGGED) -> None:
    for one in messages:
        sender.send_multipart(encode_stream_message(one, form))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_skipped_messages_are_counted_exactly(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    kept = [n for n in range(200) if n % 7 and n % 11]
    with source(address, sample_count=100 * (kept[-1] - kept[0] + 1)) as received:
        send(sender, *(message(100 * n, 100) for n in kept))
        blocks = list(received)
    assert [one.sample_start // 100 for one in blocks] == kept
    assert_ramp(blocks)
    assert received.statistics.samples_received == 100 * len(kept)
    assert received.statistics.transport_lost == 100 * (kept[-1] - kept[0] + 1 - len(kept))
    assert all(one.received <= time.monotonic() for one in blocks)


def test_slow_reader_loses_the_oldest_and_they_are_counted(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    with source(address, policy="drop-oldest", ring_samples=10_000, sample_count=100_000) as received:
        send(sender, *(message(start, 1000) for start in range(0, 100_000, 1000)))
        wait_until(lambda: received.statistics.dropped == 90_000)
        blocks = list(received)
    assert segments(blocks) == [(90_000, 100_000, RATE, None, 0)]
    assert_ramp(blocks)
    assert received.statistics.dropped == 90_000
    assert received.statistics.transport_lost == 0


def test_slow_reader_holds_the_sender_back_and_loses_nothing(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address, sndhwm=1)
    sent = 0
    with source(address, ring_samples=5000, receive_hwm=1, sample_count=None) as received:
        # Samples pile up in the ring, the thread's hands, both queues and the kernel, until the sender has to wait.
        while sender.poll(500, zmq.POLLOUT):
            send(sender, message(sent, 1000))
            sent += 1000
            assert sent < 10_000_000
        assert received.statistics.samples_received <= 5000 + 16 * 1000
        blocks: list[IQBlock] = []
        for one in received:
            blocks.append(one)
            if one.sample_end == sent:
                break
    assert segments(blocks) == [(0, sent, RATE, None, 0)]
    assert_ramp(blocks)


def test_what_a_sender_sent_before_it_went_is_not_lost(address: str) -> None:
    """The reader is slow, so what the sender has sent when it closes still waits in the reader's socket."""
    with source(address, ring_samples=100, sample_count=2500) as received:
        with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
            sender.bind(address)
            sender.linger = PATIENCE * 1000
            for count in (1, 2):  # one goes to the ring, one waits to, so that the thread takes no more
                send(sender, message(100 * count - 100, 100))
                wait_until(lambda count=count: received.statistics.messages == count)
            send(sender, *(message(start, 100) for start in range(200, 2500, 100)))
        time.sleep(0.3)  # the news that the sender has gone is faster than the reader
        blocks = list(received)
    assert segments(blocks) == [(0, 2500, RATE, None, 0)]
    assert_ramp(blocks)


def test_untagged_shorts_to_a_bound_puller(peer: Peer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    form = StreamFormat(item_type="ci16_le")
    sender = peer(zmq.PUSH)
    with source(address, tags=False, item_type="ci16_le", bind=True, sample_count=300) as received:
        sender.connect(address)
        send(sender, *(StreamMessage(ramp(start, 100) / 32768) for start in range(0, 400, 100)), form=form)
        samples = np.concatenate([one.samples for one in received])
    np.testing.assert_array_equal(samples * 32768, ramp(0, 300))


def test_missing_rate_is_an_error_after_a_bounded_time(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    received = source(address, sample_rate=None, rate_timeout=0.05)
    send(sender, message(0, 10))
    wait_until(lambda: received.statistics.messages == 1)
    time.sleep(0.1)
    send(sender, message(10, 10))
    with pytest.raises(StreamError, match=r"20 samples came, but no rx_rate tag .* give --sample-rate"):
        list(received)
    assert received.statistics.without_rate == received.statistics.samples_received == 20


def test_wrong_format_ends_the_stream_with_the_option_to_use(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    with source(address, tags=False) as received:
        send(sender, message(0, 10))
        with pytest.raises(WireError, match=rf"^{address}: .* use --tags$"):
            list(received)


def test_only_messages_with_the_key_come(peer: Peer, address: str) -> None:
    sender = peer(zmq.XPUB, address)
    with source(address, "sub", key="ch1") as received:
        assert sender.recv() == b"\1ch1"  # subscribed
        send(sender, message(0, 10), form=StreamFormat(True, b"ch2"))
        send(sender, message(10, 10), form=StreamFormat(True, b"ch1"))
        assert next(iter(received)).sample_start == 10


def test_longer_key_that_the_subscription_matches_too_is_refused(peer: Peer, address: str) -> None:
    sender = peer(zmq.XPUB, address)
    with source(address, "sub", key="ch1") as received:
        assert sender.recv() == b"\1ch1"  # subscribed
        send(sender, message(0, 10), form=StreamFormat(True, b"ch10"))
        with pytest.raises(WireError, match="b'ch10' came, expected b'ch1'"):
            list(received)


def test_what_came_before_a_failure_is_handed_over(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    received = source(address)
    send(sender, *(message(start, 10) for start in range(0, 500, 10)))
    sender.send(b"nonsense")
    blocks: list[IQBlock] = []
    with pytest.raises(WireError, match="too short"):
        blocks.extend(received)
    assert segments(blocks) == [(0, 500, RATE, None, 0)]


def test_messages_without_samples_do_not_hold_back_those_with_some(address: str) -> None:
    """However fast they come: they are no blocks, and a batch of blocks would never be full."""
    first, empty = (
        [memoryview(encode_stream_message(message(at, count), TAGGED)[0])] for at, count in ((0, 10), (10, 0))
    )
    received, coming = source(address), itertools.chain([first], itertools.repeat(empty))
    received._link.receive = lambda timeout: next(coming)  # type: ignore[method-assign]
    with received:
        assert len(next(iter(received)).samples) == 10


def test_late_reply_is_not_lost(peer: Peer, address: str) -> None:
    router = peer(zmq.ROUTER, address)  # a REP socket whose hands can be tied
    with source(address, "req", request_items=10, reply_timeout=0.05, sample_count=30) as received:
        first, second = router.recv_multipart(), router.recv_multipart()
        assert first[-1] == second[-1] == struct.pack("=I", 10)
        wait_until(lambda: received.statistics.requests_repeated > 0)
        for n, request in enumerate((first, second)):
            router.send_multipart([*request[:-1], *encode_stream_message(message(10 * n, 10), TAGGED)])
        third = router.recv_multipart()
        router.send_multipart([*third[:-1], *encode_stream_message(message(20, 10), TAGGED)])
        blocks = list(received)
    assert segments(blocks) == [(0, 30, RATE, None, 0)]
    assert_ramp(blocks)


def test_restarted_replier_is_asked_again(peer: Peer, address: str) -> None:
    with source(address, "req", request="dummy", tags=False, reply_timeout=0.05, sample_count=20) as received:
        first = peer(zmq.REP, address)
        assert len(first.recv()) == 1
        first.close(linger=0)  # dies with the request unanswered
        second = peer(zmq.REP, address)
        for start in (0, 10):
            assert len(second.recv()) == 1
            send(second, StreamMessage(ramp(start, 10)), form=RAW)
        blocks = list(received)
    assert segments(blocks) == [(0, 20, RATE, None, 0)]
    assert_ramp(blocks)


def test_port_in_use_is_one_line(peer: Peer) -> None:
    taken = peer(zmq.PULL)
    port = taken.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(
        StreamError, match=rf"^cannot listen at tcp://127.0.0.1:{port}: .*; another program uses this port"
    ):
        source(f"tcp://127.0.0.1:{port}", bind=True)


@pytest.mark.parametrize("address", ["tcp://", "tcp://127.0.0.1:x", "ipc://" + "x" * 200, "nonsense"])
def test_impossible_addresses_are_refused(address: str) -> None:
    with pytest.raises(StreamError, match="cannot connect to"):
        source(address)


def test_silence_says_that_nobody_is_there(address: str) -> None:
    with pytest.raises(StreamError, match=rf"^{address}: no samples for 0.1 s; nothing is connected"):
        list(source(address, idle_timeout=0.1))


def test_silence_says_that_the_sender_is_silent(peer: Peer, address: str) -> None:
    sender = peer(zmq.PUSH, address)
    received = source(address, idle_timeout=0.5)
    send(sender, message(0, 10))
    with pytest.raises(StreamError, match="connected but silent"):
        list(received)


def test_silence_says_which_key_may_be_wrong(peer: Peer, address: str) -> None:
    peer(zmq.PUB, address)
    with pytest.raises(StreamError, match=r"connected but silent: .* and its key 'ch1'"):
        list(source(address, "sub", key="ch1", idle_timeout=0.5))


def test_silence_says_that_the_sink_is_of_another_kind(peer: Peer, address: str) -> None:
    peer(zmq.PUB, address)
    with pytest.raises(StreamError, match="not a ZeroMQ PUSH sink"):
        list(source(address, idle_timeout=0.5))


def test_sender_that_dies_in_mid_message() -> None:
    """A hand-made PUSH socket (ZMTP 3.0) that promises a megabyte, sends a little of it, and is gone for good."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    properties = b"\x0bSocket-Type\x00\x00\x00\x04PUSH"
    ready = b"\x04" + bytes([6 + len(properties)]) + b"\x05READY" + properties
    (whole,) = encode_stream_message(message(0, 10), TAGGED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = source(f"tcp://127.0.0.1:{listener.getsockname()[1]}", idle_timeout=0.5)
        listener.settimeout(PATIENCE)
        peer, _ = listener.accept()
        peer.settimeout(PATIENCE)
        peer.sendall(greeting)
        for _ in range(64 + 8):  # the other side's greeting, and the start of its READY
            assert peer.recv(1)
        peer.sendall(ready + b"\0" + bytes([len(whole)]) + whole + b"\2" + (1 << 20).to_bytes(8, "big") + bytes(1000))
        blocks = iter(received)
        assert len(next(blocks).samples) == 10
        peer.close()
    with pytest.raises(StreamError, match="the sender has gone"):
        next(blocks)


def test_stop_ends_the_iteration(address: str) -> None:
    asked = iter([False, True])
    with ZmqSource(ZmqConfig("pull", address, sample_rate=RATE), stop=lambda: next(asked)) as received:
        assert list(received) == []


def test_closing_frees_threads_and_sockets(peer: Peer, address: str) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    sender = peer(zmq.PUSH, address)
    before = None
    for kind in ("pull", "sub", "req", "pull", "pull"):
        with source(address, kind, ring_samples=1) as received:
            if kind == "pull":
                send(sender, message(0, 10), message(10, 10), message(20, 10))
                wait_until(lambda received=received: received.statistics.messages >= 2)  # its thread waits for room
            received.close()
        if kind == "pull":
            wait_until(lambda: not sender.poll(0, zmq.POLLOUT))  # the sender has noticed
            before = before or held()
            assert held() == before


_PROGRAM = """
import sys
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource
source = ZmqSource(ZmqConfig("pull", sys.argv[1], sample_rate=1e6))
print("ready", flush=True)
if sys.argv[2] == "read":
    for block in source:
        pass
"""


def test_control_c_ends_a_silent_stream(address: str) -> None:
    command = [sys.executable, "-c", _PROGRAM, address, "read"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            time.sleep(0.2)  # so that it waits for a block
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert errors.strip().endswith("KeyboardInterrupt")


def test_program_that_forgets_to_close_can_end(address: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, address, "leave"], check=True, capture_output=True, timeout=PATIENCE
    )


def test_examples_in_the_documentation_run() -> None:
    assert doctest.testmod(zmq_source).failed == 0


# GNU Radio's own sinks.

RAMP_LENGTH = 300_000
_FLOWGRAPHS = """
import sys
import numpy as np
import pmt
from gnuradio import blocks, gr, zeromq

folder, length = sys.argv[1], int(sys.argv[2])
n = np.arange(length)
ramp = ((n & 0xffff) + 1j * (n >> 16)).astype(np.complex64)


def tag(offset, key, value):
    made = gr.tag_t()
    made.offset, made.key, made.value, made.srcid = offset, pmt.intern(key), value, pmt.intern("radio")
    return made


def at(seconds, fraction):
    return pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(fraction))


tags = [
    tag(0, "rx_time", at(1700000000, 0.25)),
    tag(0, "rx_rate", pmt.from_double(1e6)),
    tag(0, "rx_freq", pmt.from_double(2.45e9)),
    tag(100001, "rx_freq", pmt.from_double(3.5e9)),
    tag(110000, "rx_freq", pmt.from_double(3.5e9)),
    tag(150000, "rx_time", at(1700000000, 0.25 + 0.1525)),
    tag(200003, "rx_rate", pmt.from_double(2e6)),
    tag(250003, "rx_time", at(1700000000, 0.25 + 0.202503 + 0.025)),
]


def flowgraph(items, sink, *between, tags=()):
    graph = gr.top_block()
    source = blocks.vector_source_c(items, False, 1, list(tags))
    graph.connect(source, *between, sink)
    graph.kept = source, between, sink
    return graph


C = gr.sizeof_gr_complex
shorts = blocks.complex_to_interleaved_short(True, 1.0)
graphs = [
    flowgraph(ramp, zeromq.push_sink(C, 1, f"ipc://{folder}/push", 100, True), tags=tags),
    flowgraph(ramp, zeromq.rep_sink(C, 1, f"ipc://{folder}/rep", 100, True), tags=tags),
    flowgraph(ramp, zeromq.rep_sink(C, 1, f"ipc://{folder}/srsran", 100, False)),
    flowgraph(ramp / 4, zeromq.push_sink(4, 1, f"ipc://{folder}/shorts", 100, False), shorts),
    flowgraph(ramp, zeromq.push_sink(C, 100, f"ipc://{folder}/vectors", 100, True), blocks.stream_to_vector(C, 100)),
]
pub_sink = zeromq.pub_sink(C, 1, f"ipc://{folder}/pub", 100, True, -1, "ch0")
publisher = flowgraph(ramp, pub_sink, blocks.throttle(C, 1e6), tags=tags)
for graph in graphs:
    graph.start()
print("ready", flush=True)
sys.stdin.readline()
publisher.start()
sys.stdin.readline()
for graph in graphs + [publisher]:
    graph.stop()
    graph.wait()
"""

# Rate, frequency and loss as the tags above say: 2,500 samples are missing in the radio at sample 150,000.
TAGGED_SEGMENTS = [
    (0, 100_001, 1e6, 2.45e9, 0),
    (100_001, 150_000, 1e6, 3.5e9, 0),
    (150_000, 200_003, 1e6, 3.5e9, 2500),
    (200_003, RAMP_LENGTH, 2e6, 3.5e9, 0),
]


@pytest.fixture(scope="module")
def gnuradio_sinks(gnuradio_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    folder = tmp_path_factory.mktemp("sinks")
    command = [str(gnuradio_python), "-c", _FLOWGRAPHS, str(folder), str(RAMP_LENGTH)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield f"ipc://{folder}", child.stdin
        finally:
            child.kill()


def test_gnuradio_push_sink_with_tags(gnuradio_sinks: tuple[str, Any]) -> None:
    with source(gnuradio_sinks[0] + "/push", sample_rate=None, sample_count=RAMP_LENGTH) as received:
        blocks = list(received)
    assert segments(blocks) == TAGGED_SEGMENTS
    assert_ramp(blocks)
    assert received.statistics.radio_lost == 2500
    assert received.statistics.transport_lost == received.statistics.without_rate == 0


def test_gnuradio_rep_sink_with_tags(gnuradio_sinks: tuple[str, Any]) -> None:
    options = {"sample_rate": None, "sample_count": RAMP_LENGTH, "request_items": 3000}
    with source(gnuradio_sinks[0] + "/rep", "req", **options) as received:
        blocks = list(received)
    assert segments(blocks) == TAGGED_SEGMENTS
    assert_ramp(blocks)
    assert max(len(one.samples) for one in blocks) <= 3000


def test_gnuradio_rep_sink_asked_as_srsran_does(gnuradio_sinks: tuple[str, Any]) -> None:
    options = {"tags": False, "request": "dummy", "sample_count": RAMP_LENGTH, "frequency": 2.68e9}
    with source(gnuradio_sinks[0] + "/srsran", "req", **options) as received:
        blocks = list(received)
    assert segments(blocks) == [(0, RAMP_LENGTH, RATE, 2.68e9, 0)]
    assert_ramp(blocks)


def test_gnuradio_push_sink_of_shorts(gnuradio_sinks: tuple[str, Any]) -> None:
    options = {"tags": False, "item_type": "ci16_le", "sample_count": 100_000}
    with source(gnuradio_sinks[0] + "/shorts", **options) as received:
        samples = np.concatenate([one.samples for one in received])
    position = ramp(0, 100_000) * np.complex64(0.25)
    np.testing.assert_array_equal(samples * 32768, np.rint(position))


def test_gnuradio_push_sink_of_vectors(gnuradio_sinks: tuple[str, Any]) -> None:
    with source(gnuradio_sinks[0] + "/vectors", vlen=100, sample_count=RAMP_LENGTH) as received:
        blocks = list(received)
    assert segments(blocks) == [(0, RAMP_LENGTH, RATE, None, 0)]
    assert_ramp(blocks)


def test_gnuradio_pub_sink_with_key_and_tags(gnuradio_sinks: tuple[str, Any]) -> None:
    address, start = gnuradio_sinks
    # Whether the first samples are seen depends on when the subscription arrives: the count starts with what is seen.
    with source(address + "/pub", "sub", key="ch0", frequency=1e9, sample_count=None) as received:
        time.sleep(0.2)
        start.write("\n")
        blocks = []
        for one in received:
            blocks.append(one)
            if one.sample_end == RAMP_LENGTH:
                break
    assert_ramp(blocks)
    expected = [run for run in TAGGED_SEGMENTS if run[0] >= blocks[0].sample_end]
    assert segments(blocks)[-len(expected) :] == expected
    assert len(expected) >= 2
    assert received.statistics.transport_lost == received.statistics.dropped == 0
