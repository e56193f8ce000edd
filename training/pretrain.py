# SPDX-License-Identifier: Apache-2.0
"""Pretrain the encoder by Masked Spectrogram Modeling; labels are not used, but by the monitors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from rfvit_rt.errors import RecordingError, SpecMismatch
from rfvit_rt.spectrogram import SpectrogramSpec
from training import checkpoint, curves
from training.accelerator import choose_workers
from training.batches import Part, evaluation_batches, read_spec, training_batches
from training.command import interrupts_wait, progress_bar, run
from training.config import PretrainRecipe, read_recipe
from training.datasets import RECORD, Windows, open_windows
from training.monitors import draw_reconstructions, held_out_loss, probe
from training.msm import MaskedModel, shuffle_patches
from training.optimisation import Budget, WeightMean, make_optimisers, update
from training.prepare import unlabelled_folder
from training.processes import Processes

_FITTED = 128  # windows of a kind that textures are fitted to


def main(
    config: Annotated[Path, typer.Option(help="Recipe, a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log, curves and reconstructions.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of generated scenes, with the splits train and validation.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of SigMF recordings, searched to any depth; no labels are needed. Beside --data, they make up "
            "the recipe's recordings_share of every batch. Folders train and validation in it are taken as the split."
        ),
    ] = None,
    monitor: Annotated[
        Path | None,
        typer.Option(help="Labelled split to probe the encoder with; the split validation of --data where not given."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Wall time of the run; overrides the recipe.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Pretrain the encoder by Masked Spectrogram Modeling; under torchrun, on several GPUs or parts of a CPU."""
    recipe = read_recipe(config, PretrainRecipe).for_run(steps, max_minutes)
    if data is None and recordings is None:
        raise RecordingError("there is nothing to train on; give --data, --recordings, or both")
    with Processes(recipe.optimisation) as processes:
        if not resume:
            checkpoint.refuse_existing(out)
        pretrain(recipe, find_sources(data, recordings, monitor, out, recipe, processes), out, resume, processes)


@dataclass(frozen=True, eq=False)
class Sources:
    """What a run sees.

    Attributes
    ----------
    parts : list of Part
        What it learns from.
    held_out : dict of str to Windows
        What it is measured on, by kind: ``scenes``, ``recordings``.
    probed : Windows or None
        Labelled windows for the probes.
    spec : SpectrogramSpec
        How all of the pictures were made.
    labels : tuple of str
        Of the windows that have any.
    """

    parts: list[Part]
    held_out: dict[str, Windows]
    probed: Windows | None
    spec: SpectrogramSpec
    labels: tuple[str, ...]


def find_sources(
    data: Path | None,
    recordings: Path | None,
    monitor: Path | None,
    out: Path,
    recipe: PretrainRecipe,
    processes: Processes,
) -> Sources:
    """Open generated scenes, and cut recordings into windows where that has not been done yet.

    Raises
    ------
    RecordingError
        If a folder does not hold what it should.
    SpecMismatch
        If pictures were made in different ways.
    """
    spec = SpectrogramSpec()
    train: dict[str, Windows] = {}
    folders: dict[str, Path] = {}
    if data is not None:
        folders["scenes"] = data
        train["scenes"] = open_windows(data / "train")
        spec = read_spec(data / "train", train["scenes"])
    if recordings is not None:
        folder, chosen = recordings, spec  # for what is called below, in turn
        folders["recordings"] = processes.in_turn(
            lambda: unlabelled_folder(folder, out, recipe.split, recipe.seed, chosen, processes.say)
        )
        train["recordings"] = open_windows(folders["recordings"] / "train")
    held_out = {
        kind: open_windows(folder / "validation")
        for kind, folder in folders.items()
        if (folder / "validation" / RECORD).is_file()
    }
    for kind in train.keys() - held_out.keys():
        processes.say(f"WARNING: there is no split validation of the {kind}; nothing of them is held out", err=True)
    probed = open_windows(monitor) if monitor else held_out.get("scenes")
    if monitor and probed and read_spec(monitor, probed) != spec:
        raise SpecMismatch(f"the pictures in {monitor} were made in another way than those to train on; make new ones")
    if probed is None or len(probed.labels) < 2:
        probed = None
        processes.say("WARNING: no labelled windows, so nothing is probed; --monitor names some", err=True)
    shares = {"scenes": 1 - recipe.recordings_share, "recordings": recipe.recordings_share}
    parts = [Part(windows, shares[kind] if len(train) > 1 else 1.0) for kind, windows in train.items()]
    labels = train["scenes"].labels if "scenes" in train else ("background",)
    return Sources(parts, held_out, probed, spec, labels)


