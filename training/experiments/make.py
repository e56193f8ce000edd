# SPDX-License-Identifier: Apache-2.0
"""Make the tables: ``python -m training.experiments labels snr --data runs/scenes --out runs/experiments``.

A trial that has its file is not made again, and several tables share trials: an interrupted call goes on where it was,
a training run from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from rfvit_rt.errors import OutputError, RecordingError
from rfvit_rt.models import find_model
from rfvit_rt.sources.recording import Recording
from training.config import FinetuneRecipe, PretrainRecipe, UNetSize, read_recipe
from training.datasets import open_windows, read_record
from training.evaluate import check_windows
from training.experiments import captures as recorded
from training.experiments import report
from training.experiments.models import Encoder, Place, answer, answer_on_sets, encoder_of, make_encoder
from training.experiments.sets import WindowSet, make_set, window_sets
from training.experiments.trials import TABLES, Trial, trials
from training.optimisation import has_bf16
from training.recordings import find_recordings
from training.trials import run_trials, write_json

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SETTINGS = "settings.json"


def main(
    tables: Annotated[list[str], typer.Argument(help=f"Tables to make: {', '.join(TABLES)}.")],
    data: Annotated[Path, typer.Option(help="Folder of scenes, with the splits train, validation and test.")],
    out: Annotated[Path, typer.Option(help="Folder for results; what is there already is not made again.")],
    updates: Annotated[int | None, typer.Option(help="Updates of a trial; overrides the recipe.", min=1)] = None,
    pretrain_updates: Annotated[
        int | None, typer.Option(help="Updates of an encoder's pretraining; overrides the recipe.", min=1)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of every trial.", min=1)] = 3,
    processes: Annotated[int, typer.Option(help="Trials at a time, each on one core.", min=1)] = os.cpu_count() or 1,
    pretraining: Annotated[Path, typer.Option(help="Recipe of the encoders.")] = CONFIGS / "pretrain_experiment.toml",
    finetuning: Annotated[Path, typer.Option(help="Recipe of the trials.")] = CONFIGS / "finetune_experiment.toml",
    unet_width: Annotated[int, typer.Option(help="Width of the U-Net that is the baseline.")] = 12,
    windows: Annotated[int | None, typer.Option(help="Windows of the test split to measure on.", min=1)] = None,
    set_windows: Annotated[int, typer.Option(help="Windows of each level of snr, alarms and rates.", min=1)] = 100,
    model: Annotated[
        list[str] | None, typer.Option(help="Model, by name or file, to measure too: snr, alarms, rates, captures.")
    ] = None,
    captures: Annotated[Path | None, typer.Option(help="Folder of SigMF recordings, for the table captures.")] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of names of captures that were computed: they get echoes, and noise of 15 dB SNR."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Folder of SigMF recordings that an encoder is pretrained on too, for the table recordings."),
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Pattern of names of captures that hold LTE or NR but do not say so.")
    ] = None,
) -> None:
    """Make tables of trials, and show them."""
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise RecordingError(f"there is no table {', '.join(unknown)}; choose of {', '.join(TABLES)}")
    for table in tables:
        if table in recorded.TABLES and captures is None:
            raise RecordingError(f"the table {table} needs recordings; give their folder with --captures")
    if "recordings" in tables and unlabelled is None:
        raise RecordingError("the table recordings needs some to pretrain on; give their folder with --unlabelled")
    pretrain_recipe = read_recipe(pretraining, PretrainRecipe).for_run(pretrain_updates, None)
    finetune_recipe = read_recipe(finetuning, FinetuneRecipe).for_run(updates, None)
    recipes = _alone(pretrain_recipe), _alone(finetune_recipe)
    place = Place(data, out, *recipes, UNetSize(unet_width), windows, unlabelled)
    train = open_windows(data / "train")
    labels = train.labels
    shipped = {name: find_model(name) for name in model or []}
    if any(window_sets(table, labels) for table in tables):
        for file in shipped.values():
            check_windows(data / "train", file.contract.spectrogram, file.contract.labels)
    folder = recorded.Captures(captures, tuple(clean or ()), tuple(leave_out or ())) if captures else None
    _check_settings(place, set_windows, folder)
    files = [Trial("file", start=name, weights=file.sha256[:12]) for name, file in shipped.items()]
    asked = {table: trials(table, seeds, files) for table in tables}
    every = list(dict.fromkeys(trial for each in asked.values() for trial in each))
    _make(every, place, processes)
    for table, each in asked.items():
        if sets := window_sets(table, labels):
            missing = [one for one in sets if not read_record(one.folder(out))]
            run_trials(functools.partial(_make_set, place=place, count=set_windows), missing, processes)
            measure_sets = functools.partial(answer_on_sets, place=place, sets=sets)
            run_trials(measure_sets, _missing(each, place, table), processes)
        if table in recorded.TABLES and folder is not None:
            on_captures = functools.partial(recorded.answer_on_captures, place=place, captures=folder)
            run_trials(on_captures, _missing(each, place, recorded.CAPTURES), processes)
        typer.echo(report.write(table, report.gather(table, each, place, labels), place, labels))
    typer.echo(f"tables, JSON and pictures: {out / 'tables'}")


def _alone(recipe: Any) -> Any:
    """A recipe for one core among others that are busy, with the precision that results are noted with.

    It ends by updates alone: a limit in minutes would stop slow networks before fast ones.
    """
    cpu, options = "cpu", recipe.optimisation
    if options.precision == "auto":
        options = dataclasses.replace(options, precision="bf16" if has_bf16(torch.device(cpu)) else "f32")
    options = dataclasses.replace(options, threads=1, device=cpu, max_minutes=None)
    return dataclasses.replace(recipe, optimisation=options)


def _make(every: list[Trial], place: Place, processes: int) -> None:
    """Make what is missing: encoders, and beside them what does not wait for one, long ones first; then the rest."""
    missing = sorted(_missing(every, place, "test"), key=lambda trial: -trial.cost)
    encoders = list(dict.fromkeys(one for trial in missing if (one := encoder_of(trial, place))))
    wanted: list[Encoder | Trial] = [one for one in encoders if not one.result(place).is_file()]
    work = functools.partial(_work, place=place)
    run_trials(work, wanted + [trial for trial in missing if encoder_of(trial, place) is None], processes)
    run_trials(work, [trial for trial in missing if encoder_of(trial, place) is not None], processes)


def _work(item: Encoder | Trial, place: Place) -> str:
    return make_encoder(item, place) if isinstance(item, Encoder) else answer(item, place)


def _make_set(wanted: WindowSet, place: Place, count: int) -> str:
    return make_set(wanted, place.data, place.out, count)


def _missing(asked: list[Trial], place: Place, table: str) -> list[Trial]:
    """Trials whose result on the test split, or on a table's windows, is not there; files have none on the former."""
    files = () if table == "test" else ("file",)
    kinds = ("vit", "unet", "energy", *files)
    return [trial for trial in asked if trial.method in kinds and not place.result(trial, table).is_file()]


