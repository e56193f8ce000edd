# SPDX-License-Identifier: Apache-2.0
"""One CSI frame as one ZeroMQ message: the project's own small format, for senders that have no other.

Version 1, little-endian, no padding::

    offset  type   field
     0      4s     magic ``RCSI``
     4      u16    version, 1
     6      u16    flags: bit 0 is set where agc is known, the others are 0
     8      u64    frame index, lost frames included; below 2**62
    16      f64    timestamp in seconds
    24      u16    antennas, 1 to 64
    26      u16    subcarriers, 1 to 4096; at most 32768 values in all antennas
    28      u16    rssi values: 0, 1 or one for each antenna
    30      u16    bytes of the device's name, 1 to 128
    32      f32    agc in dB, 0 where it is not known
    36      u32    0
    40      c64    csi, antenna by antenna: float32 real, float32 imaginary, each at most 1e15
    …       f32    rssi in dBm, -300 to 300
    …       i16    subcarrier indices, ascending
    …       bytes  name of the device, printable UTF-8

The message ends there. ``CSIFrame.received`` is the receiver's own and is not sent.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import WireError

VERSION = 1
MAX_ANTENNAS = 64
MAX_SUBCARRIERS = 4096
MAX_VALUES = 1 << 15  # antennas times subcarriers
MAX_DEVICE_BYTES = 128
MAX_FRAME_INDEX = 1 << 62
MAX_SECONDS = 1e12
MAX_CSI = 1e15  # of a real or imaginary part
MAX_RSSI = 300.0  # dBm either way, as far beyond what can be
MAX_BYTES = 40 + 8 * MAX_VALUES + 4 * (MAX_VALUES // MAX_SUBCARRIERS) + 2 * MAX_SUBCARRIERS + MAX_DEVICE_BYTES
"""Longest message there is: a socket can refuse what is longer before it takes up memory."""

_MAGIC = b"RCSI"
_HEADER = struct.Struct("<4sHHQdHHHHfI")
_HAS_AGC = 1

Buffer = bytes | bytearray | memoryview


def encode_csi(frame: CSIFrame) -> bytes:
    """Return the message that carries a frame.

    Parameters
    ----------
    frame : CSIFrame

    Raises
    ------
    WireError
        If the frame is one that :func:`decode_csi` would refuse: shapes that do not fit each other, values that are not
        finite, or more antennas, subcarriers or letters than the format has room for.
    """
    csi = np.asarray(frame.csi)
    if csi.ndim != 2:
        raise WireError(f"impossible size: csi has the shape {csi.shape}, expected (antenna, subcarrier)")
    antennas, subcarriers = csi.shape
    rssi = np.empty(0, "<f4") if frame.rssi is None else np.asarray(frame.rssi)
    device = frame.device.encode("utf-8", "surrogatepass")
    _check_sizes(antennas, subcarriers, rssi.size, len(device))
    _check_position(frame.frame_index, frame.timestamp)
    _check_agc(frame.agc or 0.0)
    header = _HEADER.pack(
        *(_MAGIC, VERSION, 0 if frame.agc is None else _HAS_AGC, frame.frame_index, frame.timestamp),
        *(antennas, subcarriers, rssi.size, len(device), frame.agc or 0.0, 0),
    )
    indices = np.asarray(frame.subcarriers)
    if indices.shape != (subcarriers,):
        raise WireError(
            f"impossible size: {indices.size} subcarrier indices for {subcarriers} subcarriers; give one for each"
        )
    _check_subcarriers(indices)
    _check_values(csi, rssi)
    _name(device)
    return b"".join(
        (header, csi.astype("<c8").tobytes(), rssi.astype("<f4").tobytes(), indices.astype("<i2").tobytes(), device)
    )


def decode_csi(data: Buffer, received: float = 0.0) -> CSIFrame:
    """Return the frame that a message carries.

    Parameters
    ----------
    data : bytes-like
        The whole message, and nothing else.
    received : float
        ``time.monotonic()`` when it came, in seconds.

    Returns
    -------
    CSIFrame
        Its arrays are its own: aligned, writeable, not tied to the message's memory.

    Raises
    ------
    WireError
        If it is not such a message, or holds what cannot be. What its message says up to the first colon is one of a
        few reasons.

    Examples
    --------
    >>> frame = CSIFrame(np.ones((1, 2), np.complex64), np.array([-1, 1], np.int16), 0.5, 7, "mine")
    >>> decode_csi(encode_csi(frame)).frame_index
    7
    """
    message = memoryview(data).cast("B")
    if len(message) < _HEADER.size:
        raise WireError(f"not a CSI message: {len(message)} bytes are too short for one; {_SENDER_HINT}")
    magic, version, flags, frame_index, timestamp, antennas, subcarriers, rssi_count, device_bytes, agc, zero = (
        _HEADER.unpack_from(message)
    )
    if magic != _MAGIC:
        raise WireError(f"not a CSI message: it begins with {magic!r}, expected {_MAGIC!r}; {_SENDER_HINT}")
    if version != VERSION:
        raise WireError(f"unknown version: {version} came, {VERSION} is read; use the same release on both ends")
    if flags & ~_HAS_AGC or zero:
        raise WireError("unknown version: bits are set that version 1 leaves 0; use the same release on both ends")
    _check_sizes(antennas, subcarriers, rssi_count, device_bytes)
    _check_position(frame_index, timestamp)
    _check_agc(agc)
    values_end = _HEADER.size + 8 * antennas * subcarriers
    rssi_end = values_end + 4 * rssi_count
    indices_end = rssi_end + 2 * subcarriers
    if len(message) != indices_end + device_bytes:
        raise WireError(
            f"impossible length: {len(message)} bytes came, the header says {indices_end + device_bytes}; "
            f"{_SENDER_HINT}"
        )
    csi = np.frombuffer(message[_HEADER.size : values_end], "<c8").reshape(antennas, subcarriers).astype(np.complex64)
    rssi = np.frombuffer(message[values_end:rssi_end], "<f4").astype(np.float32)
    indices = np.frombuffer(message[rssi_end:indices_end], "<i2").astype(np.int16)
    _check_values(csi, rssi)
    _check_subcarriers(indices)
    return CSIFrame(
        csi=csi,
        subcarriers=indices,
        timestamp=timestamp,
        frame_index=frame_index,
        device=_name(bytes(message[indices_end:])),
        rssi=rssi if rssi_count else None,
        agc=agc if flags & _HAS_AGC else None,
        received=received,
    )


_SENDER_HINT = "is the sender a CSI sink of rfvit?"


def _check_sizes(antennas: int, subcarriers: int, rssi_count: int, device_bytes: int) -> None:
    possible = 1 <= antennas <= MAX_ANTENNAS and 1 <= subcarriers <= MAX_SUBCARRIERS
    if not possible or antennas * subcarriers > MAX_VALUES:
        raise WireError(
            f"impossible size: {antennas} antennas × {subcarriers} subcarriers, "
            f"expected 1 to {MAX_ANTENNAS} × 1 to {MAX_SUBCARRIERS}, and at most {MAX_VALUES} values"
        )
    if rssi_count not in (0, 1, antennas):
        raise WireError(f"impossible size: {rssi_count} rssi values, expected none, one, or one for each antenna")
    if not 1 <= device_bytes <= MAX_DEVICE_BYTES:
        raise WireError(
            f"impossible size: the device has a name of {device_bytes} bytes, expected 1 to {MAX_DEVICE_BYTES}"
        )


def _check_position(frame_index: int, timestamp: float) -> None:
    if not 0 <= frame_index < MAX_FRAME_INDEX:
        raise WireError(f"impossible value: the frame index is {frame_index}, expected 0 to 2**62 - 1")
    if not abs(timestamp) <= MAX_SECONDS:
        raise WireError(f"impossible value: the timestamp is {timestamp}, expected seconds up to {MAX_SECONDS:g}")


def _check_agc(agc: float) -> None:
    # float32 ends at 3.4e38; no amplifier comes near.
    if not (math.isfinite(agc) and abs(agc) < 1e6):
        raise WireError(f"impossible value: agc is {agc}, expected a gain in dB")


def _check_values(csi: np.ndarray, rssi: np.ndarray) -> None:
    # Written so that what is no number does not pass. Squares and powers of what passes are finite in float32.
    with np.errstate(over="ignore", invalid="ignore"):
        parts = (np.abs(csi.real) <= MAX_CSI).all() and (np.abs(csi.imag) <= MAX_CSI).all()
        possible = parts and (np.abs(rssi) <= MAX_RSSI).all()
    if not possible:
        raise WireError(
            f"impossible value: csi is not finite or beyond {MAX_CSI:g}, or rssi beyond {MAX_RSSI:g} dBm; leave out "
            "frames that the device could not estimate"
        )


def _check_subcarriers(indices: np.ndarray) -> None:
    if not ((indices >= -32768).all() and (indices <= 32767).all() and (np.diff(indices.astype(np.int64)) > 0).all()):
        raise WireError("impossible value: the subcarrier indices do not ascend; sort them, and the csi with them")


def _name(device: bytes) -> str:
    try:
        name = device.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("impossible value: the device's name is not UTF-8") from None
    if not name.isprintable():
        raise WireError(
            "impossible value: the device's name has unprintable characters; use letters, digits and spaces"
        )
    return name
