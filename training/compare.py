# SPDX-License-Identifier: Apache-2.0
"""Compare what a model finds in annotated recordings with what their annotations say.

``python -m training.compare recordings/*.sigmf-meta --out report.json``

Annotations of whole carriers count as such: a box is right where it lies in an annotation of its label, also where the
carrier pauses. Labels that the model has no class for are taken for background.

Three figures say how good a recording's boxes are. A carrier's *frequency IoU* is that of its band with the union of
the bands of all boxes of its label, whenever they are. Of the area, in seconds times Hz, that is labelled LTE or NR,
the *wrong* share lies in an annotated carrier of another label, and the *outside* share in no annotated carrier.
Recordings without LTE and NR have *cellular boxes*: those that call something so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelContract
from rfvit_rt.datatypes import Annotation, Emission, IQBlock
from rfvit_rt.emissions import track_emissions
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import OutputError, RecordingError, RfvitError
from rfvit_rt.models import default_model, find_model
from rfvit_rt.pipeline import PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sinks.files import replace_file
from rfvit_rt.sinks.sigmf import holds_results, is_result
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.stitching import stitch
from training.command import prepare_output, run
from training.datasets import CELLULAR
from training.weathering import check_patterns, matches, weathered

GRID = 512  # cells in time and in frequency over which areas are compared


def main(
    recordings: Annotated[list[Path], typer.Argument(help="SigMF recordings, annotated or empty of LTE and NR.")],
    model: Annotated[str | None, typer.Option(help="Name or .onnx file; the one that ships where not given.")] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of names of those that were computed: they get echoes, and noise of 15 dB SNR."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON report to write; an existing one is replaced.")] = None,
) -> None:
    """List, recording by recording, what is annotated and what was found."""
    file = find_model(model) if model else default_model()
    if out:
        prepare_output(out)
    check_patterns(recordings, clean or (), "--clean")
    table = Table()
    for name in ("Recording", "Annotated, frequency IoU", "Found", "Annotated area found", "Labelled LTE or NR"):
        table.add_column(name)
    rows = []
    if results := [path.name for path in recordings if is_result(path)]:
        typer.echo(f"left out, their boxes are a model's: {', '.join(results)}", err=True)
    with load_engine(file) as engine:
        for path in (path for path in recordings if not is_result(path)):
            try:
                recording = open_recording(path)
                if holds_results(recording):
                    raise RecordingError("a model's boxes are among its annotations; give the recording without them")
                is_clean = matches(recording.meta_path, clean or ())
                blocks = weathered(recording, np.random.default_rng(1)) if is_clean else recording.blocks()
                row = {"weathered": is_clean, **compare(recording, blocks, engine, file.contract)}
            except RfvitError as error:
                row = {"recording": path.name, "error": str(error)}
            rows.append(row)
            table.add_row(*_cells(row))
    Console(width=160).print(table)
    if out:
        report = {"model": file.contract.name, "sha256": file.sha256, "recordings": rows}
        try:
            replace_file(out, json.dumps(report, indent=2).encode())
        except OSError as error:
            raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    if not rows or any("error" in row for row in rows):
        raise RecordingError("not every recording could be compared" if rows else "there is no recording to compare")


def compare(recording: Recording, blocks: Iterable[IQBlock], engine: Engine, contract: ModelContract) -> dict[str, Any]:
    """Segment one recording and measure the boxes against its annotations.

    Parameters
    ----------
    recording : Recording
    blocks : iterable of IQBlock
        Its samples, or what became of them on the way.
    engine : Engine
    contract : ModelContract

    Returns
    -------
    dict
        ``annotated`` and ``found`` as text; ``covered``: label to the share of its annotated area that boxes of the
        label cover; ``elsewhere``: label to the share of the recording that its boxes cover outside such annotations;
        ``carriers``: the annotated ones with their ``frequency_iou``; ``wrong_share`` and ``outside_share``, None where
        nothing is labelled LTE or NR; ``cellular_boxes``.

    Raises
    ------
    RecordingError
        If the recording goes from one frequency to another, or an annotation has no width.
    """
    if len({capture.frequency for capture in recording.captures}) > 1:
        raise RecordingError("its captures are at several frequencies, one is wanted; make a recording of each")
    labels = contract.labels
    windows = analyse(blocks, engine, contract, PipelineSettings(), PipelineStatistics())
    boxes = list(annotate(agree(stitch(window.mask for window in windows)), labels))
    truth = [_from_metadata(fields, recording) for fields in recording.metadata.get("annotations", [])]
    covered, elsewhere = {}, {}
    for label in labels[1:]:
        annotated = _area(recording, (a for a in truth if a.label == label))
        found = _area(recording, (a for a in boxes if a.label == label))
        if annotated.any():
            covered[label] = float(found[annotated].mean())
        elsewhere[label] = float((found & ~annotated).mean())
    cellular = [box for box in boxes if box.label in CELLULAR]
    wrong_share, outside_share = _misplaced(recording, cellular, truth)
    return {
        "recording": recording.meta_path.name.removesuffix(".sigmf-meta"),
        "annotated": sorted({_band(a) for a in truth}),
        "found": [
            f"{_band(e)}, on air {e.duty_cycle:.0%} from first to last seen, confidence {e.confidence:.0%}"
            for e in track_emissions(boxes)
        ],
        "covered": covered,
        "elsewhere": elsewhere,
        "carriers": [
            {"label": a.label, "band": _band(a), "frequency_iou": frequency_iou(a, boxes, truth)}
            for a in truth
            if a.label in CELLULAR
        ],
        "wrong_share": wrong_share,
        "outside_share": outside_share,
        "cellular_boxes": len(cellular),
    }


def frequency_iou(carrier: Annotation, boxes: Sequence[Annotation], truth: Sequence[Annotation] = ()) -> float:
    """Intersection over union, in Hz, of a carrier's band with the bands of all boxes of its label taken together.

    What of these lies in other annotated carriers of the label, in `truth`, does not count.
    """
    edges = sorted(
        {edge for a in (carrier, *boxes, *truth) for edge in (a.freq_lower_edge, a.freq_upper_edge)}
    )  # between two neighbouring edges nothing begins or ends
    both = either = 0.0
    for lower, upper in pairwise(edges):
        middle = (lower + upper) / 2
        wanted = _spans(carrier, middle)
        others = any(_spans(a, middle) for a in truth if a.label == carrier.label and a is not carrier)
        found = any(_spans(a, middle) for a in boxes if a.label == carrier.label) and (wanted or not others)
        both += (upper - lower) * (wanted and found)
        either += (upper - lower) * (wanted or found)
    return round(both / either, 4)


def _spans(annotation: Annotation, frequency: float) -> bool:
    return annotation.freq_lower_edge <= frequency < annotation.freq_upper_edge


def _misplaced(
    recording: Recording, cellular: Sequence[Annotation], truth: Sequence[Annotation]
) -> tuple[float | None, float | None]:
    """Shares of the area labelled LTE or NR that lie in a carrier of another label, and in none."""
    labelled = wrong = outside = 0
    carriers = _area(recording, (a for a in truth if a.label in CELLULAR))
    for label in CELLULAR:
        found = _area(recording, (box for box in cellular if box.label == label))
        right = _area(recording, (a for a in truth if a.label == label))
        labelled += int(found.sum())
        wrong += int((found & carriers & ~right).sum())
        outside += int((found & ~carriers).sum())
    return (round(wrong / labelled, 4), round(outside / labelled, 4)) if labelled else (None, None)


def _from_metadata(fields: dict[str, Any], recording: Recording) -> Annotation:
    start = fields["core:sample_start"]
    frequency = recording.captures[0].frequency
    centre = frequency or 0.0
    label = fields.get("core:label", "")
    lower = fields.get("core:freq_lower_edge", centre - recording.sample_rate / 2)
    upper = fields.get("core:freq_upper_edge", centre + recording.sample_rate / 2)
    if upper <= lower:
        raise RecordingError(
            f"an annotation '{label}' goes from {lower:g} to {upper:g} Hz; the upper edge must be higher"
        )
    return Annotation(
        label,
        start,
        fields.get("core:sample_count", recording.sample_end - start),
        lower,
        upper,
        confidence=1.0,
        sample_rate=recording.sample_rate,
        frequency=frequency,
    )


def _area(recording: Recording, annotations: Iterable[Annotation]) -> NDArray[np.bool_]:
    """Cells of a grid over the recording's time and band that annotations cover: (GRID, GRID)."""
    area = np.zeros((GRID, GRID), np.bool_)
    low = (recording.captures[0].frequency or 0.0) - recording.sample_rate / 2
    for annotation in annotations:
        begin, end = (np.array([annotation.sample_start, annotation.sample_end]) - recording.sample_start) / (
            recording.sample_count
        )
        lower, upper = (
            np.array([annotation.freq_lower_edge, annotation.freq_upper_edge]) - low
        ) / recording.sample_rate
        area[_cells_between(begin, end), _cells_between(lower, upper)] = True
    return area


