# SPDX-License-Identifier: Apache-2.0
"""Heads and the convolutional baseline: trained by the scripts that users have, and shipped or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import ModelError
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.vit import Segmenter, VitConfig
from training import checkpoint, evaluate, export, finetune, pretrain
from training.batches import Part, some_scenes, training_batches
from training.config import Augmentation, FinetuneRecipe, Masking, ModelSize, RecipeError, UNetSize, from_dict
from training.datasets import Windows, open_windows
from training.msm import MaskedModel
from training.networks import make_network
from training.unet import UNet

LABELS = ("background", "LTE", "NR")


def recipe_with(recipes: dict[str, Path], folder: Path, before: str = "", after: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(before + recipes["finetune"].read_text() + after)
    return path


# --- heads


@pytest.mark.parametrize("head", ["linear", "blocks", "pyramid"])
def test_every_head_goes_the_way_to_a_model_file(
    head: str, scenes: Path, recipes: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    init = pretrained / checkpoint.LAST  # whose own head, were there one, is another
    stem = 'heads = 3\nembedding = "convolutions"\nstem_features = 4' if head == "pyramid" else "heads = 3"
    if head == "pyramid":
        text = recipes["pretrain"].read_text().replace("heads = 3", stem)
        (tmp_path / "pretrain.toml").write_text(text + 'decoder = "pyramid"\n')
        pretrain.main(config=tmp_path / "pretrain.toml", data=scenes, out=tmp_path / "pretrained", steps=20)
        init = tmp_path / "pretrained" / checkpoint.LAST
    text = recipes["finetune"].read_text().replace("heads = 3", f'{stem}\nhead = "{head}"')
    (tmp_path / "recipe.toml").write_text(text)
    finetune.main(config=tmp_path / "recipe.toml", data=scenes, out=tmp_path / "run", init=init, steps=40)
    best = checkpoint.load(tmp_path / "run" / checkpoint.BEST)
    assert best.provenance["pretrained"]["kind"] == "pretrain"
    export.main(weights=tmp_path / "run" / checkpoint.BEST, data=scenes, out=tmp_path / "model.onnx")
    file = read_model(tmp_path / "model.onnx")
    assert file.contract.provenance["vit"]["head"] == head
    windows = open_windows(scenes / "test")
    inputs = windows.pictures[:4].astype(np.float32), np.array(windows.bin_widths[:4])
    expected = evaluate.shipped_infer(best)(*inputs)
    for engine in ("openvino", "pytorch"):
        with load_engine(file, engine, precision="f32") as loaded:
            np.testing.assert_allclose(loaded.infer(*inputs), expected, atol=1e-3)


def test_a_head_of_another_kind_is_left_out(finetuned: Path) -> None:
    best = checkpoint.load(finetuned / checkpoint.BEST)
    model = Segmenter(dataclasses.replace(best.vit, head="linear"))
    before = model.head.classify.weight.clone()
    finetune.start_from(model, finetuned / checkpoint.BEST, LABELS)
    assert torch.equal(model.head.classify.weight, before)
    assert torch.equal(model.encoder.embed.weight, best.mean["encoder.embed.weight"])


@pytest.mark.parametrize("head", ["pyramid", "linear"])
def test_a_head_that_was_pretrained_is_taken_over_but_for_its_last_layer(head: str, tmp_path: Path) -> None:
    vit = VitConfig(64, 64, 3, width=24, depth=1, heads=3, embedding="convolutions", stem_features=4)
    masked = MaskedModel(vit, Masking(decoder="pyramid", decoder_width=24))
    rest: dict[str, Any] = {"recipe": {}, "weights": {}, "optimiser": {}, "step": 1, "elapsed": 1.0, "best": 0.0}
    rest["labels"] = LABELS
    made = checkpoint.Checkpoint("pretrain", vit, SpectrogramSpec(), mean=masked.state_dict(), provenance={}, **rest)
    checkpoint.save(made, tmp_path / "a.safetensors")
    model = Segmenter(dataclasses.replace(vit, head=head))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finetune.start_from(model, tmp_path / "a.safetensors", LABELS)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("encoder.") for name in changed)
    heads = {name.split(".")[1] for name in changed if name.startswith("head.")}
    assert heads == ({"narrow", "join"} if head == "pyramid" else set())
    for name in changed:
        assert torch.equal(model.state_dict()[name], made.mean[name])


def test_a_network_four_times_as_large_has_four_times_the_weights() -> None:
    size = ModelSize(width=96, depth=3, heads=3)
    blocks = [
        sum(value.numel() for value in Segmenter(each.config(64, 64, 3)).encoder.blocks.parameters())
        for each in (size, size.scaled(4))
    ]
    assert blocks[1] / blocks[0] == pytest.approx(4, rel=0.01)
    assert size.scaled(4).heads == 6
    with pytest.raises(RecipeError, match="not 3 times"):
        size.scaled(3)


# --- the U-Net


@pytest.fixture(scope="module")
def unet_run(scenes: Path, recipes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unet")
    recipe = recipe_with(recipes, folder, after="[unet]\nwidth = 8\nlevels = 3\n")
    finetune.main(config=recipe, data=scenes, out=folder / "run")
    return folder / "run"


def test_the_unet_learns_and_is_measured_by_the_same_code(unet_run: Path, scenes: Path) -> None:
    best = checkpoint.load(unet_run / checkpoint.BEST)
    assert best.best > 0.6  # the scenes are easy: a stripe, and bursts of the same strength elsewhere
    windows = open_windows(scenes / "test")
    measured = evaluate.measure(windows, evaluate.predictor(evaluate.shipped_infer(best)), 8)
    assert measured["overall"]["miou"] > 0.6
    assert len(best.provenance["class_bias"]) == 3


def test_the_unet_does_not_ship_and_starts_from_nothing(
    unet_run: Path, pretrained: Path, scenes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="a baseline that does not ship"):
        export.main(weights=unet_run / checkpoint.BEST, data=scenes, out=tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(ModelError, match="starts from scratch"):
        finetune.start_from(make_network(VitConfig(64, 64, 3), UNetSize(8, 3)), pretrained / checkpoint.LAST, LABELS)
    best = checkpoint.load(unet_run / checkpoint.BEST)
    with pytest.raises(ModelError, match="can start none"):
        finetune.start_from(Segmenter(best.vit), unet_run / checkpoint.BEST, LABELS)


def test_the_unet_labels_pixels_where_they_are_and_sees_the_bin_width() -> None:
    torch.manual_seed(0)
    network = UNet(3, UNetSize(8, 3))
    pictures, bin_widths = torch.zeros(2, 64, 32), torch.tensor([0.0, 1.0])
    with torch.no_grad():
        logits = network(pictures, bin_widths)
        assert logits.shape == (2, 3, 64, 32)
        assert not torch.allclose(logits[0], logits[1])
        pictures[:, 40, 8] = 30.0
        moved = (network(pictures, bin_widths) - logits)[0].abs().sum(dim=0)
    row, column = divmod(int(moved.argmax()), 32)
    assert abs(row - 40) <= 3
    assert abs(column - 8) <= 3


def test_impossible_unets_are_refused() -> None:
    with pytest.raises(ModelError, match="do not halve 6 times"):
        make_network(VitConfig(48, 48, 3), UNetSize(8, 6))
    with pytest.raises(RecipeError, match="multiple of 4"):
        from_dict({"unet": {"width": 6}}, FinetuneRecipe)
    with pytest.raises(RecipeError, match=r"unknown depth in \[unet\]; known are width, levels"):
        from_dict({"unet": {"depth": 6}}, FinetuneRecipe)
    with pytest.raises(RecipeError, match="a U-Net learns in full"):
        from_dict({"unet": {}, "adapt": {"mode": "frozen"}}, FinetuneRecipe)


# --- few labels


def labelled(count: int) -> Windows:
    """Two windows a scene, whose pictures hold the scene's number."""
    scenes = np.repeat(np.arange(count // 2), 2)
    pictures = np.broadcast_to(scenes[:, None, None] / 20, (count, 64, 64)).astype(np.float16)
    nothing = np.zeros(count, np.float32)
    return Windows(pictures, np.zeros((count, 64, 64), np.uint8), nothing, nothing, scenes, LABELS)


def test_a_share_of_the_labels_is_whole_scenes_and_holds_every_smaller_share() -> None:
    windows = labelled(40)
    shares = {share: some_scenes(windows, share, seed=3) for share in (0.01, 0.25, 0.5, 1.0)}
    assert [len(places) for places in shares.values()] == [2, 10, 20, 40]
    for places in shares.values():
        assert (windows.scenes[places[::2]] == windows.scenes[places[1::2]]).all()
    assert set(shares[0.01]) < set(shares[0.25]) < set(shares[0.5])
    assert set(some_scenes(windows, 0.5, seed=4)) != set(shares[0.5])


def test_batches_hold_only_the_windows_in_use() -> None:
    windows = labelled(40)
    spec = evaluate.SpectrogramSpec(n_steps=64, n_bins=64, tile_overlap=16)
    places = some_scenes(windows, 0.25, seed=3)
    unchanged = Augmentation(mirror=False, level_db=0, noise_db=0, truncate=0)
    batches = training_batches([Part(windows, places=places)], spec, unchanged, 4, 1)
    seen = {round(float(value) * 20) for _ in range(5) for value in next(batches).pictures[:, 0, 0]}
    assert seen == set(windows.scenes[places].tolist())


def test_few_labels_are_noted_with_the_model(scenes: Path, recipes: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipe_with(recipes, tmp_path, before="label_share = 0.25\n")
    finetune.main(config=recipe, data=scenes, out=tmp_path / "run", steps=2)
    assert checkpoint.load(tmp_path / "run" / checkpoint.LAST).provenance["train_windows"] == 12
    with pytest.raises(RecipeError, match="label_share"):
        from_dict({"label_share": 0.0}, FinetuneRecipe)
