# SPDX-License-Identifier: Apache-2.0
"""Results as JSON lines, one object a line, in a file or on standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import check_output
from rfvit_rt.wire.results import Result, encode


class JsonLinesSink:
    """Writes every result as a line of its own and flushes it: a reader can follow, and a crash loses nothing.

    The file is made, or emptied, with the first result: a run that fails before it has any leaves an old file alone.

    Parameters
    ----------
    path : path or "-"
        The file; ``-`` is standard output.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists already or its folder is missing or not writable.

    Examples
    --------
    >>> with JsonLinesSink("-") as sink:  # doctest: +SKIP
    ...     sink.write(annotation)
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self._is_stdout = str(path) == "-"
        self._name = "standard output" if self._is_stdout else str(path)
        self._path = Path(path)
        self._replaces = overwrite or is_device(self._path)
        self._file: TextIO | None = sys.stdout if self._is_stdout else None
        if not self._is_stdout and not is_device(self._path):
            check_output(self._path, overwrite)

    def write(self, result: Result) -> None:
        """Write one result.

        Raises
        ------
        OutputError
            If it cannot be written: the disk is full, or whoever read standard output has gone.
        """
        if self._file is None:
            self._file = _open(self._path, self._replaces)
        try:
            self._file.write(encode(result).decode("ascii") + "\n")
            self._file.flush()
        except BrokenPipeError as error:
            if self._is_stdout:
                _abandon_stdout()
            raise OutputError(f"nobody reads {self._name} any more; the results after that are not written") from error
        except OSError as error:
            raise OutputError(f"cannot write to {self._name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._is_stdout or self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            raise OutputError(f"cannot finish {self._name}: {error.strerror}") from error

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_device(path: Path) -> bool:
    """Whether it is a device or a pipe, such as a shell's ``>(...)``: written in place, with no content to lose."""
    return path.is_char_device() or path.is_fifo()


def _open(path: Path, overwrite: bool) -> TextIO:
    try:
        return path.open("w" if overwrite else "x", encoding="ascii", newline="\n")
    except FileExistsError as error:
        raise OutputError(f"{path} exists; name another file or give --overwrite") from error
    except OSError as error:
        raise OutputError(f"cannot create {path}: {error.strerror}") from error


def _abandon_stdout() -> None:
    # Otherwise Python tries to flush the unwritten line once more at its end and complains about the pipe again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
