# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.zmq import DEFAULT_ENDPOINT, ZmqSink
from rfvit_rt.wire.results import Status, decode

READY = b"ready"
FREE_PORT = "tcp://127.0.0.1:*"
ANNOTATION = Annotation("LTE", 1234, 5678, 806e6, 816e6, 0.97, 61.44e6, 811e6)
EMISSION = Emission("LTE", 806e6, 816e6, 0, 10**9, 12, 0.5, 0.9)
STATUS = Status(10**12, 23.04e6, None, 23.03e6, 1, 2, 3, 0.061)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def listener(context: zmq.Context[zmq.Socket[bytes]], sink: ZmqSink, topic: bytes = b"") -> zmq.Socket[bytes]:
    """A SUB socket whose subscription has arrived: until then, what is sent does not reach it."""
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVTIMEO, 10_000)
    socket.connect(sink.endpoint)
    socket.subscribe(topic)
    while not socket.poll(20):
        sink._socket.send_multipart([topic, READY] if topic else [READY])
    return socket


def receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    while (frames := socket.recv_multipart())[-1] == READY:
        pass
    return frames


def test_listeners_get_the_results(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with ZmqSink(FREE_PORT) as sink, listener(context, sink) as one, listener(context, sink) as other:
        for result in (ANNOTATION, EMISSION, STATUS):
            sink.write(result)
        for socket in (one, other):
            for result in (ANNOTATION, EMISSION, STATUS):
                (message,) = receive(socket)
                assert decode(message) == result


def test_what_was_sent_before_closing_arrives(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with ZmqSink(FREE_PORT) as sink:
        socket = listener(context, sink)
        for _ in range(100):
            sink.write(ANNOTATION)
    with socket:
        for _ in range(100):
            (message,) = receive(socket)
            assert decode(message) == ANNOTATION


def test_a_listener_that_sleeps_holds_up_nobody(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with ZmqSink(FREE_PORT, high_water_mark=10) as sink, listener(context, sink) as sleeper:
        for _ in range(20_000):  # far more than sockets and marks hold
            sink.write(ANNOTATION)
        received = 0
        while sleeper.poll(200):
            sleeper.recv()
            received += 1
        assert 0 < received < 20_000


def test_a_port_in_use() -> None:
    with ZmqSink(FREE_PORT) as sink, pytest.raises(OutputError, match="port is in use; choose another"):
        ZmqSink(sink.endpoint)


@pytest.mark.parametrize("endpoint", ["5558", "tcp://127.0.0.1", "carrier-pigeon://coop:1", "tcp://192.0.2.1:5558", ""])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(OutputError, match="cannot publish results at"):
        ZmqSink(endpoint)


def test_the_default_is_loopback() -> None:
    assert DEFAULT_ENDPOINT.startswith("tcp://127.0.0.1:")


def test_the_queue_is_bounded() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ZmqSink(FREE_PORT, high_water_mark=0)
