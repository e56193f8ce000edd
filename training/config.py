# SPDX-License-Identifier: Apache-2.0
"""Recipes: one TOML file becomes one frozen dataclass; keys that nobody knows are errors."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import dacite

from rfvit_rt.errors import RfvitError
from rfvit_rt.vit import VitConfig

Recipe = TypeVar("Recipe")
Geometry = Literal["random", "time", "frequency", "region"]
Decoder = Literal["patches", "pyramid"]
Target = Literal["pixels", "normalised", "textures"]

# Where training runs does not change what it computes (but for rounding, be it coarse), so a run may go on elsewhere.
PLACE = ("optimisation.device", "optimisation.precision", "optimisation.threads")


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
    head: Literal["decoder", "pyramid", "linear", "blocks"] = "decoder"  # of segmentation
    embedding: Literal["linear", "convolutions"] = "linear"
    longest_wavelength: int = 10_000  # of the positions
    head_features: int = 12  # of the decoder
    head_hidden: int = 16
    stem_features: int = 24  # of the embedding "convolutions", at half resolution

    def scaled(self, times: int) -> ModelSize:
        """A network with so many times the weights in its blocks: wider, with as many features a head, as deep.

        Raises
        ------
        RecipeError
            If `times` is not a square: the weights of a block grow with the square of its width.
        """
        side = math.isqrt(max(0, times))
        if side < 1 or side**2 != times:
            raise RecipeError(f"a network can be 1, 4, 9, … times as large, not {times} times")
        return dataclasses.replace(self, width=self.width * side, heads=self.heads * side)

    def config(self, n_steps: int, n_bins: int, n_classes: int) -> VitConfig:
        """Complete the geometry."""
        return VitConfig(n_steps, n_bins, n_classes, **dataclasses.asdict(self))


@dataclass(frozen=True)
class UNetSize:
    """Size of :class:`training.unet.UNet`, a convolutional baseline.

    Attributes
    ----------
    width : int
        Features at half resolution; each level below has twice as many.
    levels : int
        Resolutions, each half of the one above.
    """

    width: int = 16
    levels: int = 5

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4 or not 1 <= self.levels <= 7:
            raise RecipeError(f"[unet] width is a multiple of 4, levels are 1 to 7; got {self.width} and {self.levels}")


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
        Windows an update, over all processes together: a recipe gives the same curve on one GPU or on eight.
    optimiser : {"adamw", "muon"}
        Muon steps the matrices of transformer blocks and the kernels of convolutions, AdamW the rest.
    learning_rate : float
        Peak of the cosine schedule.
    muon_factor : float
        Factor on the learning rate for what Muon steps.
    warm_up : float
        Share of the run over which the learning rate rises.
    weight_decay : float
        Of both optimisers; biases and norms are exempt.
    beta2 : float
        Of AdamW.
    clip : float
        Largest norm of a gradient.
    layer_decay : float
        Factor on the learning rate from a block to the one before it.
    ema_decay : float
        Of the running mean of the weights that is evaluated and shipped; 0 turns it off.
    device : str
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one. Under torchrun every process takes a GPU of its own.
    precision : {"auto", "f32", "bf16"}
        Of the network's matrix products; weights are float32 in any case. ``auto`` is bf16
        on GPUs and processors that have instructions for it, else f32.
    threads : int
        On a CPU: threads that share a batch, each on one core; 0 for all cores, shared by the processes.
    checkpoint_every : int
        Updates between checkpoints.
    log_every : int
        Updates between lines of the log.
    """

    steps: int = 2000
    max_minutes: float | None = None
    batch_size: int = 16
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    muon_factor: float = 3.0
    warm_up: float = 0.05
    weight_decay: float = 0.05
    beta2: float = 0.95
    clip: float = 1.0
    layer_decay: float = 1.0
    ema_decay: float = 0.998
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    threads: int = 0
    checkpoint_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise RecipeError(f"[optimisation] threads is a number of cores, or 0 for all; got {self.threads}")
        positive = (self.steps, self.batch_size, self.clip, self.checkpoint_every, self.log_every)
        if min(*positive, self.learning_rate, self.muon_factor) <= 0 or (
            self.max_minutes is not None and self.max_minutes <= 0
        ):
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
    target : {"pixels", "normalised", "textures"}
        What is rebuilt: picture values; patches scaled to zero mean and unit variance; or picture values, and beside
        them what :class:`training.textures.Textures` says about every patch, hidden or visible.
    decoder : {"patches", "pyramid"}
        What rebuilds: the decoder's tokens, a patch each, or a :class:`rfvit_rt.vit.PyramidHead` behind them, which a
        segmenter with that head then starts from.
    decoder_width, decoder_depth, decoder_heads : int
        Size of the decoder's transformer, which is thrown away.
    """

    geometry: Geometry = "region"
    ratio: float = 0.75
    region: int = 4
    target: Target = "pixels"
    decoder: Decoder = "patches"
    decoder_width: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or self.region < 1:
            raise RecipeError(
                f"[masking] ratio lies between 0 and 1 and region is at least 1, got {self.ratio}, {self.region}"
            )
        if min(self.decoder_width, self.decoder_depth, self.decoder_heads) < 1:
            raise RecipeError("[masking] decoder_width, decoder_depth and decoder_heads must be at least 1")
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
    focal : float
        Exponent γ of the focal loss (Lin et al. 2017, eq. 5), which gives pixels that are right already less to say;
        0 is the plain cross-entropy. It makes a model less sure of itself than it should be.
    """

    class_weights: list[float] | None = None
    dice: float = 0.5
    focal: float = 0.0

    def __post_init__(self) -> None:
        if self.dice < 0 or self.focal < 0 or (self.class_weights and min(self.class_weights) < 0):
            raise RecipeError("[loss] class_weights, dice and focal cannot be negative")


