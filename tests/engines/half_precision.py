# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime, made to round where a float16 graph says so.

On a processor it computes such graphs in float32, and leaves out casts to float16 and back, even where nothing is to be
optimised: nothing is rounded then. An Identity behind every float16 tensor keeps it from that. Products are summed in
float32, as GPUs do.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper


def run(content: bytes, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    """Run a graph."""
    return list(session(content).run(None, inputs))


@lru_cache(8)
def session(content: bytes) -> onnxruntime.InferenceSession:
    """A graph, ready to run."""
    options = onnxruntime.SessionOptions()
    rounding = with_barriers(content)
    if rounding is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(rounding or content, options, providers=["CPUExecutionProvider"])


def with_barriers(content: bytes) -> bytes | None:
    """Put an Identity behind every float16 tensor that a node makes; None where there is none."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), check_type=True, strict_mode=True)
    half = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = list(model.graph.node)
    made = {name for node in nodes for name in node.output} & half
    if not made:
        return None
    del model.graph.node[:]
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in made:
                node.input[place] = f"{name}.rounded"
        model.graph.node.append(node)
        for name in node.output:
            if name in made:
                model.graph.node.append(helper.make_node("Identity", [name], [f"{name}.rounded"]))
    return bytes(model.SerializeToString())
