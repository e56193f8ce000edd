# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.datatypes import Mask
from rfvit_rt.errors import WireError
from rfvit_rt.wire.results import MAX_BYTES, TYPES, WindowSummary, decode, encode, from_dict, prefix, to_dict
from rfvit_rt.wire.summary import MAX_BINS, MAX_STEPS, summarise

LABELS = ("background", "LTE", "NR")


def mask(classes: NDArray[np.integer], certainty: float = 0.9) -> Mask:
    """A mask whose pixels carry the given classes."""
    others = (1 - certainty) / (len(LABELS) - 1)
    probabilities = np.where(np.arange(len(LABELS)) == classes[:, :, None], certainty, others).astype(np.float32)
    return Mask(probabilities, 5000, 192 * 3125, 20e6, 2.14e9)


def summary() -> WindowSummary:
    return summarise(mask(np.arange(48 * 8).reshape(48, 8) % 3), LABELS)


def test_a_small_mask_is_its_own_map() -> None:
    classes = np.random.default_rng(1).integers(0, 3, (MAX_STEPS, MAX_BINS))
    made = summarise(mask(classes), LABELS)
    np.testing.assert_array_equal(made.class_map, classes)
    assert made.class_map.dtype == np.uint8
    assert made.shares == tuple((classes == number).mean() for number in range(3))
    assert (made.sample_start, made.sample_end) == (5000, 5000 + 192 * 3125)
    assert (made.sample_rate, made.frequency, made.labels) == (20e6, 2.14e9, LABELS)


@pytest.mark.parametrize(("steps", "bins"), [(192, 256), (1, 1), (17, 300), (100, 2048), (7, 257)])
def test_a_cell_carries_its_most_frequent_signal(steps: int, bins: int) -> None:
    classes = np.random.default_rng(steps).choice(3, (steps, bins), p=(0.96, 0.02, 0.02))
    made = summarise(mask(classes), LABELS).class_map
    assert made.shape == (min(MAX_STEPS, steps), min(MAX_BINS, bins))
    edges = [np.arange(cells + 1) * whole // cells for cells, whole in zip(made.shape, classes.shape, strict=True)]
    for step in range(made.shape[0]):
        for one in range(made.shape[1]):
            cell = classes[edges[0][step] : edges[0][step + 1], edges[1][one] : edges[1][one + 1]]
            counts = [(cell == number).sum() for number in (1, 2)]
            assert made[step, one] == (int(np.argmax(counts)) + 1 if any(counts) else 0)


def test_a_pixel_in_doubt_between_signals_still_carries_one() -> None:
    probabilities = np.array([[[0.45, 0.25, 0.3], [0.55, 0.45, 0.0]]], np.float32)
    made = summarise(Mask(probabilities, 0, 10, 1e6), LABELS)
    assert made.class_map.tolist() == [[2, 0]]
    assert made.frequency is None


def test_labels_of_another_model() -> None:
    with pytest.raises(ValueError, match="3 classes; the labels are"):
        summarise(mask(np.zeros((4, 4), int)), LABELS[:2])


# ---- on the wire ----


def test_round_trip() -> None:
    made = summarise(mask(np.random.default_rng(2).integers(0, 3, (192, 2048))), LABELS)
    data = encode(made)
    read = decode(data)
    assert isinstance(read, WindowSummary)
    np.testing.assert_array_equal(read.class_map, made.class_map)
    assert to_dict(read) == to_dict(made)
    assert len(data) < MAX_BYTES / 2
    assert data.isascii()


def test_it_has_sigmfs_names() -> None:
    message = json.loads(encode(summary()))
    assert message.pop("rfvit:class_map") == base64.b64encode(summary().class_map.tobytes()).decode()
    assert message == {
        "type": "window",
        "version": 1,
        "core:sample_start": 5000,
        "core:sample_count": 192 * 3125,
        "core:sample_rate": 20e6,
        "core:frequency": 2.14e9,
        "rfvit:labels": ["background", "LTE", "NR"],
        "rfvit:shares": pytest.approx([1 / 3] * 3),
        "rfvit:steps": 16,
        "rfvit:bins": 8,
    }


def test_every_message_begins_with_the_prefix_of_its_type_alone() -> None:
    assert prefix("window") == b'{"type":"window",'
    assert encode(summary()).startswith(prefix("window"))
    assert not any(encode(summary()).startswith(prefix(kind)) for kind in TYPES if kind != "window")


def test_every_field_is_needed() -> None:
    message = to_dict(summary())
    for name in message:
        with pytest.raises(WireError, match=name):
            from_dict({key: value for key, value in message.items() if key != name})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("core:sample_count", 0),
        ("core:sample_rate", 0),
        ("rfvit:labels", []),
        ("rfvit:labels", "background"),
        ("rfvit:labels", ["background", "LTE", 3]),
        ("rfvit:labels", ["x"] * 65),
        ("rfvit:shares", [0.5, 0.5]),
        ("rfvit:shares", [0.5, 0.5, 1.5]),
        ("rfvit:shares", None),
        ("rfvit:steps", 0),
        ("rfvit:steps", MAX_STEPS + 1),
        ("rfvit:steps", 2**62),
        ("rfvit:bins", MAX_BINS + 1),
        ("rfvit:bins", True),
        ("rfvit:class_map", ""),
        ("rfvit:class_map", "AAAA"),
        ("rfvit:class_map", "not base64!"),
        ("rfvit:class_map", "ä" * 128),
        ("rfvit:class_map", 7),
        ("rfvit:class_map", base64.b64encode(b"\x03" * 128).decode()),
        ("rfvit:class_map", "A" * 12000),
    ],
)
def test_wrong_fields_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(WireError, match=field) as refusal:
        from_dict(to_dict(summary()) | {field: value})
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


@given(place=st.integers(0, 600), byte=st.integers(0, 255))
@settings(max_examples=200)
def test_damaged_messages_decode_or_are_refused(place: int, byte: int) -> None:
    data = bytearray(encode(summary()))
    data[place % len(data)] = byte
    try:
        read = decode(bytes(data))
    except WireError:
        return
    assert encode(read)
