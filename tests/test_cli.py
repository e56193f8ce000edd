# SPDX-License-Identifier: Apache-2.0
"""The command line as its user meets it: in a process of its own, with good and with bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf
import zmq
from rich.console import Console

from rfvit_rt import cli, run, session
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.errors import OutputError
from rfvit_rt.models import default_model
from rfvit_rt.outputs import Outputs
from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, Tag, encode_stream_message
from rfvit_rt.wire.results import Status, decode

from .ports import free_port

EXAMPLE = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
PATIENCE = 50  # seconds until a test gives up what it waits for


def rfvit(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*RFVIT, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=os.environ | environment
    )


def segment(recording: Path, **outputs: Any) -> None:
    """What `rfvit segment` does, in this process, which is quicker."""
    session.segment_recording(recording, None, session.Options(), Outputs(Console(), **outputs))


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`rfvit` running beside the test, and gone after it."""
    command = [*RFVIT, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that says what is wrong, no traceback, exit status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    return tmp_path / EXAMPLE.name


@pytest.fixture
def sender(port: int) -> Iterator[zmq.Socket[bytes]]:
    """A PUSH socket that listens; what it sends waits for a reader, but not for ever."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.sndtimeo = PATIENCE * 1000
        socket.bind(f"tcp://127.0.0.1:{port}")
        yield socket


@pytest.fixture
def port() -> int:
    return free_port()


def test_help_and_version_answer() -> None:
    assert "segment" in rfvit("--help").stdout
    assert "zmq+pull" in rfvit("segment", "--help").stdout
    assert rfvit("--version").stdout.startswith("rfvit-rt ")
    assert "spectrum-small" in rfvit("models").stdout


def test_segment_writes_everything_that_was_asked_for(example: Path, tmp_path: Path) -> None:
    done = rfvit("segment", example, "--jsonl", tmp_path / "a.jsonl", "--png", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    for word in ("LTE", "NR", "Lost samples: 0", "Achieved rate", "Sample age: p50", "Engine: OpenVINO"):
        assert word in done.stdout
    output = tmp_path / "lte_nr_20MHz.rfvit.sigmf-meta"
    recording = sigmf.fromfile(output)
    recording.validate()
    found = [a for a in recording.get_annotations() if "rfvit:model" in a]
    lines = [decode(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert len([line for line in lines if hasattr(line, "sample_start")]) == len(found) < len(lines)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert len(recording.read_samples(count=10)) == 10  # it points at the same data


def found_in(example: Path, label: str) -> list[dict[str, Any]]:
    """What the model finds there: LTE is at 2132.75 to 2137.25 MHz, and NR at 2138.32 to 2147.68 MHz from 50 ms on."""
    assert rfvit("segment", example).returncode == 0
    metadata = json.loads(example.with_name("lte_nr_20MHz.rfvit.sigmf-meta").read_text())
    return [a for a in metadata["annotations"] if "rfvit:model" in a and a["core:label"] == label]


def test_the_examples_lte_is_where_it_is(example: Path) -> None:
    lte = found_in(example, "LTE")
    assert sum(a["core:sample_count"] for a in lte) > 0.9 * 3_000_000
    for annotation in lte:
        assert annotation["core:freq_lower_edge"] == pytest.approx(2132.75e6, abs=0.4e6)
        assert annotation["core:freq_upper_edge"] == pytest.approx(2137.25e6, abs=0.4e6)


def test_the_examples_nr_is_where_it_is(example: Path) -> None:
    nr = found_in(example, "NR")
    assert all(a["core:sample_start"] > 0.99 * 1_000_000 for a in nr)  # it comes on the air at 50 ms
    for annotation in nr:
        assert annotation["core:freq_lower_edge"] > 2137.9e6
        assert annotation["core:freq_upper_edge"] < 2148.1e6
    long = [a for a in nr if a["core:sample_count"] > 0.01 * 20e6]
    assert sum(a["core:sample_count"] for a in long) > 0.5 * 2_000_000  # it comes in bursts
    for annotation in long:
        lower, upper = annotation["core:freq_lower_edge"], annotation["core:freq_upper_edge"]
        shared = min(upper, 2147.68e6) - max(lower, 2138.32e6)
        assert shared / (max(upper, 2147.68e6) - min(lower, 2138.32e6)) > 0.7


def test_nothing_is_overwritten_unless_asked(example: Path) -> None:
    output = example.with_name("lte_nr_20MHz.rfvit.sigmf-meta")
    output.write_text("mine")
    check_refused(rfvit("segment", example), str(output), "--overwrite")
    assert output.read_text() == "mine"
    assert rfvit("segment", example, "--overwrite").returncode == 0
    check_refused(rfvit("segment", example, "--output", example, "--overwrite"), "never overwritten")


def test_a_reader_that_leaves_ends_a_stream_and_loses_nothing(
    port: int, sender: zmq.Socket[bytes], tmp_path: Path
) -> None:
    """As ``rfvit segment zmq+pull://… --output … | head -1`` has it."""
    output, png = tmp_path / "band.sigmf-meta", tmp_path / "band.png"
    arguments = [
        "--sample-rate",
        "20e6",
        "--frequency",
        "816e6",
        "--idle-timeout",
        "0",
        "--output",
        output,
        "--png",
        png,
    ]
    samples = np.fromfile(EXAMPLE.with_suffix(".sigmf-data"), np.int8).astype(np.float32).view(np.complex64) / 128
    with started("segment", f"zmq+pull://127.0.0.1:{port}", *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        stdout = process.stdout
        head = threading.Thread(target=lambda: (stdout.readline(), stdout.close()))
        head.start()
        while process.poll() is None:
            with suppress(zmq.Again):
                for start in range(0, len(samples), 20_000):
                    sender.send(samples[start : start + 20_000].tobytes(), zmq.NOBLOCK)
            time.sleep(0.01)
        head.join()
        assert process.stderr.read() == ""
        assert process.returncode == 0
    assert json.loads(output.read_text())["annotations"]
    assert png.is_file()


def test_jsonl_to_standard_output_is_only_json(example: Path) -> None:
    done = rfvit("segment", example, "--jsonl", "-")
    assert done.returncode == 0
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} == {"annotation", "emission", "status"}
    assert "Lost samples" in done.stderr


def test_emissions_that_are_let_go_are_written_and_said(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "EmissionTracker", partial(EmissionTracker, most=1))
    segment(example, jsonl=str(tmp_path / "a.jsonl"))
    found = [decode(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    emissions = [result for result in found if isinstance(result, Emission)]
    assert len(emissions) > 1
    assert sum(e.burst_count for e in emissions) == sum(isinstance(result, Annotation) for result in found)
    assert f"Emissions let go: {len(emissions) - 1} of {len(emissions)}, " in capsys.readouterr().out


def test_bad_recordings_are_refused(example: Path, tmp_path: Path) -> None:
    check_refused(rfvit("segment", tmp_path / "missing.sigmf-meta"), "missing")
    data = example.with_suffix(".sigmf-data")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    check_refused(rfvit("segment", example), "lte_nr_20MHz")
    data.unlink()
    check_refused(rfvit("segment", example), "lte_nr_20MHz")
    example.write_text("{")
    check_refused(rfvit("segment", example), "JSON")
    assert not list(tmp_path.glob("*.rfvit.*"))


def test_a_rate_outside_the_model_is_refused(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "slow", np.zeros(50_000, np.complex64), 250e3)
    check_refused(rfvit("segment", recording, "--jsonl", tmp_path / "slow.jsonl"), "0.25 MS/s", "resample")
    assert {path.name for path in tmp_path.iterdir()} == {"slow.sigmf-meta", "slow.sigmf-data"}


def test_not_a_number_keeps_what_came_before(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((400_000, 2), np.float32).view(np.complex64)[:, 0]
    samples[300_000] = np.nan
    recording = write_recording(tmp_path / "nan", samples, 2e6)
    done = rfvit("segment", recording)
    check_refused(done, "sample 300000")
    assert (tmp_path / "nan.rfvit.sigmf-meta").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zmq+pull://127.0.0.1:1"], ["--sample-rate"]),
        (["zmq+push://127.0.0.1:5555"], ["zmq+pull"]),
        (["tcp://127.0.0.1:5555", "--sample-rate", "2e6"], ["zmq+pull", "zmq+sub", "zmq+req"]),
        (["zmq://[::1]:5555"], ["zmq+pull"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--duration", "nan"], ["--duration", "positive"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--duration", "inf"], ["--duration", "positive"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--duration=-1"], ["--duration", "positive"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "1e3"], ["0.001 MS/s", "resample"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--idle-timeout", "-1"], ["idle_timeout"]),
        (["zmq+pull://127.0.0.1:5555", "--sample-rate", "2e6", "--output", "x.json"], ["x.json", ".sigmf-meta"]),
        ([EXAMPLE, "--sample-rate", "2e6"], ["--sample-rate", "recording"]),
        ([EXAMPLE, "--model", "no-such"], ["no-such", "spectrum-small"]),
        ([EXAMPLE, "--engine", "abacus", "--output", "/dev/shm/x.sigmf-meta"], ["abacus", "openvino"]),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], words: list[str]) -> None:
    check_refused(rfvit("segment", *arguments), *words)


def test_a_failed_run_leaves_files_alone(example: Path, tmp_path: Path, port: int) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text("mine")
    written = ["--jsonl", old, "--png", tmp_path / "new.png", "--overwrite"]
    silent = [f"zmq+pull://127.0.0.1:{port}", "--sample-rate", "2e6", "--idle-timeout", "0.2"]
    for arguments in (["typo"], [str(example), "--model", "no-such"], [str(example), "--engine", "abacus"], silent):
        check_refused(rfvit("segment", *arguments, *written))
    assert old.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {example.name, f"{example.stem}.sigmf-data", "old.jsonl"}


def test_outputs_never_replace_what_is_read_or_each_other(example: Path, tmp_path: Path) -> None:
    data, link = example.with_suffix(".sigmf-data"), tmp_path / "link"
    link.symlink_to(data)
    before = data.read_bytes(), example.read_bytes()
    for taken in (example, data, link, example.with_name("lte_nr_20MHz.rfvit.sigmf-meta")):
        with pytest.raises(OutputError, match=rf"--jsonl {re.escape(str(taken))} is .*; name another file"):
            segment(example, jsonl=str(taken), overwrite=True)
    with pytest.raises(OutputError, match="name two"):
        segment(example, jsonl=str(tmp_path / "x.png"), png=tmp_path / "x.png")
    with pytest.raises(OutputError, match="there is no folder"):
        segment(example, png=tmp_path / "no" / "x.png")
    with pytest.raises(OutputError, match="is read"):
        segment(example, jsonl=str(default_model().path), overwrite=True)
    assert (data.read_bytes(), example.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 3


def test_too_few_samples_are_an_error(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "short", np.ones(100, np.complex64), 2e6)
    check_refused(rfvit("segment", recording, "--jsonl", tmp_path / "short.jsonl"), "100 samples", "time step")
    assert len(list(tmp_path.iterdir())) == 2


def test_annotations_that_cannot_be_written_cost_nothing_else(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program makes the file while the model runs: it is kept, and all other outputs come."""
    target = example.with_name("lte_nr_20MHz.rfvit.sigmf-meta")

    def appears(*arguments: Any) -> ModelFile:
        target.write_text("theirs")
        return default_model()

    monkeypatch.setattr(session, "default_model", appears)  # called after the first check of the output
    with pytest.raises(OutputError, match="exists"):
        segment(example, jsonl=str(tmp_path / "a.jsonl"), png=tmp_path / "a.png")
    assert target.read_text() == "theirs"
    assert (tmp_path / "a.png").exists()
    assert "status" in (tmp_path / "a.jsonl").read_text()
    assert "Lost samples" in capsys.readouterr().out


def test_brackets_are_no_markup_and_plain_terminals_do(example: Path, tmp_path: Path) -> None:
    """The names hold what a terminal would read as markup and what an ASCII one cannot show."""
    folder = tmp_path / "[/red] :smile: \u00fc"
    folder.mkdir(parents=True)
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(example.with_suffix(suffix), folder)
    done = rfvit("segment", folder / example.name, "--png", folder / "a.png", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    shown = str(folder).replace("\u00fc", "\\xfc")
    assert f"Picture: {shown}/a.png\n" in done.stdout  # in one line, however long
    assert done.stdout.isascii()
    assert rfvit("models", PYTHONIOENCODING="ascii").returncode == 0


def test_the_short_digest_is_whole_on_a_narrow_terminal() -> None:
    assert re.search(r"\b[0-9a-f]{12}\b", rfvit("models", COLUMNS="80").stdout)


def test_accuracy_that_nothing_could_be_measured_for() -> None:
    metrics = {"by_snr_db": {"-5": {"miou": None}, "10": {"miou": 0.512}}}
    assert cli._accuracy(metrics) == "none at -5 dB\n0.51 at 10 dB"
    assert cli._accuracy({"accuracy": {"unseen session": 0.563}}) == "0.56 unseen session"


def test_a_restarted_sender_is_reported(port: int, sender: zmq.Socket[bytes]) -> None:
    url = f"zmq+pull://127.0.0.1:{port}?sample_rate=2e6&sample_count=400000"
    with started("segment", url, "--tags") as process:
        for start in (0, 100_000, 0, 100_000):
            message = StreamMessage(np.full(100_000, 0.1, np.complex64), start, ())
            sender.send_multipart(encode_stream_message(message, StreamFormat(tags=True)))
        done = ended(process)
    assert done.returncode == 0, done.stderr
    assert "Restarts of the sender: 1;" in done.stdout
    assert "Lost samples: 0 " in done.stdout


def test_radio_losses_are_those_of_what_was_read(tmp_path: Path) -> None:
    """The run fails between two losses: only the first was met."""
    samples = np.random.default_rng(0).standard_normal((1_600_000, 2), np.float32).view(np.complex64)[:, 0]
    samples[700_000] = np.nan
    recording = write_recording(tmp_path / "lossy", samples, 2e6)
    metadata = json.loads(recording.read_text())
    metadata["captures"] = [
        {"core:sample_start": start, "core:global_index": start + lost}
        for start, lost in ((0, 0), (300_000, 1000), (1_500_000, 8000))
    ]
    recording.write_text(json.dumps(metadata))
    done = rfvit("segment", recording)
    check_refused(done, "sample 700000")
    assert "in the radio 1,000," in done.stdout


def test_the_report_counts_no_waiting(port: int, sender: zmq.Socket[bytes], tmp_path: Path) -> None:
    """A sender that comes late: the status at the end, and the printed rate, count from its first sample."""
    lines = tmp_path / "late.jsonl"
    options = ["--sample-rate", "2e6", "--duration", "2.5", "--idle-timeout", "0", "--jsonl", str(lines)]
    begun = time.monotonic()
    with started("segment", f"zmq+pull://127.0.0.1:{port}", *options) as process:
        samples = np.random.default_rng(0).standard_normal(100_000, np.float32).tobytes()
        time.sleep(6)
        waited = time.monotonic() - begun
        for _ in range(100):
            sender.send(samples)
        done = ended(process)
        passed = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    elapsed = re.search(r"\(5,000,000 samples, \d+ windows, ([0-9.]+) s\)", done.stdout)
    assert elapsed, done.stdout
    assert float(elapsed[1]) <= passed - waited
    busy = re.search(r"cores busy: ([0-9.]+)", done.stdout)
    assert busy
    assert 0 < float(busy[1]) <= (os.cpu_count() or 1) * 1.1
    found = [decode(line) for line in lines.read_bytes().splitlines()]
    statuses = [result for result in found if isinstance(result, Status)]
    assert [status.position // 2_000_000 for status in statuses] == [1, 2, 2]  # 1 s, 2 s, the end
    assert found[-1] == statuses[-1]
    assert statuses[-1].position == 5_000_000
    assert statuses[-1].achieved_rate == pytest.approx(5e6 / float(elapsed[1]), rel=0.02)
    assert statuses[-1].sample_age is not None
    assert statuses[-1].transport_lost == statuses[-1].dropped == 0


def test_a_silent_stream_and_a_port_in_use(port: int) -> None:
    url = f"zmq+pull://127.0.0.1:{port}"
    check_refused(rfvit("segment", url, "--sample-rate", "2e6", "--idle-timeout", "1"), str(port))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        check_refused(rfvit("segment", url, "--sample-rate", "2e6", "--bind"), str(port), "uses this port")
        check_refused(rfvit("segment", EXAMPLE, "--publish", f"tcp://127.0.0.1:{port}"), str(port), "in use")


def test_a_sender_of_another_format_is_named(port: int, sender: zmq.Socket[bytes]) -> None:
    with started("segment", f"zmq+pull://127.0.0.1:{port}", "--tags") as process:
        sender.send(b"hello, I am not samples")
        check_refused(ended(process), "--no-tags")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_live_stream_ends_cleanly(
    port: int, sender: zmq.Socket[bytes], tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    """A tagged stream that stops in mid-air: Ctrl-C writes what was found, the report counts the loss exactly."""
    lines = tmp_path / "live.jsonl"
    samples = np.fromfile(EXAMPLE.with_suffix(".sigmf-data"), np.int8).astype(np.float32).view(np.complex64)
    tags = (Tag(0, "rx_rate", 20e6), Tag(0, "rx_freq", 2.14e9))
    url = f"zmq+pull://127.0.0.1:{port}"
    with started("segment", url, "--tags", "--idle-timeout", "1000", "--jsonl", lines) as process:
        for start in range(0, 2_800_000, 8000):
            if start == 800_000:
                continue  # one message is lost; two windows later, the boxes before it are given out
            message = StreamMessage(samples[start : start + 8000], start, tags if start == 0 else ())
            sender.send_multipart(encode_stream_message(message, StreamFormat(tags=True)))
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        process.send_signal(signum)
        done = ended(process)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Lost samples: 8,000 (on the way 8,000," in done.stdout
    found = [decode(line) for line in lines.read_bytes().splitlines()]
    starts = [(a.sample_start, a.sample_start + a.sample_count) for a in found if hasattr(a, "sample_start")]
    assert starts
    assert not any(start < 800_000 < end for start, end in starts)  # no box reaches over the gap


@pytest.mark.usefixtures("gnuradio_python")
def test_ctrl_c_in_a_replay_keeps_what_was_found(example: Path, tmp_path: Path) -> None:
    """Retuned all the time, so that boxes end and are given out while the replay goes on."""
    retuned = json.loads(example.read_text())
    retuned["captures"] = [
        {"core:sample_start": 250_000 * number, "core:frequency": (2.14e9, 2.24e9)[number % 2]} for number in range(12)
    ]
    example.write_text(json.dumps(retuned))
    lines = tmp_path / "replay.jsonl"
    with started("replay", example, "--speed", "0.02", "--jsonl", lines) as process:
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^Flowgraph: [0-9.]+ s of processor time", done.stdout, re.MULTILINE)
    metadata = json.loads(example.with_name("lte_nr_20MHz.rfvit.sigmf-meta").read_text())
    kept = [(a["core:sample_start"], a["core:sample_count"]) for a in metadata["annotations"] if "rfvit:model" in a]
    found = [decode(line) for line in lines.read_bytes().splitlines()]
    assert sorted(kept) == sorted((a.sample_start, a.sample_count) for a in found if hasattr(a, "sample_start"))
    assert all(start + count < 3_000_000 for start, count in kept)  # it did not run to its end
