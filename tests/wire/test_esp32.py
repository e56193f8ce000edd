# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.errors import WireError
from rfvit_rt.wire.esp32 import MAX_LINE, decode_esp32

from ..csi_bytes import CSI_TOOL, ESP_CSI, ESP_CSI_C6, MAC, csi_sample, esp32_line

NONE, ABOVE, BELOW = 0, 1, 2
LLTF, HT20, HT40, HE20 = (1, 26), (1, 28), (2, 58), (2, 122)


def both_sides(edges: tuple[int, int]) -> list[int]:
    return [*range(-edges[1], -edges[0] + 1), *range(edges[0], edges[1] + 1)]


def from_zero(lowest: int, highest: int) -> list[int]:
    return [*range(highest + 1), *range(lowest, 0)]


def upward(lowest: int, highest: int) -> list[int]:
    return list(range(lowest, highest + 1))


def values_at(indices: list[int], fill: int = 0) -> list[int]:
    """Imaginary and real parts that tell which subcarrier they are of: imaginary −k mod 100, real k mod 120."""
    return [value for index in indices for value in (-(index % 100) + fill, index % 120)]


def expected_at(indices: NDArray[np.integer]) -> NDArray[np.complex64]:
    return np.array([index % 120 - 1j * (index % 100) for index in indices.tolist()], np.complex64)


# The rows of the table in the ESP-IDF Programming Guide, all training fields enabled: what the channel and the frame
# are, the subcarriers of LLTF, HT-LTF and STBC-HT-LTF as it lists them, how many bytes it says they are, and the
# subcarrier at the centre of the channel that a frame of 20 MHz fills.
TABLE = [
    (dict(sig_mode=0), [from_zero(-32, 31)], 128, 0),
    (dict(sig_mode=1), [from_zero(-32, 31)] * 2, 256, 0),
    (dict(sig_mode=1, stbc=1), [from_zero(-32, 31)] * 3, 384, 0),
    (dict(sig_mode=0, secondary=BELOW), [upward(0, 63)], 128, 32),
    (dict(sig_mode=1, secondary=BELOW), [upward(0, 63)] * 2, 256, 32),
    (dict(sig_mode=1, secondary=BELOW, stbc=1), [upward(0, 63), upward(0, 62), upward(0, 62)], 380, 32),
    (dict(sig_mode=1, secondary=BELOW, bandwidth=1), [upward(0, 63), from_zero(-64, 63)], 384, 32),
    (
        dict(sig_mode=1, secondary=BELOW, bandwidth=1, stbc=1),
        [upward(0, 63), from_zero(-60, 60), from_zero(-60, 60)],
        612,
        32,
    ),
    (dict(sig_mode=0, secondary=ABOVE), [upward(-64, -1)], 128, -32),
    (dict(sig_mode=1, secondary=ABOVE), [upward(-64, -1)] * 2, 256, -32),
    (dict(sig_mode=1, secondary=ABOVE, stbc=1), [upward(-64, -1), upward(-62, -1), upward(-62, -1)], 376, -32),
    (dict(sig_mode=1, secondary=ABOVE, bandwidth=1), [upward(-64, -1), from_zero(-64, 63)], 384, -32),
    (
        dict(sig_mode=1, secondary=ABOVE, bandwidth=1, stbc=1),
        [upward(-64, -1), from_zero(-60, 60), from_zero(-60, 60)],
        612,
        -32,
    ),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("columns", "fields", "length", "centre"), TABLE)
def test_every_layout_of_the_table(
    columns: dict[str, int], fields: list[list[int]], length: int, centre: int, legacy: bool
) -> None:
    values = [value for number, field in enumerate(fields) for value in values_at(field, fill=number)]
    assert len(values) == length
    packet = decode_esp32(esp32_line(values, **columns), legacy=legacy)
    assert packet is not None
    wide = columns.get("bandwidth", 0) == 1 and not legacy
    number = 0 if legacy else min(len(fields) - 1, 1)
    assert (packet.field, packet.bandwidth) == ("HT-LTF" if number else "LLTF", 40 if wide else 20)
    tones = both_sides(HT40 if wide else HT20 if number else LLTF)
    if centre == 0 and not number:
        tones.remove(1)  # of the first word, which can be invalid
    np.testing.assert_array_equal(packet.subcarriers, np.array(tones, np.int16), strict=True)
    expected = expected_at(packet.subcarriers + (0 if wide else centre)) + 1j * number
    np.testing.assert_array_equal(packet.csi, expected, strict=True)


