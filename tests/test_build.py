# SPDX-License-Identifier: Apache-2.0
"""``rfvit build``, on stand-ins for TensorRT and PyCUDA (tests/engines): what is built, kept, replaced and said.

No GPU is here, and no TensorRT: that TensorRT builds a plan is not shown.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from rfvit_rt import cli
from rfvit_rt.build import BuildBars, BuildOptions, build, build_bars
from rfvit_rt.engines.plans import read_plan, record_path, write_plan
from rfvit_rt.errors import EngineError, ModelError, SpecMismatch

pytest.importorskip("onnxruntime", reason="pip install -e '.[test]'")

from .engines import tensorrt_standin
from .engines.conftest import model  # noqa: F401  (a fixture)
from .engines.standins import standing_in

ACTIVITY = "activity-esp32-tiny"  # the smallest model that ships
PLAN = "activity-esp32-tiny-f16-stand-in-gpu.plan"
SMALL = BuildOptions(ACTIVITY, batches="1,4")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    with standing_in(monkeypatch, tmp_path / "plans") as standins:
        yield standins
        assert standins.machine.is_clean, vars(standins.machine)


def said(options=SMALL):
    """What a build tells people."""
    console = Console(file=io.StringIO(), width=400)
    try:
        build(options, console)
    finally:
        text = console.file.getvalue()
    return text


def built(gpu):
    """How many plans were built so far: each is told of in two phases."""
    return gpu.trt.phases_seen.count("Building Engine")


@pytest.fixture(autouse=True)
def phases(monkeypatch):
    """Count what the stand-in builds."""
    work = tensorrt_standin._work_with

    def noting(monitor):
        tensorrt_standin._behaviour.phases_seen.append("Building Engine")
        return work(monitor)

    monkeypatch.setattr(tensorrt_standin, "_work_with", noting)


def test_a_plan_is_built_proved_and_kept(gpu):
    text = said()
    assert f"There is no plan {gpu.plans / PLAN} yet" in text
    assert (
        "Building activity-esp32-tiny in f16 for batches of 1, 4 with TensorRT 11.4.0.106 on Stand-in GPU; this takes "
        "minutes" in text
    )
    assert re.search(r"f16, batches of [14, ]+, CUDA graphs; it reproduces the model's golden output", text)
    assert "Use it: rfvit sense SOURCE --engine tensorrt --precision f16" in text
    assert sorted(path.name for path in gpu.plans.iterdir()) == [
        PLAN,
        f"{PLAN}.json",
        "timing-11.4.0.106-stand-in-gpu-9.0.cache",
    ]
    assert read_plan(gpu.plans / PLAN).key.batches == (1, 4)


def test_what_is_up_to_date_is_not_built_again_unless_asked(gpu):
    said()
    text = said()
    assert f"Up to date: {gpu.plans / PLAN}" in text
    assert built(gpu) == 1
    assert "is up to date, and built again as asked" in said(replace(SMALL, again=True))
    assert built(gpu) == 2
    assert gpu.trt.reused_timings == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "0" * 64}, "it was made from another model file"),
        ({"tensorrt": "11.3.0.99"}, "it was made by TensorRT 11.3.0.99, this is 11.4.0.106"),
        ({"gpu": "NVIDIA A100"}, "it was made for NVIDIA A100"),
        (
            {"compute_capability": "8.6"},
            "it was made for Stand-in GPU (compute capability 8.6), this is Stand-in GPU (9.0)",
        ),
        ({"batches": (1, 2)}, "it was made for batches of 1, 2, not of 1, 4"),
    ],
)
def test_a_stale_or_foreign_plan_is_replaced_and_said_so_and_never_run(gpu, change, says):
    said()
    path, loaded = gpu.plans / PLAN, gpu.trt.loaded
    good = read_plan(path)
    write_plan(path, replace(good.key, **change), b"of no use")
    text = said()
    assert f"The plan {path} is stale: {says}" in text
    assert "; it is replaced" in text
    assert read_plan(path) == good
    assert gpu.trt.loaded == loaded + 1  # the new one


@pytest.mark.parametrize("damage", ["plan", "record"])
def test_a_damaged_plan_is_replaced_and_said_so(gpu, damage):
    said()
    path = gpu.plans / PLAN
    good = read_plan(path)
    (path if damage == "plan" else record_path(path)).write_bytes(b"{")
    text = said()
    assert ("cut short, or was replaced; it is replaced" if damage == "plan" else "is malformed (") in text
    assert read_plan(path) == good


def test_other_batches_and_precisions(gpu):
    said()
    assert "is stale: it was made for batches of 1, 4, not of 2" in said(replace(SMALL, batches="2"))
    assert "in f32 for batches of 1, 4" in said(replace(SMALL, precision="fp32"))
    assert len(list(gpu.plans.glob("*.plan"))) == 2


def test_another_gpu_has_a_plan_of_its_own(gpu):
    said()
    text = said(replace(SMALL, device="cuda:1"))
    assert "with TensorRT 11.4.0.106 on Other GPU" in text
    assert "TensorRT 11.4.0.106 on Other GPU, f16" in text
    assert len(list(gpu.plans.glob("*.plan"))) == 2


def test_the_default_is_the_model_that_segments(gpu):
    assert "Building spectrum-small in f16 for batches of 1 " in said(BuildOptions(batches="1"))


def test_a_plan_for_raw_iq_too(gpu, model):  # noqa: F811
    options = BuildOptions(str(model.path), precision="fp32", batches="1", iq_rate=4e6, item_type="ci16_le")
    text = said(options)
    assert "Building small in f32" in text
    assert "Building small-ci16_le-4000000 in f32" in text
    assert "Pictures made of raw IQ are within " in text
    assert "Use it: rfvit segment SOURCE --engine tensorrt --precision f32" in text
    assert built(gpu) == 2
    assert said(options).count("Up to date") == 2
    assert built(gpu) == 2


def test_a_rate_that_the_model_does_not_take(gpu):
    with pytest.raises(SpecMismatch):
        said(BuildOptions(iq_rate=1e3))
    assert built(gpu) == 0


def test_a_plan_that_is_wrong_is_not_believed(gpu):
    gpu.trt.rounding = lambda size: 0.5
    with pytest.raises(ModelError, match="deviates from its golden output"):
        said()


def test_ctrl_c_ends_the_build_at_its_next_step(gpu, monkeypatch):
    """TensorRT asks after every step whether to go on, from a thread of its own."""
    work = tensorrt_standin._work_with

    def interrupted(monitor):
        os.kill(os.getpid(), signal.SIGINT)
        deadline = threading.Event()
        for _ in range(1000):
            if not monitor.step_complete("Timing", 0):
                break
            deadline.wait(0.01)
        return work(monitor)

    monkeypatch.setattr(tensorrt_standin, "_work_with", interrupted)
    console = Console(file=io.StringIO(), width=400)
    with pytest.raises(SystemExit) as ended:
        build(SMALL, console)
    assert ended.value.code == 128 + signal.SIGINT
    assert "Stopped; nothing was written" in console.file.getvalue()
    assert not list(gpu.plans.iterdir())


def test_what_tensorrt_says_against_a_model_is_passed_on(gpu):
    gpu.trt.no_plan = "no implementation"
    with pytest.raises(ModelError, match=r"cannot build a plan of .* \(no implementation\); try another --precision"):
        said()
    assert not list(gpu.plans.iterdir())


def test_a_plan_for_the_lean_runtime_needs_it_before_the_build(gpu, monkeypatch):
    options = replace(SMALL, portable=True)
    with pytest.raises(
        EngineError, match=r"lean runtime of TensorRT 11\.4\.0\.106, here is none; pip install tensorrt-lean"
    ):
        said(options)
    assert built(gpu) == 0
    monkeypatch.setattr(gpu.module, "_lean_release", lambda: "11.3.0.99")
    with pytest.raises(EngineError, match=r"here is 11\.3\.0\.99; pip install tensorrt-lean==11\.4\.0\.106"):
        said(options)


def test_the_lean_runtime_alone_builds_nothing(monkeypatch, tmp_path):
    with (
        standing_in(monkeypatch, tmp_path, lean=True),
        pytest.raises(EngineError, match="builds no plans; pip install"),
    ):
        said()


def test_a_folder_that_cannot_be_is_found_out_before_the_build(gpu, tmp_path):
    gpu.plans.touch()
    with pytest.raises(EngineError, match=r"cannot make the folder .*name another folder in RFVIT_PLANS"):
        said()
    assert built(gpu) == 0


def test_bars_nest_and_go():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with build_bars(console) as bars:
        stop = threading.Event()
        shown = BuildBars(bars, stop)
        shown.start("Building Engine", None, 2)
        shown.start("Timing", "Building Engine", 4)
        assert shown.step("Timing", 0)
        assert shown.step("never started", 7)
        assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
            ("Building Engine", 0, 2),
            ("  Timing", 1, 4),
        ]
        shown.finish("Timing")
        shown.finish("Timing")
        assert [task.description for task in bars.tasks] == ["Building Engine"]
        stop.set()
        assert not shown.step("Building Engine", 1)
    assert "Building Engine" in console.file.getvalue()


def test_no_bars_where_nobody_sees_them():
    console = Console(file=io.StringIO())
    with build_bars(console) as bars:
        BuildBars(bars, threading.Event()).start("Building Engine", None, 2)
    assert console.file.getvalue() == ""


# ---- the command ----


def test_the_command(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rfvit", "build", ACTIVITY, "--batch", "1,4", "--precision", "fp16"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "it reproduces the model's golden output" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "tpu"], "TensorRT runs on NVIDIA GPUs, not on 'tpu'"),
        (["--device", "cuda:9"], "there is no GPU cuda:9 here, only 2"),
        (["--precision", "int8"], "there is no precision 'int8'; choose one of fp16, bf16, fp32"),
        (["--batch", "0"], "batch sizes are '0', expected whole numbers from 1 to 4096"),
        (["--iq-in", "20e6", "--item-type", "cu8"], "the graph takes no cu8; choose ci16_le or cf32_le"),
    ],
)
def test_mistakes_are_one_line(gpu, monkeypatch, capsys, arguments, says):
    name = "spectrum-small" if "--iq-in" in arguments else ACTIVITY
    monkeypatch.setattr(sys, "argv", ["rfvit", "build", name, "--batch", "1", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert built(gpu) == 0
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.skipif(find_spec("pycuda") is not None, reason="PyCUDA is installed")
@pytest.mark.parametrize(
    "arguments", [["build"], ["segment", "{recording}", "--engine", "tensorrt", "--device", "cuda:1"]]
)
def test_without_tensorrt_one_line_names_the_extra(arguments, tmp_path):
    recording = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
    filled = [argument.format(recording=recording) for argument in arguments]
    more = ["--output", str(tmp_path / "out.sigmf-meta")] if arguments[0] == "segment" else []
    command = [sys.executable, "-c", "from rfvit_rt.cli import main; main()", *filled, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the tensorrt engine cannot be loaded (No module named 'pycuda'); it needs an NVIDIA GPU with its "
        "driver, and pip install -e '.[tensorrt]' in the repository\n"
    )
