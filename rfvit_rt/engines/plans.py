# SPDX-License-Identifier: Apache-2.0
"""Where TensorRT plans are kept, and what keeps a stale or foreign one from being run.

A plan is machine code for one GPU, made by one release of TensorRT from one model. It lies in a file beside a record of
all that, in JSON, with the plan's SHA-256, which is compared before TensorRT sees a byte. That finds files that were
cut short, replaced or brought from elsewhere; it is no protection from somebody who can write to the folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rfvit_rt.errors import EngineError

FORMAT_VERSION = 1
SUFFIX = ".plan"
MAX_BATCH = 4096
_MAX_RECORD = 1 << 16  # bytes; a record has some 500
_OTHER_FOLDER = "make it writable, or name another folder in RFVIT_PLANS"


class BuildProgress(Protocol):
    """What TensorRT tells of a build while it goes on, from threads of its own. Phases nest."""

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Begin a phase of so many steps."""

    def step(self, phase: str, step: int) -> bool:
        """Finish a step of a phase; a False as answer ends the build."""

    def finish(self, phase: str) -> None:
        """End a phase."""


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on.

    Attributes
    ----------
    model_sha256 : str
        Of the ONNX file, in hexadecimal.
    tensorrt : str
        Version of TensorRT that made the plan.
    gpu : str
        Name of the GPU that it was made on.
    compute_capability : str
        Of that GPU, such as ``9.0``.
    precision : str
        One of :data:`rfvit_rt.engines.precision.PRECISIONS`.
    batches : tuple of int
        Batch sizes that it is meant for, ascending: it takes any from the first to the last.
    portable : bool
        Whether it is for the lean runtime of its release, which later releases of TensorRT can load.
    """

    model_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    batches: tuple[int, ...]
    portable: bool = False

    def obstacle(self, here: PlanKey) -> str | None:
        """Why a plan of this key cannot serve where `here` is wanted; None where it can.

        Examples
        --------
        >>> made = PlanKey("ab", "11.3.0", "NVIDIA H100", "9.0", "f16", (1, 8))
        >>> made.obstacle(dataclasses.replace(made, tensorrt="11.4.0"))
        'it was made by TensorRT 11.3.0, this is 11.4.0'
        """
        if self.model_sha256 != here.model_sha256:
            return (
                f"it was made from another model file (SHA-256 {self.model_sha256[:12]}, not {here.model_sha256[:12]})"
            )
        if (self.gpu, self.compute_capability) != (here.gpu, here.compute_capability):
            return (
                f"it was made for {self.gpu} (compute capability {self.compute_capability}), this is {here.gpu} "
                f"({here.compute_capability})"
            )
        later = self.portable and _release(here.tensorrt) >= _release(self.tensorrt)
        if self.tensorrt != here.tensorrt and not later:
            return f"it was made by TensorRT {self.tensorrt}, this is {here.tensorrt}"
        if self.precision != here.precision:
            return f"it computes in {self.precision}, not in {here.precision}"
        if self.batches != here.batches:
            return f"it was made for batches of {_listed(self.batches)}, not of {_listed(here.batches)}"
        if here.portable and not self.portable:
            return "it was not made version-compatible"
        return None


@dataclass(frozen=True)
class StoredPlan:
    """A plan as it was found, with its record."""

    key: PlanKey
    plan: bytes


def plan_folder() -> Path:
    """Folder that plans are kept in: what RFVIT_PLANS names, else ``rfvit/plans`` in the user's cache.

    Notes
    -----
    The cache is where the XDG Base Directory Specification puts it: ``$XDG_CACHE_HOME``, which counts only where it is
    an absolute path, else ``~/.cache``.
    """
    if named := os.environ.get("RFVIT_PLANS"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "rfvit" / "plans"


def plan_path(folder: Path, model_name: str, precision: str, gpu: str) -> Path:
    """File of a plan; its record is beside it, with ``.json`` appended.

    The name holds what one wants side by side; whatever else changes makes the plan there stale.

    Examples
    --------
    >>> plan_path(Path("plans"), "spectrum-small", "f16", "NVIDIA H100 80GB HBM3").name
    'spectrum-small-f16-nvidia-h100-80gb-hbm3.plan'
    """
    return folder / f"{_slug(model_name)}-{precision}-{_slug(gpu)}{SUFFIX}"


def timing_cache_path(folder: Path, key: PlanKey) -> Path:
    """File of the timings that TensorRT measured on this GPU, which make the next build faster."""
    return folder / f"timing-{_slug(key.tensorrt)}-{_slug(key.gpu)}-{_slug(key.compute_capability)}.cache"


def read_plan(path: Path) -> StoredPlan:
    """Read a plan, and hold it to its record.

    Raises
    ------
    EngineError
        If there is none, its record is malformed, it is not what its record says, or others than this user and root
        can write it: a plan is code.
    """
    key, sha256, size = _read_record(record_path(path))
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            plan = file.read(size + 1)
    except OSError as error:
        raise EngineError(f"cannot read the plan {path}: {error.strerror}") from error
    if hashlib.sha256(plan).hexdigest() != sha256:
        raise EngineError(f"the plan {path} is not the one of its record: it is cut short, or was replaced")
    return StoredPlan(key, plan)


def write_plan(path: Path, key: PlanKey, plan: bytes) -> None:
    """Write a plan and its record; a reader sees the old ones or the new ones, and takes no mixture of them.

    Raises
    ------
    EngineError
        If the folder cannot be made or written.
    """
    record = {
        "version": FORMAT_VERSION,
        "key": dataclasses.asdict(key),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_bytes": len(plan),
    }
    write_file(path, plan)
    write_file(record_path(path), json.dumps(record, indent=1).encode())


def record_path(path: Path) -> Path:
    """File of a plan's record."""
    return path.with_name(path.name + ".json")


