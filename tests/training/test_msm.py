# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch

from rfvit_rt.vit import VitConfig, patches, pick
from training.config import Geometry, Masking, PretrainRecipe, RecipeError
from training.msm import TEXTURE_WEIGHT, MaskedModel, shuffle_patches

GRID = (16, 16)
GEOMETRIES: list[Geometry] = ["random", "time", "frequency", "region"]


def hidden_map(masking: Masking, count: int = 20) -> torch.Tensor:
    """(picture, row, column) bool."""
    _, hidden = shuffle_patches(count, GRID, masking, torch.Generator().manual_seed(2))
    return torch.zeros(count, 256).scatter(1, hidden, 1.0).reshape(count, *GRID).bool()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.8])
def test_every_token_is_visible_or_hidden_and_the_ratio_holds(geometry: Geometry, ratio: float) -> None:
    visible, hidden = shuffle_patches(9, GRID, Masking(geometry, ratio), torch.Generator().manual_seed(1))
    assert visible.shape == (9, round(256 * (1 - ratio)))
    together = torch.cat([visible, hidden], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(256).expand(9, -1))
    assert len({tuple(row.tolist()) for row in hidden}) == 9  # every picture has its own


def test_time_hides_whole_rows_and_frequency_whole_columns() -> None:
    rows = hidden_map(Masking("time", 0.75))
    assert (rows.all(dim=2) == rows.any(dim=2)).all()
    assert (rows.all(dim=2).sum(dim=1) == 12).all()
    columns = hidden_map(Masking("frequency", 0.75))
    assert (columns.all(dim=1) == columns.any(dim=1)).all()
    assert (columns.all(dim=1).sum(dim=1) == 12).all()


def test_regions_hang_together_and_start_anywhere() -> None:
    def alike(hidden: torch.Tensor) -> float:
        return float((hidden[:, :, 1:] == hidden[:, :, :-1]).float().mean())

    regions = hidden_map(Masking("region", 0.75, region=4), count=200)
    assert alike(hidden_map(Masking("random", 0.75), count=200)) == pytest.approx(0.625, abs=0.02)
    assert alike(regions) > 0.85
    edges = (regions[:, :, 1:] != regions[:, :, :-1]).float().mean(dim=(0, 1))
    assert edges.max() < 1.6 * edges.min()


def test_extreme_ratios_leave_something_to_see_and_something_to_rebuild() -> None:
    for ratio in (0.001, 0.999):
        visible, hidden = shuffle_patches(2, (2, 2), Masking("region", ratio, region=4))
        assert visible.shape[1] >= 1
        assert hidden.shape[1] >= 1


def test_impossible_masking_is_refused() -> None:
    with pytest.raises(RecipeError, match="ratio"):
        Masking(ratio=1.0)
    with pytest.raises(RecipeError, match="decoder_width"):
        Masking(decoder_width=50)
    with pytest.raises(RecipeError, match="at least 1"):
        Masking(decoder_heads=0)
    with pytest.raises(RecipeError, match=r"\[masking\] decoder 'pyramid' .* embedding is 'linear'"):
        PretrainRecipe(masking=Masking(decoder="pyramid"))


@pytest.fixture(params=["patches", "pyramid"])
def model(request: pytest.FixtureRequest) -> MaskedModel:
    torch.manual_seed(4)
    masking = Masking(decoder=request.param, decoder_width=24, decoder_depth=1)
    stem: dict[str, Any] = {"embedding": "convolutions", "stem_features": 4} if request.param == "pyramid" else {}
    return MaskedModel(VitConfig(64, 64, 3, width=24, depth=1, heads=3, **stem), masking)


def test_what_is_hidden_cannot_be_seen(model: MaskedModel) -> None:
    pictures, bin_widths = torch.randn(2, 64, 64), torch.zeros(2)
    visible, hidden = shuffle_patches(2, (4, 4), Masking("random"), torch.Generator().manual_seed(1))
    cut = patches(pictures, 16)
    noise = torch.randn(2, hidden.shape[1], 256)
    changed = cut.scatter(1, hidden[:, :, None].expand_as(noise), noise)
    there = changed.reshape(2, 4, 4, 16, 16).transpose(2, 3).reshape(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(pictures, bin_widths, visible, hidden), model(there, bin_widths, visible, hidden))
        assert not torch.equal(
            model(pictures, bin_widths, visible, hidden), model(pictures + 1, bin_widths, visible, hidden)
        )


