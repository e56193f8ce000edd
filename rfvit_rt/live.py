# SPDX-License-Identifier: Apache-2.0
"""``rfvit live``: a radio through a GNU Radio flowgraph that is started here, segmented while it runs."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import StreamError
from rfvit_rt.flowgraph import Flowgraph, find_flowgraph, find_gnuradio_python
from rfvit_rt.outputs import Outputs
from rfvit_rt.run import Run
from rfvit_rt.running import Options
from rfvit_rt.session import finish_annotations, losses, sample_count_of, segmenting
from rfvit_rt.sinks.sigmf_stream import StreamAnnotations
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource

RTL_TCP_PORT = 1234
MOST_HOPS = 100_000
SIMULATED = "SIMULATED: these signals are made here, by GNU Radio from a generated recording; nothing is received."
DEVICE_FORMS = (
    "expected SoapySDR arguments such as driver=rtlsdr, uhd or uhd:ARGS for a USRP, rtl_tcp://HOST:PORT, or simulated"
)
# A subscription reaches the flowgraph's socket within milliseconds; what is sent before it is not seen here.
_SUBSCRIBED_AFTER = 0.2
_RECEIVE_HWM = 200  # messages: a busy machine's pauses; the ring behind it drops the oldest, so samples stay young
_DRAINED_AFTER = 0.5  # seconds without a sample, once the flowgraph is over, after which none is on its way


@dataclass(frozen=True)
class Radio:
    """A radio and how it is set; None leaves a setting to the radio.

    Attributes
    ----------
    device : str
        SoapySDR arguments (``driver=…``), ``uhd`` or ``uhd:ARGS``, ``rtl_tcp://HOST:PORT``, or ``simulated``.
    frequency : float
        Centre frequency in Hz; with a hop plan, its first.
    sample_rate : float
        Samples per second, in Hz.
    gain : float or None
        In dB.
    antenna : str or None
        Name of the port.
    bandwidth : float or None
        Of the radio's filter, in Hz.
    """

    device: str
    frequency: float
    sample_rate: float
    gain: float | None = None
    antenna: str | None = None
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_positive("--sample-rate", self.sample_rate, "Hz")
        if not math.isfinite(self.frequency) or self.frequency < 0:
            raise StreamError(f"--frequency is {self.frequency:g}, expected a number of Hz")

    @property
    def simulated(self) -> bool:
        """Whether there is no radio at all."""
        return self.device == "simulated"


@dataclass(frozen=True)
class HopPlan:
    """How a radio is retuned.

    Attributes
    ----------
    frequencies : tuple of float
        Centre frequencies in Hz, in order.
    dwell : float
        Seconds of samples from each.
    settle : float
        Seconds of samples that are left out after each retune.
    sweeps : int
        Times to go through the list; 0 is for ever.
    """

    frequencies: tuple[float, ...]
    dwell: float = 0.5
    settle: float = 0.1
    sweeps: int = 1

    def __post_init__(self) -> None:
        _check_positive("--dwell", self.dwell, "seconds")
        if not 0 <= self.settle < math.inf:
            raise StreamError(f"--settle is {self.settle:g}, expected 0 or more seconds")


def parse_hops(text: str) -> tuple[float, ...]:
    """Return the centre frequencies, in Hz, that ``LOW:HIGH:STEP`` or a list with commas stands for.

    Raises
    ------
    StreamError
        If it is neither, or they are too many.

    Examples
    --------
    >>> parse_hops("700e6:740e6:20e6")
    (700000000.0, 720000000.0, 740000000.0)
    >>> parse_hops("806e6,2.14e9")
    (806000000.0, 2140000000.0)
    """
    try:
        if ":" not in text:
            frequencies = [float(part) for part in text.split(",")]
        else:
            low, high, step = (float(part) for part in text.split(":"))
            if not (0 < step < math.inf and math.isfinite(low) and low <= high < math.inf):
                raise ValueError
            count = math.floor((high - low) / step * (1 + 1e-12)) + 1
            if count > MOST_HOPS:
                raise StreamError(f"--hop {text} has {count} frequencies; at most {MOST_HOPS} are possible")
            frequencies = [low + number * step for number in range(count)]
        if not all(0 <= frequency < math.inf for frequency in frequencies):
            raise ValueError
    except (ValueError, OverflowError):  # the latter of a step that is next to nothing
        raise StreamError(
            f"--hop is {text!r}, expected centre frequencies in Hz, LOW:HIGH:STEP or a list with commas, "
            "such as 700e6:900e6:20e6"
        ) from None
    return tuple(frequencies)


def segment_radio(
    radio: Radio,
    plan: HopPlan | None,
    duration: float | None,
    idle_timeout: float,
    output: Path | None,
    options: Options,
    outputs: Outputs,
) -> None:
    """Start the flowgraph for a radio, segment what it receives, and end it.

    The flowgraph never waits for this process: what comes too fast is dropped, counted and reported.

    Parameters
    ----------
    radio : Radio
    plan : HopPlan or None
        None stays on one frequency.
    duration : float or None
        Seconds of samples after which to end.
    idle_timeout : float
        Silent seconds after which the radio is given up; 0 waits for ever.
    output : Path or None
        Where to write the annotations, as SigMF metadata without samples.
    options : Options
    outputs : Outputs

    Raises
    ------
    RfvitError
        If the flowgraph cannot be started or ends by itself, or the model or an output cannot be used; what was found
        until then is written.
    SystemExit
        After Ctrl-C or SIGTERM, with everything so far written.
    """
    name, arguments = flowgraph_for(radio, plan)
    annotations = None
    if output:
        annotations = StreamAnnotations(output, radio.device, _description(radio, plan), outputs.overwrite)
    more_sinks, results = ([annotations], [output]) if annotations and output else ([], [])
    rate, frequency = radio.sample_rate, radio.frequency
    with segmenting(_title(radio, plan), options, outputs, rate, (), results, more_sinks, frequency=frequency) as run:
        find_gnuradio_python()
        run.simulated = radio.simulated
        if radio.simulated:
            outputs.console.print(SIMULATED, style="bold red", soft_wrap=True)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rfvit-"))
            endpoint = f"ipc://{folder}/iq"
            flowgraph = stack.enter_context(
                Flowgraph(
                    find_flowgraph("launch.py"),
                    [str(find_flowgraph(name)), *arguments, f"--endpoint={endpoint}"],
                    stop=run.stop.is_set,
                    name=name,
                )
            )
            config = ZmqConfig(
                "sub",
                endpoint,
                tags=True,
                sample_rate=radio.sample_rate,
                frequency=radio.frequency,
                may_retune=plan is not None and len(set(plan.frequencies)) > 1,
                sample_count=sample_count_of(duration, radio.sample_rate),
                receive_hwm=_RECEIVE_HWM,
                idle_timeout=idle_timeout or None,
            )
            _segment(run, flowgraph, config, annotations)
        if annotations:
            finish_annotations(annotations, run, outputs)
        if radio.simulated:
            outputs.console.print(SIMULATED, style="bold red", soft_wrap=True)


def flowgraph_for(radio: Radio, plan: HopPlan | None) -> tuple[str, list[str]]:
    """Return the flowgraph's script and its command line.

    Raises
    ------
    StreamError
        If the device is of no known kind, or has no such setting.
    """
    kind, arguments = _device(radio.device)
    settings = {"gain": radio.gain, "antenna": radio.antenna, "bandwidth": radio.bandwidth}
    known = {"rtl_tcp": ("gain",), "simulated": ()}.get(kind, tuple(settings))
    for setting, value in settings.items():
        if value is None:
            continue
        if setting not in known:
            raise StreamError(f"{radio.device} has no setting --{setting}; leave it out")
        arguments.append(f"--{setting}={value}")
    arguments.append(f"--sample-rate={radio.sample_rate!r}")
    if plan is None:
        return f"live_{kind}.py", [*arguments, f"--frequency={radio.frequency!r}"]
    arguments.append("--frequencies=" + ",".join(map(repr, plan.frequencies)))
    arguments += [f"--dwell={plan.dwell!r}", f"--settle={plan.settle!r}", f"--sweeps={plan.sweeps}"]
    return f"survey_{kind}.py", arguments


def _device(device: str) -> tuple[str, list[str]]:
    """Kind of device and the arguments that name it."""
    if device == "simulated":
        return "simulated", []
    if device == "uhd" or device.startswith("uhd:"):
        return "uhd", [f"--device={device.removeprefix('uhd').removeprefix(':')}"]
    if device.startswith("rtl_tcp:"):
        try:
            parts = urlsplit(device.removeprefix("rtl_tcp:"))  # an underscore is no part of a scheme
            host, port = parts.hostname, parts.port or RTL_TCP_PORT
        except ValueError:
            host = None
        if not host or parts.path not in ("", "/"):
            raise StreamError(f"--device is {device!r}, which names no rtl_tcp server; expected rtl_tcp://HOST:PORT")
        return "rtl_tcp", [f"--host={host}", f"--port={port}"]
    if "driver=" in device:
        return "soapy", [f"--device={device}"]
    raise StreamError(f"--device is {device!r}; {DEVICE_FORMS}")


def _segment(run: Run, flowgraph: Flowgraph, config: ZmqConfig, annotations: StreamAnnotations | None) -> None:
    if run.stop.is_set():  # while the flowgraph was starting
        return
    patience = _Patience(run, flowgraph)
    with ZmqSource(config, patience.exhausted) as source:
        time.sleep(_SUBSCRIBED_AFTER)
        flowgraph.start()
        blocks = patience.blocks(source)
        if annotations:
            blocks = annotations.observed(blocks)
        run.process(blocks, config.sample_count, lambda: losses(source.statistics), live=True)


class _Patience:
    """Blocks of a flowgraph until it is over and everything it sent has come, or nobody wants more."""

    def __init__(self, run: Run, flowgraph: Flowgraph) -> None:
        self._run = run
        self._flowgraph = flowgraph
        self._waiting_since = math.inf

    def exhausted(self) -> bool:
        """Whether to wait no longer."""
        if self._run.stop.is_set():
            return True
        return self._flowgraph.over and time.monotonic() - self._waiting_since > _DRAINED_AFTER

    def blocks(self, source: ZmqSource) -> Iterator[IQBlock]:
        """Blocks from the source.

        Raises
        ------
        StreamError
            If the flowgraph died, with its last words; or as the source does.
        """
        try:
            self._waiting_since = time.monotonic()
            for block in source:
                yield block
                self._waiting_since = time.monotonic()
        except StreamError:
            self._flowgraph.check()  # if it died, its own last words explain more than our silence
            raise
        if not self._run.stop.is_set() and not self._flowgraph.sent:
            self._flowgraph.check()


def _title(radio: Radio, plan: HopPlan | None) -> str:
    where = f"{radio.frequency / 1e6:g} MHz" if plan is None else f"{_span(plan.frequencies)}, hopping"
    return f"{radio.device}, {where}" + (", SIMULATED" if radio.simulated else "")


def _description(radio: Radio, plan: HopPlan | None) -> str:
    what = "Simulated: generated by GNU Radio, not received. " if radio.simulated else ""
    if plan is None:
        return f"{what}Live at {radio.frequency / 1e6:g} MHz, {radio.sample_rate / 1e6:g} MS/s"
    return (
        f"{what}Survey of {len(plan.frequencies)} centre frequencies, {_span(plan.frequencies)}, at "
        f"{radio.sample_rate / 1e6:g} MS/s, {plan.dwell:g} s each; positions do not count the {plan.settle:g} s that "
        "are left out after each retune"
    )


def _span(frequencies: Sequence[float]) -> str:
    return f"{min(frequencies) / 1e6:g} to {max(frequencies) / 1e6:g} MHz"


def _check_positive(option: str, value: float, unit: str) -> None:
    if not 0 < value < math.inf:
        raise StreamError(f"{option} is {value:g}, expected a positive number of {unit}")