@pytest.mark.parametrize(
    ("columns", "indices", "field", "tones"),
    [
        (dict(sig_mode=1, secondary=BELOW), upward(0, 63), "LLTF", both_sides(LLTF)),
        (dict(sig_mode=1, secondary=BELOW, bandwidth=1), from_zero(-64, 63), "HT-LTF", both_sides(HT40)),
        (dict(sig_mode=1, secondary=ABOVE, bandwidth=1, stbc=1), from_zero(-60, 60), "HT-LTF", both_sides(HT40)),
    ],
)
def test_lists_with_a_training_field_switched_off(
    columns: dict[str, int], indices: list[int], field: str, tones: list[int]
) -> None:
    values = values_at(indices)
    values += [0, 0] * (len(values) // 2 % 2)  # padded to whole words
    packet = decode_esp32(esp32_line(values, **columns))
    assert packet is not None
    assert packet.field == field
    np.testing.assert_array_equal(packet.subcarriers, tones)


@pytest.mark.parametrize(
    ("indices", "field", "bandwidth", "tones"),
    [
        (upward(-64, 63), "HT-LTF", 40, HT40),
        (from_zero(-58, 58), "HT-LTF", 40, HT40),
        (from_zero(-28, 28), "HT-LTF", 20, HT20),
        (upward(-28, 28), "HT-LTF", 20, HT20),
        (from_zero(-26, 26), "LLTF", 20, LLTF),
        (upward(-26, 26), "LLTF", 20, LLTF),
        (from_zero(-122, 122), "HE-LTF", 20, HE20),
        (upward(-32, 31), "HT-LTF", 20, HT20),
        (from_zero(-32, 31), "HT-LTF", 20, HT20),
        (upward(-32, 31), "LLTF", 20, LLTF),
        (from_zero(-32, 31), "LLTF", 20, LLTF),
    ],
)
def test_layouts_of_the_newer_chips(indices: list[int], field: str, bandwidth: int, tones: tuple[int, int]) -> None:
    used = set(both_sides(tones))
    values = [value for index in indices for value in ((1 + index % 50, -(index % 60)) if index in used else (0, 0))]
    packet = decode_esp32(esp32_line(values, ESP_CSI_C6))
    assert packet is not None
    assert (packet.field, packet.bandwidth, packet.family) == (field, bandwidth, "esp32-c5/c6")
    np.testing.assert_array_equal(packet.subcarriers, [tone for tone in sorted(used) if indices.index(tone) >= 2])
    expected = [-(index % 60) + 1j * (1 + index % 50) for index in packet.subcarriers.tolist()]
    np.testing.assert_array_equal(packet.csi, np.array(expected, np.complex64))


def test_two_fields_of_a_newer_chip_give_the_first() -> None:
    values = values_at(from_zero(-58, 58)) + [9] * 234
    packet = decode_esp32(esp32_line(values, ESP_CSI_C6))
    assert packet is not None
    np.testing.assert_array_equal(packet.csi, expected_at(packet.subcarriers))


def test_pilots_are_left_out_where_asked() -> None:
    packet = decode_esp32(esp32_line(values_at(upward(-64, 63)), ESP_CSI_C6), pilots=False)
    assert packet is not None
    pilots = {-53, -25, -11, 11, 25, 53}
    np.testing.assert_array_equal(packet.subcarriers, [tone for tone in both_sides(HT40) if tone not in pilots])
    np.testing.assert_array_equal(packet.csi, expected_at(packet.subcarriers))


# Columns.

LIST = values_at(upward(-32, 31))


def test_columns_of_esp_csi() -> None:
    packet = decode_esp32(esp32_line(LIST, ESP_CSI, sequence=7, clock=2**32 - 1, rssi=-71, secondary=BELOW))
    assert packet is not None
    assert (packet.sequence, packet.clock, packet.rssi, packet.noise_floor) == (7, 2**32 - 1, -71, -95)
    assert (packet.mac, packet.family, packet.gain) == (MAC, "esp32", None)


def test_columns_of_esp_csi_on_newer_chips() -> None:
    packet = decode_esp32(esp32_line([0, 0] * 128, ESP_CSI_C6, sequence=8, agc_gain=30, fft_gain=250))
    assert packet is not None
    assert (packet.sequence, packet.noise_floor, packet.gain) == (8, -97, 30 - 6 / 4)  # 250 is -6, unsigned


def test_columns_of_the_csi_tool_and_what_a_logger_added() -> None:
    line = esp32_line(LIST, CSI_TOOL, secondary=ABOVE, mac=MAC.upper())
    for text in (line, line.replace(b"]\n", b"],1619984033.7131004\r\n")):
        packet = decode_esp32(text)
        assert packet is not None
        assert (packet.sequence, packet.mac, packet.clock) == (None, MAC, 1000)


def test_the_csi_tool_prints_less_than_it_was_told_of() -> None:
    packet = decode_esp32(esp32_line(LIST, CSI_TOOL, sig_mode=1, secondary=ABOVE, length=384))
    assert packet is not None
    assert packet.field == "LLTF"
    with pytest.raises(WireError, match="spliced line"):
        decode_esp32(esp32_line(LIST, ESP_CSI, sig_mode=1, secondary=ABOVE, length=384))


def test_clocks_that_firmware_prints_signed_go_on() -> None:
    packet = decode_esp32(esp32_line(LIST, clock=-1, sequence=-2))
    assert packet is not None
    assert (packet.clock, packet.sequence) == (2**32 - 1, 2**32 - 2)


def test_what_the_log_put_before_a_line_is_left_out() -> None:
    line = esp32_line(LIST, sequence=5)
    packet = decode_esp32(b"I (1234) csi_recv: " + line)
    assert packet is not None
    assert packet.sequence == 5


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r\n",
        b"I (345) wifi: connected",
        b"type,id,mac,rssi,rate",
        b"type,role,len,CSI_DATA,timestamp",
        b"\xff\x00",
    ],
)
def test_lines_that_are_about_something_else_are_no_error(line: bytes) -> None:
    assert decode_esp32(line) is None


