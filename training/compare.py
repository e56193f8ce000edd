# SPDX-License-Identifier: Apache-2.0
"""Compare what a model finds in annotated recordings with what their annotations say.

``python -m training.compare recordings/*.sigmf-meta --out report.json``

Annotations of whole carriers count as such: a box is right where it lies in an annotation of its label, also where the
carrier pauses. Labels that the model has no class for are taken for background.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rfvit_rt.consensus import agree
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation
from rfvit_rt.emissions import track_emissions
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import RfvitError
from rfvit_rt.models import default_model, find_model
from rfvit_rt.pipeline import PipelineSettings, PipelineStatistics, analyse
from rfvit_rt.segments import annotate
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.stitching import stitch
from training.command import run

GRID = 512  # cells in time and in frequency over which areas are compared


def main(
    recordings: Annotated[list[Path], typer.Argument(help="SigMF recordings, annotated or empty of LTE and NR.")],
    model: Annotated[str | None, typer.Option(help="Name or .onnx file; the one that ships where not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON report to write; an existing one is replaced.")] = None,
) -> None:
    """List, recording by recording, what is annotated and what was found."""
    file = find_model(model) if model else default_model()
    table = Table()
    for name in ("Recording", "Annotated", "Found", "Annotated area found", "Area found elsewhere or mislabelled"):
        table.add_column(name)
    rows = []
    with load_engine(file) as engine:
        for path in recordings:
            try:
                row = compare(open_recording(path), engine, file)
            except RfvitError as error:
                row = {"recording": path.name, "error": str(error)}
            rows.append(row)
            table.add_row(*_cells(row))
    Console(width=160).print(table)
    if out:
        out.write_text(json.dumps({"model": file.contract.name, "sha256": file.sha256, "recordings": rows}, indent=2))


def compare(recording: Recording, engine: Engine, model: ModelFile) -> dict[str, Any]:
    """Segment one recording and measure the boxes against its annotations.

    Returns
    -------
    dict
        ``annotated`` and ``found`` as text, ``covered`` (label to the share of its annotated area that boxes of the
        label cover) and ``wrong`` (label to the share of the recording that its boxes cover outside such annotations).
    """
    labels = model.contract.labels
    windows = analyse(recording.blocks(), engine, model.contract, PipelineSettings(), PipelineStatistics())
    boxes = list(annotate(agree(stitch(window.mask for window in windows)), labels))
    truth = [_from_metadata(fields, recording) for fields in recording.metadata.get("annotations", [])]
    covered, wrong = {}, {}
    for label in labels[1:]:
        annotated = _area(recording, (a for a in truth if a.label == label))
        found = _area(recording, (a for a in boxes if a.label == label))
        if annotated.any():
            covered[label] = float(found[annotated].mean())
        wrong[label] = float((found & ~annotated).mean())
    return {
        "recording": recording.meta_path.name.removesuffix(".sigmf-meta"),
        "annotated": sorted({_band(a.label, a.freq_lower_edge, a.freq_upper_edge) for a in truth}),
        "found": [
            f"{_band(e.label, e.freq_lower_edge, e.freq_upper_edge)}, {e.duty_cycle:.0%} of the time, "
            f"confidence {e.confidence:.0%}"
            for e in track_emissions(boxes)
        ],
        "covered": covered,
        "wrong": wrong,
    }


def _from_metadata(fields: dict[str, Any], recording: Recording) -> Annotation:
    start = fields["core:sample_start"]
    frequency = recording.captures[0].frequency
    centre = frequency or 0.0
    return Annotation(
        fields.get("core:label", ""),
        start,
        fields.get("core:sample_count", recording.sample_end - start),
        fields.get("core:freq_lower_edge", centre - recording.sample_rate / 2),
        fields.get("core:freq_upper_edge", centre + recording.sample_rate / 2),
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
        rows = slice(*np.clip(np.round(np.array([begin, end]) * GRID), 0, GRID).astype(int))
        columns = slice(*np.clip(np.round(np.array([lower, upper]) * GRID), 0, GRID).astype(int))
        area[rows, columns] = True
    return area


def _band(label: str, lower: float, upper: float) -> str:
    return f"{label} {lower / 1e6:.2f} to {upper / 1e6:.2f} MHz"


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["recording"], "", row["error"], "", ""]
    return [
        row["recording"],
        "\n".join(row["annotated"]) or "nothing",
        "\n".join(row["found"]) or "nothing",
        ", ".join(f"{label} {share:.0%}" for label, share in row["covered"].items()),
        ", ".join(f"{label} {share:.1%}" for label, share in row["wrong"].items()),
    ]


if __name__ == "__main__":
    run(main)
