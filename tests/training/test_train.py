# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer

from rfvit_rt.errors import ModelError, OutputError, RecordingError
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.vit import Segmenter, VitConfig
from training import checkpoint, curves, finetune, optimisation, pretrain
from training.accelerator import choose_workers
from training.batches import (
    Batch,
    Part,
    augment,
    drawn,
    evaluation_batches,
    evaluation_indices,
    indices,
    read,
    read_spec,
    training_batches,
)
from training.command import interrupts_wait
from training.config import (
    Augmentation,
    FinetuneRecipe,
    Optimisation,
    PretrainRecipe,
    RecipeError,
    UNetSize,
    read_recipe,
)
from training.datasets import IGNORED, open_windows
from training.evaluate import Predicted, energy_detector, measure
from training.losses import class_weights
from training.metrics import confusion, figures
from training.networks import make_network
from training.optimisation import (
    Budget,
    WeightMean,
    Workers,
    make_optimisers,
    orthogonalised,
    rate_factor,
    update,
)
from training.processes import Processes

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "training" / "configs"
LABELS = ("background", "LTE", "NR")
SPEC = SpectrogramSpec(n_steps=64, n_bins=64, tile_overlap=16)
UNCHANGED = Augmentation(mirror=False, level_db=0, noise_db=0, truncate=0)


# --- recipes


@pytest.mark.parametrize(
    "path",
    [path for kind in ("pretrain", "finetune") for path in sorted(CONFIGS.glob(f"{kind}_*.toml"))],
    ids=lambda path: path.stem,
)
def test_shipped_recipes_are_valid(path: Path) -> None:
    kind: type[Any] = PretrainRecipe if path.stem.startswith("pretrain") else FinetuneRecipe
    recipe = read_recipe(path, kind)
    assert recipe.optimisation.steps > 0
    recipe.model.config(256, 256, 6)  # raises where the sizes do not go together


def test_finetuning_recipes_take_the_encoders_of_their_pretraining() -> None:
    names = ["small", "smoke", "recordings", "gpu", "experiment", "experiment_smoke"]
    pairs = [(name, name) for name in names] + [("small", "frozen")]
    pairs += [("paper", f"paper_{what}") for what in ("frozen", "linear", "full")]
    assert {before for before, _ in pairs} == {path.stem[9:] for path in CONFIGS.glob("pretrain_*.toml")}
    for before, after in pairs:
        vit = read_recipe(CONFIGS / f"pretrain_{before}.toml", PretrainRecipe).model.config(256, 256, 6)
        wanted = read_recipe(CONFIGS / f"finetune_{after}.toml", FinetuneRecipe).model.config(256, 256, 6)
        assert dataclasses.replace(vit, **wanted.head_alone) == wanted, after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead = 1", "unknown sead; known are seed, label_share"),
        ("[optimisation]\nrate = 1.0", r"unknown rate in \[optimisation\]; known are steps, max_minutes"),
        ("[optimisation]\nsteps = 'many'", "steps"),
        ("[optimisation]\nprecision = 'fp16'", "choose one of auto, f32, bf16"),
        ("[optimisation]\nsteps = 0", "must be positive"),
        ("[optimisation]\nlayer_decay = 2", "layer_decay"),
        ("[optimisation]\nthreads = -1", "0 for all; got -1"),
        ("seed = -1", "must not be negative, got -1"),
        ("seed = ", "is not TOML"),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path, FinetuneRecipe)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(tmp_path / "none.toml", PretrainRecipe)