def read_timings(path: Path) -> bytes:
    """Read a timing cache; empty where there is none. TensorRT checks whether it fits."""
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise EngineError(f"cannot read the timing cache {path}: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Make the folder for plans, this user's alone, where it is missing; raises :class:`EngineError` if none can be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"cannot make the folder {folder}: {error.strerror}; {_OTHER_FOLDER}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EngineError(f"cannot write to the folder {folder}; {_OTHER_FOLDER}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file in one step, readable by this user alone; raises :class:`EngineError` where that fails."""
    make_folder(path.parent)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}; {_OTHER_FOLDER}") from error


def parse_batches(text: str) -> tuple[int, ...]:
    """Read batch sizes such as ``1,8,32``; they come back in ascending order, each once.

    Raises
    ------
    EngineError
        If they are not whole numbers from 1 to 4096.

    Examples
    --------
    >>> parse_batches("8,1,32")
    (1, 8, 32)
    """
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sizes = (0,)
    if not 1 <= sizes[0] <= sizes[-1] <= MAX_BATCH:
        raise EngineError(f"batch sizes are '{text}', expected whole numbers from 1 to {MAX_BATCH}, such as 1,8,32")
    return sizes


def _read_record(path: Path) -> tuple[PlanKey, str, int]:
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            data = file.read(_MAX_RECORD + 1)
    except FileNotFoundError as error:
        raise EngineError(f"there is no plan {path.with_suffix('')}") from error
    except OSError as error:
        raise EngineError(f"cannot read the plan's record {path}: {error.strerror}") from error
    try:
        if len(data) > _MAX_RECORD:
            raise ValueError(f"it is longer than {_MAX_RECORD} bytes")
        record = json.loads(data)
        if record["version"] != FORMAT_VERSION:
            raise ValueError(f"its version is {record['version']!r:.20}, not {FORMAT_VERSION}")
        return _read_key(record["key"]), _read_text(record["plan_sha256"]), _read_count(record["plan_bytes"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EngineError(f"the plan's record {path} is malformed ({reason})") from error


def _read_key(fields: dict[str, Any]) -> PlanKey:
    batches = tuple(_read_count(size) for size in fields["batches"])
    if not batches or list(batches) != sorted(set(batches)):
        raise ValueError("its batch sizes are not in ascending order")
    key = PlanKey(**fields | {"batches": batches})
    for field in dataclasses.fields(key):
        if field.name not in ("batches", "portable"):
            _read_text(getattr(key, field.name))
    if type(key.portable) is not bool:
        raise ValueError("portable is true or false")
    return key


def _read_text(value: Any) -> str:
    if type(value) is not str or not value:
        raise ValueError("a text is missing")
    return value


def _read_count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a count is not a positive whole number")
    return value


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise EngineError(f"{path} could have been written by another user, and a plan is code: delete it")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _listed(batches: tuple[int, ...]) -> str:
    return ", ".join(map(str, batches))
