# SPDX-License-Identifier: Apache-2.0
"""How it is answered: encoders are pretrained, trials trained and measured, each by the scripts that a user has."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rfvit_rt.engines import load_engine
from rfvit_rt.models import find_model
from training import checkpoint, curves
from training.batches import Batch, read_spec
from training.config import Adapt, FinetuneRecipe, Loss, PretrainRecipe, UNetSize
from training.datasets import open_windows
from training.evaluate import Infer, energy_detector, measure, predictor, shipped_infer
from training.experiments.sets import WindowSet
from training.experiments.trials import LOSSES, Trial
from training.finetune import finetune
from training.pretrain import find_sources, pretrain
from training.processes import Processes
from training.trials import write_json

BATCH = 8  # windows at a time that are measured


@dataclass(frozen=True)
class Place:
    """Where data and results are, and what all trials share.

    Attributes
    ----------
    data : Path
        Folder with the splits train, validation and test.
    out : Path
    pretraining : PretrainRecipe
    finetuning : FinetuneRecipe
    unet : UNetSize
        Of the baseline; to cost about as much as the transformer.
    windows : int or None
        Windows of the test split that are measured on; all where not given.
    unlabelled : Path or None
        Folder of recordings that encoders see where a trial says so.
    """

    data: Path
    out: Path
    pretraining: PretrainRecipe
    finetuning: FinetuneRecipe
    unet: UNetSize
    windows: int | None = None
    unlabelled: Path | None = None

    def result(self, trial: Trial, table: str = "test") -> Path:
        """File of a trial's figures: on the test split, or on what a table measures on."""
        return self.out / "results" / table / f"{trial.name}.json"

    def run(self, trial: Trial) -> Path:
        """Folder of a trial's training."""
        return self.out / "runs" / trial.name


@dataclass(frozen=True)
class Encoder:
    """An encoder to be pretrained.

    What is hidden from it, how much of that, what is rebuilt, what rebuilds it; and what it sees beside scenes.
    """

    geometry: str
    ratio: float
    target: str
    decoder: str
    unlabelled: str = ""

    def folder(self, place: Place) -> Path:
        """Where it lies."""
        name = f"{self.geometry}-{self.ratio:g}-{self.target}-{self.decoder}"
        return place.out / "encoders" / (f"{name}-{self.unlabelled}" if self.unlabelled else name)

    def result(self, place: Place) -> Path:
        """File that says what it knows."""
        return self.folder(place) / "result.json"


def encoder_of(trial: Trial, place: Place) -> Encoder | None:
    """The encoder that a trial starts from."""
    if trial.start != "msm":
        return None
    masking = place.pretraining.masking
    return Encoder(
        trial.geometry or masking.geometry,
        trial.ratio or masking.ratio,
        trial.target or masking.target,
        trial.decoder or masking.decoder,
        trial.unlabelled,
    )


def make_encoder(encoder: Encoder, place: Place) -> str:
    """Pretrain, or go on pretraining; a line about what the probes say."""
    folder, base = encoder.folder(place), place.pretraining
    hidden = {name: value for name, value in dataclasses.asdict(encoder).items() if name != "unlabelled"}
    masking = dataclasses.replace(base.masking, **hidden)
    recordings = place.unlabelled if encoder.unlabelled else None
    recipe = dataclasses.replace(base, masking=masking)
    with _log(folder), Processes(recipe.optimisation) as processes:
        sources = find_sources(place.data, recordings, None, folder, recipe, processes)
        pretrain(recipe, sources, folder, (folder / checkpoint.LAST).is_file(), processes)
    looks = [entry for entry in curves.entries_of(folder) if "held_out" in entry]
    found = checkpoint.load(folder / checkpoint.LAST)
    result = {"first": looks[0], "last": looks[-1], "minutes": round(found.elapsed / 60, 2), "updates": found.step}
    write_json(dataclasses.asdict(encoder) | result, encoder.result(place))
    return f"encoder {folder.name}: linear probe {looks[-1].get('linear_probe')}"


