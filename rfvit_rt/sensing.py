# SPDX-License-Identifier: Apache-2.0
"""CSI on its way through an activity model: from a source of frames to answers, intervals, a picture and a report."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rfvit_rt import terminal
from rfvit_rt.activity import UNKNOWN, ActivitySettings, WindowScores, intervals, window_label
from rfvit_rt.contract import ModelFile
from rfvit_rt.csi import CSISpec, CSIWindow, bin_width_feature, compensated_amplitude, csi_picture, csi_windows
from rfvit_rt.csi_replay import REPLAY_MARK
from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.engines import Engine
from rfvit_rt.errors import OutputError, RfvitError, SpecMismatch, StreamError
from rfvit_rt.figures import Histogram, SensingFigures
from rfvit_rt.models import default_model, find_model
from rfvit_rt.outputs import FrameViewer, Outputs, Sink, check_outputs, open_sinks, serving_metrics
from rfvit_rt.running import Options, Stop, end, open_engine, stay, stopping_at_signals, until_failure, until_stopped
from rfvit_rt.sinks.timeline_image import TimelineSink
from rfvit_rt.sources.csi import open_csi
from rfvit_rt.sources.csi_frames import CSIStatistics
from rfvit_rt.wire.results import Result, SensingStatus

if TYPE_CHECKING:
    from rfvit_rt.web.sensing import SensingView
    from rfvit_rt.web.serving import Page

KEPT_AGES = 100_000  # the newest result ages that percentiles are taken over
MAX_FRAMES = 1 << 18  # of a window whose positions are kept: a flood must not fill the memory
REPLAYED = "the sender says that it replays a recording"
MAX_DEVICES = 8  # kinds of device that the report names

Note = Callable[[str], None]
"""Takes the line that a terminal shows while it waits for the next."""


@dataclass(frozen=True)
class SensingSettings:
    """How a stream of CSI is cut and answered.

    Attributes
    ----------
    hop : float
        Seconds from one window's start to the next one's; at most a window's length.
    activity : ActivitySettings
    duration : float or None
        Seconds of stream after which to end.
    """

    hop: float = 0.5
    activity: ActivitySettings = field(default_factory=ActivitySettings)
    duration: float | None = None


class FrameSource(Protocol):
    """Where frames come from; attributes as :class:`rfvit_rt.sources.csi.CSISource` has them."""

    name: str
    live: bool
    replayed: bool

    @property
    def statistics(self) -> CSIStatistics:
        """What became of the packets so far."""

    def take_notices(self) -> list[str]:
        """Lines that people should read, each handed out once."""

    def __iter__(self) -> Iterator[CSIFrame]: ...


class Sensing:
    """Takes a stream of frames through the model, hands out what comes of it, and keeps what the report needs."""

    def __init__(
        self,
        source: FrameSource,
        engine: Engine,
        model: ModelFile,
        settings: SensingSettings,
        outputs: Outputs,
        sinks: list[Sink],
        stop: Stop,
    ) -> None:
        self.stop = stop
        self.failures: list[RfvitError] = []
        self._source = source
        self._recorded = False
        self._engine = engine
        self._model = model
        self._spec = model.contract.csi
        self._settings = settings
        self._outputs = outputs
        self._sinks = sinks
        self._origin: float | None = None  # time stamp of the first frame
        self._seconds = 0.0
        self._arrivals = Arrivals()
        self._devices: list[str] = []
        self._frames = 0
        self._windows = 0
        self._sparse = 0
        self._sparse_rate = 0.0  # of the newest window that was left out, in frames/s; 0 where none was full
        self._ages: deque[float] = deque(maxlen=KEPT_AGES)
        self._age_histogram = Histogram()
        self._activities: deque[Activity] = deque(maxlen=terminal.SHOWN_ROWS)
        self._activity_count = 0
        self._status: SensingStatus | None = None
        self._image: TimelineSink | None = None
        self._viewers: list[FrameViewer] = []
        if outputs.png:
            facts = [f"model {model.contract.name}"]
            self._image = TimelineSink(
                outputs.png, model.contract.labels, source.name, facts, overwrite=outputs.overwrite
            )
            self._viewers.append(self._image)
        if source.live:
            outputs.console.print(f"Listening: {source.name}", soft_wrap=True)
        else:
            self._say_recorded(f"{source.name} is a file")

    def add(self, sink: Sink) -> None:
        """Hand results to one more sink."""
        self._sinks.append(sink)

    def watch(self, viewer: FrameViewer) -> None:
        """Show frames to one more viewer."""
        self._viewers.append(viewer)

    def figures(self) -> SensingFigures:
        """How it goes; any thread may ask."""
        counts = self._source.statistics
        return SensingFigures(
            frames=self._frames,
            windows=self._windows,
            lost=counts.lost,
            dropped=counts.dropped,
            foreign=counts.foreign,
            malformed=counts.unusable,
            restarts=counts.restarts,
            recorded=self._recorded,
            result_age=self._age_histogram,
        )

    def process(self) -> None:
        """Analyse the stream to its end, its failure or a signal; what came before that is not lost."""
        console = self._outputs.console
        with terminal.progress_bar(console, None) as progress:
            task = progress.add_task("sensing", total=None, note="")

            def note(line: str) -> None:
                progress.update(task, note=line)

            stream = until_failure(until_stopped(self._source, self.stop), self.failures)
            windows = csi_windows(self._observed(stream, note), self._spec, self._settings.hop, self._leave_out)
            scores = self._scored(until_failure(windows, self.failures), note)
            for activity in intervals(scores, self._model.contract.labels, self._settings.activity):
                self._take(activity)
                if console.is_terminal:
                    progress.console.print(terminal.activity_line(activity), soft_wrap=True)
        self._tell_notices()
        if not (self._windows or self.failures or self.stop.is_set()):
            self.failures.append(self._nothing_to_tell())

    def finish(self) -> None:
        """Write what is written once, at the end, and tell how it went."""
        console = self._outputs.console
        if self._status is not None:
            self._send(self._updated(self._status))
            console.print(terminal.activity_table(self._activities, self._activity_count))
        if self._frames and self._image:
            try:
                self._image.close()
                console.print(f"Picture: {self._outputs.png}", soft_wrap=True)
            except OutputError as error:
                self.failures.append(error)
        for line in terminal.sensing_report_lines(self._report()):
            console.print(line, soft_wrap=True)

    def _observed(self, frames: Iterable[CSIFrame], note: Note) -> Iterator[CSIFrame]:
        """Frames with time stamps that count from the first one, noted on the way."""
        for stamped in frames:
            if self._origin is None:
                self._origin = stamped.timestamp
            if self._source.replayed and not self._recorded:
                self._say_recorded(REPLAYED)
            frame = replace(stamped, timestamp=stamped.timestamp - self._origin)
            if self._settings.duration is not None and frame.timestamp > self._settings.duration:
                return
            self._seconds = frame.timestamp
            self._frames += 1
            self._tell_notices()
            if not self._windows:
                note(f"{self._frames} frames; answers need {self._spec.window_seconds:g} s of them")
            self._arrivals.note(frame.frame_index)
            self._tell_silence()
            self._note_device(frame.device)
            if self._viewers:
                amplitude = compensated_amplitude(frame, self._spec)
                for viewer in self._viewers:
                    viewer.add_frame(frame, amplitude)
            yield frame

    def _note_device(self, device: str) -> None:
        if device.endswith(REPLAY_MARK) and not self._recorded:
            self._say_recorded(REPLAYED)
        if device in self._devices or len(self._devices) == MAX_DEVICES:
            return
        self._devices.append(device)
        known = known_devices(self._model)
        if known and _kind(device) not in map(_kind, known):
            self._say_loudly(
                f"WARNING: the model {self._model.contract.name} learnt from {', '.join(known)}; frames come from "
                f"{device}, of which it knows nothing: its answers may be worthless"
            )

    def _say_recorded(self, why: str) -> None:
        self._recorded = True
        self._say_loudly(f"RECORDED: {why}; nothing of this is live")
        if self._image:
            self._image.facts.insert(0, "RECORDED, not live")

    def _say_loudly(self, line: str) -> None:
        self._outputs.console.print(line, style="bold yellow", soft_wrap=True)

    def _scored(self, windows: Iterable[CSIWindow], note: Note) -> Iterator[WindowScores]:
        bin_width = np.array([bin_width_feature(self._spec)], np.float32)
        for window in windows:
            (probabilities,) = self._engine.infer(csi_picture(window, self._spec)[None], bin_width)
            age = time.monotonic() - window.received
            self._windows += 1
            if self._source.live:
                self._ages.append(age)
                self._age_histogram.observe(age)
            label, confidence = window_label(probabilities, self._model.contract.labels, self._settings.activity)
            self._status = self._updated(
                SensingStatus(
                    label=label,
                    confidence=min(confidence, 1.0),
                    time=window.time_end,
                    frame_rate=window.frame_rate,
                    recorded=self._recorded,
                    frames=0,
                    lost=0,
                    dropped=0,
                    foreign=0,
                    malformed=0,
                    result_age=age if self._source.live else None,
                )
            )
            self._send(self._status)
            self._show(self._status, note)
            indices = self._arrivals.among(window.frame_start, window.frame_count)
            yield WindowScores(probabilities, window.time_start, window.time_end, indices, window.segment)

    def _leave_out(self, window: CSIWindow) -> None:
        """Count a window with too few frames for an answer."""
        self._sparse += 1
        self._sparse_rate = window.frame_rate

    def _tell_silence(self) -> None:
        """Take the last answer back where none has followed it for long: there are frames, but too few in a row."""
        last = self._status
        if last is None or self._seconds - last.time <= self._spec.window_seconds + self._settings.hop:
            return
        rate, self._sparse_rate = self._sparse_rate, 0.0
        silent = replace(last, label=UNKNOWN, confidence=0.0, time=self._seconds, frame_rate=rate, result_age=None)
        self._status = self._updated(silent)
        self._send(self._status)

    def _updated(self, status: SensingStatus) -> SensingStatus:
        """The status with the counts of this moment."""
        counts = self._source.statistics
        return replace(
            status,
            frames=self._frames,
            lost=counts.lost,
            dropped=counts.dropped,
            foreign=counts.foreign,
            malformed=counts.unusable,
        )

    def _show(self, status: SensingStatus, note: Note) -> None:
        line = terminal.sensing_line(status)
        if self._outputs.console.is_terminal:
            note(line)
        else:
            self._outputs.console.print(line, soft_wrap=True)

    def _tell_notices(self) -> None:
        for notice in self._source.take_notices():
            self._outputs.console.print(notice, soft_wrap=True)

    def _take(self, activity: Activity) -> None:
        self._activity_count += 1
        self._activities.append(activity)
        if self._image:
            self._image.add_activity(activity)
        self._send(activity)

    def _send(self, result: Result) -> None:
        """Hand a result to all sinks; one that fails ends the run, which still writes all else."""
        for sink in list(self._sinks):
            try:
                sink.write(result)
            except OutputError as error:
                self.failures.append(error)
                self._sinks.remove(sink)
                self.stop.set()

    def _nothing_to_tell(self) -> RfvitError:
        spec = self._spec
        return SpecMismatch(
            f"no stretch of the frames that came, {self._frames} in {self._seconds:.1f} s, fills the model's window of "
            f"{spec.window_seconds:g} s at {spec.min_frame_rate:g} frames/s or more, with no gap over "
            f"{spec.max_gap:g} s; give a longer recording or stream, or have the device send more often"
        )

    def _report(self) -> terminal.SensingReport:
        ages = np.percentile(self._ages, (50, 95, 99)) if self._ages else None
        return terminal.SensingReport(
            source=self._source.name,
            recorded=self._recorded,
            frames=self._frames,
            windows=self._windows,
            sparse=self._sparse,
            seconds=self._seconds,
            devices=tuple(self._devices),
            counts=self._source.statistics,
            result_age=None if ages is None else (float(ages[0]), float(ages[1]), float(ages[2])),
            engine=f"{self._engine.description}, model {self._model.contract.name} ({self._model.sha256[:12]})",
        )


def known_devices(model: ModelFile) -> list[str]:
    """Kinds of device that a model learnt from, as its provenance names them; nothing where it does not say."""
    devices = model.contract.provenance.get("devices")
    return [name for name in devices if isinstance(name, str)] if isinstance(devices, list) else []


def _kind(device: str) -> str:
    """What a device's name begins with: ``esp32`` of ``esp32 20 MHz LLTF``."""
    return device.partition(" ")[0]


