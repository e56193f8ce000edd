# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfvit_rt.datatypes import Activity, Annotation, Emission
from rfvit_rt.errors import WireError
from rfvit_rt.wire.results import MAX_BYTES, Result, SensingStatus, Status, decode, encode, from_dict, to_dict

ANNOTATION = Annotation("LTE", 1234, 5678, 806e6, 816e6, 0.97, 61.44e6, 811e6)
EMISSION = Emission("NR", -3.6e6, 3.6e6, 100, 2**40, 12, 0.125, 0.5)
STATUS = Status(10**12, 23.04e6, None, 23.03e6, 1, 2, 3, 0.061)
ACTIVITY = Activity("walk", 1.5, 4.25, 150, 275, 0.93, 99.6, 1)
SENSING = SensingStatus("walk", 0.93, 4.25, 99.6, False, 425, 1, 2, 3, 4, 0.012)
EXAMPLES = [ANNOTATION, EMISSION, STATUS, ACTIVITY, SENSING]

finite = st.floats(allow_nan=False, allow_infinity=False)
share = st.floats(0, 1)
position = st.integers(0, 2**62)
positive = st.floats(min_value=1e-3, max_value=1e12)
label = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=128)
band = st.tuples(finite, finite).filter(lambda edges: edges[0] != edges[1]).map(sorted)
annotations = st.builds(
    lambda edges, *rest: Annotation(rest[0], rest[1], rest[2], edges[0], edges[1], *rest[3:]),
    band,
    label,
    position,
    st.integers(1, 2**62),
    share,
    positive,
    st.none() | finite,
)
emissions = st.builds(
    lambda edges, name, seen, *rest: Emission(name, edges[0], edges[1], *sorted(seen), *rest),
    band,
    label,
    st.tuples(position, position),
    st.integers(1, 2**62),
    share,
    share,
)
statuses = st.builds(
    Status, position, positive, st.none() | finite, finite, position, position, position, st.none() | finite
)
activities = st.builds(
    lambda name, times, *rest: Activity(name, *sorted(times), *rest),
    label,
    st.tuples(finite, finite),
    position,
    position,
    share,
    st.floats(0, 1e12),
    position,
)
sensing_statuses = st.builds(
    SensingStatus,
    label,
    share,
    finite,
    st.floats(0, 1e12),
    st.booleans(),
    *[position] * 5,
    st.none() | finite,
)


@given(annotations | emissions | statuses | activities | sensing_statuses)
def test_round_trip_is_exact(result: Result) -> None:
    data = encode(result)
    assert decode(data) == result
    assert len(data) <= MAX_BYTES
    assert data.isascii()
    assert b"\n" not in data


def test_an_annotation_has_sigmfs_names() -> None:
    assert json.loads(encode(ANNOTATION)) == {
        "type": "annotation",
        "version": 1,
        "core:sample_start": 1234,
        "core:sample_count": 5678,
        "core:freq_lower_edge": 806e6,
        "core:freq_upper_edge": 816e6,
        "core:label": "LTE",
        "core:sample_rate": 61.44e6,
        "core:frequency": 811e6,
        "rfvit:confidence": 0.97,
    }
    assert json.loads(encode(EMISSION))["type"] == "emission"
    assert json.loads(encode(STATUS))["core:frequency"] is None


def test_what_comes_of_csi_has_frames_and_seconds() -> None:
    assert json.loads(encode(ACTIVITY)) == {
        "type": "activity",
        "version": 1,
        "core:label": "walk",
        "rfvit:time_start": 1.5,
        "rfvit:time_end": 4.25,
        "rfvit:frame_start": 150,
        "rfvit:frame_count": 275,
        "rfvit:confidence": 0.93,
        "rfvit:frame_rate": 99.6,
        "rfvit:lost": 1,
    }
    assert json.loads(encode(SENSING)) == {
        "type": "sensing",
        "version": 1,
        "core:label": "walk",
        "rfvit:confidence": 0.93,
        "rfvit:time": 4.25,
        "rfvit:frame_rate": 99.6,
        "rfvit:recorded": False,
        "rfvit:frames": 425,
        "rfvit:lost": 1,
        "rfvit:dropped": 2,
        "rfvit:foreign": 3,
        "rfvit:malformed": 4,
        "rfvit:result_age": 0.012,
    }


