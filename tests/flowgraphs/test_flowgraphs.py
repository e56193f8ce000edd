# SPDX-License-Identifier: Apache-2.0
"""The flowgraphs as their user meets them: made by grcc, started by hand, with a real rfvit at the other end."""

from __future__ import annotations

import ast
import importlib.util
import itertools
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
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zmq
from rich.console import Console

from rfvit_rt import session
from rfvit_rt.outputs import Outputs
from rfvit_rt.running import Options
from rfvit_rt.sources.csi import open_csi

from ..ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "flowgraphs"
EXAMPLE = FOLDER / "recordings" / "lte_nr_20MHz.sigmf-meta"
NAMES = sorted(path.stem for path in FOLDER.glob("*.grc"))
RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
PATIENCE = 50  # seconds until a test gives up what it waits for
NEWER_THAN_3_10_1 = ("drop_on_hwm", "bind=")  # arguments that GNU Radio 3.10.1 does not have


# ---- what is committed ----


@pytest.fixture(scope="module")
def built(gnuradio_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What GNU Radio's own compiler makes of the graphs, and their pictures."""
    if shutil.which("grcc") is None:
        pytest.skip("grcc is not installed")
    output = tmp_path_factory.mktemp("built")
    command = [gnuradio_python, FOLDER / "build.py", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def without_version(text: str) -> str:
    return re.sub(r"^# GNU Radio version: .*$", "", text, flags=re.MULTILINE)


def test_there_are_all_that_the_readme_names() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(\w+)\.grc`\]", readme, re.MULTILINE)) == set(NAMES)
    for name in NAMES:
        assert f"pictures/{name}.svg" in readme


@pytest.mark.parametrize("name", NAMES)
def test_the_python_is_what_grcc_makes_of_the_graph(built: Path, name: str) -> None:
    committed = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert without_version((built / f"{name}.py").read_text(encoding="utf-8")) == without_version(committed)
    for argument in NEWER_THAN_3_10_1:
        assert argument not in committed


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_of_the_graph(built: Path, name: str) -> None:
    picture = (built / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
    assert picture == (FOLDER / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
    python = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    connections = len(re.findall(r"self\.(?:msg_)?connect\(", python))
    assert picture.count("<path") == connections > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_explains_itself(name: str) -> None:
    python = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(python)
    assert re.search(r"^# Description: .{20,}\.$", python, re.MULTILINE)
    helps = [
        keyword.value.left.value if isinstance(keyword.value, ast.BinOp) else keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for keyword in node.keywords
        if keyword.arg == "help"
    ]
    assert helps
    for text in helps:
        assert len(text.split()) > 3, text  # more than "Set name [default=…]"
    if name != "csi_udp":
        assert "--endpoint" in python


def test_simulated_graphs_mark_what_they_send() -> None:
    for name in NAMES:
        python = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert ("simulated" in name) == ('pmt.intern("simulated")' in python) == ("SIMULATED" in python)


# ---- running ----


def environment() -> dict[str, str]:
    paths = [FOLDER, REPOSITORY / "gr_blocks" / "python", REPOSITORY]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "QT_QPA_PLATFORM": "offscreen"}


@contextmanager
def flowgraph(python: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One of the flowgraphs, started as a user starts it, and gone after the test."""
    command = [str(python), "-u", str(FOLDER / f"{name}.py"), *arguments]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def rfvit(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [*RFVIT, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def results(path: Path) -> list[dict[str, Any]]:
    """Whole lines so far."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def annotations(path: Path) -> list[dict[str, Any]]:
    return [result for result in results(path) if result["type"] == "annotation"]


def segment_stream(url: str, lines: Path, duration: float | None, **options: Any) -> None:
    outputs = Outputs(Console(), jsonl=str(lines), overwrite=True)
    session.segment_stream(url, options, duration, Options(threads=2), outputs)


HELP = """
import runpy, sys
for path in sys.argv[1:]:
    print("graph", path, flush=True)
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        assert not end.code
    except ImportError as error:
        print(error)
"""


def test_every_flowgraph_answers(gnuradio_python: Path) -> None:
    """In one process: starting Python and GNU Radio takes longer than all the rest."""
    command = [str(gnuradio_python), "-c", HELP, *(str(FOLDER / f"{name}.py") for name in NAMES)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("graph ")[1:]
    assert len(answers) == len(NAMES)
    for name, answer in zip(NAMES, answers, strict=True):
        if not re.search(
            r"No module named 'gnuradio\.(uhd|soapy|qtgui)|cannot import name '(uhd|soapy|qtgui)'", answer
        ):
            assert f"usage: {name}.py" in answer, answer
            assert "rfvit" in answer


def test_a_replay_gives_the_recordings_annotations(gnuradio_python: Path, tmp_path: Path) -> None:
    """Without loss, and to the last bit, through the graph as through the file."""
    direct, replayed = tmp_path / "direct.jsonl", tmp_path / "replayed.jsonl"
    outputs = Outputs(Console(), jsonl=str(direct), overwrite=True)
    session.segment_recording(EXAMPLE, tmp_path / "a.sigmf-meta", Options(threads=2), outputs)
    port = free_port()
    with flowgraph(gnuradio_python, "replay", f"--endpoint=tcp://127.0.0.1:{port}") as graph:
        segment_stream(f"zmq+pull://127.0.0.1:{port}", replayed, 0.15, tags=True, sample_rate=20e6)
        assert graph.wait(PATIENCE) == 0  # a recording has an end, and so has its flowgraph
    assert annotations(direct)
    assert annotations(replayed) == annotations(direct)


def test_a_graph_with_a_display_works_as_the_one_without(gnuradio_python: Path, tmp_path: Path) -> None:
    if subprocess.run([gnuradio_python, "-c", "from gnuradio import qtgui"], check=False, timeout=60).returncode:
        pytest.skip("GNU Radio has no gr-qtgui here")
    port, results_port, lines = free_port(), free_port(), tmp_path / "a.jsonl"
    arguments = [f"--endpoint=tcp://127.0.0.1:{port}", f"--results=tcp://127.0.0.1:{results_port}"]
    with flowgraph(gnuradio_python, "replay_gui", *arguments) as graph:
        segment_stream(f"zmq+pull://127.0.0.1:{port}", lines, 0.15, tags=True, sample_rate=20e6)
        graph.send_signal(signal.SIGTERM)
        assert graph.wait(PATIENCE) == 0
    assert {item["core:label"] for item in annotations(lines)} == {"LTE", "NR"}


def test_srsran_over_zeromq(gnuradio_python: Path, tmp_path: Path) -> None:
    """A base station and a UE that ask as srsRAN does: both ways arrive unchanged, and rfvit sees the downlink."""
    raw = np.fromfile(EXAMPLE.with_suffix(".sigmf-data"), np.int8).astype(np.float32) / 128
    downlink, uplink = raw.view(np.complex64), (raw[:200_000] + 0.25).view(np.complex64)
    ports = {name: free_port() for name in ("downlink_from", "downlink_to", "uplink_from", "uplink_to")}
    port, over = free_port(), threading.Event()
    heard: dict[str, np.ndarray] = {}
    arguments = [f"--{name.replace('_', '-')}=tcp://127.0.0.1:{number}" for name, number in ports.items()]
    with zmq.Context() as context:
        threads = [
            threading.Thread(target=serve, args=(context, ports["downlink_from"], downlink, over)),
            threading.Thread(target=serve, args=(context, ports["uplink_from"], uplink, over)),
            threading.Thread(target=ask, args=(context, ports["downlink_to"], heard, "downlink", over)),
            threading.Thread(target=ask, args=(context, ports["uplink_to"], heard, "uplink", over)),
        ]
        try:
            with flowgraph(
                gnuradio_python,
                "srsran",
                *arguments,
                f"--endpoint=tcp://127.0.0.1:{port}",
                "--sample-rate=20e6",
                "--frequency=2.14e9",
            ):
                for thread in threads:
                    thread.start()
                lines = tmp_path / "a.jsonl"
                segment_stream(f"zmq+sub://127.0.0.1:{port}", lines, 0.15, tags=True, sample_rate=20e6)
                wait_until(lambda: all(len(heard.get(way, ())) > 100_000 for way in ("downlink", "uplink")))
        finally:
            over.set()
            for thread in threads:
                thread.join()
    for way, sent in (("downlink", downlink), ("uplink", uplink)):
        repeated = np.resize(sent, len(heard[way]))
        np.testing.assert_array_equal(heard[way], repeated)
    found = annotations(lines)
    # What the model calls it, and where its edge lies, depends on where in the recording the stream was joined.
    carrier = [item for item in found if item["core:freq_lower_edge"] < 2.135e9 < item["core:freq_upper_edge"]]
    assert sum(item["core:sample_count"] for item in carrier) > 1_000_000
    assert all(item["core:frequency"] == 2.14e9 for item in found)


def serve(context: zmq.Context[Any], port: int, samples: np.ndarray, over: threading.Event) -> None:
    """The transmitting end of an srsRAN radio: a REP socket that answers every request with what is ready."""
    with context.socket(zmq.REP) as link:
        link.linger = 0
        link.bind(f"tcp://127.0.0.1:{port}")
        position = 0
        while not over.is_set():
            if link.poll(50):
                link.recv()
                link.send(np.take(samples, range(position, position + 9600), mode="wrap").tobytes())
                position += 9600
                time.sleep(0.003)  # a test beside others is no place for 20 MS/s


def ask(context: zmq.Context[Any], port: int, heard: dict[str, np.ndarray], way: str, over: threading.Event) -> None:
    """The receiving end: a REQ socket that asks with one byte."""
    with context.socket(zmq.REQ) as link:
        link.linger = 0
        link.connect(f"tcp://127.0.0.1:{port}")
        waiting = False
        while not over.is_set():
            if not waiting:
                link.send(b"\xff")
                waiting = True
            if link.poll(50):
                new = np.frombuffer(link.recv(), np.complex64)
                waiting = False
                if len(heard.get(way, ())) < 300_000:
                    heard[way] = np.concatenate([heard.get(way, new[:0]), new])


def test_a_simulated_band_is_announced_to_its_reader(
    gnuradio_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mark travels with the samples, so rfvit knows even where it did not start the flowgraph itself."""
    port, output = free_port(), tmp_path / "band.sigmf-meta"
    arguments = [f"--endpoint=tcp://127.0.0.1:{port}", "--sample-rate=5e6", "--frequency=2.135e9"]
    with flowgraph(gnuradio_python, "live_simulated", *arguments):
        options = {"tags": True, "sample_rate": 5e6}
        outputs = Outputs(Console())
        session.segment_stream(f"zmq+sub://127.0.0.1:{port}", options, 1.1, Options(threads=2), outputs, output)
    assert capsys.readouterr().out.count("SIMULATED") == 1
    document = json.loads(output.read_text())
    assert document["global"]["core:description"].startswith("SIMULATED")
    assert document["global"]["core:metadata_only"] is True
    assert [capture["core:frequency"] for capture in document["captures"]] == [2.135e9]


def test_csi_over_udp(gnuradio_python: Path) -> None:
    """Frames arrive as they were sent, in order; a packet that is none does no harm."""
    port, udp_port = free_port(), free_port(socket.SOCK_DGRAM)
    subcarriers = [k for k in range(-28, 29) if k]
    sent = np.random.default_rng(0).standard_normal((20, 2, 112), np.float32).view(np.complex64)
    arguments = [f"--port={udp_port}", "--antennas=2", "--device=mine", f"--endpoint=tcp://127.0.0.1:{port}"]
    over = threading.Event()
    with flowgraph(gnuradio_python, "csi_udp", *arguments), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send() -> None:
            while not over.wait(0.01):
                for frame in sent:
                    sender.sendto(frame.astype("<c8").tobytes(), ("127.0.0.1", udp_port))
                    sender.sendto(b"x" * 33, ("127.0.0.1", udp_port))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            with open_csi(f"zmq+sub://127.0.0.1:{port}", idle_timeout=PATIENCE) as frames:
                got = list(itertools.islice(frames, 40))
        finally:
            over.set()
            thread.join()
    assert {frame.device for frame in got} == {"mine"}
    np.testing.assert_array_equal(got[0].subcarriers, subcarriers)
    first = next(number for number, frame in enumerate(sent) if np.array_equal(frame, got[0].csi))
    for frame in got:
        # Where UDP or PUB lost some, the count says how many: frames are still what their number says.
        place = (first + frame.frame_index - got[0].frame_index) % len(sent)
        np.testing.assert_array_equal(frame.csi, sent[place])


# ---- killed ----


@pytest.fixture(scope="module")
def network_radio() -> Iterator[list[str]]:
    """Command line of the rtl_tcp flowgraph for a server with the example's LTE carrier, a light load for a test."""
    rtl_tcp = load_server()
    with rtl_tcp.RtlTcpServer(rtl_tcp.example_air(), rate=4e6) as server:
        yield [f"--port={server.port}", "--sample-rate=10e6", f"--frequency={rtl_tcp.LTE_CENTRE}"]


def test_rfvit_killed_and_started_again(gnuradio_python: Path, network_radio: list[str], tmp_path: Path) -> None:
    """The flowgraph goes on meanwhile; the second reader joins where it is by then, and knows what it reads."""
    port = free_port()
    url = f"zmq+sub://127.0.0.1:{port}"
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    arguments = [f"--endpoint=tcp://127.0.0.1:{port}", *network_radio]
    with flowgraph(gnuradio_python, "live_rtl_tcp", *arguments) as graph:
        with rfvit("segment", url, "--tags", "--idle-timeout", "40", "--jsonl", first) as reader:
            wait_until(lambda: annotations(first), reader, graph)
            reader.send_signal(signal.SIGKILL)
            reader.wait(PATIENCE)
        with rfvit("segment", url, "--tags", "--idle-timeout", "40", "--jsonl", second) as reader:
            wait_until(lambda: annotations(second), reader, graph)
            reader.send_signal(signal.SIGINT)
            output, errors = reader.communicate(timeout=PATIENCE)
        assert reader.returncode == 130, errors
        assert graph.poll() is None
        graph.send_signal(signal.SIGTERM)
        assert graph.wait(PATIENCE) == 0
        assert graph.stdout is not None
        said = graph.stdout.read()
    # Nobody says rate and frequency on the readers' command lines: the sink does, to whoever comes late.
    for found in (*annotations(first), *annotations(second)):
        assert (found["core:sample_rate"], found["core:frequency"]) == (10e6, 2.135e9)
    seen = max(a["core:sample_start"] + a["core:sample_count"] for a in annotations(first))
    assert min(a["core:sample_start"] for a in annotations(second)) > seen  # one count of samples, with a gap in it
    assert "Lost samples" in output
    assert re.search(r"nobody reads .* samples are dropped, from sample \d+ on", said)


@pytest.mark.parametrize("patience", ["1", "0"])
def test_a_flowgraph_that_is_killed_under_a_reader(
    gnuradio_python: Path, network_radio: list[str], tmp_path: Path, patience: str
) -> None:
    """With --idle-timeout the reader gives up and says why; told to wait, it takes up the flowgraph's second life."""
    port = free_port()
    lines = tmp_path / "a.jsonl"
    arguments = [f"--endpoint=tcp://127.0.0.1:{port}", *network_radio]
    options = ["--tags", "--sample-rate", "10e6", "--jsonl", lines]
    with flowgraph(gnuradio_python, "live_rtl_tcp", *arguments) as graph:
        # The first sample comes before the reader does; only then does its patience count.
        wait_until(lambda: listening(port), graph)
        with rfvit("segment", f"zmq+sub://127.0.0.1:{port}", *options, "--idle-timeout", patience) as reader:
            wait_until(lambda: annotations(lines), reader, graph)
            graph.kill()
            graph.wait(PATIENCE)
            if patience == "0":
                with flowgraph(gnuradio_python, "live_rtl_tcp", *arguments) as again:
                    wait_until(lambda: begun_anew(annotations(lines)), reader, again)
                    reader.send_signal(signal.SIGINT)
                    output, errors = reader.communicate(timeout=PATIENCE)
            else:
                output, errors = reader.communicate(timeout=PATIENCE)
    if patience == "0":
        assert reader.returncode == 130, errors
        assert "Restarts of the sender: 1;" in output
    else:
        assert reader.returncode == 1
        assert re.fullmatch(r"error: .*no samples for 1 s; .*\n", errors), errors
        assert "Lost samples" in output


def begun_anew(found: list[dict[str, Any]]) -> bool:
    """Whether a box starts far before the one that was given out just before it."""
    starts = [item["core:sample_start"] for item in found]
    return any(later < earlier - 1_000_000 for earlier, later in itertools.pairwise(starts))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load_server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rtl_tcp_server", Path(__file__).with_name("rtl_tcp_server.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
