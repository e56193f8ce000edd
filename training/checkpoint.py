# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with weights, their running mean, the optimiser's state, and JSON beside them."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rfvit_rt.csi import CSISpec
from rfvit_rt.errors import ModelError, OutputError
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.vit import VitConfig
from training.config import PLACE

LAST = "last.safetensors"
BEST = "best.safetensors"
_METADATA_KEY = "rfvit.checkpoint"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The whole state of a run.

    Attributes
    ----------
    kind : str
        ``pretrain``, ``finetune`` or ``activity``.
    vit : VitConfig
        Geometry of the network.
    spec : SpectrogramSpec or CSISpec
        How its input is made.
    recipe : dict
        The recipe, as :func:`dataclasses.asdict` gives it.
    weights, mean : dict of str to Tensor
        The model's weights, and their running mean: what is evaluated and shipped.
    optimiser : dict of str to Tensor
        From :func:`optimiser_tensors`; empty in a file that is not for resuming.
    step : int
        Updates taken.
    elapsed : float
        Seconds of training.
    best : float
        Best validation score so far.
    provenance : dict
        Data counts and the like, for the model's contract.
    labels : tuple of str
        What the network's classes are called.
    """

    kind: str
    vit: VitConfig
    spec: SpectrogramSpec | CSISpec
    recipe: dict[str, Any]
    weights: dict[str, Tensor]
    mean: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    step: int
    elapsed: float
    best: float
    provenance: dict[str, Any]
    labels: tuple[str, ...]

    @property
    def spectrogram(self) -> SpectrogramSpec:
        """The spec of a network that sees spectrograms; raises :class:`ModelError` where it sees CSI."""
        if not isinstance(self.spec, SpectrogramSpec):
            raise ModelError("the checkpoint's network sees CSI, not spectrograms; give another checkpoint")
        return self.spec


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; the file is either the old or the new one, never a part.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    tensors = {
        f"{part}/{name}": value.detach().contiguous()
        for part in ("weights", "mean", "optimiser")
        for name, value in getattr(checkpoint, part).items()
    }
    plain = {
        "kind": checkpoint.kind,
        "vit": dataclasses.asdict(checkpoint.vit),
        "csi" if isinstance(checkpoint.spec, CSISpec) else "spectrogram": dataclasses.asdict(checkpoint.spec),
        "recipe": checkpoint.recipe,
        "step": checkpoint.step,
        "elapsed": checkpoint.elapsed,
        "best": checkpoint.best,
        "provenance": checkpoint.provenance,
        "labels": checkpoint.labels,
    }
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {_METADATA_KEY: json.dumps(plain)})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the checkpoint {path}: {error}") from error


def load(path: Path) -> Checkpoint:
    """Read what :func:`save` wrote.

    Raises
    ------
    ModelError
        If the file is missing or no checkpoint.
    """
    if not path.is_file():
        raise ModelError(
            f"there is no checkpoint {path}; name a .safetensors file that training.pretrain or training.finetune put "
            "into its --out"
        )
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "mean": {}, "optimiser": {}}
    try:
        with safe_open(path, framework="pt") as file:
            plain: dict[str, Any] = json.loads(file.metadata()[_METADATA_KEY])
            for key in file.keys():  # noqa: SIM118  (not a dict)
                part, name = key.split("/", 1)
                parts[part][name] = file.get_tensor(key)
        plain["vit"] = VitConfig(**plain["vit"])
        plain["labels"] = tuple(plain["labels"])
        is_csi = "csi" in plain
        plain["spec"] = CSISpec(**plain.pop("csi")) if is_csi else SpectrogramSpec(**plain.pop("spectrogram"))
        return Checkpoint(weights=parts["weights"], mean=parts["mean"], optimiser=parts["optimiser"], **plain)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ModelError) as error:
        raise ModelError(f"{path} is not a checkpoint of this project ({error})") from error


def refuse_existing(folder: Path) -> None:
    """Make a run's folder; raise :class:`OutputError` where it already holds a run, or cannot be one."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a folder for --out")
    if (folder / LAST).exists():
        raise OutputError(f"{folder} already holds a run; go on with --resume, or choose another --out")
    if (folder / BEST).exists() and load(folder / BEST).kind == "activity":
        raise OutputError(f"{folder} already holds an activity model; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written to; choose another --out")


def check_recipe(checkpoint: Checkpoint, recipe: dict[str, Any], path: Path) -> None:
    """Raise :class:`ModelError` where a run would go on with another recipe; only its length and place may change."""
    before, now = _flat(checkpoint.recipe), _flat(recipe)
    changed = sorted(name for name in before | now if before.get(name) != now.get(name))
    changed = [name for name in changed if name not in ("optimisation.steps", "optimisation.max_minutes", *PLACE)]
    if changed:
        raise ModelError(
            f"{path} was made with another {', '.join(changed)}; resume with its recipe, or start a new --out"
        )


def check_windows(checkpoint: Checkpoint, counts: dict[str, int], labels: tuple[str, ...], path: Path) -> None:
    """Raise :class:`ModelError` where a run would go on with other data; `counts` are named as in its provenance."""
    if checkpoint.labels != labels:
        raise ModelError(
            f"{path} was trained for {', '.join(checkpoint.labels)}, the data has {', '.join(labels)}; resume with its "
            "data, or start a new --out"
        )
    for name, count in counts.items():
        before = checkpoint.provenance.get(name, count)
        if before != count:
            raise ModelError(
                f"{path} was trained with {before:,} {name.replace('_', ' ')}, now there are {count:,}; resume with "
                "its data, or start a new --out"
            )


def both(before: str, now: str) -> str:
    """What a run computed in, over all its parts: ``f32``, or ``f32, then bf16``."""
    return before if before.endswith(now) else ", then ".join(filter(None, (before, now)))


def optimiser_tensors(optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """State of optimisers as named tensors."""
    return {
        f"{which}.{index}.{name}": value
        for which, optimiser in enumerate(optimisers)
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimisers(optimisers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimiser_tensors` gave."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for key, value in tensors.items():
        which, index, name = key.split(".", 2)
        states[int(which)].setdefault(int(index), {})[name] = value
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
