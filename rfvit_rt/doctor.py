# SPDX-License-Identifier: Apache-2.0
"""What `rfvit doctor` finds: what is installed, what starts, and what will hurt, each with its remedy."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import zmq

from rfvit_rt.engines import engine_names, load_engine
from rfvit_rt.engines.choice import cuda_version, gpu_count
from rfvit_rt.errors import RfvitError
from rfvit_rt.flowgraph import find_blocks, find_gnuradio_python
from rfvit_rt.models import shipped_models

State = Literal["ok", "note", "problem"]

PACKAGES = (
    "rfvit-rt",
    "numpy",
    "scipy",
    "pyzmq",
    "sigmf",
    "onnx",
    "openvino",
    "torch",
    "tensorrt",
    "pycuda",
    "pyserial",
)
OPTIONAL = {"torch": "train", "tensorrt": "tensorrt", "pycuda": "tensorrt"}  # and the extra that brings them
SPEEDS = {  # processor features that inference gains from, as /proc/cpuinfo has them
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI (int8)",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
}
_PROBE_SECONDS = 60
# One receive buffer of this size holds 34 ms of cf32 samples at 61.44 MS/s: what a busy reader may be late by.
_GOOD_BUFFER = 16 << 20
_LIVE_RATE = 20e6  # samples a second of a common live stream, 8 bytes each
_MESSAGE = 64 << 10  # bytes of a message that GNU Radio's scheduler makes of samples, most often
_OLD = 0.2  # seconds that waiting samples may add to their age without a word

_GNURADIO_PROBE = """
import inspect, json
from gnuradio import gr, zeromq
found = {"version": gr.version(), "drop_on_hwm": "drop_on_hwm" in (zeromq.pub_sink.__init__.__doc__ or "")}
for name in ("uhd", "soapy", "qtgui", "rfvit"):
    try:
        __import__("gnuradio." + name)
        found[name] = True
    except Exception:
        found[name] = False
