# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import csiread
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.errors import WireError
from rfvit_rt.wire.nexmon import NexmonPacket, decode_nexmon, occupied_band

from ..csi_bytes import CHIPS, MAC, PACKED, channel, csi_sample, narrow_channel, nexmon_payload


def tones(first: int, last: int, without: Sequence[int] = ()) -> NDArray[np.intp]:
    upper = [tone for tone in range(first, last + 1) if tone not in without]
    return np.array([-tone for tone in reversed(upper)] + upper)


# Headers and values.


@pytest.mark.parametrize("points", [64, 128, 256])
def test_a_packet_of_integers_is_read_as_it_was_made(points: int) -> None:
    values = channel(points)
    packet = decode_nexmon(nexmon_payload(values, sequence=4095, core=3, stream=2, rssi=-61, frame_control=0x80))
    np.testing.assert_array_equal(packet.values, values, strict=True)
    assert (packet.mac, packet.sequence, packet.core, packet.stream) == (MAC, 4095, 3, 2)
    assert (packet.chip, packet.rssi, packet.frame_control) == ("bcm43455c0", -61, 0x80)
    assert packet.bandwidth == points * 20 // 64


def test_old_firmware_says_neither_rssi_nor_frame_control() -> None:
    packet = decode_nexmon(nexmon_payload(channel(64), rssi=None))
    assert (packet.rssi, packet.frame_control, packet.mac) == (None, None, MAC)


def test_a_word_too_many_is_left_out() -> None:
    whole, longer = nexmon_payload(channel(128)), nexmon_payload(channel(128), extra=b"\xff\xff\xff\x7f")
    np.testing.assert_array_equal(decode_nexmon(longer).values, decode_nexmon(whole).values)


@pytest.mark.parametrize("chip", sorted(PACKED))
def test_packed_floats_are_read_to_the_precision_of_their_mantissas(chip: str) -> None:
    values = (channel(256) / 500).astype(np.complex64)
    packet = decode_nexmon(nexmon_payload(values, chip=chip))
    assert packet.chip == chip
    # The smaller part shares the larger one's exponent: half of the last bit of the larger is the error of both.
    error = np.abs(packet.values - values).max() / np.abs(values).max()
    assert 0 < error < 2.0 ** -(PACKED[chip][0] - 2)


def test_packed_floats_by_hand() -> None:
    # Minus 5 and 3 as sign and magnitude, times 2**-2 (6 bits: 62); on the 64 points after them, nothing.
    word = ((1 << 11 | 5) << 12 | 3) << 6 | 62
    payload = nexmon_payload(np.zeros(64, np.complex64), chip="bcm4366c0")
    payload = payload[:18] + struct.pack("<I", word) + payload[22:]
    expected = np.zeros(64, np.complex64)
    expected[32] = -1.25 + 0.75j
    np.testing.assert_array_equal(decode_nexmon(payload).values, expected)


def test_core_and_stream_of_big_endian_routers() -> None:
    payload = bytearray(nexmon_payload(channel(64), core=1, stream=2))
    payload[12:14] = payload[13:11:-1]
    packet = decode_nexmon(payload)
    assert (packet.core, packet.stream) == (1, 2)


@pytest.mark.parametrize(
    ("points", "chanspec", "primary"),
    [(64, 0xD024, 0), (128, 0xD826, -32), (128, 0xD926, 32), (256, 0xE02A, -96), (256, 0xE12A, -32), (256, 0xE32A, 96)],
)
def test_the_primary_channel_is_where_the_sideband_says(points: int, chanspec: int, primary: int) -> None:
    assert decode_nexmon(nexmon_payload(channel(points), chanspec=chanspec)).primary == primary


# What cannot be.

GOOD = nexmon_payload(channel(64))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not a nexmon packet"),
        (GOOD[:17], "not a nexmon packet"),
        (b"\x12" + GOOD[1:], "not a nexmon packet"),
        (GOOD[:16] + b"\x66\x00" + GOOD[18:], "unknown chip"),
        (GOOD[:18], "impossible length"),
        (GOOD[:-1], "impossible length"),
        (GOOD[:-4], "impossible length"),
        (GOOD + bytes(8), "impossible length"),
        (nexmon_payload(channel(64), chanspec=0xE02A), "bandwidth unclear"),
        (nexmon_payload(channel(256), chanspec=0xE82A), "bandwidth unclear"),
        (GOOD[:12] + b"\x40\x40" + GOOD[14:], "impossible core and stream"),
    ],
)
def test_what_is_no_packet_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refusal:
        decode_nexmon(payload)
    assert str(refusal.value).partition(":")[0] == reason