def test_the_pyramid_gets_every_token_at_its_own_place() -> None:
    torch.manual_seed(4)
    config = VitConfig(64, 64, 3, width=24, depth=1, heads=3, embedding="convolutions", stem_features=4)
    model = MaskedModel(config, Masking(decoder="pyramid", decoder_width=24))
    assert model.head is not None
    given: list[torch.Tensor] = []
    drawn: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    model.head.register_forward_hook(lambda _, arguments, output: drawn.append(output[:, 0]))
    pictures, bin_widths = torch.randn(2, 64, 64), torch.zeros(2)
    visible, hidden = shuffle_patches(2, (4, 4), Masking("random"), torch.Generator().manual_seed(1))
    with torch.no_grad():
        rebuilt = model(pictures, bin_widths, visible, hidden)
        seen = model.encoder(pictures, bin_widths, visible)
    torch.testing.assert_close(pick(given[0], visible), seen)
    for place, token in enumerate(hidden[1].tolist()):
        row, column = divmod(token, 4)
        patch = drawn[0][1, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        assert torch.equal(rebuilt[1, place].reshape(16, 16), patch)


def test_the_loss_is_the_mean_square_over_hidden_pixels(model: MaskedModel) -> None:
    pictures, bin_widths = torch.randn(2, 64, 64), torch.zeros(2)
    visible, hidden = shuffle_patches(2, (4, 4), Masking("random"), torch.Generator().manual_seed(1))
    nothing = torch.zeros(2, 64, 64, dtype=torch.bool)
    with torch.no_grad():
        loss = model.loss(model.sums(pictures, bin_widths, nothing, visible, hidden))
        rebuilt = model(pictures, bin_widths, visible, hidden)
    squares = []
    for picture, tokens, guesses in zip(pictures, hidden.tolist(), rebuilt, strict=True):
        for token, guess in zip(tokens, guesses, strict=True):
            row, column = divmod(token, 4)
            patch = picture[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            squares.append((guess.reshape(16, 16) - patch) ** 2)
    torch.testing.assert_close(loss, torch.stack(squares).mean())


def test_missing_steps_do_not_count(model: MaskedModel) -> None:
    pictures = torch.randn(2, 64, 64)
    missing = torch.zeros(2, 64, 64, dtype=torch.bool)
    missing[:, 32:] = True
    visible = torch.arange(8).expand(2, -1)[:, :4]
    hidden = torch.arange(4, 16).expand(2, -1)
    changed = torch.where(missing, pictures + 100, pictures)
    with torch.no_grad():
        losses = [
            model.loss(model.sums(each, torch.zeros(2), missing, visible, hidden)) for each in (pictures, changed)
        ]
        everything = model.loss(model.sums(pictures, torch.zeros(2), torch.ones_like(missing), visible, hidden))
    assert losses[0] == losses[1] > 0
    assert everything == 0


def test_normalised_targets_do_not_depend_on_level_and_contrast() -> None:
    torch.manual_seed(4)
    config = VitConfig(64, 64, 3, width=24, depth=1, heads=3)
    model = MaskedModel(config, Masking(decoder_width=24, target="normalised"))
    pictures = torch.randn(2, 64, 64)
    visible, hidden = torch.tensor([[0], [0]]), torch.arange(1, 16).expand(2, -1)
    louder = pictures * 3 + 7
    louder[:, :16, :16] = pictures[:, :16, :16]  # what is seen stays
    nothing = torch.zeros(2, 64, 64, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            model.loss(model.sums(louder, torch.zeros(2), nothing, visible, hidden)),
            model.loss(model.sums(pictures, torch.zeros(2), nothing, visible, hidden)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_it_learns_to_continue_a_stripe(model: MaskedModel) -> None:
    """Carriers are continuous in time: what is hidden follows from what is seen."""
    generator = torch.Generator().manual_seed(3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    nothing = torch.zeros(16, 64, 64, dtype=torch.bool)
    losses = []
    for _ in range(120):
        on = (torch.rand(16, 1, 4, generator=generator) < 0.5).float().repeat_interleave(16, dim=2)
        pictures = on.expand(-1, 64, -1).contiguous()
        visible, hidden = shuffle_patches(16, (4, 4), Masking("time"), generator)
        loss = model.loss(model.sums(pictures, torch.zeros(16), nothing, visible, hidden))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.05 < 0.25 < losses[0]  # 0.25: knowing only that half of all are on


def test_textures_are_asked_of_every_patch_beside_the_hidden_pixels() -> None:
    torch.manual_seed(4)
    config = VitConfig(64, 64, 3, width=24, depth=1, heads=3)
    plain = MaskedModel(config, Masking(decoder_width=24))
    model = MaskedModel(config, Masking(decoder_width=24, target="textures"))
    model.load_state_dict(plain.state_dict(), strict=False)
    assert model.textures is not None
    assert model.describe is not None
    pictures, bin_widths = torch.randn(2, 64, 64), torch.zeros(2)
    missing = torch.zeros(2, 64, 64, dtype=torch.bool)
    missing[1, 60:] = True  # so the last two rows of patches of the second picture do not look at whole windows
    model.textures.fit(torch.randn(40, 64, 64), torch.zeros(40, 64, 64, dtype=torch.bool))
    visible, hidden = shuffle_patches(2, (4, 4), Masking("random"), torch.Generator().manual_seed(1))
    said: list[torch.Tensor] = []
    model.describe.register_forward_hook(lambda _, __, output: said.append(output))
    with torch.no_grad():
        more = model.loss(model.sums(pictures, bin_widths, missing, visible, hidden))
        less = plain.loss(plain.sums(pictures, bin_widths, missing, visible, hidden))
        textures, whole = model.textures(pictures, missing)
    errors = [
        (said[0][picture, place] - textures[picture, token]).square().mean()
        for picture in range(2)
        for place, token in enumerate([*visible[picture].tolist(), *hidden[picture].tolist()])
        if whole[picture, token]
    ]
    assert len(errors) == 16 + 8
    torch.testing.assert_close(more - less, TEXTURE_WEIGHT * torch.stack(errors).mean())
