# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

from rfvit_rt.errors import StreamError
from rfvit_rt.sources.csi_packets import Arrival
from rfvit_rt.sources.csi_udp import UdpLinePort, UdpPort


def collect(port: UdpPort, count: int) -> list[Arrival]:
    arrivals: list[Arrival] = []
    deadline = time.monotonic() + 30
    while len(arrivals) < count:
        assert time.monotonic() < deadline
        arrivals += port.receive(0.1)
    return arrivals


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def test_datagrams_come_whole_with_their_sender(sender: socket.socket) -> None:
    port = UdpPort("127.0.0.1", 0, "hint")
    sent = [bytes([number]) * size for number, size in enumerate([0, 1, 1042, 60000, 20])]
    for datagram in sent:
        sender.sendto(datagram, ("127.0.0.1", port.port))
    arrivals = collect(port, len(sent))
    assert [arrival.data for arrival in arrivals] == sent
    assert {arrival.sender for arrival in arrivals} == {"127.0.0.1"}
    assert port.receive(0.01) == []
    port.close()


def test_times_are_those_at_which_datagrams_came_not_those_at_which_they_were_fetched(sender: socket.socket) -> None:
    port = UdpPort("127.0.0.1", 0, "hint")
    for number in range(4):
        sender.sendto(bytes([number]), ("127.0.0.1", port.port))
        time.sleep(0.05)
    fetched = time.monotonic()
    arrivals = collect(port, 4)
    assert all(arrival.time == arrival.received < fetched for arrival in arrivals)
    assert (np.diff([arrival.time for arrival in arrivals]) > 0).all()
    port.close()


def test_what_the_kernel_dropped_is_counted(sender: socket.socket) -> None:
    port = UdpPort("127.0.0.1", 0, "hint")
    datagram, count = bytes(60000), 400  # 24 MB: more than any buffer that it was given
    for _ in range(count):
        sender.sendto(datagram, ("127.0.0.1", port.port))
    got = 0
    while arrivals := port.receive(0.1):
        got += len(arrivals)
    sender.sendto(b"one more, to tell", ("127.0.0.1", port.port))
    collect(port, 1)
    assert 0 < got < count
    assert port.missed() == count - got
    port.close()


def test_lines_of_a_datagram_come_one_by_one(sender: socket.socket) -> None:
    port = UdpLinePort("127.0.0.1", 0, "hint")
    sender.sendto(b"one\ntwo\r\n\nthree", ("127.0.0.1", port.port))
    assert [arrival.data for arrival in collect(port, 3)] == [b"one", b"two\r", b"three"]
    port.close()


def test_a_datagram_of_very_many_lines_takes_little_memory(sender: socket.socket) -> None:
    port = UdpLinePort("127.0.0.1", 0, "hint")
    sender.sendto(b"x\n" * 30_000, ("127.0.0.1", port.port))
    arrivals = collect(port, 1)
    assert len(arrivals) <= 256
    assert sum(len(arrival.data) for arrival in arrivals) == 2 * 30_000 - len(arrivals) + 1
    port.close()


def test_ports_that_cannot_be_opened_are_refused() -> None:
    port = UdpPort("127.0.0.1", 0, "hint")
    with pytest.raises(StreamError, match=r"cannot listen on .*in use.*that no other program has"):
        UdpPort("127.0.0.1", port.port, "hint")
    port.close()
    with pytest.raises(StreamError, match=r"cannot listen on udp 0\.0\.\.0:5500: no such name"):
        UdpPort("0.0..0", 5500, "")
    with pytest.raises(StreamError, match=r"cannot listen on udp 192\.0\.2\.1:5500"):
        UdpPort("192.0.2.1", 5500, "hint")
