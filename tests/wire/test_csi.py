# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import WireError
from rfvit_rt.wire import csi as wire_csi
from rfvit_rt.wire.csi import MAX_BYTES, decode_csi, encode_csi

FRAME = CSIFrame(
    csi=np.array([[1 + 2j, 3 - 4j, 0.5j], [-1, 0, 7]], np.complex64),
    subcarriers=np.array([-2, 1, 3], np.int16),
    timestamp=1.25,
    frame_index=7,
    device="mine",
    rssi=np.array([-40.5, -41], np.float32),
    agc=20.0,
)
# Written down by hand from the format's table, so that a change of the format is noticed.
MESSAGE = (
    b"RCSI" + struct.pack("<HHQd", 1, 1, 7, 1.25) + struct.pack("<HHHHfI", 2, 3, 2, 4, 20.0, 0)
    + struct.pack("<12f", 1, 2, 3, -4, 0, 0.5, -1, 0, 0, 0, 7, 0) + struct.pack("<2f", -40.5, -41)
    + struct.pack("<3h", -2, 1, 3) + b"mine"
)  # fmt: skip


def assert_same(one: CSIFrame, other: CSIFrame) -> None:
    np.testing.assert_array_equal(one.csi, other.csi, strict=True)
    np.testing.assert_array_equal(one.subcarriers, other.subcarriers, strict=True)
    if one.rssi is None or other.rssi is None:
        assert one.rssi is other.rssi
    else:
        np.testing.assert_array_equal(one.rssi, other.rssi, strict=True)
    for name in ("timestamp", "frame_index", "device", "agc"):
        assert getattr(one, name) == getattr(other, name), name


def test_a_message_is_what_the_table_says() -> None:
    assert encode_csi(FRAME) == MESSAGE
    assert_same(decode_csi(MESSAGE), FRAME)


def test_the_receivers_own_time_is_its_own() -> None:
    assert decode_csi(encode_csi(replace(FRAME, received=3.0)), received=5.0).received == 5.0


def frames() -> st.SearchStrategy[CSIFrame]:
    def shaped(shape: tuple[int, int]) -> st.SearchStrategy[CSIFrame]:
        parts = arrays.arrays(np.float32, (*shape, 2), elements=st.floats(-(2.0**49), 2.0**49, width=32))
        power = arrays.arrays(np.float32, st.sampled_from([1, shape[0]]), elements=st.floats(-256, 256, width=32))
        return st.builds(
            CSIFrame,
            csi=parts.map(lambda values: values.view(np.complex64)[..., 0].copy()),
            subcarriers=st.lists(
                st.integers(-(2**15), 2**15 - 1), min_size=shape[1], max_size=shape[1], unique=True
            ).map(lambda indices: np.array(sorted(indices), np.int16)),
            timestamp=st.floats(-1e12, 1e12),
            frame_index=st.integers(0, 2**62 - 1),
            device=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30),
            rssi=st.none() | power,
            agc=st.none() | st.floats(-1024, 1024, width=32),
        )

    return st.tuples(st.integers(1, 4), st.integers(1, 8)).flatmap(shaped)


@given(frames())
def test_every_frame_comes_back_as_it_was(frame: CSIFrame) -> None:
    assert_same(decode_csi(encode_csi(frame)), frame)


def test_arrays_are_aligned_and_do_not_hold_the_message() -> None:
    message = bytearray(b"x" + MESSAGE)
    frame = decode_csi(memoryview(message)[1:])
    message[:] = bytes(len(message))
    assert_same(frame, FRAME)
    for array in (frame.csi, frame.subcarriers, frame.rssi):
        assert array is not None
        assert array.flags.aligned
        assert array.flags.writeable
        assert array.flags.owndata


def test_the_largest_frame_fits_the_bound() -> None:
    largest = CSIFrame(
        np.ones((8, 4096), np.complex64), np.arange(4096, dtype=np.int16), 0.0, 0, "d" * 128, np.zeros(8, np.float32)
    )
    assert len(encode_csi(largest)) == MAX_BYTES
    with pytest.raises(WireError, match="impossible size"):
        encode_csi(replace(largest, csi=np.ones((9, 4096), np.complex64), rssi=None))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        decode_csi(message)


@given(st.data())
def test_changed_and_cut_messages_are_refused_or_are_frames(data: st.DataObject) -> None:
    message = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(message[: data.draw(st.integers(0, len(message)))])
    try:
        frame = decode_csi(cut)
    except WireError:
        return
    assert encode_csi(frame) is not None  # what was let in is good enough to be sent on
    assert np.isfinite(frame.csi).all()


def test_what_does_not_belong_to_a_message_is_refused() -> None:
    for message, match in [
        (MESSAGE + b"x", "the header says"),
        (MESSAGE[:-1], "the header says"),
        (b"", "too short"),
        (b"PK" + MESSAGE[2:], "begins with"),
        (MESSAGE[:4] + b"\x02" + MESSAGE[5:], "unknown version: 2"),
        (MESSAGE[:6] + b"\x03" + MESSAGE[7:], "bits are set"),
        (MESSAGE[:24] + struct.pack("<H", 65535) + MESSAGE[26:], "65535 antennas"),
        (MESSAGE[:28] + struct.pack("<H", 3) + MESSAGE[30:], "3 rssi values"),
        (MESSAGE[:-4] + b"\xff\xfe\xfd\xfc", "not UTF-8"),
        (MESSAGE[:-4] + b"\x1b[0m", "unprintable"),
        (MESSAGE[:-10] + struct.pack("<3h", 1, 1, 3) + b"mine", "do not ascend"),
        (MESSAGE[:40] + struct.pack("<f", np.nan) + MESSAGE[44:], "not finite"),
        (MESSAGE[:40] + struct.pack("<f", -1e16) + MESSAGE[44:], r"beyond 1e\+15"),
        (MESSAGE[:16] + struct.pack("<d", np.inf) + MESSAGE[24:], "timestamp is inf"),
        (MESSAGE[:8] + struct.pack("<Q", 2**63) + MESSAGE[16:], "index is"),
        (MESSAGE[:32] + struct.pack("<f", np.nan) + MESSAGE[36:], "agc is nan"),
    ]:
        with pytest.raises(WireError, match=match):
            decode_csi(message)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"csi": np.ones(3, np.complex64)}, "shape"),
        ({"csi": np.ones((0, 3), np.complex64)}, "0 antennas"),
        ({"csi": np.full((2, 3), np.inf, np.complex64)}, "not finite"),
        ({"csi": np.full((2, 3), 1e300)}, "not finite"),
        ({"subcarriers": np.array([1, 2], np.int16)}, "one for each"),
        ({"subcarriers": np.array([1, 2, 70000])}, "do not ascend"),
        ({"rssi": np.zeros(3, np.float32)}, "3 rssi values"),
        ({"frame_index": -1}, "index is -1"),
        ({"timestamp": float("nan")}, "timestamp is nan"),
        ({"agc": float("inf")}, "agc is inf"),
        ({"device": ""}, "0 bytes"),
        ({"device": "d" * 129}, "129 bytes"),
        ({"device": "a\nb"}, "unprintable"),
        ({"device": "\ud800"}, "not UTF-8"),
    ],
)
def test_frames_that_cannot_be_sent_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(WireError, match=match):
        encode_csi(replace(FRAME, **change))


def test_examples() -> None:
    assert doctest.testmod(wire_csi).failed == 0
