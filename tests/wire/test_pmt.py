# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rfvit_rt.errors import WireError
from rfvit_rt.wire import pmt
from rfvit_rt.wire.pmt import Pair, PairList, UInt64

# Measured: what GNU Radio 3.10.5.1 writes.
GOLDEN: list[tuple[str, Any]] = [
    ("00", True),
    ("01", False),
    ("06", None),
    ("020003616263", "abc"),
    ("020002c3a9", "é"),
    ("03fffffffb", -5),
    ("0380000000", -(2**31)),
    ("0d0000000080000000", 2**31),
    ("0d0000010000000000", 2**40),
    ("0bffffffffffffffff", UInt64(2**64 - 1)),
    ("0b000000006553f100", UInt64(1_700_000_000)),
    ("043ff8000000000000", 1.5),
    ("053ff00000000000004000000000000000", 1 + 2j),
    ("0703000000010300000002", Pair(1, 2)),
    ("07030000000107030000000207030000000306", PairList((1, 2, 3))),
    ("0700090702000161030000000106", Pair(True, {"a": 1})),
    ("0800000003000601", [True, None, False]),
    ("0800000000", []),
    ("0c000000020b000000006553f100043fd0000000000000", (UInt64(1_700_000_000), 0.25)),
    (
        "09070200016e03000000030907020004636f6e66043feccccccccccccd09070200056c6162656c0200024e5206",
        {"n": 3, "conf": 0.9, "label": "NR"},
    ),
]

GOLDEN_ARRAYS: list[tuple[str, Any]] = [
    ("0a0000000002010001ff", np.array([1, 255], "u1")),
    ("0a01000000020100ff02", np.array([-1, 2], "i1")),
    ("0a020000000201000001ffff", np.array([1, 65535], "u2")),
    ("0a03000000020100ffff0002", np.array([-1, 2], "i2")),
    ("0a0400000002010000000001ffffffff", np.array([1, 2**32 - 1], "u4")),
    ("0a05000000020100ffffffff00000002", np.array([-1, 2], "i4")),
    ("0a060000000201000000000000000001ffffffffffffffff", np.array([1, 2**64 - 1], "u8")),
    ("0a07000000020100ffffffffffffffff0000000000000002", np.array([-1, 2], "i8")),
    ("0a080000000201003fc00000c0000000", np.array([1.5, -2], "f4")),
    ("0a090000000201003ff80000000000004000000000000000", np.array([1.5, 2], "f8")),
    ("0a0a0000000201003f800000400000004040000000000000", np.array([1 + 2j, 3], "c8")),
    ("0a0b0000000101003ff00000000000004000000000000000", np.array([1 + 2j], "c16")),
    ("0a08000000000100", np.array([], "f4")),
]


@pytest.mark.parametrize(("encoded", "value"), GOLDEN)
def test_values_are_written_and_read_as_gnuradio_does(encoded: str, value: object) -> None:
    assert pmt.serialize(value).hex() == encoded
    read = pmt.deserialize(bytes.fromhex(encoded))
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("encoded", "array"), GOLDEN_ARRAYS)
def test_arrays_are_written_and_read_as_gnuradio_does(encoded: str, array: np.ndarray) -> None:
    assert pmt.serialize(array).hex() == encoded
    read = pmt.deserialize(bytes.fromhex(encoded))
    np.testing.assert_array_equal(read, array, strict=True)
    assert read.dtype.isnative
    assert read.flags.writeable


def test_big_endian_strided_and_bytes_payloads_are_written_as_their_values() -> None:
    assert pmt.serialize(np.array([1, 9, 65535], ">u2")[::2]).hex() == "0a020000000201000001ffff"
    pdu = pmt.serialize(Pair(None, b'{"a"}'))
    assert pdu.hex() == "07060a000000000501007b2261227d"
    assert pmt.deserialize(pdu).cdr.tobytes() == b'{"a"}'


def test_padding_of_any_length_is_skipped() -> None:
    np.testing.assert_array_equal(pmt.deserialize(bytes.fromhex("0a000000000207" + "00" * 7 + "0102")), [1, 2])


