# SPDX-License-Identifier: Apache-2.0
"""Measure a model on held-out windows: in all, by signal-to-noise ratio, on noise alone, beside an energy detector.

And whether its confidence means what it says: the expected calibration error, the reliability curve behind it, and what
is gained where pixels that are unsure get no label.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.ndimage import uniform_filter

from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import ModelError, OutputError, RecordingError, SpecMismatch
from rfvit_rt.segments import OTHER
from rfvit_rt.spectrogram import SpectrogramSpec
from training import checkpoint, curves
from training.batches import Batch, evaluation_batches, evaluation_indices, read_spec
from training.calibration import Reliability
from training.command import prepare_output, progress_bar, run
from training.datasets import UNNAMED, Windows, open_windows
from training.export import load_rounded
from training.metrics import confusion, figures
from training.networks import network_of

SNR_DB = (-5, 0, 5, 10, 15, 20, 25, 30)
SNR_TOLERANCE = 2.5  # dB either way
THRESHOLDS_DB = np.arange(0.5, 12.5, 0.5)


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model makes of a batch: labels, and their probabilities where it has any.

    Both are (batch, n_steps, n_bins).
    """

    labels: NDArray[np.integer[Any]]
    confidence: NDArray[np.float32] | None = None


Predict = Callable[[Batch], Predicted]
Infer = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]  # as engines have it


def main(
    model: Annotated[Path, typer.Option(help="The .onnx file, or a checkpoint of a finetuning run.")],
    data: Annotated[Path, typer.Option(help="Folder with the splits validation and test.")],
    out: Annotated[Path, typer.Option(help="JSON report to write; an existing one is replaced.")],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    engine: Annotated[str, typer.Option(help="Engine for .onnx files.")] = "openvino",
    limit: Annotated[int | None, typer.Option(help="Measure on this many windows, drawn by chance.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Windows at a time.", min=1)] = 16,
) -> None:
    """Measure a model on held-out windows, beside an energy detector tuned on the validation split."""
    windows, validation = open_windows(data / split), open_windows(data / "validation")
    if not any((mask < len(windows.labels)).any() for mask in windows.masks):
        raise RecordingError(f"no pixel of {data / split} has a label; there is nothing to measure on")
    prepare_output(out)
    if model.suffix == ".onnx":
        file = read_model(model)
        for folder in (data / split, data / "validation"):
            check_windows(folder, file.contract.spectrogram, file.contract.labels)
        with load_engine(file, engine) as loaded:
            measured = measure(windows, predictor(loaded.infer), batch_size, limit)
            how = loaded.description
        training = file.contract.provenance.get("training", {})
    else:
        source = checkpoint.load(model)
        for folder in (data / split, data / "validation"):
            check_windows(folder, source.spectrogram, source.labels)
        measured = measure(windows, predictor(shipped_infer(source)), batch_size, limit)
        how = f"PyTorch {torch.__version__}, weights rounded as they ship"
        training = source.provenance
    detector, threshold_db = energy_detector(validation, read_spec(data / "validation", validation))
    report = {
        "split": split,
        "windows": len(evaluation_indices(len(windows), limit)),
        "scenes": len(np.unique(windows.scenes[evaluation_indices(len(windows), limit)])),
        "engine": how,
        "labels": windows.labels,
        # Parts of the weights already; None where none were fitted.
        "temperature": training.get("temperature"),
        "class_bias": training.get("class_bias"),
        **measured,
        "energy_detector": {"threshold_db": threshold_db, **measure(windows, detector, batch_size, limit)},
    }
    try:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        curves.draw_reliability(report["calibration"], out.with_suffix(".png"))
    except OSError as error:
        raise OutputError(f"cannot write the report {out}: {error.strerror}") from error
    show(report, model.name)
    if split == "validation":
        typer.echo("NOTE: the weights were chosen and calibrated on this split; elsewhere they do less well")
    typer.echo(f"report: {out}, {out.with_suffix('.png')}")