def pretrain(recipe: PretrainRecipe, sources: Sources, out: Path, resume: bool, processes: Processes) -> None:
    """Train, from the start or from the last checkpoint in `out`."""
    options, spec = recipe.optimisation, sources.spec
    torch.manual_seed(recipe.seed)
    workers = choose_workers(options, processes)
    vit = recipe.model.config(spec.n_steps, spec.n_bins, len(sources.labels))
    model = MaskedModel(vit, recipe.masking)
    if model.textures is not None and not resume:
        some = [batch for part in sources.parts for _, batch in evaluation_batches(part.windows, _FITTED, _FITTED)]
        model.textures.fit(torch.cat([each.pictures for each in some]), torch.cat([each.missing for each in some]))
    model.to(workers.device)
    optimisers = make_optimisers(model, vit.depth, options, workers.bf16)
    mean = WeightMean(model, options.ema_decay)
    count, precision = sum(len(part.windows) for part in sources.parts), "bf16" if workers.bf16 else "f32"
    first_step, budget = 0, Budget(options)
    if resume:
        before = checkpoint.load(out / checkpoint.LAST)
        checkpoint.check_recipe(before, dataclasses.asdict(recipe), out / checkpoint.LAST)
        checkpoint.check_windows(before, {"train_windows": count}, sources.labels, out / checkpoint.LAST)
        precision = checkpoint.both(before.provenance.get("precision", ""), precision)
        model.load_state_dict(before.weights)
        mean.model.load_state_dict(before.mean)
        checkpoint.restore_optimisers(optimisers, before.optimiser)
        first_step, budget = before.step, Budget(options, before.elapsed)
        if processes.first:
            curves.truncate(out, first_step)
    elif processes.first:
        curves.begin(out)

    def save(step: int) -> None:
        checkpoint.save(
            checkpoint.Checkpoint(
                kind="pretrain",
                vit=vit,
                spec=spec,
                recipe=dataclasses.asdict(recipe),
                weights=model.state_dict(),
                mean=mean.model.state_dict(),
                optimiser=checkpoint.optimiser_tensors(optimisers),
                step=step,
                elapsed=budget.elapsed,
                best=0.0,
                provenance={
                    "train_windows": count,
                    "precision": precision,
                    "steps": step,
                    "minutes": round(budget.elapsed / 60, 1),
                },
                labels=sources.labels,
            ),
            out / checkpoint.LAST,
        )
        curves.draw(out)

    def look(step: int) -> None:
        """Write down what the monitors say."""
        limit, shown = recipe.monitor.windows, mean.model
        assert isinstance(shown, MaskedModel)
        held = {
            kind: held_out_loss(shown, windows, recipe.masking, limit, workers)
            for kind, windows in sources.held_out.items()
        }
        probes = probe(shown.encoder, sources.probed, limit, workers) if sources.probed else {}
        curves.append(out, {"step": step, "held_out": held} | probes)
        if recipe.monitor.pictures:
            windows = next(iter(sources.held_out.values()), sources.parts[-1].windows)
            path = out / "reconstructions" / f"step-{step:06d}.png"
            draw_reconstructions(shown, windows, recipe.masking, recipe.monitor.pictures, workers.device, path)
        bar.console.print(summary(step, held, probes))

    step, losses = first_step, []
    batches = training_batches(
        sources.parts,
        spec,
        recipe.augmentation,
        options.batch_size,
        recipe.seed,
        first_step,
        own=processes.own,
        threads=workers.loaders,
        pin=workers.device.type == "cuda",
    )
    processes.say(f"pretraining {sum(p.numel() for p in model.parameters()):,} parameters on {count:,} windows")
    bar = progress_bar()
    bar.disable = not processes.first
    with bar:
        task = bar.add_task("pretrain", total=1.0)
        try:
            if processes.first and step % recipe.monitor.every == 0 and not curves.has(out, step, "held_out"):
                look(step)
            while (progress := processes.agree(budget.progress(step))) < 1:
                batch = next(batches)
                generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
                chosen = shuffle_patches(options.batch_size, vit.grid, recipe.masking, generator)
                visible, hidden = (processes.own_part(each) for each in chosen)
                parts = (batch.pictures, batch.bin_widths, batch.missing, visible, hidden)
                losses.append(workers.gradients(model, model.sums, model.loss, *parts, add=processes.add))
                processes.add_gradients(model)
                with interrupts_wait():
                    rate = update(model, optimisers, progress, options)
                    step += 1
                    mean.update(model, step)
                bar.update(task, completed=budget.progress(step), description=f"step {step} loss {losses[-1]:.4f}")
                if step % options.log_every == 0:
                    entry = {"step": step, "loss": sum(losses) / len(losses), "rate": rate}
                    losses.clear()
                    if processes.first:
                        curves.append(out, entry | {"elapsed": round(budget.elapsed, 1)})
                if processes.first and step % recipe.monitor.every == 0:
                    look(step)
                if processes.first and step % options.checkpoint_every == 0:
                    save(step)
            if processes.first and not curves.has(out, step, "held_out"):
                look(step)
        except KeyboardInterrupt:
            if processes.first:
                save(step)
            processes.say(f"stopped after {step} updates; go on with --resume", err=True)
            raise typer.Exit(130) from None
    if processes.first:
        save(step)
    processes.say(
        f"{step} updates in {budget.elapsed / 60:.1f} minutes; {out / checkpoint.LAST}, {out / curves.CURVES}"
    )


def summary(step: int, held: dict[str, float], probes: dict[str, float | None]) -> str:
    """One line about a look."""
    values = {f"held-out loss of {kind}": value for kind, value in held.items()}
    values |= {name.replace("_", " "): value for name, value in probes.items() if value is not None}
    return f"step {step}: " + (", ".join(f"{name} {value:.3f}" for name, value in values.items()) or "nothing held out")


if __name__ == "__main__":
    run(main)
