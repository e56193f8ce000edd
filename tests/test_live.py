# SPDX-License-Identifier: Apache-2.0
"""`rfvit live`: the flowgraph it starts, what comes of it, and that nothing is left behind, however it ends."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sigmf
from rich.console import Console
from typer.testing import CliRunner

from rfvit_rt.cli import app
from rfvit_rt.errors import SpecMismatch, StreamError
from rfvit_rt.live import HopPlan, Radio, flowgraph_for, parse_hops, segment_radio
from rfvit_rt.outputs import Outputs
from rfvit_rt.running import Options

RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
PATIENCE = 50  # seconds until a test gives up what it waits for
RATE = 10e6


def load_server() -> ModuleType:
    path = Path(__file__).parent / "flowgraphs" / "rtl_tcp_server.py"
    spec = importlib.util.spec_from_file_location("rtl_tcp_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rtl_tcp = load_server()
RtlTcpServer, LTE_CENTRE, NR_CENTRE = rtl_tcp.RtlTcpServer, rtl_tcp.LTE_CENTRE, rtl_tcp.NR_CENTRE


# ---- what the options mean ----


def test_hops() -> None:
    assert parse_hops("700e6:900e6:50e6") == (700e6, 750e6, 800e6, 850e6, 900e6)
    assert parse_hops("1e9:1e9:1e6") == (1e9,)
    assert parse_hops("0.7e9:0.7003e9:0.1e6") == pytest.approx((700e6, 700.1e6, 700.2e6, 700.3e6))
    assert parse_hops("806e6, 2.14e9") == (806e6, 2.14e9)
    for text in ("", "700", "7:8", "9:8:1", "1:2:0", "1:2:-1", "a", "1,nan", "-1,5", "1:inf:1"):
        if text != "700":
            with pytest.raises(StreamError, match="--hop"):
                parse_hops(text)
    with pytest.raises(StreamError, match="at most 100000"):
        parse_hops("0:1e9:1")


def test_devices_and_their_flowgraphs() -> None:
    def command(device: str, plan: HopPlan | None = None, **settings: Any) -> tuple[str, str]:
        name, arguments = flowgraph_for(Radio(device, 806e6, 2.4e6, **settings), plan)
        return name, " ".join(arguments)

    rate, tuned = "--sample-rate=2400000.0", "--frequency=806000000.0"
    assert command("driver=lime,serial=7", gain=-3.0, antenna="LNAW", bandwidth=5e6) == (
        "live_soapy.py",
        f"--device=driver=lime,serial=7 --gain=-3.0 --antenna=LNAW --bandwidth=5000000.0 {rate} {tuned}",
    )
    assert command("uhd") == ("live_uhd.py", f"--device= {rate} {tuned}")
    assert command("uhd:type=b200") == ("live_uhd.py", f"--device=type=b200 {rate} {tuned}")
    assert command("rtl_tcp://pi.local", gain=7.5) == (
        "live_rtl_tcp.py",
        f"--host=pi.local --port=1234 --gain=7.5 {rate} {tuned}",
    )
    assert command("rtl_tcp://10.0.0.1:99")[1].startswith("--host=10.0.0.1 --port=99 ")
    plan = HopPlan((806e6, 816e6), dwell=0.25, settle=0.0, sweeps=0)
    hops = "--frequencies=806000000.0,816000000.0 --dwell=0.25 --settle=0.0 --sweeps=0"
    assert command("simulated", plan) == ("survey_simulated.py", f"{rate} {hops}")


@pytest.mark.parametrize(
    "device", ["rtlsdr", "", "rtl_tcp://", "rtl_tcp://host:x", "rtl_tcp://host:1/path", "tcp://a:1"]
)
def test_devices_of_no_known_kind(device: str) -> None:
    with pytest.raises(StreamError, match="--device is"):
        flowgraph_for(Radio(device, 1e9, 1e6), None)


def test_settings_that_a_device_does_not_have() -> None:
    for device, settings in (
        ("rtl_tcp://host", {"antenna": "RX"}),
        ("rtl_tcp://host", {"bandwidth": 1e6}),
        ("simulated", {"gain": 1.0}),
    ):
        with pytest.raises(StreamError, match=f"no setting --{next(iter(settings))}"):
            flowgraph_for(Radio(device, 1e9, 1e6, **settings), None)


def test_numbers_that_cannot_be() -> None:
    for sample_rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(StreamError, match="--sample-rate"):
            Radio("uhd", 1e9, sample_rate)
    with pytest.raises(StreamError, match="--frequency"):
        Radio("uhd", float("nan"), 1e6)
    with pytest.raises(StreamError, match="--dwell"):
        HopPlan((1e9,), dwell=0)
    with pytest.raises(StreamError, match="--settle"):
        HopPlan((1e9,), settle=-1)
    for hops in ("0:6e9:1e-300", "1e9:2e9:0", "1e9:nan:1e6"):
        with pytest.raises(StreamError, match="expected centre frequencies"):
            parse_hops(hops)


# ---- with a flowgraph, in this process ----


def run_live(
    device: str, output: Path, plan: HopPlan | None = None, duration: float | None = None, **radio: Any
) -> str:
    """What `rfvit live` does; returns what a person would read."""
    frequency = plan.frequencies[0] if plan else radio.pop("frequency")
    text = io.StringIO()
    outputs = Outputs(Console(file=text, width=120, highlight=False, markup=False, emoji=False), overwrite=True)
    sample_rate = radio.pop("sample_rate", RATE)
    try:
        segment_radio(
            Radio(device, frequency, sample_rate, **radio), plan, duration, 10.0, output, Options(threads=2), outputs
        )
    finally:
        print(text.getvalue())
    return text.getvalue()


def read(output: Path) -> dict[str, Any]:
    sigmf.SigMFFile(metadata=json.loads(output.read_text())).validate()
    return json.loads(output.read_text())


def strongest(annotations: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """The largest box of a label."""
    area = {
        i: a["core:sample_count"] * (a["core:freq_upper_edge"] - a["core:freq_lower_edge"])
        for i, a in enumerate(annotations)
        if a["core:label"] == label
    }
    assert area, f"no {label} in {annotations}"
    return annotations[max(area, key=area.__getitem__)]


@pytest.fixture(scope="module")
def air() -> dict[int, bytes]:
    return rtl_tcp.example_air()


@pytest.mark.usefixtures("gnuradio_python")
def test_a_network_radio_live(air: dict[int, bytes], tmp_path: Path) -> None:
    output = tmp_path / "live.sigmf-meta"
    with RtlTcpServer(air, rate=3e6, elsewhere=rtl_tcp.noise_alone()) as server:
        text = run_live(server.url, output, frequency=float(LTE_CENTRE), duration=0.2, gain=20.5)
    assert server.commands == [
        ("sample_rate", 10_000_000),
        ("agc", 0),
        ("gain_mode", 1),
        ("gain", 205),
        ("frequency", LTE_CENTRE),
    ]
    assert "SIMULATED" not in text
    document = read(output)
    assert [capture["core:frequency"] for capture in document["captures"]] == [LTE_CENTRE]
    assert document["global"]["core:hw"] == server.url
    box = strongest(document["annotations"], "LTE")
    assert box["core:freq_lower_edge"] == pytest.approx(2132.75e6, abs=0.3e6)
    assert box["core:freq_upper_edge"] == pytest.approx(2137.25e6, abs=0.5e6)


@pytest.mark.usefixtures("gnuradio_python")
def test_a_survey_with_a_network_radio(air: dict[int, bytes], tmp_path: Path) -> None:
    """Retunes reach the server; one file holds the sweep in absolute Hz, cut at the very sample of each retune."""
    plan = HopPlan((float(LTE_CENTRE), float(NR_CENTRE)), dwell=0.15, settle=0.3, sweeps=2)

    def sweep(output: Path) -> str:
        with RtlTcpServer(air, rate=4e6) as server:
            text = run_live(server.url, output, plan)
        # The first is set before the flowgraph starts, and again by the plan.
        assert server.values("frequency") == [LTE_CENTRE, LTE_CENTRE, NR_CENTRE, LTE_CENTRE, NR_CENTRE]
        return text

    check_sweep(sweep, tmp_path, dwell=1_500_000, centres=[LTE_CENTRE, NR_CENTRE] * 2)


@pytest.mark.usefixtures("gnuradio_python")
def test_a_simulated_survey_says_so_and_is_exact(tmp_path: Path) -> None:
    plan = HopPlan((float(LTE_CENTRE), float(NR_CENTRE)), dwell=0.2, settle=0.01, sweeps=1)

    def sweep(output: Path) -> str:
        text = run_live("simulated", output, plan)
        assert text.startswith("SIMULATED:")
        assert text.count("SIMULATED:") == 2
        document = read(output)
        assert document["global"]["core:description"].startswith("Simulated:")
        assert document["global"]["core:hw"] == "simulated"
        return text

    check_sweep(sweep, tmp_path, dwell=2_000_000, centres=[LTE_CENTRE, NR_CENTRE])


def check_sweep(sweep: Callable[[Path], str], folder: Path, dwell: int, centres: list[int]) -> None:
    """Check places whatever happens, and all that is found where nothing is lost, as on a busy machine it may be."""
    for attempt in range(3):
        output = folder / f"sweep-{attempt}.sigmf-meta"
        text = sweep(output)
        check_places(read(output), dwell, centres)
        if "Lost samples: 0 " in text:
            check_carriers(read(output), dwell, centres)
            return
    pytest.skip("this machine is too busy: samples were lost in three sweeps of three")


def tuned(document: dict[str, Any]) -> dict[int, float | None]:
    """Sample from which the radio is at a frequency."""
    return {capture["core:sample_start"]: capture.get("core:frequency") for capture in document["captures"]}


def check_places(document: dict[str, Any], dwell: int, centres: list[int]) -> None:
    captures = tuned(document)
    # Samples from before this end of the connection was made are not seen; from then on, positions are exact.
    assert 0 <= min(captures) < dwell
    # With samples, a retune may be lost: a frequency is unknown then, never wrong.
    assert all(frequency in (None, centres[start // dwell]) for start, frequency in captures.items())
    for found in document["annotations"]:
        start, end = found["core:sample_start"], found["core:sample_start"] + found["core:sample_count"]
        hop = start // dwell
        assert end <= (hop + 1) * dwell  # no box, and so no window, reaches over a retune
        centre = captures[max(begin for begin in captures if begin <= start)] or 0
        assert abs(found["core:freq_lower_edge"] - centre) <= RATE / 2 * 1.01
        assert abs(found["core:freq_upper_edge"] - centre) <= RATE / 2 * 1.01


def check_carriers(document: dict[str, Any], dwell: int, centres: list[int]) -> None:
    exact = {dwell * hop: centre for hop, centre in enumerate(centres) if hop}
    assert list(tuned(document).items())[1:] == list(exact.items())
    for hop, centre in enumerate(centres):
        inside = [found for found in document["annotations"] if found["core:sample_start"] // dwell == hop]
        box = strongest(inside, "LTE" if centre == LTE_CENTRE else "NR")
        edges = (2132.75e6, 2137.25e6) if centre == LTE_CENTRE else (2138.32e6, 2147.68e6)
        assert box["core:freq_lower_edge"] == pytest.approx(edges[0], abs=0.5e6)
        assert box["core:freq_upper_edge"] == pytest.approx(edges[1], abs=1.5e6)


@pytest.mark.usefixtures("gnuradio_python")
def test_a_radio_that_hangs_up_is_an_error_after_what_was_found(air: dict[int, bytes], tmp_path: Path) -> None:
    output = tmp_path / "live.sigmf-meta"
    with RtlTcpServer(air, rate=5e6, chunks=20) as server:
        words = rf"flowgraph live_rtl_tcp\.py ended .*: rtl_tcp server at 127\.0\.0\.1:{server.port}: it closed"
        with pytest.raises(StreamError, match=words):
            run_live(server.url, output, frequency=float(LTE_CENTRE))
    assert strongest(read(output)["annotations"], "LTE")


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("driver=rtlsdr", "no SoapySDR device matches 'driver=rtlsdr'|needs a part of GNU Radio that is not installed"),
        ("uhd:type=b200,serial=none", "No devices found|needs a part of GNU Radio that is not installed"),
        ("rtl_tcp://127.0.0.1:1", "no rtl_tcp server at 127.0.0.1:1"),
    ],
)
def test_radios_that_are_not_there(device: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=words) as caught:
        run_live(device, tmp_path / "a.sigmf-meta", frequency=806e6, sample_rate=2.4e6)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("gnuradio_python")
def test_what_the_simulated_radio_cannot_do(tmp_path: Path) -> None:
    output = tmp_path / "a.sigmf-meta"
    with pytest.raises(StreamError, match=r"whole fraction of it, not 7 MS/s"):
        run_live("simulated", output, frequency=1e9, sample_rate=7e6)
    with pytest.raises(StreamError, match=r"2300 MHz is outside"):
        run_live("simulated", output, HopPlan((2.135e9, 2.3e9), dwell=0.01, settle=0.0))
    with pytest.raises(SpecMismatch):
        run_live("simulated", output, frequency=1e9, sample_rate=1e3)


# ---- as a process, ended in every way ----


@contextmanager
def started(*arguments: str | Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """`rfvit` beside the test, with a folder of its own for temporary files."""
    command, environment = [*RFVIT, *map(str, arguments)], os.environ | {"TMPDIR": str(temporary)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, ended(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def flowgraph_of(process: subprocess.Popen[str]) -> int | None:
    """Process id of the flowgraph that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in map(int, children):
        if b"launch.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    return None


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"  # a zombie that init has yet to collect
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")  # short: the address of a local socket has 107 bytes at most


