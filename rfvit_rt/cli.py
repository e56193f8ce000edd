# SPDX-License-Identifier: Apache-2.0
"""``rfvit``: the command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfvit_rt import __version__
from rfvit_rt.console import PipedConsole
from rfvit_rt.errors import OutputError, RfvitError, StreamError

if TYPE_CHECKING:
    from rfvit_rt.contract import ModelContract
    from rfvit_rt.outputs import Outputs
    from rfvit_rt.web.place import Place

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
    typer.Option(
        help="SigMF metadata to write, with the annotations. Default: NAME.rfvit.sigmf-meta beside NAME, or none of a "
        "stream."
    ),
]
JsonLines = Annotated[str | None, typer.Option(help="Write results as JSON lines to this file; - is standard output.")]
Png = Annotated[Path | None, typer.Option(help="Write a picture: spectrogram, mask and boxes.")]
Publish = Annotated[
    str | None, typer.Option(help="Publish results as JSON on a ZeroMQ PUB socket, such as tcp://127.0.0.1:5558.")
]
Mqtt = Annotated[
    str | None,
    typer.Option(
        help="Publish results as JSON to an MQTT broker, such as mqtt://127.0.0.1:1883/rfvit. User and password: "
        "RFVIT_MQTT_USERNAME and RFVIT_MQTT_PASSWORD in the environment."
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(help="Let Prometheus scrape figures at this port, such as 9470; HOST:PORT opens it to others."),
]
Web = Annotated[
    bool,
    typer.Option(
        "--web",
        help="Show the run on a page in the browser, at http://127.0.0.1:8470. The page of a recording stays until "
        "Ctrl-C; that of a live stream ends with the run.",
    ),
]
WebAddress = Annotated[
    str | None,
    typer.Option(help="Serve that page at this port; HOST:PORT opens it to other machines, which then need a token."),
]
SaveDir = Annotated[
    Path | None,
    typer.Option(help="Folder for what is saved from that page. Default: beside the recording, or the current one."),
]
Model = Annotated[str | None, typer.Option(help="A model's name or .onnx file. 'rfvit models' lists those that ship.")]
EngineName = Annotated[
    str,
    typer.Option(
        help="What runs the model: openvino, torch (the reference; fast on NVIDIA GPUs), tensorrt, or auto: the "
        "fastest here."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where the engine runs, such as cpu, cuda or cuda:1. Default: its own choice.")
]
FrontEnd = Annotated[
    str,
    typer.Option(help="Where spectrograms are made: cpu, or gpu, which takes raw IQ (--engine torch or tensorrt)."),
]
Precision = Annotated[
    str | None,
    typer.Option(help="f32, bf16 or f16, as the engine has them. Default: the engine's choice."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads for the model. Default: all.")]
Overlap = Annotated[
    float,
    typer.Option(
        min=0, max=0.95, help="Part of a window that the next one covers again; 0 is the fastest, more is steadier."
    ),
]
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
    """Find LTE, 5G NR, WLAN and Bluetooth in spectrum, and what a person does in WiFi CSI: recorded and live."""


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
    mqtt: Mqtt = None,
    metrics: Metrics = None,
    web: Web = False,
    web_address: WebAddress = None,
    save_dir: SaveDir = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    overlap: Overlap = 0.25,
    device: Device = None,
    front_end: FrontEnd = "cpu",
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
    item_type: Annotated[
        str | None, typer.Option(help="Stream: SigMF type of the items, such as cf32_le, ci16_le or cu8.")
    ] = None,
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
    outputs = _outputs(jsonl, png, publish, mqtt, metrics, overwrite, _place(web, web_address, save_dir))
    options = session.Options(model, engine, precision, threads, overlap, device, front_end)
    if "://" in source:
        session.segment_stream(source, stream_options, duration, options, outputs, output)
        return
    given = [f"--{name.replace('_', '-')}" for name, value in stream_options.items() if value is not None]
    if given or duration is not None:
        raise StreamError(f"{(given or ['--duration'])[0]} is for streams; a recording says these things itself")
    session.segment_recording(Path(source), output, options, outputs)


@app.command()
def report(
    recording: Recording,
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: NAME.rfvit.html beside NAME.")
    ] = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Segment a recording and write a report: one HTML file that needs no network, with everything in it.

    Picture, occupancy over time, emissions, annotations, how the run went, settings, the recording's metadata and the
    model's card.

    **For example:** rfvit report capture.sigmf-meta --output report.html
    """
    from rfvit_rt.outputs import Outputs
    from rfvit_rt.report import report_recording
    from rfvit_rt.running import Options

    options = Options(model, engine, precision, threads, device=device)
    report_recording(recording, output, options, Outputs(_console(), overwrite=overwrite))


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
    mqtt: Mqtt = None,
    metrics: Metrics = None,
    web: Web = False,
    web_address: WebAddress = None,
    save_dir: SaveDir = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    overlap: Overlap = 0.25,
    device: Device = None,
    front_end: FrontEnd = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Replay a recording through a real GNU Radio flowgraph and segment what arrives.

    The flowgraph (file source, throttle, ZeroMQ PUSH sink with tags) runs in GNU Radio's own Python. No sample is lost
    on the way: the sink waits for the reader. The annotations equal those of 'rfvit segment' on the same recording.

    **As fast as it goes:** rfvit replay capture.sigmf-meta --speed 0
    """
    from rfvit_rt import session

    outputs = _outputs(jsonl, png, publish, mqtt, metrics, overwrite, _place(web, web_address, save_dir))
    options = session.Options(model, engine, precision, threads, overlap, device, front_end)
    session.replay_recording(recording, speed, output, options, outputs)


@app.command()
def live(
    device: Annotated[
        str,
        typer.Option(
            help="SoapySDR arguments such as driver=rtlsdr, driver=hackrf or driver=lime,serial=...; uhd or uhd:ARGS "
            "for a USRP; rtl_tcp://HOST:PORT; or simulated, which needs no radio."
        ),
    ],
    sample_rate: Annotated[float, typer.Option(help="Samples per second.")],
    frequency: Annotated[float | None, typer.Option(help="Centre frequency in Hz.")] = None,
    hop: Annotated[
        str | None,
        typer.Option(help="Survey instead: centre frequencies in Hz, LOW:HIGH:STEP or a list with commas."),
    ] = None,
    dwell: Annotated[float | None, typer.Option(help="Survey: seconds on each frequency. Default: 0.5.")] = None,
    settle: Annotated[
        float | None, typer.Option(help="Survey: seconds left out after each retune. Default: 0.1.")
    ] = None,
    sweeps: Annotated[
        int | None, typer.Option(min=0, help="Survey: times through the list; 0 is for ever. Default: 1.")
    ] = None,
    gain: Annotated[
        float | None, typer.Option(help="Gain in dB. Default: automatic where the radio has that, 40 dB for a USRP.")
    ] = None,
    antenna: Annotated[str | None, typer.Option(help="The radio's port. Default: its own choice.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="The radio's filter in Hz. Default: its own choice.")] = None,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds of samples.")] = None,
    idle_timeout: Annotated[
        float, typer.Option(min=0, help="Give up after so many silent seconds; 0 waits for ever.")
    ] = 10.0,
    output: Annotated[
        Path | None,
        typer.Option(help="SigMF metadata without samples to write, NAME.sigmf-meta, with all annotations."),
    ] = None,
    jsonl: JsonLines = None,
    png: Png = None,
    publish: Publish = None,
    mqtt: Mqtt = None,
    metrics: Metrics = None,
    web: Web = False,
    web_address: WebAddress = None,
    save_dir: SaveDir = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    overlap: Overlap = 0.25,
    engine_device: Annotated[
        str | None, typer.Option(help="Where the engine runs, such as cpu, cuda or cuda:1. Default: its own choice.")
    ] = None,
    front_end: FrontEnd = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Segment what a radio receives, now: starts a GNU Radio flowgraph for it, and ends it.

    The radio is never held back: what is too fast for this machine is dropped, counted and reported, here or, where the
    flowgraph could not hand it over in time, as lost on the way.

    **An RTL-SDR:** rfvit live --device driver=rtlsdr --frequency 806e6 --sample-rate 2.4e6

    **A survey:** rfvit live --device uhd --hop 700e6:900e6:20e6 --sample-rate 25e6 --output sweep.sigmf-meta

    **No radio:** rfvit live --device simulated --frequency 2.14e9 --sample-rate 20e6 --duration 5
    """
    from rfvit_rt import live as radio_run
    from rfvit_rt.running import Options

    if (frequency is None) == (hop is None):
        raise StreamError("give either --frequency, to stay there, or --hop, to survey a list of frequencies")
    given: dict[str, Any] = {"dwell": dwell, "settle": settle, "sweeps": sweeps}
    survey = {name: value for name, value in given.items() if value is not None}
    if survey and hop is None:
        raise StreamError(f"--{', --'.join(survey)} is for a survey; give --hop too, or leave it out")
    plan = None if hop is None else radio_run.HopPlan(radio_run.parse_hops(hop), **survey)
    centre = plan.frequencies[0] if plan else frequency
    assert centre is not None
    radio = radio_run.Radio(device, centre, sample_rate, gain, antenna, bandwidth)
    outputs = _outputs(jsonl, png, publish, mqtt, metrics, overwrite, _place(web, web_address, save_dir))
    run_options = Options(model, engine, precision, threads, overlap, engine_device, front_end)
    radio_run.segment_radio(radio, plan, duration, idle_timeout, output, run_options, outputs)


