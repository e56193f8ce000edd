# SPDX-License-Identifier: Apache-2.0
"""Graphs in half precision: what is computed in which type, and that the results stay what they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.iq_model import IQModel
from rfvit_rt.engines.precision import in_precision, precision_name
from rfvit_rt.errors import EngineError, ModelError

pytest.importorskip("onnxruntime", reason="pip install -e '.[test]'")

from .half_precision import run

HALF = {"f16": "FLOAT16", "bf16": "BFLOAT16"}
IN_HALF = {"MatMul", "Gemm", "Conv"}
IN_FULL = {"Softmax", "LayerNormalization", "Erf", "Exp", "Log", "ReduceMean", "Sqrt", "Pow"}


def typed(content: bytes) -> tuple[onnx.ModelProto, dict[str, str]]:
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), check_type=True, strict_mode=True)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
    return model, types | {t.name: TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}


def graph_of(nodes, weights=(), opset=17):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(v, n) for n, v in weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["model", "activity_model"])
@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_products_are_in_the_half_type_and_what_sums_stays_in_full(request, kind, precision):
    model, types = typed(in_precision(read_graph(request.getfixturevalue(kind)), precision))
    seen = set()
    for node in model.graph.node:
        if node.op_type in IN_HALF:
            assert {types[name] for name in node.input if name} == {HALF[precision]}, node.name
        if node.op_type in IN_FULL:
            assert types[node.input[0]] == "FLOAT", node.name
        seen.add(node.op_type)
    assert seen & IN_HALF
    assert {"Softmax", "LayerNormalization", "Erf"} <= seen


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_ends_and_metadata_stay(model, precision):
    before = onnx.load_model_from_string(read_graph(model))
    after = onnx.load_model_from_string(in_precision(read_graph(model), precision))
    for ends, kept in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        assert [end.name for end in kept] == [end.name for end in ends]
        assert {end.type.tensor_type.elem_type for end in kept} == {TensorProto.FLOAT}
    assert sorted(map(str, after.metadata_props)) == sorted(map(str, before.metadata_props))


def test_full_precision_is_the_graph_itself(model):
    assert in_precision(read_graph(model), "f32") == read_graph(model)


def test_results_are_near_and_not_the_same(model, batch):
    pictures, bin_widths = batch(4)
    full, half = (
        run(in_precision(read_graph(model), name), pictures=pictures, bin_widths=bin_widths)[0]
        for name in ("f32", "f16")
    )
    assert half.dtype == np.float32
    assert 1e-6 < np.abs(full - half).max() < 5e-3


def test_weights_that_are_stored_in_half_are_taken_as_they_are(model):
    """They were cast to float32 in the graph; casting them back would be work, and twice the memory."""
    before, after = read_graph(model), in_precision(read_graph(model), "f16")
    proto = onnx.load_model_from_string(after)
    stored = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    products = [node for node in proto.graph.node if node.op_type in IN_HALF]
    assert sum(node.input[1] in stored for node in products) >= 4
    assert len(after) < 1.2 * len(before)


def test_a_bfloat16_graph_has_the_opset_that_has_its_convolutions(model):
    (opset,) = typed(in_precision(read_graph(model), "bf16"))[0].opset_import
    assert opset.version >= 22


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_a_spectrum_stays_in_full_precision(model, precision):
    """It spans more than half precision holds: a tone 90 dB over the noise would be infinite."""
    converted, types = typed(in_precision(IQModel.of(model, 4e6, "cf32_le").to_onnx(), precision))
    front = [node for node in converted.graph.node if "front_end" in node.name.split("/")]
    behind = [node for node in converted.graph.node if "network" in node.name.split("/")]
    assert len(front) > 20
    assert not [node.name for node in front for name in node.output if types.get(name) == HALF[precision]]
    assert [node.name for node in behind for name in node.output if types.get(name) == HALF[precision]]


def test_the_residual_stream_is_summed_in_full():
    weight = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    content = in_precision(graph_of(nodes, [("w", weight)]), "f16")
    model, types = typed(content)
    (add,) = [node for node in model.graph.node if node.op_type == "Add"]
    assert {types[name] for name in (*add.input, *add.output)} == {"FLOAT"}
    values = np.random.default_rng(1).standard_normal((2, 4, 4), np.float32)
    half = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(content, x=values)[0], half + half)


def test_an_output_keeps_its_type_where_its_maker_changes_it():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    content = in_precision(graph_of(nodes, [("w", np.eye(4, dtype=np.float32))]), "f16")
    model, types = typed(content)
    assert types["y"] == "FLOAT"
    assert model.graph.node[-1].op_type == "Cast"
    values = np.full((1, 4, 4), 1 + 2**-11, np.float32)
    np.testing.assert_array_equal(run(content, x=values)[0], 1)  # a bit that f16 lacks is gone


def test_what_is_no_float_stays():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("MatMul", ["x", "x"], ["square"]),
        helper.make_node("Reshape", ["square", "shape"], ["y"]),
    ]
    content = in_precision(graph_of(nodes), "f16")
    assert typed(content)[1]["shape"] == "INT64"
    assert run(content, x=np.ones((3, 4, 4), np.float32))[0].shape == (3, 4, 4)


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True]))
    nodes = [yes, helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(ModelError, match=r"cannot be converted to f16 \(.*control flow.*\); use fp32"):
        in_precision(graph_of(nodes), "f16")


def test_a_tensor_whose_type_cannot_be_told_is_refused():
    nodes = [helper.make_node("Own", ["x"], ["z"], domain="our.own"), helper.make_node("Relu", ["z"], ["y"])]
    for precision in ("f16", "bf16"):
        with pytest.raises(ModelError, match=rf"cannot be converted to {precision} \(.*\); use fp32") as caught:
            in_precision(graph_of(nodes), precision)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"), [("fp16", "f16"), ("FP32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("BF16", "bf16")]
)
def test_names(text, name):
    assert precision_name(text) == name


@pytest.mark.parametrize("text", ["", "int8", "16", "f64", "fpf16"])
def test_names_of_none(text):
    with pytest.raises(EngineError, match="choose one of fp16, bf16, fp32"):
        precision_name(text)
