# SPDX-License-Identifier: Apache-2.0
"""Recipes of activity models: one TOML file becomes one frozen dataclass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from rfvit_rt.csi import CSISpec
from training.config import ModelSize, Optimisation, RecipeError


@dataclass(frozen=True)
class Variation:
    """Changes of a window that keep its activity true, as another room, body or receiver would make them.

    Attributes
    ----------
    variants : int
        Varied pictures kept for every window.
    share : float
        Share of training pictures that are varied ones.
    speed : float
        Largest change of speed, as a natural logarithm, either way; Doppler frequencies follow.
    shift : float
        Largest shift in time, as a share of the window, either way.
    antenna_gain : float
        Standard deviation of an antenna's gain, as a natural logarithm; antennas also change places.
    subcarriers_kept : float
        Smallest share of the band that stays.
    gain_noise : float
        Standard deviation of a gain that is drawn anew for every step, relative.
    time_mask, bin_mask : float
        Longest stretch of steps and of bins that is blotted out, as a share of the picture.
    level : float
        Standard deviation of an offset on all values of a picture.
    """

    variants: int = 6
    share: float = 0.4
    speed: float = 0.2
    shift: float = 0.05
    antenna_gain: float = 0.15
    subcarriers_kept: float = 0.5
    gain_noise: float = 0.01
    time_mask: float = 0.08
    bin_mask: float = 0.08
    level: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.share, self.shift, self.subcarriers_kept, self.time_mask, self.bin_mask)
        scales = (self.speed, self.antenna_gain, self.gain_noise, self.level)
        if self.variants < 1 or not all(0 <= share <= 1 for share in shares) or min(scales) < 0:
            raise RecipeError("[variation] has 1 variant or more, shares from 0 to 1, and no negative number")


@dataclass(frozen=True)
class Smoothing:
    """What keeps a small training set from being learnt by heart.

    Attributes
    ----------
    mixup : float
        Parameter of the Beta distribution that pairs of pictures are mixed by (Zhang et al. 2018); 0 for none.
    labels : float
        Share of the target that goes to all labels alike (Szegedy et al. 2016, section 7).
    """

    mixup: float = 0.4
    labels: float = 0.1


@dataclass(frozen=True)
class ActivityRecipe:
    """Everything that decides a training run but the data and the initial weights.

    Attributes
    ----------
    hop : float
        Seconds between windows of training recordings that are longer than one.
    freeze_encoder : bool
        Train the last layer alone.
    validations : int
        How often the model is validated, at even distances; the best weights are kept.
    labels : dict of str to str
        New names of labels of the data; those that get one name become one.
    """

    seed: int = 1
    hop: float = 1.0
    freeze_encoder: bool = False
    validations: int = 10
    labels: dict[str, str] = field(default_factory=dict)
    spec: CSISpec = field(default_factory=CSISpec)
    model: ModelSize = field(default_factory=ModelSize)
    optimisation: Optimisation = field(default_factory=Optimisation)
    variation: Variation = field(default_factory=Variation)
    smoothing: Smoothing = field(default_factory=Smoothing)

    def __post_init__(self) -> None:
        if self.optimisation.device == "cuda" or self.optimisation.precision == "bf16":
            raise RecipeError(
                "models of activities are small, and learn on a processor in float32; leave [optimisation] device and "
                "precision out"
            )

    def with_optimisation(self, **changes: object) -> ActivityRecipe:
        """With other numbers in ``[optimisation]``."""
        return dataclasses.replace(self, optimisation=dataclasses.replace(self.optimisation, **changes))  # type: ignore[arg-type]
