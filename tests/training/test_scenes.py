# SPDX-License-Identifier: Apache-2.0
"""Splits on disk: complete or recognisably not, never replaced unasked, and Ctrl-C ends the processes in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from rfvit_rt.errors import OutputError, RecordingError, SpecMismatch
from training import scenes
from training.batches import read_spec
from training.config import RecipeError
from training.datasets import open_windows, read_record
from training.signals.surroundings import LABELS, SceneSettings

REPOSITORY = Path(__file__).parents[2]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """The script in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "training.scenes", "--out", str(out), *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_split_is_the_windows_of_its_seeds_and_is_replaced_only_when_asked(tmp_path: Path) -> None:
    scenes.main(out=tmp_path, train=2, validation=0, test=0, seed=5, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    windows = open_windows(tmp_path / "train")
    spec = read_spec(tmp_path / "train", windows)
    with threadpool_limits(1):  # as the processes that made them have it: rounding depends on it
        window = scenes.make_window(6, SceneSettings(), spec)
    assert windows.labels == LABELS
    assert list(windows.scenes) == [5, 6]
    np.testing.assert_array_equal(windows.masks[1], window.mask)
    np.testing.assert_array_equal(windows.pictures[1], window.picture)

    with pytest.raises(OutputError, match="train exists; --overwrite replaces it"):
        scenes.main(out=tmp_path, train=1, validation=1, test=0, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]  # refused before any work
    scenes.main(out=tmp_path, train=1, validation=0, test=0, jobs=1, overwrite=True)
    assert list(open_windows(tmp_path / "train").scenes) == [0]


def test_classes_rule_and_rate_are_those_asked_for(tmp_path: Path) -> None:
    counts = {"train": 3, "validation": 0, "test": 0, "jobs": 1, "seed": 7}
    scenes.main(out=tmp_path, classes="NR, LTE", rule="carrier", rate=2e6, **counts)  # type: ignore[arg-type]
    windows = open_windows(tmp_path / "train")
    assert windows.labels == ("background", "LTE", "NR")
    settings = read_record(tmp_path / "train")["settings"]
    assert (settings["rule"], settings["sample_rate"]) == ("carrier", 2e6)
    np.testing.assert_allclose(windows.bin_widths, np.log2(2e6 / 256 / 60e3), rtol=1e-6)
    full = windows.masks[~(windows.masks == 255).any(axis=(1, 2))]
    assert (full == full[:, :1]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": "LTE,5G"}, RecipeError, "there are LTE, NR, WLAN, Bluetooth, other"),
        ({"rule": "whole"}, RecipeError, "there are occupancy and carrier"),
        ({"rate": 1e6}, SpecMismatch, "1.8 to 500 MS/s"),
        ({"show": Path("/dev/null/scenes.png")}, OutputError, "cannot write /dev/null/scenes.png"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        scenes.main(out=tmp_path / "out", **({"rate": 2e6} | options))
    assert not (tmp_path / "out").exists()


def test_scenes_can_be_looked_at(tmp_path: Path) -> None:
    scenes.main(out=tmp_path / "out", rate=2e6, show=tmp_path / "new" / "scenes.png", seed=3)
    with Image.open(tmp_path / "new" / "scenes.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with start(tmp_path / "file", "--train", "1", "--validation", "0", "--test", "0") as script:
        _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert errors.startswith(f"error: cannot write {tmp_path / 'file' / 'train'}: Not a directory")
    assert errors.count("\n") == 1


def test_an_interrupted_split_is_not_taken_for_complete(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "scenes.json").write_text("{}")  # of the windows that were there before
    with start(tmp_path, "--train", "9999", "--validation", "0", "--test", "0", "--jobs", "1", "--overwrite") as script:
        deadline = time.monotonic() + 60
        while not _begun(folder) and script.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(script.pid, signal.SIGINT)  # as a terminal does: to the pool's processes too
        _, errors = script.communicate(timeout=60)
    assert script.returncode == 130
    assert "Traceback" not in errors
    with pytest.raises(RecordingError, match="the windows are not complete"):
        open_windows(folder)


def _begun(folder: Path) -> bool:
    path = folder / "pictures.npy"
    return path.is_file() and path.stat().st_size > 10_000
