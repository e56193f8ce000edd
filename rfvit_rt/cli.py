# SPDX-License-Identifier: Apache-2.0
"""``rfvit``: the command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from rfvit_rt import __version__
from rfvit_rt.errors import OutputError, RfvitError, StreamError

if TYPE_CHECKING:
    from rfvit_rt.outputs import Outputs

# Heavy imports (engines, plots) wait until a command needs them, so that --help answers at once.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Recording = Annotated[
    Path, typer.Argument(help="A SigMF recording: its .sigmf-meta, its .sigmf-data, or a .sigmf archive.")
]
Output = Annotated[
    Path | None,
    typer.Option(help="SigMF metadata to write, with the annotations. Default: NAME.rfvit.sigmf-meta beside NAME."),
]
JsonLines = Annotated[str | None, typer.Option(help="Write results as JSON lines to this file; - is standard output.")]
Png = Annotated[Path | None, typer.Option(help="Write a picture: spectrogram, mask and boxes.")]
Publish = Annotated[
    str | None, typer.Option(help="Publish results as JSON on a ZeroMQ PUB socket, such as tcp://127.0.0.1:5558.")
]
Model = Annotated[str | None, typer.Option(help="A model's name or .onnx file. 'rfvit models' lists those that ship.")]
EngineName = Annotated[str, typer.Option(help="What runs the model: openvino, or pytorch (the reference).")]
Precision = Annotated[str | None, typer.Option(help="f32 or bf16. Default: the fastest that this processor has.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads for the model. Default: all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rfvit-rt {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Find LTE and 5G NR in recorded and live spectrum: which signal is where in time and frequency, now."""


@app.command()
def segment(
    source: Annotated[
        str,
        typer.Argument(
            help="A SigMF recording, or a stream: zmq+pull://HOST:PORT reads a GNU Radio PUSH sink, zmq+sub:// a PUB "
            "sink, zmq+req:// a REP sink or srsRAN's RF-over-ZMQ. Any field of ZmqConfig can follow as a query, such "
            "as ?policy=drop-oldest&rate_timeout=20."
        ),
    ],
    output: Output = None,
    jsonl: JsonLines = None,
    png: Png = None,
    publish: Publish = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    sample_rate: Annotated[
        float | None, typer.Option(help="Stream: samples per second, until an rx_rate tag says otherwise.")
    ] = None,
    frequency: Annotated[
        float | None, typer.Option(help="Stream: centre frequency in Hz, until an rx_freq tag says otherwise.")
    ] = None,
    tags: Annotated[
        bool | None, typer.Option(help="Stream: the sink passes tags, which makes lost samples countable.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Stream: the key of the PUB sink.")] = None,
    item_type: Annotated[str | None, typer.Option(help="Stream: SigMF type of the items, cf32_le or ci16_le.")] = None,
    vlen: Annotated[int | None, typer.Option(min=1, help="Stream: samples per item of the sink, 1 by default.")] = None,
    bind: Annotated[bool | None, typer.Option(help="Stream: listen at the address, for senders that connect.")] = None,
    request: Annotated[
        str | None, typer.Option(help="zmq+req: 'count' asks as GNU Radio does, 'dummy' as srsRAN does.")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="Stream: end after so many seconds of samples.")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(help="Stream: give up after so many silent seconds; 0 waits for ever. Default: 10.")
    ] = None,
) -> None:
    """Segment a recording or a live stream.

    **A file:** rfvit segment capture.sigmf-meta --png capture.png

    **A flowgraph:** rfvit segment zmq+sub://127.0.0.1:5555 --tags

    **srsRAN:** rfvit segment zmq+req://127.0.0.1:2000 --sample-rate 23.04e6 --request dummy
    """
    from rfvit_rt import session

    stream_options = {
        "sample_rate": sample_rate,
        "frequency": frequency,
        "tags": tags,
        "key": key,
        "item_type": item_type,
        "vlen": vlen,
        "bind": bind,
        "request": request,
        "idle_timeout": idle_timeout,
    }
    outputs = _outputs(jsonl, png, publish, overwrite)
    options = session.Options(model, engine, precision, threads)
    if "://" in source:
        if output is not None:
            raise OutputError("a live stream has no recording that --output could annotate; use --jsonl or --png")
        session.segment_stream(source, stream_options, duration, options, outputs)
        return
    given = [f"--{name.replace('_', '-')}" for name, value in stream_options.items() if value is not None]
    if given or duration is not None:
        raise StreamError(f"{(given or ['--duration'])[0]} is for streams; a recording says these things itself")
    session.segment_recording(Path(source), output, options, outputs)


@app.command()
def replay(
    recording: Recording,
    speed: Annotated[
        float, typer.Option(min=0, help="Multiple of real time: 1 is as it was recorded, 0 as fast as it goes.")
    ] = 1.0,
    output: Output = None,
    jsonl: JsonLines = None,
    png: Png = None,
    publish: Publish = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Replay a recording through a real GNU Radio flowgraph and segment what arrives.

    The flowgraph (file source, throttle, ZeroMQ PUSH sink with tags) runs in GNU Radio's own Python. No sample is lost
    on the way: the sink waits for the reader. The annotations equal those of 'rfvit segment' on the same recording.

    **As fast as it goes:** rfvit replay capture.sigmf-meta --speed 0
    """
    from rfvit_rt import session

    outputs = _outputs(jsonl, png, publish, overwrite)
    session.replay_recording(recording, speed, output, session.Options(model, engine, precision, threads), outputs)


@app.command()
def models() -> None:
    """List the models that ship: classes, sample rates, size, and accuracy on held-out generated scenes."""
    from rich.table import Table

    from rfvit_rt.models import shipped_models

    table = Table()
    for name in ("Name", "Labels", "Sample rates", "Size", "Mean IoU", "SHA-256"):
        table.add_column(name, no_wrap=name in ("Name", "SHA-256"))
    for model in shipped_models():
        spec = model.contract.spectrogram
        table.add_row(
            model.contract.name,
            ", ".join(model.contract.labels),
            f"{spec.min_sample_rate / 1e6:g} to {spec.max_sample_rate / 1e6:g} MS/s",
            f"{model.path.stat().st_size / 1e6:.1f} MB",
            _accuracy(model.contract.metrics),
            model.sha256[:12],
        )
    _console().print(table)


def _accuracy(metrics: dict[str, Any]) -> str:
    """Mean IoU at every SNR of a report of training.evaluate; empty where a model carries none."""
    by_snr = metrics.get("by_snr_db", {})
    return ", ".join(f"{_figure(figures.get('miou'))} at {snr_db} dB" for snr_db, figures in by_snr.items())


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"  # none where no pixel of the scenes could be judged


def _outputs(jsonl: str | None, png: Path | None, publish: str | None, overwrite: bool) -> Outputs:
    """The outputs that any run can have; people read standard output unless a program does."""
    from rfvit_rt.outputs import Outputs

    return Outputs(_console(stderr=jsonl == "-"), jsonl, png, publish, overwrite)


def _console(stderr: bool = False) -> Console:
    """A console that shows paths, addresses and labels as they are: [brackets] and :colons: mean nothing in them."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def main() -> None:
    """Run the command line; errors of the user's making are one line each, and the exit status is 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to die
    try:
        app()
    except RfvitError as error:
        for message in (str(error), *getattr(error, "__notes__", ())):
            typer.echo(f"error: {message}", err=True)
        sys.exit(1)
