# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees: progress, tables, and how the run went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rfvit_rt.datatypes import Activity, Annotation, Emission
from rfvit_rt.sources.csi_frames import CSIStatistics
from rfvit_rt.wire.results import SensingStatus

SHOWN_ROWS = 30  # a longer table is cut; all of it is in the files


@dataclass(frozen=True)
class RunReport:
    """How a run went.

    Attributes
    ----------
    samples, windows : int
        Samples and windows analysed.
    sample_rate : float or None
        Samples per second of the stream, in Hz; None where none came.
    elapsed : float
        Wall-clock seconds from taking up the first samples to the last result. Waiting for a sender, loading the model
        and drawing the picture are not in it.
    transport_lost, radio_lost, dropped : int
        Samples lost on the way, in the radio, and here because they came too fast.
    unusable : int
        Samples that came before their sample rate was known.
    restarts : int
        Times the sender began anew.
    emissions, emissions_let_go : int
        Emissions in all, and those of them that are in no table, since they were too many to be held.
    sample_age : (float, float, float) or None
        50th, 95th and 99th percentile of the sample age in seconds.
    processor_seconds : float
        Processor time of this process, all its threads, during `elapsed`.
    flowgraph_seconds : float
        Processor time of the flowgraph that this process started, over its whole life: it is known only after its end,
        so its start, up to seconds of importing, is in it. 0 where there was none.
    engine : str
        What ran the model.
    """

    samples: int
    windows: int
    sample_rate: float | None
    elapsed: float
    transport_lost: int
    radio_lost: int
    dropped: int
    unusable: int
    restarts: int
    emissions: int
    emissions_let_go: int
    sample_age: tuple[float, float, float] | None
    processor_seconds: float
    flowgraph_seconds: float
    engine: str


@dataclass(frozen=True)
class SensingReport:
    """How a sensing run went.

    Attributes
    ----------
    source : str
        What was read.
    recorded : bool
        Whether it was a recording, or one that is sent again.
    frames, windows : int
        Frames and windows analysed.
    sparse : int
        Windows left out because too few frames came in them.
    seconds : float
        Time from the first frame to the last, by their time stamps.
    devices : tuple of str
        Kinds of device that frames came from.
    counts : CSIStatistics
        What was lost, dropped, or not used.
    result_age : (float, float, float) or None
        50th, 95th and 99th percentile of the time from a window's last frame to its result in s; None where frames are
        read from a file.
    engine : str
        What ran the model.
    """

    source: str
    recorded: bool
    frames: int
    windows: int
    sparse: int
    seconds: float
    devices: tuple[str, ...]
    counts: CSIStatistics
    result_age: tuple[float, float, float] | None
    engine: str


def progress_bar(console: Console, sample_count: int | None) -> Progress:
    """Bar with the time to go where the length is known, else a spinner, on terminals only, with the time so far."""
    rate = TextColumn("{task.fields[note]}")
    if sample_count is None:
        # This spinner is plain ASCII, which every terminal has.
        spinner = SpinnerColumn("line")
        columns = (spinner, TextColumn("{task.description}"), TimeElapsedColumn(), rate)
        return Progress(*columns, console=console, disable=not console.is_terminal)
    bar = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*bar, TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn(), rate, console=console)


def annotation_line(annotation: Annotation) -> str:
    """One annotation as a line, for streams that have no end to wait for."""
    start = annotation.sample_start / annotation.sample_rate
    return (
        f"{start:12.4f} s  {annotation.label:5} {annotation.sample_count / annotation.sample_rate * 1e3:9.2f} ms  "
        f"{_edge(annotation.freq_lower_edge, annotation):>12} to "
        f"{_edge(annotation.freq_upper_edge, annotation):>12} MHz  {annotation.confidence:4.0%}"
    )


def _edge(edge: float, annotation: Annotation) -> str:
    """An edge in MHz; one that is relative to an unknown centre frequency says so."""
    return f"{edge / 1e6:.3f}" if annotation.frequency is not None else f"centre {edge / 1e6:+.3f}"


def _band(emission: Emission) -> str:
    lower, upper = emission.freq_lower_edge / 1e6, emission.freq_upper_edge / 1e6
    return f"{lower:.2f} to {upper:.2f}" if emission.is_absolute else f"centre {lower:+.2f} to {upper:+.2f}"


def share(value: float) -> str:
    """A share in per cent; what is there does not become 0 by rounding."""
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def sensing_line(status: SensingStatus) -> str:
    """The answer for one window of CSI as a line."""
    return (
        f"{status.time:10.2f} s  {status.label:16} {status.confidence:4.0%}  {status.frame_rate:7.1f} frames/s  "
        f"lost {status.lost:,}"
    )


def activity_line(activity: Activity) -> str:
    """One interval that is over, as a line."""
    return f"{activity.time_start:10.2f} to {activity.time_end:.2f} s  {activity.label}  {activity.confidence:.0%}" + (
        f"  lost {activity.lost:,}" if activity.lost else ""
    )


def activity_table(activities: Sequence[Activity], count: int) -> Table:
    """Table of what happened when.

    Parameters
    ----------
    activities : sequence of Activity
        The last ones, in stream order.
    count : int
        How many there were in all.
    """
    cut = f"the last {len(activities)} of {count}" if count > len(activities) else None
    table = Table(title="What happened when", caption=cut)
    table.add_column("Activity")
    for name in ("Start", "End", "Duration", "Confidence", "Frames/s", "Lost"):
        table.add_column(name, justify="right")
    for activity in activities:
        table.add_row(
            activity.label,
            f"{activity.time_start:.2f} s",
            f"{activity.time_end:.2f} s",
            f"{activity.time_end - activity.time_start:.2f} s",
            f"{activity.confidence:.0%}",
            f"{activity.frame_rate:.1f}",
            f"{activity.lost:,}",
        )
    return table


