# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf

from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import OutputError, WireError
from rfvit_rt.sinks.sigmf import (
    check_annotations_output,
    check_output,
    default_output,
    write_annotations,
    write_recording,
)
from rfvit_rt.sources.recording import Recording, open_recording

MODEL: dict[str, Any] = {"model_name": "vit-tiny", "model_hash": "0123456789abcdef" * 4}
SAMPLES = np.exp(1j * np.linspace(0, 50, 2000)).astype(np.complex64)


def found(start: int = 100, count: int = 50, label: str = "LTE", confidence: float = 0.875) -> Annotation:
    return Annotation(label, start, count, 0.9e9, 1.1e9, confidence, 1e6, 1e9)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    truth = [found(700, 10, "truth", 1.0)]
    return open_recording(write_recording(tmp_path / "capture", SAMPLES, 1e6, 1e9, annotations=truth))


def assert_valid(path: Path) -> sigmf.SigMFFile:
    """Valid and unchanged (core:sha512) for sigmf-python; its warnings are errors here."""
    result = sigmf.fromfile(path)
    result.validate()
    return result


def test_clean_for_the_validator_of_sigmf_python(recording: Recording) -> None:
    write_annotations(recording, [found()], default_output(recording), **MODEL)
    validator = [sys.executable, "-W", "error", "-c", "from sigmf.validate import main; main()"]
    paths = [str(recording.meta_path), str(default_output(recording))]
    status = subprocess.run([*validator, *paths], capture_output=True, text=True, timeout=60, check=False)
    assert status.returncode == 0, status.stderr


def test_result_is_a_complete_valid_recording(recording: Recording) -> None:
    output = default_output(recording)
    assert output.name == "capture.rfvit.sigmf-meta"
    write_annotations(recording, [found(1000, 30, "NR", 0.5), found()], output, **MODEL)
    result = assert_valid(output)
    np.testing.assert_array_equal(result.read_samples(), SAMPLES)
    assert result.data_file.resolve() == recording.data_path.resolve()
    assert result.get_captures() == [{"core:sample_start": 0, "core:frequency": 1e9}]
    assert [item["core:label"] for item in result.get_annotations()] == ["LTE", "truth", "NR"]
    assert result.get_annotations()[0] == {
        "core:sample_start": 100,
        "core:sample_count": 50,
        "core:freq_lower_edge": 0.9e9,
        "core:freq_upper_edge": 1.1e9,
        "core:label": "LTE",
        "core:comment": "confidence 88%",
        "core:generator": "rfvit-rt 0.1.0",
        "rfvit:confidence": 0.875,
        "rfvit:model": "vit-tiny@0123456789ab",
    }
    extensions = result.get_global_field("core:extensions")
    assert extensions == [{"name": "rfvit", "version": "1.0.0", "optional": True}]


def test_viewers_that_look_for_the_same_base_name_find_the_samples(recording: Recording) -> None:
    output = default_output(recording)
    write_annotations(recording, [found()], output, **MODEL)
    link = output.with_suffix(".sigmf-data")
    assert link.readlink() == Path("capture.sigmf-data")  # relative, so that the folder can be moved
    assert "core:dataset" not in json.loads(output.read_text())["global"]
    again = open_recording(output)
    assert again.sample_count == 2000
    further = output.with_name("further.sigmf-meta")
    write_annotations(again, [found(5)], further, **MODEL)
    assert further.with_suffix(".sigmf-data").readlink() == Path("capture.sigmf-data")
    assert len(assert_valid(further).get_annotations()) == 3