@app.command()
def sense(
    source: Annotated[
        str,
        typer.Argument(
            help="Where CSI comes from: nexmon://0.0.0.0:5500 (nexmon_csi), esp32:///dev/ttyUSB0?baud=921600 or "
            "esp32+udp://0.0.0.0:5501 (esp-csi, ESP32-CSI-Tool), zmq+pull://HOST:PORT or zmq+sub:// (a flowgraph), or "
            "a file: .pcap (nexmon_csi), .dat (Intel 5300), .csv or .txt (ESP32)."
        ),
    ],
    jsonl: JsonLines = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture: amplitudes over time, activities below.")] = None,
    publish: Publish = None,
    mqtt: Mqtt = None,
    metrics: Metrics = None,
    web: Web = False,
    web_address: WebAddress = None,
    model: Model = None,
    engine: EngineName = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    overwrite: Overwrite = False,
    mac: Annotated[
        str | None, typer.Option(help="Follow this transmitter alone. Default: the one most frames come from.")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Probability, 0 to 1, that an answer needs; below it is 'unknown'. One that stands needs 0.1 less."
        ),
    ] = 0.5,
    hop: Annotated[float, typer.Option(help="Seconds between answers, at most the model's window.")] = 0.5,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds of frames.")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(help="Live: give up after so many silent seconds; 0 waits for ever. Default: 10.")
    ] = None,
) -> None:
    """Tell what a person does from WiFi CSI, live or recorded.

    **Live:** rfvit sense nexmon://0.0.0.0:5500

    **A file:** rfvit sense capture.pcap --png timeline.png
    """
    from rfvit_rt import sensing
    from rfvit_rt.activity import ActivitySettings
    from rfvit_rt.running import Options

    if not 0 <= threshold <= 1:
        raise StreamError(f"--threshold is {threshold:g}, expected a probability from 0 to 1")
    settings = sensing.SensingSettings(hop, ActivitySettings(threshold), duration)
    outputs = _outputs(jsonl, png, publish, mqtt, metrics, overwrite, _place(web, web_address))
    options = Options(model, engine, precision, threads, device=device)
    sensing.sense(source, {"mac": mac, "idle_timeout": idle_timeout}, settings, options, outputs)


