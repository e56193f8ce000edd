# SPDX-License-Identifier: Apache-2.0
"""All figures about activity models: what is asked of which set, several seeds each, one JSON file a run.

A run that has its file is not made again, so an interrupted call goes on where it was. Hyper-parameters, the number of
updates among them, were settled on inner splits of the training sides (``--inner``); the figures use them as they are
and take the last weights, so nothing is chosen on a test side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from rfvit_rt.csi import bin_width_feature
from rfvit_rt.errors import RecordingError
from rfvit_rt.vit import ActivityClassifier, VitConfig
from training.activity import tables
from training.activity.baselines import SmallCNN, classifier, features
from training.activity.datasets import READERS
from training.activity.examples import Examples, examples
from training.activity.fitting import fit, probabilities
from training.activity.masked import Unlabelled, pretrain
from training.activity.recipe import ActivityRecipe
from training.activity.splits import Split, few, inner_validation, splits
from training.activity.variation import Pictures, pictures
from training.command import run
from training.config import Masking, Optimisation, read_recipe
from training.datasets import open_windows
from training.optimisation import Workers
from training.trials import run_trials, write_json, write_weights

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RECIPES = {
    "intel5300_rooms": "activity_intel5300.toml",
    "nexmon_csihar": "activity_50hz.toml",
    "nexmon_fition": "activity_fition.toml",
    "esp32_geotec": "activity_50hz.toml",
    "ntu_fi_har": "activity_sensefi.toml",
    "ut_har": "activity_sensefi.toml",
}
PRETRAINING = Optimisation(steps=1500, batch_size=32, learning_rate=2e-3, beta2=0.95, threads=1)
MASKING = Masking(geometry="random", ratio=0.7, decoder_width=48, decoder_depth=1, decoder_heads=3)
FEW_STEPS = 400  # updates where labels are few
ADAPT_STEPS = 400
ADAPT_RATE = 1e-3
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Trial:
    """One run: what is learnt from what, and how.

    Attributes
    ----------
    table : str
        The table that it belongs to.
    data : str
        Name of the set.
    kind, fold : str, int
        Kind of split, and which of its splits.
    method : str
        ``vit``, ``cnn``, ``svm`` or ``extra trees``.
    seed : int
    start : str
        What the encoder learnt before: ``none``, ``rf``, ``csi``, or ``rf, csi``.
    frozen : bool
        Whether it stays as it is.
    show : str
        ``both`` parts of the picture, ``doppler`` or ``amplitude`` alone, or ``static``: both, with what does not move.
    few : int
        Labelled recordings per class on the training side; 0 for all.
    adapt : int
        Labelled recordings per class of the test side that the model is adapted with; they are not tested on.
    inner : bool
        Whether the test side is an inner validation part of the training side.
    """

    table: str
    data: str
    kind: str
    fold: int
    method: str = "vit"
    seed: int = 1
    start: str = "none"
    frozen: bool = False
    show: str = "both"
    few: int = 0
    adapt: int = 0
    inner: bool = False

    @property
    def name(self) -> str:
        """Name of its file."""
        return "_".join(str(value).replace(", ", "+").replace(" ", "-") for value in dataclasses.astuple(self))


# ---- what is asked ----


def trials(table: str) -> list[Trial]:
    """All runs of a table."""
    return sorted(TABLES[table](table), key=lambda trial: (trial.data, trial.show))


def _folds(data: str, kind: str) -> range:
    counts = {
        ("intel5300_rooms", "subject"): 5,
        ("intel5300_rooms", "room"): 2,
        ("nexmon_fition", "room"): 2,
    }
    return range(5 if kind == "random" else counts.get((data, kind), 1))


ASKED = (
    ("intel5300_rooms", "subject"),
    ("intel5300_rooms", "room"),
    ("intel5300_rooms", "held_out"),
    ("nexmon_csihar", "held_out"),
    ("esp32_geotec", "held_out"),
    ("esp32_geotec", "within"),
    ("nexmon_fition", "room"),
)


def _methods(table: str) -> Iterator[Trial]:
    """Every split, every method; the SVM does not depend on a seed, the CNN is tried with one."""
    for data, kind in ASKED:
        for fold in _folds(data, kind):
            for seed in SEEDS:
                yield Trial(table, data, kind, fold, "vit", seed)
                yield Trial(table, data, kind, fold, "extra trees", seed)
            yield Trial(table, data, kind, fold, "svm")
            yield Trial(table, data, kind, fold, "cnn")


def _random(table: str) -> Iterator[Trial]:
    for data in ("intel5300_rooms", "nexmon_csihar", "nexmon_fition"):
        for fold in _folds(data, "random"):
            yield Trial(table, data, "random", fold, "svm")
            yield Trial(table, data, "random", fold, "vit")


def _show(table: str) -> Iterator[Trial]:
    for show in ("both", "doppler", "amplitude", "static"):
        for data, kind in (("intel5300_rooms", "subject"), ("nexmon_csihar", "held_out"), ("esp32_geotec", "held_out")):
            for fold in _folds(data, kind):
                yield Trial(table, data, kind, fold, "svm", show=show)
                yield Trial(table, data, kind, fold, "vit", show=show)


def _few(table: str) -> Iterator[Trial]:
    for count in (1, 5, 20):
        for seed in SEEDS:
            for start in ("none", "rf", "csi", "rf, csi"):
                yield Trial(table, "intel5300_rooms", "subject", seed, "vit", seed, start, few=count)
                if count == 5:
                    yield Trial(table, "intel5300_rooms", "subject", seed, "vit", seed, start, True, few=count)
            for method in ("svm", "extra trees"):
                yield Trial(table, "intel5300_rooms", "subject", seed, method, seed, few=count)


def _starts(table: str) -> Iterator[Trial]:
    for start in ("rf", "csi", "rf, csi"):
        for seed in SEEDS:
            for kind, fold in (("subject", seed), ("room", seed % 2)):
                yield Trial(table, "intel5300_rooms", kind, fold, "vit", seed, start)
                yield Trial(table, "intel5300_rooms", kind, fold, "vit", seed, start, frozen=True)


def _sensefi(table: str) -> Iterator[Trial]:
    """The sets of the literature with their own splits; they are saturated, or nearly."""
    for data in ("ntu_fi_har", "ut_har"):
        for method in ("vit", "cnn", "extra trees"):
            for seed in SEEDS:
                yield Trial(table, data, "held_out", 0, method, seed)


def _adapt(table: str) -> Iterator[Trial]:
    for count in (1, 3, 5):
        for fold in _folds("intel5300_rooms", "room"):
            for seed in SEEDS:
                yield Trial(table, "intel5300_rooms", "room", fold, "vit", seed, adapt=count)
            for method in ("svm", "extra trees", "cnn"):
                yield Trial(table, "intel5300_rooms", "room", fold, method, adapt=count)


TABLES = {
    "methods": _methods,
    "random": _random,
    "show": _show,
    "few": _few,
    "starts": _starts,
    "adapt": _adapt,
    "sensefi": _sensefi,
}


# ---- how it is answered ----


@dataclass(frozen=True)
class Place:
    """Where data, scenes and results are."""

    data: Path
    scenes: Path
    out: Path


def recipe_of(data: str, show: str) -> ActivityRecipe:
    """The recipe of a set, with one part of the picture alone where that is asked."""
    recipe = read_recipe(CONFIGS / RECIPES[data], ActivityRecipe)
    spec = recipe.spec
    changes: dict[str, dict[str, Any]] = {
        "both": {},
        "doppler": {"amplitude_bins": 0},
        "amplitude": {"amplitude_bins": spec.n_bins},
        "static": {"keep_static": True},
    }
    return dataclasses.replace(recipe, spec=dataclasses.replace(spec, **changes[show]))


@lru_cache(maxsize=2)
def load(data: str, show: str, place: Place) -> tuple[Examples, Pictures, ActivityRecipe]:
    """Windows of a set and their pictures; the latter are kept on disk, where all processes share them."""
    recipe = recipe_of(data, show)
    loaded = examples(READERS[data](place.data / data), recipe.spec, recipe.hop)
    folder = place.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    made_of = repr((recipe.spec, recipe.hop, recipe.variation, len(loaded)))
    key = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    files = [folder / f"{data}_{show}_{key}_{part}.npy" for part in ("plain", "varied")]
    if not all(file.is_file() for file in files):
        made = pictures(loaded.amplitudes, recipe.spec, recipe.variation, 1)
        for file, values in zip(files, (made.plain, made.varied), strict=True):
            partial = file.with_name(f"{file.stem}.{os.getpid()}.part.npy")
            np.save(partial, values)
            partial.replace(file)
    loaded = dataclasses.replace(loaded, amplitudes=[])
    return loaded, Pictures(*(np.load(file, mmap_mode="r") for file in files)), recipe


def split_of(trial: Trial, data: Examples) -> Split:
    """Both sides of a run."""
    if trial.kind == "within":  # the later runs of the first day, as the set's own test days are other days
        first = np.flatnonzero(~data.held_out)
        later = data.recordings[first] >= np.quantile(data.recordings[first], 0.8)
        split = Split("within", first[~later], first[later])
    else:
        split = splits(data, trial.kind)[trial.fold]
    if trial.inner:
        split = Split(split.name, *inner_validation(data, split.train))
    return dataclasses.replace(split, train=few(data.labels, split.train, data.recordings, trial.few, trial.seed))


def answer(trial: Trial, place: Place) -> dict[str, Any]:
    """Make one run; its figures."""
    start = time.monotonic()
    data, shown, recipe = load(trial.data, trial.show, place)
    split = split_of(trial, data)
    adapted = few(data.labels, split.test, data.recordings, trial.adapt, trial.seed) if trial.adapt else split.test[:0]
    test = np.setdiff1d(split.test, adapted)
    if trial.method in ("svm", "extra trees"):
        scores = _classical(trial, data, shown, np.concatenate([split.train, adapted]), test)
    else:
        scores = _network(trial, data, shown, recipe, split, adapted, test, place)
    return (
        dataclasses.asdict(trial)
        | figures(scores, data, test)
        | {
            "split": split.name,
            "train_windows": len(split.train),
            "adapted_windows": len(adapted),
            "seconds": round(time.monotonic() - start, 1),
        }
    )


def _classical(
    trial: Trial, data: Examples, shown: Pictures, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Votes of windows as (test window, class)."""
    model = classifier(trial.method, trial.seed).fit(features(shown.plain[train]), data.labels[train])
    predicted = model.predict(features(shown.plain[test]))
    return np.eye(int(data.labels.max()) + 1, dtype=np.float32)[predicted]


