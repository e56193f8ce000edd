# SPDX-License-Identifier: Apache-2.0
"""Where the results of a run go besides the annotated recording: checked before the work, opened when it can begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rich.console import Console

from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import check_output
from rfvit_rt.sinks.jsonl import JsonLinesSink, is_device
from rfvit_rt.sinks.zmq import ZmqSink

Sink = JsonLinesSink | ZmqSink


@dataclass(frozen=True)
class Outputs:
    """Where results shall go besides the annotated recording; nothing is opened before a run can begin.

    Attributes
    ----------
    console : Console
        For people.
    jsonl : str or None
        File, or ``-``.
    png : Path or None
        File.
    publish : str or None
        Endpoint of the PUB socket.
    overwrite : bool
        Whether existing files may be replaced.
    """

    console: Console
    jsonl: str | None = None
    png: Path | None = None
    publish: str | None = None
    overwrite: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files among them, by the option that names them."""
        named = {"--jsonl": None if self.jsonl == "-" else self.jsonl, "--png": self.png}
        return {option: Path(path) for option, path in named.items() if path}


def check_outputs(outputs: Outputs, inputs: Iterable[Path], results: Iterable[Path]) -> None:
    """Refuse outputs that cannot be written, or would destroy what is read or another output."""
    for option, path in outputs.files.items():
        for read in inputs:
            if _same_file(path, read):
                raise OutputError(f"{option} {path} is the same file as {read}, which is read; name another file")
        for written in results:
            if _same_file(path, written):
                raise OutputError(f"{option} {path} is also where the annotations go; name another file")
    for (one, path), (other, same) in combinations(outputs.files.items(), 2):
        if _same_file(path, same):
            raise OutputError(f"{one} and {other} are the same file, {path}; name two")
    for path in outputs.files.values():
        if not is_device(path):
            check_output(path, outputs.overwrite)


def _same_file(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


@contextmanager
def open_sinks(outputs: Outputs) -> Iterator[list[Sink]]:
    """Open the sinks that take results one by one, and close them in the end."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if outputs.publish:
            sinks.append(stack.enter_context(ZmqSink(outputs.publish)))
        if outputs.jsonl:
            sinks.append(stack.enter_context(JsonLinesSink(outputs.jsonl, outputs.overwrite)))
        yield sinks
