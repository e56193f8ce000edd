# SPDX-License-Identifier: Apache-2.0
"""Train the segmenter on labelled windows, from a pretrained encoder or from scratch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from rfvit_rt.errors import ModelError, RecordingError
from rfvit_rt.segments import OTHER
from rfvit_rt.vit import Segmenter
from training import checkpoint, curves
from training.accelerator import Accelerator, choose_workers
from training.activity.train import main as train_activity
from training.adapt import adapt
from training.batches import Batch, Part, evaluation_batches, read_spec, some_scenes, training_batches
from training.calibration import Calibration, fit_calibration, fold
from training.command import interrupts_wait, progress_bar, run
from training.config import FinetuneRecipe, RecipeError, read_recipe
from training.datasets import Windows, open_windows
from training.losses import SegmentationLoss, class_weights
from training.metrics import confusion, figures
from training.networks import make_network, network_of
from training.optimisation import Budget, WeightMean, Workers, make_optimisers, update
from training.prepare import labelled_folder
from training.processes import Processes


def main(
    config: Annotated[Path, typer.Option(help="Recipe, a TOML file.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Labelled data: a folder of scenes with the splits train and validation; or SigMF recordings with "
            "annotations, explained by the recipe's section annotations; or folders images and labels of PNG pairs."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and curves.")],
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from; from scratch where not given.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Wall time of the run; overrides the recipe.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    task: Annotated[
        str, typer.Option(help="segmentation; or activity: captures of CSI, as training.activity.train explains.")
    ] = "segmentation",
) -> None:
    """Train the segmenter; the best weights on the validation split are kept beside the last, and calibrated.

    Under torchrun, on several GPUs or parts of a CPU.
    """
    if task == "activity":
        if resume or max_minutes is not None:
            raise RecipeError(
                "runs of --task activity are short: they have neither --resume nor --max-minutes; use --steps"
            )
        train_activity(config, data, out, init=init, steps=steps)
        return
    if task != "segmentation":
        raise RecipeError(f"there is no task '{task}'; choose segmentation or activity")
    recipe = read_recipe(config, FinetuneRecipe).for_run(steps, max_minutes)
    with Processes(recipe.optimisation) as processes:
        if not resume:
            checkpoint.refuse_existing(out)
        folder = processes.in_turn(lambda: labelled_folder(data, out, recipe, processes.say))
        finetune(recipe, folder, out, init, resume, processes)


def finetune(
    recipe: FinetuneRecipe, data: Path, out: Path, init: Path | None, resume: bool, processes: Processes
) -> None:
    """Train on the splits in `data`, from the start or from the last checkpoint in `out`.

    Raises
    ------
    RecipeError
        If the encoder is not to learn and there is none that has.
    """
    options = recipe.optimisation
    if recipe.adapt.mode != "full" and init is None and not resume:
        raise RecipeError(
            f"[adapt] mode is '{recipe.adapt.mode}', which keeps the encoder as it is, and there is none that has "
            "learnt anything; give one with --init, or make the mode 'full'"
        )
    torch.manual_seed(recipe.seed)
    workers = choose_workers(options, processes)

    train, validation = open_labelled(data)
    spec = read_spec(data / "train", train)
    vit = recipe.model.config(spec.n_steps, spec.n_bins, len(train.labels))
    part = Part(train)
    if recipe.label_share < 1:
        part = Part(train, places=some_scenes(train, recipe.label_share, recipe.seed))
    weights = class_weights(part, recipe.loss.class_weights)
    other = train.labels.index(OTHER) if OTHER in train.labels else None
    model = make_network(vit, recipe.unet)
    provenance: dict[str, Any] = {
        "train_windows": len(part),
        "train_scenes": len(np.unique(train.scenes if part.places is None else train.scenes[part.places])),
        "validation_windows": len(validation),
        "class_weights": [round(weight, 3) for weight in weights.tolist()],
        "pretrained": None,
        "precision": "bf16" if workers.bf16 else "f32",
    }
    if init is not None and not resume:
        provenance["pretrained"] = start_from(model, init, train.labels)
    mean = WeightMean(model.to(workers.device), options.ema_decay)
    if isinstance(model, Segmenter):
        adapt(model.encoder, recipe.adapt)
    model.to(workers.device)
    weights = weights.to(workers.device)
    optimisers = make_optimisers(model, vit.depth, options, workers.bf16)
    first_step, budget, best = 0, Budget(options), -1.0
    if resume:
        before = checkpoint.load(out / checkpoint.LAST)
        checkpoint.check_recipe(before, dataclasses.asdict(recipe), out / checkpoint.LAST)
        counts = {name: provenance[name] for name in ("train_windows", "validation_windows")}
        checkpoint.check_windows(before, counts, train.labels, out / checkpoint.LAST)
        provenance["precision"] = checkpoint.both(before.provenance.get("precision", ""), provenance["precision"])
        model.load_state_dict(before.weights)
        mean.model.load_state_dict(before.mean)
        checkpoint.restore_optimisers(optimisers, before.optimiser)
        first_step, budget, best = before.step, Budget(options, before.elapsed), before.best
        provenance["pretrained"] = before.provenance["pretrained"]
        if processes.first:
            curves.truncate(out, first_step)
    elif processes.first:
        curves.begin(out)

    def state(step: int) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(
            kind="finetune",
            vit=vit,
            spec=spec,
            recipe=dataclasses.asdict(recipe),
            weights=model.state_dict(),
            mean=mean.model.state_dict(),
            optimiser=checkpoint.optimiser_tensors(optimisers),
            step=step,
            elapsed=budget.elapsed,
            best=best,
            provenance=provenance | {"steps": step, "minutes": round(budget.elapsed / 60, 1)},
            labels=train.labels,
        )

    loss = SegmentationLoss(weights, recipe.loss, other)

    def sums(pictures: Tensor, bin_widths: Tensor, masks: Tensor) -> Tensor:
        return loss.sums(model(pictures, bin_widths).float(), masks)

    def look(step: int) -> None:
        """Validate, and keep the weights where they are the best."""
        nonlocal best
        scores = validate(mean.model, validation, recipe.validation_windows, workers)
        bar.console.print(summary(step, scores))
        if scores["miou"] > best:
            kept = dataclasses.replace(state(step), weights={}, optimiser={}, best=scores["miou"])
            checkpoint.save(kept, out / checkpoint.BEST)
            best = scores["miou"]  # known as the best only where it lies on disk
        curves.append(out, {"step": step} | scores)

    step, losses = first_step, []
    progress = processes.agree(budget.progress(step))
    if progress >= 1:
        processes.say(f"the run is over: it had its {step} updates, or its time; --steps and --max-minutes give more")
    batches = training_batches(
        [part],
        spec,
        recipe.augmentation,
        options.batch_size,
        recipe.seed,
        first_step,
        own=processes.own,
        threads=workers.loaders,
        pin=workers.device.type == "cuda",
    )
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    processes.say(f"finetuning {learning:,} of {total:,} parameters on {len(part):,} windows")
    bar = progress_bar()
    bar.disable = not processes.first
    with bar:
        task = bar.add_task("finetune", total=1.0)
        try:
            due = progress >= 1 or (step and step % recipe.validate_every == 0)
            if processes.first and due and not curves.has(out, step, "miou"):  # it was stopped in the middle of that
                look(step)
            while progress < 1:
                batch = next(batches)
                tensors = (batch.pictures, batch.bin_widths, batch.masks)
                losses.append(workers.gradients(model, sums, loss.of, *tensors, add=processes.add))
                processes.add_gradients(model)
                with interrupts_wait():
                    rate = update(model, optimisers, progress, options)
                    step += 1
                    mean.update(model, step)
                progress = processes.agree(budget.progress(step))
                bar.update(task, completed=progress, description=f"step {step} loss {losses[-1]:.4f}")
                if step % options.log_every == 0:
                    entry = {"step": step, "loss": sum(losses) / len(losses), "rate": rate}
                    losses.clear()
                    if processes.first:
                        curves.append(out, entry | {"elapsed": round(budget.elapsed, 1)})
                if processes.first and (step % recipe.validate_every == 0 or progress >= 1):
                    look(step)
                if processes.first and (step % options.checkpoint_every == 0 or progress >= 1):
                    checkpoint.save(state(step), out / checkpoint.LAST)
                    curves.draw(out)
        except KeyboardInterrupt:
            if processes.first:
                checkpoint.save(state(step), out / checkpoint.LAST)
            processes.say(f"stopped after {step} updates; go on with --resume", err=True)
            raise typer.Exit(130) from None
    if processes.first:
        calibration = calibrate(out / checkpoint.BEST, validation, recipe, workers)
        biases = ", ".join(f"{n} {b:+.2f}" for n, b in zip(train.labels, calibration.class_bias, strict=True))
        typer.echo(
            f"confidences of the best weights are calibrated: logits divided by {calibration.temperature:.3f}, then "
            f"{biases}"
        )
    done = f"{step} updates in {budget.elapsed / 60:.1f} minutes; best mIoU, before calibration, {best:.3f}"
    processes.say(f"{done}: {out / checkpoint.BEST}")
    split = "" if (data / "test").is_dir() else " --split validation"
    processes.say(
        f"measure it: python -m training.evaluate --model {out / checkpoint.BEST} --data {data}{split} --out …"
    )


def open_labelled(data: Path) -> tuple[Windows, Windows]:
    """Open the splits train and validation.

    Raises
    ------
    RecordingError
        If one is missing, they differ in their labels, or no pixel to validate on has a label.
    """
    train, validation = open_windows(data / "train"), open_windows(data / "validation")
    if train.labels != validation.labels or len(train.labels) < 2:
        raise RecordingError(
            f"{data}: the labels to train on are {', '.join(train.labels)}, those to validate on "
            f"{', '.join(validation.labels)}; two or more are needed, the same in both splits"
        )
    if not any((mask < len(validation.labels)).any() for mask in validation.masks):
        raise RecordingError(f"no pixel of {data / 'validation'} has a label; there is nothing to choose weights by")
    return train, validation


def start_from(model: nn.Module, path: Path, labels: tuple[str, ...]) -> dict[str, Any]:
    """Load a pretrained encoder, and the head too where it is one of the same kind, finetuned for the same labels.

    Of a head that has been pretrained with the encoder, all but the layer that classifies is loaded.

    Returns
    -------
    dict
        How the weights came to be.

    Raises
    ------
    ModelError
        If the checkpoint is of another geometry.
    """
    source = checkpoint.load(path)
    if not isinstance(model, Segmenter) or source.recipe.get("unet"):
        raise ModelError(f"a U-Net starts from scratch, and {path} can start none; leave --init out")
    wanted = model.config
    if dataclasses.replace(source.vit, **wanted.head_alone) != wanted:
        theirs, asked = (dataclasses.asdict(one) for one in (source.vit, wanted))
        differing = [
            f"{name} {value}, not {asked[name]}"
            for name, value in theirs.items()
            if value != asked[name] and name not in wanted.head_alone
        ]
        raise ModelError(f"{path} has {'; '.join(differing)}; make [model] of the recipe equal to that")
    finetuned = source.kind == "finetune"
    same = source.labels == labels and source.vit.head_alone == wanted.head_alone
    with_head = same if finetuned else wanted.head == "pyramid"
    known = model.state_dict()
    loaded = {
        name: value
        for name, value in source.mean.items()
        if name in known
        and name.startswith(("encoder.", "head.") if with_head else "encoder.")
        and (finetuned or not name.startswith("head.classify."))
    }
    model.load_state_dict(known | loaded)
    if finetuned and not same:
        had = f"with the head '{source.vit.head}' for {', '.join(source.labels)}"
        typer.echo(f"{path} was finetuned {had}: its encoder is used, its head is not")
    return {"kind": source.kind, "recipe": source.recipe} | source.provenance


def validate(model: nn.Module, windows: Windows, limit: int, workers: Workers | Accelerator) -> dict[str, Any]:
    """Figures on at most `limit` windows."""
    count = len(windows.labels)

    def matrix(item: tuple[slice, Batch]) -> NDArray[np.int64]:
        batch = item[1].to(workers.device)
        logits = model(batch.pictures, batch.bin_widths)
        return confusion(item[1].masks.numpy(), logits.argmax(dim=1).cpu().numpy(), count)

    matrices = list(workers.map(matrix, evaluation_batches(windows, 4, limit)))
    return figures(np.sum(matrices, axis=0), windows.labels)


def calibrate(path: Path, windows: Windows, recipe: FinetuneRecipe, workers: Workers | Accelerator) -> Calibration:
    """Fit a temperature and class biases for the weights in a checkpoint, fold them in, and note them; once.

    The head's last layer then gives calibrated logits, and whatever is made of the checkpoint says what it should.
    """
    source = checkpoint.load(path)
    if "temperature" in source.provenance:
        none = [0.0] * len(source.labels)
        return Calibration(source.provenance["temperature"], tuple(source.provenance.get("class_bias", none)))
    model = network_of(source).to(workers.device).eval()
    limit = recipe.validation_windows
    calibration = fit_calibration(model, windows, limit, workers, bias=recipe.class_bias)
    fold(model, calibration)
    provenance = source.provenance | dataclasses.asdict(calibration)
    if recipe.class_bias:  # a temperature changes no label, biases do
        scores = validate(model, windows, limit, workers)
        typer.echo(summary(source.step, scores) + ", calibrated")
    checkpoint.save(dataclasses.replace(source, mean=model.state_dict(), provenance=provenance), path)
    return calibration


def summary(step: int, scores: dict[str, Any]) -> str:
    """One line about a validation."""
    each = ", ".join(f"{label} {'-' if value is None else f'{value:.3f}'}" for label, value in scores["iou"].items())
    return f"step {step}: mIoU {scores['miou']:.3f} ({each}), class-mean accuracy {scores['class_mean_accuracy']:.3f}"


if __name__ == "__main__":
    run(main)
