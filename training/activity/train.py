# SPDX-License-Identifier: Apache-2.0
"""Train an activity model on labelled captures of one's own rooms, or on a data set, and export it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from rfvit_rt.contract import ModelContract
from rfvit_rt.csi import CSISpec, bin_width_feature, picture_of
from rfvit_rt.errors import ModelError, OutputError, RecordingError
from rfvit_rt.vit import ActivityClassifier, ActivityProbabilities
from training import checkpoint
from training.activity.captures import read_captures
from training.activity.datasets import READERS, DataSet
from training.activity.examples import Examples, examples
from training.activity.fitting import Progress, fit, probabilities
from training.activity.recipe import ActivityRecipe
from training.activity.variation import Pictures, pictures
from training.command import progress_bar, run
from training.config import read_recipe
from training.export import load_rounded, make_golden, provenance, write_model
from training.optimisation import Workers

HELD_OUT = 5  # one recording in so many validates


def main(
    config: Annotated[Path, typer.Option(help="Recipe, a TOML file; see training/configs/activity_*.toml.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Labelled captures: a folder that holds a folder for each label, or a CSV with the columns file, "
            "start, end and label (seconds from the file's first frame; empty for all of it). With --set, its folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the figures and the model, NAME.onnx.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "activity",
    data_set: Annotated[str | None, typer.Option("--set", help=f"Read a data set: {', '.join(READERS)}.")] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint whose encoder to start from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the run; overrides the recipe.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
) -> None:
    """Train an activity model and export it.

    One recording in five of every label is held out, of captures whole files; the weights that label these best are
    kept. Recordings that a data set puts on its test side are tested on at the end, and used for nothing else.
    """
    target = out / f"{name}.onnx"
    taken = [path for path in (target, out / checkpoint.BEST, out / checkpoint.LAST) if path.exists()]
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists; choose another --out (or --overwrite of training.activity.train)")
    recipe = read_recipe(config, ActivityRecipe)
    if steps is not None:
        recipe = recipe.with_optimisation(steps=steps)
    source = rename(read_set(data_set, data) if data_set else read_captures(data, typer.echo), recipe.labels)
    windows = examples(source, recipe.spec, recipe.hop)
    train, validation = hold_out(windows if data_set else by_file(windows))
    test = np.flatnonzero(windows.held_out)
    typer.echo(
        f"{len(windows)} windows of {recipe.spec.window_seconds:g} s: {len(train)} to learn from, "
        f"{len(validation)} to validate, {len(test)} to test; labels {', '.join(windows.names)}"
    )
    shown = pictures(windows.amplitudes, recipe.spec, recipe.variation, recipe.seed)
    workers = Workers(recipe.optimisation.threads)
    model, best = _train(recipe, windows, shown, train, validation, init, workers)

    figures: dict[str, Any] = {"validation_accuracy": round(best, 4), "validation_windows": len(validation)}
    if len(test):
        figures |= test_figures(model, windows, shown, test, bin_width_feature(recipe.spec), workers)
    state = checkpoint.Checkpoint(
        kind="activity",
        vit=model.config,
        spec=recipe.spec,
        recipe=dataclasses.asdict(recipe),
        weights={},
        mean=model.state_dict(),
        optimiser={},
        step=recipe.optimisation.steps,
        elapsed=0.0,
        best=best,
        provenance={
            "data": source.name,
            "recordings": len(source.recordings),
            "train_windows": len(train),
            "pretrained": str(init.name) if init else None,
        },
        labels=windows.names,
    )
    checkpoint.save(state, out / checkpoint.BEST)
    (out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    devices = sorted({recording.device for recording in source.recordings})
    export(state, devices, figures, windows.amplitudes[int(validation[0])], name, target)
    typer.echo(f"validation accuracy {best:.3f}; try it: rfvit sense CAPTURE --model {target}")


def _train(
    recipe: ActivityRecipe,
    windows: Examples,
    shown: Pictures,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    init: Path | None,
    workers: Workers,
) -> tuple[ActivityClassifier, float]:
    """The classifier at its best, and its accuracy on the validation windows."""
    torch.manual_seed(recipe.seed)
    spec = recipe.spec
    model = ActivityClassifier(recipe.model.config(spec.n_steps, spec.n_bins, len(windows.names)))
    if init is not None:
        start_from(model, init)
    best = 0.0
    with progress_bar() as bar:
        task = bar.add_task("train", total=recipe.optimisation.steps)

        def report(progress: Progress) -> None:
            nonlocal best
            bar.update(task, completed=progress.step, description=f"step {progress.step} loss {progress.loss:.3f}")
            if progress.accuracy is not None:
                best = max(best, progress.accuracy)
                bar.console.print(f"step {progress.step}: validation accuracy {progress.accuracy:.3f}")

        bin_width = bin_width_feature(spec)
        fitted = fit(model, shown, bin_width, windows.labels, train, validation, recipe, workers, report)
    assert isinstance(fitted, ActivityClassifier)
    return fitted, best


def read_set(name: str, folder: Path) -> DataSet:
    """Read a data set by its name.

    Raises
    ------
    RecordingError
        If no reader has that name, or the folder does not hold the set.
    """
    if name not in READERS:
        raise RecordingError(f"there is no reader for a set '{name}'; choose of {', '.join(READERS)}")
    return READERS[name](folder)


def rename(data: DataSet, names: dict[str, str]) -> DataSet:
    """Give labels the recipe's names; those that get one name become one.

    Raises
    ------
    ModelError
        If the recipe names a label that the data does not have.
    """
    unknown = sorted(set(names) - set(data.labels))
    if unknown:
        raise ModelError(f"[labels] renames {', '.join(unknown)}; the data has {', '.join(data.labels)}")
    renamed = [names.get(label, label) for label in data.labels]
    labels = tuple(dict.fromkeys(renamed))
    places = np.array([labels.index(label) for label in renamed] + [-1])  # the last is for frames without a label
    recordings = [dataclasses.replace(recording, labels=places[recording.labels]) for recording in data.recordings]
    return DataSet(data.name, labels, recordings)


def by_file(windows: Examples) -> Examples:
    """Own captures, with all windows of a file as one recording: neighbours in time are nearly twins.

    Where a label occurs in one file only, clips of a file stay apart, which flatters the figure; it says so.
    """
    files = np.unique(windows.sessions, return_inverse=True)[1]
    if all(len(np.unique(files[windows.labels == label])) > 1 for label in range(len(windows.names))):
        return dataclasses.replace(windows, recordings=files)
    typer.echo(
        "WARNING: a label occurs in one file only, so clips of one file train and validate; the accuracy is too good. "
        "Give two files or more of every label",
        err=True,
    )
    return windows


def hold_out(windows: Examples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows to learn from and to validate with; a recording is on one side, every label on both.

    Raises
    ------
    RecordingError
        If a label occurs in one recording only.
    """
    held: set[int] = set()
    usable = ~windows.held_out
    for label in range(len(windows.names)):
        recordings = np.unique(windows.recordings[usable & (windows.labels == label)])
        if len(recordings) < 2:
            raise RecordingError(
                f"the label {windows.names[label]} has {len(recordings)} usable recording"
                f"{'' if len(recordings) == 1 else 's'}; give two or more, since one validates the model"
            )
        if not held.intersection(recordings.tolist()):
            held.update(recordings[HELD_OUT - 1 :: HELD_OUT].tolist() or recordings[-1:].tolist())
    chosen = np.isin(windows.recordings, sorted(held))
    return np.flatnonzero(usable & ~chosen), np.flatnonzero(usable & chosen)