def recipe_of(trial: Trial, place: Place, n_labels: int) -> FinetuneRecipe:
    """The recipe of a trial: the experiment's, with what sets the trial apart.

    The last weights are taken, so nothing is chosen on labels that a trial with few would not have.
    """
    base = place.finetuning
    steps = max(1, round(base.optimisation.steps * trial.budget))
    losses = {
        "weighted, Dice": base.loss,
        "weighted": dataclasses.replace(base.loss, dice=0.0),
        "plain": Loss([1.0] * n_labels, dice=0.0),
        "plain, Dice": Loss([1.0] * n_labels, dice=base.loss.dice),
        "focal": Loss([1.0] * n_labels, dice=0.0, focal=2.0),
    }
    assert losses.keys() == set(LOSSES)
    parts = {name: value for name in ("embedding", "head") if (value := getattr(trial, name))}
    changes: dict[str, Any] = {"steps": steps}
    if trial.optimiser:
        changes["optimiser"] = trial.optimiser
    if trial.start == "scratch":
        changes["layer_decay"] = 1.0  # spares what pretraining made; here it would hold back what has all to learn
    return dataclasses.replace(
        base,
        seed=trial.seed,
        label_share=trial.labels,
        validate_every=steps,
        unet=place.unet if trial.method == "unet" else None,
        model=dataclasses.replace(base.model.scaled(trial.scale), **parts),
        adapt=Adapt(trial.adapt) if trial.adapt != base.adapt.mode else base.adapt,  # type: ignore[arg-type]
        loss=losses[trial.loss],
        optimisation=dataclasses.replace(base.optimisation, **changes),
    )


def train(trial: Trial, place: Place) -> Path:
    """Finetune, or go on finetuning; the checkpoint."""
    folder = place.run(trial)
    recipe = recipe_of(trial, place, len(open_windows(place.data / "train").labels))
    encoder = encoder_of(trial, place)
    init = encoder.folder(place) / checkpoint.LAST if encoder else None
    with _log(folder), Processes(recipe.optimisation) as processes:
        finetune(recipe, place.data, folder, init, (folder / checkpoint.LAST).is_file(), processes)
    return folder / checkpoint.BEST


def answer(trial: Trial, place: Place) -> str:
    """Make a trial and measure it on the test split; a line about it."""
    start = time.monotonic()
    test = open_windows(place.data / "test")
    about: dict[str, Any] = {}
    if trial.method in ("vit", "unet"):
        made = checkpoint.load(train(trial, place))
        about = {"parameters": sum(value.numel() for value in made.mean.values())} | {
            name: made.provenance[name] for name in ("train_windows", "steps", "minutes", "temperature", "class_bias")
        }
    with _log(place.run(trial)), ready(trial, place) as infer:
        measured = measure(test, predictor(infer), BATCH, place.windows)
    if trial.method == "energy":
        del measured["calibration"]  # it has no confidence
    result = {"trial": dataclasses.asdict(trial), "labels": test.labels, **about, **measured}
    write_json(result | {"seconds": round(time.monotonic() - start, 1)}, place.result(trial))
    (place.run(trial) / checkpoint.LAST).unlink(missing_ok=True)  # with the optimiser's state, four times as large
    return f"{trial.text}, seed {trial.seed}: mIoU {measured['overall']['miou']:.3f}"


def answer_on_sets(trial: Trial, place: Place, sets: list[WindowSet]) -> str:
    """Measure a trial that has been made on other windows; a line about it."""
    levels = {}
    for each in sets:
        windows = open_windows(each.folder(place.out))
        with _log(place.run(trial)), ready(trial, place) as infer:
            levels[each.level] = measure(windows, predictor(infer), BATCH)["overall"]
    table = sets[0].table
    write_json({"trial": dataclasses.asdict(trial), "levels": levels}, place.result(trial, table))
    return f"{table}: {trial.text}, seed {trial.seed}"


@contextlib.contextmanager
def ready(trial: Trial, place: Place) -> Iterator[Infer]:
    """Inference with a trial that has been made; the energy detector is as sure as can be of what it says."""
    if trial.method == "energy":
        yield _detector(place)
    elif trial.method == "file":
        with load_engine(find_model(trial.start), threads=1) as engine:
            yield engine.infer
    else:
        yield shipped_infer(checkpoint.load(place.run(trial) / checkpoint.BEST))


def _detector(place: Place) -> Infer:
    validation = open_windows(place.data / "validation")
    detect, _ = energy_detector(validation, read_spec(place.data / "validation", validation))
    classes = np.eye(len(validation.labels), dtype=np.float32)

    def infer(pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        unknown = torch.zeros(pictures.shape, dtype=torch.uint8)
        batch = Batch(torch.from_numpy(pictures), torch.from_numpy(bin_widths), unknown)
        return classes[detect(batch).labels]

    return infer


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[None]:
    """Send what is printed to a file: many trials run at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield
