# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
import tty
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from rfvit_rt.errors import StreamError
from rfvit_rt.sources.csi_serial import SerialPort


class Board(NamedTuple):
    """The other end of a serial port that the kernel makes."""

    end: int
    path: str


@pytest.fixture
def board() -> Iterator[Board]:
    end, port = os.openpty()
    tty.setraw(port)
    path = os.ttyname(port)
    yield Board(end, path)
    for descriptor in (end, port):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test closed it


def lines(port: SerialPort, count: int) -> list[bytes]:
    got: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(got) < count:
        assert time.monotonic() < deadline
        got += [arrival.data for arrival in port.receive(0.1)]
    return got


def test_lines_come_whole_however_the_octets_come(board: Board) -> None:
    port = SerialPort(board.path, 921600)
    for part in (b"half a l", b"ine\r\ntwo\nthr", b"ee\n"):
        os.write(board.end, part)
        time.sleep(0.02)
    assert lines(port, 3) == [b"half a line\r", b"two", b"three"]
    os.write(board.end, b"without an end")
    assert port.receive(0.1) == []
    port.close()


def test_noise_without_line_ends_does_not_fill_memory(board: Board) -> None:
    port = SerialPort(board.path, 115200)
    sent = 0
    while sent < 50_000:
        sent += os.write(board.end, b"\xf0" * 1000)
        assert port.receive(0.01) == []
        assert len(port._rest) < 20_000
    os.write(board.end, b"its end\ngood\n")
    assert lines(port, 1) == [b"good"]
    port.close()


def test_a_board_that_is_unplugged_is_an_error(board: Board) -> None:
    port = SerialPort(board.path, 921600)
    os.close(board.end)
    with pytest.raises(StreamError, match="unplugged"):
        lines(port, 1)
    port.close()


def test_ports_that_cannot_be_opened_are_refused(board: Board) -> None:
    with pytest.raises(
        StreamError, match=r"cannot open /dev/nothing at 921600 baud: .*No such file.*serial ports here"
    ):
        SerialPort("/dev/nothing", 921600)
    port = SerialPort(board.path, 921600)
    with pytest.raises(StreamError, match="another program has it open"):
        SerialPort(board.path, 921600)
    port.close()
