# SPDX-License-Identifier: Apache-2.0
"""Whether TensorRT can read what we give it, as far as that shows without a GPU; and what half precision changes.

The list of operators is data: tensorrt_operators.toml. That a graph passes says that NVIDIA's documentation has every
operator in it for its types; not that a plan was built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.iq_model import IQModel, iq_words
from rfvit_rt.engines.precision import in_precision
from rfvit_rt.models import default_model, find_model, model_names
from rfvit_rt.sources.recording import open_recording
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, spectrogram, tiles
from rfvit_rt.windowing import windows

pytest.importorskip("onnxruntime", reason="pip install -e '.[test]'")

from .half_precision import run, with_barriers

EXAMPLE = Path(__file__).parents[2] / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
TRUTH = tomllib.loads(Path(__file__).with_name("tensorrt_operators.toml").read_text(encoding="utf-8"))
TYPES = {name: frozenset(group["types"]) for group in TRUTH["operators"] for name in group["names"].split()}
TYPED_BY_SECOND = {"Where"}  # its first input is a condition
IQ_GRAPHS = {"iq-20M-ci16": (20e6, "ci16_le"), "iq-62M-cf32": (62e6, "cf32_le")}
GRAPHS = [(name, precision) for name in (*model_names(), *IQ_GRAPHS) for precision in ("f32", "f16", "bf16")]


@cache
def graph_of(name: str, precision: str) -> bytes:
    if name in IQ_GRAPHS:
        pytest.importorskip("torch", reason="the graph is exported with torch: pip install -e '.[train]'")
        return in_precision(IQModel.of(default_model(), *IQ_GRAPHS[name]).to_onnx(), precision)
    return in_precision(read_graph(find_model(name)), precision)


@dataclass(frozen=True)
class Inferred:
    """A graph with the type of every tensor."""

    model: onnx.ModelProto
    types: dict[str, str]

    @classmethod
    def of(cls, content: bytes) -> Inferred:
        model = onnx.load_model_from_string(content)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
        types = {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
        types |= {tensor.name: TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
        return cls(model, types)


def unsupported(inferred: Inferred) -> Iterator[str]:
    """What TensorRT's documentation does not have."""
    ends = {value.name for value in (*inferred.model.graph.input, *inferred.model.graph.output)}
    for node in inferred.model.graph.node:
        if node.op_type not in TYPES:
            yield f"{node.name}: no operator {node.op_type}"
            continue
        inputs = list(node.input)[1 if node.op_type in TYPED_BY_SECOND else 0 :][:1]
        outputs = list(node.output)[:1] if node.op_type in ("Cast", "Constant", "ConstantOfShape") else []
        for name in (*inputs, *outputs):
            if inferred.types[name] not in TYPES[node.op_type]:
                yield f"{node.name}: {node.op_type} of {inferred.types[name]}"
            if inferred.types[name] in TRUTH["network_only"] and name not in ends:
                yield f"{node.name}: {inferred.types[name]} inside of the network"


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = (node for node in model.graph.node if node.op_type == "Constant")
    return stored | {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in nodes}


@pytest.mark.parametrize(("name", "precision"), GRAPHS)
def test_every_operator_is_on_tensorrts_list(name, precision):
    inferred = Inferred.of(graph_of(name, precision))
    (opset,) = [entry.version for entry in inferred.model.opset_import if entry.domain in ("", "ai.onnx")]
    assert TRUTH["opsets"][0] <= opset <= TRUTH["opsets"][1]
    assert not list(unsupported(inferred))


@pytest.mark.parametrize(("name", "precision"), GRAPHS)
def test_what_the_list_restricts_is_kept(name, precision):
    model = onnx.load_model_from_string(graph_of(name, precision))
    known = constants(model)
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type in ("Squeeze", "Unsqueeze", "ReduceSum", "CumSum"):
            assert len(node.input) == 1 or node.input[1] in known, f"{node.name}: axes must be constant"
        if node.op_type == "LayerNormalization":
            assert len(node.output) == 1, f"{node.name}: only the first output"
        if node.op_type == "TopK":
            assert known[node.input[1]] <= TRUTH["largest_top_k"], node.name
            assert attributes.get("sorted", 1) == 1, node.name
        if node.op_type == "Constant":
            assert attributes.keys() == {"value"}, node.name


