# SPDX-License-Identifier: Apache-2.0
"""The page as its user meets it: `rfvit --web` in a process of its own, with real samples, engine and files."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from rfvit_rt.sources.recording import open_recording
from rfvit_rt.wire.csi import encode_csi
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, Tag, encode_stream_message

from ..csi_bytes import esp32_line
from ..csi_streams import channels, frames, make_model
from ..test_cli import EXAMPLE, PATIENCE, RFVIT, check_refused, rfvit
from .serving import end_of, page

DURATION = 0.15  # s of the example


@dataclass
class Running:
    """`rfvit` with a page."""

    process: subprocess.Popen[str]
    port: int = 0
    query: str = ""
    """What the page's address has besides the port."""
    before: str = ""
    """Output up to that address."""

    def stop(self, status: int) -> str:
        """Ctrl-C; returns the whole output."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGINT)
        output, errors = self.before + self.process.stdout.read(), self.process.stderr.read()
        assert self.process.wait(PATIENCE) == status, output + errors
        assert "Traceback" not in errors
        return output


@contextmanager
def shown(*arguments: str | Path, address: str = "127.0.0.1:0") -> Iterator[Running]:
    """`rfvit` with a page on a free port."""
    command = [*RFVIT, *map(str, arguments), "--web-address", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        running = Running(process)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                running.before += line
                if found := re.fullmatch(r"Page: http://[^/]+:(\d+)/(\?token=\S+)?\n", line):
                    running.port, running.query = int(found[1]), found[2] or ""
                    break
            assert running.port, process.stderr and process.stderr.read()
            yield running
        finally:
            process.kill()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    return tmp_path / EXAMPLE.name


def samples_of(path: str | Path) -> NDArray[np.complex64]:
    return np.concatenate([block.samples for block in open_recording(path, verify=True).blocks()])


def a_box(like: dict[str, Any], **values: Any) -> dict[str, Any]:
    names = ("id", "label", "time_start", "time_end", "freq_lower_edge", "freq_upper_edge")
    return {name: like[name] for name in names} | values


def test_a_recording_is_looked_at_corrected_and_saved(example: Path) -> None:
    with shown("segment", example) as run, page(run.port) as opened:
        opened.next("end")
        opened.send("view", columns=256, rows_per_second=6400, since=0)
        opened.until(lambda read: not isinstance(read, dict) and not len(read.power))
        opened.tiles.clear()
        opened.reach(DURATION)
        opened.seen("status", ended=True)
        hello, status = opened.messages[0], opened.of("status")[-1]
        assert (hello["task"], hello["title"], hello["duration"]) == ("segmentation", example.name, DURATION)
        assert (hello["recorded"], hello["frequency"], hello["n_bins"]) == (True, 2.14e9, 256)
        assert hello["simulated"]  # its description says so
        assert status["simulated"]
        assert "spectrum-small" in hello["model"]
        assert (status["position"], status["windows"], status["age"] is None) == (3_000_000, 5, False)
        assert sum(len(tile.power) for tile in opened.tiles) == round(DURATION * 6400)
        found = np.concatenate([tile.class_number for tile in opened.tiles])
        assert {1, 2} <= set(found.ravel().tolist())

        # The boxes are those of the file.
        annotations = open_recording(example.with_name("lte_nr_20MHz.rfvit.sigmf-meta")).metadata["annotations"]
        boxes = {box["sample_start"]: box for box in opened.of("annotation")}
        for annotation in annotations:
            if "rfvit:model" in annotation:
                box = boxes[annotation["core:sample_start"]]
                assert box["label"] == annotation["core:label"]
                assert box["freq_lower_edge"] == annotation["core:freq_lower_edge"]

        first = opened.of("annotation")[0]
        opened.send("correct", **a_box(first, label="radar", time_end=first["time_start"] + 0.01))
        told = opened.next("saved", kind="corrections")
        assert told["path"] == str(example.with_name("lte_nr_20MHz.corrected.sigmf-meta"))
        corrected = open_recording(told["path"], verify=True).metadata["annotations"]
        assert len(corrected) == told["count"] == len(boxes)
        (radar,) = [item for item in corrected if item["core:label"] == "radar"]
        assert (radar["core:sample_start"], radar["core:sample_count"]) == (first["sample_start"], 200_000)

        opened.send("save", seconds=0.1)
        saved = opened.next("saved", kind="recording")
        np.testing.assert_array_equal(samples_of(saved["path"]), samples_of(example)[-2_000_000:])

        output = run.stop(0)
    assert f"The run is over. The page stays at http://127.0.0.1:{run.port}/ until Ctrl-C." in output
    for path in (told["path"], saved["path"]):
        assert f"Saved from the page: {path}" in output


def test_what_was_corrected_is_what_training_reads(example: Path, tmp_path: Path) -> None:
    """The whole way: page, file, finetuning's data with [annotations.classes]."""
    pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
    from training.config import Annotations
    from training.recordings import LabelMap, annotated_labels, find_recordings

    folder = tmp_path / "corrected"
    folder.mkdir()
    with shown("segment", example, "--save-dir", folder) as run, page(run.port) as opened:
        opened.next("end")
        opened.next("status")
        for box in opened.of("annotation"):
            if box["label"] == "NR":
                opened.send("delete", id=box["id"])
        drawn = {"time_start": 0.02, "time_end": 0.04, "freq_lower_edge": 2.142e9, "freq_upper_edge": 2.144e9}
        opened.send("correct", id=None, label="WLAN", **drawn)
        opened.next("saved", kind="corrections")
        run.stop(0)
    found = find_recordings(folder, pytest.fail)
    assert list(found) == ["lte_nr_20MHz.corrected.sigmf-meta"]
    (recording,) = found.values()
    assert set(annotated_labels(recording)) == {"LTE", "WLAN"}
    label_map = LabelMap(Annotations({"LTE": ["LTE"], "WLAN": ["WLAN", "Wi-?Fi"]}))
    assert [label_map.value(label) for label in sorted(set(annotated_labels(recording)))] == [1, 2]