@given(st.binary(max_size=1100) | st.binary(min_size=0, max_size=1100).map(lambda rest: b"\x11\x11" + rest))
def test_random_bytes_are_refused_or_packets(payload: bytes) -> None:
    assert_refused_or_packet(payload)


@given(st.data())
def test_changed_and_cut_packets_are_refused_or_packets(data: st.DataObject) -> None:
    chip, points = data.draw(st.sampled_from(sorted(CHIPS))), data.draw(st.sampled_from([64, 128, 256]))
    payload = bytearray(nexmon_payload(channel(points, scale=40), chip=chip))
    for _ in range(data.draw(st.integers(0, 5))):
        payload[data.draw(st.integers(0, 40))] = data.draw(st.integers(0, 255))
    assert_refused_or_packet(bytes(payload[: data.draw(st.sampled_from([10, 18, 100, len(payload)]))]))


def assert_refused_or_packet(payload: bytes) -> None:
    try:
        packet = decode_nexmon(payload)
    except WireError:
        return
    assert packet.values.shape in ((64,), (128,), (256,))
    assert packet.values.dtype == np.complex64
    assert np.isfinite(packet.values).all()
    assert abs(packet.primary) <= 96
    assert 0 <= packet.sequence < 4096
    assert occupied_band([packet]).subcarriers.size > 40


# Bands.


def packets(count: int, points: int, band: NDArray[np.intp], **options: Any) -> list[NexmonPacket]:
    return [
        decode_nexmon(nexmon_payload(narrow_channel(points, band, number=number), **options)) for number in range(count)
    ]


@pytest.mark.parametrize(
    ("points", "chanspec", "filled", "bandwidth", "high_throughput", "expected"),
    [
        (64, 0xD024, tones(1, 26), 20, False, tones(1, 26)),
        (64, 0xD024, tones(1, 28), 20, True, tones(1, 28)[:-1]),  # 28 is overwritten by the chip
        (128, 0xD826, tones(2, 58), 40, True, [*tones(3, 58), -2]),  # 2 is
        (128, 0xD826, tones(1, 28) - 32, 20, True, tones(1, 28)),
        (128, 0xD926, tones(1, 26) + 32, 20, False, tones(1, 26)),
        (256, 0xE02A, tones(2, 122), 80, True, [*tones(3, 122), -2]),
        (256, 0xE02A, tones(2, 58) - 64, 40, True, tones(2, 58)),
        (256, 0xE22A, tones(2, 58) + 64, 40, True, tones(2, 58)),
        (256, 0xE32A, tones(1, 28) + 96, 20, True, tones(1, 28)),
        (256, 0xE12A, tones(1, 26) - 32, 20, False, tones(1, 26)),
    ],
)
def test_the_band_that_frames_fill_is_found(
    points: int,
    chanspec: int,
    filled: NDArray[np.intp],
    bandwidth: int,
    high_throughput: bool,
    expected: NDArray[np.intp],
) -> None:
    captured = packets(8, points, filled, chanspec=chanspec)
    band = occupied_band(captured)
    assert (band.bandwidth, band.high_throughput) == (bandwidth, high_throughput)
    np.testing.assert_array_equal(band.subcarriers, np.sort(expected).astype(np.int16), strict=True)
    # Indices are the band's, positions the capture's.
    chosen = band.positions - points // 2
    assert np.isin(chosen, filled).all()
    assert len(set(chosen - band.subcarriers)) == 1


def test_frames_repeated_in_each_channel_have_the_old_subcarriers_of_each() -> None:
    filled = np.concatenate([tones(1, 26) - 96, tones(1, 26) - 32])
    band = occupied_band(packets(8, 256, filled))
    assert (band.bandwidth, band.high_throughput) == (40, False)
    np.testing.assert_array_equal(band.subcarriers, filled + 64)


def test_a_few_narrow_frames_among_wide_ones_do_not_narrow_the_band_and_many_do() -> None:
    wide, narrow = packets(30, 256, tones(2, 122)), packets(30, 256, tones(1, 28) - 96)
    assert occupied_band(wide[:29] + narrow[:1]).bandwidth == 80
    assert occupied_band(wide[:20] + narrow[:10]).bandwidth == 20


def test_pilots_are_left_out_where_asked() -> None:
    kept = occupied_band(packets(4, 256, tones(2, 122), chip="bcm4366c0"), pilots=False)
    np.testing.assert_array_equal(kept.subcarriers, tones(2, 122, without=(11, 39, 75, 103)))
    kept = occupied_band(packets(4, 256, np.concatenate([tones(1, 26) - 96, tones(1, 26) - 32])), pilots=False)
    pilots = [side + pilot for side in (-32, 32) for pilot in (-21, -7, 7, 21)]
    assert not np.isin(pilots, kept.subcarriers).any()
    assert len(kept.subcarriers) == 2 * 48


