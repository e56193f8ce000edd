# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees: progress, tables, and how the run went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rfvit_rt.datatypes import Annotation, Emission

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
    sample_age: tuple[float, float, float] | None
    processor_seconds: float
    flowgraph_seconds: float
    engine: str


def progress_bar(console: Console, sample_count: int | None) -> Progress:
    """Bar with the time to go where the length is known, else a spinner with the time since the start."""
    rate = TextColumn("{task.fields[note]}")
    if sample_count is None:
        # This spinner is plain ASCII, which every terminal has.
        spinner = SpinnerColumn("line")
        return Progress(spinner, TextColumn("{task.description}"), TimeElapsedColumn(), rate, console=console)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn(), rate, console=console)


def annotation_line(annotation: Annotation) -> str:
    """One annotation as a line, for streams that have no end to wait for."""
    start = annotation.sample_start / annotation.sample_rate
    return (
        f"{start:12.4f} s  {annotation.label:5} {annotation.sample_count / annotation.sample_rate * 1e3:9.2f} ms  "
        f"{annotation.freq_lower_edge / 1e6:+12.3f} to {annotation.freq_upper_edge / 1e6:+12.3f} MHz  "
        f"{annotation.confidence:4.0%}"
    )


def annotation_table(annotations: Sequence[Annotation], count: int) -> Table:
    """Table of what was found; edges are offsets from the centre where the centre frequency is unknown.

    Parameters
    ----------
    annotations : sequence of Annotation
        In the order to show them in; as many as fit are shown.
    count : int
        How many were found in all.
    """
    relative = any(annotation.frequency is None for annotation in annotations)
    edge = "edge, offset" if relative else "edge"
    table = Table(title="What is where", caption=_cut(count))
    table.add_column("Label")
    for name in ("Start", "Duration", f"Lower {edge}", f"Upper {edge}", "Confidence"):
        table.add_column(name, justify="right")
    for annotation in annotations[:SHOWN_ROWS]:
        table.add_row(
            annotation.label,
            f"{annotation.sample_start / annotation.sample_rate * 1e3:.2f} ms",
            f"{annotation.sample_count / annotation.sample_rate * 1e3:.2f} ms",
            f"{annotation.freq_lower_edge / 1e6:.3f} MHz",
            f"{annotation.freq_upper_edge / 1e6:.3f} MHz",
            f"{annotation.confidence:.0%}",
        )
    return table


def emission_table(emissions: Sequence[Emission], sample_rate: float) -> Table:
    """Table of the transmitters: what recurs in one band."""
    table = Table(title="Emissions: the same label in the same band", caption=_cut(len(emissions)))
    table.add_column("Label")
    for name in ("Band (MHz)", "Seen (ms)", "Bursts", "On air", "Confidence"):
        table.add_column(name, justify="right")
    for emission in emissions[:SHOWN_ROWS]:
        table.add_row(
            emission.label,
            f"{emission.freq_lower_edge / 1e6:.2f} to {emission.freq_upper_edge / 1e6:.2f}",
            f"{emission.first_seen / sample_rate * 1e3:.1f} to {emission.last_seen / sample_rate * 1e3:.1f}",
            str(emission.burst_count),
            f"{emission.duty_cycle:.0%}",
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


def _cut(count: int) -> str | None:
    return f"the first {SHOWN_ROWS} of {count}" if count > SHOWN_ROWS else None