def test_a_replay_through_gnu_radio(example: Path, gnuradio_python: Path) -> None:
    with shown("replay", example, "--speed", "0") as run, page(run.port) as opened:
        opened.next("end")
        opened.send("view", columns=256, rows_per_second=200)
        opened.reach(DURATION)
        opened.send("save", seconds=10)
        told = opened.next("saved", kind="recording")
        assert "0.15 s were held, of the 10 s asked for" in told["message"]
        np.testing.assert_array_equal(samples_of(told["path"]), samples_of(example))
        assert "From a recording" in open_recording(told["path"]).metadata["global"]["core:description"]
        assert opened.of("hello")[0]["recorded"] is not False
        run.stop(0)


@pytest.fixture
def sender() -> Iterator[tuple[zmq.Socket[bytes], str]]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.linger = 0
        push.sndtimeo = PATIENCE * 1000
        port = push.bind_to_random_port("tcp://127.0.0.1")
        yield push, f"zmq+pull://127.0.0.1:{port}"


def test_a_live_stream(sender: tuple[zmq.Socket[bytes], str], tmp_path: Path) -> None:
    rate, size, count, lost = 2e6, 20_000, 200, 60
    samples = np.random.default_rng(2).standard_normal((size * count, 2), np.float32).view(np.complex64)[:, 0]
    tags = (Tag(0, "rx_rate", rate), Tag(0, "rx_freq", 8e8), Tag(0, "simulated", True))
    socket, url = sender
    with shown("segment", url, "--tags", "--save-dir", tmp_path) as run, page(run.port) as opened:
        hello = opened.messages[0]
        assert (hello["sample_rate"], hello["frequency"], hello["title"]) == (None, None, url)
        for number in range(count):
            if number == lost:
                continue
            message = StreamMessage(samples[number * size : (number + 1) * size], number * size, () if number else tags)
            socket.send_multipart(encode_stream_message(message, StreamFormat(tags=True)))
        opened.send("view", columns=64, rows_per_second=100)
        opened.reach(1.8)
        status = opened.seen("status", lost={"transport": size, "radio": 0, "dropped": 0, "unusable": 0})
        assert (status["sample_rate"], status["frequency"]) == (rate, 8e8)
        assert (status["recorded"], status["simulated"], status["ended"]) == (False, True, False)
        assert status["windows_per_second"] > 0
        # Time that was lost is covered by no tile.
        starts = np.array([tile.time_start for tile in opened.tiles])
        ends = starts + [len(tile.power) * tile.row_seconds for tile in opened.tiles]
        assert np.isclose(starts[1:] - ends[:-1], size / rate, rtol=0.2).sum() == 1
        drawn = {"time_start": 0.5, "time_end": 0.7, "freq_lower_edge": 7.999e8, "freq_upper_edge": 8.001e8}
        opened.send("correct", id=None, label="NR", **drawn)
        opened.next("annotation", origin="drawn")
        with page(run.port) as late:
            assert late.messages[0]["sample_rate"] == rate
        output = run.stop(130)
        opened.next("end")
    assert "stays" not in output  # the page of a live stream ends with it
    # What nobody saved but somebody corrected is there all the same, with the loss where it was.
    (meta,) = tmp_path.glob("*.corrected.sigmf-meta")  # by which training knows that a person has seen the boxes
    assert f"Saved from the page: {meta} " in output
    recording = open_recording(meta, verify=True)
    np.testing.assert_array_equal(
        samples_of(meta), np.concatenate([samples[: lost * size], samples[(lost + 1) * size :]])
    )
    assert [item["core:global_index"] for item in recording.metadata["captures"]] == [0, (lost + 1) * size]
    own = [item for item in recording.metadata["annotations"] if item.get("rfvit:origin") == "drawn"]
    assert [(item["core:sample_start"], item["core:sample_count"]) for item in own] == [
        (1_000_000, 200_000),
        (lost * size, 180_000),
    ]
    assert "SIMULATED" in recording.metadata["global"]["core:description"]