def _cells_between(begin: float, end: float) -> slice:
    """Cells from one place of the grid, which goes from 0 to 1, to another: one at least, however short that is."""
    first, last = (int(np.clip(np.round(place * GRID), 0, GRID)) for place in (begin, end))
    if first == last and end > 0 and begin < 1:
        first = min(int(max(begin, 0) * GRID), GRID - 1)
        last = first + 1
    return slice(first, last)


def _band(what: Annotation | Emission) -> str:
    return f"{what.label} {what.freq_lower_edge / 1e6:.2f} to {what.freq_upper_edge / 1e6:.2f} MHz"


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["recording"], "", row["error"], "", ""]
    carriers = [f"{carrier['band']}: {carrier['frequency_iou']:.2f}" for carrier in row["carriers"]]
    labelled = f"{row['cellular_boxes']} boxes"
    if row["wrong_share"] is not None:
        labelled += f", {row['wrong_share']:.1%} wrong, {row['outside_share']:.1%} outside"
    return [
        row["recording"] + ("\n(echoes and noise added)" if row["weathered"] else ""),
        "\n".join(carriers or row["annotated"]) or "nothing",
        "\n".join(row["found"]) or "nothing",
        ", ".join(f"{label} {share:.0%}" for label, share in row["covered"].items()),
        labelled,
    ]


if __name__ == "__main__":
    run(main)
