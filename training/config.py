# SPDX-License-Identifier: Apache-2.0
"""Recipes: one TOML file becomes one frozen dataclass; keys that nobody knows are errors."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import dacite

from rfvit_rt.errors import RfvitError
from rfvit_rt.vit import VitConfig

Recipe = TypeVar("Recipe")
Geometry = Literal["random", "time", "frequency", "region"]


class RecipeError(RfvitError):
    """A recipe file is missing, malformed, or says something that cannot be."""


@dataclass(frozen=True)
class ModelSize:
    """Size of the network; its other dimensions follow from the data. See :class:`rfvit_rt.vit.VitConfig`."""

    patch: int = 16
    width: int = 192
    depth: int = 8
    heads: int = 3
    mlp_ratio: int = 4

    def config(self, n_steps: int, n_bins: int, n_classes: int) -> VitConfig:
        """Complete the geometry."""
        return VitConfig(n_steps, n_bins, n_classes, **dataclasses.asdict(self))


@dataclass(frozen=True)
class Optimisation:
    """How weights are updated.

    Attributes
    ----------
    steps : int
        Updates in all, unless the time is up sooner.
    max_minutes : float, optional
        Wall time over all resumed runs; the learning rate falls to zero at whichever limit comes first.
    batch_size : int
        Windows an update.
    learning_rate : float
        Peak of the cosine schedule.
    warm_up : float
        Share of the run over which the learning rate rises.
    weight_decay : float
        Of AdamW; biases and norms are exempt.
    beta2 : float
        Of AdamW.
    clip : float
        Largest norm of a gradient.
    layer_decay : float
        Factor on the learning rate from a block to the one before it.
    ema_decay : float
        Of the running mean of the weights that is evaluated and shipped; 0 turns it off.
    threads : int
        Threads that share a batch, each on one core; 0 for one a core.
    checkpoint_every : int
        Updates between checkpoints.
    log_every : int
        Updates between lines of the log.
    """

    steps: int = 2000
    max_minutes: float | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3
    warm_up: float = 0.05
    weight_decay: float = 0.05
    beta2: float = 0.95
    clip: float = 1.0
    layer_decay: float = 1.0
    ema_decay: float = 0.998
    threads: int = 0
    checkpoint_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        positive = (self.steps, self.batch_size, self.learning_rate, self.clip, self.checkpoint_every, self.log_every)
        if min(positive) <= 0 or (self.max_minutes is not None and self.max_minutes <= 0):
            raise RecipeError(
                "[optimisation] steps, max_minutes, batch_size, rates, clip and intervals must be positive"
            )
        if not (
            0 <= self.warm_up < 1 and 0 <= self.ema_decay < 1 and 0 < self.layer_decay <= 1 and 0 <= self.beta2 < 1
        ):
            raise RecipeError("[optimisation] warm_up, ema_decay and beta2 lie in [0, 1), layer_decay in (0, 1]")


@dataclass(frozen=True)
class Augmentation:
    """Changes of a picture that keep its labels true.

    Attributes
    ----------
    mirror : bool
        Mirror every second picture in frequency.
    level_db : float
        Largest offset of the noise floor, either way: the error of its estimate.
    noise_db : float
        Standard deviation of noise added to every pixel.
    truncate : float
        Share of pictures cut short, as windows before a gap are.
    """

    mirror: bool = True
    level_db: float = 1.5
    noise_db: float = 0.3
    truncate: float = 0.1


@dataclass(frozen=True)
class Masking:
    """What Masked Spectrogram Modeling hides, and how it rebuilds it.

    Attributes
    ----------
    geometry : {"random", "time", "frequency", "region"}
        Single patches, stripes of time, stripes of frequency, or squares.
    ratio : float
        Share of patches hidden.
    region : int
        Side of a square in patches; width of a stripe is always one patch.
    normalise_targets : bool
        Rebuild patches scaled to zero mean and unit variance, rather than picture values.
    decoder_width, decoder_depth, decoder_heads : int
        Size of the decoder, which is thrown away.
    """

    geometry: Geometry = "region"
    ratio: float = 0.75
    region: int = 4
    normalise_targets: bool = False
    decoder_width: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or self.region < 1:
            raise RecipeError(
                f"[masking] ratio lies between 0 and 1 and region is at least 1, got {self.ratio}, {self.region}"
            )
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            raise RecipeError("[masking] decoder_width must be a multiple of 4 and of decoder_heads")


@dataclass(frozen=True)
class Loss:
    """What finetuning minimises.

    Attributes
    ----------
    class_weights : list of float, optional
        Weight of each label in the cross-entropy; where not given, one over the square root of its share of the pixels.
    dice : float
        Weight of the soft Dice loss beside the cross-entropy.
    """

    class_weights: list[float] | None = None
    dice: float = 0.5


@dataclass(frozen=True)
class PretrainRecipe:
    """Everything that decides a pretraining run but the data."""

    seed: int = 1
    model: ModelSize = field(default_factory=ModelSize)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    masking: Masking = field(default_factory=Masking)

    def for_run(self, steps: int | None, max_minutes: float | None) -> PretrainRecipe:
        """With limits from the command line in place of its own, where they are given."""
        return dataclasses.replace(self, optimisation=_limited(self.optimisation, steps, max_minutes))


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that decides a finetuning run but the data and the initial weights.

    Attributes
    ----------
    freeze_encoder : bool
        Train the head alone, as the paper does.
    validate_every : int
        Updates between validations.
    validation_windows : int
        Windows to validate on; all where the split has fewer.
    """

    seed: int = 1
    freeze_encoder: bool = False
    validate_every: int = 200
    validation_windows: int = 256
    model: ModelSize = field(default_factory=ModelSize)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)

    def for_run(self, steps: int | None, max_minutes: float | None) -> FinetuneRecipe:
        """With limits from the command line in place of its own, where they are given."""
        return dataclasses.replace(self, optimisation=_limited(self.optimisation, steps, max_minutes))