def test_numpy_scalars_are_written_as_their_python_values() -> None:
    assert pmt.serialize(np.uint64(5)) == pmt.serialize(UInt64(5))
    assert pmt.serialize([np.float32(1.5), np.int16(-5), np.bool_(True)]) == pmt.serialize([1.5, -5, True])


def test_empty_containers_are_nil_as_in_gnuradio() -> None:
    assert pmt.deserialize(pmt.serialize({})) is None
    assert pmt.deserialize(pmt.serialize(PairList(()))) is None
    assert pmt.deserialize(pmt.serialize(Pair("a", None))) == PairList(("a",))


def test_first_of_two_equal_dict_keys_counts_as_in_gnuradio() -> None:
    assert pmt.deserialize(bytes.fromhex("0907020001610300000001" + "0907020001610300000002" + "06")) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((), "empty tuple"),
        ("x" * 1025, "1025 bytes"),
        ("\ud800", "symbol"),
        (2**64, "64-bit"),
        (-(2**63) - 1, "64-bit"),
        (UInt64(-1), "64-bit"),
        (np.zeros((2, 2)), "one dimension"),
        (np.array(["a"]), "no PMT"),
        ({1, 2}, "set"),
        ({(1, 2): 3}, "dict key"),
    ],
)
def test_values_without_a_pmt_are_refused(value: object, message: str) -> None:
    with pytest.raises(WireError, match=message):
        pmt.serialize(value)


def test_endless_nesting_is_refused_both_ways() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WireError, match="nested"):
        pmt.serialize(endless)
    for step in ("0800000001", "0c00000001", "07", "0907", "0700"):
        with pytest.raises(WireError, match=r"nested|pair"):
            pmt.deserialize(bytes.fromhex(step) * 100_000 + b"\0")


def test_long_lists_are_not_deep() -> None:
    numbers = PairList(tuple(range(10_000)))
    assert pmt.deserialize(pmt.serialize(numbers)) == numbers
    entries = {f"key {n}": n for n in range(10_000)}
    assert pmt.deserialize(pmt.serialize(entries)) == entries


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("", "truncated"),
        ("ff", "unknown PMT type 0xff"),
        ("0300", "truncated"),
        ("02ffff61", "truncated"),
        ("08ffffffff00", "4294967295 items"),
        ("0cffffffff00", "4294967295 items"),
        ("0a0bffffffff00", "truncated"),
        ("0a000000000009ff", "truncated"),
        ("0a0c000000000100", "element type 0x0c"),
        ("0703000000010300000002ff", "1 bytes follow"),
        ("0900000000", "not a pair"),
        ("090702000161030000000100", "end in nil"),
        ("0907060006", "dict key is a NoneType"),
        ("0907080000000006" + "06", "dict key is a list"),
    ],
)
def test_bytes_that_are_no_pmt_are_refused(encoded: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        pmt.deserialize(bytes.fromhex(encoded))


def test_number_of_values_is_bounded() -> None:
    with pytest.raises(WireError, match="more than"):
        pmt.deserialize(b"\x08\x00\x10\x00\x00" + b"\0" * 0x100000)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(0, 2**64 - 1).map(UInt64)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=20)
)
KEYS = st.text(max_size=8) | st.integers(2, 2**40) | st.booleans()
# What comes back as it went: a pair's second half is not nil or a list (that is a longer list), a dict is not empty.
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, min_size=1, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, min_size=1, max_size=4)
        | st.lists(inner, min_size=1, max_size=4).map(lambda items: PairList(tuple(items)))
        | st.builds(Pair, inner, inner.filter(lambda cdr: cdr is not None and not isinstance(cdr, PairList)))
    ),
    max_leaves=12,
)
ARRAY_TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "c8", "c16"]
ARRAYS = hnp.arrays(st.sampled_from(ARRAY_TYPES), st.integers(0, 20), fill=st.nothing())


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    assert pmt.deserialize(pmt.serialize(value)) == value


@given(ARRAYS)
def test_every_array_comes_back(array: np.ndarray) -> None:
    read = pmt.deserialize(pmt.serialize(array))
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()


@given(st.binary(max_size=200))
def test_any_symbol_bytes_come_back(text: bytes) -> None:
    encoded = b"\x02" + len(text).to_bytes(2, "big") + text
    assert pmt.serialize(pmt.deserialize(encoded)) == encoded


