# SPDX-License-Identifier: Apache-2.0
"""The probes: they find what is there, and nothing where nothing is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from rfvit_rt.vit import Encoder, VitConfig
from training import checkpoint, curves
from training.config import Masking, RecipeError, Target
from training.config import Monitor as MonitorOptions
from training.datasets import IGNORED, open_windows
from training.monitors import draw_reconstructions, held_out_loss, nearest, patch_classes, probe, ridge
from training.msm import MaskedModel
from training.optimisation import Workers

CONFIG = VitConfig(64, 64, 3, width=24, depth=1, heads=3)
MASKING = Masking(decoder_width=24, decoder_depth=1)


def clusters(spread: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Features around three centres; the third class is rare."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(3, 600, p=[0.6, 0.35, 0.05])
    centres = np.eye(3, 8)
    return (centres[classes] + spread * rng.standard_normal((600, 8))).astype(np.float32), classes


def test_both_probes_tell_clusters_apart_and_fail_on_noise() -> None:
    features, classes = clusters(0.1)
    asked, expected = clusters(0.1, seed=2)
    assert np.mean(ridge(features, classes, asked, 3) == expected) > 0.99
    assert np.mean(nearest(features, classes, asked) == expected) > 0.99
    noise, _ = clusters(100.0, seed=3)
    rare = expected == 2
    assert np.mean(ridge(noise, classes, asked, 3)[rare] == 2) < 0.8
    assert np.mean(nearest(noise, classes, asked) == expected) < 0.8


def test_rare_classes_weigh_as_much_as_common_ones() -> None:
    features, classes = clusters(0.4)
    asked, expected = clusters(0.4, seed=2)
    assert np.mean(ridge(features, classes, asked, 3)[expected == 2] == 2) > 0.7


def test_a_class_that_was_never_seen_is_never_guessed() -> None:
    features, classes = clusters(0.1)
    asked, _ = clusters(0.1, seed=2)
    known = classes < 2
    assert set(ridge(features[known], classes[known], asked, 3).tolist()) == {0, 1}


def test_a_patch_has_its_commonest_signal_where_signals_fill_a_quarter_of_it() -> None:
    masks = torch.zeros(1, 32, 32, dtype=torch.int64)
    masks[0, :3, :16] = 1
    masks[0, 3:5, :16] = 2
    masks[0, :3, 16:] = 1
    masks[0, 16:, :16] = IGNORED
    masks[0, 16, 0] = 2
    masks[0, 16:, 16:] = IGNORED
    assert patch_classes(masks, 16, 3).tolist() == [[1, 0, 2, IGNORED]]


def test_a_probe_reads_classes_off_an_encoder_and_needs_labels(scenes: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CONFIG)
    windows = open_windows(scenes / "test")
    found = probe(encoder, windows, 24, Workers(2))
    assert found["linear_probe_accuracy"] > 0.5  # even chance weights tell a stripe that is on from one in bursts
    assert 0.5 < found["nearest_neighbour"] <= 1
    unknown = dataclasses.replace(windows, masks=np.full_like(windows.masks, IGNORED))
    assert set(probe(encoder, unknown, 24, Workers(2)).values()) == {None}


def test_an_encoder_that_sees_nothing_is_noticed(scenes: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CONFIG)
    for part in encoder.parameters():
        torch.nn.init.zeros_(part)
    found = probe(encoder, open_windows(scenes / "test"), 24, Workers(2))
    assert found["linear_probe_accuracy"] < 0.4  # a guess is a third
    assert found["nearest_neighbour"] < 0.4


def test_the_held_out_loss_is_the_same_at_every_look(scenes: Path) -> None:
    torch.manual_seed(0)
    model, windows = MaskedModel(CONFIG, MASKING), open_windows(scenes / "validation")
    first = held_out_loss(model, windows, MASKING, 8, Workers(1))
    assert held_out_loss(model, windows, MASKING, 8, Workers(3)) == pytest.approx(first, rel=1e-6)
    with torch.no_grad():
        model.rebuild.bias += 1
    assert held_out_loss(model, windows, MASKING, 8, Workers(1)) > first


@pytest.mark.parametrize("target", get_args(Target))
def test_reconstructions_show_what_was_seen_as_it_is(scenes: Path, tmp_path: Path, target: Target) -> None:
    torch.manual_seed(0)
    masking = Masking(decoder_width=24, decoder_depth=1, target=target)
    path = tmp_path / "deep" / "picture.png"
    model, windows = MaskedModel(CONFIG, masking), open_windows(scenes / "validation")
    draw_reconstructions(model, windows, masking, 2, torch.device("cpu"), path)
    with Image.open(path) as image:
        width, height = image.size
        assert width > height
        assert len(image.getcolors(2**24) or []) > 50
    before = path.read_bytes()
    with torch.no_grad():
        model.rebuild.bias += 5
    draw_reconstructions(model, windows, masking, 2, torch.device("cpu"), path)
    assert path.read_bytes() != before


def test_a_run_is_looked_at_before_it_begins_and_when_it_ends(pretrained: Path) -> None:
    looks = [entry for entry in curves.entries_of(pretrained) if "held_out" in entry]
    assert [entry["step"] for entry in looks] == [0, 10]
    assert all(entry.keys() >= {"linear_probe", "nearest_neighbour"} for entry in looks)
    assert looks[-1]["held_out"]["scenes"] < looks[0]["held_out"]["scenes"]
    pictures = sorted(path.name for path in (pretrained / "reconstructions").iterdir())
    assert pictures == ["step-000000.png", "step-000010.png"]
    assert checkpoint.load(pretrained / checkpoint.LAST).step == 10


def test_impossible_monitors_are_refused() -> None:
    with pytest.raises(RecipeError, match="every must be at least 1"):
        MonitorOptions(every=0)
