# SPDX-License-Identifier: Apache-2.0
"""Annotations of a stream without a recording: valid SigMF, and honest about what it holds."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf

from rfvit_rt.datatypes import Annotation, IQBlock
from rfvit_rt.errors import OutputError, RecordingError
from rfvit_rt.sinks import sigmf_stream
from rfvit_rt.sinks.sigmf_stream import StreamAnnotations, check_stream_output
from rfvit_rt.sources.recording import open_recording
from rfvit_rt.wire.results import Status


def block(start: int, frequency: float | None, rate: float = 1e6, count: int = 1000) -> IQBlock:
    return IQBlock(np.zeros(count, np.complex64), start, rate, frequency, received=time.monotonic())


def annotation(start: int, frequency: float | None = 1e9) -> Annotation:
    return Annotation("LTE", start, 500, 0.9e9, 1.1e9, 0.87654321, 1e6, frequency)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep.sigmf-meta"


@pytest.fixture
def sink(path: Path) -> StreamAnnotations:
    return StreamAnnotations(path, "driver=rtlsdr", "a sweep")


def written(sink: StreamAnnotations) -> dict[str, Any]:
    sink.close("tiny", "0123456789abcdef")
    return json.loads(sink.path.read_text())


def test_it_is_valid_sigmf_without_samples(sink: StreamAnnotations, path: Path) -> None:
    blocks = [block(0, 1e9), block(1000, 1e9), block(2000, 2e9), block(5000, None)]
    assert list(sink.observed(blocks)) == blocks
    for start in (1500, 100):
        sink.write(annotation(start))
    sink.write(Status(0, 1e6, None, 1e6, 0, 0, 0, None))
    document = written(sink)
    sigmf.SigMFFile(metadata=document).validate()
    assert document["global"]["core:metadata_only"] is True
    assert document["global"]["core:sample_rate"] == 1e6
    assert document["global"]["core:hw"] == "driver=rtlsdr"
    assert "core:dataset" not in document["global"]
    captures = document["captures"]
    assert [(c["core:sample_start"], c.get("core:frequency")) for c in captures] == [
        (0, 1e9),
        (2000, 2e9),
        (5000, None),
    ]
    assert [item["core:sample_start"] for item in document["annotations"]] == [100, 1500]
    assert document["annotations"][0]["rfvit:model"] == "tiny@0123456789ab"
    assert document["annotations"][0]["rfvit:confidence"] == 0.8765
    with pytest.raises(RecordingError, match="metadata_only"):
        open_recording(path)


def test_captures_say_when_by_this_machines_clock(sink: StreamAnnotations) -> None:
    before = time.time()
    list(sink.observed([block(0, 1e9, rate=1e6, count=2_000_000)]))
    (capture,) = written(sink)["captures"]
    stamp = datetime.fromisoformat(capture["core:datetime"].replace("Z", "+00:00"))
    assert stamp.tzinfo == UTC
    assert before - 2.01 <= stamp.timestamp() <= time.time() - 1.99  # its 2 s were over when it came


def test_one_file_holds_one_stream(sink: StreamAnnotations) -> None:
    with pytest.raises(OutputError, match="counts from 0"):
        list(sink.observed([block(0, 1e9), block(1000, 1e9), block(0, 1e9)]))
    assert len(written(sink)["captures"]) == 1


def test_one_file_holds_one_sample_rate(sink: StreamAnnotations) -> None:
    with pytest.raises(OutputError, match=r"sample rate became 2e\+06 Hz at sample 1000"):
        list(sink.observed([block(0, 1e9), block(1000, 1e9, rate=2e6)]))


def test_memory_is_bounded(sink: StreamAnnotations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sigmf_stream, "MOST_ANNOTATIONS", 2)
    monkeypatch.setattr(sigmf_stream, "MOST_CAPTURES", 2)
    for start in (0, 1):
        sink.write(annotation(start))
    with pytest.raises(OutputError, match="holds 2 annotations"):
        sink.write(annotation(2))
    with pytest.raises(OutputError, match="holds 2 retunes"):
        list(sink.observed([block(0, 1e9), block(1000, 2e9), block(2000, 1e9)]))
    assert len(written(sink)["annotations"]) == 2


def test_where_it_cannot_be_written(path: Path) -> None:
    with pytest.raises(OutputError, match="does not end in"):
        check_stream_output(path.with_suffix(".json"))
    path.with_suffix(".sigmf-data").touch()
    with pytest.raises(OutputError, match="would seem to describe it"):
        check_stream_output(path)
    path.with_suffix(".sigmf-data").unlink()
    path.touch()
    with pytest.raises(OutputError, match="exists"):
        StreamAnnotations(path, "", "")
    check_stream_output(path, overwrite=True)