def sense(
    source: str, source_options: dict[str, Any], settings: SensingSettings, options: Options, outputs: Outputs
) -> None:
    """Tell what a person does from a source of CSI, until it ends, fails or is interrupted.

    Parameters
    ----------
    source : str
        As :func:`rfvit_rt.sources.csi.open_csi` takes it.
    source_options : dict
        Its options; None leaves one at its default.
    settings : SensingSettings
    options : Options
    outputs : Outputs

    Raises
    ------
    RfvitError
        If the source, the model or an output cannot be used; what was found until then is written.
    SystemExit
        After Ctrl-C or SIGTERM, with everything so far written.
    """
    model = find_model(options.model) if options.model else default_model("activity")
    _check(settings, model.contract.csi)
    inputs = [] if "://" in source else [Path(source)]
    check_outputs(outputs, [*inputs, model.path], ())
    with (
        open_engine(model, options, outputs.console) as engine,
        stopping_at_signals(outputs.console) as stop,
        open_sinks(outputs) as sinks,
        open_csi(source, stop=stop.is_set, **source_options) as opened,
    ):
        run = Sensing(opened, engine, model, settings, outputs, sinks, stop)
        with (
            serving_metrics(outputs, engine, model, run.figures) as metrics,
            _serving_page(outputs, run, engine, model, opened.name) as page,
        ):
            for sink in metrics:
                run.add(sink)
            run.process()
            run.finish()
            if page is not None:
                page.end(run.failures, stop.is_set())
                if not opened.live and not run.failures:
                    stay(stop, page.url, outputs.console)
    end(run.failures, stop)


