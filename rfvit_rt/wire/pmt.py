# SPDX-License-Identifier: Apache-2.0
"""GNU Radio's polymorphic types (PMT) as bytes, both ways, without GNU Radio.

The bytes are those of ``pmt::serialize`` of GNU Radio 3.10: one type byte, then the value, big-endian.

==========================  ==================  ======================================================
Python                      PMT                 remarks
==========================  ==================  ======================================================
``bool``                    ``#t``, ``#f``
``None``                    nil ``()``          an empty dict or list *is* nil, so it comes back as None
``str``                     symbol              bytes that are not UTF-8 survive as surrogate escapes
``int``                     int32, int64, u64   the first of the three that holds the value
:class:`UInt64`             u64                 an ``int`` that keeps its type on the wire
``float``                   f64
``complex``                 complex
``tuple``                   tuple               not empty: GNU Radio cannot read an empty one back
``list``                    vector
``dict``                    dict                keys: symbols, numbers and booleans; order is kept
NumPy array, 1-D, ``bytes``  uniform vector     u8 to s64, f32, f64, c32, c64; ``bytes`` come back as uint8
:class:`Pair`               pair ``(a . b)``
:class:`PairList`           list ``(a b c)``    a chain of pairs that ends in nil
==========================  ==================  ======================================================

Bytes from a socket are hostile: nesting, the number of values and every length are checked before anything is built.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

MAX_DEPTH = 64
"""Deepest nesting that is read or written."""

MAX_VALUES = 1 << 18
"""Most values that one reader builds. An element of a uniform vector is not a value of its own."""

MAX_SYMBOL_BYTES = 1024
"""Longest symbol that is written: GNU Radio serialises longer ones, but cannot read them."""

# Type bytes.
_TRUE, _FALSE, _SYMBOL, _INT32, _DOUBLE, _COMPLEX, _NIL, _PAIR = range(8)
_VECTOR, _DICT, _UNIFORM, _UINT64, _TUPLE, _INT64 = range(8, 14)

# Element types of uniform vectors; their place in the tuple is their code on the wire.
_ELEMENTS = tuple(
    np.dtype(name) for name in ("u1", "i1", ">u2", ">i2", ">u4", ">i4", ">u8", ">i8", ">f4", ">f8", ">c8", ">c16")
)
_ELEMENT_CODES = {dtype.newbyteorder("="): code for code, dtype in enumerate(_ELEMENTS)}


class UInt64(int):
    """An integer that is a u64 on the wire whatever its value, as the full seconds of an ``rx_time`` tag must be."""


@dataclass(frozen=True)
class Pair:
    """A pair ``(car . cdr)``; a PDU is ``Pair(metadata, payload)``."""

    car: Any
    cdr: Any


@dataclass(frozen=True)
class PairList:
    """A list ``(a b c)`` made of pairs that end in nil. ``Pair(a, None)`` is the same on the wire as a list of one."""

    items: tuple[Any, ...]


def serialize(value: object) -> bytes:
    """Return the PMT bytes of a value.

    Parameters
    ----------
    value : object
        Any value of the module's table.

    Raises
    ------
    WireError
        If a value has no PMT, or is one that GNU Radio could not read back.
    """
    parts: list[bytes] = []
    _write(value, parts, 0)
    return b"".join(parts)


def deserialize(data: bytes | bytearray | memoryview) -> Any:
    """Return the value of one serialised PMT.

    Parameters
    ----------
    data : bytes-like
        Exactly one PMT.

    Returns
    -------
    object
        A value of the module's table. Arrays are native-endian copies.

    Raises
    ------
    WireError
        If the bytes are not exactly one PMT within the limits of this module.
    """
    reader = PmtReader(data)
    value = reader.read()
    if reader.remaining:
        raise WireError(f"{reader.remaining} bytes follow the end of a PMT; a message carries exactly one")
    return value


class PmtReader:
    """Reads PMTs and plain fields one after the other, and never past the end of the bytes.

    Parameters
    ----------
    data : bytes-like
        The bytes; not copied.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self._values_left = MAX_VALUES
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.position

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes.

        Raises
        ------
        WireError
            If fewer are left.
        """
        if count > self.remaining:
            raise WireError(f"truncated: {count} bytes expected at byte {self.position}, {self.remaining} there")
        start = self.position
        self.position += count
        return self._data[start : self.position]

    def unpack(self, fields: struct.Struct) -> tuple[Any, ...]:
        """Return the next plain fields.

        Raises
        ------
        WireError
            If too few bytes are left.
        """
        return fields.unpack(self.take(fields.size))

    def read(self) -> Any:
        """Return the next PMT's value.

        Raises
        ------
        WireError
            If the bytes are no PMT, are cut short, or exceed the limits of this module.
        """
        return self._read(0)

    def _read(self, depth: int) -> Any:
        return self._read_as(self.take(1)[0], depth)

    def _read_as(self, kind: int, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise WireError(f"more than {MAX_VALUES} PMT values in one message")
        if depth > MAX_DEPTH:
            raise WireError(f"PMT nested more than {MAX_DEPTH} deep")
        if kind in _FIXED:
            return _FIXED[kind]
        if kind in _SCALARS:
            fields, make = _SCALARS[kind]
            return make(*self.unpack(fields))
        if kind == _SYMBOL:
            return bytes(self.take(self.unpack(_U16)[0])).decode("utf-8", "surrogateescape")
        if kind == _VECTOR:
            return self._read_items(depth)
        if kind == _TUPLE:
            return tuple(self._read_items(depth))
        if kind == _UNIFORM:
            return self._read_array()
        if kind == _PAIR:
            return self._read_chain(depth)
        if kind == _DICT:
            return self._read_dict(depth)
        raise WireError(f"unknown PMT type 0x{kind:02x} at byte {self.position - 1}")

    def _read_items(self, depth: int) -> list[Any]:
        (count,) = self.unpack(_U32)
        if count > self.remaining:  # an item takes a byte at least
            raise WireError(f"PMT vector claims {count} items, but {self.remaining} bytes are left")
        return [self._read(depth + 1) for _ in range(count)]

    def _read_array(self) -> NDArray[Any]:
        code, count, padding = self.unpack(_UNIFORM_HEADER)
        if code >= len(_ELEMENTS):
            raise WireError(f"unknown element type 0x{code:02x} of a PMT uniform vector")
        self.take(padding)
        dtype = _ELEMENTS[code]
        data = self.take(count * dtype.itemsize)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))

    def _read_chain(self, depth: int) -> Pair | PairList:
        """Read on after a pair's type byte: a loop, because a long list is a deep chain."""
        cars = [self._read(depth + 1)]
        while (kind := self.take(1)[0]) == _PAIR:
            cars.append(self._read(depth + 1))
        tail = self._read_as(kind, depth + 1)
        if tail is None:
            return PairList(tuple(cars))
        if depth + len(cars) > MAX_DEPTH:
            raise WireError(f"PMT nested more than {MAX_DEPTH} deep")
        for car in reversed(cars):
            tail = Pair(car, tail)
        return tail

    def _read_dict(self, depth: int) -> dict[Any, Any]:
        """Read on after a dict's type byte: entries that are pairs, until nil."""
        entries: dict[Any, Any] = {}
        kind = _DICT
        while kind == _DICT:
            if self.take(1)[0] != _PAIR:
                raise WireError(f"PMT dict entry at byte {self.position - 1} is not a pair")
            key = self._read(depth + 1)
            if not isinstance(key, (str, int, float, complex)):
                raise WireError(f"PMT dict key is a {type(key).__name__}; expected a symbol, number or boolean")
            entries.setdefault(key, self._read(depth + 1))  # a look-up in GNU Radio finds the first
            kind = self.take(1)[0]
        if kind != _NIL:
            raise WireError(f"PMT dict does not end in nil at byte {self.position - 1}")
        return entries


