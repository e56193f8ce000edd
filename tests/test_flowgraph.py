# SPDX-License-Identifier: Apache-2.0
"""Replays through a real GNU Radio flowgraph; the messages are decoded here, by hand."""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from rfvit_rt import flowgraph as flowgraph_module
from rfvit_rt.errors import StreamError
from rfvit_rt.flowgraph import Flowgraph, describe, find_flowgraph, find_gnuradio_python, replay
from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.wire.pmt import PmtReader

HEADER = struct.Struct("<HBQQ")
COUNT = 200_003  # no multiple of any buffer


@pytest.fixture
def pull() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver:
        receiver.setsockopt(zmq.RCVTIMEO, 20_000)
        yield receiver


def ramp(count: int) -> np.ndarray:
    """Samples that say their position, within ±1."""
    return (np.arange(count) % 32749 + 1j * (np.arange(count) // 32749)).astype(np.complex64) / 32768


def decode(message: bytes) -> tuple[int, list[tuple[int, str, Any]], np.ndarray]:
    magic, version, offset, count = HEADER.unpack_from(message)
    assert (magic, version) == (0x5FF0, 1)
    reader = PmtReader(memoryview(message)[HEADER.size :])
    tags = []
    for _ in range(count):
        (at,) = reader.unpack(struct.Struct("<Q"))
        key, value, _source = reader.read(), reader.read(), reader.read()
        tags.append((at, key, value))
    return offset, tags, np.frombuffer(bytes(reader.take(reader.remaining)), np.complex64)


def receive(receiver: zmq.Socket[bytes], count: int) -> tuple[np.ndarray, list[tuple[int, str, Any]]]:
    parts, tags, position = [], [], 0
    while position < count:
        offset, new_tags, samples = decode(receiver.recv())
        assert offset == position
        position += len(samples)
        parts.append(samples)
        tags += new_tags
    return np.concatenate(parts), tags


def direct(recording: Recording) -> np.ndarray:
    return np.concatenate([block.samples for block in recording.blocks()])


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize("datatype", ["cf32_le", "ci16_le", "cu8", "ci8", "ci16_be", "cf64_le"])
def test_replay_gives_the_direct_path_s_bits(pull: zmq.Socket[bytes], tmp_path: Path, datatype: str) -> None:
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(COUNT), 1e6, 2.4e9, datatype=datatype))
    with replay(recording, speed=0) as flowgraph:
        pull.connect(flowgraph.endpoint)
        samples, tags = receive(pull, recording.sample_count)
        deadline = time.monotonic() + 10
        while not flowgraph.sent and time.monotonic() < deadline:
            flowgraph.check()
            time.sleep(0.01)
        assert flowgraph.sent
    assert pull.poll(0) == 0  # not one sample too many
    assert samples.tobytes() == direct(recording).tobytes()
    assert tags == [(0, "rx_rate", 1e6), (0, "rx_freq", 2.4e9)]


@pytest.mark.usefixtures("gnuradio_python")
def test_captures_become_tags(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    """Retunes, an unknown frequency, a loss; positions count from 0 though the recording's do not."""
    path = write_recording(tmp_path / "ramp", ramp(90_000), 1e6)
    metadata = json.loads(path.read_text())
    metadata["global"]["core:offset"] = 1000
    metadata["captures"] = [
        {"core:sample_start": 1000, "core:frequency": 1e9, "core:datetime": "2024-01-01T00:00:00.25Z"},
        {"core:sample_start": 31_000, "core:frequency": 2e9, "core:datetime": "2024-01-01T00:00:03.28Z"},
        {"core:sample_start": 31_001},  # its frequency is not known, nor is its time
    ]
    path.write_text(json.dumps(metadata))
    recording = open_recording(path)
    assert [capture.radio_lost for capture in recording.captures] == [0, 3_000_000, 0]
    with replay(recording, speed=0) as flowgraph:
        pull.connect(flowgraph.endpoint)
        samples, tags = receive(pull, 90_000)
    assert samples.tobytes() == direct(recording).tobytes()
    assert [tag for tag in tags if tag[1] == "rx_freq"] == [
        (0, "rx_freq", 1e9),
        (30_000, "rx_freq", 2e9),
        (30_001, "rx_freq", None),
    ]
    assert [tag[0] for tag in tags if tag[1] == "rx_rate"] == [0, 30_000, 30_001]
    times = [(at, tuple(value)) for at, key, value in tags if key == "rx_time"]
    assert [at for at, _ in times] == [0, 30_000, 30_001]
    assert times[0][1] == (1704067200, 0.25)
    # Lost samples by the receiver's rule: Δrx_time · rate - Δoffset.
    steps = [1e6 * ((b[0] - a[0]) + (b[1] - a[1])) for (_, a), (_, b) in itertools.pairwise(times)]
    np.testing.assert_allclose(steps, [30_000 + 3_000_000, 1], atol=1e-3)


@pytest.mark.usefixtures("gnuradio_python")
def test_what_the_recording_does_not_say_is_not_tagged(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(10), 1e6))
    with replay(recording, speed=0) as flowgraph:
        pull.connect(flowgraph.endpoint)
        _, tags = receive(pull, 10)
    assert tags == [(0, "rx_rate", 1e6)]


