# SPDX-License-Identifier: Apache-2.0
"""What goes over the WebSocket: there and back again, and nothing believed of what comes from outside."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rfvit_rt.errors import WireError
from rfvit_rt.web.protocol import (
    CSI,
    MAX_CLIENT_BYTES,
    SPECTRUM,
    Box,
    Correct,
    Delete,
    Save,
    Tile,
    View,
    decode_tile,
    encode,
    message,
    parse,
)

BOX = {"type": "correct", "id": 3, "label": "NR", "time_start": 1, "time_end": 2.5, "freq_lower_edge": -1e6}
BOX |= {"freq_upper_edge": 1e6}

cells = st.tuples(st.integers(0, 7), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*(arrays(np.uint8, shape) for _ in range(3)))
)
number = st.floats(-1e12, 1e12)


@given(
    st.sampled_from([SPECTRUM, CSI]),
    st.integers(-(2**63), 2**63 - 1),
    st.tuples(number, number, number, number),
    cells,
)
def test_a_tile_comes_back_as_it_was(kind: int, start: int, place: tuple[float, ...], planes: tuple[Any, ...]) -> None:
    tile = Tile(kind, start, *place, *planes)
    back = decode_tile(tile.encode())
    for field in fields(Tile):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(tile, field.name))


def test_a_tile_lies_in_memory_as_the_module_says() -> None:
    plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = Tile(CSI, 258, 1.5, 0.25, -2.0, 4.0, plane, plane + 10, plane + 20).encode()
    assert data[:12] == b"RFVT\x01\x01\x02\x00\x03\x00\x00\x00"
    assert data[12:20] == (258).to_bytes(8, "little")
    assert np.frombuffer(data, "<f8", 4, 20).tolist() == [1.5, 0.25, -2.0, 4.0]
    assert list(data[52:]) == [*range(6), *range(10, 16), *range(20, 26)]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_tile_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_tile(data)


def test_a_tile_that_was_cut_off_is_refused() -> None:
    plane = np.zeros((2, 3), np.uint8)
    data = Tile(SPECTRUM, 0, 0, 1, 0, 1, plane, plane, plane).encode()
    for wrong in (data[:-1], data + b"\0", data[:20], b"RFVT\x02" + data[5:]):
        with pytest.raises(WireError):
            decode_tile(wrong)


def test_what_a_page_asks_for_is_understood() -> None:
    assert parse('{"type":"view","columns":300,"rows_per_second":50}') == View(300, 50.0)
    assert parse('{"type":"view","columns":300,"rows_per_second":50,"since":null}') == View(300, 50.0)
    assert parse('{"type":"view","columns":300,"rows_per_second":50,"since":2.5}') == View(300, 50.0, 2.5)
    expected = Correct(3, "NR", 1.0, 2.5, -1e6, 1e6)
    assert parse(json.dumps(BOX)) == expected
    assert parse(json.dumps(BOX | {"id": None, "label": "  a carrier of ours ", "was": {"x": [1]}})) == Correct(
        None, "a carrier of ours", 1.0, 2.5, -1e6, 1e6
    )
    assert parse('{"type":"delete","id":0}') == Delete(0)
    assert parse('{"type":"save","seconds":10}') == Save(10.0)


@pytest.mark.parametrize(
    "change",
    [
        {"id": -1},
        {"id": 1.0},
        {"id": True},
        {"id": "3"},
        {"id": 2**53},
        {"label": ""},
        {"label": "  "},
        {"label": "x" * 65},
        {"label": "two\nlines"},
        {"label": "\u202eRN"},
        {"label": ["NR"]},
        {"label": None},
        {"time_start": -1},
        {"time_start": 2.5},
        {"time_end": 1e300},
        {"time_end": "2"},
        {"time_end": None},
        {"time_end": False},
        {"freq_lower_edge": 1e6},
        {"freq_upper_edge": 1e13},
        {"freq_upper_edge": [1e6]},
    ],
    ids=str,
)
def test_a_box_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        parse(json.dumps(BOX | change))


@pytest.mark.parametrize("missing", [name for name in BOX if name != "id"])
def test_a_box_that_lacks_something_is_refused(missing: str) -> None:
    with pytest.raises(WireError):
        parse(json.dumps({name: value for name, value in BOX.items() if name != missing}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "3",
        '"view"',
        "[]",
        "{}",
        "{" * 50_000,
        "[" * 50_000,
        '{"type":"hello"}',
        '{"type":["view"]}',
        '{"type":"view"}',
        '{"type":"view","columns":NaN,"rows_per_second":1}',
        '{"type":"view","columns":Infinity,"rows_per_second":1}',
        '{"type":"view","columns":1e999,"rows_per_second":1}',
        '{"type":"view","columns":15,"rows_per_second":1}',
        '{"type":"view","columns":4097,"rows_per_second":1}',
        '{"type":"view","columns":100,"rows_per_second":0}',
        '{"type":"view","columns":100,"rows_per_second":10,"since":-1}',
        '{"type":"save","seconds":0}',
        '{"type":"save","seconds":"all"}',
        '{"type":"save","seconds":' + "9" * 5000 + "}",
        '{"type":"delete"}',
        '{"type":"view","columns":100,"rows_per_second":10,"x":"' + "x" * MAX_CLIENT_BYTES + '"}',
    ],
    ids=lambda text: text[:40],
)
def test_messages_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        parse(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | inner))
def test_no_value_of_a_field_is_more_than_refused(value: Any) -> None:
    for name in BOX:
        try:
            request = parse(json.dumps(BOX | {name: value}))
        except WireError:
            continue
        assert isinstance(request, Correct)


def test_text_from_outside_stays_text() -> None:
    box = Box(1, '</script>"\u2028', 0.5, 0, 1, 0.0, 1.0, 0.0, 1.0, None)
    fields = json.loads(encode(box))
    assert fields["type"] == "annotation"
    assert fields["label"] == box.label
    assert fields["was"] is None


def test_what_json_cannot_say_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        message("occupancy", time=float("nan"))
