# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import itertools
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf

from rfvit_rt.errors import RecordingError
from rfvit_rt.flowgraph import describe
from rfvit_rt.sources.recording import Recording, epoch_seconds, open_recording
from rfvit_rt.sources.timeline import StreamStatistics, Timeline
from rfvit_rt.wire.gnuradio import StreamMessage, Tag
from rfvit_rt.wire.samples import to_complex64

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a recording as given, right or wrong; returns its metadata file."""

    def write(
        raw: bytes | None = bytes(2000),
        captures: list[dict[str, Any]] | None = None,
        annotations: list[dict[str, Any]] | None = None,
        name: str = "recording",
        data_name: str | None = None,
        **fields: Any,
    ) -> Path:
        known = {"datatype": "ci8", "sample_rate": 1e6, "version": "1.2.6"} | fields
        metadata = {
            "global": {f"core:{key}": value for key, value in known.items() if value is not None},
            "captures": [{"core:sample_start": 0}] if captures is None else captures,
            "annotations": annotations or [],
        }
        if raw is not None:
            (tmp_path / (data_name or f"{name}.sigmf-data")).write_bytes(raw)
        path = tmp_path / f"{name}.sigmf-meta"
        path.write_text(json.dumps(metadata))
        return path

    return write


def ramp(count: int) -> bytes:
    """Samples (ci16_be) whose value is their position."""
    return np.repeat(np.arange(count), 2).astype(">i2").tobytes()


def all_samples(recording: Recording, block_size: int = 2**18) -> np.ndarray:
    return np.concatenate([block.samples for block in recording.blocks(block_size)])


@pytest.mark.parametrize("form", ["{}.sigmf-meta", "{}.sigmf-data", "{}"])
def test_any_of_its_names_opens_it(make: Make, form: str) -> None:
    path = make(ramp(1000), datatype="ci16_be", captures=[{"core:sample_start": 0, "core:frequency": 1e9}])
    recording = open_recording(form.format(path.with_suffix("")))
    assert (recording.sample_count, recording.sample_rate, recording.datatype) == (1000, 1e6, "ci16_be")
    assert recording.meta_path == path
    assert [capture.frequency for capture in recording.captures] == [1e9]
    np.testing.assert_array_equal(all_samples(recording).real * 32768, np.arange(1000))


def test_name_with_dots(make: Make) -> None:
    path = make(name="cell_2.4GHz.run1")
    assert open_recording(path.with_suffix("")).sample_count == 1000


@pytest.mark.parametrize("block_size", [1, 7, 100, 999, 1000, 4096])
def test_blocks_are_gapless_and_stop_at_captures(make: Make, block_size: int) -> None:
    captures = [
        {"core:sample_start": 0, "core:frequency": 1e9},
        {"core:sample_start": 333, "core:frequency": 2e9},
        {"core:sample_start": 700},
    ]
    recording = open_recording(make(ramp(1000), captures, datatype="ci16_be"))
    position = 0
    for block in recording.blocks(block_size):
        assert block.sample_start == position
        expected = {0: 1e9, 1: 2e9, 2: None}[sum(position >= start for start in (333, 700))]
        assert block.frequency == expected
        assert not any(block.sample_start < start < block.sample_end for start in (333, 700))
        np.testing.assert_array_equal(block.samples.imag * 32768, np.arange(position, block.sample_end))
        assert len(block.samples) <= block_size
        position = block.sample_end
    assert position == 1000


def test_samples_before_the_first_capture_and_empty_captures(make: Make) -> None:
    captures = [{"core:sample_start": n, "core:frequency": float(n)} for n in (10, 10, 20, 1000)]
    recording = open_recording(make(ramp(1000), captures, datatype="ci16_be"))
    found = [(capture.sample_start, capture.sample_count, capture.frequency) for capture in recording.captures]
    assert found == [(0, 10, None), (10, 10, 10.0), (20, 980, 20.0)]
    assert open_recording(make(captures=[])).captures[0].sample_count == 1000


def test_offset_makes_positions_absolute(make: Make) -> None:
    captures = [{"core:sample_start": 5000}, {"core:sample_start": 5400, "core:frequency": 1e6}]
    recording = open_recording(make(ramp(1000), captures, datatype="ci16_be", offset=5000))
    assert (recording.sample_start, recording.sample_end) == (5000, 6000)
    starts = [block.sample_start for block in recording.blocks()]
    assert starts == [5000, 5400]
    np.testing.assert_array_equal(all_samples(recording).real * 32768, np.arange(1000))


def test_header_and_trailing_bytes_are_skipped(make: Make) -> None:
    raw = b"HEAD" + ramp(300) + b"MIDDLE" + ramp(1000)[300 * 4 :] + b"END"
    captures = [{"core:sample_start": 0, "core:header_bytes": 4}, {"core:sample_start": 300, "core:header_bytes": 6}]
    path = make(raw, captures, datatype="ci16_be", dataset="tool.dat", data_name="tool.dat", trailing_bytes=3)
    recording = open_recording(path)
    assert recording.data_path.name == "tool.dat"
    assert recording.sample_count == 1000
    np.testing.assert_array_equal(all_samples(recording, 64).real * 32768, np.arange(1000))


def test_archive_streams_in_place(make: Make, tmp_path: Path) -> None:
    digest = hashlib.sha512(ramp(1000)).hexdigest()
    path = make(ramp(1000), datatype="ci16_be", sha512=digest)
    sigmf.fromfile(path).archive(tmp_path / "packed.sigmf")
    recording = open_recording(tmp_path / "packed.sigmf", verify=True)
    assert recording.in_archive
    np.testing.assert_array_equal(all_samples(recording).real * 32768, np.arange(1000))
    assert open_recording(tmp_path / "packed").in_archive


def test_bad_archives(make: Make, tmp_path: Path) -> None:
    path = make(bytes(20000))
    archive = tmp_path / "packed.sigmf"
    sigmf.fromfile(path).archive(archive)
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(RecordingError, match=r"cut off|not an uncompressed tar"):
        open_recording(archive)
    archive.write_bytes(b"no tar at all" * 100)
    with pytest.raises(RecordingError, match="not an uncompressed tar"):
        open_recording(archive)
    with tarfile.open(archive, "w") as tar:
        tar.add(path, "recording/recording.sigmf-meta")
    with pytest.raises(RecordingError, match=r"holds no recording\.sigmf-data"):
        open_recording(archive)
    with tarfile.open(archive, "w") as tar:
        tar.add(path, "one.sigmf-meta")
        tar.add(path, "two.sigmf-meta")
    with pytest.raises(RecordingError, match="2 recordings"):
        open_recording(archive)
    with pytest.raises(RecordingError, match="unpack it first"):
        open_recording(tmp_path / "packed.sigmf.gz")


def test_lost_samples_from_global_index(make: Make) -> None:
    captures = [
        {"core:sample_start": 0, "core:global_index": 100},
        {"core:sample_start": 500, "core:global_index": 1100},
        {"core:sample_start": 600, "core:global_index": 1200},
    ]
    blocks = list(open_recording(make(captures=captures)).blocks(300))
    assert [(block.sample_start, block.radio_lost) for block in blocks] == [
        (0, 0),
        (300, 0),
        (500, 500),
        (600, 0),
        (900, 0),
    ]


@pytest.mark.parametrize(("jump", "lost"), [(-3, 0), (0, 0), (1, 0), (2, 2)])
def test_a_count_that_jumps_by_one_is_no_loss_as_in_a_stream(make: Make, jump: int, lost: int) -> None:
    captures = [
        {"core:sample_start": 0, "core:global_index": 100},
        {"core:sample_start": 500, "core:global_index": 600 + jump},
    ]
    recording = open_recording(make(captures=captures))
    assert [capture.radio_lost for capture in recording.captures] == [0, lost]
    # Replayed, the same captures become tags, and the stream has to find the same.
    statistics = StreamStatistics()
    times = [capture["rx_time"] for capture in describe(recording)["captures"]]
    tags = tuple(Tag(start, "rx_time", time) for start, time in zip((0, 500), times, strict=True) if time)
    assert list(Timeline(1e6, None, None, statistics).blocks(StreamMessage(np.zeros(1000, "c8"), 0, tags), 0.0))
    assert statistics.radio_lost == lost


@pytest.mark.parametrize(
    ("second", "lost"),
    [
        ("12:00:00.000500Z", 0),  # 500 samples at 1 MS/s later: nothing lost
        ("12:00:00.0005014Z", 0),  # 1.4 samples: jitter
        ("12:00:00.0005016Z", 2),
        ("12:00:01.000500Z", 1_000_000),
        ("11:59:59.000000Z", 0),  # a clock set back says nothing about samples
        ("12:00:00.002Z", 1500),
        ("12:00:00.001Z", 0),  # half a millisecond, told in milliseconds
        ("12:00:01Z", 0),  # told in seconds
        ("yesterday", 0),
    ],
)
def test_lost_samples_from_time_stamps(make: Make, second: str, lost: int) -> None:
    day = "" if second == "yesterday" else "2024-02-29T"
    captures = [
        {"core:sample_start": 0, "core:datetime": "2024-02-29T12:00:00.000000Z"},
        {"core:sample_start": 500, "core:datetime": day + second},
    ]
    path = make(captures=captures)
    if second == "yesterday":
        with pytest.raises(RecordingError, match=r"captures\[1\]\.core:datetime"):
            open_recording(path)
    else:
        assert [capture.radio_lost for capture in open_recording(path).captures] == [0, lost]


def test_epoch_seconds_is_exact() -> None:
    assert epoch_seconds("1970-01-02T00:00:00.123456789Z") == 86400 + Fraction(123456789, 10**9)
    assert epoch_seconds("2024-01-01T00:00:61Z") is None
    assert epoch_seconds(None) is None
    assert epoch_seconds(f"2024-01-01T00:00:00.{'1' * 5000}") is None  # more digits than Python makes a number of


def test_metadata_that_is_nested_too_deeply_is_refused(make: Make) -> None:
    path = make()
    text = path.read_text()
    assert text.startswith("{")
    path.write_text('{"x:y": ' + "[" * 500 + "]" * 500 + "," + text[1:])
    with pytest.raises(RecordingError, match=r"nested too deeply|not JSON"):
        open_recording(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"raw": None}, "no samples at"),
        ({"raw": None, "metadata_only": True}, "core:metadata_only"),
        ({"raw": None, "dataset": "gone.bin"}, r"gone\.bin"),
        ({"dataset": "../recording.sigmf-data"}, "without a folder|not valid SigMF"),
        ({"dataset": "a/recording.sigmf-data"}, "without a folder|not valid SigMF"),
        ({"raw": b""}, "holds no samples"),
        ({"raw": bytes(2001)}, "not a whole number"),
        ({"raw": bytes(2002), "datatype": "cf32_le"}, "not a whole number"),
        ({"datatype": "rf32_le"}, "real, not complex"),
        ({"datatype": "cf16_le"}, "not valid SigMF"),
        ({"datatype": None}, "core:datatype is missing"),
        ({"sample_rate": None}, "core:sample_rate is missing"),
        ({"sample_rate": 0}, r"global\.core:sample_rate"),
        ({"sample_rate": "fast"}, r"global\.core:sample_rate"),
        ({"sample_rate": float("nan")}, "NaN is not a JSON number"),
        ({"num_channels": 2}, "2 interleaved channels"),
        ({"trailing_bytes": 3000}, "holds no samples"),
        ({"captures": [{"core:sample_start": 1001}]}, "cut off"),
        ({"captures": [{"core:sample_start": 5}, {"core:sample_start": 4}]}, "not valid SigMF|before sample 5"),
        ({"captures": [{"core:sample_start": 5}], "offset": 10}, "before sample 10"),
        ({"captures": [{"core:sample_start": -1}]}, "not valid SigMF"),
        ({"captures": [{}]}, "not valid SigMF"),
        ({"captures": [{"core:sample_start": 0, "core:frequency": None}]}, r"captures\[0\]\.core:frequency"),
        ({"annotations": [{"core:sample_start": 900, "core:sample_count": 101}]}, "cut off"),
        ({"annotations": ["LTE"]}, r"annotations\[0\]"),
    ],
)
def test_bad_recordings_are_refused_in_one_line(make: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(make(**arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"global": 3}', b'{"global": {}}', b"[" * 100_000, b"9" * 5000]
)
def test_bad_metadata_files(make: Make, text: bytes) -> None:
    path = make()
    path.write_bytes(text)
    with pytest.raises(RecordingError):
        open_recording(path)


@pytest.mark.parametrize("section", ["captures", "annotations"])
def test_missing_sections(make: Make, section: str) -> None:
    path = make()
    metadata = json.loads(path.read_text())
    del metadata[section]
    path.write_text(json.dumps(metadata))
    with pytest.raises(RecordingError, match=f"'{section}' is a required property"):
        open_recording(path)


def test_missing_metadata(make: Make, tmp_path: Path) -> None:
    make().unlink()
    for name in ("recording", "recording.sigmf-data", "recording.sigmf-meta", "nothing.sigmf"):
        with pytest.raises(RecordingError, match=r"no metadata|cannot read"):
            open_recording(tmp_path / name)
    with pytest.raises(RecordingError, match="collection"):
        open_recording(tmp_path / "all.sigmf-collection")


@pytest.mark.parametrize("path", [".", "/", "", "..", "some/.."])
def test_a_folder_is_no_recording(path: str) -> None:
    with pytest.raises(RecordingError, match="is a folder; name a recording in it"):
        open_recording(path)


def test_null_defaults_and_unsorted_annotations_are_harmless(make: Make) -> None:
    annotations = [{"core:sample_start": n, "core:sample_count": 1} for n in (500, 3)]
    path = make(annotations=annotations, num_channels=None, offset=None)
    assert open_recording(path).sample_count == 1000


def test_digest_is_compared_only_when_asked(make: Make) -> None:
    path = make(sha512="0" * 128)
    assert open_recording(path).sample_count == 1000
    with pytest.raises(RecordingError, match="changed or damaged"):
        open_recording(path, verify=True)
    with pytest.raises(RecordingError, match=r"no core:sha512"):
        open_recording(make(), verify=True)
    open_recording(make(sha512=hashlib.sha512(bytes(2000)).hexdigest().upper()), verify=True)


def test_file_that_shrinks_while_it_is_read(make: Make) -> None:
    recording = open_recording(make(bytes(200_000)))
    blocks = recording.blocks(1000)
    next(blocks)
    os.truncate(recording.data_path, 100_000)
    with pytest.raises(RecordingError, match="shorter"):
        list(blocks)


def test_hundred_gigabytes_open_and_stream(make: Make) -> None:
    path = make(datatype="ci16_le")
    os.truncate(path.with_suffix(".sigmf-data"), 100 * 10**9)  # a sparse file
    recording = open_recording(path)
    assert recording.sample_count == 25 * 10**9
    assert sum(len(block.samples) for block in itertools.islice(recording.blocks(), 4)) == 2**20


def test_memory_does_not_grow_with_length(make: Make) -> None:
    path = make(datatype="ci8")
    os.truncate(path.with_suffix(".sigmf-data"), 2**25)
    recording = open_recording(path)
    tracemalloc.start()
    try:
        count = sum(len(block.samples) for block in recording.blocks(2**16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2**24
    assert peak < 4 * 2**20  # the whole would be 128 MiB


def test_real_recordings_stream_completely(real_iq: Path) -> None:
    paths = sorted(real_iq.glob("*.sigmf-meta"))
    assert paths
    for path in paths:
        recording = open_recording(path)
        reference = sigmf.fromfile(path, skip_checksum=True)
        assert recording.sample_count == reference.sample_count
        position = 0
        for block in recording.blocks():
            assert block.sample_start == position
            position = block.sample_end
        assert position == recording.sample_count


def test_same_samples_as_sigmf_python(real_iq: Path) -> None:
    for name in ("adsb_1090", "wifi_11a_cond_24m", "zigbee_84B"):
        path = real_iq / f"{name}.sigmf-meta"
        expected = sigmf.fromfile(path, skip_checksum=True).read_samples()
        np.testing.assert_array_equal(all_samples(open_recording(path)), expected)


def test_blocks_hold_what_the_wire_codec_makes(make: Make) -> None:
    raw = np.random.default_rng(0).bytes(8000)
    recording = open_recording(make(raw, datatype="cu16_be"))
    np.testing.assert_array_equal(all_samples(recording, 300), to_complex64(raw, "cu16_be"))


def test_what_is_no_recording_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is a stream's address; this takes SigMF recordings only"):
        open_recording("zmq+sub://127.0.0.1:5555")
    (tmp_path / "capture.cf32").write_bytes(bytes(80))
    with pytest.raises(RecordingError, match=r"no metadata .* capture\.cf32 alone says neither its core:datatype"):
        open_recording(tmp_path / "capture.cf32")
