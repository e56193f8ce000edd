# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.errors import WireError
from rfvit_rt.wire import pmt
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, Tag, decode_stream_message, encode_stream_message

# Measured: what a pub_sink of GNU Radio 3.10.5.1 sends for 1+2j, 3+4j, 5+6j, 7+8j.
RAW = bytes.fromhex("0000803f0000004000004040000080400000a0400000c0400000e04000000041")
TAGGED = bytes.fromhex(
    "f05f0100000000000000000400000000000000000000000000000002000772785f74696d650c000000020b000000006553f100043fd0000000"
    "00000002000475737270000000000000000002000772785f7261746504412e8480000000000200047573727000000000000000000200077278"
    "5f667265710441e241011000000002000475737270020000000000000002000772785f667265710441ea13b8600000000200047573727000"
    "00803f0000004000004040000080400000a0400000c0400000e04000000041"
)
TAGS = (
    Tag(0, "rx_time", (pmt.UInt64(1_700_000_000), 0.25), "usrp"),
    Tag(0, "rx_rate", 1e6, "usrp"),
    Tag(0, "rx_freq", 2.45e9, "usrp"),
    Tag(2, "rx_freq", 3.5e9, "usrp"),
)
SAMPLES = np.array([1 + 2j, 3 + 4j, 5 + 6j, 7 + 8j], np.complex64)
PLAIN, WITH_TAGS = StreamFormat(), StreamFormat(tags=True)


def test_raw_message_is_read_and_written_as_gnuradio_does() -> None:
    message = decode_stream_message([RAW], PLAIN)
    np.testing.assert_array_equal(message.samples, SAMPLES, strict=True)
    assert (message.offset, message.tags) == (None, ())
    assert encode_stream_message(message, PLAIN) == [RAW]


def test_tagged_message_is_read_and_written_as_gnuradio_does() -> None:
    message = decode_stream_message([TAGGED], WITH_TAGS)
    np.testing.assert_array_equal(message.samples, SAMPLES, strict=True)
    assert (message.offset, message.tags) == (0, TAGS)
    assert encode_stream_message(message, WITH_TAGS) == [TAGGED]


def test_key_is_read_and_written_as_gnuradio_does() -> None:
    form = StreamFormat(tags=True, key=b"ch0")
    message = decode_stream_message([b"ch0", TAGGED], form)
    np.testing.assert_array_equal(message.samples, SAMPLES)
    assert message.tags == TAGS
    assert encode_stream_message(message, form) == [b"ch0", TAGGED]


@pytest.mark.parametrize("form", [PLAIN, WITH_TAGS], ids=["raw", "tagged"])
def test_samples_are_aligned_and_do_not_hold_the_message(form: StreamFormat) -> None:
    frame = bytearray(encode_stream_message(StreamMessage(SAMPLES, 0, TAGS), form)[0])
    samples = decode_stream_message([memoryview(frame)], form).samples
    frame[:] = bytes(len(frame))
    np.testing.assert_array_equal(samples, SAMPLES)
    assert samples.flags.aligned
    assert samples.flags.writeable


def test_offset_counts_samples_where_items_are_vectors() -> None:
    form = StreamFormat(tags=True, vlen=2)
    message = StreamMessage(SAMPLES, 2**40, (Tag(2**40 + 2, "rx_freq", 1e9),))
    (frame,) = encode_stream_message(message, form)
    assert struct.unpack_from("<HBQQQ", frame) == (0x5FF0, 1, 2**39, 1, 2**39 + 1)
    decoded = decode_stream_message([frame], form)
    assert (decoded.offset, decoded.tags) == (message.offset, message.tags)
    with pytest.raises(WireError, match="whole items of 2"):
        encode_stream_message(StreamMessage(SAMPLES[:3], 0), form)


def test_pairs_of_shorts_are_scaled_to_one() -> None:
    form = StreamFormat(item_type="ci16_le")
    message = decode_stream_message([struct.pack("<4h", -32768, 16384, 1, -1)], form)
    np.testing.assert_array_equal(message.samples, np.array([-1 + 0.5j, (1 - 1j) / 32768], np.complex64), strict=True)
    assert encode_stream_message(message, form) == [struct.pack("<4h", -32768, 16384, 1, -1)]


def test_message_without_samples_is_a_message() -> None:
    (frame,) = encode_stream_message(StreamMessage(SAMPLES[:0], 7, TAGS), WITH_TAGS)
    message = decode_stream_message([frame], WITH_TAGS)
    assert (len(message.samples), message.offset, message.tags) == (0, 7, TAGS)
    assert len(decode_stream_message([b""], PLAIN).samples) == 0


