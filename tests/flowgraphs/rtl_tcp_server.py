# SPDX-License-Identifier: Apache-2.0
"""A server that speaks rtl_tcp: an RTL-SDR with an antenna that receives whatever the test says is at a frequency."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from scipy.signal import resample_poly

from rfvit_rt.sources.recording import open_recording
from rfvit_rt.wire.samples import from_complex64

EXAMPLE = Path(__file__).resolve().parents[2] / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
LTE_CENTRE, NR_CENTRE = 2_135_000_000, 2_143_000_000  # of the example's carriers, in Hz
COMMAND = struct.Struct(">BI")
NAMES = {1: "frequency", 2: "sample_rate", 3: "gain_mode", 4: "gain", 8: "agc"}
CHUNK_SECONDS = 0.02
NOISE = 0.038  # standard deviation of I and of Q of the example's own noise


def example_air() -> dict[int, bytes]:
    """The example recording as an RTL-SDR would give it at 10 MS/s, tuned to either of its carriers."""
    recording = open_recording(EXAMPLE)
    samples = np.concatenate([block.samples for block in recording.blocks()])
    seconds = np.arange(len(samples)) / recording.sample_rate
    air = {}
    for centre in (LTE_CENTRE, NR_CENTRE):
        moved = samples * np.exp(-2j * np.pi * (centre - 2.14e9) * seconds).astype(np.complex64)
        air[centre] = from_complex64(resample_poly(moved, 1, 2).astype(np.complex64), "cu8")
    return air


def noise_alone() -> bytes:
    """What an RTL-SDR gives where the example has nothing: no radio is ever silent."""
    noise = NOISE * np.random.default_rng(0).standard_normal((50_000, 2)).view(np.complex128)[:, 0]
    return from_complex64(noise.astype(np.complex64), "cu8")


class RtlTcpServer:
    """Serves one client after the other on a free port of this machine.

    Parameters
    ----------
    air : mapping of int to bytes
        Interleaved unsigned I and Q, endlessly repeated, for every frequency in Hz.
    rate : float
        Samples per second really sent; a test has no time for more.
    chunks : int or None
        Hang up after so many chunks.
    elsewhere : bytes
        As `air`, for any other frequency; none where not given.
    """

    def __init__(
        self, air: Mapping[int, bytes], rate: float, chunks: int | None = None, elsewhere: bytes = b"\x80"
    ) -> None:
        self.commands: list[tuple[str, int]] = []
        self._air = air
        self._elsewhere = elsewhere
        self._bytes = 2 * round(rate * CHUNK_SECONDS)
        self._chunks = chunks
        self._frequency = 0
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"rtl_tcp://127.0.0.1:{self.port}"

    def values(self, name: str) -> list[int]:
        """What the client asked for, in order."""
        return [value for command, value in self.commands if command == name]

    def __enter__(self) -> RtlTcpServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(0.1)
                client.sendall(struct.pack(">4sII", b"RTL0", 5, 29))
                with suppress(OSError):  # the client has gone
                    self._stream(client)

    def _stream(self, client: socket.socket) -> None:
        position, sent, received, due = 0, 0, b"", time.monotonic()
        while not self._over.is_set() and sent != self._chunks:
            received = self._read(client, received)
            band = self._air.get(self._frequency, self._elsewhere)
            start = position % len(band)
            chunk = (band[start:] + band * (self._bytes // len(band) + 1))[: self._bytes]
            self._send(client, chunk)
            position += self._bytes
            sent += 1
            due += CHUNK_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))

    def _send(self, client: socket.socket, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view and not self._over.is_set():
            try:
                view = view[client.send(view) :]
            except TimeoutError:  # a client that reads slowly
                continue

    def _read(self, client: socket.socket, received: bytes) -> bytes:
        client.setblocking(False)
        try:
            data = client.recv(4096)
            if not data:
                raise ConnectionResetError
            received += data
        except BlockingIOError:
            pass
        finally:
            client.settimeout(0.1)
        while len(received) >= COMMAND.size:
            code, value = COMMAND.unpack_from(received)
            received = received[COMMAND.size :]
            self.commands.append((NAMES.get(code, str(code)), value))
            if code == 1:
                self._frequency = value
        return received
