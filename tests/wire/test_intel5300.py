# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections.abc import Iterator

import csiread
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.errors import WireError
from rfvit_rt.wire.intel5300 import CODE, SUBCARRIERS, decode_intel5300

from ..csi_bytes import csi_sample, intel_record

SAMPLES = [
    "csiread_sample_0x1_ap_200rec.dat",
    "csitool_log.all_csi.6.7.6.dat",
    "har_fall.dat",
    "har_jump.dat",
    "har_walk.dat",
]


def estimate(receivers: int = 3, streams: int = 2, seed: int = 0) -> NDArray[np.complex64]:
    parts = np.random.default_rng(seed).integers(-128, 128, (2, receivers, streams, 30))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


@pytest.mark.parametrize(("receivers", "streams"), list(itertools.product((1, 2, 3), (1, 2, 3))))
def test_a_record_is_read_as_it_was_made(receivers: int, streams: int) -> None:
    csi = estimate(receivers, streams)
    record = decode_intel5300(
        intel_record(csi, clock=2**32 - 1, count=65535, rssi=(1, 2, 3), noise=-90, agc=255, rate=0x1234)
    )
    np.testing.assert_array_equal(record.csi, csi, strict=True)
    assert (record.clock, record.count, record.rssi) == (2**32 - 1, 65535, (1, 2, 3))
    assert (record.noise, record.agc, record.rate, record.bandwidth) == (-90, 255, 0x1234, 20)


@pytest.mark.parametrize("connected", list(itertools.permutations(range(3))))
def test_rows_are_antennas_however_the_receivers_were_connected(connected: tuple[int, int, int]) -> None:
    csi = estimate()
    np.testing.assert_array_equal(decode_intel5300(intel_record(csi, connected=connected)).csi, csi)


def test_power_in_dbm_is_csitools() -> None:
    record = decode_intel5300(intel_record(estimate(), rssi=(40, 31, 35), agc=35))
    np.testing.assert_allclose(record.rssi_dbm(), [-39, -48, -44])
    # Of two receivers the record does not say which antennas they are: it is their sum, as get_total_rss has it.
    record = decode_intel5300(intel_record(estimate(receivers=2), rssi=(40, 0, 40), agc=35))
    np.testing.assert_allclose(record.rssi_dbm(), [40 + 10 * np.log10(2) - 44 - 35], rtol=1e-6)
    assert np.isfinite(decode_intel5300(intel_record(estimate(receivers=1), rssi=(0, 0, 0))).rssi_dbm()).all()


def test_subcarriers_by_bandwidth() -> None:
    assert decode_intel5300(intel_record(estimate(), rate=0x0901)).bandwidth == 40
    # As the standard lists them; of 20 MHz the two outermost and innermost stand closer than the rest.
    assert np.diff(SUBCARRIERS[20]).tolist() == [2] * 13 + [1, 2] + [2] * 13 + [1]
    assert np.diff(SUBCARRIERS[40]).tolist() == [4] * 29
    assert [indices[[0, -1]].tolist() for indices in SUBCARRIERS.values()] == [[-28, 28], [-58, 58]]


GOOD = intel_record(estimate())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "not a channel estimate"),
        (b"\xc1" + GOOD[1:], "not a channel estimate"),
        (GOOD[:20], "not a channel estimate"),
        (GOOD[:-1], "impossible length"),
        (GOOD[:9] + b"\x02" + GOOD[10:], "impossible length"),
        (GOOD[:9] + b"\x00" + GOOD[10:], "impossible antennas"),
        (GOOD[:10] + b"\x05" + GOOD[11:], "impossible antennas"),
        (GOOD[:16] + b"\x00" + GOOD[17:], "impossible antennas"),
        (GOOD[:16] + b"\x3f" + GOOD[17:], "impossible antennas"),
    ],
)
def test_what_is_no_estimate_is_refused_with_its_reason(record: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refusal:
        decode_intel5300(record)
    assert str(refusal.value).partition(":")[0] == reason


@given(st.data())
def test_random_changed_and_cut_records_are_refused_or_estimates(data: st.DataObject) -> None:
    receivers, streams = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    record = bytearray(intel_record(estimate(receivers, streams)))
    for _ in range(data.draw(st.integers(0, 5))):
        record[data.draw(st.integers(0, 25))] = data.draw(st.integers(0, 255))
    record = record[: data.draw(st.sampled_from([0, 20, 21, 100, len(record)]))]
    record += data.draw(st.binary(max_size=30))
    try:
        estimate_read = decode_intel5300(record)
    except WireError:
        return
    assert estimate_read.csi.dtype == np.complex64
    assert estimate_read.csi.shape[2] == 30
    assert np.isfinite(estimate_read.csi).all()
    assert np.isfinite(estimate_read.rssi_dbm()).all()


# Real logs.


def records_of(name: str) -> Iterator[bytes]:
    data = csi_sample(f"intel5300/{name}").read_bytes()
    place = 0
    while place + 2 < len(data):
        size = int.from_bytes(data[place : place + 2], "big")
        if data[place + 2] == CODE:
            yield data[place + 2 : place + 2 + size]
        place += 2 + size


@pytest.mark.parametrize("name", SAMPLES)
def test_real_logs_are_read_as_csiread_reads_them(name: str) -> None:
    records = [decode_intel5300(record) for record in records_of(name)]
    streams = max(record.csi.shape[1] for record in records)
    reference = csiread.Intel(str(csi_sample(f"intel5300/{name}")), 3, streams, if_report=False)
    reference.read()
    assert len(records) == reference.count > 0
    for record, csi in zip(records, reference.csi, strict=True):
        np.testing.assert_array_equal(record.csi, csi.transpose(1, 2, 0)[:, : record.csi.shape[1]])
    for ours, theirs in [
        ([record.clock for record in records], reference.timestamp_low),
        ([record.count for record in records], reference.bfee_count),
        ([record.rssi for record in records], np.c_[reference.rssi_a, reference.rssi_b, reference.rssi_c]),
        ([record.noise for record in records], reference.noise),
        ([record.agc for record in records], reference.agc),
        ([record.rate for record in records], reference.rate),
    ]:
        np.testing.assert_array_equal(ours, theirs)
    # Total power in mW, from the three antennas, against csiread's get_total_rss.
    totals = 10 * np.log10([np.sum(10 ** (record.rssi_dbm() / 10)) for record in records])
    np.testing.assert_allclose(totals, reference.get_total_rss(), rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_single_records_are_read_as_csiread_reads_them(name: str) -> None:
    reference = csiread.Intel(None, 3, 3)
    for record in itertools.islice(records_of(name), 20):
        ours = decode_intel5300(record)
        assert reference.pmsg(record) == CODE
        np.testing.assert_array_equal(ours.csi, reference.csi[0].transpose(1, 2, 0)[:, : ours.csi.shape[1]])
