# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfvit_rt.errors import ModelError

torch = pytest.importorskip("torch", reason="the network needs torch; pip install -e '.[train]'")

from rfvit_rt.vit import (  # noqa: E402
    HEADS,
    ConvolutionalEmbedding,
    Encoder,
    LinearHead,
    Probabilities,
    Segmenter,
    VitConfig,
    make_head,
    patches,
    sincos_positions,
)
from training.config import FinetuneRecipe, read_recipe  # noqa: E402

RECIPE = Path(__file__).parents[1] / "training" / "configs" / "finetune_small.toml"

SMALL = VitConfig(n_steps=64, n_bins=32, n_classes=3, width=24, depth=2, heads=3)
CONVOLUTIONS = dataclasses.replace(SMALL, embedding="convolutions", head="pyramid", stem_features=4)
CONFIGS = pytest.mark.parametrize("config", [SMALL, CONVOLUTIONS], ids=["linear", "convolutions"])


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 64, 32, generator=generator), torch.tensor([-1.0, 0.0, 2.0])


@pytest.fixture(params=[SMALL, CONVOLUTIONS], ids=["linear", "convolutions"])
def network(request: pytest.FixtureRequest) -> Segmenter:
    torch.manual_seed(11)
    return Segmenter(request.param).eval()


def test_patches_are_cut_row_by_row() -> None:
    pictures = torch.arange(2 * 64 * 32, dtype=torch.float32).reshape(2, 64, 32)
    cut = patches(pictures, 16).numpy()
    for row in range(4):
        for column in range(2):
            expected = pictures[:, row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16].reshape(2, -1)
            np.testing.assert_array_equal(cut[:, row * 2 + column], expected)


def test_positions_follow_their_formula_and_tell_all_places_apart() -> None:
    positions = sincos_positions((16, 16), 192, 10_000).numpy().astype(np.float64)
    scales = 10_000.0 ** -(np.arange(48) / 48)
    row, column = 5, 11
    expected = np.concatenate([f(place * scales) for place in (row, column) for f in (np.sin, np.cos)])
    np.testing.assert_allclose(positions[row * 16 + column], expected, atol=1e-5)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2) + np.eye(256)
    assert distances.min() > 0.5


def test_the_embedding_of_convolutions_halves_to_patches_and_keeps_what_it_saw() -> None:
    torch.manual_seed(3)
    embedding = ConvolutionalEmbedding(patch=16, width=24, features=4)
    pictures = torch.randn(2, 64, 32)
    with torch.no_grad():
        tokens, maps = embedding(pictures)
        pictures[0, 40, 20] += 3.0
        moved = [(a != b).any(dim=1) for a, b in zip(maps, embedding(pictures)[1], strict=True)]
    assert tokens.shape == (2, 8, 24)
    assert [tuple(level.shape) for level in maps] == [(2, 4, 32, 16), (2, 8, 16, 8), (2, 16, 8, 4)]
    for level, changed in enumerate(moved, 1):
        assert changed[0, 40 >> level, 20 >> level]
        assert not changed[1].any()
    assert moved[0].sum() == 9  # one place, seen by a convolution of 3 x 3