@app.command("replay-csi")
def replay_csi(
    recording: Annotated[Path, typer.Argument(help="A capture: .pcap, .dat, .csv or .txt.")],
    to: Annotated[
        str,
        typer.Option(
            help="udp://HOST:PORT, where 'rfvit sense' listens at nexmon:// or esp32+udp://, or zmq+push://HOST:PORT, "
            "where it connects to with zmq+pull://."
        ),
    ],
    speed: Annotated[
        float, typer.Option(help="Multiple of real time: 1 is as it was recorded, 0 as fast as it goes.")
    ] = 1.0,
) -> None:
    """Send a recorded capture of CSI again with its own timing, to try live sensing with no hardware.

    **To 'rfvit sense nexmon://127.0.0.1:5500':** rfvit replay-csi capture.pcap --to udp://127.0.0.1:5500
    """
    from rfvit_rt.csi_replay import replay_for_people

    replay_for_people(recording, to, speed, _console())


@app.command()
def models() -> None:
    """List the models that ship: what they tell, what they take, size, and accuracy on data held out of training."""
    from rich.table import Table

    from rfvit_rt.models import shipped_models

    table = Table(show_lines=True)
    for name in ("Name and SHA-256", "For", "Labels", "Size", "Mean IoU or\naccuracy"):
        table.add_column(name, no_wrap=name != "For", overflow="fold")
    for model in shipped_models():
        contract = model.contract
        table.add_row(
            f"{contract.name}\n{model.sha256[:12]}",
            _use(contract),
            "\n".join(contract.labels),
            f"{model.path.stat().st_size / 1e6:.1f} MB",
            _accuracy(contract.metrics),
        )
    _console().print(table)