def test_sensing_live_and_from_a_file(sender: tuple[zmq.Socket[bytes], str], tmp_path: Path) -> None:
    model = make_model(tmp_path / "motion.onnx")
    csi = channels([False, True, False, False], 2.4)
    socket, url = sender
    arguments = ["sense", url, "--threads", "1", "--hop", "0.4", "--model", model.path]
    with shown(*arguments) as run, page(run.port) as opened:
        hello = opened.messages[0]
        assert (hello["task"], hello["labels"]) == ("activity", ["unknown", "still", "moving"])
        assert (hello["can_save"], hello["can_correct"]) == (False, False)
        for frame in frames(csi):
            socket.send(encode_csi(frame))
        opened.send("view", columns=64, rows_per_second=20)
        answers = [opened.next("answer") for _ in range(8)]
        assert {answer["label"] for answer in answers} >= {"still", "moving"}
        opened.reach(9.0)
        while len(opened.of("activity")) < 2:
            opened.next("activity")
        assert [interval["label"] for interval in opened.of("activity")][:2] == ["still", "moving"]
        assert opened.tiles[-1].power.shape[1] == 53  # from -26 to 26
        covered = sum(len(tile.power) * tile.row_seconds for tile in opened.tiles)
        assert covered == pytest.approx(end_of(opened.tiles[-1]))
        assert opened.seen("status", position=len(csi))["lost"]["lost"] == 0
        run.stop(130)


def test_sensing_from_a_file(tmp_path: Path) -> None:
    """A real parser, and the model that ships."""
    rng = np.random.default_rng(4)
    lines = [esp32_line(rng.integers(-60, 60, 128), sequence=number, clock=20_000 * number) for number in range(1000)]
    capture = tmp_path / "capture.csv"
    capture.write_bytes(b"".join(lines))
    with shown("sense", capture) as run, page(run.port) as opened:
        opened.seen("end")
        opened.send("view", columns=64, rows_per_second=20)
        opened.reach(19.0)
        assert opened.seen("status", ended=True)["recorded"]
        assert opened.of("activity")
        output = run.stop(0)
    assert "The run is over. The page stays at" in output
    assert "RECORDED" in output


def test_what_is_open_to_others_says_so_and_takes_a_token(example: Path) -> None:
    with shown("segment", example, address="0.0.0.0:0") as run:
        assert run.query.startswith("?token=")
        with page(run.port, run.query) as opened:
            opened.next("end")
        output = run.stop(0)
    assert "open to other machines" in output
    assert "Nothing is encrypted" in output


def test_what_cannot_be_served_is_one_line(example: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        check_refused(rfvit("segment", example, "--web-address", port), port, "in use", "--web-address")
    for address in ("nowhere:", ""):
        check_refused(rfvit("segment", example, "--web-address", address), "--web-address", "HOST:PORT")
    check_refused(rfvit("segment", example, "--web", "--save-dir", tmp_path / "no" / "ne"), "no folder", "--save-dir")
    check_refused(rfvit("segment", example, "--save-dir", tmp_path), "--save-dir", "--web")
    assert not example.with_name("lte_nr_20MHz.rfvit.sigmf-meta").exists()


@pytest.mark.parametrize("command", ["segment", "replay", "live", "sense"])
def test_help_says_where_the_page_is_and_when_it_ends(command: str) -> None:
    text = " ".join(rfvit(command, "--help", COLUMNS="200").stdout.split())
    for words in ("--web", "http://127.0.0.1:8470", "until Ctrl-C", "token"):
        assert words in text


def test_without_a_page_no_web_server_is_imported(example: Path) -> None:
    code = "import sys; from rfvit_rt.cli import main; main(); assert 'uvicorn' not in sys.modules"
    command = [sys.executable, "-c", code, "segment", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
