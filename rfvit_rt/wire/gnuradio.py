# SPDX-License-Identifier: Apache-2.0
"""Messages of GNU Radio's ZeroMQ stream sinks (``push_sink``, ``pub_sink``, ``rep_sink``), both ways.

Layout as gr-zeromq 3.10 writes it. With ``pass_tags`` off, a message is raw items and nothing else. With it on, a
header comes first: magic 0x5FF0, version 1, absolute item offset, number of tags (``<HBQQ``), then per tag its
absolute offset and the PMTs of key, value and source. A ``key`` (PUB/SUB) adds a frame before all that.

On the wire an item may be a vector of samples; here every offset and length counts samples.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError
from rfvit_rt.wire import pmt
from rfvit_rt.wire.samples import from_complex64, item_size, to_complex64

MAX_TAGS = 1 << 16
"""Most tags read from one message; GNU Radio's default buffers hold 8191 complex samples."""

MAX_POSITION = 1 << 62
"""Positions of messages lie below this, so that every position reckoned from them fits into an int64."""

_MAGIC = 0x5FF0
_VERSION = 1
_HEADER = struct.Struct("<HBQQ")
_HEADER_START = struct.pack("<HB", _MAGIC, _VERSION)
_TAG_OFFSET = struct.Struct("<Q")
_SMALLEST_TAG = _TAG_OFFSET.size + 3

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class StreamFormat:
    """What a sender was set to send; nothing in a raw stream says it.

    Attributes
    ----------
    tags : bool
        Whether the sink passes tags, and so a header.
    key : bytes or None
        The sink's key; None where it has none.
    item_type : str
        SigMF type of a sample: GNU Radio's complex is ``cf32_le``; pairs of shorts (sc16) are ``ci16_le``.
    vlen : int
        Samples per item; more than 1 behind a ``stream_to_vector`` block.
    """

    tags: bool = False
    key: bytes | None = None
    item_type: str = "cf32_le"
    vlen: int = 1

    def __post_init__(self) -> None:
        item_size(self.item_type)  # raises if the type is not known
        if self.vlen < 1:
            raise WireError(f"vector length {self.vlen} is not possible; use the vlen of the sender's sink, 1 or more")

    @property
    def item_bytes(self) -> int:
        """Bytes per item."""
        return item_size(self.item_type) * self.vlen


@dataclass(frozen=True)
class Tag:
    """A tag on one sample of the stream.

    Attributes
    ----------
    offset : int
        Position of the sample in the stream.
    key : str
        Name, for example ``rx_freq``.
    value : object
        Any value of :mod:`rfvit_rt.wire.pmt`.
    source : object
        Who set the tag; GNU Radio's default is False.
    """

    offset: int
    key: str
    value: Any
    source: Any = False


@dataclass(frozen=True, eq=False)
class StreamMessage:
    """What one message carried.

    Attributes
    ----------
    samples : (n,) complex64
        The samples; aligned, writeable, and not tied to the message's memory.
    offset : int or None
        Position of the first sample in the stream; None where the sender passes no header.
    tags : tuple of Tag
        Tags in the order they came.
    """

    samples: NDArray[np.complex64]
    offset: int | None = None
    tags: tuple[Tag, ...] = ()


def decode_stream_message(frames: Sequence[Buffer], form: StreamFormat) -> StreamMessage:
    """Return what the frames of one ZeroMQ message carry.

    Parameters
    ----------
    frames : sequence of bytes-like
        All frames of the message.
    form : StreamFormat
        What the sender was set to send.

    Returns
    -------
    StreamMessage
        Offsets count samples.

    Raises
    ------
    WireError
        If the message is of another format; says which option fits, where that can be told.
    """
    payload = _payload(frames, form.key)
    if not form.tags:
        _refuse_header(payload, form)
        return StreamMessage(_samples(payload, form))
    reader = pmt.PmtReader(payload)
    offset, tags = _read_header(reader, form.vlen)
    return StreamMessage(_samples(reader.take(reader.remaining), form), offset, tags)


