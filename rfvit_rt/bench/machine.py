# SPDX-License-Identifier: Apache-2.0
"""The machine that figures belong to, and who else was using it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rfvit_rt.doctor import SPEEDS, cpu_facts
from rfvit_rt.errors import StreamError
from rfvit_rt.flowgraph import find_gnuradio_python

PACKAGES = ("rfvit-rt", "numpy", "scipy", "pyzmq", "openvino", "torch", "tensorrt")
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_OWN_COLUMNS = 8  # guests, which come after, are counted in the first already


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on.

    Attributes
    ----------
    processor : str
    cores : int
        That this process may use.
    features : tuple of str
        Of the processor, that inference gains from.
    system : str
        Kernel and architecture.
    versions : dict of str to str
        Of Python, of packages, and of GNU Radio where it was found.
    """

    processor: str
    cores: int
    features: tuple[str, ...]
    system: str
    versions: dict[str, str]


def this_machine() -> Machine:
    """Look at the machine that this runs on."""
    facts = cpu_facts()
    flags = facts.get("flags", "").split()
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # it is optional, or nothing would run
            continue
    gnuradio = _gnuradio_version()
    if gnuradio:
        versions["gnuradio"] = gnuradio
    return Machine(
        processor=facts.get("model name", platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        features=tuple(text for flag, text in SPEEDS.items() if flag in flags),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=versions,
    )


def _gnuradio_version() -> str | None:
    try:
        python = find_gnuradio_python()
    except StreamError:
        return None
    command = [str(python), "-c", "from gnuradio import gr; print(gr.version())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:  # a busy machine; no reason to lose what was measured
        return None
    return done.stdout.strip() or None


@dataclass(frozen=True)
class Busy:
    """Processor time in seconds since some moment in the past.

    Attributes
    ----------
    at : float
        ``time.monotonic()``.
    own : float
        Of this process.
    flowgraph : float
        Of the process that was asked about; 0 if none was.
    all : float
        Of the whole machine.
    """

    at: float
    own: float
    flowgraph: float
    all: float

    @classmethod
    def now(cls, flowgraph_pid: int | None = None) -> Busy:
        """Look at the clocks; those that this system does not have stay 0."""
        flowgraph = _process_seconds(flowgraph_pid) if flowgraph_pid is not None else 0.0
        return cls(time.monotonic(), time.process_time(), flowgraph, _machine_seconds())

    def cores_since(self, before: Busy) -> tuple[float, float, float]:
        """Cores that were busy, on average, with this process, with the flowgraph, and with anything else."""
        elapsed, own, flowgraph = self.at - before.at, self.own - before.own, self.flowgraph - before.flowgraph
        others = max(0.0, self.all - before.all - own - flowgraph)
        return own / elapsed, flowgraph / elapsed, others / elapsed


def _process_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime: fields 14 and 15 of proc(5)


def _machine_seconds() -> float:
    try:
        first = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return 0.0
    ticks = [int(count) for count in first.split()[1 : 1 + _OWN_COLUMNS]]
    return (sum(ticks) - sum(ticks[column] for column in _IDLE)) / _TICKS