# Bytes that are close to a PMT reach further into the decoder than random ones.
ALMOST = st.lists(st.sampled_from([bytes([kind]) for kind in range(16)]) | st.binary(max_size=6), max_size=40)


@given(st.binary(max_size=300) | ALMOST.map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        pmt.deserialize(data)
    except WireError:
        return


@given(VALUES.map(pmt.serialize), st.data())
def test_any_damage_is_read_or_refused(encoded: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(encoded) - 1))
    damaged = encoded[:place] + data.draw(st.binary(max_size=3)) + encoded[place + 1 :]
    try:
        pmt.deserialize(damaged)
    except WireError:
        return


_ECHO = """
import json, sys, pmt
for line in sys.stdin:
    value = pmt.deserialize_str(bytes.fromhex(line.strip()))
    text = pmt.write_string(value)
    print(json.dumps([pmt.serialize_str(value).hex(), text]))
"""

_BUILD = """
import pmt
D, S, L = pmt.dict_add, pmt.intern, pmt.from_long
values = [
    pmt.PMT_T, pmt.PMT_F, pmt.PMT_NIL, S("abc"), S(""), L(-5), L(2**31), L(-2**63), pmt.from_uint64(5),
    pmt.from_double(float("-inf")), pmt.from_complex(1 - 2j), pmt.cons(L(1), L(2)), pmt.list3(L(1), S("a"), L(3)),
    D(D(pmt.make_dict(), S("a"), L(1)), S("b"), D(pmt.make_dict(), S("c"), pmt.PMT_NIL)), pmt.make_dict(),
    pmt.make_vector(2, S("x")), pmt.make_tuple(pmt.from_uint64(7), pmt.from_double(0.5)),
]
for kind in "u8 s8 u16 s16 u32 s32 u64 s64 f32 f64 c32 c64".split():
    values.append(getattr(pmt, f"init_{kind}vector")(3, [1, 2, 3]))
for value in values:
    print(pmt.serialize_str(value).hex())
"""


def _run(python: Path, script: str, lines: str = "") -> list[str]:
    command = [str(python), "-c", script]
    return subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=60).stdout.split(
        "\n"
    )[:-1]


def test_gnuradio_reads_what_is_written_here(gnuradio_python: Path) -> None:
    values = [value for _, value in GOLDEN] + [array for _, array in GOLDEN_ARRAYS]
    values += ["a" * 1024, list(range(1000)), tuple(range(20)), PairList(tuple(range(1000))), b"bytes", UInt64(0)]
    values += [{"a": {"b": [1, (2, 3j)]}, 4: Pair("x", {"y": None})}, Pair(None, b"payload"), float("nan")]
    encoded = [pmt.serialize(value).hex() for value in values]
    echoes = [json.loads(line) for line in _run(gnuradio_python, _ECHO, "\n".join(encoded))]
    assert [echo for echo, _ in echoes] == encoded
    texts = [text for _, text in echoes]
    assert texts[: len(GOLDEN)][3] == "abc"
    assert texts[9] == str(2**64 - 1)
    assert texts[13] == "(1 . 2)"
    assert texts[14] == "(1 2 3)"
    assert texts[18] == "{1700000000 0.25}"


def test_what_gnuradio_writes_is_read_here(gnuradio_python: Path) -> None:
    lines = _run(gnuradio_python, _BUILD)
    read = [pmt.deserialize(bytes.fromhex(line)) for line in lines]
    values, arrays = read[:-12], read[-12:]
    assert values == [
        *(True, False, None, "abc", "", -5, 2**31, -(2**63), UInt64(5), float("-inf"), 1 - 2j),
        *(Pair(1, 2), PairList((1, "a", 3)), {"b": {"c": None}, "a": 1}, None, ["x", "x"], (UInt64(7), 0.5)),
    ]
    assert type(values[8]) is UInt64
    assert [array.dtype for array in arrays] == [np.dtype(name) for name in ARRAY_TYPES]
    assert all(array.tolist() == [1, 2, 3] for array in arrays)
    assert [pmt.serialize(value).hex() for value in read] == lines
