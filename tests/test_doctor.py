# SPDX-License-Identifier: Apache-2.0
"""What `rfvit doctor` says of this machine, and of machines that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfvit_rt import doctor
from rfvit_rt.errors import ModelError, StreamError

RFVIT = [sys.executable, "-c", "from rfvit_rt.cli import main; main()"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*RFVIT, "doctor", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=os.environ | environment
    )


def test_a_machine_that_passes_these_tests_is_well(gnuradio_python: Path) -> None:
    done = run("--json")
    findings = {entry["topic"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout
    assert findings["openvino with spectrum-small"]["state"] == "ok"
    assert findings["GNU Radio"]["detail"].endswith(f"in {gnuradio_python}")
    assert "cores for this process" in findings["Processor"]["detail"]
    assert not [entry for entry in findings.values() if entry["state"] == "problem"]


def test_a_missing_gnu_radio_is_a_problem_with_a_remedy_in_words_too() -> None:
    done = run(RFVIT_GNURADIO_PYTHON="/bin/false")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert "RFVIT_GNURADIO_PYTHON is /bin/false" in line
    assert "→ point it at a Python that can" in done.stdout


def test_an_engine_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: object, name: str) -> None:
        raise ModelError(f"{name} deviates from its golden output; fetch the model again")

    monkeypatch.setattr(doctor, "load_engine", refuse)
    findings = list(doctor.models_and_engines())
    assert {finding.remedy for finding in findings} == {"fetch the model again"}
    assert {f.state for f in findings if f.topic.startswith("openvino")} == {"problem"}
    assert "note" in {f.state for f in findings if f.topic.startswith("pytorch")}


def test_a_model_that_is_damaged_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[object]:
        raise ModelError("spectrum-small.onnx is cut off; fetch it again")

    monkeypatch.setattr(doctor, "shipped_models", refuse)
    (finding,) = doctor.models_and_engines()
    assert (finding.state, finding.topic) == ("problem", "Models that ship")
    assert "cut off" in finding.detail


def test_small_kernel_buffers_come_with_the_command_that_enlarges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_number", lambda path, place=0: 212_992 if path.name == "rmem_max" else 1 << 30)
    findings = {finding.topic: finding for finding in doctor.kernel()}
    assert findings["Kernel receive buffer"].state == "note"
    assert findings["Kernel receive buffer"].remedy == "sudo sysctl -w net.core.rmem_max=33554432"
    assert findings["Kernel send buffer"].state == "ok"


def test_without_gnu_radio_the_rest_is_still_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Path:
        raise StreamError("no Python here can import gnuradio; install it")

    monkeypatch.setattr(doctor, "find_gnuradio_python", absent)
    (finding,) = doctor.gnuradio()
    assert (finding.state, finding.remedy) == ("problem", "install it")


def test_nothing_is_said_of_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_count", lambda: 0)
    assert not list(doctor.cuda())


def test_a_torch_that_cannot_use_the_gpus_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="pip install -e '.[train]'")
    if torch.version.cuda is not None:
        pytest.skip("this torch was built for CUDA")
    monkeypatch.setattr(doctor, "gpu_count", lambda: 2)
    (finding,) = doctor.cuda()
    assert finding.state == "note"
    assert "was built without CUDA, and here are 2 NVIDIA GPUs" in finding.detail
    assert finding.remedy.startswith("install torch for CUDA")


@pytest.mark.parametrize(("devices", "state"), [(0, "problem"), (1, "ok")])
def test_a_torch_for_cuda_depends_on_the_driver(monkeypatch: pytest.MonkeyPatch, devices: int, state: str) -> None:
    pytest.importorskip("torch", reason="pip install -e '.[train]'")
    monkeypatch.setattr(doctor, "gpu_count", lambda: 1)
    answer = json.dumps({"torch": "2.13.0", "cuda": "13.0", "devices": devices})
    monkeypatch.setattr(doctor, "_output_of", lambda command: answer)
    (finding,) = doctor.cuda()
    assert finding.state == state
    assert "torch 2.13.0 for CUDA 13.0" in finding.detail


def test_what_waits_in_zeromq_and_the_kernel_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, queued = doctor.zeromq()
    assert queued.state == "note"
    assert "queues 1000 messages, 0.4 s of samples at 20 MS/s" in queued.detail
    assert "a small one, such as 8" in queued.remedy
    sizes = {"tcp_rmem": 6 << 20, "tcp_wmem": 4 << 20}
    monkeypatch.setattr(doctor, "_number", lambda path, place=0: sizes.get(path.name) if place == 2 else 1 << 30)
    findings = {finding.topic: finding for finding in doctor.kernel()}
    assert findings["Kernel TCP buffers"].state == "ok"
    sizes["tcp_rmem"] = 64 << 20
    findings = {finding.topic: finding for finding in doctor.kernel()}
    assert findings["Kernel TCP buffers"].state == "note"
    assert "hold 68 MiB: 0.4 s of samples at 20 MS/s" in findings["Kernel TCP buffers"].detail
    assert findings["Kernel TCP buffers"].remedy == "on one machine use ipc:// instead of tcp://"


@pytest.mark.parametrize(
    ("smi", "newest", "cards", "states", "says"),
    [
        (None, None, 0, ["note"], "no NVIDIA driver here"),
        (None, "12.6", 1, ["ok"], "programs for CUDA 12.6 and earlier, on one GPU here"),  # as on a Jetson
        ("NVIDIA H100, 580.1, 81559 MiB, 9.0\n", "13.0", 2, ["ok", "ok"], "CUDA 13.0"),
        ("NVIDIA H100, 580.1, 81559 MiB, 9.0\n", "13.0", 0, ["ok", "problem"], "no GPU that this process may use"),
        ("NVIDIA H100, 580.1, 81559 MiB, 9.0\n", None, 0, ["ok", "problem"], "libcuda.so.1, cannot be loaded"),
        ("", "13.0", 1, ["problem"], "nvidia-smi does not answer"),
    ],
)
def test_gpus_drivers_and_cuda_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, smi: str | None, newest: str | None, cards: int, states: list[str], says: str
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None if smi is None else "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor, "_output_of", lambda command: smi or None)
    monkeypatch.setattr(doctor, "gpu_count", lambda: cards)
    monkeypatch.setattr(doctor, "cuda_version", lambda: newest)
    findings = list(doctor.graphics())
    assert [finding.state for finding in findings] == states
    assert says in findings[-1].detail
    assert all(finding.remedy for finding in findings if finding.state == "problem")


def test_processor_features_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = "fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8"
    monkeypatch.setattr(doctor, "cpu_facts", lambda: {"flags": flags, "model name": "Some CPU"})
    finding = next(doctor.processor())
    for feature in ("AVX2", "AVX-512", "AVX-512 VNNI (int8)", "AVX-512 bf16", "AMX bf16", "AMX int8"):
        assert feature in finding.detail
    monkeypatch.setattr(doctor, "cpu_facts", lambda: {"flags": "fpu", "model name": "Old CPU"})
    finding = next(doctor.processor())
    assert finding.state == "note"
    assert "no AVX2" in finding.detail
