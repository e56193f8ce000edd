# SPDX-License-Identifier: Apache-2.0
"""The log of a run: JSON lines as it goes, and a PNG of its curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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


def draw(folder: Path) -> Path:
    """Draw a run's loss, and its validation scores where there are any, over its updates.

    Returns
    -------
    Path
        The PNG.
    """
    entries = entries_of(folder)
    training = [entry for entry in entries if "loss" in entry]
    scores = [entry for entry in entries if "miou" in entry]
    figure = Figure(figsize=(10 if scores else 6, 4), layout="constrained")
    left = figure.add_subplot(1, 2 if scores else 1, 1)
    steps = np.array([entry["step"] for entry in training])
    losses = np.array([entry["loss"] for entry in training])
    left.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=0.8, label="training, every line")
    width = max(1, len(losses) // 20)
    if len(losses) >= width:
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        left.plot(steps[len(steps) - len(smooth) :], smooth, color="tab:blue", label=f"mean of {width}")
    left.set(xlabel="updates", ylabel="loss", yscale="log")
    left.grid(alpha=0.3)
    left.legend()
    if scores:
        right = figure.add_subplot(1, 2, 2)
        at = [entry["step"] for entry in scores]
        right.plot(at, [entry["miou"] for entry in scores], "o-", label="mIoU")
        right.plot(at, [entry["class_mean_accuracy"] for entry in scores], "o-", label="class-mean accuracy")
        for label in scores[0]["iou"]:
            right.plot(at, [entry["iou"][label] for entry in scores], "--", alpha=0.6, label=f"IoU {label}")
        right.set(xlabel="updates", ylabel="validation", ylim=(0, 1))
        right.grid(alpha=0.3)
        right.legend(fontsize="small")
    path = folder / CURVES
    figure.savefig(path, dpi=120)
    return path
