# SPDX-License-Identifier: Apache-2.0
"""Recorded CSI: captures of nexmon_csi (pcap), logs of the 802.11n CSI Tool, and files of ESP32 lines."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

from rfvit_rt.errors import RecordingError
from rfvit_rt.sources.csi_packets import Arrival
from rfvit_rt.wire import esp32

FORMATS = {
    ".pcap": "nexmon",
    ".pcapng": "nexmon",
    ".cap": "nexmon",
    ".dat": "intel5300",
    ".csv": "esp32",
    ".txt": "esp32",
    ".log": "esp32",
}
"""Kind of device by the ending of a file's name."""

Arrivals = Generator[Arrival | None, None, None]

_PCAP_HEADER = 24
_MAGICS = {  # byte order and parts of a second
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_NETWORK_LAYER = {1: (14, 12), 101: (0, None), 113: (16, 14), 228: (0, None)}  # link type: start of IP, of its type
_IPV4, _VLAN = b"\x08\x00", b"\x81\x00"
_UDP = 17
_LARGEST_PACKET = 1 << 18  # of tcpdump
_NEXMON = b"\x11\x11"
_READ_AHEAD = 1 << 20


def file_format(path: Path) -> str:
    """Kind of device that a file's name says it was recorded from.

    Raises
    ------
    RecordingError
        If no kind is known by that ending.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise RecordingError(
            f"{path} is no kind of CSI file that is known; expected .pcap (nexmon_csi), .dat (Intel 5300) or .csv and "
            ".txt (lines of an ESP32)"
        ) from None


def read_arrivals(path: Path, tell: Callable[[str], None] = lambda line: None) -> Arrivals:
    """Yield what a file recorded, in its order; None for what is about something else.

    Parameters
    ----------
    path : Path
        A file of one of :data:`FORMATS`.
    tell : callable
        Told, in a line each, what the user should know.

    Raises
    ------
    RecordingError
        If the file cannot be read, or is of another format than its name says.
    """
    reader = {"nexmon": _pcap, "intel5300": _intel_log, "esp32": _lines}[file_format(path)]
    try:
        with path.open("rb", buffering=_READ_AHEAD) as file:
            yield from reader(file, path, tell)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from None


def _pcap(file: IO[bytes], path: Path, tell: Callable[[str], None]) -> Arrivals:
    header = file.read(_PCAP_HEADER)
    if header[:4] == _PCAPNG:
        raise RecordingError(
            f"{path} is a pcapng file; convert it to classic pcap: editcap -F pcap {path.name} {path.stem}.pcap, "
            f"or tcpdump -r {path.name} -w {path.stem}.pcap"
        )
    if len(header) < _PCAP_HEADER or header[:4] not in _MAGICS:
        raise RecordingError(f"{path} is not a pcap file: it begins with 0x{header[:4].hex() or '(nothing)'}")
    order, tick = _MAGICS[header[:4]]
    (link_type,) = struct.unpack_from(f"{order}I", header, 20)
    link_type &= 0x0FFFFFFF  # above are flags of a checksum
    if link_type not in _NETWORK_LAYER:
        raise RecordingError(
            f"{path} was captured on a link of type {link_type}, expected Ethernet (1), Linux cooked (113) or raw IP "
            "(101); capture nexmon's packets with: tcpdump -i wlan0 dst port 5500 -w capture.pcap"
        )
    record = struct.Struct(f"{order}IIII")
    while head := file.read(record.size):
        if len(head) < record.size:
            break
        seconds, fraction, size, _ = record.unpack(head)
        if size > _LARGEST_PACKET:
            raise RecordingError(
                f"{path} is damaged: a packet before byte {file.tell()} claims {size} bytes; what is before it was read"
            )
        frame = file.read(size)
        if len(frame) < size:
            break
        payload = _udp_payload(frame, *_NETWORK_LAYER[link_type])
        if payload is None or not payload[0].startswith(_NEXMON):
            yield None
        else:
            yield Arrival(payload[0], seconds + fraction * tick, time.monotonic(), payload[1])
    else:
        return
    tell(f"{path.name} ends inside a packet: it was cut off, or is still being written")


def _udp_payload(frame: bytes, start: int, type_at: int | None) -> tuple[bytes, str] | None:
    """Payload and source address of a UDP datagram over IPv4; None if the frame holds none, or part of one."""
    if type_at is not None:
        while frame[type_at : type_at + 2] == _VLAN:
            start, type_at = start + 4, type_at + 4
        if frame[type_at : type_at + 2] != _IPV4:
            return None
    if len(frame) < start + 20 or frame[start] >> 4 != 4 or frame[start + 9] != _UDP:
        return None
    fragment = int.from_bytes(frame[start + 6 : start + 8], "big") & 0x3FFF  # offset, and "more fragments"
    udp = start + 4 * (frame[start] & 15)
    length = int.from_bytes(frame[udp + 4 : udp + 6], "big")
    if fragment or length < 8:
        return None
    # A capture with too small a snapshot length holds less; the packet's own reader finds that.
    return frame[udp + 8 : udp + length], socket.inet_ntoa(frame[start + 12 : start + 16])


def _intel_log(file: IO[bytes], path: Path, tell: Callable[[str], None]) -> Arrivals:
    first = True
    while head := file.read(2):
        record = file.read(int.from_bytes(head, "big"))
        if len(head) < 2 or len(record) < int.from_bytes(head, "big"):
            if first:
                raise RecordingError(f"{path} is no log of the 802.11n CSI Tool: its first record is longer than it")
            tell(f"{path.name} ends inside a record: it was cut off, or is still being written")
            return
        if first and (not record or record[0] not in _INTEL_CODES):
            raise RecordingError(
                f"{path} is no log of the 802.11n CSI Tool: its first record begins with 0x{record[:1].hex() or '00'}, "
                "expected 0xbb; logs of the Atheros tool end in .dat too, and are not read"
            )
        first = False
        yield Arrival(record, 0.0, time.monotonic())


_INTEL_CODES = (0xBB, 0xC1)  # channel estimate, payload of a frame


def _lines(file: IO[bytes], path: Path, tell: Callable[[str], None]) -> Arrivals:
    while line := file.readline(esp32.MAX_LINE + 1):
        yield Arrival(line, 0.0, time.monotonic())
