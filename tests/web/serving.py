# SPDX-License-Identifier: Apache-2.0
"""A server with a stream made here, and pages that speak its protocol through a client of somebody else's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from rfvit_rt.datatypes import Annotation, IQBlock, Mask
from rfvit_rt.figures import Histogram, SegmentationFigures
from rfvit_rt.models import default_model
from rfvit_rt.sinks.prometheus import Address
from rfvit_rt.web.board import Board
from rfvit_rt.web.cells import Cells
from rfvit_rt.web.protocol import Hello, Tile, decode_tile
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.saver import Saver
from rfvit_rt.web.saving import CorrectedCopy
from rfvit_rt.web.server import Server
from rfvit_rt.web.spectrum import SpectrumView

LABELS = ("background", "LTE", "NR")
FREE = Address("127.0.0.1", 0)
PATIENCE = 30  # seconds until a test gives up what it waits for
RATE, FREQUENCY = 2e6, 806e6
BINS, STEPS, STEP = 64, 192, 312.5  # of a stretch; samples in a step
STRETCH = round(STEPS * STEP)  # samples: 30 ms


def figures() -> SegmentationFigures:
    return SegmentationFigures(
        samples=0,
        windows=3,
        lost={"transport": 1, "radio": 2, "dropped": 0, "unusable": 0},
        restarts=0,
        recorded=False,
        simulated=False,
        sample_rate=RATE,
        frequency=FREQUENCY,
        sample_age=Histogram(counts=[0, 0, 0, 0, 90, 5, 4, 1] + 12 * [0]),
        stages={},
    )


@dataclass
class Served:
    """A server and what feeds it."""

    server: Server
    board: Board
    view: SpectrumView
    ring: IQRing
    saver: Saver
    stretches: int = 0

    @property
    def port(self) -> int:
        return self.server.access.address.port

    def feed(self, count: int = 1, label: int = 1) -> None:
        """The next stretches of a stream: noise, and a label in the lower half of the band."""
        for _ in range(count):
            start = self.stretches * STRETCH
            labels = np.zeros((STEPS, BINS), int)
            labels[:, : BINS // 2] = label
            probabilities = np.where(np.arange(len(LABELS)) == labels[:, :, None], 0.9, 0.05).astype(np.float32)
            mask = Mask(probabilities, start, STRETCH, RATE, FREQUENCY)
            picture = np.full((STEPS, BINS), float(self.stretches % 50), np.float32)
            self.view.add_block(self.block(start))
            self.view.add_picture(picture, mask)
            self.view.add_mask(mask)
            self.stretches += 1

    @staticmethod
    def block(start: int) -> IQBlock:
        samples = np.arange(start, start + STRETCH).astype(np.complex64)
        return IQBlock(samples, start, RATE, FREQUENCY, received=time.monotonic())

    def find(self, start: int, count: int = 1000, label: str = "LTE") -> None:
        """The model finds a box."""
        self.view.write(Annotation(label, start, count, FREQUENCY - 5e5, FREQUENCY + 1e5, 0.7, RATE, FREQUENCY))

    def do(self, act: Callable[[], None]) -> None:
        """Something in the server's thread."""
        self.server.post(act)


@contextmanager
def serving(
    folder: Path = Path("/nonexistent"),
    address: Address = FREE,
    run: str = "one",
    seconds: float = 10.0,
    copy: CorrectedCopy | None = None,
    simulated: bool = False,
) -> Iterator[Served]:
    hello = Hello(
        task="segmentation",
        title="<b>a stream</b>",
        run=run,
        labels=LABELS,
        colours={"LTE": "#E69F00"},
        model="none",
        engine="none",
        sample_rate=RATE,
        frequency=FREQUENCY,
        recorded=None,
        simulated=simulated,
        step_seconds=STEP / RATE,
        n_bins=BINS,
        db_min=0.0,
        db_max=51.0,
        power_unit="dB",
        history_seconds=60.0,
        duration=None,
        can_save=True,
        can_correct=True,
        save_seconds=seconds,
    )
    board, ring = Board(hello, figures), IQRing(seconds)
    saver = Saver(board, ring, folder, "a stream", default_model(), copy)
    with Server(address, board, saver) as server:
        view = SpectrumView(server, board, Cells(hello.db_min, hello.db_max), ring, LABELS)
        yield Served(server, board, view, ring, saver)


class Page:
    """A page without a browser: keeps what it was sent, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self.tiles: list[Tile] = []

    def send(self, kind: str, /, **values: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def read(self) -> dict[str, Any] | Tile:
        data = self.socket.recv(PATIENCE)
        if isinstance(data, bytes):
            self.tiles.append(decode_tile(data))
            return self.tiles[-1]
        self.messages.append(json.loads(data))
        return self.messages[-1]

    def until(self, wanted: Callable[[dict[str, Any] | Tile], Any]) -> dict[str, Any] | Tile:
        deadline = time.monotonic() + PATIENCE
        while not wanted(read := self.read()):
            assert time.monotonic() < deadline, self.messages[-20:]
        return read

    def next(self, kind: str, /, **values: Any) -> dict[str, Any]:
        """The next message of a type that has these values; everything before it is kept too."""

        def is_it(read: dict[str, Any] | Tile) -> bool:
            return isinstance(read, dict) and read["type"] == kind and values.items() <= read.items()

        found = self.until(is_it)
        assert isinstance(found, dict)
        return found

    def seen(self, kind: str, /, **values: Any) -> dict[str, Any]:
        """The last message of a type that has these values, waited for if there was none yet."""
        found = [message for message in self.of(kind) if values.items() <= message.items()]
        return found[-1] if found else self.next(kind, **values)

    def next_tile(self, time_end: float = 0.0) -> Tile:
        """The next tile that reaches to a time."""
        found = self.until(lambda read: isinstance(read, Tile) and end_of(read) >= time_end - 1e-6)
        assert isinstance(found, Tile)
        return found

    def reach(self, time_end: float) -> None:
        """Read on until the tiles reach to a time."""
        if not any(end_of(tile) >= time_end - 1e-6 for tile in self.tiles):
            self.next_tile(time_end)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


def end_of(tile: Tile) -> float:
    return tile.time_start + len(tile.power) * tile.row_seconds


@contextmanager
def page(port: int, query: str = "", **options: Any) -> Iterator[Page]:
    """A page that has been told hello."""
    # This client cannot say goodbye while it does not read; that takes its close_timeout twice.
    options = {"max_size": None, "close_timeout": 0.5} | options
    with connect(f"ws://127.0.0.1:{port}/stream{query}", **options) as socket:
        opened = Page(socket)
        opened.next("hello")
        yield opened
