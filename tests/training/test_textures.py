# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rfvit_rt.errors import RecordingError
from training.textures import COMPONENTS, Textures


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 64, 64, generator=torch.Generator().manual_seed(seed))


def complete(pictures: Tensor) -> Tensor:
    return torch.zeros_like(pictures, dtype=torch.bool)


@pytest.fixture
def textures() -> Textures:
    fitted = Textures(16)
    pictures = noise(40)
    fitted.fit(pictures, complete(pictures))
    return fitted


def test_components_have_mean_0_and_variance_1_on_what_they_were_fitted_to(textures: Textures) -> None:
    pictures = noise(40)
    found, whole = textures(pictures, complete(pictures))
    assert found.shape == (40, 16, COMPONENTS)
    assert whole.all()
    torch.testing.assert_close(found.mean(dim=(0, 1)), torch.zeros(COMPONENTS), atol=0.05, rtol=0)
    torch.testing.assert_close(found.flatten(0, 1).var(dim=0), torch.ones(COMPONENTS), atol=0.1, rtol=0)


def test_level_does_not_matter_and_contrast_does(textures: Textures) -> None:
    pictures = noise(2)
    found, _ = textures(pictures, complete(pictures))
    brighter, _ = textures(pictures + 3, complete(pictures))
    torch.testing.assert_close(brighter, found, atol=1e-3, rtol=0)
    louder, _ = textures(3 * pictures, complete(pictures))
    assert (louder - found).abs().mean() > 0.5


def test_when_bursts_begin_matters_less_than_how_often(textures: Textures) -> None:
    def bursts(period: int, start: int) -> Tensor:
        on = ((torch.arange(64) - start) % period < 3).float()
        return 3 * on[None, :, None] + 0.3 * noise(1)

    def apart(one: Tensor, other: Tensor) -> float:
        first, second = (textures(each, complete(each))[0][0, 4:12] for each in (one, other))  # not at the ends
        return float((first - second).square().mean())

    assert apart(bursts(8, 0), bursts(8, 3)) < 0.5 * apart(bursts(8, 0), bursts(13, 0))


def test_patches_that_look_at_missing_steps_are_not_whole_and_the_others_do_not_notice(textures: Textures) -> None:
    pictures = noise(1)
    missing = complete(pictures)
    missing[:, 48:] = True
    found, whole = textures(pictures, missing)
    assert whole.reshape(4, 4).all(dim=1).tolist() == [True, False, False, False]
    changed, _ = textures(torch.where(missing, 100.0, pictures), missing)
    torch.testing.assert_close(changed[:, :4], found[:, :4])


def test_the_same_in_bfloat16(textures: Textures) -> None:
    """Small components are scaled up; the rounding of bfloat16 would be, too."""
    pictures = noise(2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = textures(pictures, complete(pictures))
    assert torch.equal(rounded, textures(pictures, complete(pictures))[0])


def test_nothing_whole_to_fit_to_is_an_error() -> None:
    pictures = noise(2)
    with pytest.raises(RecordingError, match="textures"):
        Textures(16).fit(pictures, torch.ones_like(pictures, dtype=torch.bool))
