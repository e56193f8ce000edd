# SPDX-License-Identifier: Apache-2.0
"""What is asked: every table is a list of trials, each one way to come by a model, with one seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from training.config import Geometry

Method = Literal["vit", "unet", "energy", "file"]
SHARES = (0.01, 0.05, 0.2, 1.0)
FEW = 0.05  # the share of labels that few labels are, where one is enough
RATIOS = (0.3, 0.5, 0.75)
CHOICES = ("target", "decoder", "unlabelled", "embedding", "head", "optimiser")  # where a trial has its own
LOSSES = ("weighted, Dice", "weighted", "plain", "plain, Dice", "focal")


@dataclass(frozen=True)
class Trial:
    """One way to come by a model.

    Attributes
    ----------
    method : {"vit", "unet", "energy", "file"}
        The transformer, the convolutional baseline, the energy detector, or a model file that is there already.
    start : str
        ``scratch`` or ``msm``; or the name or path of the model file.
    weights : str
        The first digits of the model file's SHA-256: figures of other weights of that name are not its own.
    geometry : str
        What Masked Spectrogram Modeling hid; the recipe's choice where empty.
    ratio : float
        Share of patches that it hid; the recipe's choice where 0.
    target, decoder : str
        What was rebuilt in Masked Spectrogram Modeling, and what rebuilt it, as :class:`training.config.Masking` has
        them; the recipe's choice where empty.
    unlabelled : str
        What Masked Spectrogram Modeling saw beside scenes: ``recordings``, or nothing.
    scale : int
        Size of the transformer's blocks, relative to the recipe's.
    embedding, head, optimiser : str
        As :class:`training.config.ModelSize` and :class:`training.config.Optimisation` have them; the recipe's choice
        where empty.
    adapt : str
        As :class:`training.config.Adapt` has it.
    loss : str
        One of `LOSSES`.
    labels : float
        Share of the labelled scenes that are trained on.
    budget : float
        Updates of finetuning, relative to the experiment's.
    seed : int
    """

    method: Method
    start: str = "scratch"
    weights: str = ""
    geometry: str = ""
    ratio: float = 0.0
    target: str = ""
    decoder: str = ""
    unlabelled: str = ""
    scale: int = 1
    embedding: str = ""
    head: str = ""
    optimiser: str = ""
    adapt: str = "full"
    loss: str = LOSSES[0]
    labels: float = 1.0
    budget: float = 1.0
    seed: int = 1

    @property
    def name(self) -> str:
        """Name of its file."""
        parts = [
            f"{name}-{value}" if name in CHOICES else str(value)
            for name, value in dataclasses.asdict(self).items()
            if value != ""
        ]
        return "_".join(map(_plain, parts))

    @property
    def cost(self) -> float:
        """How long it takes, roughly and relatively: long ones are begun first."""
        return self.budget * (2.6 if self.scale > 1 else 1.0) * (0 if self.method in ("energy", "file") else 1)

    @property
    def text(self) -> str:
        """What it is, in a line."""
        if self.method == "energy":
            return "energy detector"
        if self.method == "file":
            return self.start.rpartition("/")[2]
        words = [{"vit": "ViT", "unet": "U-Net"}[self.method]]
        if self.scale > 1:
            words[0] += f", {self.scale} times as large"
        if self.start == "msm":
            hidden = f" ({self.geometry}, {self.ratio:.0%} hidden)" if self.geometry else ""
            words.append(f"after MSM{hidden}")
        elif self.method == "vit":
            words.append("from scratch")
        for name in CHOICES:
            words += [f"{name}: {value}"] if (value := getattr(self, name)) else []
        words += [] if self.adapt == "full" else [self.adapt]
        words += [] if self.loss == LOSSES[0] else [f"loss: {self.loss}"]
        words += [] if self.budget == 1 else [f"{self.budget:g} times the updates"]
        words += [] if self.labels == 1 else [f"{self.labels:.0%} of the labels"]
        return ", ".join(words)


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in text).strip("-")


MSM = Trial("vit", "msm")
SCRATCH = Trial("vit")
LARGER = Trial("vit", scale=4)
UNET = Trial("unet")
ENERGY = Trial("energy")
MAIN = (MSM, SCRATCH, LARGER, UNET)


def _with_shares(trials: Sequence[Trial], shares: Sequence[float]) -> Iterator[Trial]:
    for share in shares:
        for trial in trials:
            yield dataclasses.replace(trial, labels=share)


def _labels() -> Iterator[Trial]:
    """A: few labels; with two of the shares also twice the updates."""
    longer = [dataclasses.replace(trial, budget=2.0) for trial in (MSM, SCRATCH)]
    yield from _with_shares((MSM, SCRATCH), SHARES)
    yield from _with_shares((*longer, UNET), (FEW, 1.0))
    yield ENERGY


def _larger() -> Iterator[Trial]:
    """B: the pretrained transformer against one four times as large from scratch."""
    yield from _with_shares(MAIN, (FEW, 1.0))
    yield ENERGY


def _masking() -> Iterator[Trial]:
    """C: what is hidden, and how much of it; few labels and half of the updates, where it shows most."""
    for geometry in get_args(Geometry):
        for ratio in RATIOS:
            yield dataclasses.replace(MSM, geometry=geometry, ratio=ratio, labels=FEW, budget=0.5)
    for trial in (SCRATCH, UNET):
        yield dataclasses.replace(trial, labels=FEW, budget=0.5)
    yield ENERGY


def _targets() -> Iterator[Trial]:
    """What is rebuilt in pretraining: textures, as the recipe says, or less."""
    less = [dataclasses.replace(MSM, target=target) for target in ("normalised", "pixels")]
    yield from _with_shares((MSM, *less, SCRATCH), (FEW, 1.0))
    yield from (UNET, ENERGY)


def _recordings() -> Iterator[Trial]:
    """What recordings without labels add to pretraining."""
    yield from (MSM, dataclasses.replace(MSM, unlabelled="recordings"), SCRATCH, UNET, ENERGY)


def _decoders() -> Iterator[Trial]:
    """What rebuilds in pretraining: as the recipe says, and with the head that is then taken over."""
    yield from _with_shares((MSM, dataclasses.replace(MSM, decoder="pyramid"), SCRATCH), (0.01, FEW, 1.0))
    yield from (UNET, ENERGY)


def _heads() -> Iterator[Trial]:
    """Heads on a frozen encoder and on one that learns, all after pretraining; two of them also with more updates."""
    for adapt in ("frozen", "full"):
        for head in ("", "decoder", "linear", "blocks"):
            yield dataclasses.replace(MSM, head=head, adapt=adapt)
    for head in ("", "linear"):
        yield dataclasses.replace(MSM, head=head, budget=4.0)
    yield from (UNET, ENERGY)


def _networks() -> Iterator[Trial]:
    """The stem of convolutions and its head against a plain transformer; the optimiser of each."""
    for embedding, head in (("", ""), ("linear", "decoder")):
        for optimiser in ("", "adamw"):
            yield dataclasses.replace(SCRATCH, embedding=embedding, head=head, optimiser=optimiser)
    yield from (UNET, ENERGY)


def _adapt() -> Iterator[Trial]:
    """What of the encoder learns, with few labels and with all."""
    for adapt in ("frozen", "lora", "full"):
        yield from _with_shares((dataclasses.replace(MSM, adapt=adapt),), (FEW, 1.0))
    yield from (UNET, ENERGY)


def _losses() -> Iterator[Trial]:
    """What finetuning minimises."""
    for loss in LOSSES:
        yield dataclasses.replace(MSM, loss=loss)
    yield from (UNET, ENERGY)


def _paper() -> Iterator[Trial]:
    """The paper's setting, on data of its kind: a frozen encoder with its head, and all that learns more.

    Beside its pixels, textures.
    """
    for head in ("blocks", "linear"):
        yield dataclasses.replace(MSM, head=head, adapt="frozen")
    textures = dataclasses.replace(MSM, target="textures")
    yield dataclasses.replace(textures, head="blocks", adapt="frozen")
    yield from (textures, *MAIN, ENERGY)


def _main() -> Iterator[Trial]:
    """E to H: the same models, on other windows."""
    yield from MAIN
    yield ENERGY


TABLES: dict[str, Callable[[], Iterator[Trial]]] = {
    "labels": _labels,
    "larger": _larger,
    "snr": _main,
    "alarms": _main,
    "rates": _main,
    "captures": _main,
    "masking": _masking,
    "targets": _targets,
    "recordings": _recordings,
    "decoders": _decoders,
    "networks": _networks,
    "heads": _heads,
    "adapt": _adapt,
    "losses": _losses,
    "paper": _paper,
}


def trials(table: str, seeds: int, files: Sequence[Trial] = ()) -> list[Trial]:
    """All trials of a table, in its order.

    Parameters
    ----------
    table : str
        One of `TABLES`.
    seeds : int
        Seeds 1 to this of all that has any; the energy detector and model files have none.
    files : sequence of Trial
        Model files to measure beside them, where the table takes other models.
    """
    asked = list(TABLES[table]())
    if TABLES[table] is _main:
        asked += files
    return [
        dataclasses.replace(trial, seed=seed)
        for trial in asked
        for seed in (range(1, seeds + 1) if trial.method in ("vit", "unet") else (1,))
    ]