def test_numpy_numbers_become_plain_ones() -> None:
    numpy_made = Annotation(
        "LTE", np.int64(1), np.int32(2), np.float64(1), np.float32(2), np.float32(0.5), np.float64(3), np.float32(4)
    )
    assert decode(encode(numpy_made)) == Annotation("LTE", 1, 2, 1.0, 2.0, 0.5, 3.0, 4.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_sent(value: float) -> None:
    with pytest.raises(WireError, match="finite"):
        encode(Annotation("LTE", 0, 1, value, 2.0, 0.5, 1.0))


def test_unknown_fields_are_ignored() -> None:
    assert from_dict(to_dict(ANNOTATION) | {"core:comment": "later releases may say more"}) == ANNOTATION


@pytest.mark.parametrize("result", EXAMPLES)
def test_every_field_is_needed(result: Result) -> None:
    message = to_dict(result)
    for name in message:
        with pytest.raises(WireError, match=name):
            from_dict({key: value for key, value in message.items() if key != name})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "command"),
        ("type", 1),
        ("version", 2),
        ("version", True),
        ("core:sample_start", -1),
        ("core:sample_start", 1.0),
        ("core:sample_start", 2**63),
        ("core:sample_start", 10**300),
        ("core:sample_count", 0),
        ("core:freq_lower_edge", 816e6),
        ("core:freq_upper_edge", "816e6"),
        ("core:freq_upper_edge", None),
        ("core:label", ""),
        ("core:label", "x" * 129),
        ("core:label", "\x1b[2J"),
        ("core:label", "\ud800"),
        ("core:label", ["LTE"]),
        ("core:sample_rate", 0),
        ("core:sample_rate", True),
        ("core:frequency", math.inf),
        ("rfvit:confidence", 1.01),
        ("rfvit:confidence", math.nan),
    ],
)
def test_wrong_fields_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(WireError, match=field.removeprefix("core:").split("_")[0]) as refusal:
        from_dict(to_dict(ANNOTATION) | {field: value})
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rfvit:time_end", 1.0),
        ("rfvit:time_start", math.nan),
        ("rfvit:frame_start", -1),
        ("rfvit:frame_count", 1.5),
        ("rfvit:frame_rate", -1.0),
        ("rfvit:lost", 2**63),
        ("core:label", "a\nb"),
    ],
)
def test_wrong_fields_of_an_activity_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(WireError, match=f"^{field} is"):
        from_dict(to_dict(ACTIVITY) | {field: value})


@pytest.mark.parametrize("value", [0, "no", None])
def test_recorded_is_true_or_false(value: object) -> None:
    with pytest.raises(WireError, match=r"^rfvit:recorded is .*expected true or false"):
        from_dict(to_dict(SENSING) | {"rfvit:recorded": value})


def test_an_emission_ends_after_it_begins() -> None:
    with pytest.raises(WireError, match="last_seen"):
        from_dict(to_dict(EMISSION) | {"rfvit:last_seen": 99})


@given(st.binary(max_size=200))
@example(b"")
@example(b"null")
@example(b"[" * MAX_BYTES)
@example(b'{"type":' * 2000)
@example(b"9" * MAX_BYTES)
@example(b'{"type":"annotation","version":1e400}')
@example(b'{"type":"annotation","version":NaN}')
@example(b"\xff\xfe{}")
@example(b" " * (MAX_BYTES + 1))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(EXAMPLES), st.data())
@settings(max_examples=300)
def test_any_value_in_any_field_decodes_or_is_refused(result: Result, data: st.DataObject) -> None:
    message = to_dict(result)
    message[data.draw(st.sampled_from(sorted(message)))] = data.draw(json_values)
    try:
        decoded = decode(json.dumps(message).encode())
    except WireError:
        return
    assert decode(encode(decoded)) == decoded


@given(st.sampled_from(EXAMPLES), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=300)
def test_damaged_messages_decode_or_are_refused(result: Result, place: int, byte: int) -> None:
    data = bytearray(encode(result))
    data[place % len(data)] = byte
    try:
        decode(bytes(data))
    except WireError:
        return
