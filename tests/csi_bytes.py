# SPDX-License-Identifier: Apache-2.0
"""Bytes as sniffers, boards and loggers write them, made the other way round than they are read; and real captures."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parent.parent
MAC = "02:00:5e:10:00:01"
CHIPS = {"bcm4339": 0x0001, "bcm43455c0": 0x0065, "bcm4358": 0xDEAD, "bcm4366c0": 0x006A}
PACKED = {"bcm4358": (9, 5), "bcm4366c0": (12, 6)}
CHANSPEC = {20: 0xD024, 40: 0xD826, 80: 0xE02A}  # channels 36, 38 and 42; the primary 20 MHz channel is the lowest


def csi_sample(name: str) -> Path:
    """One of the real captures that are kept beside the checkout; they are not part of the project."""
    path = REPOSITORY.parent / "shared" / "data" / "csi" / "samples" / name
    if not path.is_file():
        pytest.skip(f"no real capture at {path}; this test needs it")
    return path


# nexmon_csi.


def nexmon_payload(
    values: NDArray[np.complex64],
    *,
    sequence: int = 0,
    core: int = 0,
    stream: int = 0,
    mac: str = MAC,
    chip: str = "bcm43455c0",
    rssi: int | None = -50,
    frame_control: int = 0x88,
    chanspec: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """One packet; `values` are at ascending subcarriers. `rssi` None is old firmware."""
    bandwidth = {64: 20, 128: 40, 256: 80}[len(values)]
    old_magic = struct.pack("<I", 0x11111111)
    head = old_magic if rssi is None else struct.pack("<HbB", 0x1111, rssi, frame_control)
    head += bytes.fromhex(mac.replace(":", ""))
    head += struct.pack(
        "<HHHH", sequence << 4, core | stream << 3, CHANSPEC[bandwidth] if chanspec is None else chanspec, CHIPS[chip]
    )
    return head + nexmon_words(np.fft.ifftshift(values), chip) + extra


def nexmon_words(values: NDArray[np.complex64], chip: str) -> bytes:
    if chip not in PACKED:
        return np.stack([values.real, values.imag], axis=1).round().astype("<i2").tobytes()
    mantissa_bits, exponent_bits = PACKED[chip]
    return b"".join(struct.pack("<I", _packed(complex(value), mantissa_bits, exponent_bits)) for value in values)


def _packed(value: complex, mantissa_bits: int, exponent_bits: int) -> int:
    """One complex number with a common exponent, as large as its mantissas allow."""
    most = (1 << (mantissa_bits - 1)) - 1
    exponent = -(1 << (exponent_bits - 1))
    while max(abs(value.real), abs(value.imag)) > most * 2.0**exponent:
        exponent += 1
    word = 0
    for part in (value.real, value.imag):
        magnitude = round(abs(part) / 2.0**exponent)
        word = word << mantissa_bits | (magnitude | (1 << (mantissa_bits - 1) if part < 0 else 0))
    return word << exponent_bits | exponent & ((1 << exponent_bits) - 1)


# pcap.


def pcap(
    payloads: Iterable[bytes],
    times: Iterable[float],
    *,
    order: str = "<",
    nanoseconds: bool = False,
    link_type: int = 1,
    port: int = 5500,
) -> bytes:
    """A classic pcap file of UDP datagrams."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for payload, seconds in zip(payloads, times, strict=True):
        frame = link_header(link_type) + ip_packet(payload, port)
        whole = int(seconds)
        fraction = round((seconds - whole) * (1e9 if nanoseconds else 1e6))
        parts += [struct.pack(f"{order}IIII", whole, fraction, len(frame), len(frame)), frame]
    return b"".join(parts)


def link_header(link_type: int) -> bytes:
    if link_type == 1:
        return b"\xff" * 6 + b"NEXMON" + b"\x08\x00"
    return struct.pack(">HHH8sH", 0, 1, 6, b"NEXMON", 0x0800) if link_type == 113 else b""


def ip_packet(payload: bytes, port: int = 5500, protocol: int = 17, fragment: int = 0) -> bytes:
    udp = struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload
    source, destination = bytes([10, 10, 10, 10]), b"\xff" * 4
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, fragment, 64, protocol, 0, source, destination) + udp


