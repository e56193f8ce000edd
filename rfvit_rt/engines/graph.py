# SPDX-License-Identifier: Apache-2.0
"""The bytes of a model, as an engine may take them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import onnx

from rfvit_rt.contract import ModelFile
from rfvit_rt.errors import ModelError


def read_graph(model: ModelFile) -> bytes:
    """Read a model's ONNX bytes: those that its contract came with, and complete.

    Raises
    ------
    ModelError
        If the file is gone or has changed since its contract was read, or draws weights from other files: runtimes
        would read any file that a graph names, and neither the model's hash nor a copy of the model would cover it.
    """
    try:
        data = model.path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {model.path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise ModelError(f"{model.path} has changed since its contract was read; start again")
    proto = onnx.load_model_from_string(data)
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for tensor in (*_weights(proto.graph), *_constants(nodes)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(
                f"{model.path} keeps the weights {tensor.name!r} in another file, a model is one file; export it again"
            )
    return data


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Tensors that nodes carry, those of their subgraphs included (protobuf bounds the nesting)."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _weights(graph)
            yield from _constants(graph.node)
