# SPDX-License-Identifier: Apache-2.0
"""Corrections and saved samples as SigMF that others read, this project's training among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sigmf
from numpy.typing import NDArray

from rfvit_rt.datatypes import Annotation, IQBlock
from rfvit_rt.errors import OutputError, WireError
from rfvit_rt.models import default_model
from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.sources.recording import open_recording
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.web import corrections, saving
from rfvit_rt.web.clock import StreamClock
from rfvit_rt.web.corrections import Boxes
from rfvit_rt.web.protocol import Box, Correct
from rfvit_rt.web.ring import Snapshot
from rfvit_rt.web.saving import CorrectedCopy, Origin, save_samples

RATE, FREQUENCY = 1.92e6, 806e6
ORIGIN = Origin("zmq+pull://127.0.0.1:5555", recorded=False, simulated=False, model="spectrum-small@0123456789ab")


def found(start: int, count: int, label: str = "LTE", low: float = -3e5, high: float = 4e5) -> Annotation:
    return Annotation(label, start, count, FREQUENCY + low, FREQUENCY + high, 0.75, RATE, FREQUENCY)


def clock_at(samples: int) -> StreamClock:
    clock = StreamClock()
    clock.note(0, samples, RATE)
    return clock


def correct(identity: int | None, label: str, start: int, end: int, low: float = -3e5, high: float = 4e5) -> Correct:
    return Correct(identity, label, start / RATE, end / RATE, FREQUENCY + low, FREQUENCY + high)


def block(start: int, count: int, frequency: float | None = FREQUENCY, radio_lost: int = 0) -> IQBlock:
    samples = (np.arange(start, start + count) * (0.5 + 0.25j)).astype(np.complex64)
    return IQBlock(samples, start, RATE, frequency, radio_lost)


# ---- boxes ----


def test_a_box_that_was_corrected_keeps_its_number_and_what_the_model_said() -> None:
    boxes, clock = Boxes(), clock_at(10_000)
    box = boxes.add(found(1000, 500), clock)
    assert (box.id, box.origin, box.was) == (0, "model", None)
    once = boxes.correct(correct(0, "NR", 1100, 1600), clock, FREQUENCY)
    again = boxes.correct(correct(0, "5G", 1200, 1600, high=5e5), clock, None)
    assert (once.id, again.id, again.origin, again.label, again.confidence) == (0, 0, "corrected", "5G", 1.0)
    assert (again.sample_start, again.sample_count) == (1200, 400)
    assert again.frequency == FREQUENCY
    assert again.was is not None
    assert (again.was["label"], again.was["confidence"], again.was["time_start"]) == ("LTE", 0.75, box.time_start)
    assert list(boxes) == [again]
    assert boxes.corrections == 1


def test_a_box_that_was_drawn() -> None:
    boxes, clock = Boxes(), clock_at(10_000)
    drawn = boxes.correct(correct(None, "WLAN", 100, 200), clock, FREQUENCY)
    moved = boxes.correct(correct(drawn.id, "WLAN", 100, 300), clock, FREQUENCY)
    assert (moved.id, moved.origin, moved.was, moved.sample_count) == (drawn.id, "drawn", None, 200)


def test_a_box_ends_where_the_stream_does() -> None:
    boxes, clock = Boxes(), clock_at(1000)
    assert boxes.correct(correct(None, "NR", 900, 5000), clock, None).sample_count == 100
    with pytest.raises(WireError, match="reaches to"):
        boxes.correct(correct(None, "NR", 1000, 5000), clock, None)


def test_boxes_that_are_not_there() -> None:
    boxes, clock = Boxes(), clock_at(1000)
    for act in (lambda: boxes.delete(0), lambda: boxes.correct(correct(7, "NR", 1, 2), clock, None)):
        with pytest.raises(WireError, match="no box"):
            act()


def test_many_boxes_are_bounded_and_what_people_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MOST_BOXES", 10)
    monkeypatch.setattr(corrections, "MOST_CORRECTIONS", 3)
    boxes, clock = Boxes(), clock_at(100_000)
    drawn = boxes.correct(correct(None, "NR", 1, 2), clock, None)
    for start in range(0, 3000, 100):
        boxes.add(found(start, 50), clock)
    assert len(boxes) == 10
    assert boxes.forgotten == 21
    assert boxes.find(drawn.id) == drawn
    boxes.delete(30)
    boxes.correct(correct(29, "NR", 1, 2), clock, None)
    for act in (lambda: boxes.delete(28), lambda: boxes.correct(correct(None, "NR", 1, 2), clock, None)):
        with pytest.raises(WireError, match="3 corrections"):
            act()
    boxes.correct(correct(29, "LTE", 1, 2), clock, None)  # the same box again is no further correction


# ---- saved samples ----


def box_at(start: int, count: int, label: str = "LTE", number: int = 0) -> Box:
    return replace(Boxes().add(found(start, count, label), clock_at(start + count)), id=number)


def test_saved_samples_are_a_recording(tmp_path: Path) -> None:
    snapshot = Snapshot([block(1000, 300), block(1300, 700)])
    recording, count = save_samples(tmp_path, snapshot, [box_at(1200, 100), box_at(1900, 500, "NR", 1)], ORIGIN)
    assert sorted(tmp_path.iterdir()) == [recording.path.with_suffix(".sigmf-data"), recording.path]
    opened = open_recording(recording.path, verify=True)  # checks the digest, too
    blocks = list(opened.blocks())
    np.testing.assert_array_equal(
        np.concatenate([part.samples for part in blocks]), np.concatenate([part.samples for part in snapshot.blocks])
    )
    assert (opened.sample_rate, blocks[0].frequency) == (RATE, FREQUENCY)
    sigmf.fromfile(str(recording.path)).validate()
    first, second = opened.metadata["annotations"]
    assert count == 2
    assert (first["core:label"], first["core:sample_start"], first["core:sample_count"]) == ("LTE", 200, 100)
    assert first["rfvit:model"] == ORIGIN.model
    assert (second["core:sample_start"], second["core:sample_count"]) == (900, 100)  # cut off at the end
    assert opened.metadata["captures"][0]["core:global_index"] == 1000
    assert "core:datetime" in opened.metadata["captures"][0]


def test_losses_and_retunes_begin_captures_and_cut_boxes(tmp_path: Path) -> None:
    parts = [block(0, 100), block(300, 100), block(400, 100, FREQUENCY + 1e6), block(500, 100, None, radio_lost=7)]
    recording, count = save_samples(tmp_path, Snapshot(parts), [box_at(50, 300)], ORIGIN)
    metadata = open_recording(recording.path, verify=True).metadata
    captures = metadata["captures"]
    assert [capture["core:sample_start"] for capture in captures] == [0, 100, 200, 300]
    assert [capture["core:global_index"] for capture in captures] == [0, 300, 400, 507]
    assert [capture.get("core:frequency") for capture in captures] == [FREQUENCY, FREQUENCY, FREQUENCY + 1e6, None]
    places = [(item["core:sample_start"], item["core:sample_count"]) for item in metadata["annotations"]]
    assert (count, places) == (2, [(50, 50), (100, 50)])


def test_boxes_of_saved_samples_can_be_corrected_afterwards(tmp_path: Path) -> None:
    recording, _ = save_samples(tmp_path, Snapshot([block(1000, 500)]), [box_at(1000, 100)], ORIGIN)
    boxes, clock = Boxes(), clock_at(2000)
    boxes.add(found(1000, 100), clock)
    boxes.correct(correct(0, "NR", 1000, 1200), clock, None)
    boxes.correct(correct(None, "radar", 1400, 1450), clock, FREQUENCY)
    elsewhere = box_at(1800, 100, number=9)
    assert recording.write([*boxes, elsewhere]) == 2
    first, second = open_recording(recording.path, verify=True).metadata["annotations"]
    assert (first["core:label"], first["core:sample_count"], first["rfvit:origin"]) == ("NR", 200, "corrected")
    assert "the model said LTE, confidence 75%" in first["core:comment"]
    assert (second["core:label"], second["core:sample_start"], second["rfvit:origin"]) == ("radar", 400, "drawn")
    assert "rfvit:model" not in first


@pytest.mark.parametrize(
    ("recorded", "simulated", "words"), [(True, False, "From a recording"), (False, True, "SIMULATED")]
)
def test_a_recording_says_what_is_not_live(tmp_path: Path, recorded: bool, simulated: bool, words: str) -> None:
    origin = replace(ORIGIN, recorded=recorded, simulated=simulated)
    recording, _ = save_samples(tmp_path, Snapshot([block(0, 100)]), [], origin)
    metadata = json.loads(recording.path.read_text())
    assert words in metadata["global"]["core:description"]
    assert ("core:datetime" in metadata["captures"][0]) == (not recorded)


def test_nothing_is_left_behind_where_saving_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "SPARE_BYTES", 2**62)
    with pytest.raises(OutputError, match="left"):
        save_samples(tmp_path, Snapshot([block(0, 100)]), [], ORIGIN)
    monkeypatch.setattr(saving, "SPARE_BYTES", 0)

    def fail(*arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "serialise", fail)
    with pytest.raises(OutputError, match="No space"):
        save_samples(tmp_path, Snapshot([block(0, 100)]), [], ORIGIN)
    assert not list(tmp_path.iterdir())


# ---- corrected recordings, and training ----


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three windows of noise, annotated by somebody."""
    count = 3 * SpectrogramSpec().window_length(RATE)
    samples = np.random.default_rng(3).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]
    return write_recording(
        tmp_path / "capture", samples / 8, RATE, FREQUENCY, datatype="ci16_le", annotations=[found(0, 1000, "theirs")]
    )


