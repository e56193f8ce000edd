# SPDX-License-Identifier: Apache-2.0
"""Turn a finetuned checkpoint into the model file that ships: ONNX with its contract inside."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import numpy_helper

from rfvit_rt.contract import METADATA_KEY, Golden, ModelContract, Spec, condense, quantise_picture
from rfvit_rt.errors import ModelError, OutputError
from rfvit_rt.vit import ActivityProbabilities, Probabilities, Segmenter
from training import checkpoint
from training.batches import read
from training.command import run
from training.datasets import Windows, open_windows
from training.networks import network_of

INPUTS = ("pictures", "bin_widths")
OUTPUT = "probabilities"
OPSET = 17
LARGEST_FILE = 12_000_000  # bytes; what ships stays small enough for a source repository
LARGE_FILE = 45_000_000  # of a second model, where it is clearly better
_PREFIXES = ("segmenter.", "classifier.")  # where the weights live in the exported module


def main(
    weights: Annotated[Path, typer.Option("--checkpoint", help="Checkpoint of a finetuning run, best.safetensors.")],
    data: Annotated[
        Path, typer.Option(help="Folder with the split validation, which the golden picture is taken from.")
    ],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    metrics: Annotated[Path | None, typer.Option(help="Report of training.evaluate to put into the contract.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the file's where not given.")] = None,
    large: Annotated[
        bool,
        typer.Option("--large", help="Allow 45 MB; 12 MB are the limit otherwise."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Export a checkpoint to ONNX with its contract inside."""
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; --overwrite replaces it")
    source = checkpoint.load(weights)
    segmenter = Probabilities(as_shipped(source))
    picture, bin_width = varied_window(open_windows(data / "validation"))
    contract = ModelContract(
        name=name or out.stem,
        task="segmentation",
        labels=source.labels,
        spec=source.spec,
        golden=make_golden(segmenter, picture, bin_width, source.spec),
        provenance=provenance(source),
        metrics=read_metrics(metrics, source),
    )
    write_model(segmenter, contract, out, LARGE_FILE if large else LARGEST_FILE)


def write_model(
    network: Probabilities | ActivityProbabilities, contract: ModelContract, out: Path, limit: int = LARGEST_FILE
) -> None:
    """Write a model file of at most `limit` bytes, or leave an old one as it was.

    Raises
    ------
    ModelError
        If the model is too large to ship.
    OutputError
        If the file cannot be written.
    """
    model = to_onnx(network, contract)
    content = model.SerializeToString()
    if len(content) > limit:
        raise ModelError(
            f"the model has {len(content):,} bytes, at most {limit:,} ship; train a smaller one; --large "
            f"allows {LARGE_FILE:,}"
        )
    partial = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"{out}: {len(content) / 1e6:.1f} MB, {contract.name}, labels {', '.join(contract.labels)}")


def as_shipped(source: checkpoint.Checkpoint) -> Segmenter:
    """The segmenter with the weights that ship: their running mean, rounded to float16, computed in float32.

    Raises
    ------
    ModelError
        If the checkpoint holds no segmenter, or a baseline.
    """
    network = network_of(source)
    if not isinstance(network, Segmenter):
        raise ModelError("the checkpoint holds a U-Net, a baseline that does not ship; give one of a transformer")
    load_rounded(network, source)
    return network


def load_rounded(network: torch.nn.Module, source: checkpoint.Checkpoint) -> None:
    """Give a network the running mean of a checkpoint's weights, rounded to float16, and make it ready for use."""
    network.load_state_dict({key: value.half().float() for key, value in source.mean.items()})
    network.eval()


def varied_window(windows: Windows) -> tuple[NDArray[np.float32], float]:
    """Picture and bin width of the first window that has every label, or most of them."""
    variety = [len(np.unique(mask[mask < len(windows.labels)])) for mask in windows.masks[:512]]
    batch = read(windows, np.array([int(np.argmax(variety))]))
    return batch.pictures[0].numpy(), float(batch.bin_widths[0])


@torch.no_grad()
def make_golden(
    network: Probabilities | ActivityProbabilities, picture: NDArray[np.float32], bin_width: float, spec: Spec
) -> Golden:
    """Prove with one picture what a network gives; the golden pair of its contract."""
    golden = Golden(quantise_picture(picture, spec), bin_width, np.empty(0, np.float16))
    inputs = (torch.from_numpy(value) for value in golden.inputs(spec))
    output = network(*inputs)[0].numpy()
    return dataclasses.replace(golden, output=condense(output).astype(np.float16))


def to_onnx(network: Probabilities | ActivityProbabilities, contract: ModelContract) -> onnx.ModelProto:
    """Export with a free batch dimension; weights are stored as float16 and cast to float32 in the graph.

    Inputs are ``pictures`` (batch, n_steps, n_bins) and ``bin_widths`` (batch,), the output is ``probabilities``,
    (batch,) and the contract's ``output_shape``, all float32. Stored weights carry the names they have in
    :class:`Segmenter` or :class:`ActivityClassifier`.
    """
    spec = contract.spec
    example = (torch.zeros(2, spec.n_steps, spec.n_bins), torch.zeros(2))
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but the other one needs packages that training has no use for.
        warnings.simplefilter("ignore", DeprecationWarning)
        program = _trace(network, example)
    model = onnx.load_model_from_string(program)
    _store_as_float16(model)
    text = contract.to_json()
    ModelContract.from_json(text)  # what cannot be read back must not be written
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    model.producer_name = "rfvit-rt"
    onnx.checker.check_model(model, full_check=True)
    return model


def _trace(module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> bytes:
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        example,
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_axes={name: {0: "batch"} for name in (*INPUTS, OUTPUT)},
        # Every weight is to be found under its name: folding would transpose some, and outside of training the exporter
        # merges those of equal values. The network has no layer that training changes.
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.TRAINING,
    )
    return buffer.getvalue()


def _store_as_float16(model: onnx.ModelProto) -> None:
    """Make every float32 weight a float16 one and a Cast: half the file, and exact, since they are rounded."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or not weight.name.startswith(_PREFIXES):
            continue
        halved = values.astype(np.float16)
        short = weight.name.partition(".")[2]
        casts.append(
            onnx.helper.make_node("Cast", [short], [weight.name], name=f"cast/{short}", to=onnx.TensorProto.FLOAT)
        )
        weight.CopyFrom(numpy_helper.from_array(halved, short))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def provenance(source: checkpoint.Checkpoint) -> dict[str, Any]:
    """How a model came to be."""
    return {
        "vit": dataclasses.asdict(source.vit),
        "recipe": source.recipe,
        "training": source.provenance,
        "software": {name: version(name) for name in ("torch", "numpy", "onnx")}
        | {"python": platform.python_version()},
        "exported": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def read_metrics(path: Path | None, source: checkpoint.Checkpoint) -> dict[str, Any]:
    """A report of :mod:`training.evaluate` about a checkpoint; nothing where there is none."""
    if path is None:
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read the report {path}: {error}; make one with 'python -m training.evaluate'"
        ) from error
    if not isinstance(report, dict):
        raise ModelError(f"{path} is not a report of training.evaluate")
    of_source = {"labels": list(source.labels)} | {
        name: source.provenance.get(name) for name in ("temperature", "class_bias")
    }
    other = [name for name, value in of_source.items() if report.get(name) != json.loads(json.dumps(value))]
    if other:
        raise ModelError(
            f"{path} is about another model, with other {', '.join(other)}; make one of the checkpoint with "
            "'python -m training.evaluate'"
        )
    return report


if __name__ == "__main__":
    run(main)
