# SPDX-License-Identifier: Apache-2.0
"""The losses against their formulas, and their edges: nothing known, nothing to learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.config import Loss, RecipeError
from training.datasets import IGNORED, UNNAMED
from training.losses import dice_loss, focal_loss, segmentation_loss

WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    masks = torch.randint(0, 3, (2, 8, 8), generator=generator)
    masks[0, :3] = IGNORED
    return logits, masks


def test_without_gamma_the_focal_loss_of_a_window_is_torchs_weighted_cross_entropy() -> None:
    logits, masks = (drawn_tensor[:1] for drawn_tensor in drawn())
    expected = F.cross_entropy(logits, masks, WEIGHTS, ignore_index=IGNORED)
    torch.testing.assert_close(focal_loss(logits, masks, WEIGHTS, 0.0), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_is_its_formula(gamma: float) -> None:
    logits, masks = drawn()
    known = masks != IGNORED
    p = logits.softmax(dim=1).permute(0, 2, 3, 1)[known].gather(1, masks[known][:, None])[:, 0]
    root_of_share = torch.tensor([8 / 5, 1.0]).sqrt()[:, None, None].expand(masks.shape)[known]  # 5 rows of 8 known
    weight = WEIGHTS[masks[known]] * root_of_share
    expected = (weight * -((1 - p) ** gamma) * p.log()).sum() / weight.sum()
    torch.testing.assert_close(focal_loss(logits, masks, WEIGHTS, gamma), expected)


def test_a_window_counts_by_the_root_of_its_share_of_known_pixels() -> None:
    logits, masks = drawn()
    masks[0, 2:] = IGNORED
    masks[0, :2] = 1
    short, whole = (focal_loss(logits[n : n + 1], masks[n : n + 1], torch.ones(3), 0.0) for n in (0, 1))
    both = focal_loss(logits, masks, torch.ones(3), 0.0)
    torch.testing.assert_close(both, (0.5 * short + whole) / 1.5)  # a quarter of the first is known


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_pixel_that_is_noise_or_has_no_name_teaches_that_no_class_has_it(gamma: float) -> None:
    logits, masks = drawn()
    masks[:] = UNNAMED
    p = logits.softmax(dim=1)
    either = p[:, 0] + p[:, 2]
    expected = -((1 - either) ** gamma) * either.log()
    torch.testing.assert_close(focal_loss(logits, masks, WEIGHTS, gamma, other=2), expected.mean())
    assert focal_loss(logits, masks, WEIGHTS, gamma) == 0  # there is no such class
    leaf = logits.clone().requires_grad_()
    segmentation_loss(leaf, masks, WEIGHTS, Loss(focal=gamma), other=2).backward()
    assert leaf.grad is not None
    assert (leaf.grad[:, 1] > 0).all()
    assert (leaf.grad[:, [0, 2]] < 0).all()


def test_focal_leaves_easy_pixels_alone() -> None:
    masks = torch.zeros(1, 1, 2, dtype=torch.int64)
    logits = torch.tensor([[[[4.0, -1.0]], [[0.0, 0.0]], [[0.0, 0.0]]]])  # the first is right already

    def share_of_hard(gamma: float) -> float:
        leaf = logits.clone().requires_grad_()
        focal_loss(leaf, masks, torch.ones(3), gamma).backward()
        assert leaf.grad is not None
        slopes = leaf.grad.abs().sum(dim=1)[0, 0]
        return float(slopes[1] / slopes.sum())

    assert 0.9 < share_of_hard(0.0) < share_of_hard(2.0)
    assert share_of_hard(2.0) > 0.999


def test_pixels_that_nobody_knows_give_no_gradient_and_no_nan() -> None:
    logits, masks = drawn()
    for options in (Loss(), Loss(focal=0.5), Loss(dice=0.0)):
        leaf = logits.clone().requires_grad_()
        segmentation_loss(leaf, torch.full_like(masks, IGNORED), WEIGHTS, options).backward()
        assert leaf.grad is not None
        assert not leaf.grad.any()
    leaf = logits.clone().requires_grad_()
    segmentation_loss(leaf, masks, WEIGHTS, Loss(focal=2.0)).backward()
    assert leaf.grad is not None
    assert not leaf.grad[0, :, :3].any()
    assert leaf.grad[0, :, 3:].any()


def test_the_parts_add_up() -> None:
    logits, masks = drawn()
    both = segmentation_loss(logits, masks, WEIGHTS, Loss(dice=0.3, focal=2.0))
    torch.testing.assert_close(both, focal_loss(logits, masks, WEIGHTS, 2.0) + 0.3 * dice_loss(logits, masks))


def test_negative_weights_are_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be negative"):
        Loss(focal=-1.0)