def test_result_in_another_folder(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    output = tmp_path / "results" / "capture.sigmf-meta"
    write_annotations(recording, [found()], output, **MODEL)
    np.testing.assert_array_equal(assert_valid(output).read_samples(), SAMPLES)


def test_without_links_the_dataset_is_named(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links on this file system")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    output = default_output(recording)
    write_annotations(recording, [found()], output, **MODEL)
    assert json.loads(output.read_text())["global"]["core:dataset"] == "capture.sigmf-data"
    np.testing.assert_array_equal(assert_valid(output).read_samples(), SAMPLES)
    assert open_recording(output).data_path == recording.data_path
    (tmp_path / "results").mkdir()
    with pytest.raises(OutputError, match="cannot link"):
        write_annotations(recording, [found()], tmp_path / "results" / "capture.sigmf-meta", **MODEL)


def test_samples_in_an_archive(recording: Recording, tmp_path: Path) -> None:
    sigmf.fromfile(recording.meta_path).archive(tmp_path / "packed.sigmf")
    packed = open_recording(tmp_path / "packed.sigmf")
    output = default_output(packed)
    assert output.name == "packed.rfvit.sigmf-meta"
    write_annotations(packed, [found()], output, **MODEL)
    np.testing.assert_array_equal(assert_valid(output).read_samples(), SAMPLES)
    again = open_recording(output)
    np.testing.assert_array_equal(np.concatenate([block.samples for block in again.blocks()]), SAMPLES)


def test_non_conforming_dataset(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "tool.dat").write_bytes(b"HEADER" + recording.data_path.read_bytes() + b"END")
    metadata = json.loads(recording.meta_path.read_text())
    del metadata["global"]["core:sha512"]
    metadata["global"] |= {"core:dataset": "tool.dat", "core:trailing_bytes": 3}
    metadata["captures"][0]["core:header_bytes"] = 6
    (tmp_path / "foreign.sigmf-meta").write_text(json.dumps(metadata))
    foreign = open_recording(tmp_path / "foreign.sigmf-meta")
    (tmp_path / "results").mkdir()
    for output in (default_output(foreign), tmp_path / "results" / "foreign.sigmf-meta"):
        write_annotations(foreign, [found()], output, **MODEL)
        np.testing.assert_array_equal(assert_valid(output).read_samples(), SAMPLES)


def test_annotations_end_with_the_recording(recording: Recording) -> None:
    output = default_output(recording)
    write_annotations(recording, [found(1990, 50, "NR"), found(2000, 5), found(2100, 5)], output, **MODEL)
    last = assert_valid(output).get_annotations()[-1]
    assert (last["core:label"], last["core:sample_start"], last["core:sample_count"]) == ("NR", 1990, 10)
    assert len(open_recording(output).metadata["annotations"]) == 2


def test_other_extensions_and_unknown_keys_are_kept(recording: Recording) -> None:
    metadata = json.loads(recording.meta_path.read_text())
    antenna = {"name": "antenna", "version": "1.0.0", "optional": True}
    old = {"name": "rfvit", "version": "0.0.1", "optional": True}
    metadata["global"] |= {"core:extensions": [antenna, old], "antenna:model": "whip"}
    recording.meta_path.write_text(json.dumps(metadata))
    output = default_output(recording)
    write_annotations(open_recording(recording.meta_path), [found()], output, **MODEL)
    fields = assert_valid(output).get_global_info()
    assert [item["name"] for item in fields["core:extensions"]] == ["antenna", "rfvit"]
    assert fields["core:extensions"][1]["version"] == "1.0.0"
    assert fields["antenna:model"] == "whip"


def test_results_that_are_segmented_again_are_not_doubled(recording: Recording, tmp_path: Path) -> None:
    first, second = default_output(recording), tmp_path / "again.sigmf-meta"
    write_annotations(recording, [found()], first, **MODEL)
    write_annotations(open_recording(first), [found(), found(300)], second, **MODEL)
    starts = [item["core:sample_start"] for item in open_recording(second).metadata["annotations"]]
    assert starts == [100, 300, 700]


def test_ten_thousand_annotations(recording: Recording) -> None:
    starts = np.random.default_rng(0).integers(0, 1990, 10_000)
    output = default_output(recording)
    write_annotations(recording, (found(int(start), 3) for start in starts), output, **MODEL)
    written = [item["core:sample_start"] for item in json.loads(output.read_text())["annotations"]]
    assert written == sorted([*map(int, starts), 700])


def test_nothing_is_overwritten_unasked(recording: Recording) -> None:
    output = default_output(recording)
    output.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        check_annotations_output(recording, output)
    with pytest.raises(OutputError, match="exists"):
        write_annotations(recording, [found()], output, **MODEL)
    assert output.read_text() == "precious"
    write_annotations(recording, [found()], output, **MODEL, overwrite=True)
    write_annotations(recording, [found()], output, **MODEL, overwrite=True)
    assert len(assert_valid(output).get_annotations()) == 2


def test_the_recording_itself_is_never_overwritten(recording: Recording) -> None:
    before = recording.meta_path.read_bytes()
    link = recording.meta_path.with_name("same.sigmf-meta")
    link.symlink_to(recording.meta_path)
    for output in (recording.meta_path, link):
        with pytest.raises(OutputError, match="never overwritten"):
            write_annotations(recording, [found()], output, **MODEL, overwrite=True)
    assert recording.meta_path.read_bytes() == before


def test_samples_of_another_recording_are_not_taken_for_ours(recording: Recording, tmp_path: Path) -> None:
    other = write_recording(tmp_path / "other", SAMPLES[:100], 1e6)
    with pytest.raises(OutputError, match="not a link to"):
        write_annotations(recording, [found()], other, **MODEL, overwrite=True)
    assert open_recording(other).sample_count == 100


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.json", "does not end in"),
        ("missing/out.sigmf-meta", "there is no folder"),
        ("d.sigmf-meta", "is a folder"),
    ],
)
def test_impossible_outputs(recording: Recording, tmp_path: Path, output: str, message: str) -> None:
    (tmp_path / "d.sigmf-meta").mkdir()
    with pytest.raises(OutputError, match=message):
        check_annotations_output(recording, tmp_path / output, overwrite=True)