def annotation_table(annotations: Sequence[Annotation], count: int) -> Table:
    """Table of what was found; edges say so where they are relative to the centre, because that is unknown.

    Parameters
    ----------
    annotations : sequence of Annotation
        In the order to show them in; as many as fit are shown.
    count : int
        How many were found in all.
    """
    table = Table(title="What is where", caption=_cut(count))
    table.add_column("Label")
    for name in ("Start", "Duration", "Lower edge", "Upper edge", "Confidence"):
        table.add_column(name, justify="right")
    for annotation in annotations[:SHOWN_ROWS]:
        table.add_row(
            annotation.label,
            f"{annotation.sample_start / annotation.sample_rate * 1e3:.2f} ms",
            f"{annotation.sample_count / annotation.sample_rate * 1e3:.2f} ms",
            f"{_edge(annotation.freq_lower_edge, annotation)} MHz",
            f"{_edge(annotation.freq_upper_edge, annotation)} MHz",
            f"{annotation.confidence:.0%}",
        )
    return table


def emission_table(emissions: Sequence[Emission], count: int, sample_rate: float) -> Table:
    """Table of the transmitters: what recurs in one band.

    Parameters
    ----------
    emissions : sequence of Emission
        In the order to show them in; as many as fit are shown.
    count : int
        How many there were in all.
    sample_rate : float
        Samples per second, in Hz.
    """
    table = Table(title="Emissions: the same label in the same band", caption=_cut(count))
    table.add_column("Label")
    for name in ("Band (MHz)", "Seen (ms)", "Bursts", "On air", "Confidence"):
        table.add_column(name, justify="right")
    for emission in emissions[:SHOWN_ROWS]:
        table.add_row(
            emission.label,
            _band(emission),
            f"{emission.first_seen / sample_rate * 1e3:.1f} to {emission.last_seen / sample_rate * 1e3:.1f}",
            str(emission.burst_count),
            share(emission.duty_cycle),
            f"{emission.confidence:.0%}",
        )
    return table


def report_lines(report: RunReport) -> list[str]:
    """How the run went, a fact a line."""
    lost = report.transport_lost + report.radio_lost + report.dropped
    lines = [
        f"Lost samples: {lost:,} (on the way {report.transport_lost:,}, in the radio {report.radio_lost:,}, "
        f"too fast for this machine {report.dropped:,})"
    ]
    if report.unusable:
        lines.append(f"Unusable: {report.unusable:,} samples came before the sender said its sample rate")
    if report.restarts:
        lines.append(f"Restarts of the sender: {report.restarts}; the positions start again with each")
    if report.emissions_let_go:
        lines.append(
            f"Emissions let go: {report.emissions_let_go:,} of {report.emissions:,}, those not seen for longest; "
            "no table lists them, results as JSON do"
        )
    if report.sample_rate is not None and report.elapsed > 0:
        rate = report.samples / report.elapsed
        lines.append(
            f"Achieved rate: {rate / 1e6:.2f} MS/s, {rate / report.sample_rate:.2f} times real time "
            f"({report.samples:,} samples, {report.windows} windows, {report.elapsed:.2f} s)"
        )
    if report.sample_age is not None:
        p50, p95, p99 = (f"{age * 1e3:.1f}" for age in report.sample_age)
        lines.append(f"Sample age: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms")
    if report.elapsed > 0:
        lines.append(f"Processor cores busy: {report.processor_seconds / report.elapsed:.2f}")
    if report.flowgraph_seconds:
        lines.append(f"Flowgraph: {report.flowgraph_seconds:.2f} s of processor time, its start included")
    lines.append(f"Engine: {report.engine}")
    return lines


def sensing_report_lines(report: SensingReport) -> list[str]:
    """How a sensing run went, a fact a line."""
    counts = report.counts
    lines = [f"Source: {report.source}{', RECORDED, not live' if report.recorded else ''}"]
    lines += [f"Device: {device}" for device in report.devices]
    rate = f", {(report.frames - 1) / report.seconds:.1f} a second" if report.seconds >= 0.01 else ""
    lines.append(f"Frames: {report.frames:,} in {report.seconds:.2f} s{rate}; {report.windows:,} windows")
    lines.append(f"Lost frames: {counts.lost:,} by the sender's count")
    if counts.dropped:
        lines.append(f"Dropped: {counts.dropped:,} packets came too fast for this machine")
    if counts.foreign:
        lines.append(f"Foreign: {counts.foreign:,} packets of other transmitters, kinds of frame or bandwidths")
    lines += [f"Malformed: {number:,} packets, {reason}" for reason, number in counts.malformed.items()]
    if report.sparse:
        lines.append(f"Left out: {report.sparse} windows with fewer frames than the model needs")
    if counts.restarts:
        lines.append(f"Restarts: {counts.restarts}; the time between is not known")
    if report.result_age is not None:
        p50, p95, p99 = (f"{age * 1e3:.1f}" for age in report.result_age)
        lines.append(f"Result age: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms after a window's last frame")
    lines.append(f"Engine: {report.engine}")
    return lines


def _cut(count: int) -> str | None:
    return f"the first {SHOWN_ROWS} of {count}" if count > SHOWN_ROWS else None
