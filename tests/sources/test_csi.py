# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import os
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import RecordingError, StreamError
from rfvit_rt.sources import csi
from rfvit_rt.sources.csi import CSISource, open_csi
from rfvit_rt.sources.csi_frames import SETTLING_FRAMES, CSIStatistics
from rfvit_rt.wire.csi import encode_csi

from ..csi_bytes import (
    CSI_TOOL,
    ESP_CSI_C6,
    MAC,
    channel,
    csi_sample,
    esp32_line,
    intel_log,
    intel_record,
    narrow_channel,
    nexmon_payload,
    pcap,
)
from ..ports import free_port

PATIENCE = 30.0
OTHER_MAC = "02:00:5e:10:00:02"
NARROW = np.array([tone - 96 for tone in range(-28, 29) if tone])  # a 20 MHz frame in a capture of 80 MHz


def payloads(numbers: Iterable[int], **options: Any) -> list[bytes]:
    return [
        nexmon_payload(narrow_channel(256, NARROW, number=number), sequence=number % 4096, **options)
        for number in numbers
    ]


def lines(numbers: Iterable[int], mac: str = MAC, **options: Any) -> list[bytes]:
    guard = [0] * 12
    values = [value for tone in range(-58, 59) for value in ((tone % 50, tone % 90) if abs(tone) > 1 else (0, 0))]
    whole = guard + values + [0] * 10
    return [
        esp32_line(whole, ESP_CSI_C6, sequence=number, clock=number * 10_000 % 2**32, mac=mac, **options)
        for number in numbers
    ]


def write_pcap(folder: Path, packets: list[bytes], rate: float = 50.0) -> Path:
    path = folder / "capture.pcap"
    path.write_bytes(pcap(packets, [1.7e9 + number / rate for number in range(len(packets))]))
    return path


def read(path: Path | str, **options: Any) -> tuple[list[CSIFrame], CSISource]:
    with open_csi(path, **options) as source:
        return list(source), source


def assert_ascending(frames: list[CSIFrame]) -> None:
    assert (np.diff([frame.timestamp for frame in frames]) > 0).all()
    assert (np.diff([frame.frame_index for frame in frames]) > 0).all()


# Files.


def test_a_capture_gives_the_band_its_frames_fill(tmp_path: Path) -> None:
    path = write_pcap(tmp_path, payloads(range(100), rssi=-44))
    frames, source = read(path)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.csi[0], channel(256, number=number)[NARROW + 128])
        np.testing.assert_array_equal(frame.subcarriers, (NARROW + 96).astype(np.int16), strict=True)
        assert (frame.device, frame.frame_index) == ("nexmon bcm43455c0 20 MHz", number)
        np.testing.assert_array_equal(frame.rssi, np.array([-44], np.float32), strict=True)
        assert frame.timestamp == pytest.approx(1.7e9 + number / 50, abs=1e-6)
    assert source.statistics == CSIStatistics(packets=100, frames=100)
    assert not source.live
    (notice,) = source.take_notices()
    assert "80 MHz" in notice
    assert notice.endswith("as nexmon bcm43455c0 20 MHz")
    assert source.take_notices() == []


def test_foreign_and_malformed_packets_of_a_capture_are_counted_and_named(tmp_path: Path) -> None:
    packets = payloads(range(200))
    packets[10:20] = payloads(range(10, 20), mac=OTHER_MAC)
    packets[30] = packets[30][:-2]
    packets[40] = b"\x11\x11" + bytes(300)
    packets[50:60] = [b"other traffic"] * 10
    frames, source = read(write_pcap(tmp_path, packets))
    lost = [*range(10, 20), 30, 40, *range(50, 60)]
    assert [frame.frame_index for frame in frames] == [number for number in range(200) if number not in lost]
    statistics = source.statistics
    assert (statistics.lost, statistics.foreign, statistics.ignored) == (22, 10, 10)
    assert statistics.malformed == {"impossible length": 1, "unknown chip": 1}
    assert f"10 of nexmon bcm43455c0 80 MHz {OTHER_MAC}" in source.take_notices()[1]
    frames, _ = read(tmp_path / "capture.pcap", mac=OTHER_MAC.upper().replace(":", "-"))
    assert [frame.frame_index for frame in frames] == list(range(10, 20))


