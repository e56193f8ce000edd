# SPDX-License-Identifier: Apache-2.0
"""Would int8 do for a model, here? ``python -m training.quantise --data runs/scenes --out runs/int8.json``.

The graph is quantised after training, by NNCF, with pictures of the split ``train``; then it is measured on ``test``
beside the precisions that the runtime has. The convolutions in front of the transformer and behind it stay as they are:
they see the picture's own values. No model of that kind ships, and the runtime does not load one: this tells
whether it would be worth it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import load_engine
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.openvino import openvino, telemetry_hidden
from rfvit_rt.errors import EngineError, OutputError
from rfvit_rt.models import default_model, find_model
from training.batches import evaluation_batches
from training.command import run
from training.datasets import Windows, open_windows
from training.evaluate import Infer, check_windows, measure, predictor

with telemetry_hidden():  # it reports its use to its maker, too
    import nncf

KEPT_MIOU = 0.005  # mIoU that int8 may cost
UNQUANTISED = [".*/embed/.*", ".*/bin_width/.*", ".*/head/.*"]
_RUNS = 9
_TRIAL_WINDOWS = 16


def main(
    data: Annotated[Path, typer.Option(help="Folder with the splits train, to calibrate with, and test.")],
    out: Annotated[Path, typer.Option(help="JSON report to write; an existing one is replaced.")],
    model: Annotated[
        str | None, typer.Option(help="A model's name or .onnx file. Default: the one that ships.")
    ] = None,
    calibration: Annotated[int, typer.Option(help="Windows to calibrate with.", min=1)] = 128,
    limit: Annotated[int | None, typer.Option(help="Measure on this many windows, drawn by chance.", min=1)] = None,
) -> None:
    """Quantise a model to int8, and measure accuracy and speed beside its other precisions."""
    file = find_model(model) if model else default_model()
    contract = file.contract
    train, test = open_windows(data / "train"), open_windows(data / "test")
    for split in ("train", "test"):
        check_windows(data / split, contract.spectrogram, contract.labels)
    infers: dict[str, Infer] = {}
    for precision in ("f32", "bf16"):
        try:
            infers[precision] = load_engine(file, precision=precision).infer
        except EngineError as error:
            typer.echo(f"{precision} is left out: {error}")
    rest = "bf16" if "bf16" in infers else "f32"
    infers["int8"] = Quantised(file, train, calibration, rest).infer
    speeds = windows_per_second(infers, test)
    reports = {name: measure(test, predictor(infer), _TRIAL_WINDOWS, limit) for name, infer in infers.items()}
    agreement = mask_agreement(infers, test)
    best = max(speeds[name] for name in speeds if name != "int8")
    lost = reports["f32"]["overall"]["miou"] - reports["int8"]["overall"]["miou"]
    report = {
        "model": contract.name,
        "sha256": file.sha256,
        "openvino": openvino.__version__,
        "nncf": nncf.__version__,
        "calibration_windows": min(calibration, len(train)),
        "other_layers": rest,
        "windows_per_second": speeds,
        "mask_agreement_with_f32": agreement,
        "lost_miou": lost,
        "speedup": speeds["int8"] / best,
        "worth_it": bool(lost <= KEPT_MIOU and speeds["int8"] > best),
        "reports": reports,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {out}: {error.strerror}") from error
    show(report)


class Quantised:
    """A model's graph in int8, compiled by OpenVINO as the engine does it: every picture a request of its own.

    Parameters
    ----------
    model : ModelFile
    windows : Windows
        To calibrate with.
    count : int
        Most windows to take.
    rest : str
        Precision of what stays unquantised.
    """

    def __init__(self, model: ModelFile, windows: Windows, count: int, rest: str) -> None:
        spec = model.contract.spectrogram
        core = openvino.Core()
        graph = core.read_model(read_graph(model))
        graph.reshape({0: [1, spec.n_steps, spec.n_bins], 1: [1]})
        pictures = [
            (batch.pictures.numpy(), batch.bin_widths.numpy()) for _, batch in evaluation_batches(windows, 1, count)
        ]
        nncf.set_log_level(logging.ERROR)
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(pictures, lambda pair: dict(enumerate(pair))),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(patterns=UNQUANTISED, validate=False),
        )
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": rest, "ENABLE_CPU_PINNING": "NO"}
        self._queue: Any = openvino.AsyncInferQueue(core.compile_model(quantised, "CPU", options))
        self._queue.set_callback(_collect)
        self._output_shape = model.contract.output_shape

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label pictures; see :meth:`rfvit_rt.engines.Engine.infer`."""
        result = np.empty((len(pictures), *self._output_shape), np.float32)
        for place, picture, bin_width in zip(result, pictures, bin_widths, strict=True):
            self._queue.start_async({0: picture[None], 1: bin_width[None]}, place)
        self._queue.wait_all()
        return result


def _collect(request: Any, place: NDArray[np.float32]) -> None:
    place[...] = request.get_output_tensor(0).data[0]


def windows_per_second(infers: Mapping[str, Infer], windows: Windows) -> dict[str, float]:
    """Median over some runs, in turns, so that what disturbs the machine disturbs all of them."""
    pictures, bin_widths = _trial(windows)
    rates: dict[str, list[float]] = {name: [] for name in infers}
    for _ in range(_RUNS):
        for name, infer in infers.items():
            infer(pictures[:2], bin_widths[:2])
            begun = time.perf_counter()
            infer(pictures, bin_widths)
            rates[name].append(len(pictures) / (time.perf_counter() - begun))
    return {name: float(np.median(values)) for name, values in rates.items()}


def mask_agreement(infers: Mapping[str, Infer], windows: Windows) -> dict[str, float]:
    """Share of pixels whose likeliest class is that of f32."""
    trial = _trial(windows)
    expected = infers["f32"](*trial).argmax(axis=3)
    return {name: float((infer(*trial).argmax(axis=3) == expected).mean()) for name, infer in infers.items()}


def _trial(windows: Windows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    (_, batch), *_ = evaluation_batches(windows, _TRIAL_WINDOWS, _TRIAL_WINDOWS)
    return batch.pictures.numpy(), batch.bin_widths.numpy()


def show(report: Mapping[str, Any]) -> None:
    """Print a report."""
    table = Table(title=f"{report['model']}: int8 beside what ships")
    table.add_column("Precision")
    labels = list(report["reports"]["f32"]["overall"]["iou"])
    for heading in ("Windows/s", "mIoU", *(f"IoU {label}" for label in labels), "Same label as f32"):
        table.add_column(heading, justify="right")
    for name, measured in report["reports"].items():
        overall = measured["overall"]
        figures = [overall["miou"], *overall["iou"].values()]
        table.add_row(
            name,
            f"{report['windows_per_second'][name]:.0f}",
            *("-" if value is None else f"{value:.4f}" for value in figures),
            f"{report['mask_agreement_with_f32'][name]:.2%}",
        )
    console = Console()
    console.print(table)
    verdict = "worth it" if report["worth_it"] else "not worth it"
    console.print(
        f"int8 loses {report['lost_miou'] * 100:.2f} points of mIoU ({KEPT_MIOU * 100:g} are allowed) and has "
        f"{report['speedup']:.2f} times the windows/s of the fastest other: {verdict} here"
    )


if __name__ == "__main__":
    run(main)