# Hostile lines.

GOOD = esp32_line(LIST)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD[:200] + GOOD, "spliced line"),  # the beginning of one, then a whole one
        (GOOD[:-20], "spliced line"),  # its end is missing
        (GOOD[:120] + GOOD[300:], "spliced line"),  # one's beginning, another's end
        (GOOD.replace(b"[", b"[[", 1), "spliced line"),
        (GOOD.replace(b",1000,", b",1000,5,6,", 1), "unknown columns"),
        (GOOD.replace(b",-60,", b",", 1), "unknown columns"),
        (GOOD.replace(b",1000,", b",10x0,", 1), "unreadable column"),
        (GOOD.replace(b",1000,", b",99999999999,", 1), "unreadable column"),
        (GOOD.replace(MAC.encode(), b"02:00:5e:10:00"), "unreadable column"),
        (GOOD.replace(b",-60,", b",-600,", 1), "impossible value"),
        (esp32_line([300] * 128), "impossible value"),
        (esp32_line([1] * 127), "unknown layout"),
        (esp32_line([1234] * 128), "spliced line"),
        (esp32_line([1] * 130), "unknown layout"),
        (esp32_line([1] * 128, sig_mode=3), "unknown layout"),
        (esp32_line([1] * 128, secondary=7), "unknown layout"),
        (esp32_line([1] * 384, sig_mode=1, bandwidth=1), "unknown layout"),
        (esp32_line([1] * 130, ESP_CSI_C6), "unknown layout"),
        (esp32_line([1] * 128, ESP_CSI_C6), "unknown layout"),  # without a null, its order cannot be told
        (b"CSI_DATA," + b"1," * MAX_LINE, "line too long"),
    ],
)
def test_lines_that_cannot_be_read_are_refused_with_their_reason(line: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refusal:
        decode_esp32(line)
    assert str(refusal.value).partition(":")[0] == reason


@given(st.binary(max_size=300).map(lambda rest: b"CSI_DATA," + rest) | st.binary(max_size=300))
def test_random_bytes_are_refused_or_about_something_else(line: bytes) -> None:
    assert_refused_or_packet(line)


@given(st.data())
def test_changed_cut_and_spliced_lines_are_refused_or_packets(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from([ESP_CSI, ESP_CSI_C6, CSI_TOOL]))
    count = data.draw(st.sampled_from([106, 114, 128, 234, 256, 384, 490, 612]))
    small = {name: data.draw(st.integers(-1, 3)) for name in ("sig_mode", "bandwidth", "stbc", "secondary")}
    line = bytearray(esp32_line([0, 7] * (count // 2), form, **small))
    for _ in range(data.draw(st.integers(0, 3))):
        line[data.draw(st.integers(0, 120))] = data.draw(st.sampled_from(b',-[]"09 :aC\xff\x00'))
    cut = data.draw(st.integers(0, len(line)))
    if data.draw(st.booleans()):
        line[cut:] = GOOD[data.draw(st.integers(0, len(GOOD))) :]
    assert_refused_or_packet(bytes(line))


def assert_refused_or_packet(line: bytes) -> None:
    try:
        packet = decode_esp32(line)
    except WireError:
        return
    if packet is None:
        return
    assert packet.csi.shape == packet.subcarriers.shape
    assert packet.csi.dtype == np.complex64
    assert (np.diff(packet.subcarriers) > 0).all()
    assert np.abs(packet.csi).max() <= 182
    assert 0 <= packet.clock < 2**32
    assert packet.sequence is None or 0 <= packet.sequence < 2**32


# Real lines.


def by_hand(line: str) -> tuple[list[str], list[int]]:
    head, _, rest = line.partition("[")
    numbers = rest.partition("]")[0]
    return head.rstrip('",').split(","), json.loads(f"[{','.join(re.split('[ ,]+', numbers.strip(' ,')))}]")


@pytest.mark.parametrize(
    ("name", "kinds", "first", "order"),
    [
        ("esp32csitool_active_ap_13lines.csv", {("LLTF", 20): 13}, 0, upward(-32, 31)),
        (
            "esp32csitool_ht40_384_with_host_timestamp_200lines.csv",
            {None: 1, ("HT-LTF", 40): 183, ("LLTF", 20): 17},
            128,
            from_zero(-64, 63),
        ),
        ("esp32csitool_passive_60lines.csv", {None: 1, ("LLTF", 20): 60}, 0, from_zero(-32, 31)),
        ("espcsi_c6_15col_no_activity_200lines.csv", {"spliced line": 1, ("HT-LTF", 40): 199}, 0, upward(-64, 63)),
        ("espcsi_getstarted_readme_lines.csv", {("LLTF", 20): 1, ("HT-LTF", 40): 1}, 0, upward(-64, 63)),
    ],
)
def test_real_lines(name: str, kinds: dict[Any, int], first: int, order: list[int]) -> None:
    seen: Counter[Any] = Counter()
    widest = max((kind for kind in kinds if isinstance(kind, tuple)), key=lambda kind: kind[1])
    for line in csi_sample(f"esp32/{name}").read_text(errors="replace").splitlines():
        try:
            packet = decode_esp32(line.encode())
        except WireError as refusal:
            seen[str(refusal).partition(":")[0]] += 1
            continue
        seen[None if packet is None else (packet.field, packet.bandwidth)] += 1
        if packet is None or (packet.field, packet.bandwidth) != widest:
            continue
        head, numbers = by_hand(line)
        assert (packet.mac, packet.rssi) == (head[2].lower(), int(head[3]))
        assert packet.clock == int(head[18] if packet.family == "esp32" else head[9])
        for tone, value in zip(packet.subcarriers.tolist(), packet.csi, strict=True):
            place = first + 2 * order.index(tone)
            assert value == complex(numbers[place + 1], numbers[place])
    assert seen == kinds
