# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfvit_rt.csi_replay import REPLAY_MARK, ReplayReport, replay_csi
from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import RecordingError, StreamError
from rfvit_rt.sources.csi import CSISource, open_csi
from rfvit_rt.sources.csi_packets import REPLAY_NOTICE
from rfvit_rt.sources.csi_udp import UdpPort

from .csi_bytes import ESP_CSI_C6, channel, csi_sample, esp32_line, intel_log, intel_record, nexmon_payload, pcap
from .ports import free_port

COUNT = 40
RATE = 100.0
PAYLOADS = [nexmon_payload(channel(64, number=number), sequence=number) for number in range(COUNT)]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap(PAYLOADS, [1.7e9 + number / RATE for number in range(COUNT)]))
    return path


@pytest.fixture
def listener() -> Iterator[UdpPort]:
    port = UdpPort("127.0.0.1", 0, "")
    yield port
    port.close()


@pytest.fixture
def port() -> int:
    return free_port()


def read(source: CSISource, count: int) -> list[CSIFrame]:
    frames = iter(source)
    return [next(frames) for _ in range(count)]


def in_background(*arguments: Any, **options: Any) -> tuple[threading.Thread, list[ReplayReport]]:
    reports: list[ReplayReport] = []
    thread = threading.Thread(target=lambda: reports.append(replay_csi(*arguments, **options)))
    thread.start()
    return thread, reports


def test_packets_go_out_as_they_were_captured(capture: Path, listener: UdpPort) -> None:
    told: list[str] = []
    report = replay_csi(capture, f"udp://127.0.0.1:{listener.port}", speed=4, tell=told.append)
    arrivals = []
    while batch := listener.receive(0.2):
        arrivals += batch
    assert [arrival.data for arrival in arrivals] == [REPLAY_NOTICE, *PAYLOADS]
    assert (report.sent, report.stopped) == (COUNT, False)
    assert "REPLAY of the recording capture.pcap" in told[0]
    assert "nothing of it is live" in told[0]
    assert f"{COUNT} sent" in told[-1]


def test_a_capture_whose_clock_was_set_back_is_no_flood(tmp_path: Path, listener: UdpPort) -> None:
    path = tmp_path / "capture.pcap"
    back = COUNT // 2
    times = [1.7e9 + (5 if number < back else 0) + number / RATE for number in range(COUNT)]
    path.write_bytes(pcap(PAYLOADS, times))
    report = replay_csi(path, f"udp://127.0.0.1:{listener.port}", speed=20, tell=lambda line: None)
    assert (
        report.elapsed >= ((COUNT - 2) / RATE + 2) / 20
    )  # 2 s where it went back: longer than any window reaches over
    assert report.sent == COUNT


def test_nothing_leaves_before_its_time_and_lateness_does_not_add_up(capture: Path, listener: UdpPort) -> None:
    """Each packet's time is reckoned from the first, so that a machine that is held up once catches up."""
    report = replay_csi(capture, f"udp://127.0.0.1:{listener.port}", speed=2, tell=lambda line: None)
    whole = (COUNT - 1) / RATE / 2
    assert whole <= report.elapsed <= whole + report.latest + 1e-6


def test_a_live_reader_gives_what_the_file_gives(capture: Path, port: int) -> None:
    with open_csi(capture) as file:
        recorded = list(file)
    with open_csi(f"nexmon://127.0.0.1:{port}") as source:
        thread, reports = in_background(capture, f"udp://127.0.0.1:{port}", speed=2, tell=lambda line: None)
        live = read(source, COUNT)
        thread.join()
    for one, other in zip(live, recorded, strict=True):
        np.testing.assert_array_equal(one.csi, other.csi)
        np.testing.assert_array_equal(one.subcarriers, other.subcarriers)
        assert (one.device, one.frame_index) == (other.device, other.frame_index)
    assert reports[0].sent == COUNT
    assert (source.statistics.lost, source.statistics.unusable) == (0, 0)
    assert source.replayed
    assert not file.replayed


def test_lines_of_boards_are_replayed_by_the_boards_clock(tmp_path: Path, port: int) -> None:
    path = tmp_path / "lines.csv"
    lines = [
        esp32_line([1, 2] * 128, ESP_CSI_C6, sequence=number, clock=(2**32 - 100_000 + number * 5000) % 2**32)
        for number in range(COUNT)
    ]
    lines[5:5] = [b"a log line\n", lines[5][:60] + b"\n"]
    path.write_bytes(b"".join(lines))
    with open_csi(f"esp32+udp://127.0.0.1:{port}") as source:
        thread, reports = in_background(path, f"udp://127.0.0.1:{port}", tell=lambda line: None)
        frames = read(source, COUNT)
        thread.join()
    assert [frame.frame_index for frame in frames] == list(range(COUNT))
    assert reports[0].sent == COUNT
    assert reports[0].elapsed >= (COUNT - 1) * 0.005
    assert source.replayed


