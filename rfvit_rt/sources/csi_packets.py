# SPDX-License-Identifier: Apache-2.0
"""What arrived → packets: each kind of device's bytes, in the terms that frames are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rfvit_rt.sources.csi_frames import Link, Packet, Select
from rfvit_rt.wire import esp32, intel5300, nexmon

REPLAY_NOTICE = b"rfvit: what comes here is a recording that is sent again, nothing of it is live\n"
"""Datagram that goes before and among those of a replay, whose own bytes have no room to say so."""

_CONTROL, _DATA = 1, 2  # types of a frame (802.11, 9.2.4.1.3)
_QOS = 8  # bit of a data frame's subtype


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes as they came, whole: one datagram, line or record.

    Attributes
    ----------
    data : bytes
        What came.
    time : float
        When, in seconds: of the capture for files, of this process's monotonic clock for what is live.
    received : float
        ``time.monotonic()`` when it came to this machine, in seconds; when it was read, for files.
    sender : str
        Address it came from; empty where there is none.
    """

    data: bytes
    time: float
    received: float
    sender: str = ""


Decode = Callable[[Arrival], Packet | None]
"""Reads one arrival; None for what is about something else. Raises WireError for what cannot be used."""


def decode_nexmon(arrival: Arrival) -> Packet:
    """Read a datagram of nexmon_csi."""
    record = nexmon.decode_nexmon(arrival.data)
    kind, counted = _frame_kind(record.frame_control)
    return Packet(
        link=Link(
            device=f"nexmon {record.chip} {record.bandwidth} MHz",
            mac=record.mac,
            receiver=arrival.sender,
            kind=f"chanspec 0x{record.chanspec:04x}{kind}",
        ),
        csi=record.values[None],
        subcarriers=np.arange(-len(record.values) // 2, len(record.values) // 2, dtype=np.int16),
        time=arrival.time,
        part=record.stream << 3 | record.core,
        count=record.sequence if counted else None,
        count_modulus=nexmon.SEQUENCE_NUMBERS,
        rssi=None if record.rssi is None else np.array([record.rssi], np.float32),
        received=arrival.received,
        record=record,
    )


def occupied_subcarriers(pilots: bool) -> Select:
    """Take the subcarriers that a link's frames fill from packets of nexmon_csi."""

    def select(packets: Sequence[Packet]) -> Callable[[Packet], Packet]:
        records = [packet.record for packet in packets if isinstance(packet.record, nexmon.NexmonPacket)]
        band = nexmon.occupied_band(records, pilots)
        device = f"nexmon {records[0].chip} {band.bandwidth} MHz{'' if band.high_throughput else ' non-HT'}"
        link = replace(packets[0].link, device=device)

        def take(packet: Packet) -> Packet:
            return replace(
                packet, link=link, csi=packet.csi[:, band.positions], subcarriers=band.subcarriers, record=None
            )

        return take

    return select


def esp32_decoder(legacy: bool, pilots: bool) -> Decode:
    """Return what reads a line of an ESP32; the options are :func:`rfvit_rt.wire.esp32.decode_esp32`'s."""

    def decode(arrival: Arrival) -> Packet | None:
        record = esp32.decode_esp32(arrival.data, legacy, pilots)
        if record is None:
            return None
        return Packet(
            link=Link(
                device=f"{record.family} {record.bandwidth} MHz {record.field}",
                mac=record.mac,
                receiver=arrival.sender,
                kind=f"{len(record.csi)} subcarriers",
            ),
            csi=record.csi[None],
            subcarriers=record.subcarriers,
            time=arrival.time,
            count=record.sequence,
            count_modulus=esp32.SEQUENCE_MODULUS,
            clock=record.clock,
            clock_modulus=esp32.CLOCK_MODULUS,
            rssi=np.array([record.rssi], np.float32),
            agc=record.gain,
            received=arrival.received,
        )

    return decode


def decode_intel5300(arrival: Arrival) -> Packet | None:
    """Read a record of the 802.11n CSI Tool; its rows are receivers, and within them streams."""
    if not arrival.data or arrival.data[0] != intel5300.CODE:
        return None
    record = intel5300.decode_intel5300(arrival.data)
    receivers, streams, _ = record.csi.shape
    rssi = record.rssi_dbm()
    return Packet(
        link=Link(f"intel5300 {record.bandwidth} MHz", kind=f"{receivers} antennas × {streams} streams"),
        csi=record.csi.reshape(receivers * streams, -1),
        subcarriers=intel5300.SUBCARRIERS[record.bandwidth],
        time=arrival.time,
        count=record.count,
        count_modulus=intel5300.COUNT_MODULUS,
        clock=record.clock,
        clock_modulus=intel5300.CLOCK_MODULUS,
        rssi=np.repeat(rssi, streams) if len(rssi) == receivers else rssi,
        agc=float(record.agc),
        received=arrival.received,
    )


def _frame_kind(frame_control: int | None) -> tuple[str, bool]:
    """How frames of one transmitter that are counted apart are told apart, and whether they are counted at all."""
    if frame_control is None:
        return "", True
    kind, subtype = frame_control >> 2 & 3, frame_control >> 4
    if kind == _CONTROL:
        return ", control frames", False
    if kind == _DATA and subtype & _QOS:
        return ", QoS frames", True
    return "", True
