# SPDX-License-Identifier: Apache-2.0
"""``rfvit sense`` and ``rfvit replay-csi`` as their user meets them: real files, real UDP, good and bad input."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq
from matplotlib.image import imread
from numpy.typing import NDArray

from rfvit_rt import cli
from rfvit_rt.contract import ModelFile
from rfvit_rt.csi_replay import replay_csi
from rfvit_rt.datatypes import Activity
from rfvit_rt.sources.csi_packets import REPLAY_NOTICE
from rfvit_rt.wire.csi import encode_csi
from rfvit_rt.wire.results import SensingStatus, decode

from . import csi_bytes, csi_streams
from .csi_streams import frames, make_model
from .ports import free_port, wait_for_listener

# What is sent live takes its time: the model looks at short windows, and gets more frames in them.
SPEC = replace(csi_streams.SPEC, frame_rate=40.0, min_frame_rate=20.0)
RATE = 100.0  # frames per second
SOON = "0.5"  # seconds without a packet after which a live run of a test ends
PATIENCE = 50  # seconds until a test gives up what it waits for
OTHER_MAC = "02:00:5e:10:00:02"
RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]

Rfvit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return make_model(tmp_path_factory.mktemp("model") / "motion.onnx", SPEC, RATE)


@pytest.fixture
def rfvit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rfvit:
    """Return a function that runs the command line in this process, which is quicker."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["rfvit", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, captured.out, captured.err)

    return run


@pytest.fixture
def sense(rfvit: Rfvit, model: ModelFile) -> Rfvit:
    """Return a function that runs `rfvit sense` with the test's model."""
    return lambda *arguments: rfvit("sense", *arguments, "--model", model.path, "--threads", "1")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """1.2 s of nobody moving, then 1.2 s of somebody."""
    csi = channels([False, True], 1.2)
    path = tmp_path / "capture.pcap"
    path.write_bytes(csi_bytes.pcap(packets(csi), [1.7e9 + number / RATE for number in range(len(csi))]))
    return path


@pytest.fixture
def port() -> int:
    return free_port(socket.SOCK_DGRAM)


def channels(moving: Sequence[bool], seconds: float, seed: int = 0, rate: float = RATE) -> NDArray[np.complex64]:
    return csi_streams.channels(moving, seconds, seed, rate)


def packets(csi: NDArray[np.complex64], mac: str = csi_bytes.MAC) -> list[bytes]:
    """Channel estimates as nexmon_csi sends them."""
    return [csi_bytes.nexmon_payload(row, sequence=number, mac=mac) for number, row in enumerate(csi)]


@contextmanager
def sending(port: int, send: Callable[[], object]) -> Iterator[None]:
    """Send from a thread of its own, once somebody listens."""

    def run() -> None:
        wait_for_listener(port, "udp")
        send()

    sender = threading.Thread(target=run)
    sender.start()
    try:
        yield
    finally:
        sender.join()