@app.command()
def build(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or .onnx file. Default: the model that 'rfvit segment' takes.")
    ] = None,
    precision: Annotated[str, typer.Option(help="What the plan computes in: fp16, bf16 or fp32.")] = "fp16",
    batch: Annotated[
        str,
        typer.Option(
            help="Batch sizes to prepare for; the plan takes any from the smallest to the largest, and is fastest at "
            "the middle one."
        ),
    ] = "1,8,32",
    device: Annotated[str | None, typer.Option(help="The GPU, such as cuda:1. Default: the first.")] = None,
    iq_in: Annotated[
        float | None,
        typer.Option(help="Also build the plan that takes raw IQ at this sample rate, for --front-end gpu."),
    ] = None,
    item_type: Annotated[
        str, typer.Option(help="Samples which that plan takes: cf32_le, as --front-end gpu has them, or ci16_le.")
    ] = "cf32_le",
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Make it for the lean runtime (pip install tensorrt-lean) of this release, which later releases of "
            "TensorRT can load; it may be slower.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build even where the plan is up to date.")] = False,
) -> None:
    """Build a model's TensorRT plan on this machine's GPU, for --engine tensorrt; it takes minutes.

    Plans are kept in ~/.cache/rfvit/plans, or where RFVIT_PLANS says. One that another model file, GPU, release of
    TensorRT or set of batch sizes has made stale is replaced, never run.

    **The usual one:** rfvit build

    **For raw IQ:** rfvit build spectrum-small --precision fp16 --iq-in 61.44e6
    """
    from rfvit_rt import build as building

    options = building.BuildOptions(model, precision, batch, device, iq_in, item_type, version_compatible, force)
    building.build(options, _console())


