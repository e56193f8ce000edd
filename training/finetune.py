# SPDX-License-Identifier: Apache-2.0
"""Train the segmenter on labelled windows, from a pretrained encoder or from scratch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from rfvit_rt.errors import ModelError
from rfvit_rt.vit import Segmenter
from training import checkpoint, curves
from training.batches import Batch, evaluation_batches, evaluation_indices, read_spec, training_batches
from training.command import progress_bar, run
from training.config import FinetuneRecipe, read_recipe
from training.datasets import IGNORED, LABELS, Windows, open_windows
from training.metrics import confusion, figures
from training.optimisation import Budget, WeightMean, Workers, make_optimiser, update


def main(
    config: Annotated[Path, typer.Option(help="Recipe, a TOML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the splits train and validation.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and curves.")],
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from; from scratch where not given.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Wall time of the run; overrides the recipe.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Train the segmenter; the best weights on the validation split are kept beside the last."""
    recipe = read_recipe(config, FinetuneRecipe).for_run(steps, max_minutes)
    options = recipe.optimisation
    torch.manual_seed(recipe.seed)
    workers = Workers(options.threads)

    train, validation = open_windows(data / "train"), open_windows(data / "validation")
    spec = read_spec(data / "train", train)
    vit = recipe.model.config(spec.n_steps, spec.n_bins, len(LABELS))
    weights = class_weights(train, recipe.loss.class_weights)
    model = Segmenter(vit)
    provenance: dict[str, Any] = {
        "train_windows": len(train),
        "train_scenes": len(np.unique(train.scenes)),
        "validation_windows": len(validation),
        "class_weights": [round(weight, 3) for weight in weights.tolist()],
        "pretrained": None,
    }
    if init is not None and not resume:
        provenance["pretrained"] = start_from(model, init)
    if recipe.freeze_encoder:
        model.encoder.requires_grad_(False)
    optimiser = make_optimiser(model, vit.depth, options)
    mean = WeightMean(model, options.ema_decay)
    first_step, budget, best = 0, Budget(options), -1.0
    if resume:
        before = checkpoint.load(out / checkpoint.LAST)
        checkpoint.check_recipe(before, dataclasses.asdict(recipe), out / checkpoint.LAST)
        model.load_state_dict(before.weights)
        mean.model.load_state_dict(before.mean)
        checkpoint.restore_optimiser(optimiser, before.optimiser)
        first_step, budget, best = before.step, Budget(options, before.elapsed), before.best
        provenance["pretrained"] = before.provenance["pretrained"]
        curves.truncate(out, first_step)
    else:
        checkpoint.refuse_existing(out)

    def state(step: int) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(
            kind="finetune",
            vit=vit,
            spec=spec,
            recipe=dataclasses.asdict(recipe),
            weights=model.state_dict(),
            mean=mean.model.state_dict(),
            optimiser=checkpoint.optimiser_tensors(optimiser),
            step=step,
            elapsed=budget.elapsed,
            best=best,
            provenance=provenance | {"steps": step, "minutes": round(budget.elapsed / 60, 1)},
        )

    def loss(pictures: Tensor, bin_widths: Tensor, masks: Tensor) -> Tensor:
        logits = model(pictures, bin_widths)
        entropy = F.cross_entropy(logits, masks, weights, ignore_index=IGNORED)
        return entropy + recipe.loss.dice * dice_loss(logits, masks) if recipe.loss.dice else entropy

    step, losses = first_step, []
    finished = budget.progress(step) >= 1
    batches = training_batches(train, spec, recipe.augmentation, options.batch_size, recipe.seed, first_step)
    typer.echo(f"finetuning {sum(p.numel() for p in model.parameters()):,} parameters on {len(train):,} windows")
    with progress_bar() as bar:
        task = bar.add_task("finetune", total=1.0)
        try:
            while not finished:
                batch = next(batches)
                losses.append(workers.gradients(model, loss, batch.pictures, batch.bin_widths, batch.masks))
                rate = update(model, optimiser, budget.progress(step), options)
                step += 1
                mean.update(model, step)
                finished = budget.progress(step) >= 1
                bar.update(task, completed=budget.progress(step), description=f"step {step} loss {losses[-1]:.4f}")
                if step % options.log_every == 0:
                    entry = {"step": step, "loss": sum(losses) / len(losses), "rate": rate}
                    curves.append(out, entry | {"elapsed": round(budget.elapsed, 1)})
                    losses.clear()
                if step % recipe.validate_every == 0 or finished:
                    scores = validate(mean.model, validation, recipe.validation_windows, workers)
                    curves.append(out, {"step": step} | scores)
                    bar.console.print(summary(step, scores))
                    if scores["miou"] > best:
                        best = scores["miou"]
                        checkpoint.save(
                            dataclasses.replace(state(step), weights={}, optimiser={}), out / checkpoint.BEST
                        )
                if step % options.checkpoint_every == 0 or finished:
                    checkpoint.save(state(step), out / checkpoint.LAST)
                    curves.draw(out)
        except KeyboardInterrupt:
            checkpoint.save(state(step), out / checkpoint.LAST)
            typer.echo(f"stopped after {step} updates; go on with --resume", err=True)
            raise typer.Exit(130) from None
    typer.echo(f"{step} updates in {budget.elapsed / 60:.1f} minutes; best mIoU {best:.3f}: {out / checkpoint.BEST}")


