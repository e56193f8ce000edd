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
        Wall-clock seconds from the first sample to the last result.
    transport_lost, radio_lost, dropped : int
        Samples lost on the way, in the radio, and here because they came too fast.
    unusable : int
        Samples that came before their sample rate was known.
    sample_age : (float, float, float) or None
        50th, 95th and 99th percentile of the sample age in seconds.
    processor_seconds, flowgraph_seconds : float
        Processor time of this process, and of the flowgraph it started.
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
    sample_age: tuple[float, float, float] | None
    processor_seconds: float
    flowgraph_seconds: float
    engine: str


def progress_bar(console: Console, sample_count: int | None) -> Progress:
    """Bar with the time to go where the length is known, else a spinner with the time since the start."""
    rate = TextColumn("{task.fields[note]}")
    if sample_count is None:
        return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), rate, console=console)
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


def annotation_table(annotations: Sequence[Annotation]) -> Table:
    """Table of what was found; edges are offsets from the centre where the centre frequency is unknown."""
    relative = any(annotation.frequency is None for annotation in annotations)
    edge = "edge, offset" if relative else "edge"
    table = Table(title="What is where", caption=_cut(len(annotations)))
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
    for name in ("Band (MHz)", "Seen (ms)", "Bursts", "On the air", "Confidence"):
        table.add_column(name, justify="right")
    for emission in emissions[:SHOWN_ROWS]:
        table.add_row(
            emission.label,
            f"{emission.freq_lower_edge / 1e6:.2f} – {emission.freq_upper_edge / 1e6:.2f}",
            f"{emission.first_seen / sample_rate * 1e3:.1f} – {emission.last_seen / sample_rate * 1e3:.1f}",
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
        flowgraph = f", flowgraph {report.flowgraph_seconds / report.elapsed:.2f}" if report.flowgraph_seconds else ""
        lines.append(f"Processor cores busy: rfvit {report.processor_seconds / report.elapsed:.2f}{flowgraph}")
    lines.append(f"Engine: {report.engine}")
    return lines


def _cut(count: int) -> str | None:
    return f"the first {SHOWN_ROWS} of {count}" if count > SHOWN_ROWS else None
