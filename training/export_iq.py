# SPDX-License-Identifier: Apache-2.0
"""Write a model's graph that takes raw IQ: ``python -m training.export_iq --sample-rate 61.44e6 --out iq.onnx``.

Spectrogram and network become one ONNX file, for one sample rate and item type, which other programs can run too; it
carries the model's contract. Its input and outputs are those of :class:`rfvit_rt.iq_graph.IQGraph`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rfvit_rt.engines.iq_model import IQModel
from rfvit_rt.errors import OutputError
from rfvit_rt.models import default_model, find_model
from training.command import run


def main(
    sample_rate: Annotated[float, typer.Option(help="Samples per second that the graph is for.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    model: Annotated[
        str | None, typer.Option(help="A model's name or .onnx file. Default: the one that ships.")
    ] = None,
    item_type: Annotated[str, typer.Option(help="SigMF type of the samples: ci16_le or cf32_le.")] = "ci16_le",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Export a model's graph that takes raw IQ, and gives masks, probabilities and pictures."""
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; --overwrite replaces it")
    source = find_model(model) if model else default_model()
    content = IQModel.of(source, sample_rate, item_type).to_onnx()
    partial = out.with_name(out.name + ".part")
    try:
        partial.write_bytes(content)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"{out}: {len(content) / 1e6:.1f} MB, {item_type} at {sample_rate / 1e6:g} MS/s")


if __name__ == "__main__":
    run(main)