def datagrams(port: int, payloads: Iterable[bytes], rate: float = RATE) -> Callable[[], None]:
    """Return what sends payloads to a port, so many a second."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            started = time.monotonic()
            for number, payload in enumerate(payloads):
                time.sleep(max(0.0, started + number / rate - time.monotonic()))
                sender.sendto(payload, ("127.0.0.1", port))

    return send


def results(lines: str) -> tuple[list[Activity], list[SensingStatus]]:
    decoded = [decode(line.encode()) for line in lines.splitlines()]
    activities = [result for result in decoded if isinstance(result, Activity)]
    statuses = [result for result in decoded if isinstance(result, SensingStatus)]
    assert len(activities) + len(statuses) == len(decoded)
    return activities, statuses


def shown(activities: Sequence[Activity]) -> list[tuple[str, float, float]]:
    return [(activity.label, activity.time_start, activity.time_end) for activity in activities]


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that says what is wrong, no traceback, exit status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


# ---- files ----


def test_a_file_gives_everything_that_was_asked_for(sense: Rfvit, capture: Path, tmp_path: Path) -> None:
    done = sense(capture, "--hop", "0.2", "--jsonl", tmp_path / "a.jsonl", "--png", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    activities, statuses = results((tmp_path / "a.jsonl").read_text())
    assert [activity.label for activity in activities] == ["still", "moving"]
    assert activities[0].time_end == pytest.approx(1.2, abs=0.4)
    assert all(status.recorded for status in statuses)
    assert imread(tmp_path / "a.png").shape == (900, 1600, 4)
    for words in (
        f"RECORDED: {capture} is a file; nothing of this is live\n",
        "Frames: 240",
        "Lost frames: 0",
        "OpenVINO",
    ):
        assert words in done.stdout
    assert len(re.findall(r"^ +[0-9.]+ s  (?:still|moving) +\d+%", done.stdout, re.MULTILINE)) == len(statuses) - 1


def test_jsonl_to_standard_output_is_only_json(sense: Rfvit, capture: Path) -> None:
    done = sense(capture, "--jsonl", "-")
    assert done.returncode == 0
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} == {"activity", "sensing"}
    assert "RECORDED" in done.stderr


def test_results_are_published(sense: Rfvit, capture: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as listener:
        endpoint = f"tcp://127.0.0.1:{listener.bind_to_random_port('tcp://127.0.0.1')}"
        listener.unbind(endpoint)  # the port is free, and the listener connects to it
        listener.subscribe(b"")
        listener.connect(endpoint)
        listener.rcvtimeo = PATIENCE * 1000
        for _ in range(20):  # PUB drops what it sends before the listener is there: until it was quick enough
            assert sense(capture, "--publish", endpoint, "--hop", "0.05").returncode == 0
            if listener.poll(500):
                break
        assert isinstance(decode(listener.recv()), Activity | SensingStatus)


def test_outputs_never_replace_what_is_read(sense: Rfvit, capture: Path, model: ModelFile) -> None:
    before = capture.read_bytes()
    check_refused(sense(capture, "--jsonl", capture, "--overwrite"), "is read", "name another file")
    check_refused(sense(capture, "--jsonl", model.path, "--overwrite"), "is read", "name another file")
    check_refused(sense(capture, "--png", capture.with_suffix(".jpg")), ".png")
    assert capture.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no/such.pcap"], ["no/such.pcap"]),
        (["capture.xyz"], ["capture.xyz", ".pcap"]),
        (["tcp://127.0.0.1:5500"], ["tcp://127.0.0.1:5500", "nexmon://"]),
        (["nexmon://127.0.0.1"], ["nexmon://127.0.0.1", "port"]),
        (["esp32:///dev/no-such-port"], ["/dev/no-such-port"]),
        (["nexmon://127.0.0.1:5500", "--mac", "nobody"], ["nobody"]),
        (["nexmon://127.0.0.1:5500", "--idle-timeout", "-1"], ["idle_timeout"]),
        (["nexmon://127.0.0.1:5500", "--duration", "nan"], ["--duration", "positive"]),
        (["nexmon://127.0.0.1:5500", "--duration", "-1"], ["--duration", "positive"]),
        (["nexmon://127.0.0.1:5500", "--hop", "0"], ["--hop", "0.8 s"]),
        (["nexmon://127.0.0.1:5500", "--hop", "0.9"], ["--hop", "0.8 s"]),
        (["nexmon://127.0.0.1:5500", "--hop", "nan"], ["--hop", "0.8 s"]),
        (["nexmon://127.0.0.1:5500", "--threshold", "nan"], ["--threshold", "0 to 1"]),
        (["nexmon://127.0.0.1:5500", "--threshold", "1.5"], ["--threshold", "0 to 1"]),
        (["nexmon://127.0.0.1:5500", "--engine", "abacus"], ["abacus", "openvino"]),
    ],
)
def test_wrong_arguments_are_explained(sense: Rfvit, arguments: list[str], words: list[str]) -> None:
    check_refused(sense(*arguments), *words)


def test_a_model_for_something_else_is_refused(rfvit: Rfvit, capture: Path, model: ModelFile) -> None:
    check_refused(rfvit("sense", capture, "--model", "spectrum-small"), "spectrum-small", "rfvit segment")
    check_refused(rfvit("segment", "zmq+pull://127.0.0.1:1", "--tags", "--model", model.path), "motion", "rfvit sense")


# ---- live ----


def test_live_gives_what_the_file_gives(sense: Rfvit, capture: Path, port: int, tmp_path: Path) -> None:
    """A capture sent again over UDP at its own rate: the same intervals, and not one frame lost."""
    outputs = [f"--jsonl={tmp_path / name}.jsonl" for name in ("file", "live")]
    assert sense(capture, "--hop", "0.2", outputs[0]).returncode == 0
    with sending(port, lambda: replay_csi(capture, f"udp://127.0.0.1:{port}", tell=lambda line: None)):
        done = sense(f"nexmon://127.0.0.1:{port}", "--hop", "0.2", "--idle-timeout", SOON, outputs[1])
    check_refused(done, f"{SOON} s", "silent")
    from_file, from_live = (results((tmp_path / f"{name}.jsonl").read_text()) for name in ("file", "live"))
    assert [a.label for a in from_live[0]] == [a.label for a in from_file[0]] == ["still", "moving"]
    for live, file in zip(from_live[0], from_file[0], strict=True):
        # The times are those at which frames came: a window may begin a frame earlier or later.
        assert live.time_start == pytest.approx(file.time_start, abs=0.21)
        assert live.time_end == pytest.approx(file.time_end, abs=0.21)
        assert live.confidence == pytest.approx(file.confidence, abs=0.1)
    status = from_live[1][-1]
    assert (status.frames, status.lost, status.dropped, status.malformed) == (240, 0, 0, 0)
    assert all(status.recorded for status in from_live[1])  # a replay says that it is one
    assert all(status.result_age is not None and status.result_age > 0 for status in from_live[1])
    assert "Result age: p50 " in done.stdout


def test_esp32_lines_over_udp(sense: Rfvit, port: int) -> None:
    lines = []
    for number, row in enumerate(channels([True], 1.1)):
        values = np.fft.ifftshift(row) / 8  # from subcarrier 0 on, imaginary before real
        parts = np.stack([values.imag, values.real], axis=1).round().astype(int).ravel()
        lines.append(csi_bytes.esp32_line(parts, sequence=number, clock=10_000 * number))
    with sending(port, datagrams(port, lines)):
        done = sense(f"esp32+udp://127.0.0.1:{port}", "--duration", "0.95")
    assert done.returncode == 0, done.stderr
    assert "Device: esp32 20 MHz LLTF\n" in done.stdout
    assert "moving" in done.stdout


def test_a_flowgraphs_frames_over_zeromq(sense: Rfvit, port: int) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
        sender.linger = 0
        sender.sndtimeo = PATIENCE * 1000
        sender.bind(f"tcp://127.0.0.1:{port}")
        messages = [encode_csi(frame) for frame in frames(channels([True], 1.1), RATE)]
        thread = threading.Thread(target=lambda: [sender.send(message) for message in messages])
        thread.start()
        done = sense(f"zmq+pull://127.0.0.1:{port}", "--duration", "0.95")
        thread.join()
    assert done.returncode == 0, done.stderr
    assert "moving" in done.stdout


def test_a_replay_over_zeromq_says_that_it_is_one(sense: Rfvit, capture: Path, port: int) -> None:
    ended = threading.Event()  # the sender waits for a listener until then
    options = {"speed": 1e6, "tell": str, "stop": ended.is_set}
    replay = threading.Thread(target=replay_csi, args=(capture, f"zmq+push://127.0.0.1:{port}"), kwargs=options)
    replay.start()
    done = sense(f"zmq+pull://127.0.0.1:{port}", "--duration", "2.2")
    ended.set()
    replay.join()
    assert done.returncode == 0, done.stderr
    assert "RECORDED: the sender says that it replays a recording" in done.stdout
    assert "RECORDED, not live" in done.stdout


# ---- bad senders ----


def test_a_silent_sender_and_a_port_in_use(sense: Rfvit, port: int, tmp_path: Path) -> None:
    url = f"nexmon://127.0.0.1:{port}"
    outputs = ["--jsonl", tmp_path / "a.jsonl", "--png", tmp_path / "a.png"]
    done = sense(url, "--idle-timeout", "0.5", *outputs)
    check_refused(done, "0.5 s", "sniffer")
    assert "Frames: 0 " in done.stdout
    assert list(tmp_path.iterdir()) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        check_refused(sense(url), str(port), "no other program")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda payload: payload[:16] + b"\x34\x12" + payload[18:], "chip"),
        (lambda payload: payload + bytes(4 * 36), "418 bytes"),
        (lambda payload: payload[:200], "bytes"),
        (lambda payload: payload[:10], "10 bytes"),
        (lambda payload: b"hello, I am no sniffer", "0x6568"),
    ],
    ids=["unknown chip", "unknown bandwidth", "cut short", "no header", "another sender"],
)
def test_packets_that_cannot_be_read_are_counted(
    sense: Rfvit, port: int, damage: Callable[[bytes], bytes], reason: str
) -> None:
    payloads = [damage(payload) for payload in packets(channels([True], 0.15))]
    with sending(port, datagrams(port, payloads)):
        done = sense(f"nexmon://127.0.0.1:{port}", "--idle-timeout", SOON)
    check_refused(done, f"{SOON} s", "15 malformed", reason)
    assert "Malformed: 15 packets, " in done.stdout


def test_bad_packets_among_good_ones_cost_nothing_but_themselves(sense: Rfvit, port: int) -> None:
    good = packets(channels([True], 1.1))
    mixed = [
        part
        for number, payload in enumerate(good)
        for part in ((payload, payload[:99]) if number % 5 == 0 else (payload,))
    ]
    with sending(port, datagrams(port, mixed, rate=RATE * 1.2)):
        done = sense(f"nexmon://127.0.0.1:{port}", "--duration", "0.95")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Malformed: \d\d packets, ", done.stdout, re.MULTILINE), done.stdout
    assert "Lost frames: 0 " in done.stdout


def test_two_transmitters_on_one_port_are_told_apart(sense: Rfvit, port: int) -> None:
    one, other = packets(channels([False], 1.2)), packets(channels([True], 1.2, seed=1), OTHER_MAC)
    # Five packets for every three of the first: it has all of its own, the other two of three.
    mixed = [part for number in range(len(one)) for part in (one[number], other[number])[: 1 + (number % 3 > 0)]]
    url = f"nexmon://127.0.0.1:{port}"
    with sending(port, datagrams(port, mixed, rate=RATE * 5 / 3)):
        done = sense(url, "--duration", "0.95")
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout
    assert csi_bytes.MAC in done.stdout
    assert re.search(r"^Foreign: \d\d packets", done.stdout, re.MULTILINE), done.stdout
    assert "moving" not in done.stdout
    with sending(port, datagrams(port, mixed, rate=RATE * 5 / 3)):
        done = sense(url, "--duration", "0.85", "--mac", OTHER_MAC)
    assert done.returncode == 0, done.stderr
    assert "moving" in done.stdout
    assert "still" not in done.stdout


def test_a_rate_that_is_too_low(sense: Rfvit, port: int) -> None:
    slow = packets(channels([True], 1.5, rate=12.0))
    with sending(port, datagrams(port, slow, rate=12.0)):
        done = sense(f"nexmon://127.0.0.1:{port}", "--idle-timeout", "1")
    check_refused(done, "frames/s", "at least 20")


# ---- the end ----


def test_ctrl_c_keeps_what_was_found(capture: Path, port: int, model: ModelFile, tmp_path: Path) -> None:
    lines, picture = tmp_path / "live.jsonl", tmp_path / "live.png"
    command = [*RFVIT, "sense", f"nexmon://127.0.0.1:{port}", "--model", model.path, "--jsonl", lines, "--png", picture]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ended = threading.Event()
        try:
            with sending(port, lambda: replay_csi(capture, f"udp://127.0.0.1:{port}", tell=str, stop=ended.is_set)):
                deadline = time.monotonic() + PATIENCE
                while not lines.exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=PATIENCE)
                ended.set()
        finally:
            ended.set()
            process.kill()
    assert process.returncode == 130, errors
    assert errors == ""
    activities, _ = results(lines.read_text())
    assert activities
    assert "What happened when" in output
    assert picture.exists()


def test_replay_csi_says_loudly_what_it_is(rfvit: Rfvit, capture: Path, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", port))
        done = rfvit("replay-csi", capture, "--to", f"udp://127.0.0.1:{port}", "--speed", "100")
        assert listener.recv(2000) == REPLAY_NOTICE
        assert listener.recv(2000) == packets(channels([False, True], 1.2))[0]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("REPLAY of the recording capture.pcap to udp://127.0.0.1")
    assert "nothing of it is live" in done.stdout
    assert "240 sent" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["capture.pcap", "--to", "tcp://127.0.0.1:5500"], ["tcp://127.0.0.1:5500", "udp://"]),
        (["capture.pcap", "--to", "udp://127.0.0.1:5500", "--speed", "-1"], ["speed", "-1"]),
        (["missing.pcap", "--to", "udp://127.0.0.1:5500"], ["missing.pcap"]),
    ],
)
def test_wrong_arguments_of_a_replay_are_explained(
    rfvit: Rfvit, capture: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(capture.parent)
    check_refused(rfvit("replay-csi", *arguments), *words)


def test_models_say_what_they_are_for(rfvit: Rfvit, model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfvit_rt.models.shipped_models", lambda: [model])
    monkeypatch.setenv("COLUMNS", "200")
    shown = rfvit("models").stdout
    for words in ("motion", "still ", "moving ", "rfvit sense: CSI of 20 frames/s or more, windows of 0.8 s"):
        assert words in shown