@dataclass(frozen=True)
class Adapt:
    """Which weights of the encoder finetuning changes; the head always learns.

    Attributes
    ----------
    mode : {"full", "frozen", "lora"}
        All of them, none (as the paper does), or low-rank additions to the attention's ``qkv`` and ``project`` (Hu et
        al. 2021), which are part of the weights again in what is evaluated and shipped.
    rank : int
        Rank of an addition.
    alpha : float
        An addition is scaled by ``alpha / rank``.
    """

    mode: Literal["full", "frozen", "lora"] = "full"
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise RecipeError(f"[adapt] rank and alpha must be positive, got {self.rank} and {self.alpha}")


@dataclass(frozen=True)
class Monitor:
    """What pretraining looks at, beside its loss, so that a bad run is seen early.

    Attributes
    ----------
    every : int
        Updates from one look to the next; the first is before any update.
    windows : int
        Labelled windows that the probes are fitted and measured on, half each; and windows for the held-out loss.
    pictures : int
        Windows in a picture of reconstructions; 0 for no pictures.
    """

    every: int = 500
    windows: int = 96
    pictures: int = 4

    def __post_init__(self) -> None:
        if self.every < 1 or self.windows < 2 or self.pictures < 0:
            raise RecipeError("[monitor] every must be at least 1, windows at least 2, pictures not negative")


@dataclass(frozen=True)
class Split:
    """How recordings, or pairs of images, are divided where their folder does not: whole ones only, drawn by seed.

    Attributes
    ----------
    validation, test : float
        Share of the recordings.
    """

    validation: float = 0.15
    test: float = 0.0

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise RecipeError("[split] validation and test are shares that leave something to train on")


@dataclass(frozen=True)
class Annotations:
    """What SigMF annotations mean as labels.

    Attributes
    ----------
    classes : dict of str to list of str
        Class to the ``core:label`` values that mean it: exact, or as a regular expression for the whole value. The
        model's labels are background and these, in this order.
    unmapped : {"ignore", "background"}
        What lies under annotations of other labels: pixels that teach nothing, or background.
    unannotated : {"leave out", "background"}
        What recordings without any annotation are: unlabelled, or known to hold nothing.
    """

    classes: dict[str, list[str]] = field(default_factory=dict)
    unmapped: Literal["ignore", "background"] = "ignore"
    unannotated: Literal["leave out", "background"] = "leave out"

    def __post_init__(self) -> None:
        for name, patterns in self.classes.items():
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise RecipeError(
                        f"[annotations.classes] {name}: {pattern!r} is no regular expression: {error}"
                    ) from error