# ESP32.

ESP_CSI = (
    "CSI_DATA,{sequence},{mac},{rssi},11,{sig_mode},7,{bandwidth},1,1,0,{stbc},0,0,-95,0,6,{secondary},{clock},0,101,0,"
    '{length},1,"[{values}]"\n'
)
ESP_CSI_C6 = 'CSI_DATA,{sequence},{mac},{rssi},11,-97,{fft_gain},{agc_gain},11,{clock},51,0,{length},0,"[{values}]"\n'
CSI_TOOL = (
    "CSI_DATA,AP,{mac},{rssi},11,{sig_mode},7,{bandwidth},1,1,0,{stbc},0,0,-95,0,6,{secondary},{clock},0,101,0,0,"
    "80.363225,{length},[{values} ]\n"
)


def esp32_line(
    values: Sequence[int] | NDArray[np.integer],
    form: str = ESP_CSI,
    *,
    sequence: int = 0,
    clock: int = 1000,
    mac: str = MAC,
    rssi: int = -60,
    sig_mode: int = 0,
    bandwidth: int = 0,
    stbc: int = 0,
    secondary: int = 0,
    fft_gain: int = 0,
    agc_gain: int = 20,
    length: int | None = None,
) -> bytes:
    between = " " if form is CSI_TOOL else ","
    return form.format(
        sequence=sequence,
        clock=clock,
        mac=mac,
        rssi=rssi,
        sig_mode=sig_mode,
        bandwidth=bandwidth,
        stbc=stbc,
        secondary=secondary,
        fft_gain=fft_gain,
        agc_gain=agc_gain,
        length=len(values) if length is None else length,
        values=between.join(str(int(value)) for value in values),
    ).encode()


# Intel 5300.


def intel_record(
    csi: NDArray[np.complex64],
    *,
    clock: int = 0,
    count: int = 0,
    rssi: Sequence[int] = (40, 41, 42),
    noise: int = -127,
    agc: int = 30,
    connected: Sequence[int] = (0, 1, 2),
    rate: int = 0x0101,
) -> bytes:
    """One record with its code; `csi` is (antenna, stream, 30), `connected` the antenna of each receiver."""
    receivers, streams, count_of = csi.shape
    assert count_of == 30
    by_receiver = csi[list(connected)] if receivers == 3 else csi
    bits = 0
    place = 0
    for subcarrier in range(30):
        place += 3
        for value in by_receiver[:, :, subcarrier].ravel():
            for part in (int(value.real), int(value.imag)):
                bits |= (part & 0xFF) << place
                place += 8
    estimate = bits.to_bytes((place + 7) // 8, "little")
    antennas = sum(antenna << 2 * receiver for receiver, antenna in enumerate(connected))
    head = struct.pack(
        "<BIHHBB3BbBBHH",
        *(0xBB, clock, count, 0, receivers, streams, *rssi, noise, agc, antennas, len(estimate), rate),
    )
    return head + estimate


def intel_log(records: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(record)) + record for record in records)


# A channel that means something: everything that is read back can be compared with it.


def channel(points: int, *, number: int = 0, scale: float = 500.0) -> NDArray[np.complex64]:
    """Integer-valued channel estimate at ascending subcarriers, other for each `number`, nowhere near zero."""
    subcarriers = np.arange(-points // 2, points // 2)
    values = scale * (1 + 0.3 * np.exp(2j * np.pi * (subcarriers / 40 + number / 16))) * np.exp(1j * subcarriers / 7)
    return np.asarray(np.round(values.real) + 1j * np.round(values.imag), np.complex64)


def narrow_channel(points: int, band: NDArray[np.intp], **options: float) -> NDArray[np.complex64]:
    """The same with weak noise everywhere but at the subcarriers of `band`."""
    values = channel(points, **options)  # type: ignore[arg-type]
    noise = np.resize(np.array([3 + 1j, -2 + 2j, 1 - 3j], np.complex64), points)
    inside = np.isin(np.arange(-points // 2, points // 2), band)
    return np.where(inside, values, noise).astype(np.complex64)