def test_chips_with_packed_floats_overwrite_nothing() -> None:
    band = occupied_band(packets(4, 256, tones(2, 122), chip="bcm4358"))
    np.testing.assert_array_equal(band.subcarriers, tones(2, 122))


def test_packets_that_do_not_belong_together_have_no_band() -> None:
    with pytest.raises(ValueError, match="several"):
        occupied_band(packets(1, 64, tones(1, 26)) + packets(1, 128, tones(2, 58)))
    with pytest.raises(ValueError, match="none"):
        occupied_band([])


# Real captures.


def payloads_of(name: str) -> list[bytes]:
    data = csi_sample(name).read_bytes()
    place, payloads = 24, []
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place + 8)
        payloads.append(data[place + 16 + 42 : place + 16 + size])
        place += 16 + size
    return payloads


@pytest.mark.parametrize(
    ("name", "reader", "chip"),
    [
        ("bcm4339_60pkt.pcap", csiread.Nexmon, "4339"),
        ("bcm43455c0_csikit_pull256_200pkt.pcap", csiread.NexmonPull256, "43455c0"),
        ("bcm43455c0_fition_standup_new_rssi_fc_120pkt.pcap", csiread.NexmonPull256, "43455c0"),
        ("bcm43455c0_fition_walking_old11111111_250pkt.pcap", csiread.Nexmon, "43455c0"),
        ("bcm4358_example_4pkt.pcap", csiread.Nexmon, "4358"),
        ("bcm4366c0_60pkt.pcap", csiread.Nexmon, "4366c0"),
    ],
)
def test_real_captures_are_read_as_csiread_reads_them(name: str, reader: Any, chip: str) -> None:
    packets = [decode_nexmon(payload) for payload in payloads_of(f"nexmon/{name}")]
    reference = reader(str(csi_sample(f"nexmon/{name}")), chip, 80, if_report=False)
    reference.read()
    assert {packet.chip for packet in packets} == {f"bcm{chip}"}
    assert [bytes.fromhex(packet.mac.replace(":", "")) for packet in packets] == [
        bytes(mac.tolist()) for mac in reference.src_addr
    ]
    np.testing.assert_array_equal([packet.sequence << 4 for packet in packets], reference.seq)
    if reader is csiread.NexmonPull256:
        np.testing.assert_array_equal([packet.rssi for packet in packets], reference.rssi)
        np.testing.assert_array_equal([packet.frame_control for packet in packets], reference.fc)
    np.testing.assert_array_equal([packet.core for packet in packets], reference.core)
    np.testing.assert_array_equal([packet.stream for packet in packets], reference.spatial)
    for packet, expected in zip(packets, np.fft.fftshift(reference.csi, axes=1), strict=True):
        if f"bcm{chip}" in PACKED:
            # csiread scales each packet by a power of two, so that its largest has ten bits, and cuts off the rest.
            scale = 2.0 ** np.round(np.log2(np.abs(expected).max() / np.abs(packet.values).max()))
            np.testing.assert_allclose(packet.values * scale, expected, atol=np.sqrt(2) * 1.001)
        else:
            np.testing.assert_array_equal(packet.values, expected.astype(np.complex64))


@pytest.mark.parametrize(
    ("name", "bandwidth", "subcarriers"),
    [
        ("bcm4339_60pkt.pcap", 20, tones(1, 26)),
        ("bcm43455c0_csikit_pull256_200pkt.pcap", 40, np.concatenate([tones(1, 26) - 32, tones(1, 26) + 32])),
        ("bcm43455c0_fition_standup_new_rssi_fc_120pkt.pcap", 20, tones(1, 28)),
        ("bcm43455c0_fition_walking_old11111111_250pkt.pcap", 20, tones(1, 28)),
        ("bcm4358_example_4pkt.pcap", 80, tones(2, 122)),
        ("bcm4366c0_60pkt.pcap", 20, tones(1, 26)),
    ],
)
def test_the_bands_of_real_captures_of_80_mhz(name: str, bandwidth: int, subcarriers: NDArray[np.intp]) -> None:
    """Expected is what the mean power of each capture shows to the eye; it is the same from any 16 packets on."""
    packets = [decode_nexmon(payload) for payload in payloads_of(f"nexmon/{name}")]
    for start in range(0, len(packets), 16):
        band = occupied_band(packets[start : start + 16])
        assert band.bandwidth == bandwidth
        np.testing.assert_array_equal(band.subcarriers, subcarriers)
