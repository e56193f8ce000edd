# SPDX-License-Identifier: Apache-2.0
"""The command line as its user meets it: in a process of its own, with good and with bad input."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sigmf
import zmq

from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, Tag, encode_stream_message
from rfvit_rt.wire.results import decode

EXAMPLE = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
PATIENCE = 50  # seconds until a test gives up what it waits for


def rfvit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RFVIT, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`rfvit` running beside the test, and gone after it."""
    command = [*RFVIT, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that says what is wrong, no traceback, exit status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    return tmp_path / EXAMPLE.name


@pytest.fixture
def sender(port: int) -> Iterator[zmq.Socket[bytes]]:
    """A PUSH socket that listens; what it sends waits for a reader, but not for ever."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.sndtimeo = PATIENCE * 1000
        socket.bind(f"tcp://127.0.0.1:{port}")
        yield socket


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_help_and_version_answer() -> None:
    assert "segment" in rfvit("--help").stdout
    assert "zmq+pull" in rfvit("segment", "--help").stdout
    assert rfvit("--version").stdout.startswith("rfvit-rt ")
    assert "lte-nr-tiny" in rfvit("models").stdout


def test_segment_writes_everything_that_was_asked_for(example: Path, tmp_path: Path) -> None:
    done = rfvit("segment", example, "--jsonl", tmp_path / "a.jsonl", "--png", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    for word in ("LTE", "NR", "Lost samples: 0", "Achieved rate", "Sample age: p50", "Engine: OpenVINO"):
        assert word in done.stdout
    output = tmp_path / "lte_nr_20MHz.rfvit.sigmf-meta"
    recording = sigmf.fromfile(output)
    recording.validate()
    found = [a for a in recording.get_annotations() if "rfvit:model" in a]
    lines = [decode(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert len([line for line in lines if hasattr(line, "sample_start")]) == len(found) < len(lines)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert len(recording.read_samples(count=10)) == 10  # it points at the same data


def test_the_example_is_segmented_right(example: Path) -> None:
    """LTE at 2132.75 to 2137.25 MHz all the time; NR at 2138.3 to 2147.7 MHz from 50 ms on."""
    assert rfvit("segment", example).returncode == 0
    metadata = json.loads(example.with_name("lte_nr_20MHz.rfvit.sigmf-meta").read_text())
    found = [a for a in metadata["annotations"] if "rfvit:model" in a]
    lte = [a for a in found if a["core:label"] == "LTE"]
    nr = [a for a in found if a["core:label"] == "NR"]
    assert sum(a["core:sample_count"] for a in lte) > 0.9 * 3_000_000
    for annotation in lte:
        assert annotation["core:freq_lower_edge"] == pytest.approx(2132.75e6, abs=0.4e6)
        assert annotation["core:freq_upper_edge"] == pytest.approx(2137.25e6, abs=0.4e6)
    assert nr
    for annotation in nr:
        assert annotation["core:sample_start"] > 0.99 * 1_000_000
        assert annotation["core:freq_lower_edge"] > 2137.9e6
        assert annotation["core:freq_upper_edge"] < 2148.1e6


def test_nothing_is_overwritten_unless_asked(example: Path) -> None:
    output = example.with_name("lte_nr_20MHz.rfvit.sigmf-meta")
    output.write_text("mine")
    check_refused(rfvit("segment", example), str(output), "--overwrite")
    assert output.read_text() == "mine"
    assert rfvit("segment", example, "--overwrite").returncode == 0
    check_refused(rfvit("segment", example, "--output", example, "--overwrite"), "never overwritten")


def test_jsonl_to_standard_output_is_only_json(example: Path) -> None:
    done = rfvit("segment", example, "--jsonl", "-")
    assert done.returncode == 0
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} == {"annotation", "emission"}
    assert "Lost samples" in done.stderr


def test_bad_recordings_are_refused(example: Path, tmp_path: Path) -> None:
    check_refused(rfvit("segment", tmp_path / "missing.sigmf-meta"), "missing")
    data = example.with_suffix(".sigmf-data")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    check_refused(rfvit("segment", example), "lte_nr_20MHz")
    data.unlink()
    check_refused(rfvit("segment", example), "lte_nr_20MHz")
    example.write_text("{")
    check_refused(rfvit("segment", example), "JSON")
    assert not list(tmp_path.glob("*.rfvit.*"))


def test_a_rate_outside_the_model_is_refused(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "slow", np.zeros(50_000, np.complex64), 250e3)
    check_refused(rfvit("segment", recording), "0.25 MS/s", "resample")


def test_not_a_number_keeps_what_came_before(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((400_000, 2), np.float32).view(np.complex64)[:, 0]
    samples[300_000] = np.nan
    recording = write_recording(tmp_path / "nan", samples, 2e6)
    done = rfvit("segment", recording)
    check_refused(done, "sample 300000")
    assert (tmp_path / "nan.rfvit.sigmf-meta").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zmq+pull://127.0.0.1:1"], ["--sample-rate"]),
        (["zmq+push://127.0.0.1:5555"], ["zmq+pull"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--output", "x.sigmf-meta"], ["--jsonl"]),
        ([EXAMPLE, "--sample-rate", "2e6"], ["--sample-rate", "recording"]),
        ([EXAMPLE, "--model", "no-such"], ["no-such", "lte-nr-tiny"]),
        ([EXAMPLE, "--engine", "abacus", "--output", "/dev/shm/x.sigmf-meta"], ["abacus", "openvino"]),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], words: list[str]) -> None:
    check_refused(rfvit("segment", *arguments), *words)


def test_a_silent_stream_and_a_port_in_use(port: int) -> None:
    url = f"zmq+pull://127.0.0.1:{port}"
    check_refused(rfvit("segment", url, "--sample-rate", "2e6", "--idle-timeout", "1"), str(port))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        check_refused(rfvit("segment", url, "--sample-rate", "2e6", "--bind"), str(port), "uses this port")
        check_refused(rfvit("segment", EXAMPLE, "--publish", f"tcp://127.0.0.1:{port}"), str(port), "in use")


def test_a_sender_of_another_format_is_named(port: int, sender: zmq.Socket[bytes]) -> None:
    with started("segment", f"zmq+pull://127.0.0.1:{port}", "--tags") as process:
        sender.send(b"hello, I am not samples")
        check_refused(ended(process), "--no-tags")


def test_live_stream_ends_cleanly_at_ctrl_c(port: int, sender: zmq.Socket[bytes], tmp_path: Path) -> None:
    """A tagged stream that stops in mid-air: Ctrl-C writes what was found, the report counts the loss exactly."""
    lines = tmp_path / "live.jsonl"
    samples = np.fromfile(EXAMPLE.with_suffix(".sigmf-data"), np.int8).astype(np.float32).view(np.complex64)
    tags = (Tag(0, "rx_rate", 20e6), Tag(0, "rx_freq", 2.14e9))
    url = f"zmq+pull://127.0.0.1:{port}"
    with started("segment", url, "--tags", "--idle-timeout", "1000", "--jsonl", lines) as process:
        for start in range(0, 2_800_000, 8000):
            if start == 800_000:
                continue  # one message is lost; two windows later, the boxes before it are given out
            message = StreamMessage(samples[start : start + 8000], start, tags if start == 0 else ())
            sender.send_multipart(encode_stream_message(message, StreamFormat(tags=True)))
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "Lost samples: 8,000 (on the way 8,000," in done.stdout
    found = [decode(line) for line in lines.read_bytes().splitlines()]
    starts = [(a.sample_start, a.sample_start + a.sample_count) for a in found if hasattr(a, "sample_start")]
    assert starts
    assert not any(start < 800_000 < end for start, end in starts)  # no box reaches over the gap


@pytest.mark.usefixtures("gnuradio_python")
def test_ctrl_c_in_a_replay_keeps_what_was_found(example: Path, tmp_path: Path) -> None:
    """Retuned all the time, so that boxes end and are given out while the replay goes on."""
    retuned = json.loads(example.read_text())
    retuned["captures"] = [
        {"core:sample_start": 250_000 * number, "core:frequency": (2.14e9, 2.24e9)[number % 2]} for number in range(12)
    ]
    example.write_text(json.dumps(retuned))
    lines = tmp_path / "replay.jsonl"
    with started("replay", example, "--speed", "0.02", "--jsonl", lines) as process:
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    metadata = json.loads(example.with_name("lte_nr_20MHz.rfvit.sigmf-meta").read_text())
    kept = [(a["core:sample_start"], a["core:sample_count"]) for a in metadata["annotations"] if "rfvit:model" in a]
    found = [decode(line) for line in lines.read_bytes().splitlines()]
    assert sorted(kept) == sorted((a.sample_start, a.sample_count) for a in found if hasattr(a, "sample_start"))
    assert all(start + count < 3_000_000 for start, count in kept)  # it did not run to its end