def shapes_when_run(content: bytes, batch: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a run; inference does not see through all of them."""
    model = onnx.load_model_from_string(content)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    for number, name in enumerate(names):
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [f"shape/{number}"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"shape/{number}", TensorProto.INT64, None))
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.INT32: np.int32}
    inputs = {
        value.name: np.zeros(
            (batch, *(size.dim_value for size in value.type.tensor_type.shape.dim[1:])),
            kinds[value.type.tensor_type.elem_type],
        )
        for value in model.graph.input
    }
    return {name: tuple(shape) for name, shape in zip(names, run(model.SerializeToString(), **inputs), strict=True)}


@pytest.mark.parametrize("name", [*model_names(), *IQ_GRAPHS])
def test_shapes_are_static_but_for_the_batch(name):
    one, two = (shapes_when_run(graph_of(name, "f32"), batch) for batch in (1, 2))
    assert len(one) > 100
    grown = {tensor: (shape, two[tensor]) for tensor, shape in one.items() if shape != two[tensor]}
    assert len(grown) > 50
    for tensor, (first, second) in grown.items():
        # In one axis and in proportion: the batch, or the tiles of all its windows.
        (axis,) = [axis for axis, sizes in enumerate(zip(first, second, strict=True)) if len(set(sizes)) > 1]
        assert second[axis] == 2 * first[axis], f"{tensor} is {first} and {second}"


def unknown_operator(model):
    model.graph.node[-1].op_type = "Hardmax"


def int16_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT16
    model.graph.node.append(onnx.helper.make_node("Cast", [model.graph.input[0].name], ["f"], name="c", to=1))


@pytest.mark.parametrize(("damage", "says"), [(unknown_operator, "no operator Hardmax"), (int16_input, "of INT16")])
def test_the_check_finds_what_tensorrt_lacks(damage, says):
    values = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    nodes = [] if damage is int16_input else [onnx.helper.make_node("Softmax", ["x"], ["y"], name="s")]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:] if nodes else [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    damage(model)
    assert any(says in line for line in unsupported(Inferred.of(model.SerializeToString())))


@cache
def example_pictures(spec: SpectrogramSpec) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of the example recording, which is simulated, every 10 ms; and their bin widths."""
    recording = open_recording(EXAMPLE)
    cut = windows(recording.blocks(), spec, spec.n_steps // 4)
    pictures = [tiles(spectrogram(window.samples, window.sample_rate, spec), spec) for window in cut]
    stacked = np.concatenate(pictures)
    return stacked, np.full(len(stacked), bin_width_feature(recording.sample_rate, spec), np.float32)


def inputs_of(model: ModelFile) -> tuple[np.ndarray, np.ndarray]:
    """Pictures for a model; of CSI there are the model's own one and louder, fainter and noisier ones."""
    spec = model.contract.spec
    if isinstance(spec, SpectrogramSpec):
        return example_pictures(spec)
    picture, feature = model.contract.golden.inputs(spec)
    noise = np.random.default_rng(1).normal(0, 1, (32, *picture.shape[1:]))
    varied = picture * np.linspace(0.25, 2, 32)[:, None, None] + noise * np.linspace(0, 1, 32)[:, None, None]
    return varied.clip(spec.picture_min, spec.picture_max).astype(np.float32), np.repeat(feature, 32)


@pytest.mark.parametrize("name", model_names())
def test_float16_keeps_masks_and_answers(name):
    model = find_model(name)
    pictures, widths = inputs_of(model)
    feeds = dict(
        zip((end.name for end in Inferred.of(graph_of(name, "f32")).model.graph.input), (pictures, widths), strict=True)
    )
    full, half = (run(graph_of(name, precision), **feeds)[0] for precision in ("f32", "f16"))
    assert len(pictures) >= 10
    assert len(np.unique(full.argmax(axis=-1))) > 1
    assert np.abs(full - half).max() > 1e-5  # it does compute in fewer bits
    assert np.abs(full - half).max() < 0.1
    assert np.mean(full.argmax(axis=-1) == half.argmax(axis=-1)) >= 0.999


@pytest.mark.parametrize("name", [*model_names(), *IQ_GRAPHS])
def test_float16_graphs_are_rounded_here(name):
    """Or the tests above would compare float32 with itself."""
    barriers = onnx.load_model_from_string(with_barriers(graph_of(name, "f16")) or b"").graph.node
    assert sum(node.op_type == "Identity" for node in barriers) > 50
    assert with_barriers(graph_of(name, "f32")) is None


def test_float16_keeps_the_masks_of_raw_iq():
    spec = default_model().contract.spectrogram
    cut = windows(open_recording(EXAMPLE).blocks(), spec, spec.n_steps)
    samples = np.stack([window.samples for window in cut])
    iq = np.round(samples.view(np.float32).reshape(*samples.shape, 2) * 2**15).astype(np.int16)
    full, half = (run(graph_of("iq-20M-ci16", precision), iq=iq_words(iq))[0] for precision in ("f32", "f16"))
    assert full.dtype == np.uint8
    assert np.mean(full == half) >= 0.999
