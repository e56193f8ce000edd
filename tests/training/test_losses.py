# SPDX-License-Identifier: Apache-2.0
"""The losses against their formulas, and their edges: nothing known, nothing to learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.config import Loss, RecipeError
from training.datasets import IGNORED, UNNAMED
from training.losses import SegmentationLoss
from training.optimisation import Workers

WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


def segmentation_loss(
    logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor, options: Loss, other: int | None = None
) -> torch.Tensor:
    loss = SegmentationLoss(weights, options, other)
    return loss.of(loss.sums(logits, masks))


def focal_loss(
    logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor, gamma: float, other: int | None = None
) -> torch.Tensor:
    return segmentation_loss(logits, masks, weights, Loss(dice=0.0, focal=gamma), other)


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


def test_dice_is_zero_when_right_and_near_one_when_wrong() -> None:
    def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> float:
        both, focal = (segmentation_loss(logits, masks, WEIGHTS, Loss(dice=dice)) for dice in (0.5, 0.0))
        return float((both - focal) / 0.5)

    masks = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    right = 50.0 * F.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert dice_loss(right, masks) == pytest.approx(0, abs=1e-5)
    assert dice_loss(right.roll(1, dims=1), masks) > 0.98
    ignored = torch.full_like(masks, IGNORED)
    ignored[:, :4] = masks[:, :4]
    wrong_elsewhere = torch.where((ignored == IGNORED)[:, None], right.roll(1, dims=1), right)
    assert dice_loss(wrong_elsewhere, ignored) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_loss_is_that_of_the_whole_batch_whatever_it_is_cut_into(threads: int) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs, masks = torch.randn(4, 8, 8, generator=generator), torch.randint(0, 3, (4, 8, 8), generator=generator)
    masks[0, :6], masks[1] = IGNORED, 1  # parts of their own have other classes, and other numbers of known pixels
    model = torch.nn.Conv2d(1, 3, 3, padding=1)
    loss = SegmentationLoss(WEIGHTS, Loss(dice=0.5))

    def sums(inputs: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return loss.sums(model(inputs[:, None]), masks)

    expected = loss.of(sums(inputs, masks))
    expected.backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    value = Workers(threads).gradients(model, sums, loss.of, inputs, masks)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be negative"):
        Loss(focal=-1.0)