_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_UNIFORM_HEADER = struct.Struct(">BIB")
_FIXED = {_TRUE: True, _FALSE: False, _NIL: None}
_SCALARS: dict[int, tuple[struct.Struct, Any]] = {
    _INT32: (struct.Struct(">i"), int),
    _INT64: (struct.Struct(">q"), int),
    _UINT64: (struct.Struct(">Q"), UInt64),
    _DOUBLE: (struct.Struct(">d"), float),
    _COMPLEX: (struct.Struct(">dd"), complex),
}


def _scalar(kind: int, *numbers: float) -> bytes:
    return bytes([kind]) + _SCALARS[kind][0].pack(*numbers)


def _write(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError(f"value nested more than {MAX_DEPTH} deep (or inside itself) cannot be written as PMT")
    if isinstance(value, np.generic):
        value = UInt64(value) if isinstance(value, np.uint64) else value.item()
    if value is None:
        parts.append(bytes([_NIL]))
    elif isinstance(value, bool):
        parts.append(bytes([_TRUE if value else _FALSE]))
    elif isinstance(value, str):
        parts.append(_symbol(value))
    elif isinstance(value, int):
        parts.append(_integer(value))
    elif isinstance(value, float):
        parts.append(_scalar(_DOUBLE, value))
    elif isinstance(value, complex):
        parts.append(_scalar(_COMPLEX, value.real, value.imag))
    elif isinstance(value, (np.ndarray, bytes, bytearray)):
        parts.append(_uniform_vector(value))
    elif isinstance(value, (list, tuple)):
        _write_items(value, parts, depth)
    elif isinstance(value, dict):
        _write_dict(value, parts, depth)
    elif isinstance(value, Pair):
        _write_chain((value.car,), value.cdr, parts, depth)
    elif isinstance(value, PairList):
        _write_chain(value.items, None, parts, depth)
    else:
        raise WireError(f"a {type(value).__name__} cannot be written as PMT; see rfvit_rt.wire.pmt for what can")


def _symbol(text: str) -> bytes:
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise WireError(f"text cannot be written as a PMT symbol: {error}") from None
    if len(encoded) > MAX_SYMBOL_BYTES:
        raise WireError(
            f"a symbol of {len(encoded)} bytes cannot be read by GNU Radio, which stops at {MAX_SYMBOL_BYTES}; "
            "send it as bytes"
        )
    return bytes([_SYMBOL]) + _U16.pack(len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if not -(1 << 63) <= value < 1 << 64 or (isinstance(value, UInt64) and value < 0):
        raise WireError(f"{type(value).__name__} {value} does not fit a 64-bit PMT integer")
    if isinstance(value, UInt64) or value >= 1 << 63:
        return _scalar(_UINT64, value)
    return _scalar(_INT32 if -(1 << 31) <= value < 1 << 31 else _INT64, value)


def _uniform_vector(value: NDArray[Any] | bytes | bytearray) -> bytes:
    array = value if isinstance(value, np.ndarray) else np.frombuffer(value, np.uint8)
    code = _ELEMENT_CODES.get(array.dtype.newbyteorder("="))
    if code is None or array.ndim != 1:
        raise WireError(
            f"an array of shape {array.shape} and type {array.dtype} has no PMT; "
            "expected one dimension of 8 to 64 bit integers, floats or complex numbers"
        )
    if array.size >= 1 << 32:
        raise WireError(f"an array of {array.size} elements is longer than a PMT's 32-bit count")
    # GNU Radio always writes one byte of padding.
    return (
        bytes([_UNIFORM]) + _UNIFORM_HEADER.pack(code, array.size, 1) + b"\0" + array.astype(_ELEMENTS[code]).tobytes()
    )


def _write_items(items: list[Any] | tuple[Any, ...], parts: list[bytes], depth: int) -> None:
    if isinstance(items, tuple) and not items:
        raise WireError("an empty tuple cannot be read by GNU Radio; send None or an empty list")
    parts.append(bytes([_TUPLE if isinstance(items, tuple) else _VECTOR]) + _U32.pack(len(items)))
    for item in items:
        _write(item, parts, depth + 1)


def _write_chain(cars: tuple[Any, ...], tail: Any, parts: list[bytes], depth: int) -> None:
    for car in cars:
        parts.append(bytes([_PAIR]))
        _write(car, parts, depth + 1)
    _write(tail, parts, depth + 1)


def _write_dict(entries: dict[Any, Any], parts: list[bytes], depth: int) -> None:
    for key, value in entries.items():
        if not isinstance(key, (str, int, float, complex, np.number)):
            raise WireError(f"a {type(key).__name__} cannot be a PMT dict key; use a symbol, number or boolean")
        parts.append(bytes([_DICT, _PAIR]))
        _write(key, parts, depth + 1)
        _write(value, parts, depth + 1)
    parts.append(bytes([_NIL]))
