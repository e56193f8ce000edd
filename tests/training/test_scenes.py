# SPDX-License-Identifier: Apache-2.0
"""Splits on disk: complete or recognisably not, never replaced unasked, and Ctrl-C ends the processes in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.errors import OutputError, RecordingError
from training import scenes
from training.batches import read_spec
from training.datasets import open_windows

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
    window = scenes.make_window(6, scenes.SceneSettings(), spec)
    assert list(windows.scenes) == [5, 6]
    np.testing.assert_array_equal(windows.masks[1], window.mask)
    np.testing.assert_array_equal(windows.pictures[1], window.picture)

    with pytest.raises(OutputError, match="train exists; --overwrite replaces it"):
        scenes.main(out=tmp_path, train=1, validation=1, test=0, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]  # refused before any work
    scenes.main(out=tmp_path, train=1, validation=0, test=0, jobs=1, overwrite=True)
    assert list(open_windows(tmp_path / "train").scenes) == [0]


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
        read_spec(folder, open_windows(folder))


def _begun(folder: Path) -> bool:
    return (folder / "scenes.npy").is_file() and bool(open_windows(folder).scenes.any())
