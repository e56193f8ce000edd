# SPDX-License-Identifier: Apache-2.0
"""What every engine must do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rfvit_rt.engines import load_engine, prove
from rfvit_rt.errors import EngineError, ModelError

pytestmark = pytest.mark.parametrize("name", ["openvino", "pytorch"])  # those that need no GPU


def load(model, name, **options):
    return load_engine(model, name, **{"device": "cpu"} | options)


def scaled(weight, factor):
    """Return a tamperer that multiplies a stored weight."""

    def tamper(proto):
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == weight)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(factor), weight))

    return tamper


def test_the_golden_output_is_reproduced_closely(model, name):
    with load(model, name, precision="f32") as engine:
        assert engine.name == name
        assert engine.input_shape == (48, 64)
        assert prove(engine, model) < 5e-4  # the rounding of the stored output


def test_describes_itself(model, name):
    with load(model, name, precision="f32") as engine:
        assert engine.precision == "f32"
        assert "f32" in engine.description
        assert "CPU" in engine.description


def test_returns_probabilities_that_tell_pictures_apart(model, name, batch):
    with load(model, name) as engine:
        probabilities = engine.infer(*batch(3))
    assert probabilities.shape == (3, 48, 64, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.1


def test_the_bin_width_matters(model, name, batch):
    pictures, _ = batch(1)
    with load(model, name) as engine:
        narrow, wide = (engine.infer(pictures, np.array([width], np.float32)) for width in (-1, 2))
    assert np.abs(narrow - wide).max() > 1e-3


def test_pictures_of_csi_are_labelled_as_a_whole(activity_model, name, batch):
    with load(activity_model, name, precision="f32") as engine:
        assert prove(engine, activity_model) < 5e-4
        together = engine.infer(*batch(3))
        alone = engine.infer(*(part[:1] for part in batch(3)))
    assert together.shape == (3, 4)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(alone, together[:1])
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_a_result_does_not_depend_on_its_batch(model, name, batch):
    pictures, bin_widths = batch(9)
    with load(model, name) as engine:
        together = engine.infer(pictures, bin_widths)
        for count in (1, 2, 4):
            for first in range(0, 9 - count, 3):
                part = slice(first, first + count)
                np.testing.assert_array_equal(engine.infer(pictures[part], bin_widths[part]), together[part])
        turned = engine.infer(pictures[::-1], bin_widths[::-1])
    np.testing.assert_array_equal(turned[::-1], together)


def test_a_result_is_the_callers_own(model, name, batch):
    pictures, bin_widths = batch(2)
    with load(model, name) as engine:
        first = engine.infer(pictures[:1], bin_widths[:1])
        kept = first.copy()
        pictures[0] = 0  # the input is the caller's own too
        engine.infer(pictures[1:], bin_widths[1:])
    np.testing.assert_array_equal(first, kept)


def test_takes_arrays_of_any_layout(model, name, batch):
    pictures, bin_widths = batch(2)
    views = pictures[:, :, ::-1], np.asfortranarray(pictures), np.repeat(pictures, 2, axis=2)[:, :, ::2]
    with load(model, name) as engine:
        for view in views:
            expected = engine.infer(np.ascontiguousarray(view), bin_widths)
            view.flags.writeable = False
            np.testing.assert_array_equal(engine.infer(view, bin_widths), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_takes_a_number_of_threads(model, name, batch, threads):
    pictures, bin_widths = batch(2)
    with (
        load(model, name, precision="f32") as free,
        load(model, name, precision="f32", threads=threads) as bound,
    ):
        np.testing.assert_allclose(bound.infer(pictures, bin_widths), free.infer(pictures, bin_widths), atol=1e-4)


@pytest.mark.parametrize(
    "weight", ["head.classify.weight", "encoder.blocks.1.qkv.weight", "encoder.bin_width.2.weight"]
)
def test_refuses_tampered_weights(damaged, name, weight):
    model = damaged(scaled(weight, -4))
    with pytest.raises(
        ModelError, match=r"damaged\.onnx deviates from its golden output by 0\.\d+ on .*, 0\.\d+ is allowed"
    ):
        load(model, name, precision="f32")  # bf16, the default of some processors, has to allow more


def test_refuses_weights_that_are_not_numbers(damaged, name):
    model = damaged(scaled("head.classify.bias", np.nan))
    with pytest.raises(ModelError, match="deviates from its golden output by nan"):
        load(model, name)


def test_refuses_a_network_of_other_labels(model, promising, name):
    golden = dataclasses.replace(model.contract.golden, output=model.contract.golden.output[..., :2])
    with pytest.raises(ModelError, match="its contract says"):
        load(promising(labels=("background", "LTE"), golden=golden), name)


def test_refuses_a_file_that_was_replaced_since(model, name, tmp_path):
    path = tmp_path / "replaced.onnx"
    path.write_bytes(b"no longer a model")
    with pytest.raises(ModelError, match=r"replaced\.onnx has changed"):
        load(dataclasses.replace(model, path=path), name)


def test_refuses_a_file_that_is_gone(model, name, tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx.*No such file"):
        load(dataclasses.replace(model, path=tmp_path / "gone.onnx"), name)


def in_another_file(tensor, folder):
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def weight_elsewhere(proto, folder):
    in_another_file(next(tensor for tensor in proto.graph.initializer if tensor.name == "head.classify.weight"), folder)


def constant_elsewhere(proto, folder):
    in_another_file(next(node for node in proto.graph.node if node.op_type == "Constant").attribute[0].t, folder)


def branch_elsewhere(proto, folder):
    branch = onnx.helper.make_graph([], "branch", [], [])
    branch.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "hidden"))
    in_another_file(branch.initializer[0], folder)
    proto.graph.node.append(
        onnx.helper.make_node("If", ["pictures"], ["unused"], then_branch=branch, else_branch=branch)
    )


@pytest.mark.parametrize("elsewhere", [weight_elsewhere, constant_elsewhere, branch_elsewhere])
def test_reads_no_weights_from_other_files(damaged, name, elsewhere, tmp_path, monkeypatch):
    """Neither beside the model nor in the working folder, where OpenVINO would look: a model is one file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"damaged\.onnx keeps the weights .* in another file"):
        load(damaged(lambda proto: elsewhere(proto, tmp_path)), name)