@CONFIGS
def test_visible_tokens_do_not_see_hidden_patches(config: VitConfig, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    pictures, bin_widths = inputs
    encoder = Encoder(config).eval()
    visible = torch.tensor([[0, 3, 5]] * 3)
    with torch.no_grad():
        before = encoder(pictures, bin_widths, visible)
        changed = pictures.clone()
        changed[:, 0:16, 16:32] += 5.0  # patch 1, hidden
        assert torch.equal(encoder(changed, bin_widths, visible), before)
        changed[:, 16:32, 16:32] += 5.0  # patch 3, visible
        assert not torch.allclose(encoder(changed, bin_widths, visible), before)


@CONFIGS
def test_all_patches_visible_is_the_whole_picture(config: VitConfig, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    encoder = Encoder(config).eval()
    order = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    with torch.no_grad():
        whole = encoder(*inputs)
        shuffled = encoder(*inputs, order)
    expected = whole.gather(1, order[:, :, None].expand(-1, -1, 24))
    torch.testing.assert_close(shuffled, expected, atol=1e-5, rtol=1e-5)


def test_logits_have_the_shape_of_the_picture_and_depend_on_the_bin_width(
    network: Segmenter, inputs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pictures, bin_widths = inputs
    with torch.no_grad():
        logits = network(pictures, bin_widths)
        wider = network(pictures, bin_widths + 1)
    assert logits.shape == (3, 3, 64, 32)
    assert (logits - wider).abs().max() > 1e-4


def test_time_and_frequency_are_not_exchanged(network: Segmenter, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    """One bright pixel moves the logits most in its own patch."""
    dark = inputs[0][:1]
    bright = dark.clone()
    bright[0, 52, 3] += 5.0  # patch row 3, column 0
    with torch.no_grad():
        change = (network(bright, torch.zeros(1)) - network(dark, torch.zeros(1))).abs().sum(dim=1)[0]
    place = divmod(int(change.argmax()), 32)
    assert abs(place[0] - 52) <= 4
    assert abs(place[1] - 3) <= 4


def test_a_picture_does_not_depend_on_its_batch(network: Segmenter, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    pictures, bin_widths = inputs
    with torch.no_grad():
        together = network(pictures, bin_widths)
        alone = network(pictures[1:2], bin_widths[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_probabilities_are_the_softmax_with_the_class_last(
    network: Segmenter, inputs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with torch.no_grad():
        probabilities = Probabilities(network)(*inputs).numpy()
        logits = network(*inputs).numpy().astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, np.moveaxis(expected, 1, 3), atol=1e-6)


def test_the_size_that_ships_fits_in_12_mb_as_float16() -> None:
    recipe = read_recipe(RECIPE, FinetuneRecipe)
    network = Segmenter(recipe.model.config(256, 256, n_classes=6))
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 11.5e6


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns(head: str, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(11)
    network = Segmenter(dataclasses.replace(CONVOLUTIONS if head == "pyramid" else SMALL, head=head))
    network(*inputs).square().mean().backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_the_linear_head_labels_each_patch_from_its_own_token() -> None:
    """Row by row, each class in a block of its own: written out in loops."""
    torch.manual_seed(3)
    head = LinearHead(SMALL)
    tokens = torch.randn(2, 8, 24)  # 4 x 2 patches
    with torch.no_grad():
        logits = head(tokens, torch.empty(0)).numpy()
        weight, bias = head.classify.weight.numpy(), head.classify.bias.numpy()
    for token in range(8):
        row, column = divmod(token, 2)
        expected = (tokens[:, token].numpy() @ weight.T + bias).reshape(2, 3, 16, 16)
        found = logits[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blocks_in_front_of_the_projection_let_patches_look_at_each_other() -> None:
    torch.manual_seed(3)
    tokens, pictures = torch.randn(1, 8, 24), torch.randn(1, 64, 32)
    changed = tokens.clone()
    changed[:, 7] += 1
    with torch.no_grad():
        for name, reaches in (("linear", False), ("blocks", True)):
            head = make_head(dataclasses.replace(SMALL, head=name))
            moved = (head(tokens, pictures) != head(changed, pictures))[0].any(dim=0)
            assert moved[48:, 16:].any()
            assert bool(moved[:48].any()) is reaches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "none"}, "there is no head 'none'; choose of decoder, pyramid, linear, blocks"),
        ({"embedding": "none"}, "there is no embedding 'none'; choose of linear, convolutions"),
        ({"embedding": "convolutions", "patch": 2}, "patches of 4, 8, 16, … pixels, not of 2"),
        ({"head": "pyramid"}, "takes the maps of the embedding 'convolutions'"),
        ({"head": "blocks", "heads": 8}, "half of the width 24"),
        ({"n_steps": 60}, "do not tile"),
        ({"patch": 1}, "even patch"),
        ({"width": 26, "heads": 2}, "multiple of 4"),
        ({"heads": 5}, "multiple of 4"),
        ({"depth": 0}, "positive"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    sizes: dict[str, Any] = {"n_steps": 64, "n_bins": 32, "n_classes": 3, "width": 24, "depth": 2, "heads": 3}
    with pytest.raises(ModelError, match=message):
        VitConfig(**(sizes | changes))