@app.command()
def bench(
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Seconds of stream without a loss that the final rate has to hold for. In a few, queues take in what "
            "is too fast.",
        ),
    ] = 20.0,
    rates: Annotated[
        str | None,
        typer.Option(help="Sample rates to try, in Hz, such as 10e6,20e6,40e6. Default: search for the highest."),
    ] = None,
    model: Model = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Measure this engine alone, and run stages and the whole way with it. Default: all are measured, and "
            "openvino runs the rest."
        ),
    ] = None,
    precision: Precision = None,
    threads: Threads = None,
    overlap: Overlap = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw sample age against sample rate.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure what this machine sustains; takes two to four minutes, with nothing else running.

    **Engines:** windows a second of every engine that starts here, in each precision, one and eight windows at a time.

    **Stages:** receive, spectrogram, inference, decode and sinks, one after the other; in `--precision`, as the rest.

    **The whole way:** a GNU Radio flowgraph streams the example recording, at ever other sample rates, through ZeroMQ
    to annotations. The highest rate at which no sample is lost is searched for in short trials, then held for
    `--seconds`. Left out where there is no GNU Radio.

    **One question:** rfvit bench --rates 20e6 --seconds 120
    """
    import json

    from rfvit_rt import bench as benchmark
    from rfvit_rt.running import Options

    rate_list = () if rates is None else benchmark.parse_rates(rates, benchmark.find_segmenter(model))
    console = _console(stderr=as_json)
    options = Options(model, engine or "openvino", precision, threads, overlap)
    settings = benchmark.BenchSettings(seconds=seconds, rates=rate_list)
    found = benchmark.run_bench(options, engine, settings, console, png, overwrite)
    if as_json:
        typer.echo(json.dumps(benchmark.to_dict(found)))
    else:
        for part in benchmark.for_people(found):
            console.print(part, soft_wrap=isinstance(part, str))
    if png:
        drawn = benchmark.write_picture(found, png, overwrite)
        console.print(f"Picture: {png}" if drawn else "No picture: there is nothing to draw", soft_wrap=True)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per finding, for programs.")] = False,
) -> None:
    """Tell what is installed, which engines start, and what will hurt, each with its remedy.

    The exit status is 1 where something keeps rfvit from working; notes are worth knowing and do not count.
    """
    import dataclasses
    import json

    from rfvit_rt.doctor import examine

    console, problems = _console(), 0
    for finding in examine():
        problems += finding.state == "problem"
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(finding)))
        else:
            style = {"ok": "green", "note": "yellow", "problem": "bold red"}[finding.state]
            console.print(f"{finding.state:8}{finding.topic}: {finding.detail}", style=style, soft_wrap=True)
            if finding.remedy:
                console.print(f"        → {finding.remedy}", soft_wrap=True)
    if problems:
        raise typer.Exit(1)


def _use(contract: ModelContract) -> str:
    """The command that a model is for, and what it takes."""
    if contract.task == "activity":
        csi = contract.csi
        return f"rfvit sense: CSI of {csi.min_frame_rate:g} frames/s or more, windows of {csi.window_seconds:g} s"
    spectrogram = contract.spectrogram
    return f"rfvit segment: {spectrogram.min_sample_rate / 1e6:g} to {spectrogram.max_sample_rate / 1e6:g} MS/s"


def _accuracy(metrics: dict[str, Any]) -> str:
    """Mean IoU at every SNR, or accuracy on every split, a line each; empty where a model's metrics have none."""
    figures = [f"{_figure(at.get('miou'))} at {snr_db} dB" for snr_db, at in metrics.get("by_snr_db", {}).items()]
    figures += [f"{_figure(value)} {split}" for split, value in metrics.get("accuracy", {}).items()]
    return "\n".join(figures)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"  # none where no pixel of the scenes could be judged


def _outputs(
    jsonl: str | None,
    png: Path | None,
    publish: str | None,
    mqtt: str | None,
    metrics: str | None,
    overwrite: bool,
    web: Place | None,
) -> Outputs:
    """The outputs that any run can have; people read standard output unless a program does."""
    from rfvit_rt.outputs import Outputs

    return Outputs(_console(stderr=jsonl == "-"), jsonl, png, publish, mqtt, metrics, overwrite, web)


def _place(web: bool, address: str | None, folder: Path | None = None) -> Place | None:
    """Where a page is served, if at all: an address alone asks for one."""
    from rfvit_rt.web.place import DEFAULT_ADDRESS, Place, parse_web_address

    if not web and address is None:
        if folder is not None:
            raise OutputError("--save-dir is for what is saved from the page; give --web as well")
        return None
    return Place(parse_web_address(DEFAULT_ADDRESS if address is None else address), folder)


def _console(stderr: bool = False) -> PipedConsole:
    """A console that shows paths, addresses and labels as they are: [brackets] and :colons: mean nothing in them."""
    return PipedConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


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
