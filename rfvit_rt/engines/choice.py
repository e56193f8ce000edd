# SPDX-License-Identifier: Apache-2.0
"""``--engine auto``: the fastest engine that proves itself on this machine, and why it is that one.

Nothing heavy is imported where there is no GPU: the one candidate then is OpenVINO.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import EngineError, RfvitError

AUTO = "auto"
_TRIAL_BATCH = 8
_TRIAL_RUNS = 5


@dataclass(frozen=True)
class Choice:
    """An engine, and what became of every candidate.

    Attributes
    ----------
    engine : Engine
        Proved; the caller closes it.
    reasons : tuple of str
        One line for each candidate, the chosen one's first.
    """

    engine: Engine
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """An engine that may run here, on a device in its own terms; and the packages, one of which it needs, or all."""

    name: str
    device: str | None
    packages: tuple[tuple[str, ...], ...] = ()
    needs_gpu: bool = False


def choose_engine(
    model: ModelFile,
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    takes_iq: bool = False,
) -> Choice:
    """Load every engine that can run a model here, have each prove itself, and keep the fastest.

    Parameters
    ----------
    model : ModelFile
    precision, threads, device : optional
        As :func:`rfvit_rt.engines.load_engine` takes them. With a device of ``cuda``, only engines for it are tried.
    takes_iq : bool
        Leave out engines that take pictures alone.

    Raises
    ------
    EngineError
        If no engine can be used; the message says why of each.
    """
    started: list[Engine] = []
    reasons: list[str] = []
    try:
        for candidate in _candidates(device):
            reason = _obstacle(candidate)
            if reason is None:
                try:
                    engine = load_engine(
                        model, candidate.name, precision=precision, threads=threads, device=candidate.device
                    )
                except RfvitError as error:
                    reason = str(error)
                else:
                    if engine.takes_iq or not takes_iq:
                        started.append(engine)
                        continue
                    engine.close()
                    reason = "it takes pictures, not IQ"
            reasons.append(f"{candidate.name} is left out: {reason}")
        if not started:
            raise EngineError("no engine can run the model here. " + ". ".join(reasons))
        return _fastest(started, model, reasons)
    except BaseException:
        for engine in started:
            engine.close()
        raise


def _candidates(device: str | None) -> Iterator[_Candidate]:
    """Those that suit a device, the likely fastest first."""
    if device is None or device.lower().startswith("cuda"):
        tensorrt = (("tensorrt", "tensorrt_lean"), ("pycuda",))
        yield _Candidate("tensorrt", device, tensorrt, needs_gpu=True)
        yield _Candidate("pytorch", device or "cuda", (("torch",),), needs_gpu=True)
    if device is None or not device.lower().startswith("cuda"):
        yield _Candidate("openvino", device)


def _obstacle(candidate: _Candidate) -> str | None:
    """What is known to keep an engine from starting, found without importing it."""
    if candidate.needs_gpu and gpu_count() == 0:
        return "no NVIDIA GPU here"
    for alternatives in candidate.packages:
        if not any(find_spec(package) for package in alternatives):
            return f"{alternatives[0]} is not installed"
    return None


def gpu_count() -> int:
    """NVIDIA GPUs that the driver has for this process."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_version() -> str | None:
    """Newest CUDA whose programs NVIDIA's driver here runs, such as ``13.0``; None where there is no driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value <= 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _fastest(started: list[Engine], model: ModelFile, reasons: list[str]) -> Choice:
    if len(started) == 1:
        return Choice(started[0], (f"{started[0].name}: nothing else can run the model here", *reasons))
    speeds = {engine.name: _speed(engine, model) for engine in started}
    chosen = max(started, key=lambda engine: speeds[engine.name])
    others = [engine for engine in started if engine is not chosen]
    for engine in others:
        engine.close()
        reasons.append(f"{engine.name} is left out: {speeds[engine.name]:.0f} pictures a second")
    return Choice(chosen, (f"{chosen.name}: {speeds[chosen.name]:.0f} pictures a second here", *reasons))


def _speed(engine: Engine, model: ModelFile) -> float:
    """Pictures a second: the median of a few short runs, after one that nobody times."""
    golden = model.contract.golden.inputs(model.contract.spec)
    batch = [np.repeat(part, _TRIAL_BATCH, axis=0) for part in golden]
    seconds = []
    for _ in range(1 + _TRIAL_RUNS):
        begun = time.perf_counter()
        engine.infer(*batch)
        seconds.append(time.perf_counter() - begun)
    return _TRIAL_BATCH / float(np.median(seconds[1:]))