@pytest.mark.usefixtures("gnuradio_python")
def test_archive_and_headers(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    path = write_recording(tmp_path / "ramp", ramp(5000), 1e6, datatype="ci16_le")
    metadata = json.loads(path.read_text())
    raw = path.with_suffix(".sigmf-data").read_bytes()
    (tmp_path / "tool.dat").write_bytes(b"HEA" + raw + b"END")
    del metadata["global"]["core:sha512"]
    metadata["global"] |= {"core:dataset": "tool.dat", "core:trailing_bytes": 3}
    metadata["captures"] = [{"core:sample_start": 0, "core:header_bytes": 3}]
    (tmp_path / "foreign.sigmf-meta").write_text(json.dumps(metadata))
    with replay(open_recording(tmp_path / "foreign"), speed=0) as flowgraph:
        pull.connect(flowgraph.endpoint)
        samples, _ = receive(pull, 5000)
    assert samples.tobytes() == direct(open_recording(path)).tobytes()

    metadata["captures"].append({"core:sample_start": 100, "core:header_bytes": 3})
    metadata["global"]["core:trailing_bytes"] = 0
    (tmp_path / "foreign.sigmf-meta").write_text(json.dumps(metadata))
    with pytest.raises(StreamError, match="headers between its captures"):
        replay(open_recording(tmp_path / "foreign"))


@pytest.mark.usefixtures("gnuradio_python")
def test_real_time_keeps_the_sample_rate(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    """At 10 samples a second, hours pass before the end; unthrottled, all of it comes at once."""
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(100_000), 10.0, datatype="ci8"))
    with replay(recording, speed=1) as flowgraph:
        pull.connect(flowgraph.endpoint)
        received = sum(len(decode(pull.recv())[2]) for _ in range(4))
        assert 0 < received < 1000
        assert not flowgraph.sent
    recording = open_recording(write_recording(tmp_path / "fast", ramp(100_000), 1e6, datatype="ci8"))
    with replay(recording, speed=1) as flowgraph:
        pull.connect(flowgraph.endpoint)
        assert receive(pull, 100_000)[0].tobytes() == direct(recording).tobytes()


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize("connected", [False, True])
def test_leaving_ends_a_replay_that_nobody_reads(pull: zmq.Socket[bytes], tmp_path: Path, connected: bool) -> None:
    path = write_recording(tmp_path / "long", ramp(10), 1e6, datatype="ci8")
    os.truncate(path.with_suffix(".sigmf-data"), 10**10)
    flowgraph = replay(open_recording(path), speed=0)
    with flowgraph:
        if connected:
            pull.connect(flowgraph.endpoint)
            pull.recv()
        flowgraph.check()
        assert not flowgraph.sent
    with pytest.raises(StreamError, match="ended"):
        flowgraph.check()
    with pytest.raises(ProcessLookupError):
        os.kill(flowgraph._process.pid, 0)


@pytest.mark.usefixtures("gnuradio_python")
def test_a_block_that_fails_is_an_error_not_a_silent_end(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(COUNT), 1e6, datatype="ci8"))
    description = describe(recording) | {"captures": [{"offset": 150_000}]}
    with Flowgraph(find_flowgraph("replay_sigmf.py"), ["--speed", "0"], description) as flowgraph:
        pull.connect(flowgraph.endpoint)
        with pytest.raises(StreamError, match=r"cannot convert the samples: KeyError\('rx_freq'\)"):
            drain_until_it_ends(pull, flowgraph)


