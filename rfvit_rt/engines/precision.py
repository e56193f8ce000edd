# SPDX-License-Identifier: Apache-2.0
"""A model's graph in half precision: TensorRT takes the precision of every step from the graph's own types.

Matrix products and convolutions, where the time goes, are computed in the half type. What sums or divides stays in f32:
softmax, normalisation, the error function, and the sums of the residual stream. It is what torch's autocast does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

from rfvit_rt.errors import EngineError, ModelError

PRECISIONS = ("f16", "bf16", "f32")
FULL_SCOPE = (
    "front_end"  # nodes of the module of this name stay in f32: a spectrum spans more than half precision holds
)
_HALF = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_PRODUCTS = {"MatMul", "Gemm", "Conv"}
_SENSITIVE = {
    "Erf",
    "Exp",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "LogSoftmax",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Tanh",
}
_BF16_OPSET = 22  # convolutions take bfloat16 from here on


def precision_name(text: str) -> str:
    """Return a precision as this project writes it; ``fp16`` and ``fp32``, as TensorRT's tools say, are understood.

    Raises
    ------
    EngineError
        If there is no such precision.

    Examples
    --------
    >>> precision_name("fp16")
    'f16'
    """
    name = text.lower().replace("fp", "f")
    if name not in PRECISIONS:
        raise EngineError(f"there is no precision '{text}'; choose one of fp16, bf16, fp32")
    return name


def in_precision(data: bytes, precision: str) -> bytes:
    """Convert an ONNX model of float32 to half precision; inputs and outputs stay float32.

    Parameters
    ----------
    data : bytes
        An ONNX model without control flow, its weights inside. Weights may be stored as float16 and cast.
    precision : str
        One of `PRECISIONS`; ``f32`` gives the bytes back as they are.

    Returns
    -------
    bytes
        An ONNX model with the metadata of `data`.

    Raises
    ------
    ModelError
        If the types of the graph's tensors cannot be told, or it has control flow.

    Notes
    -----
    Constants and scalars take the type of what they are applied to. Nodes below a module called ``front_end`` stay in
    f32. A bfloat16 graph is of opset 22 or later, since earlier ones have no bfloat16 convolution.
    """
    if precision == "f32":
        return data
    proto = onnx.load_model_from_string(data)
    try:
        if precision == "bf16":
            proto = _raise_opset(proto)
        typed = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        graph = _Graph.of(typed.graph, _HALF[precision])
        for node in proto.graph.node:
            graph.take(node)
        _replace_nodes(proto, _used(graph.finish(), proto.graph.output))
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise ModelError(f"the model's graph cannot be converted to {precision} ({reason}); use fp32") from error
    return bytes(proto.SerializeToString())


def _raise_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to the opset that bfloat16 needs; the converter leaves out metadata, which are put back."""
    if next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")) >= _BF16_OPSET:
        return proto
    converted = onnx.version_converter.convert_version(proto, _BF16_OPSET)
    del converted.metadata_props[:]
    converted.metadata_props.extend(proto.metadata_props)
    return converted


