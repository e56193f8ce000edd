# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a model where nobody chose one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from rfvit_rt.engines import choice, load_engine
from rfvit_rt.engines.choice import choose_engine, cuda_version, gpu_count
from rfvit_rt.errors import EngineError

NO_GPU = pytest.mark.skipif(gpu_count() > 0, reason="a GPU is here")


@NO_GPU
def test_openvino_without_a_gpu_and_why(model):
    chosen = choose_engine(model)
    with chosen.engine as engine:
        assert engine.name == "openvino"
    assert chosen.reasons == (
        "openvino: nothing else can run the model here",
        "tensorrt is left out: no NVIDIA GPU here",
        "pytorch is left out: no NVIDIA GPU here",
    )


@NO_GPU
def test_nothing_heavy_is_imported_for_nothing(model):
    code = """
import sys
from pathlib import Path
from rfvit_rt.contract import read_model
from rfvit_rt.engines.choice import choose_engine
choose_engine(read_model(Path(sys.argv[1]))).engine.close()
print({"torch", "tensorrt", "pycuda"} & sys.modules.keys())
"""
    child = subprocess.run([sys.executable, "-c", code, model.path], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "set()"


@NO_GPU
def test_a_gpu_that_is_asked_for_and_not_there(model):
    with pytest.raises(
        EngineError, match=r"no engine can run the model here\. tensorrt is left out: no NVIDIA GPU here"
    ):
        choose_engine(model, device="cuda:1")


@NO_GPU
def test_raw_iq_needs_an_engine_that_takes_it(model):
    with pytest.raises(EngineError, match="openvino is left out: it takes pictures, not IQ"):
        choose_engine(model, takes_iq=True)


def test_options_that_an_engine_refuses_leave_it_out(model):
    with pytest.raises(EngineError, match="openvino is left out: OpenVINO cannot compute in 'int4'"):
        choose_engine(model, precision="int4", device="cpu")


def two_engines(monkeypatch, speeds):
    """Two real engines as candidates, with speeds as if measured: which is faster is not for a test to say."""
    candidates = [choice._Candidate(name, "cpu") for name in ("openvino", "pytorch")]
    monkeypatch.setattr(choice, "_candidates", lambda device: iter(candidates))
    monkeypatch.setattr(choice, "_speed", lambda engine, model: speeds[engine.name])


@pytest.mark.parametrize("fast", ["openvino", "pytorch"])
def test_the_faster_of_two_is_kept_and_the_other_closed(model, monkeypatch, fast, batch):
    pytest.importorskip("torch")
    loaded = []
    monkeypatch.setattr(
        choice, "load_engine", lambda *args, **options: loaded.append(load_engine(*args, **options)) or loaded[-1]
    )
    two_engines(monkeypatch, {"openvino": 1.0, "pytorch": 1.0} | {fast: 250.4})
    slow = "pytorch" if fast == "openvino" else "openvino"
    chosen = choose_engine(model)
    with chosen.engine as engine:
        assert engine.name == fast
        engine.infer(*batch(1))
    assert chosen.reasons == (f"{fast}: 250 pictures a second here", f"{slow} is left out: 1 pictures a second")
    (other,) = [engine for engine in loaded if engine.name == slow]
    with pytest.raises(EngineError, match="closed"):
        other.infer(*batch(1))


def test_one_that_does_not_prove_itself_is_left_out(model, monkeypatch):
    pytest.importorskip("torch")
    from rfvit_rt.engines.pytorch import PyTorchEngine

    two_engines(monkeypatch, {})
    infer = PyTorchEngine.infer
    monkeypatch.setattr(PyTorchEngine, "infer", lambda self, *inputs: infer(self, *inputs)[..., ::-1])
    chosen = choose_engine(model)
    with chosen.engine as engine:
        assert engine.name == "openvino"
    assert chosen.reasons[1].startswith("pytorch is left out: ")
    assert "deviates from its golden output" in chosen.reasons[1]


def test_speed_is_measured_on_the_model(model):
    with load_engine(model, device="cpu") as engine:
        assert choice._speed(engine, model) > 0


@pytest.mark.parametrize(("number", "newest"), [(13000, "13.0"), (12060, "12.6"), (0, None)])
def test_the_drivers_cuda(monkeypatch, number, newest):
    class Driver:
        def cuDriverGetVersion(self, version):  # noqa: N802  (as NVIDIA calls it)
            version._obj.value = number
            return 0

    monkeypatch.setattr(choice.ctypes, "CDLL", lambda name: Driver())
    assert cuda_version() == newest


@NO_GPU
def test_bindings_without_tensorrt_do_not_pass_for_it(model):
    """They are there for tests of what the engine calls."""
    assert find_spec("tensorrt") is None or find_spec("tensorrt_libs") is not None
    with pytest.raises(EngineError):
        load_engine(model, "tensorrt")


@pytest.mark.skipif(find_spec("pycuda") is not None, reason="PyCUDA is installed")
def test_tensorrt_that_is_not_installed_names_its_extra(model):
    with pytest.raises(EngineError, match=r"the tensorrt engine cannot be loaded .*pycuda.*'\.\[tensorrt\]'"):
        load_engine(model, "tensorrt")
