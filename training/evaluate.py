# SPDX-License-Identifier: Apache-2.0
"""Measure a model on held-out windows: in all, by signal-to-noise ratio, on noise alone, beside an energy detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import uniform_filter

from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import OutputError, SpecMismatch
from rfvit_rt.spectrogram import SpectrogramSpec
from training import checkpoint
from training.batches import Batch, evaluation_batches, evaluation_indices, read_spec
from training.command import progress_bar, run
from training.datasets import LABELS, Windows, open_windows
from training.export import as_shipped
from training.metrics import confusion, figures

SNR_DB = (-5, 0, 10, 20, 30)
SNR_TOLERANCE = 2.5  # dB either way
THRESHOLDS_DB = np.arange(0.5, 12.5, 0.5)

Predict = Callable[[Batch], NDArray[np.integer[Any]]]  # a batch to (batch, n_steps, n_bins) labels


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
    if model.suffix == ".onnx":
        file = read_model(model)
        check_shape(windows, file.contract.spectrogram)
        with load_engine(file, engine) as loaded:
            measured = measure(
                windows,
                lambda batch: loaded.infer(batch.pictures.numpy(), batch.bin_widths.numpy()).argmax(axis=3),
                batch_size,
                limit,
            )
            how = loaded.description
    else:
        source = checkpoint.load(model)
        check_shape(windows, source.spectrogram)
        segmenter = as_shipped(source)
        with torch.inference_mode():
            measured = measure(
                windows,
                lambda batch: segmenter(batch.pictures, batch.bin_widths).argmax(dim=1).numpy(),
                batch_size,
                limit,
            )
        how = f"PyTorch {torch.__version__}, weights rounded as they ship"
    detector, threshold_db = energy_detector(validation, read_spec(data / "validation", validation))
    report = {
        "split": split,
        "windows": len(evaluation_indices(len(windows), limit)),
        "scenes": len(np.unique(windows.scenes[evaluation_indices(len(windows), limit)])),
        "engine": how,
        **measured,
        "energy_detector": {"threshold_db": threshold_db, **measure(windows, detector, batch_size, limit)},
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {out}: {error.strerror}") from error
    show(report, model.name)
    typer.echo(f"report: {out}")


def check_shape(windows: Windows, spec: SpectrogramSpec) -> None:
    """Raise :class:`SpecMismatch` where windows do not have the shape that a model takes."""
    if windows.pictures.shape[1:] != (spec.n_steps, spec.n_bins):
        raise SpecMismatch(
            f"the windows have {windows.pictures.shape[1]} x {windows.pictures.shape[2]} pixels, the model takes "
            f"{spec.n_steps} x {spec.n_bins}; make windows with the model's spec"
        )


def measure(windows: Windows, predict: Predict, batch_size: int, limit: int | None = None) -> dict[str, Any]:
    """Figures over all windows, by signal-to-noise ratio, and on noise alone.

    Returns
    -------
    dict
        ``overall``; ``by_snr_db`` for those of `SNR_DB` that occur; ``noise_only``: windows, and the share of their
        pixels that are labelled as a signal.
    """
    chosen = evaluation_indices(len(windows), limit)
    matrices = np.zeros((len(chosen), len(LABELS), len(LABELS)), np.int64)
    with progress_bar() as bar:
        task = bar.add_task("measure", total=len(chosen))
        for places, batch in evaluation_batches(windows, batch_size, limit):
            predicted, true = predict(batch), batch.masks.numpy()
            for place, labels, result in zip(range(places.start, places.stop), true, predicted, strict=True):
                matrices[place] = confusion(labels, result, len(LABELS))
            bar.advance(task, places.stop - places.start)
    snr_db = windows.snr_db[chosen]
    noise = matrices[np.isnan(snr_db)]
    return {
        "overall": figures(matrices.sum(axis=0), LABELS),
        "by_snr_db": {
            str(level): {"windows": int(near.sum()), **figures(matrices[near].sum(axis=0), LABELS)}
            for level in SNR_DB
            if (near := np.abs(snr_db - level) <= SNR_TOLERANCE).any()
        },
        "noise_only": {
            "windows": len(noise),
            "signal_share": float(noise[:, :, 1:].sum() / noise.sum()) if noise.sum() else None,
        },
    }


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
    chosen = evaluation_indices(len(validation), 128)
    masks, levels = validation.masks[chosen], smooth(validation.pictures[chosen].astype(np.float32))
    commonest = 1 + int(np.argmax([np.count_nonzero(masks == label) for label in range(1, len(LABELS))]))

    def miou(threshold_db: float) -> float:
        matrix = confusion(masks, (levels > threshold_db / spec.db_scale) * commonest, len(LABELS))
        return figures(matrix, LABELS)["miou"] or 0.0

    threshold_db = float(max(THRESHOLDS_DB, key=miou))
    return lambda batch: (smooth(batch.pictures.numpy()) > threshold_db / spec.db_scale) * commonest, threshold_db


def smooth(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over 3 × 3 pixels of (batch, n_steps, n_bins) pictures."""
    return uniform_filter(pictures, (1, 3, 3))


def show(report: dict[str, Any], name: str) -> None:
    """Print a report as a table."""
    table = Table(title=f"{name} on {report['windows']:,} windows of the split {report['split']}")
    table.add_column("", no_wrap=True)
    headings = ("windows", "class-mean accuracy", "mIoU", *(f"IoU {label}" for label in LABELS), "pixel accuracy")
    for heading in headings:
        table.add_column(heading, justify="right")
    for title, part in (("model", report), ("energy detector", report["energy_detector"])):
        table.add_row(title, str(report["windows"]), *_cells(part["overall"]))
        for level, entry in part["by_snr_db"].items():
            table.add_row(f"  at {level} dB", str(entry["windows"]), *_cells(entry))
        table.add_section()
    console = Console()
    console.print(table)
    for title, part in ((name, report), ("energy detector", report["energy_detector"])):
        share = part["noise_only"]["signal_share"]
        if share is not None:
            console.print(f"{title}: {share:.4%} of noise-only pixels labelled as signal")


def _cells(entry: dict[str, Any]) -> list[str]:
    values = [entry["class_mean_accuracy"], entry["miou"], *entry["iou"].values(), entry["pixel_accuracy"]]
    return ["-" if value is None else f"{value:.3f}" for value in values]


if __name__ == "__main__":
    run(main)
