# SPDX-License-Identifier: Apache-2.0
"""Corrections of a stream reach a file together with its samples, whenever they are made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfvit_rt.sources.recording import open_recording
from rfvit_rt.web import saver
from rfvit_rt.web.ring import Snapshot

from .serving import FREQUENCY, PATIENCE, RATE, STRETCH, Page, Served, page, serving


def a_box(start: float, end: float, label: str = "NR", identity: int | None = None) -> dict[str, Any]:
    edges = {"freq_lower_edge": FREQUENCY - 1e5, "freq_upper_edge": FREQUENCY + 1e5}
    return {"id": identity, "label": label, "time_start": start, "time_end": end, **edges}


def saved(shown: Page, kind: str) -> dict[str, Any]:
    """What a page is told of a file; an error before that is the test's."""
    told = shown.next("saved", kind=kind)
    assert not shown.of("error")
    return told


def labels(path: str | Path) -> list[str]:
    opened = open_recording(path, verify=True)
    return [annotation["core:label"] for annotation in opened.metadata["annotations"]]


def feed(served: Served, shown: Page, seconds: float) -> None:
    served.feed(round(seconds * RATE / STRETCH))
    shown.next_tile(time_end=served.stretches * STRETCH / RATE)


@contextmanager
def snapshot_taken(served: Served) -> Iterator[None]:
    """What happens after this is after the samples were taken that are being saved."""
    taken, last = threading.Event(), served.ring.last

    def noted(seconds: float) -> Snapshot | None:
        snapshot = last(seconds)
        taken.set()
        return snapshot

    served.ring.last = noted  # type: ignore[method-assign]
    yield
    assert taken.wait(PATIENCE)


def test_save_the_last_seconds(tmp_path: Path) -> None:
    with serving(tmp_path) as served, page(served.port) as shown:
        feed(served, shown, 1.5)
        served.find(round(0.1 * RATE))
        served.find(round(1.2 * RATE), label="NR")
        shown.next("annotation", id=1)
        with snapshot_taken(served):
            shown.send("save", seconds=1)
        served.feed(35)  # boxes may still come that begin before; they are waited for
        served.find(round(1.4 * RATE), label="late")
        served.feed(10)
        told = saved(shown, "recording")
        assert told["count"] == 2
        assert told["message"] == ""
        opened = open_recording(told["path"], verify=True)
        samples = np.concatenate([part.samples for part in opened.blocks()])
        np.testing.assert_array_equal(samples, np.arange(0.5 * RATE, 1.5 * RATE).astype(np.complex64))
        assert [item["core:sample_start"] for item in opened.metadata["annotations"]] == [0.7 * RATE, 0.9 * RATE]
        assert labels(told["path"]) == ["NR", "late"]
        shown.send("save", seconds=1)
        assert "just now" in shown.next("error")["message"]
        with page(served.port) as late:
            late.next("annotation", id=2)
            late.next("status")
            assert not late.of("saved")  # an hour ago is no news


def test_what_is_saved_of_a_simulated_recording_says_so(tmp_path: Path) -> None:
    """Its metadata alone know that it is simulated, and the page has told so."""
    with serving(tmp_path, simulated=True) as served, page(served.port) as shown:
        assert shown.next("status")["simulated"]
        feed(served, shown, 0.9)
        served.server.end("over")
        shown.send("save", seconds=1)
        path = saved(shown, "recording")["path"]
    assert open_recording(path).metadata["global"]["core:description"].startswith("SIMULATED")


def test_more_than_is_held_is_said_to_be_less(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=0.5) as served, page(served.port) as shown:
        feed(served, shown, 0.9)
        served.server.end("over")
        shown.send("save", seconds=10)
        told = saved(shown, "recording")
        assert "0.5 s were held, of the 10 s asked for" in told["message"]


def test_nothing_to_save_is_said(tmp_path: Path) -> None:
    with serving(tmp_path) as served, page(served.port) as shown:
        shown.send("save", seconds=10)
        assert "no samples yet" in shown.next("error")["message"]
    assert not list(tmp_path.iterdir())