@dataclass
class _Graph:
    """The graph as it is rewritten, in the order of computation.

    Attributes
    ----------
    half : int
        The half type.
    types : dict of str to int
        Element type that each tensor has in the new graph.
    scalars, constants : set of str
        Tensors of one element, and those that do not depend on the inputs: they do not decide a type, they follow.
    results : dict of str to int
        The graph's outputs and the types that they must have.
    versions : dict of (str, int) to str
        Names under which a tensor is there in another type.
    nodes : list of onnx.NodeProto
    """

    half: int
    types: dict[str, int]
    scalars: set[str]
    constants: set[str]
    results: dict[str, int]
    versions: dict[tuple[str, int], str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    @classmethod
    def of(cls, graph: onnx.GraphProto, half: int) -> _Graph:
        values = [*graph.input, *graph.output, *graph.value_info]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        scalars = {value.name for value in values if _is_scalar(value)}
        for tensor in graph.initializer:
            types[tensor.name] = tensor.data_type
            if all(size == 1 for size in tensor.dims):
                scalars.add(tensor.name)
        constants = {tensor.name for tensor in graph.initializer}
        return cls(half, types, scalars, constants, {value.name: types[value.name] for value in graph.output})

    def take(self, node: onnx.NodeProto) -> None:
        """Append a node of the old graph, in the type it is to be computed in."""
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"the node {node.name} is control flow")
        if all(name in self.constants for name in node.input if name) and node.op_type != "Shape":
            self.constants.update(node.output)
            self._note_widening(node)
            self.nodes.append(node)
            return
        wanted = self._type_for(node)
        if wanted is None:
            self.nodes.append(node)
            return
        self._append(node, wanted)

    def finish(self) -> list[onnx.NodeProto]:
        """Return the nodes, with the graph's outputs in the types that they had."""
        for name, wanted in self.results.items():
            if self.types[name] != wanted:
                inner = f"{name}.half"
                for node in self.nodes:
                    _rename(node.input, name, inner)
                    _rename(node.output, name, inner)
                self.nodes.append(_cast(inner, name, wanted))
        return self.nodes

    def _append(self, node: onnx.NodeProto, wanted: int) -> None:
        taken = onnx.NodeProto()
        taken.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name and self._is_float(name):
                taken.input[place] = self._in_type(name, wanted)
        self.nodes.append(taken)
        for name in node.output:
            if name and self._is_float(name):
                self.types[name] = wanted

    def _type_for(self, node: onnx.NodeProto) -> int | None:
        """Type to compute a node in; None where it takes no floats or gives something else of whatever it takes."""
        floats = [name for name in node.input if name and self._is_float(name)]
        if not floats or node.op_type in ("Cast", "Shape", "Size"):
            return None
        if FULL_SCOPE in node.name.split("/") or node.op_type in _SENSITIVE:
            return int(TensorProto.FLOAT)
        if node.op_type in _PRODUCTS:
            return self.half
        deciding = [name for name in floats if name not in self.constants and name not in self.scalars]
        if node.op_type == "Add" and len(deciding) > 1:
            return int(TensorProto.FLOAT)  # the residual stream
        types = {self.types[name] for name in deciding or floats}
        return int(TensorProto.FLOAT) if TensorProto.FLOAT in types else self.half

    def _is_float(self, name: str) -> bool:
        if name not in self.types:
            raise ValueError(f"the type of {name} is not known")
        return self.types[name] in (TensorProto.FLOAT, self.half)

    def _in_type(self, name: str, wanted: int) -> str:
        if self.types[name] == wanted:
            return name
        if (name, wanted) not in self.versions:
            version = f"{name}.{TensorProto.DataType.Name(wanted).lower()}"
            self.versions[name, wanted] = version
            self.nodes.append(_cast(name, version, wanted))
        return self.versions[name, wanted]

    def _note_widening(self, node: onnx.NodeProto) -> None:
        """Weights that are stored in the half type and cast to f32 are there in the half type already."""
        if node.op_type == "Cast" and self.types[node.input[0]] == self.half:
            self.versions[node.output[0], self.half] = node.input[0]


def _is_scalar(value: onnx.ValueInfoProto) -> bool:
    shape = value.type.tensor_type.shape
    return value.type.tensor_type.HasField("shape") and all(size.dim_value == 1 for size in shape.dim)


def _cast(name: str, output: str, wanted: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [output], name=f"{output}/Cast", to=wanted)


def _rename(names: Iterable[str], old: str, new: str) -> None:
    renamed = [new if name == old else name for name in names]
    del names[:]  # type: ignore[attr-defined]  # protobuf's repeated field, which has no common type
    names.extend(renamed)  # type: ignore[attr-defined]


def _used(nodes: list[onnx.NodeProto], outputs: Iterable[onnx.ValueInfoProto]) -> list[onnx.NodeProto]:
    """Leave out what nothing needs any more."""
    needed = {output.name for output in outputs}

    def keep() -> Iterator[onnx.NodeProto]:
        for node in reversed(nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                yield node

    return list(keep())[::-1]


def _replace_nodes(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]  # their types are the old ones
    needed = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