@pytest.mark.usefixtures("gnuradio_python")
def test_data_that_shrinks_is_an_error_not_a_silent_end(pull: zmq.Socket[bytes], tmp_path: Path) -> None:
    path = write_recording(tmp_path / "long", ramp(10), 1e6, datatype="ci8")
    data = path.with_suffix(".sigmf-data")
    os.truncate(data, 10**8)
    with replay(open_recording(path), speed=0) as flowgraph:
        os.truncate(data, 10**6)
        pull.connect(flowgraph.endpoint)
        with pytest.raises(StreamError, match="fread error"):
            drain_until_it_ends(pull, flowgraph)


def drain_until_it_ends(receiver: zmq.Socket[bytes], flowgraph: Flowgraph) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        flowgraph.check()
        if receiver.poll(10):
            receiver.recv()


@pytest.mark.usefixtures("gnuradio_python")
def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(10), 1e6))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        flowgraph = Flowgraph(find_flowgraph("replay_sigmf.py"), ["--address", address], describe(recording))
        with pytest.raises(StreamError, match="Address already in use"), flowgraph:
            pass


@pytest.mark.usefixtures("gnuradio_python")
def test_a_script_that_fails_says_its_last_line(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import sys\nprint('first')\nsys.exit('no radio is plugged in')\n")
    with (
        pytest.raises(StreamError, match=r"broken\.py ended \(exit status 1\): no radio is plugged in"),
        Flowgraph(script),
    ):
        pass


@pytest.mark.usefixtures("gnuradio_python")
def test_a_script_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('endpoint tcp://127.0.0.1:1', flush=True)\n"
        "time.sleep(300)\n"
    )
    with Flowgraph(script) as flowgraph:
        assert flowgraph.endpoint == "tcp://127.0.0.1:1"
    assert flowgraph._process.returncode == -9


@pytest.mark.usefixtures("gnuradio_python")
def test_flowgraphs_see_this_package_and_no_other_beside_it(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(
        "import os, rfvit_rt.wire.samples, sys\n"
        "folder = os.path.dirname(os.path.dirname(rfvit_rt.__file__))\n"
        "print('endpoint', *sorted(os.listdir(folder)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with Flowgraph(script) as flowgraph:
        assert flowgraph.endpoint == "rfvit_rt"


def test_impossible_speeds(tmp_path: Path) -> None:
    recording = open_recording(write_recording(tmp_path / "ramp", ramp(10), 1e6))
    for speed in (-1.0, float("inf"), float("nan")):
        with pytest.raises(StreamError, match="speed"):
            replay(recording, speed)


def test_flowgraphs_of_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowgraph_module.rfvit_rt, "__file__", str(tmp_path / "lib" / "rfvit_rt" / "__init__.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(StreamError, match=r"replay_sigmf\.py is neither in"):
        find_flowgraph("replay_sigmf.py")
    installed = tmp_path / "share" / "rfvit" / "flowgraphs" / "replay_sigmf.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert find_flowgraph("replay_sigmf.py") == installed


def test_a_python_without_gnuradio_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFVIT_GNURADIO_PYTHON", "/bin/false")
    find_gnuradio_python.cache_clear()
    try:
        with pytest.raises(StreamError, match="RFVIT_GNURADIO_PYTHON is /bin/false"):
            find_gnuradio_python()
    finally:
        find_gnuradio_python.cache_clear()


def test_the_script_needs_no_sigmf_and_no_site_packages(gnuradio_python: Path) -> None:
    """GNU Radio's Python has NumPy and nothing else of ours."""
    check = (
        "import sys, runpy\n"
        f"runpy.run_path({str(find_flowgraph('replay_sigmf.py'))!r}, run_name='imported')\n"
        "assert not {'sigmf', 'scipy', 'jsonschema', 'rfvit_rt.sources'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(find_flowgraph("replay_sigmf.py").parents[1])}
    subprocess.run([gnuradio_python, "-c", check], check=True, env=environment, timeout=60)