def test_what_was_saved_can_be_corrected_afterwards(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=1.0) as served, page(served.port) as shown:
        feed(served, shown, 0.9)
        served.find(round(0.1 * RATE))
        served.find(round(0.5 * RATE))
        with snapshot_taken(served):
            shown.send("save", seconds=1)
        feed(served, shown, 3.0)
        path = shown.seen("saved", kind="recording")["path"]
        assert labels(path) == ["LTE", "LTE"]
        shown.send("correct", **a_box(0.1, 0.2, "NR", 0))
        shown.send("delete", id=1)
        shown.send("correct", **a_box(0.7, 0.8, "radar"))
        while labels(path) != ["NR", "radar"]:  # what comes together is written together, as a rule
            told = saved(shown, "corrections")
            assert told["path"] == path
        shown.send("correct", **a_box(1.5, 1.6))
        assert "no longer held" in shown.next("error")["message"]
    assert len(list(tmp_path.glob("*.sigmf-meta"))) == 1
    assert served.saver.written == {Path(path): 2}


def test_corrected_samples_are_saved_before_they_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "SECONDS_LEFT", 0.5)
    with serving(tmp_path, seconds=3.0) as served, page(served.port) as shown:
        feed(served, shown, 1.5)
        served.find(round(1.0 * RATE))
        shown.next("annotation", id=0)
        shown.send("correct", **a_box(1.0, 1.1, "NR", 0))
        shown.next("annotation", origin="corrected")
        shown.next("status")
        shown.next("status")
        assert not list(tmp_path.iterdir())  # there is time
        with snapshot_taken(served):
            feed(served, shown, 2.25)
        served.feed(45)
        told = saved(shown, "recording")
        assert told["message"] == "because of corrections in them"
        assert labels(told["path"]) == ["NR"]
        opened = open_recording(told["path"])
        assert opened.metadata["annotations"][0]["core:sample_start"] == 0.25 * RATE  # all that was held before it


def test_what_is_corrected_while_others_are_being_saved_is_saved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later than the samples that were taken: they are still held, and a second recording has them."""
    monkeypatch.setattr(saver, "SECONDS_LEFT", 0.5)
    with serving(tmp_path, seconds=3.0) as served, page(served.port) as shown:
        feed(served, shown, 1.5)
        shown.send("correct", **a_box(1.0, 1.1, "NR"))
        shown.next("annotation", label="NR")
        with snapshot_taken(served):
            feed(served, shown, 2.25)
        end = served.stretches * STRETCH / RATE
        served.feed(5)
        shown.send("correct", **a_box(end + 0.05, end + 0.1, "radar"))  # while the boxes of the first are awaited
        shown.next("annotation", label="radar")
        served.feed(45)
        first = saved(shown, "recording")
        assert labels(first["path"]) == ["NR"]
    (second,) = set(tmp_path.glob("*.sigmf-meta")) - {Path(first["path"])}
    assert labels(second) == ["radar"]
    assert served.saver.lost == 0


def test_what_nobody_saved_is_saved_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as served, page(served.port) as shown:
        feed(served, shown, 0.3)
        shown.send("correct", **a_box(0.1, 0.2, "radar"))
        shown.next("annotation")
    (meta,) = tmp_path.glob("*.sigmf-meta")
    assert labels(meta) == ["radar"]
    assert served.saver.written == {meta: 1}
    assert served.saver.lost == 0


def test_without_a_correction_nothing_is_written(tmp_path: Path) -> None:
    with serving(tmp_path) as served, page(served.port) as shown:
        feed(served, shown, 0.3)
        served.find(100)
        shown.next("annotation")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_is_said_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with serving(folder) as served, page(served.port) as shown:
        feed(served, shown, 0.3)
        shown.send("correct", **a_box(0.1, 0.2))
        shown.next("annotation")
        shown.send("save", seconds=1)
        served.server.end("over")
        assert str(folder) in shown.next("error")["message"]
    assert served.saver.lost == 1
    assert not served.saver.written


def test_a_sender_that_begins_anew_is_another_stretch_of_time(tmp_path: Path) -> None:
    """Boxes from before have the same positions, and are not of these samples."""
    with serving(tmp_path) as served, page(served.port) as shown:
        feed(served, shown, 0.6)
        served.find(round(0.1 * RATE))
        shown.next("annotation")
        served.stretches = 0
        served.feed(10)
        served.find(round(0.2 * RATE), label="NR")
        assert shown.next("annotation")["time_start"] == pytest.approx(0.8)
        served.server.end("over")
        shown.send("save", seconds=10)
        told = saved(shown, "recording")
        opened = open_recording(told["path"], verify=True)
        assert opened.sample_count == 10 * STRETCH
        assert labels(told["path"]) == ["NR"]