def read_label(recording: Path, spec: SpectrogramSpec, folder: Path) -> Callable[[int], NDArray[np.uint8]]:
    """Masks of a recording's windows as finetuning makes them, with [annotations.classes]."""
    pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
    from training.config import Annotations
    from training.datasets import WindowWriter, open_windows
    from training.recordings import LabelMap, write_labelled

    label_map = LabelMap(Annotations({"LTE": ["LTE"], "NR": ["NR", "5G.*"]}))
    with WindowWriter(folder, spec, label_map.labels) as writer:
        assert not write_labelled(writer, open_recording(recording), 0, label_map)
        writer.finish()
    windows = open_windows(folder)
    return lambda number: np.asarray(windows.masks[number])


def test_corrections_are_what_finetuning_learns(recorded: Path, tmp_path: Path) -> None:
    spec = SpectrogramSpec()
    window = spec.window_length(RATE)
    boxes, clock = Boxes(), clock_at(3 * window)
    boxes.add(found(0, window, "LTE"), clock)
    boxes.add(found(window, window, "LTE"), clock)
    boxes.add(found(2 * window, window, "LTE"), clock)
    boxes.correct(correct(1, "5G NR", window, 2 * window), clock, FREQUENCY)
    boxes.delete(2)
    copy = CorrectedCopy(open_recording(recorded), tmp_path, default_model())
    assert copy.write(list(boxes)) == 2
    assert copy.path == tmp_path / "capture.corrected.sigmf-meta"
    opened = open_recording(copy.path, verify=True)
    assert opened.data_path.resolve() == recorded.with_suffix(".sigmf-data").resolve()
    assert [item["core:label"] for item in opened.metadata["annotations"]] == ["LTE", "5G NR"]

    mask = read_label(copy.path, spec, tmp_path / "windows")
    middle = slice(spec.n_bins // 2 - 20, spec.n_bins // 2 + 20)  # well within the box's 0.7 MHz of 1.92
    assert (mask(0)[:, middle] == 1).all()
    assert (mask(1)[:, middle] == 2).all()
    assert (mask(2) == 0).all()


def test_a_corrected_copy_replaces_nothing_but_itself(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "capture.corrected.sigmf-meta"
    other.write_text("somebody's")
    copy = CorrectedCopy(open_recording(recorded), tmp_path, default_model())
    copy.write([])
    copy.write([box_at(0, 100)])
    assert other.read_text() == "somebody's"
    assert copy.path == tmp_path / "capture.corrected-2.sigmf-meta"
    assert len(open_recording(copy.path).metadata["annotations"]) == 1