def _network(
    trial: Trial,
    data: Examples,
    shown: Pictures,
    recipe: ActivityRecipe,
    split: Split,
    adapted: NDArray[np.int64],
    test: NDArray[np.int64],
    place: Place,
) -> NDArray[np.float32]:
    """Probabilities of windows as (test window, class)."""
    workers = Workers(1)
    torch.manual_seed(trial.seed)
    recipe = dataclasses.replace(recipe, seed=trial.seed, freeze_encoder=trial.frozen).with_optimisation(threads=1)
    if trial.few:
        recipe = recipe.with_optimisation(steps=FEW_STEPS)
    n_classes, bin_width = len(data.names), bin_width_feature(recipe.spec)
    vit = recipe.model.config(recipe.spec.n_steps, recipe.spec.n_bins, n_classes)
    model: torch.nn.Module = SmallCNN(n_classes) if trial.method == "cnn" else ActivityClassifier(vit)
    if trial.start != "none":
        model.encoder.load_state_dict(pretrained(trial, data, shown, vit, place))  # type: ignore[union-attr]
    nothing = np.empty(0, np.int64)
    known = place.out / "models" / f"{dataclasses.replace(trial, table='', adapt=0).name}.safetensors"
    if len(adapted) and known.is_file():
        model.load_state_dict(load_file(known))
    else:
        model = fit(model, shown, bin_width, data.labels, split.train, nothing, recipe, workers)
        write_weights(model.state_dict(), known)
    if len(adapted):
        # Half of every batch is of the new room, so that a few clips weigh as much as all that was known before.
        both = np.concatenate([split.train, adapted])
        new = np.isin(both, adapted)
        weights = np.where(new, 1 / new.sum(), 1 / (~new).sum())
        gently = recipe.with_optimisation(steps=ADAPT_STEPS, learning_rate=ADAPT_RATE)
        model = fit(
            model.requires_grad_(True), shown, bin_width, data.labels, both, nothing, gently, workers, weights=weights
        )
    return probabilities(model, shown.plain[test], bin_width, workers)