@pytest.mark.parametrize(
    ("frames", "form", "message"),
    [
        ([TAGGED], PLAIN, "use --tags"),
        ([RAW], WITH_TAGS, "use --no-tags"),
        ([b"short"], WITH_TAGS, "use --no-tags"),
        ([RAW[:-1]], PLAIN, "31 bytes .* cf32_le items of 8 bytes; check --item-type"),
        ([TAGGED[:-1]], WITH_TAGS, "31 bytes .* check --item-type"),
        ([RAW], StreamFormat(vlen=3), "items of 24 bytes"),
        ([b"ch0", RAW], PLAIN, "b'ch0': the sender's sink has a key; give it with --key"),
        ([RAW], StreamFormat(key=b"ch0"), "1 frames came, .* leave out --key"),
        ([b"ch01", RAW], StreamFormat(key=b"ch0"), "b'ch01' came, expected b'ch0'"),
        ([b"a", b"b", RAW], PLAIN, "3 frames came, expected 1 frame"),
        ([], PLAIN, "0 frames"),
        ([b"\xf0\x5f\x02" + bytes(16)], WITH_TAGS, "version 2"),
        ([struct.pack("<HBQQ", 0x5FF0, 1, 0, 2**60)], WITH_TAGS, "1152921504606846976 tags"),
        ([struct.pack("<HBQQ", 0x5FF0, 1, 2**62, 0)], WITH_TAGS, "position 4611686018427387904, beyond"),
        ([struct.pack("<HBQQ", 0x5FF0, 1, 2**61, 0)], StreamFormat(tags=True, vlen=2), "position 4611686018427387904"),
        ([struct.pack("<HBQQ", 0x5FF0, 1, 0, 3) + b"\x06" * 32], WITH_TAGS, "tags"),
        ([struct.pack("<HBQQQ", 0x5FF0, 1, 0, 1, 0) + b"\6\6\6"], WITH_TAGS, "key is a NoneType"),
        ([TAGGED[:40]], WITH_TAGS, "tags|truncated"),
    ],
)
def test_messages_of_another_format_are_refused_with_the_option_to_use(
    frames: list[bytes], form: StreamFormat, message: str
) -> None:
    with pytest.raises(WireError, match=message):
        decode_stream_message(frames, form)


def test_raw_samples_that_begin_like_a_header_are_samples() -> None:
    noise = np.random.default_rng(1).normal(size=(64, 2)).astype("<f4").tobytes()
    message = decode_stream_message([TAGGED[:3] + noise[3:]], PLAIN)
    assert message.samples.tobytes() == TAGGED[:3] + noise[3:]


@pytest.mark.parametrize(("options", "message"), [({"item_type": "rf32_le"}, "rf32_le"), ({"vlen": 0}, "length 0")])
def test_impossible_formats_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(WireError, match=message):
        StreamFormat(**options)  # type: ignore[arg-type]


def test_claims_take_no_memory() -> None:
    vector = b"\x08\xff\xff\xff\xff" + bytes(300_000)
    array = b"\x0a\x0b\xff\xff\xff\xff\x00" + bytes(300_000)
    header = struct.pack("<HBQQQ", 0x5FF0, 1, 0, 1, 0) + b"\x02\x00\x01k"
    tracemalloc.start()
    try:
        for frame in (struct.pack("<HBQQ", 0x5FF0, 1, 0, 2**60) + bytes(300_000), header + vector, header + array):
            with pytest.raises(WireError):
                decode_stream_message([frame], WITH_TAGS)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


FORMATS = st.builds(
    StreamFormat,
    tags=st.booleans(),
    key=st.none() | st.binary(min_size=1, max_size=4),
    item_type=st.sampled_from(["cf32_le", "ci16_le"]),
    vlen=st.integers(1, 3),
)
OFFSETS = st.integers(0, 2**64 - 1)
TAG_LISTS = st.lists(
    st.builds(Tag, OFFSETS, st.text(max_size=8), st.floats(allow_nan=False) | st.text(max_size=4), st.booleans()),
    max_size=4,
)


@given(FORMATS, st.integers(0, 50), st.integers(0, (2**62 - 1) // 3), TAG_LISTS)
def test_every_message_comes_back(form: StreamFormat, count: int, offset: int, tags: list[Tag]) -> None:
    codes = np.arange(2 * count * form.vlen) % 65536 - 32768
    samples = (codes / 32768).astype(np.float32).view(np.complex64)
    in_items = tuple(Tag(tag.offset * form.vlen, tag.key, tag.value, tag.source) for tag in tags)
    message = StreamMessage(samples, offset * form.vlen, in_items)
    decoded = decode_stream_message(encode_stream_message(message, form), form)
    np.testing.assert_array_equal(decoded.samples, samples, strict=True)
    expected = (message.offset, in_items) if form.tags else (None, ())
    assert (decoded.offset, decoded.tags) == expected


HEADERS = st.builds(struct.pack, st.just("<HBQQ"), st.just(0x5FF0), st.sampled_from([1, 1, 1, 2]), OFFSETS, OFFSETS)
TAG_BYTES = st.lists(st.binary(max_size=9) | st.sampled_from([b"\x02\x00\x01k", b"\x06", bytes(8)]), max_size=12)
FRAMES = (
    st.binary(max_size=80)
    | st.tuples(HEADERS, st.binary(max_size=60)).map(b"".join)
    | TAG_BYTES.map(lambda parts: struct.pack("<HBQQ", 0x5FF0, 1, 0, len(parts) // 4) + b"".join(parts))
)


@given(st.lists(FRAMES, max_size=3), FORMATS)
def test_any_frames_are_read_or_refused(frames: list[bytes], form: StreamFormat) -> None:
    try:
        message = decode_stream_message(frames, form)
    except WireError:
        return
    assert len(message.samples) * 4 <= sum(map(len, frames))


@given(st.integers(0, len(TAGGED) - 1), st.binary(max_size=2))
def test_any_damage_is_read_or_refused(place: int, patch: bytes) -> None:
    try:
        decode_stream_message([TAGGED[:place] + patch + TAGGED[place + 1 :]], WITH_TAGS)
    except WireError:
        return
