# SPDX-License-Identifier: Apache-2.0
"""Labels are data: they come from the windows' folder and go through the checkpoint into the model's contract."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rfvit_rt.contract import read_model
from rfvit_rt.errors import ModelError, RecordingError
from training import checkpoint, curves, evaluate, export, finetune, pretrain
from training.batches import read_spec
from training.datasets import open_windows

OWN = ("nothing", "WLAN", "Bluetooth", "other")


@pytest.fixture(scope="module")
def relabelled(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same windows under other names, one of which does not occur."""
    root = tmp_path_factory.mktemp("relabelled") / "scenes"
    shutil.copytree(scenes, root)
    for path in root.glob("*/scenes.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": OWN}))
    return root


def test_labels_are_those_that_the_folder_names(relabelled: Path) -> None:
    windows = open_windows(relabelled / "train")
    assert windows.labels == OWN
    read_spec(relabelled / "train", windows)


@pytest.mark.parametrize("labels", [[], "LTE", ["a", "a"], [1, 2], None, [f"{k}" for k in range(256)]])
def test_labels_that_are_none_are_refused(labels: Any, relabelled: Path, tmp_path: Path) -> None:
    shutil.copytree(relabelled / "validation", tmp_path / "validation")
    (tmp_path / "validation" / "scenes.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(RecordingError, match="labels are different names"):
        open_windows(tmp_path / "validation")


def test_labels_go_from_the_windows_into_the_model_file(
    relabelled: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    pretrain.main(config=recipes["pretrain"], data=relabelled, out=tmp_path / "pretrain", steps=2)
    init = tmp_path / "pretrain" / checkpoint.LAST
    assert checkpoint.load(init).labels == OWN
    finetune.main(config=recipes["finetune"], data=relabelled, out=tmp_path / "run", init=init, steps=3)
    best = checkpoint.load(tmp_path / "run" / checkpoint.BEST)
    assert (best.labels, best.vit.n_classes) == (OWN, 4)
    (scores,) = (entry for entry in curves.entries_of(tmp_path / "run") if "miou" in entry)
    assert tuple(scores["iou"]) == OWN
    report = tmp_path / "report.json"
    evaluate.main(model=tmp_path / "run" / checkpoint.BEST, data=relabelled, out=report)
    assert tuple(json.loads(report.read_text())["overall"]["iou"]) == OWN
    export.main(weights=tmp_path / "run" / checkpoint.BEST, data=relabelled, out=tmp_path / "m.onnx", metrics=report)
    contract = read_model(tmp_path / "m.onnx").contract
    assert contract.labels == OWN
    assert contract.output_shape == (64, 64, 4)


def test_splits_with_different_labels_are_refused(
    scenes: Path, relabelled: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "train").symlink_to(relabelled / "train")
    (tmp_path / "validation").symlink_to(scenes / "validation")
    with pytest.raises(RecordingError, match="the labels to train on are nothing, WLAN"):
        finetune.main(config=recipes["finetune"], data=tmp_path, out=tmp_path / "run", steps=1)


def test_class_weights_are_counted_against_the_labels(
    relabelled: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipes["finetune"].read_text() + "[loss]\nclass_weights = [1, 2, 3]\n")
    with pytest.raises(ModelError, match="3 numbers; 4 are needed: nothing, WLAN, Bluetooth, other"):
        finetune.main(config=recipe, data=relabelled, out=tmp_path / "run", steps=1)