def figures(scores: NDArray[np.float32], data: Examples, test: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy of windows and, where a recording has one label, of recordings by the mean of their windows."""
    labels, recordings = data.labels[test], data.recordings[test]
    windows = float(np.mean(scores.argmax(axis=1) == labels))
    report: dict[str, Any] = {"test_windows": len(test), "window_accuracy": round(windows, 4)}
    places = [np.flatnonzero(recordings == recording) for recording in np.unique(recordings)]
    predicted, true, groups = scores.argmax(axis=1), labels, data.sessions[test]
    if all(len(np.unique(labels[place])) == 1 for place in places):
        predicted = np.array([scores[place].mean(axis=0).argmax() for place in places])
        true = np.array([labels[place[0]] for place in places])
        groups = np.array([data.sessions[test][place[0]] for place in places])
    matrix = np.zeros((scores.shape[1], scores.shape[1]), int)
    np.add.at(matrix, (true, predicted), 1)
    report |= {"accuracy": round(float(np.mean(predicted == true)), 4), "confusion": matrix.tolist()}
    if len(np.unique(groups)) > 1:
        each = {str(name): float(np.mean((predicted == true)[groups == name])) for name in np.unique(groups)}
        report |= {"sessions": each, "session_mean": round(float(np.mean(list(each.values()))), 4)}
    return report


# ---- what was learnt without labels ----


def pretrained(trial: Trial, data: Examples, shown: Pictures, vit: VitConfig, place: Place) -> dict[str, Tensor]:
    """Weights of an encoder that has seen no label, and nothing of the test side."""
    file = _encoder(trial, place)
    if file.is_file():
        return load_file(file)
    start = None
    if trial.start == "rf, csi":
        start = pretrained(dataclasses.replace(trial, start="rf"), data, shown, vit, place)
    if trial.start == "rf":
        windows = open_windows(place.scenes / "train")
        sets = [Unlabelled(windows.pictures, windows.bin_widths)]
    else:
        # The training side in full: labels may be few, recordings without one need not be.
        everything = split_of(dataclasses.replace(trial, few=0), data).train
        bin_width = bin_width_feature(recipe_of(trial.data, trial.show).spec)
        sets = [Unlabelled(shown.plain[everything], np.full(len(everything), bin_width, np.float32))]
        for entry in range(shown.varied.shape[1]):
            sets.append(Unlabelled(shown.varied[everything, entry], sets[0].bin_widths))
    weights = pretrain(sets, vit, MASKING, PRETRAINING, 1, Workers(1), start)
    write_weights(weights, file)
    return weights


def _encoder(trial: Trial, place: Place) -> Path:
    side = f"{trial.kind}_{trial.fold}{'_inner' if trial.inner else ''}"
    where = "scenes" if trial.start == "rf" else f"{trial.data}_{trial.show}_{side}"
    return place.out / "pretrained" / f"{trial.start.replace(', ', '+')}_{where}.safetensors"


# ---- the command ----


def main(
    data: Annotated[Path, typer.Option(help="Folder with one folder for each set.")],
    out: Annotated[Path, typer.Option(help="Folder for results; what is there already is not made again.")],
    table: Annotated[list[str], typer.Option(help="Table to make; may be given more than once.")],
    scenes: Annotated[Path, typer.Option(help="Windows of training.scenes, for pretraining on radio.")] = Path(
        "runs/scenes"
    ),
    processes: Annotated[int, typer.Option(help="Runs at a time, each on one core.")] = 3,
    inner: Annotated[
        bool, typer.Option("--inner", help="Test on inner validation parts of the training sides.")
    ] = False,
    only: Annotated[str, typer.Option(help="Only runs in whose name this regular expression is found.")] = "",
) -> None:
    """Make the figures of one or more tables, and show them."""
    unknown = sorted(set(table) - set(TABLES))
    if unknown:
        raise RecordingError(f"there is no table {', '.join(unknown)}; choose of {', '.join(TABLES)}")
    place = Place(data, scenes, out)
    asked = [dataclasses.replace(trial, inner=inner) for name in table for trial in trials(name)]
    asked = [trial for trial in asked if re.search(only, trial.name)]
    missing = [trial for trial in asked if not _file(trial, place).is_file()]
    work = functools.partial(_answer_and_keep, place=place)
    run_trials(work, _first_of_each_start(missing, place), processes)  # the others find what these have pretrained
    run_trials(work, [trial for trial in missing if not _file(trial, place).is_file()], processes)
    for name in table:
        found = [_file(trial, place) for trial in asked if trial.table == name]
        gathered = tables.rows(json.loads(file.read_text(encoding="utf-8")) for file in found)
        tables.write(f"{name}_inner" if inner else name, gathered, out)
        typer.echo(tables.text(gathered))


def _file(trial: Trial, place: Place) -> Path:
    return place.out / "results" / f"{trial.name}.json"


def _first_of_each_start(missing: list[Trial], place: Place) -> list[Trial]:
    """One run for every encoder that is not there yet and needs no other one."""
    firsts = {_encoder(trial, place): trial for trial in missing if trial.start in ("rf", "csi")}
    return [trial for file, trial in firsts.items() if not file.is_file()]


def _answer_and_keep(trial: Trial, place: Place) -> str:
    result = answer(trial, place)
    write_json(result, _file(trial, place))
    return f"{trial.name}: {result['accuracy']:.3f}"


if __name__ == "__main__":
    run(main)
