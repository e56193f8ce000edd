# SPDX-License-Identifier: Apache-2.0
"""Pretrain the encoder by Masked Spectrogram Modeling; labels are not used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer

from training import checkpoint, curves
from training.batches import read_spec, training_batches
from training.command import progress_bar, run
from training.config import PretrainRecipe, read_recipe
from training.datasets import IGNORED, LABELS, open_windows
from training.msm import MaskedModel, shuffle_patches
from training.optimisation import Budget, WeightMean, Workers, make_optimiser, update


def main(
    config: Annotated[Path, typer.Option(help="Recipe, a TOML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the splits train and validation; only train is read.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and curves.")],
    max_minutes: Annotated[float | None, typer.Option(help="Wall time of the run; overrides the recipe.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Pretrain the encoder by Masked Spectrogram Modeling."""
    recipe = read_recipe(config, PretrainRecipe).for_run(steps, max_minutes)
    options = recipe.optimisation
    torch.manual_seed(recipe.seed)
    workers = Workers(options.threads)

    windows = open_windows(data / "train")
    spec = read_spec(data / "train", windows)
    vit = recipe.model.config(spec.n_steps, spec.n_bins, len(LABELS))
    model = MaskedModel(vit, recipe.masking)
    optimiser = make_optimiser(model, vit.depth, options)
    mean = WeightMean(model, options.ema_decay)
    first_step, budget = 0, Budget(options)
    if resume:
        before = checkpoint.load(out / checkpoint.LAST)
        checkpoint.check_recipe(before, dataclasses.asdict(recipe), out / checkpoint.LAST)
        model.load_state_dict(before.weights)
        mean.model.load_state_dict(before.mean)
        checkpoint.restore_optimiser(optimiser, before.optimiser)
        first_step, budget = before.step, Budget(options, before.elapsed)
        curves.truncate(out, first_step)
    else:
        checkpoint.refuse_existing(out)

    def save(step: int) -> None:
        checkpoint.save(
            checkpoint.Checkpoint(
                kind="pretrain",
                vit=vit,
                spec=spec,
                recipe=dataclasses.asdict(recipe),
                weights=model.state_dict(),
                mean=mean.model.state_dict(),
                optimiser=checkpoint.optimiser_tensors(optimiser),
                step=step,
                elapsed=budget.elapsed,
                best=0.0,
                provenance={"train_windows": len(windows), "steps": step, "minutes": round(budget.elapsed / 60, 1)},
            ),
            out / checkpoint.LAST,
        )
        curves.draw(out)

    step, losses = first_step, []
    batches = training_batches(windows, spec, recipe.augmentation, options.batch_size, recipe.seed, first_step)
    typer.echo(f"pretraining {sum(p.numel() for p in model.parameters()):,} parameters on {len(windows):,} windows")
    with progress_bar() as bar:
        task = bar.add_task("pretrain", total=1.0)
        try:
            while (progress := budget.progress(step)) < 1:
                batch = next(batches)
                generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
                visible, hidden = shuffle_patches(len(batch.pictures), vit.grid, recipe.masking, generator)
                missing = batch.masks == IGNORED
                parts = (batch.pictures, batch.bin_widths, missing, visible, hidden)
                losses.append(workers.gradients(model, model.loss, *parts))
                rate = update(model, optimiser, progress, options)
                step += 1
                mean.update(model, step)
                bar.update(task, completed=budget.progress(step), description=f"step {step} loss {losses[-1]:.4f}")
                if step % options.log_every == 0:
                    entry = {"step": step, "loss": sum(losses) / len(losses), "rate": rate}
                    curves.append(out, entry | {"elapsed": round(budget.elapsed, 1)})
                    losses.clear()
                if step % options.checkpoint_every == 0:
                    save(step)
        except KeyboardInterrupt:
            save(step)
            typer.echo(f"stopped after {step} updates; go on with --resume", err=True)
            raise typer.Exit(130) from None
    save(step)
    typer.echo(f"{step} updates in {budget.elapsed / 60:.1f} minutes; {out / checkpoint.LAST}, {out / curves.CURVES}")


if __name__ == "__main__":
    run(main)
