# SPDX-License-Identifier: Apache-2.0
"""Where the results of a run go besides the annotated recording: checked before the work, opened when it can begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import CSIFrame, IQBlock, Mask
from rfvit_rt.engines import Engine
from rfvit_rt.errors import OutputError
from rfvit_rt.figures import Figures
from rfvit_rt.sinks.files import check_output
from rfvit_rt.sinks.jsonl import JsonLinesSink, is_device
from rfvit_rt.sinks.mqtt import MqttSink, parse_broker
from rfvit_rt.sinks.prometheus import PrometheusSink, RunInfo, parse_address
from rfvit_rt.sinks.zmq import ZmqSink
from rfvit_rt.web.place import Place, check_folder
from rfvit_rt.wire.results import Result


class Sink(Protocol):
    """Takes results one by one."""

    def write(self, result: Result) -> None:
        """Take one; raises OutputError where that is no longer possible."""


@runtime_checkable
class Viewer(Protocol):
    """Looks on as a stream goes through the model: sees what the model saw, and what it made of that."""

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take a window's spectrogram, (step, bin) in dB over the noise floor, at the place of its mask."""

    def add_mask(self, mask: Mask) -> None:
        """Take a stretch of labels; stretches follow each other and do not overlap."""


@runtime_checkable
class Listener(Protocol):
    """Hears the samples of a stream as they come, before the model does and in another thread."""

    def add_block(self, block: IQBlock) -> None:
        """Take the next block."""


class FrameViewer(Protocol):
    """Looks on as frames of CSI come."""

    def add_frame(self, frame: CSIFrame, amplitude: NDArray[np.float32]) -> None:
        """Take a frame, its time stamp counted from the first one, and its amplitudes, (antenna, subcarrier)."""


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
    mqtt : str or None
        URL of the broker; may hold a password.
    metrics : str or None
        Where Prometheus may ask: a port, or host and port.
    overwrite : bool
        Whether existing files may be replaced.
    web : Place or None
        Where to serve a page that shows the run.
    """

    console: Console
    jsonl: str | None = None
    png: Path | None = None
    publish: str | None = None
    mqtt: str | None = field(default=None, repr=False)
    metrics: str | None = None
    overwrite: bool = False
    web: Place | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files among them, by the option that names them."""
        named = {"--jsonl": None if self.jsonl == "-" else self.jsonl, "--png": self.png}
        return {option: Path(path) for option, path in named.items() if path}


def check_outputs(outputs: Outputs, inputs: Iterable[Path], results: Iterable[Path]) -> None:
    """Refuse outputs that cannot be written, or would destroy what is read or another output."""
    if outputs.mqtt is not None:
        parse_broker(outputs.mqtt)
    if outputs.metrics is not None:
        parse_address(outputs.metrics)
    if outputs.web and outputs.web.folder is not None:
        check_folder(outputs.web.folder)
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
        if outputs.publish is not None:
            sinks.append(stack.enter_context(ZmqSink(outputs.publish)))
        if outputs.jsonl:
            sinks.append(stack.enter_context(JsonLinesSink(outputs.jsonl, outputs.overwrite)))
        if outputs.mqtt is not None:
            sinks.append(stack.enter_context(_publishing(outputs.mqtt, outputs.console)))
        yield sinks


@contextmanager
def _publishing(url: str, console: Console) -> Iterator[Sink]:
    """A sink to an MQTT broker, which tells in the end what did not reach it."""
    broker = parse_broker(url)
    sink = MqttSink(broker, tell=lambda line: console.print(line, style="yellow", soft_wrap=True))
    with sink:
        yield sink
    for count, why in (
        (sink.dropped, "dropped, because too many were waiting for the broker"),
        (sink.undelivered, "not acknowledged by the broker at the end"),
    ):
        if count:
            console.print(f"MQTT: {count:,} results were {why}, {broker.url}", style="yellow", soft_wrap=True)


@contextmanager
def serving_metrics(
    outputs: Outputs, engine: Engine, model: ModelFile, figures: Callable[[], Figures]
) -> Iterator[list[Sink]]:
    """Let Prometheus ask for the figures of a run, if that is wanted.

    Yields
    ------
    list of Sink
        The one that answers, or none.

    Raises
    ------
    OutputError
        If it cannot listen there.
    """
    if outputs.metrics is None:
        yield []
        return
    contract = model.contract
    info = RunInfo(engine.name, engine.description, engine.precision, contract.name, contract.task, model.sha256)
    with PrometheusSink(parse_address(outputs.metrics), info, figures) as sink:
        warning = ", open to whoever can reach it: it asks for no password" if sink.address.is_open else ""
        outputs.console.print(f"Metrics: {sink.address.url}{warning}", soft_wrap=True)
        yield [sink]