@contextmanager
def _serving_page(
    outputs: Outputs, run: Sensing, engine: Engine, model: ModelFile, title: str
) -> Iterator[Page[SensingView] | None]:
    """Show a run on a page, if that is wanted."""
    if outputs.web is None:
        yield None
        return
    from rfvit_rt.web.serving import Subject, serving_sensing  # brings a web server, which most runs do without

    with serving_sensing(outputs.web, Subject(title, engine, model, run.figures), outputs.console) as page:
        run.add(page.view)
        run.watch(page.view)
        yield page


def _check(settings: SensingSettings, spec: CSISpec) -> None:
    if settings.duration is not None and not 0 < settings.duration < math.inf:
        raise StreamError(
            f"--duration is {settings.duration:g}, expected a positive number of seconds; leave it out for ever"
        )
    step = 1 / spec.frame_rate
    if not step <= settings.hop <= spec.window_seconds:
        raise StreamError(
            f"--hop is {settings.hop:g} s, the model's windows of {spec.window_seconds:g} s take {step:g} to "
            f"{spec.window_seconds:g} s"
        )


class Arrivals:
    """Positions of the frames that came, from the newest window's first one on."""

    def __init__(self) -> None:
        self._indices: deque[int] = deque(maxlen=MAX_FRAMES)

    def note(self, frame_index: int) -> None:
        """Take up a frame."""
        self._indices.append(frame_index)

    def among(self, frame_start: int, frame_count: int) -> np.ndarray:
        """Return which of `frame_count` frames came, and forget those before.

        Returns
        -------
        (frame,) int64
            Ascending.
        """
        while self._indices and self._indices[0] < frame_start:
            self._indices.popleft()
        return np.array([index for index in self._indices if index < frame_start + frame_count], np.int64)