def test_frames_that_are_counted_apart_are_told_apart(tmp_path: Path) -> None:
    """A router's beacons have a count of their own, and are no loss among its data frames."""
    packets = []
    for number in range(100):
        packets += payloads([number], frame_control=0x88)
        packets += payloads([3000 + number], frame_control=0x80) if number % 5 == 0 else []
    frames, source = read(write_pcap(tmp_path, packets))
    assert [frame.frame_index for frame in frames] == list(range(100))
    assert (source.statistics.lost, source.statistics.foreign) == (0, 20)


def test_control_frames_have_no_count(tmp_path: Path) -> None:
    """What stands in the place of a sequence number means nothing there."""
    packets = payloads(range(0, 250, 5), frame_control=0x94)
    frames, source = read(write_pcap(tmp_path, packets))
    assert [frame.frame_index for frame in frames] == list(range(50))
    assert source.statistics.lost == 0


def test_a_damaged_capture_gives_the_frames_before_the_damage(tmp_path: Path) -> None:
    path = write_pcap(tmp_path, payloads(range(10)))
    path.write_bytes(path.read_bytes() + b"\xff" * 100)
    with open_csi(path) as source:
        frames = iter(source)
        assert [next(frames).frame_index for _ in range(10)] == list(range(10))
        with pytest.raises(RecordingError, match="damaged"):
            next(frames)


def test_lines_of_boards(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    text = lines(range(2**32 - 5, 2**32)) + lines(range(0, 300))
    text[50] = text[50][:100] + text[51]  # spliced: both are gone
    del text[51]
    path.write_bytes(b"type,seq,mac\nI (100) wifi: log\n" + b"".join(text))
    frames, source = read(path)
    assert [frame.frame_index - (2**32 - 5) for frame in frames] == [n for n in range(305) if n not in (50, 51)]
    assert_ascending(frames)
    statistics = source.statistics
    assert (statistics.lost, statistics.ignored, statistics.malformed) == (2, 2, {"spliced line": 1})
    assert (frames[0].device, frames[0].agc) == ("esp32-c5/c6 40 MHz HT-LTF", 20.0)


def test_frames_without_the_widest_training_field_are_left_out_or_all_give_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    text = [
        esp32_line([1, 2] * (192 if number % 4 else 64), CSI_TOOL, clock=number * 1000, secondary=1)
        if number % 4 == 0
        else esp32_line([1, 2] * 192, CSI_TOOL, clock=number * 1000, sig_mode=1, bandwidth=1, secondary=1)
        for number in range(100)
    ]
    path.write_bytes(b"".join(text))
    frames, source = read(path)
    assert (len(frames), {frame.csi.shape for frame in frames}) == (75, {(1, 114)})
    assert source.statistics.foreign == 25
    frames, source = read(path, legacy=True)
    assert (len(frames), {frame.csi.shape for frame in frames}) == (100, {(1, 52)})
    assert source.statistics.foreign == 0


def test_logs_of_intel(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    csi_of = [(rng.integers(-99, 99, (3, 2, 30)) + 1j).astype(np.complex64) for _ in range(40)]
    records = [
        intel_record(one, clock=number * 50_000, count=65530 + number & 0xFFFF, rssi=(31, 40, 35), agc=35)
        for number, one in enumerate(csi_of)
    ]
    del records[20]
    records[30] = b"\xc1 payload"
    path = tmp_path / "log.dat"
    path.write_bytes(intel_log(records))
    frames, source = read(path, stop=lambda: False)
    assert [frame.frame_index - 65530 for frame in frames] == [n for n in range(40) if n not in (20, 31)]
    np.testing.assert_array_equal(frames[0].csi, csi_of[0].reshape(6, 30))
    np.testing.assert_allclose(frames[0].rssi, [-48, -48, -39, -39, -44, -44])
    assert (frames[0].device, frames[0].agc) == ("intel5300 20 MHz", 35.0)
    assert (source.statistics.lost, source.statistics.ignored) == (2, 1)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.csv", b"", "holds no CSI frame that can be used; it is empty"),
        ("a.csv", b"one\ntwo\n", "2 packets or lines came; 2 that are no CSI"),
        ("a.csv", b"CSI_DATA,1,2\n", "1 malformed, the last because: spliced line: "),
        ("a.pcap", pcap([b"DNS"], [1.0]), "1 that are no CSI"),
    ],
)
def test_files_without_a_frame_say_what_they_hold(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordingError, match=match):
        read(tmp_path / name)