def start_from(model: ActivityClassifier, path: Path) -> None:
    """Take the encoder of a checkpoint: of an activity model, or of masked pretraining.

    Raises
    ------
    ModelError
        If it is of another size.
    """
    source = checkpoint.load(path)
    known = model.encoder.state_dict()
    prefix = "encoder."
    found = {name.removeprefix(prefix): part for name, part in source.mean.items() if name.startswith(prefix)}
    wrong = [name for name, part in known.items() if name not in found or found[name].shape != part.shape]
    if wrong:
        raise ModelError(f"{path} holds an encoder of {source.vit}, the recipe asks for {model.config}")
    model.encoder.load_state_dict(found)


def test_figures(
    model: ActivityClassifier,
    windows: Examples,
    shown: Pictures,
    test: NDArray[np.int64],
    bin_width: float,
    workers: Workers,
) -> dict[str, Any]:
    """Accuracy on the set's own test side, of each session where there are some."""
    right = probabilities(model, shown.plain[test], bin_width, workers).argmax(axis=1) == windows.labels[test]
    sessions = windows.sessions[test]
    each = {str(name): round(float(right[sessions == name].mean()), 4) for name in np.unique(sessions)}
    return {"test_accuracy": round(float(right.mean()), 4), "test_windows": len(test), "test_sessions": each}


def shown_figures(figures: dict[str, Any]) -> dict[str, float]:
    """What `rfvit models` shows: accuracy on each session held out, or on what validated where there is none."""
    sessions: dict[str, float] = figures.get("test_sessions", {})
    return sessions or {"validation": figures["validation_accuracy"]}


def export(
    state: checkpoint.Checkpoint,
    devices: list[str],
    figures: dict[str, Any],
    amplitude: NDArray[np.float32],
    name: str,
    target: Path,
) -> None:
    """Write the model file, with the picture of one window for its proof, and the devices that it learnt from."""
    classifier = ActivityClassifier(state.vit)
    load_rounded(classifier, state)
    network = ActivityProbabilities(classifier).eval()
    spec = state.spec
    assert isinstance(spec, CSISpec)
    contract = ModelContract(
        name=name,
        task="activity",
        labels=state.labels,
        spec=spec,
        golden=make_golden(network, picture_of(amplitude, spec), bin_width_feature(spec), spec),
        provenance=provenance(state) | {"devices": devices},
        metrics=figures | {"accuracy": shown_figures(figures)},
    )
    write_model(network, contract, target)


if __name__ == "__main__":
    run(main)