def test_check_output_takes_any_new_file(tmp_path: Path) -> None:
    check_output(tmp_path / "results.jsonl")
    (tmp_path / "results.jsonl").touch()
    check_output(tmp_path / "results.jsonl", overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(tmp_path / "results.jsonl")


@pytest.mark.parametrize("bad", [found(confidence=float("nan")), found(count=-5)])
def test_what_cannot_be_written_leaves_everything_as_it_was(recording: Recording, bad: Annotation) -> None:
    output = default_output(recording)
    with pytest.raises(OutputError, match="cannot write"):
        write_annotations(recording, [found(), bad], output, **MODEL)
    assert sorted(path.name for path in output.parent.iterdir()) == ["capture.sigmf-data", "capture.sigmf-meta"]
    write_annotations(recording, [found()], output, **MODEL)
    before = output.read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        write_annotations(recording, [found(), bad], output, **MODEL, overwrite=True)
    assert output.read_bytes() == before
    assert not list(output.parent.glob(".*"))


def test_a_failing_disk_leaves_the_old_file(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    output = default_output(recording)
    write_annotations(recording, [found()], output, **MODEL)
    before = output.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_annotations(recording, [found(5)], output, **MODEL, overwrite=True)
    assert output.read_bytes() == before
    assert not list(output.parent.glob(".*"))


@pytest.mark.parametrize(("datatype", "step"), [("cf32_le", 0.0), ("ci16_le", 2.0**-15), ("ci8", 2.0**-7)])
def test_new_recordings(tmp_path: Path, datatype: str, step: float) -> None:
    samples = 3 * SAMPLES
    truth = [found(10, 20, "NR", 1.0)]
    path = write_recording(
        tmp_path / "new",
        samples,
        2e6,
        3.5e9,
        datatype=datatype,
        full_scale=4.0,
        description="a tone",
        license_url="https://example.org/licence",
        annotations=truth,
    )
    assert path == tmp_path / "new.sigmf-meta"
    reference = assert_valid(path)
    assert (
        reference.get_global_field("core:sha512")
        == hashlib.sha512(path.with_suffix(".sigmf-data").read_bytes()).hexdigest()
    )
    assert reference.get_global_field("core:license") == "https://example.org/licence"
    (annotation,) = reference.get_annotations()
    assert (annotation["core:sample_start"], annotation["core:label"]) == (10, "NR")
    assert not any("confidence" in f"{key} {value}" for key, value in annotation.items())  # it is known, not found
    recording = open_recording(path, verify=True)
    assert (recording.sample_rate, recording.captures[0].frequency) == (2e6, 3.5e9)
    back = np.concatenate([block.samples for block in recording.blocks()])
    np.testing.assert_allclose(back, samples if datatype == "cf32_le" else samples / 4, rtol=0, atol=step)
    with pytest.raises(OutputError, match="exists"):
        write_recording(path, samples, 2e6)
    write_recording(path, samples[:5], 2e6, overwrite=True)
    assert open_recording(path).captures[0].frequency is None
    assert open_recording(path).sample_count == 5


def test_new_recording_of_an_unknown_type(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="supported are"):
        write_recording(tmp_path / "new", SAMPLES, 1e6, datatype="rf32_le")
    assert not list(tmp_path.iterdir())


def test_real_recordings_can_be_annotated(real_iq: Path, tmp_path: Path) -> None:
    for path in sorted(real_iq.glob("*.sigmf-meta"))[:4]:
        recording = open_recording(path)
        output = tmp_path / path.name
        write_annotations(recording, [found(0, 10)], output, **MODEL)
        assert sigmf.fromfile(output).sample_count == recording.sample_count