def test_a_file_without_the_chosen_transmitter_names_those_it_has(tmp_path: Path) -> None:
    path = write_pcap(tmp_path, payloads(range(5)))
    with pytest.raises(RecordingError, match=f"5 not from {OTHER_MAC}, mostly from {MAC}"):
        read(path, mac=OTHER_MAC)


def test_a_hundred_thousand_packets_do_not_wait_in_memory(tmp_path: Path) -> None:
    """The first frame comes long before the end of the file is read."""
    path = tmp_path / "long.pcap"
    one = pcap(payloads([0]), [1.0])
    path.write_bytes(one[:24] + one[24:] * 20_000)
    with open_csi(path) as source:
        next(iter(source))
        assert source.statistics.packets < 5000


@pytest.mark.parametrize(
    ("name", "count", "shape", "device"),
    [
        ("nexmon/bcm4339_60pkt.pcap", 20, (3, 52), "nexmon bcm4339 20 MHz non-HT"),
        ("nexmon/bcm43455c0_csikit_pull256_200pkt.pcap", 200, (1, 104), "nexmon bcm43455c0 40 MHz non-HT"),
        ("nexmon/bcm43455c0_fition_standup_new_rssi_fc_120pkt.pcap", 120, (1, 56), "nexmon bcm43455c0 20 MHz"),
        ("nexmon/bcm43455c0_fition_walking_old11111111_250pkt.pcap", 250, (1, 56), "nexmon bcm43455c0 20 MHz"),
        ("nexmon/bcm4358_example_4pkt.pcap", 1, (4, 242), "nexmon bcm4358 80 MHz"),
        ("nexmon/bcm4366c0_60pkt.pcap", 60, (1, 52), "nexmon bcm4366c0 20 MHz non-HT"),
        ("intel5300/har_walk.dat", 320, (3, 30), "intel5300 20 MHz"),
        ("intel5300/csiread_sample_0x1_ap_200rec.dat", 200, (6, 30), "intel5300 20 MHz"),
        ("esp32/espcsi_c6_15col_no_activity_200lines.csv", 199, (1, 114), "esp32-c5/c6 40 MHz HT-LTF"),
        ("esp32/esp32csitool_ht40_384_with_host_timestamp_200lines.csv", 176, (1, 114), "esp32 40 MHz HT-LTF"),
    ],
)
def test_real_files(name: str, count: int, shape: tuple[int, int], device: str) -> None:
    frames, source = read(csi_sample(name))
    assert len(frames) == count
    assert {frame.csi.shape for frame in frames} == {shape}
    assert {frame.device for frame in frames} == {device}
    assert_ascending(frames)
    assert all(np.isfinite(frame.csi).all() for frame in frames)
    assert source.statistics.lost == 0


def test_real_files_that_are_not_read_say_why() -> None:
    with pytest.raises(RecordingError, match="logs of the Atheros tool"):
        read(csi_sample("atheros/csiread_ath_csi_1_100rec.dat"))
    with pytest.raises(RecordingError, match="300 that are no CSI"):
        read(csi_sample("esp32/albany_ts_plus128_walk_50hz.txt"))


# Live.


