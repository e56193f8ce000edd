# SPDX-License-Identifier: Apache-2.0
"""Trials on recordings that somebody made: the whole way to boxes, as a user goes it, against annotated carriers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.contract import Golden, ModelContract
from rfvit_rt.engines import Engine
from rfvit_rt.errors import RecordingError
from rfvit_rt.models import find_model
from rfvit_rt.sinks.sigmf import holds_results, is_result
from rfvit_rt.sources.recording import Recording, open_recording
from training.batches import read_spec
from training.compare import compare
from training.datasets import open_windows
from training.evaluate import Infer
from training.experiments.models import Place, ready
from training.experiments.trials import Trial
from training.trials import write_json
from training.weathering import check_patterns, matches, weathered

ENOUGH = 0.75  # frequency IoU at which a carrier counts as found
CAPTURES = "captures"  # name of the results, whichever table shows them
TABLES = (CAPTURES, "recordings")


@dataclass(frozen=True)
class Captures:
    """Recordings, and what their annotations do not say.

    Attributes
    ----------
    folder : Path
        Of SigMF recordings.
    clean : tuple of str
        Patterns of names of those that a computer made without noise: they are :func:`~training.weathering.weathered`.
    left_out : tuple of str
        Patterns of names of those that hold LTE or NR without an annotation.
    """

    folder: Path
    clean: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def recordings(self) -> list[Recording]:
        """All that are asked for, in the order of their names.

        Raises
        ------
        RecordingError
            If there are none, one cannot be read, or a pattern is of none.
        """
        paths = sorted(self.folder.glob("*.sigmf-meta"))
        check_patterns(paths, self.clean, "--clean")
        check_patterns(paths, self.left_out, "--leave-out")
        named = [path for path in paths if not (is_result(path) or matches(path, self.left_out))]
        chosen = [recording for recording in map(open_recording, named) if not holds_results(recording)]
        if not chosen:
            raise RecordingError(f"{self.folder} holds no SigMF recordings to measure on; give another --captures")
        return chosen


class InferEngine(Engine):
    """A trial's network in the place of a runtime's engine."""

    name, precision, golden_tolerance = "experiment", "f32", 0.0

    def __init__(self, infer: Infer, input_shape: tuple[int, int]) -> None:
        self._infer = infer
        self.input_shape = input_shape
        self.description = "a trial's network"

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        return self._infer(pictures, bin_widths)

    def close(self) -> None:
        """Nothing is held."""


def answer_on_captures(trial: Trial, place: Place, captures: Captures) -> str:
    """Measure a trial that has been made on all recordings; a line about it."""
    validation = open_windows(place.data / "validation")
    spec, labels = read_spec(place.data / "validation", validation), validation.labels
    nothing = Golden(np.empty((0, 0), np.uint8), 0.0, np.empty(0, np.float16))
    contract = ModelContract(trial.name, "segmentation", labels, spec, nothing)
    if trial.method == "file":  # which need not have the data's labels
        contract = find_model(trial.start).contract
        spec = contract.spectrogram
    rows = []
    with ready(trial, place) as infer:
        engine = InferEngine(infer, (spec.n_steps, spec.n_bins))
        for recording in captures.recordings():
            is_clean = matches(recording.meta_path, captures.clean)
            blocks = weathered(recording, np.random.default_rng(trial.seed)) if is_clean else recording.blocks()
            rows.append({"weathered": is_clean, **compare(recording, blocks, engine, contract)})
    write_json({"trial": dataclasses.asdict(trial), "recordings": rows, **summary(rows)}, place.result(trial, CAPTURES))
    return f"captures: {trial.text}, seed {trial.seed}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table shows of a trial.

    Returns
    -------
    dict
        ``found``: share of the annotated carriers with a frequency IoU of at least `ENOUGH`; ``frequency_iou``: mean
        over them; ``wrong_share``: mean over the recordings that have carriers and in which something is labelled
        so; ``false_recordings``: share of the other recordings in which something is labelled LTE or NR.
    """
    ious = [carrier["frequency_iou"] for row in rows for carrier in row["carriers"]]
    wrong = [row["wrong_share"] for row in rows if row["carriers"] and row["wrong_share"] is not None]
    false = [row["cellular_boxes"] > 0 for row in rows if not row["carriers"]]
    return {
        "found": _mean([iou >= ENOUGH for iou in ious]),
        "frequency_iou": _mean(ious),
        "wrong_share": _mean(wrong),
        "false_recordings": _mean(false),
    }


def _mean(values: list[Any]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