def class_weights(windows: Windows, given: list[float] | None) -> Tensor:
    """Weight of each label: as given, or one over the square root of its share, scaled to a mean of 1 over pixels.

    Raises
    ------
    ModelError
        If the number given is not that of the labels.
    """
    if given is not None:
        if len(given) != len(LABELS):
            raise ModelError(
                f"[loss] class_weights has {len(given)} numbers; {len(LABELS)} are needed: {', '.join(LABELS)}"
            )
        return torch.tensor(given)
    masks = windows.masks[evaluation_indices(len(windows), 512)]
    share = np.array([np.count_nonzero(masks == label) for label in range(len(LABELS))], np.float64)
    # A label that hardly occurs must not drown the others.
    share = np.maximum(share / max(1.0, share.sum()), 1e-3)
    weights = 1 / np.sqrt(share)
    return torch.from_numpy(weights / np.sum(share * weights)).float()


def start_from(model: Segmenter, path: Path) -> dict[str, Any]:
    """Load a pretrained encoder, or a whole segmenter that was finetuned before; return how it came to be.

    Raises
    ------
    ModelError
        If the checkpoint is of another geometry.
    """
    source = checkpoint.load(path)
    if source.vit != model.config:
        raise ModelError(f"{path} holds {source.vit}, the recipe asks for {model.config}; make [model] equal in both")
    known = model.state_dict()
    model.load_state_dict(known | {name: value for name, value in source.mean.items() if name in known})
    return {"kind": source.kind, "recipe": source.recipe} | source.provenance


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, a mean over classes (Milletari et al. 2016, eq. 4, without squares).

    Parameters
    ----------
    logits : (batch, class, n_steps, n_bins) float32
    masks : (batch, n_steps, n_bins) int64
    """
    counted = (masks != IGNORED)[:, None]
    probabilities = logits.softmax(dim=1) * counted
    classes = torch.arange(logits.shape[1])[None, :, None, None]
    true = (masks[:, None] == classes).float()
    overlap = (probabilities * true).sum(dim=(0, 2, 3))
    size = probabilities.sum(dim=(0, 2, 3)) + true.sum(dim=(0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def validate(model: nn.Module, windows: Windows, limit: int, workers: Workers) -> dict[str, Any]:
    """Figures on at most `limit` windows."""

    def matrix(item: tuple[slice, Batch]) -> NDArray[np.int64]:
        _, batch = item
        logits = model(batch.pictures, batch.bin_widths)
        return confusion(batch.masks.numpy(), logits.argmax(dim=1).numpy(), len(LABELS))

    return figures(np.sum(list(workers.map(matrix, evaluation_batches(windows, 4, limit))), axis=0), LABELS)


def summary(step: int, scores: dict[str, Any]) -> str:
    """One line about a validation."""
    each = ", ".join(f"{label} {'-' if value is None else f'{value:.3f}'}" for label, value in scores["iou"].items())
    return f"step {step}: mIoU {scores['miou']:.3f} ({each}), class-mean accuracy {scores['class_mean_accuracy']:.3f}"


if __name__ == "__main__":
    run(main)