def test_frames_over_zeromq_say_that_they_are_a_replay(tmp_path: Path, port: int) -> None:
    path = tmp_path / "log.dat"
    estimates = [np.full((3, 1, 30), number + 1j, np.complex64) for number in range(COUNT)]
    path.write_bytes(
        intel_log(intel_record(one, clock=number * 1000, count=number) for number, one in enumerate(estimates))
    )
    told: list[str] = []
    thread, reports = in_background(path, f"zmq+push://127.0.0.1:{port}", tell=told.append)
    with open_csi(f"zmq+pull://127.0.0.1:{port}") as source:
        frames = read(source, COUNT)
    thread.join()
    with open_csi(path) as file:
        for one, other in zip(frames, file, strict=True):
            np.testing.assert_array_equal(one.csi, other.csi)
            assert one.device == other.device + REPLAY_MARK == "intel5300 20 MHz (replay)"
            assert (one.frame_index, one.agc) == (other.frame_index, other.agc)
            assert one.timestamp == pytest.approx(other.timestamp)
    assert reports[0].sent == COUNT
    assert any("waiting for a listener at zmq+pull://" in line for line in told)
    assert any(line.startswith("following intel5300") for line in told)


@pytest.mark.parametrize("scheme", ["udp", "zmq+push"])
def test_a_replay_can_be_stopped(capture: Path, port: int, scheme: str) -> None:
    """Before a listener comes, or before a packet that is due in days."""
    capture.write_bytes(pcap(PAYLOADS[:20] + PAYLOADS[:1], [float(number > 19) * 1e6 + number for number in range(21)]))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    report = replay_csi(capture, f"{scheme}://127.0.0.1:{port}", speed=1e5, stop=stop.is_set, tell=lambda line: None)
    assert report.stopped
    assert report.sent == (20 if scheme == "udp" else 0)


def test_as_fast_as_it_goes(tmp_path: Path, listener: UdpPort) -> None:
    path = tmp_path / "days.pcap"
    path.write_bytes(pcap(PAYLOADS, [number * 86400.0 for number in range(COUNT)]))
    assert replay_csi(path, f"udp://127.0.0.1:{listener.port}", speed=0, tell=lambda line: None).sent == COUNT


def test_nobody_needs_to_listen_to_datagrams(capture: Path, port: int) -> None:
    assert replay_csi(capture, f"udp://127.0.0.1:{port}", speed=0, tell=lambda line: None).sent == COUNT


@pytest.mark.parametrize(
    ("to", "options", "match"),
    [
        ("http://127.0.0.1:5500", {}, "nowhere to replay to; expected udp://HOST:PORT or zmq"),
        ("udp://127.0.0.1", {}, "nowhere to replay to"),
        ("udp://127.0.0.1:99999", {}, "is not a URL"),
        ("udp://127.0.0.1:5500/path", {}, "nowhere to replay to"),
        ("udp://no.such.host.invalid:5500", {}, "cannot send to"),
        ("udp://a..b:5500", {}, "cannot send to .*: no such name"),
        ("zmq+push://192.0.2.1:5555", {}, "cannot listen at"),
        ("udp://127.0.0.1:5500", {"speed": -1}, "speed is -1"),
        ("udp://127.0.0.1:5500", {"speed": float("nan")}, "speed is nan"),
    ],
)
def test_what_cannot_be_done_is_refused(capture: Path, to: str, options: dict[str, float], match: str) -> None:
    with pytest.raises(StreamError, match=match):
        replay_csi(capture, to, tell=lambda line: None, **options)


def test_files_that_cannot_be_replayed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.dat").write_bytes(intel_log([intel_record(np.zeros((3, 1, 30), np.complex64))]))
    (tmp_path / "lines.csv").write_bytes(b"nothing\n")
    for name, error, match in [
        ("log.dat", StreamError, "no listener reads the records of log.dat over UDP; replay it to zmq"),
        ("lines.csv", RecordingError, "holds nothing that can be replayed"),
        ("missing.pcap", RecordingError, "no file at"),
        ("picture.png", RecordingError, "no kind of CSI file"),
    ]:
        with pytest.raises(error, match=match):
            replay_csi(tmp_path / name, "udp://127.0.0.1:5500", tell=lambda line: None)


def test_a_real_capture_at_its_own_rate(port: int) -> None:
    path = csi_sample("nexmon/bcm43455c0_fition_standup_new_rssi_fc_120pkt.pcap")
    with open_csi(path) as file:
        recorded = list(file)
    with open_csi(f"nexmon://127.0.0.1:{port}") as source:
        started = time.monotonic()
        thread, reports = in_background(path, f"udp://127.0.0.1:{port}", tell=lambda line: None)
        live = read(source, len(recorded))
        thread.join()
    assert time.monotonic() - started >= recorded[-1].timestamp - recorded[0].timestamp
    assert source.statistics.lost == source.statistics.dropped == 0
    for one, other in zip(live, recorded, strict=True):
        np.testing.assert_array_equal(one.csi, other.csi)
        assert one.device == other.device
    # Live times are the capture's, up to what the machine's load does to single packets.
    offsets = np.array([one.timestamp - other.timestamp for one, other in zip(live, recorded, strict=True)])
    assert np.median(np.abs(offsets - np.median(offsets))) < 0.01
    assert reports[0].sent == len(recorded)