def _check_settings(place: Place, set_windows: int, captures: recorded.Captures | None) -> None:
    """Note what results were made with, and refuse to put others beside them.

    Raises
    ------
    OutputError
        If the folder holds results that were made with other settings.
    """
    made = {split: read_record(place.data / split).get("first_seed") for split in ("train", "validation", "test")}
    settings = {
        "data": str(place.data.resolve()),
        "windows": {split: len(open_windows(place.data / split)) for split in made},
        "first_seeds": made,
        "scenes": {split: _about(place.data / split) for split in made},
        "labels": list(open_windows(place.data / "train").labels),
        "measured_windows": place.windows,
        "set_windows": set_windows,
        "pretraining": dataclasses.asdict(place.pretraining),
        "finetuning": dataclasses.asdict(place.finetuning),
        "unet": dataclasses.asdict(place.unet),
    }
    path = place.out / SETTINGS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    # Not every table has recordings: those of a call without any are not asked for, and stay noted.
    if place.unlabelled:
        settings["unlabelled"] = _files(place.unlabelled, find_recordings(place.unlabelled, lambda _: None).values())
    if captures:
        found = {"clean": list(captures.clean), "left_out": list(captures.left_out)}
        settings["captures"] = _files(captures.folder, captures.recordings()) | found
    settings = {name: before[name] for name in ("unlabelled", "captures") if name in before} | settings
    changed = sorted(name for name, value in settings.items() if before.get(name, value) != value)
    if changed:
        raise OutputError(
            f"{place.out} holds results that were made with other settings ({', '.join(changed)}); give those, or "
            "another --out"
        )
    write_json(settings, path)


def _about(split: Path) -> dict[str, Any]:
    """What a split says of how it was made, as JSON has it."""
    record = read_record(split)
    return {name: record[name] for name in ("settings", "spec", "source") if name in record}


def _files(folder: Path, recordings: Iterable[Recording]) -> dict[str, Any]:
    """A folder of recordings, with the sizes of those that are used."""
    sizes = {one.meta_path: (one.meta_path.stat().st_size, one.data_size) for one in recordings}
    return {
        "folder": str(folder.resolve()),
        "bytes": {path.relative_to(folder).as_posix(): list(size) for path, size in sorted(sizes.items())},
    }
