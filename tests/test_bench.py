# SPDX-License-Identifier: Apache-2.0
"""`rfvit bench`: the search by itself, and short real runs through GNU Radio. No figure is judged here."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rfvit_rt import cli
from rfvit_rt.bench import (
    RECORDING,
    Benchmark,
    BenchSettings,
    for_people,
    parse_rates,
    run_bench,
    stream,
    to_dict,
    whole_way,
    write_picture,
)
from rfvit_rt.bench.engines import over_eager
from rfvit_rt.bench.search import highest_of, highest_rate
from rfvit_rt.bench.stream import Trial, try_rate
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import ModelError, OutputError, SpecMismatch, StreamError
from rfvit_rt.flowgraph import Flowgraph, find_flowgraph
from rfvit_rt.models import default_model
from rfvit_rt.pipeline import PipelineSettings
from rfvit_rt.running import Options, Stop
from rfvit_rt.sources.recording import open_recording

RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]
LIMITS = {"start": 5e6, "least": 2e6, "most": 500e6}
SHORT = BenchSettings(seconds=0.3, probe_seconds=0.3, rates=(3e6, 4e6), runs=2, run_seconds=0.02)
STAGES = ["receive", "spectrogram", "inference", "decode", "sinks"]


class Machine:
    """Holds up to a rate; notes what it was asked."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.asked: list[float] = []

    def __call__(self, rate: float) -> bool:
        self.asked.append(rate)
        return rate <= self.capacity


# ---- the search ----


@pytest.mark.parametrize("capacity", [2.1e6, 3e6, 5e6, 7.77e6, 61.44e6, 123e6, 490e6])
def test_the_search_comes_close_from_below(capacity: float) -> None:
    machine = Machine(capacity)
    found = highest_rate(machine, machine, **LIMITS, resolution=1.05)
    assert found is not None
    assert capacity / 1.05 <= found <= capacity
    assert machine.asked[-1] == found  # it was confirmed
    assert len(machine.asked) < 25
    assert all(LIMITS["least"] <= rate <= LIMITS["most"] for rate in machine.asked)


def test_where_all_rates_hold_it_is_the_highest_that_is_possible() -> None:
    assert highest_rate(Machine(math.inf), Machine(math.inf), **LIMITS) == 500e6


def test_where_none_holds_there_is_none_and_the_search_ends() -> None:
    machine = Machine(0.0)
    assert highest_rate(machine, machine, **LIMITS) is None
    assert min(machine.asked) == 2e6


def test_a_probe_that_fails_once_for_no_reason_is_forgiven() -> None:
    machine = Machine(30e6)
    tried: set[float] = set()

    def fails_first(rate: float) -> bool:
        first = rate not in tried
        tried.add(rate)
        return machine(rate) and not first

    assert highest_rate(fails_first, machine, **LIMITS, resolution=1.05) == pytest.approx(30e6, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_probes_that_err_do_not_decide(seed: int) -> None:
    """Near its limit a machine holds in some trials and fails in others; the long trial has the last word."""
    generator = np.random.default_rng(seed)
    confirm = Machine(30e6)
    found = highest_rate(lambda rate: rate < 40e6 * generator.uniform(0.7, 1.3), confirm, **LIMITS)
    assert found is not None
    assert found <= 30e6
    assert confirm.asked[-1] == found
    assert len(confirm.asked) < 8


def test_what_is_never_confirmed_is_not_claimed() -> None:
    confirm = Machine(0.0)
    assert highest_rate(Machine(math.inf), confirm, **LIMITS) is None
    assert confirm.asked[-1] == 2e6
    assert len(confirm.asked) < 12


def test_of_given_rates_all_are_tried_and_the_highest_is_confirmed() -> None:
    probe, confirm = Machine(30e6), Machine(22e6)
    assert highest_of((40e6, 10e6, 20e6, 25e6), probe, confirm) == 20e6
    assert probe.asked == [10e6, 20e6, 25e6, 40e6, 40e6]
    assert confirm.asked == [25e6, 20e6]
    assert highest_of((40e6,), probe, confirm) is None


@pytest.mark.parametrize("wrong", [{"least": 0.0}, {"start": 1e6}, {"most": math.inf}, {"resolution": 1.0}])
def test_a_search_that_could_not_end_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot search"):
        highest_rate(Machine(1e7), Machine(1e7), **LIMITS | wrong)


def test_the_whole_way_warms_up_and_holds_what_it_found_for_long() -> None:
    tried = []

    def try_for(rate: float, seconds: float) -> Trial:
        tried.append((rate, seconds))
        return trial(rate, kept_up=rate <= 33e6)

    trials, found = whole_way(try_for, BenchSettings(seconds=60, probe_seconds=4), default_model().contract.spectrogram)
    assert found == pytest.approx(33e6, rel=0.06)
    assert tried[-1] == (found, 60)
    assert {seconds for _, seconds in tried[1:-1]} == {4}
    assert len(trials) == len(tried) - 1


def test_the_whole_way_stays_where_the_model_is() -> None:
    tried = []

    def try_for(rate: float, seconds: float) -> Trial:
        tried.append(rate)
        return trial(rate, kept_up=False)

    spec = replace(default_model().contract.spectrogram, min_sample_rate=8e6)
    assert whole_way(try_for, BenchSettings(), spec)[1] is None
    assert set(tried) == {8e6}


def trial(rate: float, kept_up: bool) -> Trial:
    return Trial(rate, 1.0, round(rate), 0, 25, 0, rate, None, None, 0.5, 0.5, 0.0, kept_up, "" if kept_up else "slow")


# ---- real runs ----


@pytest.fixture(scope="module")
def measured(gnuradio_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    png = tmp_path_factory.mktemp("bench") / "ages.png"
    found = run_bench(Options(overlap=0.0), "openvino", SHORT, Console(quiet=True), png, False)
    assert write_picture(found, png, False)
    return found, png


def test_a_real_run_measures_every_part(measured: tuple[Benchmark, Path]) -> None:
    found, png = measured
    assert {(speed.engine, speed.batch) for speed in found.engines} == {("openvino", 1), ("openvino", 8)}
    assert "f32" in {speed.precision for speed in found.engines}
    assert [stage.stage for stage in found.stages] == STAGES
    for speed in (*found.engines, *found.stages):
        assert len(speed.runs) == 2
        assert min(speed.runs) <= speed.windows_per_second <= max(speed.runs)
        assert 0 < speed.milliseconds.p50 <= speed.milliseconds.p95 <= speed.milliseconds.p99
    assert {trial.sample_rate for trial in found.trials} == {3e6, 4e6}
    for made in found.trials:
        assert made.samples + made.lost >= round(made.sample_rate * 0.3)
        assert made.samples <= round(made.sample_rate * 0.3)
        assert made.windows > 0
        assert made.rfvit_cores > 0
        assert made.flowgraph_cores > 0
        assert made.kept_up == (not made.reason)
    assert found.zero_loss_sample_rate in (None, 3e6, 4e6)
    assert (found.confirmed is None) == (found.zero_loss_sample_rate is None)
    assert not found.left_out
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load_engine(default_model()) as engine:
        yield engine


def attempt(engine: Engine, sample_rate: float, seconds: float, stop: Stop) -> Trial:
    recording = open_recording(find_flowgraph(RECORDING))
    return try_rate(recording, engine, default_model(), PipelineSettings(256), sample_rate, seconds, stop)


def test_what_only_waited_in_queues_was_not_kept_up_with(
    gnuradio_python: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = engine.infer

    def slowly(*inputs: np.ndarray) -> np.ndarray:
        time.sleep(1.5)
        return infer(*inputs)

    monkeypatch.setattr(engine, "infer", slowly)
    made = attempt(engine, 3e6, 0.5, Stop())
    assert not made.kept_up
    assert made.reason.endswith("s behind at the end")


def test_what_the_sink_dropped_before_the_first_message_is_lost(
    gnuradio_python: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TooEarly(Flowgraph):
        """Sends before anybody reads."""

        def __enter__(self) -> TooEarly:
            super().__enter__()
            self.start()
            time.sleep(1.0)
            return self

    monkeypatch.setattr(stream, "Flowgraph", TooEarly)
    made = attempt(engine, 3e6, 0.3, Stop())
    assert made.samples + made.lost > 900_000  # the stream that was looked at has so many
    assert not made.kept_up
    assert f"{made.lost:,} samples lost" in made.reason


def test_ctrl_c_while_the_flowgraph_starts_is_no_error(gnuradio_python: Path, engine: Engine) -> None:
    stop = Stop()
    stop.signal = signal.SIGINT
    stop.set()
    with pytest.raises(SystemExit) as ended:
        attempt(engine, 3e6, 0.3, stop)
    assert ended.value.code == 128 + signal.SIGINT


def test_a_picture_that_cannot_be_written_costs_no_figures(
    measured: tuple[Benchmark, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("rfvit_rt.bench.run_bench", lambda *_: measured[0])
    monkeypatch.setattr(sys, "argv", ["rfvit", "bench", "--json", "--png", str(measured[1])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["type"] == "benchmark"
    assert "exists" in told.err


def test_people_see_all_of_it(measured: tuple[Benchmark, Path]) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    for part in for_people(measured[0]):
        console.print(part)
    text = console.export_text()
    for word in ("Machine: ", "cores", "openvino", "spectrum-small", "Windows/s", *STAGES, "GNU Radio", "Zero loss: "):
        assert word in text
    assert "…" not in text  # nothing is cut


def test_people_are_warned_of_a_ratio_from_a_busy_machine(measured: tuple[Benchmark, Path]) -> None:
    for busy, doubt in ((0.0, False), (1.5, True)):
        found = replace(measured[0], over_eager_f32=17.6, other_cores=busy)
        (line,) = (part for part in for_people(found) if isinstance(part, str) and "17.6 times" in part)
        assert ("do not rely on it" in line) is doubt


def test_programs_get_the_same(measured: tuple[Benchmark, Path]) -> None:
    told = json.loads(json.dumps(to_dict(measured[0]), allow_nan=False))
    assert told["type"] == "benchmark"
    assert told["zero_loss_sample_rate"] == measured[0].zero_loss_sample_rate
    assert told["machine"].keys() == {"processor", "cores", "features", "system", "versions"}
    assert told["machine"]["versions"].keys() >= {"python", "numpy", "openvino", "rfvit-rt", "gnuradio"}
    assert told["engines"][0].keys() == {
        *("engine", "precision", "description", "on_gpu", "batch", "windows_per_second", "runs", "milliseconds")
    }
    assert told["stages"][0].keys() == {"stage", "windows_per_second", "runs", "times_real_time", "milliseconds"}
    assert told["trials"][0].keys() >= {"sample_rate", "seconds", "lost", "achieved_rate", "sample_age", "kept_up"}
    assert told["trials"][0]["sample_age"].keys() == {"p50", "p95", "p99"}


def test_eager_torch_is_what_engines_are_compared_with(measured: tuple[Benchmark, Path]) -> None:
    engines = measured[0].engines
    assert over_eager(engines) is None
    eager = replace(engines[0], engine="pytorch", precision="f32", windows_per_second=10.0)
    fastest = max(speed.windows_per_second for speed in engines)
    assert over_eager([*engines, eager]) == pytest.approx(fastest / 10.0)
    assert over_eager([*engines, replace(eager, on_gpu=True)]) is None


def test_without_gnu_radio_it_says_so_and_goes_on(tmp_path: Path) -> None:
    command = [*RFVIT, "bench", "--json", "--engine", "openvino", "--seconds", "0.3", "--png", str(tmp_path / "a.png")]
    environment = os.environ | {"RFVIT_GNURADIO_PYTHON": "/bin/false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["zero_loss_sample_rate"] is None
    assert told["trials"] == []
    assert [stage["stage"] for stage in told["stages"]] == STAGES
    (left_out,) = told["left_out"]
    assert left_out["what"] == "the whole way"
    assert "cannot import gnuradio" in left_out["reason"]
    assert not (tmp_path / "a.png").exists()
    assert "No picture" in done.stderr


def test_help_teaches() -> None:
    done = subprocess.run([*RFVIT, "bench", "--help"], capture_output=True, text=True, timeout=100, check=True)
    for word in ("--rates", "--seconds", "--json", "--png", "--engine", "--model", "minutes", "GNU Radio"):
        assert word in done.stdout


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0.0])
def test_no_bench_lasts_for_ever(seconds: float) -> None:
    with pytest.raises(StreamError, match="--seconds is"):
        BenchSettings(seconds=seconds)


def test_wrong_wishes_are_refused_before_any_work(tmp_path: Path) -> None:
    model = default_model()
    with pytest.raises(StreamError, match="expected sample rates in Hz"):
        parse_rates("20e6;40e6", model)
    with pytest.raises(SpecMismatch, match="1 MS/s"):
        parse_rates("20e6,1e6", model)
    taken = tmp_path / "taken.png"
    taken.touch()
    for png, word in ((taken, "--overwrite"), (tmp_path / "ages.gif", "png")):
        with pytest.raises(OutputError, match=word):
            run_bench(Options(), None, SHORT, Console(quiet=True), png, False)
    with pytest.raises(ModelError, match="bench measures models of spectra"):
        run_bench(Options(model="activity-esp32-tiny"), None, SHORT, Console(quiet=True), None, False)
    done = subprocess.run(
        [*RFVIT, "bench", "--engine", "none"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: there is no engine 'none'")