def _limited(options: Optimisation, steps: int | None, max_minutes: float | None) -> Optimisation:
    """Limits given on the command line replace the recipe's."""
    if steps is not None:
        options = dataclasses.replace(options, steps=steps)
    return options if max_minutes is None else dataclasses.replace(options, max_minutes=max_minutes)


def read_recipe(path: Path, kind: type[Recipe]) -> Recipe:
    """Read a TOML file into a recipe.

    Raises
    ------
    RecipeError
        If the file is missing or not TOML, has a key that is not known, or a value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}; see training/configs") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    try:
        return from_dict(data, kind)
    except RfvitError as error:
        raise RecipeError(f"{path}: {error}") from error


def from_dict(data: dict[str, Any], kind: type[Recipe]) -> Recipe:
    """Make a recipe of nested dictionaries, as TOML and checkpoints hold them.

    Raises
    ------
    RecipeError
        If a key is not known or a value has the wrong type.
    """
    _refuse_unknown(data, kind, "")
    try:
        # Integers are fine where floats are asked for: TOML tells 1 from 1.0, people do not.
        return dacite.from_dict(kind, data, dacite.Config(strict=True, type_hooks={float: _to_float}))
    except dacite.DaciteError as error:
        raise RecipeError(str(error)) from error


def _refuse_unknown(data: dict[str, Any], kind: Any, where: str) -> None:
    known = {entry.name: entry.default_factory for entry in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        section = f" in [{where}]" if where else ""
        raise RecipeError(f"unknown {', '.join(unknown)}{section}; known are {', '.join(known)}")
    for name, section_kind in known.items():
        if dataclasses.is_dataclass(section_kind) and isinstance(data.get(name), dict):
            _refuse_unknown(data[name], section_kind, name)


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