def test_a_closed_engine_says_so(model, name, batch):
    engine = load(model, name)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=f"the {name} engine is closed"):
        engine.infer(*batch(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "'int4'.*leave the precision out"),
        ({"threads": 0}, "got 0 threads, at least 1"),
        ({"device": "abacus"}, "'abacus' here"),
    ],
)
def test_refuses_options_it_cannot_follow(model, name, options, message):
    with pytest.raises(EngineError, match=message):
        load(model, name, **options)


def test_an_engine_that_does_not_exist(model, name):
    known = {"pytorch": "torch"}.get(name, name)  # as users know it
    with pytest.raises(EngineError, match=rf"no engine 'abacus'; choose one of .*\b{known}\b"):
        load(model, "abacus")


def test_an_engine_that_is_not_installed(model, name):
    package, install = {
        "openvino": ("openvino", "pip install -e . in the repository"),
        "pytorch": ("torch", "pip install -e '.[train]' in the repository"),
    }[name]
    code = f"""
import sys
from pathlib import Path
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'")
sys.meta_path.insert(0, Missing())
from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import EngineError
try:
    load_engine(read_model(Path(sys.argv[1])), {name!r})
except EngineError as error:
    print(error)
"""
    child = subprocess.run([sys.executable, "-c", code, model.path], capture_output=True, text=True, check=True)
    assert child.stdout.startswith(f"the {name} engine cannot be loaded (No module named '{package}')")
    assert child.stdout.strip().endswith(install)
    assert len(child.stdout.splitlines()) == 1