def test_whole_numbers_are_fine_as_floats_and_limits_are_overridden(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[optimisation]\nclip = 2\nmax_minutes = 5\n[loss]\nclass_weights = [1, 2, 3]")
    recipe = read_recipe(path, FinetuneRecipe).for_run(steps=7, max_minutes=None)
    assert (recipe.optimisation.clip, recipe.optimisation.max_minutes, recipe.optimisation.steps) == (2.0, 5.0, 7)
    assert recipe.loss.class_weights == [1.0, 2.0, 3.0]


# --- batches


def test_every_epoch_has_every_window_once_in_an_order_of_its_own() -> None:
    order = np.concatenate([indices(10, 4 * step, 4 * step + 4, seed=5) for step in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()
    assert indices(10, 0, 4, seed=6).tolist() != order[:4].tolist()


def test_batches_depend_on_seed_and_step_alone(scenes: Path) -> None:
    parts = [Part(open_windows(scenes / "train"))]
    whole = list(itertools.islice(training_batches(parts, SPEC, Augmentation(), 8, 1), 4))
    later = next(training_batches(parts, SPEC, Augmentation(), 8, 1, first_step=3, threads=3))
    assert torch.equal(whole[3].pictures, later.pictures)
    assert torch.equal(whole[3].masks, later.masks)


def test_processes_share_a_batch_out(scenes: Path) -> None:
    parts = [Part(open_windows(scenes / "train"))]
    whole = next(training_batches(parts, SPEC, Augmentation(), 8, 1))
    shares = [next(training_batches(parts, SPEC, Augmentation(), 8, 1, own=own)) for own in (slice(0, 4), slice(4, 8))]
    assert torch.equal(torch.cat([share.pictures for share in shares]), whole.pictures)
    assert torch.equal(torch.cat([share.bin_widths for share in shares]), whole.bin_widths)


@pytest.mark.parametrize("share", [0.5, 0.3, 0.07])
def test_parts_have_exactly_their_share(scenes: Path, share: float) -> None:
    parts = [Part(open_windows(scenes / "train"), 1 - share), Part(open_windows(scenes / "test"), share)]
    steps = [drawn(parts, 8, 1, step) for step in range(100)]
    assert {len(chosen) for chosen in steps} == {8}
    places = [index for chosen in steps for part, index in chosen if part == 1]
    assert len(places) == round(800 * share)
    assert len(set(places[:24])) == min(24, len(places))  # an epoch of the second part has no window twice


def test_evaluation_takes_every_window_once_or_some_drawn_by_chance(scenes: Path) -> None:
    windows = open_windows(scenes / "test")
    pictures = torch.cat([batch.pictures for _, batch in evaluation_batches(windows, 7)])
    np.testing.assert_array_equal(pictures.numpy(), windows.pictures.astype(np.float32))
    (places, batch), *rest = evaluation_batches(windows, 7, limit=4)
    assert (places, rest) == (slice(0, 4), [])
    chosen = evaluation_indices(24, 4)
    np.testing.assert_array_equal(batch.bin_widths.numpy(), windows.bin_widths[chosen])
    assert len(set(evaluation_indices(600, 50) % 5)) == 5
    assert evaluation_indices(7, 50).tolist() == list(range(7))


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """40 pictures that say in every pixel what their masks do, so that both must move together."""
    masks = np.random.default_rng(1).integers(0, 3, (40, 64, 64)).astype(np.uint8)
    masks[0, 50:] = IGNORED
    return np.where(masks == IGNORED, 0, masks).astype(np.float16), masks


def augmented(pictures: np.ndarray, masks: np.ndarray, settings: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    changed = [augment(*pair, SPEC, settings, rng) for pair in zip(pictures, masks, strict=True)]
    return np.stack([picture for picture, _ in changed]), np.stack([mask for _, mask in changed])


def test_mirroring_moves_picture_and_mask_together(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, masks = augmented(*pairs, dataclasses.replace(UNCHANGED, mirror=True))
    np.testing.assert_array_equal(pictures[masks != IGNORED], masks[masks != IGNORED])
    mirrored = [bool((after == before[:, ::-1]).all()) for after, before in zip(masks, pairs[1], strict=True)]
    kept = [bool((after == before).all()) for after, before in zip(masks, pairs[1], strict=True)]
    assert 10 < sum(mirrored) < 30
    assert sum(mirrored) + sum(kept) == 40


def test_level_and_noise_have_their_size_and_leave_missing_steps_silent(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    settings = dataclasses.replace(UNCHANGED, level_db=2.0, noise_db=0.5)
    pictures, masks = augmented(np.zeros_like(pairs[0]), pairs[1], settings)
    levels = pictures[1:].mean(axis=(1, 2), keepdims=True)
    assert 1.5 < np.abs(levels * SPEC.db_scale).max() <= 2.05
    assert (pictures[1:] - levels).std() == pytest.approx(0.5 / SPEC.db_scale, rel=0.05)
    assert not pictures[0, 50:].any()
    np.testing.assert_array_equal(masks, pairs[1])


def test_truncation_fills_with_what_the_runtime_fills_with(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, masks = augmented(pairs[0] + 1, pairs[1], dataclasses.replace(UNCHANGED, truncate=0.5))
    lengths = (pictures != 0).all(axis=2).sum(axis=1)
    assert 10 < (lengths < 64).sum() < 32
    for picture, mask, length in zip(pictures[1:], masks[1:], lengths[1:], strict=True):
        assert length >= 1
        assert not picture[length:].any()
        assert (mask[length:] == IGNORED).all()
        assert (mask[:length] != IGNORED).all()


def test_unknown_signals_stay_visible_and_only_missing_steps_are_silenced() -> None:
    picture, mask = np.full((64, 64), 1.0, np.float16), np.full((64, 64), IGNORED, np.uint8)
    picture[50:] = 0
    changed, _ = augment(picture, mask, SPEC, dataclasses.replace(UNCHANGED, level_db=2.0), np.random.default_rng(0))
    assert (changed[:50] > 0.5).all()
    assert not changed[50:].any()
    batch = Batch(torch.from_numpy(changed)[None], torch.zeros(1), torch.from_numpy(mask)[None])
    assert batch.missing.any(dim=2)[0].tolist() == [False] * 50 + [True] * 14


def test_augmenting_leaves_its_input_alone(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    before = pairs[0].copy(), pairs[1].copy()
    augmented(*pairs, Augmentation())
    np.testing.assert_array_equal(pairs[0], before[0])
    np.testing.assert_array_equal(pairs[1], before[1])


def test_the_spec_comes_from_the_scenes(scenes: Path, tmp_path: Path) -> None:
    windows = open_windows(scenes / "train")
    assert read_spec(scenes / "train", windows) == SPEC
    other = dataclasses.replace(SPEC, db_scale=10.0)
    (tmp_path / "scenes.json").write_text(json.dumps({"spec": dataclasses.asdict(other)}))
    assert read_spec(tmp_path, windows) == other
    (tmp_path / "scenes.json").write_text(json.dumps({"spec": dataclasses.asdict(SpectrogramSpec())}))
    with pytest.raises(RecordingError, match="256 x 256"):
        read_spec(tmp_path, windows)
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(RecordingError, match="does not hold"):
        read_spec(tmp_path, windows)


# --- optimisation


def test_the_rate_rises_then_falls_to_zero() -> None:
    factors = [rate_factor(progress, 0.1) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)]
    np.testing.assert_allclose(factors, [0, 0.5, 1, 0.5, 0], atol=1e-12)
    assert rate_factor(0.0, 0.0) == 1


def test_progress_follows_whichever_limit_is_nearer() -> None:
    options = Optimisation(steps=100, max_minutes=1.0)
    assert Budget(options).progress(50) == pytest.approx(0.5)
    assert Budget(options, elapsed=45.0).progress(50) == pytest.approx(0.75, abs=0.01)
    assert Budget(options, elapsed=90.0).progress(50) == 1
    assert Budget(dataclasses.replace(options, max_minutes=None), elapsed=1e6).progress(50) == 0.5


def test_layers_close_to_the_input_learn_slower_and_norms_do_not_decay() -> None:
    model = Segmenter(VitConfig(64, 64, 3, width=24, depth=2, heads=3))
    (optimiser,) = make_optimisers(model, 2, Optimisation(layer_decay=0.5))
    factors, decays = {}, {}
    names = {id(value): name for name, value in model.named_parameters()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            factors[names[id(parameter)]] = group["rate_factor"]
            decays[names[id(parameter)]] = group["weight_decay"]
    assert factors.keys() == set(names.values())
    assert factors["head.mix.weight"] == factors["encoder.norm.weight"] == 1
    assert factors["encoder.blocks.1.qkv.weight"] == 0.5
    assert factors["encoder.blocks.0.qkv.weight"] == 0.25
    assert factors["encoder.embed.weight"] == factors["encoder.bin_width.0.weight"] == 0.125
    assert decays["encoder.norm.weight"] == decays["encoder.embed.bias"] == 0
    assert decays["encoder.embed.weight"] == 0.05


def test_muon_steps_matrices_of_blocks_and_kernels_and_adam_the_rest() -> None:
    model = Segmenter(VitConfig(64, 64, 3, width=24, depth=2, heads=3))
    adam, muon = make_optimisers(model, 2, Optimisation(optimiser="muon", muon_factor=3.0, layer_decay=0.5))
    names = {value.data_ptr(): name for name, value in model.named_parameters()}
    of_muon = {names[each.data_ptr()]: group["rate_factor"] for group in muon.param_groups for each in group["params"]}
    matrices = ("qkv", "project", "expand", "contract")
    assert of_muon == {"head.mix.weight": 3.0} | {
        f"encoder.blocks.{block}.{name}.weight": 3 * factor
        for block, factor in ((0, 0.25), (1, 0.5))
        for name in matrices
    }
    of_adam = {names[each.data_ptr()] for group in adam.param_groups for each in group["params"]}
    assert of_adam == set(names.values()) - of_muon.keys()


def test_muon_steps_kernels_as_matrices() -> None:
    torch.manual_seed(1)
    vit = VitConfig(64, 64, 3, width=24, depth=1, heads=3, embedding="convolutions", head="pyramid", stem_features=4)
    model = Segmenter(vit)
    options = Optimisation(optimiser="muon", muon_factor=2.0, learning_rate=1e-2)
    stage = model.encoder.embed.first
    matrix = torch.nn.Parameter(stage.convolve.weight.detach().clone().flatten(1))
    plain = torch.optim.Muon([matrix], lr=2e-2, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
    still = model.head.classify.weight.detach().clone()  # 1 x 1, AdamW's
    adam, muon = make_optimisers(model, 1, options, bf16=True)  # as torch has it
    assert sum(value.numel() for group in (*adam.param_groups, *muon.param_groups) for value in group["params"]) == sum(
        value.numel() for value in model.parameters()
    )
    for group in muon.param_groups:
        group["lr"] = 2e-2
    for _ in range(3):  # of which the later ones have momentum
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        matrix.grad = stage.convolve.weight.grad.flatten(1)
        muon.step()
        plain.step()
    torch.testing.assert_close(stage.convolve.weight.flatten(1), matrix, rtol=0, atol=1e-6)
    assert torch.equal(model.head.classify.weight, still)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(24, 96), (96, 24)])
def test_all_directions_of_a_matrix_become_as_long(shape: tuple[int, int], bf16: bool) -> None:
    torch.manual_seed(4)
    left, right = torch.linalg.qr(torch.randn(96, 24))[0], torch.linalg.qr(torch.randn(24, 24))[0]
    tall = left * torch.logspace(0, -1.5, 24) @ right
    found = orthogonalised(tall if shape == tall.shape else tall.T, bf16)
    assert found.dtype == torch.float32
    assert found.shape == shape
    lengths = torch.linalg.svdvals(found)
    assert lengths.min() > 0.65
    assert lengths.max() < 1.25
    turned = found if shape == tall.shape else found.T
    agreement = torch.nn.functional.cosine_similarity(turned.flatten(), (left @ right).flatten(), dim=0)
    assert agreement > 0.97


def test_bfloat16_is_the_default_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = {"avx2": False, "avx512_f": False, "amx_bf16": True, "avx512_bf16": True, "bf16": True}
    for capability, pays in processors.items():
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capability: {found: True, "amx_int8": True})
        with Processes(Optimisation(device="cpu")) as processes:
            workers = choose_workers(Optimisation(device="cpu"), processes)
            forced = choose_workers(Optimisation(device="cpu", precision="f32"), processes)
        found = list(workers.map(lambda matrix: (matrix @ matrix).dtype, [torch.ones(2, 2)]))
        assert found == [torch.bfloat16 if pays else torch.float32]
        assert (workers.bf16, forced.bf16) == (pays, False)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("network", ["stem", "unet"])
def test_kernels_go_against_their_gradients_whatever_their_order_in_memory(network: str, optimiser: str) -> None:
    torch.manual_seed(2)
    vit = VitConfig(64, 64, 3, width=24, depth=1, heads=3, embedding="convolutions", head="pyramid", stem_features=8)
    model = make_network(vit, UNetSize(8, 3) if network == "unet" else None)
    options = Optimisation(optimiser=optimiser, learning_rate=1e-3, weight_decay=0.0)  # type: ignore[arg-type]
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.ndim == 4}
    workers = Workers(1)
    pictures, bin_widths = torch.randn(4, 64, 64), torch.randn(4)
    workers.gradients(model, lambda *part: model(*part).square().sum(), torch.sqrt, pictures, bin_widths)
    gradients = {name: model.get_parameter(name).grad.clone() for name in before}
    update(model, make_optimisers(model, 1, options), 0.05, options)
    for name, kernel in before.items():
        moved = model.get_parameter(name).detach() - kernel
        agreement = torch.nn.functional.cosine_similarity(moved.flatten(), -gradients[name].flatten(), dim=0)
        assert agreement > (0.4 if optimiser == "adamw" else 0.15), name


def test_muon_moves_a_matrix_along_all_its_directions() -> None:
    torch.manual_seed(3)
    model = Segmenter(VitConfig(64, 64, 3, width=24, depth=1, heads=3))
    options = Optimisation(optimiser="muon", muon_factor=2.0, learning_rate=1e-2, weight_decay=0.0)
    matrix = model.encoder.blocks[0].expand.weight
    before = matrix.detach().clone()
    left, right = torch.linalg.qr(torch.randn(96, 24))[0], torch.linalg.qr(torch.randn(24, 24))[0]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    matrix.grad = left * torch.logspace(0, -2, 24) @ right  # its directions differ a hundredfold
    optimisers = make_optimisers(model, 1, options)
    update(model, optimisers, 0.05, options)
    moved = torch.linalg.svdvals(matrix.detach() - before)
    largest = 0.2 * 96**0.5 * 2e-2  # arXiv 2502.16982, eq. 4, at the peak of the schedule
    assert moved.max() < 1.3 * largest
    assert moved.min() > 0.5 * largest


def test_the_mean_of_the_weights_is_the_recurrence() -> None:
    model = torch.nn.Linear(2, 2)
    mean = WeightMean(model, decay=0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += 1
        mean.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(mean.model.weight, expected)
    assert not mean.model.weight.requires_grad


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_gradients_in_parts_are_those_of_the_whole(threads: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 1)
    inputs, targets = torch.randn(7, 5), torch.randn(7, 1)

    def sums(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.stack([((model(part) - target) ** 2).sum(), torch.tensor(float(len(part)))])

    def mean(total: torch.Tensor) -> torch.Tensor:
        return total[0] / total[1]

    mean(sums(inputs, targets)).backward()
    expected = model.weight.grad
    model.weight.grad = None
    value = Workers(threads).gradients(model, sums, mean, inputs, targets)
    torch.testing.assert_close(model.weight.grad, expected)
    assert value == pytest.approx(mean(sums(inputs, targets)).item(), rel=1e-5)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(part: torch.Tensor) -> torch.Tensor:
        raise ValueError("from the worker")

    with pytest.raises(ValueError, match="from the worker"):
        Workers(2).gradients(torch.nn.Linear(1, 1), fail, torch.sum, torch.zeros(4, 1))


# --- losses and figures


def test_class_weights_are_one_over_the_root_of_the_share(scenes: Path) -> None:
    windows = open_windows(scenes / "train")
    weights = class_weights(Part(windows), None).numpy()
    counts = np.bincount(windows.masks[windows.masks != IGNORED].ravel(), minlength=3)
    share = counts / counts.sum()
    np.testing.assert_allclose(weights * np.sqrt(share), (weights * np.sqrt(share)).mean(), rtol=1e-5)
    assert np.sum(weights * share) == pytest.approx(1)
    noise = np.flatnonzero([not mask.any() for mask in windows.masks])
    rare = class_weights(Part(windows, places=noise), None).numpy()
    assert rare[1] == rare[2] > 10 * rare[0]  # of the windows in use, which hold neither
    assert class_weights(Part(windows), [1.0, 2.0, 3.0]).tolist() == [1, 2, 3]
    with pytest.raises(ModelError, match="2 numbers"):
        class_weights(Part(windows), [1.0, 2.0])


def test_figures_match_their_definitions() -> None:
    rng = np.random.default_rng(3)
    true, predicted = rng.integers(0, 3, (2, 50, 50)), rng.integers(0, 3, (2, 50, 50))
    true[0, :10] = IGNORED
    result = figures(confusion(true, predicted, 3), LABELS)
    true, predicted = true[true != IGNORED], predicted[true != IGNORED]
    iou = [np.sum((true == k) & (predicted == k)) / np.sum((true == k) | (predicted == k)) for k in range(3)]
    accuracy = [np.mean(predicted[true == k] == k) for k in range(3)]
    assert result["pixels"] == len(true)
    assert result["pixel_accuracy"] == pytest.approx(np.mean(true == predicted), abs=1e-5)
    assert result["miou"] == pytest.approx(np.mean(iou), abs=1e-5)
    assert result["class_mean_accuracy"] == pytest.approx(np.mean(accuracy), abs=1e-5)
    assert list(result["iou"].values()) == pytest.approx(iou, abs=1e-5)
    signal = np.sum((true > 0) & (predicted > 0)) / np.sum((true > 0) | (predicted > 0))
    assert result["signal_iou"] == pytest.approx(signal, abs=1e-5)


def test_classes_that_do_not_occur_are_left_out_of_means() -> None:
    result = figures(confusion(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), 3), LABELS)
    assert result["iou"] == {"background": pytest.approx(2 / 3, abs=1e-5), "LTE": 0.5, "NR": None}
    assert result["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-5)
    json.dumps(result, allow_nan=False)
    json.dumps(figures(np.zeros((3, 3), np.int64), LABELS), allow_nan=False)


def test_measuring_splits_by_snr_and_noise(scenes: Path) -> None:
    windows = open_windows(scenes / "test")
    report = measure(windows, lambda batch: Predicted(np.ones(batch.masks.shape, np.int64)), 5)
    assert sum(entry["windows"] for entry in report["by_snr_db"].values()) == int(np.sum(~np.isnan(windows.snr_db)))
    for level, entry in report["by_snr_db"].items():
        chosen = windows.masks[windows.snr_db == float(level)]
        assert entry["pixels"] == np.count_nonzero(chosen != IGNORED)
    assert report["noise_only"] == {"windows": int(np.sum(np.isnan(windows.snr_db))), "signal_share": 1.0}
    assert report["overall"]["pixel_accuracy"] == pytest.approx(
        np.mean(windows.masks[windows.masks != IGNORED] == 1), abs=1e-5
    )


def test_the_energy_detector_finds_signals_but_not_their_kind(scenes: Path) -> None:
    validation = open_windows(scenes / "validation")
    detector, threshold_db = energy_detector(validation, SPEC)
    assert 0.5 <= threshold_db <= 12
    # The same pictures on half the scale are half as many dB.
    assert energy_detector(validation, dataclasses.replace(SPEC, db_scale=SPEC.db_scale / 2))[1] == threshold_db / 2
    overall = measure(open_windows(scenes / "test"), detector, 8)["overall"]
    assert overall["signal_iou"] > 0.7
    assert min(overall["iou"]["LTE"], overall["iou"]["NR"]) == 0


# --- whole runs


def test_pretraining_leaves_a_checkpoint_a_log_and_curves(pretrained: Path) -> None:
    saved = checkpoint.load(pretrained / checkpoint.LAST)
    assert (saved.kind, saved.step, saved.spec) == ("pretrain", 10, SPEC)
    assert saved.provenance["train_windows"] == 48
    entries = [entry for entry in curves.entries_of(pretrained) if "loss" in entry]
    assert [entry["step"] for entry in entries] == [2, 4, 6, 8, 10]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert (pretrained / curves.CURVES).read_bytes().startswith(b"\x89PNG")


def test_finetuning_starts_from_the_pretrained_encoder_and_learns(pretrained: Path, finetuned: Path) -> None:
    best = checkpoint.load(finetuned / checkpoint.BEST)
    scores = [entry["miou"] for entry in curves.entries_of(finetuned) if "miou" in entry]
    assert len(scores) == 2
    assert best.best == max(scores) > 0.6
    assert best.provenance["pretrained"]["kind"] == "pretrain"
    assert best.optimiser == {}
    model = Segmenter(best.vit)
    finetune.start_from(model, pretrained / checkpoint.LAST, LABELS)
    for name, value in checkpoint.load(pretrained / checkpoint.LAST).mean.items():
        if name.startswith("encoder."):
            assert torch.equal(model.state_dict()[name], value)


def test_a_whole_segmenter_can_be_trained_on(finetuned: Path) -> None:
    best = checkpoint.load(finetuned / checkpoint.BEST)
    model = Segmenter(best.vit)
    finetune.start_from(model, finetuned / checkpoint.BEST, LABELS)
    assert all(torch.equal(value, best.mean[name]) for name, value in model.state_dict().items())


def test_another_geometry_is_refused(finetuned: Path) -> None:
    with pytest.raises(ModelError, match=r"has width 48, not 24; make \[model\] of the recipe equal to that"):
        finetune.start_from(
            Segmenter(VitConfig(64, 64, 3, width=24, depth=2, heads=3)), finetuned / checkpoint.BEST, LABELS
        )


def interrupt() -> None:
    """As Ctrl-C does, without the signal itself: what quantises models leaves it deadly for its process."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def test_a_frozen_encoder_stays_as_it_was(
    scenes: Path, pretrained: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "frozen.toml"
    recipe.write_text(recipes["finetune"].read_text() + '[adapt]\nmode = "frozen"\n')
    finetune.main(config=recipe, data=scenes, out=tmp_path / "run", init=pretrained / checkpoint.LAST, steps=3)
    before, after = checkpoint.load(pretrained / checkpoint.LAST), checkpoint.load(tmp_path / "run" / checkpoint.LAST)
    for name, value in after.weights.items():
        if name.startswith("encoder."):
            assert torch.equal(value, before.mean[name])
    assert after.weights["head.mix.bias"].any()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    kind: str,
    optimiser: str,
    scenes: Path,
    recipes: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = {"pretrain": pretrain, "finetune": finetune}[kind]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipes[kind].read_text().replace("[optimisation]", f'[optimisation]\noptimiser = "{optimiser}"'))
    script.main(config=recipe, data=scenes, out=tmp_path / "whole", steps=6)

    times = itertools.count(1)

    def interrupted(*arguments: Any) -> float:
        if next(times) == 3:
            interrupt()  # before the third update is whole
        return optimisation.update(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(script, "update", interrupted)
        with pytest.raises(typer.Exit) as stopped:
            script.main(config=recipe, data=scenes, out=tmp_path / "parts", steps=6)
    assert stopped.value.exit_code == 130
    assert checkpoint.load(tmp_path / "parts" / checkpoint.LAST).step == 3
    script.main(config=recipe, data=scenes, out=tmp_path / "parts", steps=6, resume=True)
    whole, parts = (checkpoint.load(tmp_path / name / checkpoint.LAST) for name in ("whole", "parts"))
    assert parts.step == whole.step == 6
    for name in whole.weights:
        torch.testing.assert_close(parts.weights[name], whole.weights[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parts.mean[name], whole.mean[name], rtol=1e-4, atol=1e-6)


def test_ctrl_c_waits_for_what_belongs_together_and_is_not_forgotten() -> None:
    before, done = signal.getsignal(signal.SIGINT), []

    def interrupted() -> None:
        with interrupts_wait():
            interrupt()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done
    assert signal.getsignal(signal.SIGINT) is before


def test_the_best_weights_are_written_where_writing_them_was_interrupted(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(recipes["finetune"].read_text().replace("validate_every = 40", "validate_every = 2"))
    save = checkpoint.save

    def interrupted(state: checkpoint.Checkpoint, path: Path) -> None:
        if path.name == checkpoint.BEST:
            raise KeyboardInterrupt
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        with pytest.raises(typer.Exit):
            finetune.main(config=recipe, data=scenes, out=out, steps=2)
    finetune.main(config=recipe, data=scenes, out=out, steps=2, resume=True)
    assert checkpoint.load(out / checkpoint.BEST).step == 2


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_an_encoder_that_learnt_nothing_is_not_kept_as_it_is(
    mode: str, scenes: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipes["finetune"].read_text() + f'[adapt]\nmode = "{mode}"\n')
    with pytest.raises(RecipeError, match=f"mode is '{mode}'.*--init"):
        finetune.main(config=recipe, data=scenes, out=tmp_path / "run", steps=1)


def test_windows_of_other_labels_than_the_recipe_lists_are_refused(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipes["finetune"].read_text() + '[annotations.classes]\nradar = ["radar"]\n')
    with pytest.raises(RecordingError, match=r"\[annotations.classes\] radar; .* labelled already, background, LTE"):
        finetune.main(config=recipe, data=scenes, out=tmp_path / "run", steps=1)


def test_a_run_that_is_stopped_while_it_validates_does_that_first(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every trial of an experiment may be: it validates at its end alone."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipes["finetune"].read_text().replace("validate_every = 40", "validate_every = 2"))
    call = {"config": recipe, "data": scenes, "out": tmp_path / "run", "steps": 2}

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "validate", interrupted)
        with pytest.raises(typer.Exit):
            finetune.main(**call)
    assert checkpoint.load(tmp_path / "run" / checkpoint.LAST).step == 2
    assert not (tmp_path / "run" / checkpoint.BEST).exists()
    finetune.main(**call, resume=True)
    assert checkpoint.load(tmp_path / "run" / checkpoint.BEST).step == 2
    finetune.main(**call | {"steps": 3}, resume=True)
    assert [entry["step"] for entry in curves.entries_of(tmp_path / "run") if "miou" in entry] == [2, 3]


def test_resuming_without_something_that_the_recipe_had_is_refused(pretrained: Path) -> None:
    before = checkpoint.load(pretrained / checkpoint.LAST)
    had = dataclasses.replace(before, recipe=before.recipe | {"unet": {"width": 8, "levels": 3}})
    with pytest.raises(ModelError, match=r"another unet\.levels, unet\.width"):
        checkpoint.check_recipe(had, before.recipe | {"unet": None}, pretrained)


def test_a_new_run_forgets_the_log_of_one_that_never_came_to_a_checkpoint(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    for script, name in ((pretrain, "held_out"), (finetune, "miou")):
        out = tmp_path / script.__name__
        curves.append(out, {"step": 0, name: "of a run that was killed"})
        curves.append(out, {"step": 2, name: "of a run that was killed"})
        script.main(config=recipes[script.__name__.removeprefix("training.")], data=scenes, out=out, steps=2)
        assert "killed" not in (out / curves.LOG).read_text()
        assert curves.has(out, 2, name)


def test_resuming_for_other_labels_is_refused(
    scenes: Path, recipes: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    shutil.copytree(scenes, tmp_path / "scenes")
    for path in (tmp_path / "scenes").glob("*/scenes.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": ["background", "WLAN", "NR"]}))
    with pytest.raises(ModelError, match="trained for background, LTE, NR, the data has background, WLAN, NR"):
        pretrain.main(config=recipes["pretrain"], data=tmp_path / "scenes", out=pretrained, resume=True)


def test_a_run_is_never_overwritten(scenes: Path, recipes: dict[str, Path], pretrained: Path) -> None:
    before = (pretrained / checkpoint.LAST).read_bytes()
    with pytest.raises(OutputError, match="--resume"):
        pretrain.main(config=recipes["pretrain"], data=scenes, out=pretrained)
    assert (pretrained / checkpoint.LAST).read_bytes() == before
    with pytest.raises(OutputError, match="is a file; choose a folder"):
        pretrain.main(config=recipes["pretrain"], data=scenes, out=pretrained / checkpoint.LAST)


def test_resuming_with_another_recipe_is_refused(
    scenes: Path, recipes: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "other.toml"
    recipe.write_text(recipes["pretrain"].read_text().replace("4e-3", "5e-3"))
    with pytest.raises(ModelError, match=r"another optimisation\.learning_rate"):
        pretrain.main(config=recipe, data=scenes, out=pretrained, resume=True)


def test_resuming_with_other_windows_to_validate_on_is_refused(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scenes, tmp_path / "data")
    call = {"config": recipes["finetune"], "data": tmp_path / "data", "out": tmp_path / "run", "steps": 2}
    finetune.main(**call)
    finetune.main(**call, resume=True)
    assert "the run is over: it had its 2 updates" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "data" / "validation")
    shutil.copytree(scenes / "test", tmp_path / "data" / "validation")
    with pytest.raises(ModelError, match="was trained with 16 validation windows, now there are 24"):
        finetune.main(**call, resume=True)


def test_a_run_that_went_on_in_another_precision_says_so() -> None:
    assert checkpoint.both("", "f32") == checkpoint.both("f32", "f32") == "f32"
    assert checkpoint.both("f32", "bf16") == checkpoint.both("f32, then bf16", "bf16") == "f32, then bf16"


def test_a_run_ends_when_its_time_is_up(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count()  # one at every look at the clock: a real one may be up before the first update
    monkeypatch.setattr(optimisation, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    pretrain.main(config=recipes["pretrain"], data=scenes, out=tmp_path, steps=10**6, max_minutes=0.5)
    saved = checkpoint.load(tmp_path / checkpoint.LAST)
    assert 0 < saved.step < 30
    assert saved.elapsed >= 30


def test_checkpoints_hold_plain_tensors_and_survive_the_round_trip(pretrained: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(pretrained / checkpoint.LAST)
    checkpoint.save(saved, tmp_path / "copy.safetensors")
    again = checkpoint.load(tmp_path / "copy.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.safetensors"]
    for part in ("weights", "mean", "optimiser"):
        before, after = getattr(saved, part), getattr(again, part)
        assert before.keys() == after.keys() != set()
        assert all(torch.equal(before[name], after[name]) for name in before)
    plain = [field.name for field in dataclasses.fields(saved) if field.name not in ("weights", "mean", "optimiser")]
    assert [getattr(saved, name) for name in plain] == [getattr(again, name) for name in plain]


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_damaged_checkpoints_are_refused(damage: str, pretrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    if damage == "cut":
        path.write_bytes((pretrained / checkpoint.LAST).read_bytes()[:5000])
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"weights/a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_of_an_unknown_network_is_refused_by_its_name(pretrained: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(pretrained / checkpoint.LAST)
    object.__setattr__(saved.vit, "embedding", "wavelets")
    path = tmp_path / "later.safetensors"
    checkpoint.save(saved, path)
    with pytest.raises(ModelError, match=r"later\.safetensors is not a checkpoint of this project \(.*'wavelets'"):
        checkpoint.load(path)


def test_a_log_cut_off_by_a_crash_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        curves.append(tmp_path, {"step": step, "loss": 1.0 / step})
    with (tmp_path / curves.LOG).open("a") as file:
        file.write('{"step": 4, "lo')
    curves.truncate(tmp_path, 2)
    assert [entry["step"] for entry in curves.entries_of(tmp_path)] == [1, 2]


def test_reading_gives_the_types_that_the_network_takes(scenes: Path) -> None:
    batch = read(open_windows(scenes / "train"), np.array([3, 1]))
    assert (batch.pictures.dtype, batch.bin_widths.dtype, batch.masks.dtype) == (
        torch.float32,
        torch.float32,
        torch.uint8,
    )


def test_the_command_line_says_in_one_line_what_is_wrong(recipes: dict[str, Path], tmp_path: Path) -> None:
    # The package is not installed: training/ belongs to the source tree alone.
    done = subprocess.run(
        [sys.executable, "-m", "training.pretrain", "--config", recipes["pretrain"], "--data", "none", "--out", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: none/train holds no windows")
    assert done.stderr.count("\n") == 1
