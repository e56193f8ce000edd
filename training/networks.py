# SPDX-License-Identifier: Apache-2.0
"""Networks that label every pixel: the transformer, which ships, and a convolutional baseline, which does not."""

from __future__ import annotations

from rfvit_rt.errors import ModelError
from rfvit_rt.vit import Segmenter, VitConfig
from training.checkpoint import Checkpoint
from training.config import UNetSize
from training.unet import UNet


def make_network(vit: VitConfig, unet: UNetSize | None) -> Segmenter | UNet:
    """Untrained network of a recipe.

    Raises
    ------
    ModelError
        If the pictures cannot be halved as often as a U-Net has levels.
    """
    if unet is None:
        return Segmenter(vit)
    side = 2**unet.levels
    if vit.n_steps % side or vit.n_bins % side:
        raise ModelError(
            f"pictures of {vit.n_steps} x {vit.n_bins} do not halve {unet.levels} times; give [unet] fewer levels"
        )
    return UNet(vit.n_classes, unet)


def network_of(source: Checkpoint) -> Segmenter | UNet:
    """Network of a finetuned checkpoint with its best weights.

    Raises
    ------
    ModelError
        If the checkpoint holds no network that labels pixels.
    """
    if source.kind != "finetune":
        raise ModelError(
            f"a checkpoint of kind '{source.kind}' labels nothing; finetune it first with 'python -m training.finetune'"
        )
    unet = source.recipe.get("unet")
    network = make_network(source.vit, UNetSize(**unet) if unet else None)
    network.load_state_dict(source.mean)
    return network