def encode_stream_message(message: StreamMessage, form: StreamFormat) -> list[bytes]:
    """Return the frames that a GNU Radio sink of the given settings would send.

    Parameters
    ----------
    message : StreamMessage
        Samples (n,) complex64; offset and tags are written only where the format has tags.
    form : StreamFormat
        What to write.

    Raises
    ------
    WireError
        If the samples or the offset are not whole items, or a tag's value has no PMT.
    ValueError
        If a sample that has to become an integer is not finite.
    """
    if len(message.samples) % form.vlen or (message.offset or 0) % form.vlen:
        raise WireError(f"{len(message.samples)} samples at {message.offset} are not whole items of {form.vlen}")
    payload = from_complex64(message.samples, form.item_type)
    if form.tags:
        payload = _header(message, form.vlen) + payload
    return [payload] if form.key is None else [form.key, payload]


def _payload(frames: Sequence[Buffer], key: bytes | None) -> memoryview:
    count = len(frames)
    if key is None and count == 2:
        first = bytes(frames[0][:32])
        raise WireError(
            f"a message of 2 frames came, the first is {first!r}: the sender's sink has a key; give it with --key"
        )
    if count != (1 if key is None else 2):
        expected = "1 frame" if key is None else "2 frames, the key and the samples"
        hint = (
            "leave out --key if the sender's sink has none" if count == 1 else "is the sender a GNU Radio stream sink?"
        )
        raise WireError(f"a message of {count} frames came, expected {expected}; {hint}")
    if key is not None and bytes(frames[0][: len(key) + 1]) != key:
        # A subscription matches every key that begins with it.
        came = bytes(frames[0][:32])
        raise WireError(f"a message with key {came!r} came, expected {key!r}; give the sink's whole key with --key")
    return memoryview(frames[-1])


def _read_header(reader: pmt.PmtReader, vlen: int) -> tuple[int, tuple[Tag, ...]]:
    size = reader.remaining
    if size < _HEADER.size:
        raise WireError(f"a message of {size} bytes is too short for GNU Radio's tag header; {_NO_TAGS_HINT}")
    magic, version, offset, count = reader.unpack(_HEADER)
    if magic != _MAGIC:
        raise WireError(
            f"a message begins with 0x{magic:04x}, not with the tag header's 0x{_MAGIC:04x}; {_NO_TAGS_HINT}"
        )
    if version != _VERSION:
        raise WireError(
            f"tag header version {version} came, only {_VERSION} is known; send raw samples and use --no-tags"
        )
    if offset * vlen >= MAX_POSITION:
        raise WireError(
            f"tag header claims position {offset * vlen}, beyond all streams; is the sender a GNU Radio stream sink?"
        )
    if count > min(MAX_TAGS, reader.remaining // _SMALLEST_TAG):
        raise WireError(f"tag header claims {count} tags in a message of {size} bytes; at most {MAX_TAGS} are read")
    return offset * vlen, tuple(_read_tag(reader, vlen) for _ in range(count))


_NO_TAGS_HINT = "use --no-tags, or switch on pass_tags in the sender's sink"


def _read_tag(reader: pmt.PmtReader, vlen: int) -> Tag:
    (offset,) = reader.unpack(_TAG_OFFSET)
    key, value, source = reader.read(), reader.read(), reader.read()
    if not isinstance(key, str):
        raise WireError(f"a stream tag's key is a {type(key).__name__}; expected a symbol")
    return Tag(offset * vlen, key, value, source)


def _refuse_header(payload: memoryview, form: StreamFormat) -> None:
    """Raise if a raw message is a tagged one: noise begins like a header by chance, but has no readable tags."""
    if bytes(payload[: len(_HEADER_START)]) != _HEADER_START:
        return
    reader = pmt.PmtReader(payload)
    try:
        _read_header(reader, form.vlen)
    except WireError:
        return
    if reader.remaining % form.item_bytes == 0:
        raise WireError("a message with GNU Radio's tag header came, expected raw samples; use --tags")


def _samples(payload: memoryview, form: StreamFormat) -> NDArray[np.complex64]:
    if len(payload) % form.item_bytes:
        raise WireError(
            f"{len(payload)} bytes of samples are not whole {form.item_type} items of {form.item_bytes} bytes; "
            "check --item-type, the sink's vlen, and --tags / --no-tags"
        )
    return to_complex64(payload, form.item_type)


def _header(message: StreamMessage, vlen: int) -> bytes:
    parts = [_HEADER.pack(_MAGIC, _VERSION, (message.offset or 0) // vlen, len(message.tags))]
    for tag in message.tags:
        parts.append(_TAG_OFFSET.pack(tag.offset // vlen))
        parts += [pmt.serialize(tag.key), pmt.serialize(tag.value), pmt.serialize(tag.source)]
    return b"".join(parts)
