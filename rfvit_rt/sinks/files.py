# SPDX-License-Identifier: Apache-2.0
"""Output files that are there complete or not at all, and never replace another unasked."""

from __future__ import annotations

import os
from pathlib import Path

from rfvit_rt.errors import OutputError


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Check that a file can be written, before the work that fills it.

    Raises
    ------
    OutputError
        If it exists and may not be overwritten, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; name another file or give --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"folder {path.parent} is not writable; name another output")


def replace_file(path: Path, content: bytes) -> None:
    """Put a complete file in place, so that a crash at any moment leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