print(json.dumps(found))
"""


_TORCH_PROBE = """
import json, torch
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "devices": torch.cuda.device_count()}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
        What it is about.
    state : {"ok", "note", "problem"}
        ``note`` is worth knowing and may hurt at high rates; a ``problem`` keeps something from working.
    detail : str
        What was found.
    remedy : str
        What to do about it; empty where nothing needs doing.
    """

    topic: str
    state: State
    detail: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at one thing after another; some take seconds."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        packages,
        processor,
        graphics,
        cuda,
        models_and_engines,
        gnuradio,
        zeromq,
        kernel,
    )
    for look in looks:
        yield from look()


def packages() -> Iterator[Finding]:
    """Versions of what rfvit is built on."""
    yield Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            if name in OPTIONAL:
                remedy = f"only if you want it: pip install -e '.[{OPTIONAL[name]}]' in the repository"
                yield Finding(name, "note", "not installed", remedy)
            else:
                yield Finding(name, "problem", "not installed", "pip install -e . in the repository")


def processor() -> Iterator[Finding]:
    """Cores that this process may use, and the features that make inference fast."""
    cores = len(os.sched_getaffinity(0))
    facts = cpu_facts()
    has = [text for flag, text in SPEEDS.items() if flag in facts.get("flags", "").split()]
    detail = (
        f"{facts.get('model name', platform.machine())}, {cores} cores for this process, {', '.join(has) or 'no AVX2'}"
    )
    if cores < 2:
        yield Finding(
            "Processor", "note", detail, "the flowgraph and rfvit share one core: give both more, or lower the rate"
        )
    elif not has:
        yield Finding("Processor", "note", detail, "inference will be slow: 'rfvit bench' says what it sustains")
    else:
        yield Finding("Processor", "ok", detail)
    governors = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor"):
        with suppress(OSError):  # of a core that is switched off
            governors.add(path.read_text().strip())
    if governors - {"performance"}:
        remedy = "steadier at high rates: sudo cpupower frequency-set -g performance"
        yield Finding("Frequency governor", "note", ", ".join(sorted(governors)), remedy)


def graphics() -> Iterator[Finding]:
    """NVIDIA cards, their driver, and the CUDA that it runs."""
    command, cards, newest = shutil.which("nvidia-smi"), gpu_count(), cuda_version()
    if command is None and newest is None:
        yield Finding("GPU", "note", "no NVIDIA driver here; inference runs on the processor")
        return
    if command is not None:
        query = [command, "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
        output = _output_of(query)
        if output is None:
            yield Finding(
                "GPU", "problem", "nvidia-smi does not answer", "reinstall the driver, or reboot after an update of it"
            )
            return
        for line in filter(None, output.splitlines()):
            yield Finding("GPU", "ok", line.strip())
    if newest is None:
        detail = "the driver's library, libcuda.so.1, cannot be loaded: no engine can use the GPU"
        remedy = "install the driver's CUDA part; in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        yield Finding("CUDA", "problem", detail, remedy)
    elif cards == 0:
        remedy = "look at CUDA_VISIBLE_DEVICES, and whether this user may open /dev/nvidia*"
        yield Finding("CUDA", "problem", f"a driver for CUDA {newest}, but no GPU that this process may use", remedy)
    else:
        here = "one GPU" if cards == 1 else f"{cards} GPUs"
        yield Finding("CUDA", "ok", f"the driver runs programs for CUDA {newest} and earlier, on {here} here")


def cuda() -> Iterator[Finding]:
    """Whether torch can use the NVIDIA cards; nothing where there are none."""
    cards = gpu_count()
    if cards == 0 or find_spec("torch") is None:
        return
    output = _output_of([sys.executable, "-c", _TORCH_PROBE])
    if output is None:
        yield Finding("torch on CUDA", "problem", "torch cannot be imported", "pip install -e '.[train]' again")
        return
    found = json.loads(output.splitlines()[-1])
    if found["cuda"] is None:
        detail = f"torch {found['torch']} was built without CUDA, and here are {cards} NVIDIA GPUs"
        yield Finding("torch on CUDA", "note", detail, "install torch for CUDA, as pytorch.org says for this system")
    elif found["devices"] == 0:
        detail = f"torch {found['torch']} for CUDA {found['cuda']} cannot use the driver"
        yield Finding("torch on CUDA", "problem", detail, "update NVIDIA's driver, or install torch for an older CUDA")
    else:
        yield Finding(
            "torch on CUDA", "ok", f"torch {found['torch']} for CUDA {found['cuda']}, {found['devices']} GPUs"
        )


def models_and_engines() -> Iterator[Finding]:
    """Every model that ships, in every engine: whether it starts, and reproduces its golden output."""
    try:
        shipped = list(shipped_models())
    except RfvitError as error:
        yield Finding("Models that ship", "problem", str(error), "install rfvit again")
        return
    for model in shipped:
        for name in engine_names():
            topic = f"{name} with {model.contract.name}"
            try:
                with load_engine(model, name) as engine:
                    yield Finding(topic, "ok", engine.description)
            except RfvitError as error:
                state: State = "problem" if name == engine_names()[0] else "note"
                detail, _, remedy = str(error).rpartition(";")
                yield Finding(topic, state, detail or str(error), remedy.strip())


def gnuradio() -> Iterator[Finding]:
    """GNU Radio's Python, what it brings, and whether rfvit's blocks are there."""
    try:
        python = find_gnuradio_python()
    except RfvitError as error:
        detail, _, remedy = str(error).partition(";")
        yield Finding("GNU Radio", "problem", detail, remedy.strip())
        return
    output = _output_of([str(python), "-c", _GNURADIO_PROBE], {"PYTHONPATH": os.pathsep.join(map(str, find_blocks()))})
    if output is None:
        yield Finding(
            "GNU Radio", "problem", f"{python} cannot import its ZeroMQ blocks", "reinstall the package gnuradio"
        )
        return
    found = json.loads(output.splitlines()[-1])
    yield Finding("GNU Radio", "ok", f"{found['version']} in {python}")
    wanted = {
        "uhd": ("USRPs through UHD", "sudo apt-get install gnuradio"),
        "soapy": ("radios through SoapySDR", "sudo apt-get install gnuradio soapysdr-module-all"),
        "qtgui": ("windows and the waterfall", "sudo apt-get install gnuradio python3-pyqt5"),
        "rfvit": ("rfvit's own blocks", "make install-blocks in the repository"),
    }
    for name, (purpose, remedy) in wanted.items():
        if found[name]:
            yield Finding(f"gnuradio.{name}", "ok", purpose)
        else:
            yield Finding(f"gnuradio.{name}", "note", f"missing: {purpose}", remedy)
    if not found["drop_on_hwm"]:
        remedy = "a PUB Sink with its default high-water mark queues 1000 messages: choose a small one, such as 8"
        yield Finding("PUB Sink", "note", "this release cannot choose between dropping and blocking", remedy)


def zeromq() -> Iterator[Finding]:
    """ZeroMQ itself, and what its default high-water mark means for the age of samples."""
    yield Finding("ZeroMQ", "ok", f"libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}")
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        waiting = socket.sndhwm
    seconds = waiting * _MESSAGE / 8 / _LIVE_RATE  # of cf32 samples
    if waiting == 0 or seconds > _OLD:
        amount = "without bound" if waiting == 0 else f"{waiting} messages, {seconds:.1f} s of samples at 20 MS/s,"
        detail = f"a sink that sets no high-water mark queues {amount} for a reader that falls behind"
        remedy = "give the ZMQ sinks of live flowgraphs a small one, such as 8; rfvit's own IQ Sink sets 32"
        yield Finding("ZeroMQ high-water mark", "note", detail, remedy)


def kernel() -> Iterator[Finding]:
    """Socket buffers that bound how late a reader may be, and USB memory that SDRs need."""
    for name, purpose in (("rmem_max", "receive"), ("wmem_max", "send")):
        size = _number(Path("/proc/sys/net/core") / name)
        if size is None:
            continue
        detail = f"net.core.{name} is {size} bytes: the largest UDP and SDR {purpose} buffer"
        if size < _GOOD_BUFFER:
            yield Finding(
                f"Kernel {purpose} buffer", "note", detail, f"sudo sysctl -w net.core.{name}={_GOOD_BUFFER << 1}"
            )
        else:
            yield Finding(f"Kernel {purpose} buffer", "ok", detail)
    held = [_number(Path("/proc/sys/net/ipv4") / name, 2) for name in ("tcp_rmem", "tcp_wmem")]
    if None not in held:
        total = sum(filter(None, held))
        detail = f"net.ipv4.tcp_rmem and tcp_wmem let a connection hold {total / 2**20:.0f} MiB"
        if total / 8 / _LIVE_RATE > _OLD:
            detail += f": {total / 8 / _LIVE_RATE:.1f} s of samples at 20 MS/s, on top of ZeroMQ's queues"
            yield Finding("Kernel TCP buffers", "note", detail, "on one machine use ipc:// instead of tcp://")
        else:
            yield Finding("Kernel TCP buffers", "ok", detail)
    usb = _number(Path("/sys/module/usbcore/parameters/usbfs_memory_mb"))
    if usb is not None and 0 < usb < 64:
        remedy = "echo 0 | sudo tee /sys/module/usbcore/parameters/usbfs_memory_mb"
        yield Finding(
            "USB memory", "note", f"{usb} MB for all USB radios together; several at high rates need more", remedy
        )


def cpu_facts() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _number(path: Path, place: int = 0) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8").split()[place])
    except (OSError, ValueError, IndexError):
        return None


def _output_of(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    """What a command printed; None where it failed."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
            env=os.environ | (environment or {}),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and done.stdout.strip() else None