class Reader:
    """Reads a source in a thread, as far as it goes."""

    def __init__(self, source: CSISource) -> None:
        self.source = source
        self.frames: list[CSIFrame] = []
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source:
                self.frames.append(frame)
        except Exception as error:
            self.failure = error

    def wait_for(self, condition: Callable[[CSIStatistics], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.source.statistics):
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, self.source.statistics
            time.sleep(0.005)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def reading(url: str, **options: Any) -> Iterator[Reader]:
    stop = threading.Event()
    with open_csi(url, stop=stop.is_set, **options) as source:
        reader = Reader(source)
        try:
            yield reader
        finally:
            stop.set()
            reader.join()


@pytest.fixture
def udp() -> Iterator[tuple[socket.socket, int]]:
    """A socket connected to a port that is free."""
    port = free_port(socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        yield sender, port


def test_a_live_sniffer_gives_what_its_capture_gives(tmp_path: Path, udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    packets = payloads(range(4000, 4200))
    packets[50:60] = payloads(range(4050, 4060), mac=OTHER_MAC)
    recorded, _ = read(write_pcap(tmp_path, packets))
    with reading(f"nexmon://127.0.0.1:{port}") as reader:
        for number, packet in enumerate(packets, start=1):
            sender.sendto(packet, ("127.0.0.1", port))
            if number % 20 == 0:  # no more at once than the kernel has room for
                reader.wait_for(lambda counts, number=number: counts.packets == number)
    live = reader.frames
    assert len(live) == len(recorded) == 190
    for number, (one, other) in enumerate(zip(live, recorded, strict=True)):
        np.testing.assert_array_equal(one.csi, other.csi)
        np.testing.assert_array_equal(one.subcarriers, other.subcarriers)
        assert (one.device, one.frame_index) == (other.device, other.frame_index)
        # Frames with the same stamp are set 1 us apart, so the last of a rush has run ahead by as many.
        assert 0 < one.timestamp <= one.received + number * 1.001e-6
        assert one.received <= time.monotonic()
    assert_ascending(live)
    assert reader.source.statistics == CSIStatistics(packets=200, frames=190, lost=10, foreign=10)


def test_two_sniffers_of_one_transmitter_are_two_links(udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second, reading(f"nexmon://127.0.0.1:{port}") as reader:
        second.bind(("127.0.0.2", 0))
        for number, packet in enumerate(payloads(range(60))):
            sender.sendto(packet, ("127.0.0.1", port))
            if number % 3 == 0:
                second.sendto(packet, ("127.0.0.1", port))
        reader.wait_for(lambda counts: counts.packets == 80)
    assert (len(reader.frames), reader.source.statistics.foreign) == (60, 20)


def test_a_silent_sniffer_is_given_up_with_a_diagnosis(udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    for sent, match in [
        ([], "no usable packet for 0.5 s; is the sniffer running.*nexmon://0.0.0.0:5500"),
        ([b"noise"] * 3, "3 packets or lines came; 3 malformed, the last because: not a nexmon packet"),
        (payloads(range(3), mac=OTHER_MAC), f"3 not from {MAC}, mostly from {OTHER_MAC}"),
        (payloads(range(30)), "after 30 packets it fell silent; is the sender still running"),
    ]:
        with open_csi(f"nexmon://127.0.0.1:{port}?idle_timeout=0.5", mac=MAC) as source:
            for packet in sent:
                sender.sendto(packet, ("127.0.0.1", port))
            with pytest.raises(StreamError, match=match):
                list(source)


def test_noise_that_does_not_stop_does_not_keep_a_silent_stream_alive(udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    done = threading.Event()

    def make_noise() -> None:
        while not done.wait(0.01):
            sender.sendto(b"noise", ("127.0.0.1", port))

    noise = threading.Thread(target=make_noise)
    noise.start()
    try:
        with (
            open_csi(f"nexmon://127.0.0.1:{port}", idle_timeout=0.3) as source,
            pytest.raises(StreamError, match="malformed, the last because"),
        ):
            list(source)
    finally:
        done.set()
        noise.join()


def test_a_flood_is_dropped_and_counted_while_nobody_reads(udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    with open_csi(f"nexmon://127.0.0.1:{port}", ring_bytes=1 << 16) as source:
        room = (1 << 16) // (1042 + 256)
        deadline = time.monotonic() + PATIENCE
        for number, packet in enumerate(payloads(range(500)), start=1):
            sender.sendto(packet, ("127.0.0.1", port))
            while number % 20 == 0 and source.statistics.dropped < number - room:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        frames = iter(source)
        youngest = [next(frames).frame_index for _ in range(40)]
        assert youngest == list(range(450, 490))
        assert source.statistics.lost == 0  # nothing was handed out before: these are the first that are seen


def test_lines_over_udp(udp: tuple[socket.socket, int]) -> None:
    sender, port = udp
    text = lines(range(60))
    with reading(f"esp32+udp://127.0.0.1:{port}") as reader:
        for number in range(0, 60, 3):  # several lines in a datagram
            sender.sendto(b"".join(text[number : number + 3]), ("127.0.0.1", port))
        reader.wait_for(lambda counts: counts.packets == 60)
    assert [frame.frame_index for frame in reader.frames] == list(range(60))
    np.testing.assert_allclose(np.diff([frame.timestamp for frame in reader.frames]), 0.01)  # the board's own clock


def test_lines_on_a_serial_port() -> None:
    board, port = os.openpty()
    tty.setraw(port)
    try:
        with reading(f"esp32://{os.ttyname(port)}?baud=115200", idle_timeout=0) as reader:
            for text in [b"ets Jun  8 2016\r\n", *lines(range(20)), lines([20])[0][:80], *lines(range(21, 40))]:
                while text:
                    text = text[os.write(board, text) :]
            reader.wait_for(lambda counts: counts.packets == 40)
        assert [frame.frame_index for frame in reader.frames] == [n for n in range(40) if n not in (20, 21)]
        statistics = reader.source.statistics
        assert (statistics.lost, statistics.ignored, statistics.malformed) == (2, 1, {"spliced line": 1})
    finally:
        os.close(board)
        os.close(port)


def test_a_board_that_is_unplugged_ends_the_frames_with_an_error() -> None:
    board, port = os.openpty()
    tty.setraw(port)
    with open_csi(f"esp32://{os.ttyname(port)}") as source:
        os.write(board, b"".join(lines(range(3))))
        os.close(board)
        with pytest.raises(StreamError, match="unplugged"):
            list(source)
    os.close(port)


def frame(number: int, device: str = "mine", rows: int = 2) -> CSIFrame:
    csi_of = np.full((rows, 3), number, np.complex64)
    return CSIFrame(csi_of, np.array([-1, 1, 2], np.int16), number / 10, number, device)


@pytest.mark.parametrize("kind", ["pull", "sub"])
def test_frames_of_a_flowgraph(tmp_path: Path, kind: str) -> None:
    with zmq.Context() as context:
        sender = context.socket(zmq.PUSH if kind == "pull" else zmq.XPUB)
        sender.bind(f"ipc://{tmp_path}/csi")
        with reading(f"zmq+{kind}+ipc://{tmp_path}/csi") as reader:
            if kind == "sub":
                assert sender.recv() == b"\x01"  # its subscription has come
            for number in (5, 6, 9, 10):
                sender.send(encode_csi(frame(number)))
            sender.send(b"noise")
            reader.wait_for(lambda counts: counts.packets == 5)
        context.destroy(linger=0)
    assert [(one.frame_index, one.timestamp, one.device) for one in reader.frames] == [
        (number, number / 10, "mine") for number in (5, 6, 9, 10)
    ]
    statistics = reader.source.statistics
    assert (statistics.frames, statistics.lost, statistics.malformed) == (4, 2, {"not a CSI message": 1})


def test_a_pushing_flowgraph_is_held_back_and_loses_nothing(tmp_path: Path) -> None:
    with zmq.Context() as context:
        sender = context.socket(zmq.PUSH)
        sender.sndhwm = 10
        sender.bind(f"ipc://{tmp_path}/csi")
        with open_csi(f"zmq+pull+ipc://{tmp_path}/csi", ring_bytes=1 << 16, idle_timeout=2) as source:
            sent = 0
            while sender.poll(100, zmq.POLLOUT):
                sender.send(encode_csi(frame(sent)))
                sent += 1
                assert sent < 10_000
            frames = iter(source)
            assert [next(frames).frame_index for _ in range(sent)] == list(range(sent))
            assert source.statistics.dropped == source.statistics.lost == 0
        context.destroy(linger=0)


def test_stop_ends_a_silent_source(udp: tuple[socket.socket, int]) -> None:
    stopped = threading.Event()
    with open_csi(f"nexmon://127.0.0.1:{udp[1]}", stop=stopped.is_set, idle_timeout=0) as source:
        threading.Timer(0.2, stopped.set).start()
        assert list(source) == []


def test_closing_frees_the_port(udp: tuple[socket.socket, int]) -> None:
    for _ in range(3):
        with open_csi(f"nexmon://127.0.0.1:{udp[1]}"):
            pass


# URLs and options.


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://127.0.0.1:5500", "no kind of CSI source that is known; expected nexmon://"),
        ("nexmon://127.0.0.1", "names no host and port"),
        ("nexmon://127.0.0.1:99999", "is not a URL"),
        ("esp32+udp://:5501", "names no host and port"),
        ("esp32://", "names no serial port"),
        ("zmq+push://127.0.0.1:5555", "no kind of CSI source"),
        ("zmq+pull://127.0.0.1", "names no host and port"),
        ("zmq+pull+ipc://host/path", "names no socket file"),
        ("nexmon://127.0.0.1:0?port=1", "option 'port' in the URL is not known; use mac"),
        ("nexmon://127.0.0.1:0?pilots=maybe", "option pilots in the URL is 'maybe', expected a value of type bool"),
        ("nexmon://127.0.0.1:0?mac=1234", "mac is '1234', expected six octets"),
        ("nexmon://127.0.0.1:0?idle_timeout=nan", "idle_timeout is nan"),
        ("nexmon://127.0.0.1:0?idle_timeout=-1", r"idle_timeout is -1\.0"),
        ("nexmon://127.0.0.1:0?ring_bytes=1", "ring_bytes is 1, expected 65536"),
        ("esp32:///dev/ttyUSB0?baud=fast", "option baud in the URL is 'fast', expected a value of type int"),
        ("nexmon://127.0.0.1:0?baud=9600", "the option baud means nothing there"),
        ("nexmon://127.0.0.1:0?legacy=1", "the option legacy means nothing there"),
        ("zmq+sub://127.0.0.1:5555?mac=02:00:5e:10:00:02", "the option mac means nothing there"),
    ],
)
def test_urls_and_options_that_mean_nothing_are_refused(url: str, match: str) -> None:
    with pytest.raises(StreamError, match=match):
        open_csi(url)


def test_missing_files_and_useless_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no file at"):
        open_csi(tmp_path / "missing.pcap")
    (tmp_path / "log.dat").write_bytes(b"")
    with pytest.raises(StreamError, match="the option mac means nothing there"):
        open_csi(tmp_path / "log.dat", mac=MAC)


def test_arguments_win_over_the_urls_query_and_none_is_passed_over(udp: tuple[socket.socket, int]) -> None:
    with open_csi(f"nexmon://127.0.0.1:{udp[1]}?idle_timeout=5&pilots=no", idle_timeout=7.0, pilots=None) as source:
        assert source._options == csi.CSIOptions(idle_timeout=7.0, pilots=False)


def test_pilots_are_left_out_where_asked(tmp_path: Path) -> None:
    frames, _ = read(write_pcap(tmp_path, payloads(range(SETTLING_FRAMES))), pilots=False)
    np.testing.assert_array_equal(frames[0].subcarriers, [n for n in range(-28, 29) if n and abs(n) not in (7, 21)])


def test_examples() -> None:
    assert doctest.testmod(csi).failed == 0
