# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.sources.csi_packets import Arrival
from rfvit_rt.sources.csi_zmq import ZmqPort, decode_message
from rfvit_rt.wire.csi import MAX_BYTES, encode_csi

FRAME = CSIFrame(np.array([[1 + 2j, 3], [4, 5j]], np.complex64), np.array([-1, 1], np.int16), 12.5, 99, "mine", agc=4.0)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context:
        made = context.socket(zmq.PUSH)
        made.sndtimeo = 30_000
        made.bind(f"ipc://{tmp_path}/csi")
        yield made
        context.destroy(linger=0)


def collect(port: ZmqPort, count: int) -> list[Arrival]:
    arrivals: list[Arrival] = []
    deadline = time.monotonic() + 30
    while len(arrivals) < count:
        assert time.monotonic() < deadline
        arrivals += port.receive(0.1)
    return arrivals


def test_a_message_is_a_frame(sender: zmq.Socket[bytes], tmp_path: Path) -> None:
    port = ZmqPort("pull", f"ipc://{tmp_path}/csi")
    sender.send(encode_csi(FRAME))
    (arrival,) = collect(port, 1)
    packet = decode_message(arrival)
    np.testing.assert_array_equal(packet.csi, FRAME.csi)
    assert (packet.time, packet.count, packet.agc, packet.link.device) == (12.5, 99, 4.0, "mine")
    assert packet.received == arrival.received > 0
    port.close()


def test_messages_of_several_frames_are_refused(sender: zmq.Socket[bytes], tmp_path: Path) -> None:
    port = ZmqPort("pull", f"ipc://{tmp_path}/csi")
    sender.send_multipart([encode_csi(FRAME), b"x"])
    with pytest.raises(WireError, match="several frames"):
        decode_message(collect(port, 1)[0])
    port.close()


def test_messages_longer_than_any_frame_are_never_taken_up(tmp_path: Path) -> None:
    with zmq.Context() as context:
        sender = context.socket(zmq.PUSH)
        tcp = sender.bind_to_random_port("tcp://127.0.0.1")
        port = ZmqPort("pull", f"tcp://127.0.0.1:{tcp}")
        sender.send(encode_csi(FRAME))
        collect(port, 1)
        sender.send(bytes(MAX_BYTES + 1))
        sender.send(encode_csi(FRAME))  # lost with the connection or sent over a new one
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            assert all(len(arrival.data) <= MAX_BYTES for arrival in port.receive(0.1))
        port.close()
        context.destroy(linger=0)


def test_endpoints_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    first = ZmqPort("pull", f"ipc://{tmp_path}/one", bind=True)
    assert "PUSH socket connected to" in first.diagnosis()
    first.close()
    with pytest.raises(StreamError, match="cannot connect to tcp://nowhere"):
        ZmqPort("sub", "tcp://nowhere")
    with pytest.raises(StreamError, match=r"cannot listen at tcp://192\.0\.2\.1:5555"):
        ZmqPort("pull", "tcp://192.0.2.1:5555", bind=True)
