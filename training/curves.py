# SPDX-License-Identifier: Apache-2.0
"""The log of a run: JSON lines as it goes, and a PNG of its curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LOG = "log.jsonl"
CURVES = "curves.png"


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Add one line to a run's log."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def truncate(folder: Path, step: int) -> None:
    """Drop lines past `step`: those that an interrupted run logged after its last checkpoint."""
    entries = [entry for entry in entries_of(folder) if entry["step"] <= step]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / LOG).write_text(text, encoding="utf-8")


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; none where there is no log. A line cut off by a crash is left out."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def begin(folder: Path) -> None:
    """Drop the log of an attempt that ended before its first checkpoint."""
    (folder / LOG).unlink(missing_ok=True)


def has(folder: Path, step: int, name: str) -> bool:
    """Whether a run's log has a value of that name after so many updates."""
    return any(name in entry for entry in entries_of(folder) if entry["step"] == step)


def draw(folder: Path) -> Path:
    """Draw a run's loss over its updates, and what it was measured by: validation scores, or the monitors' probes.

    Returns
    -------
    Path
        The PNG.
    """
    entries = entries_of(folder)
    validations = [entry for entry in entries if "miou" in entry]
    probes = [entry for entry in entries if entry.get("linear_probe") is not None]
    measured = bool(validations or probes)
    figure = Figure(figsize=(10 if measured else 6, 4), layout="constrained")
    _draw_losses(figure.add_subplot(1, 1 + measured, 1), entries)
    if measured:
        right = figure.add_subplot(1, 2, 2)
        if validations:
            _draw_validations(right, validations)
        else:
            _draw_probes(right, probes)
        right.set(xlabel="updates", ylim=(0, 1))
        right.grid(alpha=0.3)
        right.legend(fontsize="small")
    path = folder / CURVES
    figure.savefig(path, dpi=120)
    return path


def _draw_losses(axes: Axes, entries: list[dict[str, Any]]) -> None:
    training = [entry for entry in entries if "loss" in entry]
    steps = np.array([entry["step"] for entry in training])
    losses = np.array([entry["loss"] for entry in training])
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=0.8, label="training, every line")
    width = max(1, len(losses) // 20)
    if len(losses) >= width:
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        axes.plot(steps[len(steps) - len(smooth) :], smooth, color="tab:blue", label=f"mean of {width}")
    looks = [entry for entry in entries if entry.get("held_out")]
    for number, kind in enumerate(looks[0]["held_out"] if looks else ()):
        held = [(entry["step"], entry["held_out"][kind]) for entry in looks if kind in entry["held_out"]]
        axes.plot(*zip(*held, strict=True), "o-", color=f"C{1 + number}", markersize=3, label=f"held-out {kind}")
    axes.set(xlabel="updates", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_validations(axes: Axes, validations: list[dict[str, Any]]) -> None:
    at = [entry["step"] for entry in validations]
    axes.plot(at, [entry["miou"] for entry in validations], "o-", label="mIoU")
    axes.plot(at, [entry["class_mean_accuracy"] for entry in validations], "o-", label="class-mean accuracy")
    for label in validations[0]["iou"]:
        axes.plot(at, [entry["iou"][label] for entry in validations], "--", alpha=0.6, label=f"IoU {label}")
    axes.set(ylabel="validation")


def _draw_probes(axes: Axes, probes: list[dict[str, Any]]) -> None:
    at = [entry["step"] for entry in probes]
    names = {
        "linear_probe": "linear probe, mIoU",
        "linear_probe_accuracy": "linear probe, class-mean accuracy",
        "nearest_neighbour": "nearest neighbour, class-mean accuracy",
    }
    for name, text in names.items():
        axes.plot(at, [entry[name] for entry in probes], "o-", label=text)
    axes.set(ylabel="patches of held-out windows")


def draw_reliability(calibration: dict[str, Any], path: Path) -> None:
    """Draw how often a model is right against how sure it is, and what leaving out unsure pixels gains, as a PNG.

    Parameters
    ----------
    calibration : dict
        From :func:`training.evaluate.measure`.
    path : Path
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], ":", color="gray")
    for name, part in calibration.items():
        points = part["reliability"]
        if not points:
            continue
        error = part["expected_calibration_error"]
        label = f"{name.replace('_', ' ')}, expected calibration error {error:.2%}"
        left.plot([p["confidence"] for p in points], [p["accuracy"] for p in points], "o-", label=label)
        kept = [row for row in part["risk_coverage"] if row["risk"] is not None]
        right.plot([r["coverage"] for r in kept], [r["risk"] for r in kept], "o-", label=name.replace("_", " "))
    left.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="coverage: share of pixels that keep their label", ylabel="risk: share of these that is wrong")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
