# SPDX-License-Identifier: Apache-2.0
"""What only the OpenVINO engine does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rfvit_rt.engines import load_engine, prove
from rfvit_rt.engines.openvino import openvino
from rfvit_rt.errors import EngineError

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_chooses_the_precision_of_the_processor(model):
    with load_engine(model) as engine:
        assert engine.precision == ("bf16" if HAS_BF16 else "f32")


def test_names_version_processor_precision_and_streams(model):
    with load_engine(model, precision="f32", threads=1) as engine:
        release = openvino.__version__.split("-")[0]
        assert engine.description.startswith(f"OpenVINO {release} on CPU (")
        assert engine.description.endswith("), f32, 1 streams")


@pytest.mark.skipif(not HAS_BF16, reason="this processor does not compute in bf16")
def test_bf16_reproduces_the_golden_output(model):
    with load_engine(model, precision="bf16") as engine:
        assert 0 < prove(engine, model) <= 5e-2


@pytest.mark.skipif(HAS_BF16, reason="this processor computes in bf16")
def test_refuses_bf16_where_it_would_be_emulated(model):
    with pytest.raises(EngineError, match=r"cannot compute in 'bf16' on this CPU; .* use f32"):
        load_engine(model, precision="bf16")


def test_nothing_is_reported_to_anyone(model, tmp_path):
    """OpenVINO's telemetry, left alone, writes an identity under the home folder and forks a process that sends it."""
    code = """
import sys
from pathlib import Path
events = []
watched = ("os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, arguments: events.append(event) if event in watched else None)
from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
load_engine(read_model(Path(sys.argv[1]))).close()
print(sorted(name for name in sys.modules if "openvino_telemetry" in name), events)
"""
    # Telemetry turns itself off under continuous integration, where this test could then not fail.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    child = subprocess.run(
        [sys.executable, "-c", code, model.path],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"HOME": str(tmp_path)},
    )
    assert child.stdout.strip() == "[] []"
    assert list(tmp_path.iterdir()) == []