def shipped_infer(source: checkpoint.Checkpoint) -> Infer:
    """Inference with a finetuned checkpoint's network, its weights rounded as they ship.

    Raises
    ------
    ModelError
        If the checkpoint holds no network that labels pixels.
    """
    network = network_of(source)
    load_rounded(network, source)

    @torch.inference_mode()
    def infer(pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = network(torch.from_numpy(pictures), torch.from_numpy(bin_widths))
        return logits.softmax(dim=1).permute(0, 2, 3, 1).numpy()

    return infer


def predictor(infer: Infer) -> Predict:
    """Take the likeliest label of every pixel."""

    def predict(batch: Batch) -> Predicted:
        probabilities = infer(batch.pictures.numpy(), batch.bin_widths.numpy())
        return Predicted(probabilities.argmax(axis=3), probabilities.max(axis=3))

    return predict


def check_windows(folder: Path, spec: SpectrogramSpec, labels: tuple[str, ...]) -> None:
    """Raise :class:`SpecMismatch` where a split was not made for a model, or :class:`ModelError` without its labels."""
    windows = open_windows(folder)
    made, wanted = dataclasses.asdict(read_spec(folder, windows)), dataclasses.asdict(spec)
    if other := [f"{name} {made[name]}, not {value}" for name, value in wanted.items() if made[name] != value]:
        raise SpecMismatch(
            f"the windows in {folder} were made with {', '.join(other)} as the model takes them; make new ones"
        )
    if windows.labels != labels:
        raise ModelError(
            f"the windows in {folder} are labelled {', '.join(windows.labels)}, the model knows {', '.join(labels)}; "
            "measure it on windows with its labels"
        )


def measure(windows: Windows, predict: Predict, batch_size: int, limit: int | None = None) -> dict[str, Any]:
    """Figures over all windows, by signal-to-noise ratio, where nothing is on the air, and of the confidences.

    Returns
    -------
    dict
        ``overall``; ``by_snr_db`` for those of `SNR_DB` that occur, and ``from_10_db`` for all from there up;
        ``noise_only``: windows of background alone, and the share of their pixels that are labelled as a signal;
        ``other_only``: windows with pixels that are ``other`` or may be, and no other signal, and the share of their
        pixels that get the name of a class; ``calibration``, of all pixels and of those labelled as a signal, where
        `predict` gives confidences.
    """
    chosen, count = evaluation_indices(len(windows), limit), len(windows.labels)
    named = np.array([label not in (windows.labels[0], OTHER) for label in windows.labels])
    matrices = np.zeros((len(chosen), count, count), np.int64)
    unnamed = np.zeros((len(chosen), count), np.int64)  # predicted where masks are `UNNAMED`
    every, signals = Reliability(), Reliability()
    with progress_bar() as bar:
        task = bar.add_task("measure", total=len(chosen))
        for places, batch in evaluation_batches(windows, batch_size, limit):
            predicted, true = predict(batch), batch.masks.numpy()
            for place, labels, result in zip(range(places.start, places.stop), true, predicted.labels, strict=True):
                matrices[place] = confusion(labels, result, count)
                unnamed[place] = np.bincount(result[labels == UNNAMED], minlength=count)
            if predicted.confidence is not None:
                right, known = predicted.labels == true, true < UNNAMED
                every.add(predicted.confidence[known], right[known])
                known &= predicted.labels > 0
                signals.add(predicted.confidence[known], right[known])
            bar.advance(task, places.stop - places.start)
    snr_db = windows.snr_db[chosen]
    strong = snr_db >= 10 - SNR_TOLERANCE
    occur = matrices.sum(axis=2) > 0  # (window, true class)
    perhaps_other = unnamed.any(axis=1)
    noise = matrices[occur[:, 0] & ~occur[:, 1:].any(axis=1) & ~perhaps_other]
    others = (occur[:, ~named][:, 1:].any(axis=1) | perhaps_other) & ~occur[:, named].any(axis=1)
    other = matrices[others].sum(axis=1) + unnamed[others]  # (window, predicted class)
    measured = {
        "overall": figures(matrices.sum(axis=0), windows.labels),
        "by_snr_db": {
            str(level): {"windows": int(near.sum()), **figures(matrices[near].sum(axis=0), windows.labels)}
            for level in SNR_DB
            if (near := np.abs(snr_db - level) <= SNR_TOLERANCE).any()
        },
        "from_10_db": {"windows": int(strong.sum()), **figures(matrices[strong].sum(axis=0), windows.labels)},
        "noise_only": {"windows": len(noise), "signal_share": _share(noise[:, :, 1:], noise)},
        "other_only": {"windows": len(other), "named_share": _share(other[:, named], other)},
    }
    if every.pixels.any():
        measured["calibration"] = {"all_pixels": every.summary(), "signal_pixels": signals.summary()}
    return measured


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() else None


def energy_detector(validation: Windows, spec: SpectrogramSpec) -> tuple[Predict, float]:
    """The trivial baseline: pixels whose surroundings are loud enough are the commonest signal.

    Parameters
    ----------
    validation : Windows
        Windows to tune on.
    spec : SpectrogramSpec
        What their pictures were made with.

    Returns
    -------
    Predict
        Labels a batch.
    float
        Its threshold in dB over the floor, on a mean over 3 × 3 pixels: the one with the best mIoU on `validation`.
    """
    chosen, count = evaluation_indices(len(validation), 128), len(validation.labels)
    masks, levels = validation.masks[chosen], smooth(validation.pictures[chosen].astype(np.float32))
    commonest = 1 + int(np.argmax([np.count_nonzero(masks == label) for label in range(1, count)]))

    def miou(threshold_db: float) -> float:
        matrix = confusion(masks, (levels > threshold_db / spec.db_scale) * commonest, count)
        return figures(matrix, validation.labels)["miou"] or 0.0

    threshold_db = float(max(THRESHOLDS_DB, key=miou))

    def detect(batch: Batch) -> Predicted:
        return Predicted((smooth(batch.pictures.numpy()) > threshold_db / spec.db_scale) * commonest)

    return detect, threshold_db


def smooth(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over 3 × 3 pixels of (batch, n_steps, n_bins) pictures."""
    return uniform_filter(pictures, (1, 3, 3))


def show(report: dict[str, Any], name: str) -> None:
    """Print a report as a table."""
    # No borders and no padding: figures of seven labels are to be read in 80 columns too.
    title = f"{name} on {report['windows']:,} windows of the split {report['split']}"
    table = Table(title=title, box=box.SIMPLE, padding=0, pad_edge=False)
    table.add_column("", no_wrap=True)
    headings = (
        "windows",
        "class-mean accuracy",
        "mIoU",
        *(f"IoU {label}" for label in report["labels"]),
        "pixel accuracy",
    )
    for heading in headings:
        table.add_column(heading, justify="right", min_width=5, overflow="fold")
    for title, part in (("model", report), ("energy detector", report["energy_detector"])):
        table.add_row(title, str(report["windows"]), *_cells(part["overall"]))
        for level, entry in part["by_snr_db"].items():
            table.add_row(f"  at {level} dB", str(entry["windows"]), *_cells(entry))
        table.add_row("  from 10 dB", str(part["from_10_db"]["windows"]), *_cells(part["from_10_db"]))
        table.add_section()
    console = Console()
    console.print(table)
    for title, part in ((name, report), ("energy detector", report["energy_detector"])):
        share, named = part["noise_only"]["signal_share"], part["other_only"]["named_share"]
        if share is not None:
            console.print(f"{title}: {share:.4%} of noise-only pixels labelled as signal")
        if named is not None:
            console.print(f"{title}: {named:.4%} of the pixels of windows with other signals only get a class's name")
    for title, part in report["calibration"].items():
        error = part["expected_calibration_error"]
        if error is not None:
            console.print(f"{name}: expected calibration error of {title.replace('_', ' ')} {error:.2%}")


def _cells(entry: dict[str, Any]) -> list[str]:
    values = [entry["class_mean_accuracy"], entry["miou"], *entry["iou"].values(), entry["pixel_accuracy"]]
    return ["-" if value is None else f"{value:.3f}" for value in values]


if __name__ == "__main__":
    run(main)
