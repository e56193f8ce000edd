# SPDX-License-Identifier: Apache-2.0
"""Finding models by name and by path, and the models that ship."""

from __future__ import annotations

import pytest

from rfvit_rt.contract import TASKS, read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import ModelError
from rfvit_rt.models import DEFAULTS, FOLDER, default_model, find_model, model_names, shipped_models

LARGEST_FILE = 12_000_000  # bytes; a source repository has to carry it
NONE_SHIPS = pytest.mark.skipif(not model_names(), reason="no model ships in this checkout yet")


@pytest.mark.parametrize("name", ["no-such-model", "no/such/model.onnx", "../models/none", "x" * 5000, "a\0b"])
def test_a_model_that_does_not_exist(name):
    with pytest.raises(ModelError, match=r"there is no model .*; give the path of an \.onnx file, or one that ships"):
        find_model(name)


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "notes.onnx"
    path.write_bytes(b"\x00 not a model")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        find_model(path)
    with pytest.raises(ModelError, match="cannot read the model"):
        find_model(tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_another_model_does_not_become_the_default(tmp_path, monkeypatch, task):
    (tmp_path / "a-first-by-name.onnx").touch()
    monkeypatch.setattr("rfvit_rt.models.FOLDER", tmp_path)
    with pytest.raises(ModelError, match=rf"{DEFAULTS[task]}\.onnx is not in "):
        default_model(task)


@NONE_SHIPS
def test_finds_what_ships_by_name_and_by_path():
    for model in shipped_models():
        name = model.contract.name
        assert model.path == FOLDER / f"{name}.onnx"
        assert find_model(name).sha256 == find_model(model.path).sha256 == read_model(model.path).sha256
    assert default_model().contract.task == "segmentation"
    for task, name in DEFAULTS.items():
        if name in model_names():
            assert (default_model(task).contract.name, default_model(task).contract.task) == (name, task)


@NONE_SHIPS
@pytest.mark.parametrize("name", model_names())
def test_what_ships_proves_itself_and_has_a_card(name):
    model = find_model(name)
    with load_engine(model):
        pass
    assert model.path.stat().st_size <= LARGEST_FILE
    assert model.path.with_suffix(".md").is_file()
    assert model.contract.metrics
