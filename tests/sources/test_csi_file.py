# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.errors import RecordingError
from rfvit_rt.sources.csi_file import read_arrivals

from ..csi_bytes import channel, intel_log, intel_record, ip_packet, link_header, nexmon_payload, pcap

PAYLOADS = [nexmon_payload(channel(64, number=number), sequence=number) for number in range(5)]
TIMES = [1.7e9 + number / 64 for number in range(5)]


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def record(frame: bytes, size: int | None = None) -> bytes:
    return struct.pack("<IIII", 1, 0, len(frame) if size is None else size, len(frame)) + frame


EMPTY_PCAP = pcap([], [])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("link_type", [1, 101, 113])
def test_captures_of_all_byte_orders_and_links(tmp_path: Path, order: str, nanoseconds: bool, link_type: int) -> None:
    data = pcap(PAYLOADS, TIMES, order=order, nanoseconds=nanoseconds, link_type=link_type)
    arrivals = list(read_arrivals(write(tmp_path, "a.pcap", data)))
    assert [arrival.data for arrival in arrivals if arrival] == PAYLOADS
    assert [arrival.time for arrival in arrivals if arrival] == pytest.approx(TIMES, abs=3e-7)
    assert {arrival.sender for arrival in arrivals if arrival} == {"10.10.10.10"}


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        link_header(1),
        link_header(1)[:12] + b"\x86\xdd" + ip_packet(PAYLOADS[0]),  # IPv6
        link_header(1) + ip_packet(PAYLOADS[0], protocol=6),
        link_header(1) + ip_packet(PAYLOADS[0], fragment=0x2000),  # the first of several fragments
        link_header(1) + ip_packet(b"DNS or anything else"),
        link_header(1) + ip_packet(b"")[:-4],
    ],
)
def test_other_traffic_is_passed_over(tmp_path: Path, frame: bytes) -> None:
    good = link_header(1) + ip_packet(PAYLOADS[0])
    arrivals = list(read_arrivals(write(tmp_path, "a.pcap", EMPTY_PCAP + record(frame) + record(good))))
    assert arrivals[0] is None
    assert arrivals[1] is not None
    assert arrivals[1].data == PAYLOADS[0]


def test_vlan_tags_are_passed_over(tmp_path: Path) -> None:
    frame = link_header(1)[:12] + b"\x81\x00\x00\x05\x08\x00" + ip_packet(PAYLOADS[0])
    (arrival,) = read_arrivals(write(tmp_path, "a.pcap", EMPTY_PCAP + record(frame)))
    assert arrival is not None
    assert arrival.data == PAYLOADS[0]


@pytest.mark.parametrize("cut", [3, 10, 300])
def test_a_capture_that_was_cut_off_gives_what_is_whole_and_says_so(tmp_path: Path, cut: int) -> None:
    told: list[str] = []
    data = pcap(PAYLOADS[:2], TIMES[:2])
    whole = len(pcap(PAYLOADS[:1], TIMES[:1]))
    path = write(tmp_path, "a.pcap", data[: whole + cut])
    assert [arrival.data for arrival in read_arrivals(path, told.append) if arrival] == PAYLOADS[:1]
    assert "ends inside a packet" in told[0]
    told.clear()
    list(read_arrivals(write(tmp_path, "b.pcap", data), told.append))
    assert not told


def test_a_damaged_capture_gives_what_is_before_the_damage(tmp_path: Path) -> None:
    path = write(tmp_path, "a.pcap", pcap(PAYLOADS, TIMES) + record(b"", size=2**31) + bytes(100))
    arrivals = read_arrivals(path)
    assert [arrival.data for arrival in itertools.islice(arrivals, len(PAYLOADS)) if arrival] == PAYLOADS
    with pytest.raises(RecordingError, match="damaged: a packet before byte"):
        list(arrivals)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.pcapng", b"\x0a\x0d\x0d\x0a" + bytes(100), "editcap -F pcap a.pcapng a.pcap"),
        ("a.pcap", b"\x0a\x0d\x0d\x0a" + bytes(100), "convert it"),
        ("a.pcap", b"PK\x03\x04" + bytes(100), "not a pcap file: it begins with 0x504b0304"),
        ("a.pcap", b"", "not a pcap file"),
        ("a.pcap", pcap([], [], link_type=127), "link of type 127, expected Ethernet"),
        ("a.dat", b"\x78" * 1000, "no log of the 802.11n CSI Tool"),
        ("a.dat", b"\x00\x05hello", "Atheros"),
        ("a.dat", b"\x00\x00", "no log"),
        ("a.csi", b"", "no kind of CSI file"),
        ("a", b"", "no kind of CSI file"),
    ],
)
def test_files_of_other_formats_are_refused(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    with pytest.raises(RecordingError, match=match):
        list(read_arrivals(write(tmp_path, name, data)))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot read .*No such file"):
        list(read_arrivals(tmp_path / "missing.pcap"))


def test_logs_of_intel_give_their_records_and_say_where_they_end(tmp_path: Path) -> None:
    records = [intel_record(np.zeros((3, 1, 30), np.complex64), count=number) for number in range(3)]
    records.insert(1, b"\xc1 the payload of a frame")
    told: list[str] = []
    arrivals = list(read_arrivals(write(tmp_path, "a.dat", intel_log(records)), told.append))
    assert [arrival.data for arrival in arrivals if arrival] == records
    assert not told
    arrivals = list(read_arrivals(write(tmp_path, "b.dat", intel_log(records)[:-1]), told.append))
    assert [arrival.data for arrival in arrivals if arrival] == records[:-1]
    assert "ends inside a record" in told[0]


def test_lines_without_an_end_do_not_fill_memory(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"one\ntwo\n" + b"x" * 100_000)
    arrivals = [arrival.data for arrival in read_arrivals(path) if arrival]
    assert arrivals[:2] == [b"one\n", b"two\n"]
    assert max(map(len, arrivals)) < 10_000