@dataclass(frozen=True)
class Images:
    """How a folder of spectrogram and label images is read; the defaults are those of the MathWorks LTE/NR example.

    Attributes
    ----------
    classes : dict of str to int
        Label to its pixel value in the label images; the first is the background. Other values are ignored pixels.
    colours : str
        What a colour stands for: ``luminance``, the name of a matplotlib colour map, or a CSV file with a row of red,
        green and blue, 0 to 1, for every level from the lowest (MATLAB: ``writematrix(parula(256), "parula.csv")``).
    span_db : float
        Decibels from the lowest level to the highest; such images do not say it.
    spectra : float
        Independent spectra averaged in a pixel: 1 where pixels were picked, not averaged.
    sample_rate : float
        Of the band that an image shows, in Hz.
    time_upwards : bool
        Whether the first row is the latest.
    """

    classes: dict[str, int] = field(default_factory=lambda: {"background": 0, "NR": 127, "LTE": 255})
    colours: str = "luminance"
    span_db: float = 100.0
    spectra: float = 1.0
    sample_rate: float = 61.44e6
    time_upwards: bool = True

    def __post_init__(self) -> None:
        values = list(self.classes.values())
        if len(values) < 2 or len(set(values)) < len(values):
            raise RecipeError("[images.classes] needs two or more labels with different pixel values")
        if min(self.span_db, self.spectra, self.sample_rate) <= 0:
            raise RecipeError("[images] span_db, spectra and sample_rate must be positive")


@dataclass(frozen=True)
class PretrainRecipe:
    """Everything that decides a pretraining run but the data.

    Attributes
    ----------
    recordings_share : float
        Share of the windows of an update that come from own recordings, where there are generated scenes too.
    """

    seed: int = 1
    recordings_share: float = 0.5
    model: ModelSize = field(default_factory=ModelSize)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    masking: Masking = field(default_factory=Masking)
    monitor: Monitor = field(default_factory=Monitor)
    split: Split = field(default_factory=Split)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(f"seed must not be negative, got {self.seed}")
        if not 0 < self.recordings_share < 1:
            raise RecipeError(f"recordings_share lies between 0 and 1, got {self.recordings_share}")
        if self.masking.decoder == "pyramid" and self.model.embedding != "convolutions":
            raise RecipeError(
                f"[masking] decoder 'pyramid' takes what convolutions saw; [model] embedding is "
                f"'{self.model.embedding}': "
                "make it 'convolutions', or the decoder 'patches'"
            )

    def for_run(self, steps: int | None, max_minutes: float | None) -> PretrainRecipe:
        """With limits from the command line in place of its own, where they are given."""
        return dataclasses.replace(self, optimisation=_limited(self.optimisation, steps, max_minutes))


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that decides a finetuning run but the data and the initial weights.

    Attributes
    ----------
    label_share : float
        Share of the training scenes that are used, drawn by seed; a larger share holds a smaller one. For experiments
        with few labels.
    validate_every : int
        Updates between validations.
    validation_windows : int
        Windows to validate on; all where the split has fewer.
    class_bias : bool
        Whether calibration fits a bias for every class beside the temperature. Where the loss weighs rare classes, it
        takes their overconfidence back: fewer false alarms and honest confidences for a little less mIoU.
    unet : UNetSize, optional
        Where given, a U-Net of this size is trained in place of the transformer: a baseline, which does not ship.
    """

    seed: int = 1
    label_share: float = 1.0
    validate_every: int = 200
    validation_windows: int = 256
    class_bias: bool = True
    unet: UNetSize | None = None
    model: ModelSize = field(default_factory=ModelSize)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    adapt: Adapt = field(default_factory=Adapt)
    loss: Loss = field(default_factory=Loss)
    split: Split = field(default_factory=Split)
    annotations: Annotations = field(default_factory=Annotations)
    images: Images = field(default_factory=Images)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(f"seed must not be negative, got {self.seed}")
        if not 0 < self.label_share <= 1:
            raise RecipeError(f"label_share lies in (0, 1], got {self.label_share}")
        if min(self.validate_every, self.validation_windows) < 1:
            raise RecipeError("validate_every and validation_windows are at least 1")
        if self.unet and self.adapt.mode != "full":
            raise RecipeError(f"[adapt] mode '{self.adapt.mode}' is of the transformer; a U-Net learns in full")

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
    except dacite.WrongTypeError as error:
        choices = get_args(error.field_type) if get_origin(error.field_type) is Literal else ()
        hint = f"; choose one of {', '.join(map(str, choices))}" if choices else ""
        raise RecipeError(f"{error}{hint}") from error
    except dacite.DaciteError as error:
        raise RecipeError(str(error)) from error


def _refuse_unknown(data: dict[str, Any], kind: Any, where: str) -> None:
    known = get_type_hints(kind)
    unknown = sorted(set(data) - set(known))
    if unknown:
        section = f" in [{where}]" if where else ""
        raise RecipeError(f"unknown {', '.join(unknown)}{section}; known are {', '.join(known)}")
    for name, hint in known.items():
        for section_kind in (hint, *get_args(hint)):  # a section that may be left out is a union with None
            if dataclasses.is_dataclass(section_kind) and isinstance(data.get(name), dict):
                _refuse_unknown(data[name], section_kind, name)


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