@pytest.fixture
def live(air: dict[int, bytes], tmp_path: Path) -> Iterator[list[str | Path]]:
    """Command line of a run that goes on until it is ended: a network radio, a light load for a test."""
    with RtlTcpServer(air, rate=4e6) as server:
        radio = ["--device", server.url, "--frequency", str(LTE_CENTRE), "--sample-rate", str(RATE)]
        yield ["live", *radio, "--jsonl", tmp_path / "live.jsonl", "--output", tmp_path / "live.sigmf-meta"]


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=lambda s: str(s)
)
def test_no_process_is_left_behind(
    live: list[str | Path], tmp_path: Path, temporary: Path, signum: signal.Signals, status: int
) -> None:
    lines = tmp_path / "live.jsonl"
    with started(*live, temporary=temporary) as process:
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        child = flowgraph_of(process)
        assert child is not None
        assert list(temporary.iterdir())
        process.send_signal(signum)
        done = ended(process)
    assert done.returncode == status, done.stderr
    wait_until(lambda: gone(child))
    if signum != signal.SIGKILL:
        assert "Traceback" not in done.stderr
        assert not list(temporary.iterdir())
        assert read(tmp_path / "live.sigmf-meta")["global"]["core:metadata_only"] is True


@pytest.mark.usefixtures("gnuradio_python")
def test_a_flowgraph_that_dies_ends_the_run_with_a_clear_message(
    live: list[str | Path], tmp_path: Path, temporary: Path
) -> None:
    lines = tmp_path / "live.jsonl"
    with started(*live, temporary=temporary) as process:
        wait_until(lambda: lines.exists() and lines.stat().st_size > 0, process)
        child = flowgraph_of(process)
        assert child is not None
        os.kill(child, signal.SIGKILL)
        done = ended(process)
    assert done.returncode == 1, done.stdout
    assert re.fullmatch(r"error: flowgraph live_rtl_tcp\.py ended \(exit status -9\): .*\n", done.stderr)
    assert "Lost samples" in done.stdout
    assert read(tmp_path / "live.sigmf-meta")["captures"]


def test_the_command_line_wants_one_or_the_other() -> None:
    for extra in ([], ["--frequency", "1e9", "--hop", "1e9,2e9"]):
        command = ["live", "--device", "uhd", "--sample-rate", "2e6", *extra]
        error = CliRunner().invoke(app, command).exception
        assert isinstance(error, StreamError)
        assert str(error).startswith("give either --frequency")
    command = ["live", "--device", "uhd", "--sample-rate", "2e6", "--frequency", "1e9", "--dwell", "3", "--sweeps", "0"]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, StreamError)
    assert str(error).startswith("--dwell, --sweeps is for a survey; give --hop too")
