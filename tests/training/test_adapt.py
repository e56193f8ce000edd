# SPDX-License-Identifier: Apache-2.0
"""What finetuning changes and what it leaves: LoRA, frozen encoders, and what is shipped of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rfvit_rt.vit import Segmenter, VitConfig
from training import checkpoint, export, finetune
from training.adapt import LoRALinear, adapt, effective_weights
from training.config import Adapt, RecipeError
from training.optimisation import WeightMean

LABELS = ("background", "LTE", "NR")
CONFIG = VitConfig(64, 64, 3, width=24, depth=2, heads=3)


def adapted(mode: str = "lora", seed: int = 0) -> tuple[Segmenter, Segmenter]:
    """A plain model, and the same with adapters that have learnt something."""
    torch.manual_seed(seed)
    plain, model = Segmenter(CONFIG), Segmenter(CONFIG)
    model.load_state_dict(plain.state_dict())
    adapt(model.encoder, Adapt(mode=mode, rank=2, alpha=6.0))  # type: ignore[arg-type]
    return plain, model


def test_an_adapted_layer_begins_as_it_was_and_then_adds_alpha_over_rank_times_up_down() -> None:
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, 7)
    lora = LoRALinear(layer, rank=2, alpha=6.0)
    inputs = torch.randn(3, 5)
    assert torch.equal(lora(inputs), layer(inputs))
    with torch.no_grad():
        lora.up.normal_()
    expected = layer(inputs) + 3.0 * inputs @ lora.down.T @ lora.up.T
    torch.testing.assert_close(lora(inputs), expected)
    torch.testing.assert_close(lora.merged(), layer.weight + 3.0 * lora.up @ lora.down)


def test_adapters_sit_on_the_attention_and_nothing_else_of_the_encoder_learns() -> None:
    plain, model = adapted()
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    adapters = {
        f"encoder.blocks.{k}.{layer}.{part}"
        for k in range(2)
        for layer in ("qkv", "project")
        for part in ("up", "down")
    }
    assert learning == adapters | {name for name, _ in plain.named_parameters() if name.startswith("head.")}
    _, frozen = adapted("frozen")
    assert {name.split(".")[0] for name, value in frozen.named_parameters() if value.requires_grad} == {"head"}


def test_merged_weights_make_a_plain_model_that_computes_the_same() -> None:
    plain, model = adapted()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, LoRALinear):
                part.up.normal_(std=0.1)
    pictures, bin_widths = torch.randn(2, 64, 64), torch.zeros(2)
    with torch.no_grad():
        before, expected = plain(pictures, bin_widths), model(pictures, bin_widths)
        plain.load_state_dict(effective_weights(model))
        torch.testing.assert_close(plain(pictures, bin_widths), expected, rtol=1e-4, atol=1e-5)
    assert (before - expected).abs().max() > 0.01


def test_the_mean_of_the_weights_has_the_adapters_in_it() -> None:
    plain, model = adapted()
    mean = WeightMean(plain, decay=0.5)
    expected = plain.encoder.blocks[1].qkv.weight.detach().clone()
    for step in (1, 2, 3):
        with torch.no_grad():
            model.encoder.blocks[1].qkv.up += 1
        mean.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * effective_weights(model)["encoder.blocks.1.qkv.weight"]
    torch.testing.assert_close(mean.model.encoder.blocks[1].qkv.weight, expected)


def test_impossible_ranks_are_refused() -> None:
    with pytest.raises(RecipeError, match="rank and alpha"):
        Adapt(rank=0)


def test_a_lora_run_ships_a_plain_model_and_goes_on_after_a_stop(
    scenes: Path, pretrained: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "lora.toml"
    recipe.write_text(recipes["finetune"].read_text() + '[adapt]\nmode = "lora"\nrank = 4\n')
    init = pretrained / checkpoint.LAST
    finetune.main(config=recipe, data=scenes, out=tmp_path / "whole", init=init, steps=6)
    finetune.main(config=recipe, data=scenes, out=tmp_path / "parts", init=init, steps=3)
    finetune.main(config=recipe, data=scenes, out=tmp_path / "parts", steps=6, resume=True)

    whole, parts = (checkpoint.load(tmp_path / name / checkpoint.LAST) for name in ("whole", "parts"))
    assert parts.weights.keys() == whole.weights.keys()
    assert "encoder.blocks.0.qkv.down" in whole.weights
    before = checkpoint.load(init).mean
    assert torch.equal(whole.weights["encoder.blocks.0.qkv.weight"], before["encoder.blocks.0.qkv.weight"])
    assert whole.weights["encoder.blocks.0.qkv.up"].any()
    for each in (whole, checkpoint.load(tmp_path / "whole" / checkpoint.BEST)):
        assert each.mean.keys() == Segmenter(each.vit).state_dict().keys()
        assert not torch.equal(each.mean["encoder.blocks.0.qkv.weight"], before["encoder.blocks.0.qkv.weight"])
        assert torch.equal(each.mean["encoder.blocks.0.expand.weight"], before["encoder.blocks.0.expand.weight"])
    out = tmp_path / "lora.onnx"
    export.main(weights=tmp_path / "whole" / checkpoint.BEST, data=scenes, out=out)
    assert out.is_file()


@pytest.mark.parametrize("change", [{"n_classes": 4}, {"head_hidden": 24}, {"head": "linear"}])
def test_a_head_of_another_kind_is_left_behind(
    finetuned: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    best = checkpoint.load(finetuned / checkpoint.BEST)
    model = Segmenter(dataclasses.replace(VitConfig(64, 64, 3, width=48, depth=2, heads=3), **change))
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    finetune.start_from(model, finetuned / checkpoint.BEST, (*LABELS, "WLAN")[: model.config.n_classes])
    assert all(torch.equal(value, best.mean[f"encoder.{name}"]) for name, value in model.encoder.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    assert "its encoder is used, its head is not" in capsys.readouterr().out
