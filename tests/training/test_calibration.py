# SPDX-License-Identifier: Apache-2.0
"""Confidences against what they claim: the error by its definition, the temperature found again, abstaining."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rfvit_rt.contract import read_model
from rfvit_rt.errors import ModelError, RecordingError, SpecMismatch
from rfvit_rt.vit import HEADS, VitConfig
from training import checkpoint, evaluate, export, finetune
from training.calibration import BINS, Calibration, Reliability, fit_calibration, fold
from training.config import FinetuneRecipe, UNetSize
from training.datasets import IGNORED, UNNAMED, Windows, open_windows
from training.evaluate import Predicted, measure
from training.networks import make_network
from training.optimisation import Workers

CONFIG = VitConfig(64, 64, 3, width=24, depth=1, heads=3)

LABELS = ("background", "LTE", "NR")


def drawn(count: int = 50_000, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidences, and labels that are right less often than these say."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(1 / 3, 1, count).astype(np.float32)
    return confidence, rng.random(count) < confidence**2


def test_the_calibration_error_is_its_definition() -> None:
    confidence, right = drawn()
    counts = Reliability()
    for part in np.array_split(np.arange(len(right)), 3):  # it adds up
        counts.add(confidence[part], right[part])
    expected = 0.0
    for m in range(1, BINS + 1):
        inside = (confidence > (m - 1) / BINS) & (confidence <= m / BINS)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean(dtype=np.float64)
            expected += inside.mean() * abs(gap)
    assert expected > 0.1
    assert counts.expected_calibration_error() == pytest.approx(expected, abs=1e-4)
    curve = counts.curve()
    assert sum(point["pixels"] for point in curve) == len(right)
    assert all(point["accuracy"] < point["confidence"] for point in curve[1:-1])


def test_honest_confidences_have_no_calibration_error() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.4, 1, 200_000).astype(np.float32)
    counts = Reliability()
    counts.add(confidence, rng.random(200_000) < confidence)
    error = counts.expected_calibration_error()
    assert error is not None
    assert error < 0.01


def test_sure_and_right_is_perfect_and_nothing_at_all_has_no_figures() -> None:
    counts = Reliability()
    assert counts.expected_calibration_error() is None
    assert counts.risk_coverage()[0] == {"threshold": 0.0, "coverage": None, "risk": None}
    counts.add(np.ones(10, np.float32), np.ones(10, np.bool_))
    assert counts.expected_calibration_error() == 0
    assert counts.risk_coverage()[-1] == {"threshold": 0.99, "coverage": 1.0, "risk": 0.0}


def test_abstaining_trades_coverage_for_risk() -> None:
    confidence, right = drawn()
    counts = Reliability()
    counts.add(confidence, right)
    rows = counts.risk_coverage()
    for row in rows:
        kept = confidence > row["threshold"]
        assert row["coverage"] == pytest.approx(kept.mean(), abs=1e-4)
        assert row["risk"] == pytest.approx(1 - right[kept].mean(), abs=1e-3)
    assert rows[-1]["risk"] < rows[0]["risk"]


BIAS = torch.tensor([-1.0, 0.75, 0.25])


class Overconfident(nn.Module):
    """Logits too large, and with an inclination for classes; the true ones travel in the picture's values."""

    def forward(self, pictures: torch.Tensor, bin_widths: torch.Tensor) -> torch.Tensor:
        true = torch.stack([torch.zeros_like(pictures), pictures, -pictures], dim=1)
        return 3 * (true - BIAS[:, None, None])


def test_temperature_and_biases_are_found_again() -> None:
    rng = np.random.default_rng(5)
    pictures = rng.normal(0, 1.5, (8, 64, 64)).astype(np.float16)
    logits = np.stack([np.zeros_like(pictures), pictures, -pictures], axis=-1).astype(np.float64)
    scores = logits + rng.gumbel(size=logits.shape)  # the largest is drawn with the softmax's probability
    masks = scores.argmax(axis=3).astype(np.uint8)
    masks[:, :8] = IGNORED
    windows = Windows(pictures, masks, np.zeros(8, np.float32), np.zeros(8, np.float32), np.arange(8), LABELS)
    found = fit_calibration(Overconfident(), windows, 8, Workers(1))
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(found.class_bias, BIAS, atol=0.05)
    plain = fit_calibration(Overconfident(), windows, 8, Workers(1), bias=False)
    assert plain.class_bias == (0, 0, 0)
    assert plain.temperature > 3.1  # it has to hide the inclination
    unknown = dataclasses.replace(windows, masks=np.full_like(masks, IGNORED))
    assert fit_calibration(Overconfident(), unknown, 8, Workers(1)) == Calibration(1.0, (0.0, 0.0, 0.0))
    lacking = dataclasses.replace(windows, masks=np.where(masks == 2, 1, masks).astype(np.uint8))
    assert fit_calibration(Overconfident(), lacking, 8, Workers(1)).class_bias == (0, 0, 0)  # not: never say it


@pytest.mark.parametrize("head", [*HEADS, "unet"])
def test_folding_calibrates_the_logits_of_every_network(head: str) -> None:
    torch.manual_seed(0)
    unet = UNetSize(8, 3) if head == "unet" else None
    embedding = "convolutions" if head == "pyramid" else "linear"
    vit = dataclasses.replace(CONFIG, width=24, heads=3, head="linear" if unet else head, embedding=embedding)
    model = make_network(vit, unet)
    pictures = torch.randn(1, 64, 64)
    with torch.no_grad():
        before = model(pictures, torch.zeros(1))
        fold(model, Calibration(2.5, tuple(BIAS.tolist())))
        after = model(pictures, torch.zeros(1))
    torch.testing.assert_close(after, before / 2.5 + BIAS[:, None, None])


def test_the_best_weights_are_calibrated_once_and_ship_like_that(finetuned: Path, scenes: Path, tmp_path: Path) -> None:
    best = checkpoint.load(finetuned / checkpoint.BEST)
    temperature, bias = best.provenance["temperature"], best.provenance["class_bias"]
    assert 0.1 < temperature < 10
    assert len(bias) == 3
    last = checkpoint.load(finetuned / checkpoint.LAST)
    if last.step == best.step:  # the last weights are the best, but for the temperature
        torch.testing.assert_close(
            best.mean["head.classify.weight"] * temperature, last.mean["head.classify.weight"], rtol=1e-3, atol=1e-6
        )
    path = tmp_path / "best.safetensors"
    checkpoint.save(best, path)
    validation = open_windows(scenes / "validation")
    recipe = FinetuneRecipe()
    assert finetune.calibrate(path, validation, recipe, Workers(1)) == Calibration(
        temperature, tuple(bias)
    )  # not twice
    checkpoint.save(dataclasses.replace(best, provenance={}), path)
    again = finetune.calibrate(path, validation, recipe, Workers(1))
    assert again.temperature == pytest.approx(1.0, abs=0.02)
    assert np.abs(again.class_bias).max() < 0.02
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=tmp_path / "model.onnx")
    contract = read_model(tmp_path / "model.onnx").contract
    assert contract.provenance["training"]["temperature"] == temperature
    assert contract.provenance["training"]["class_bias"] == bias


# --- in the report


def labelled(masks: list[NDArray[np.uint8]], labels: tuple[str, ...]) -> Windows:
    count = len(masks)
    pictures = np.zeros((count, 64, 64), np.float16)
    nothing = np.full(count, np.nan, np.float32)
    return Windows(pictures, np.stack(masks), np.zeros(count, np.float32), nothing, np.arange(count), labels)


def test_noise_and_other_signals_are_reported_apart() -> None:
    labels = ("background", "LTE", "other")
    noise, other, both, unknown, perhaps = (np.zeros((64, 64), np.uint8) for _ in range(5))
    other[:8] = 2
    both[:8], both[8:16] = 1, 2
    unknown[:], perhaps[:] = IGNORED, UNNAMED
    windows = labelled([noise, noise, other, both, unknown, perhaps], labels)

    def predict(_: object) -> Predicted:
        guess = np.zeros((6, 64, 64), np.int64)
        guess[0, :16] = 2  # a quarter of the first window of noise is called other
        guess[2, :4] = 1  # half of the other signal is called LTE,
        guess[2, 4:8] = 2
        guess[2, 32:48] = 2  # and some of the noise beside it other, which is no name
        guess[5, :16], guess[5, 16:] = 1, 2  # a quarter of what is noise or other is called LTE
        return Predicted(guess, np.full((6, 64, 64), 0.8, np.float32))

    report = measure(windows, predict, 6)
    assert report["noise_only"] == {"windows": 2, "signal_share": 0.125}
    assert report["other_only"] == {"windows": 2, "named_share": (0.0625 + 0.25) / 2}
    assert report["calibration"]["all_pixels"]["reliability"][0]["pixels"] == 4 * 64 * 64
    assert report["calibration"]["signal_pixels"]["reliability"][0]["pixels"] == (16 + 8 + 16) * 64
    assert json.dumps(report, allow_nan=False)


def test_the_table_of_six_labels_is_read_in_80_columns(
    finetuned: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main(model=finetuned / checkpoint.BEST, data=scenes, out=tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    for part in (report, report["energy_detector"]):
        for entry in (part["overall"], part["from_10_db"], *part["by_snr_db"].values()):
            entry["iou"] |= {"WLAN": 0.1234, "Bluetooth": 0.2345, "other": None}
    report["labels"] += ["WLAN", "Bluetooth", "other"]
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")
    evaluate.show(report, "best.safetensors")
    shown = capsys.readouterr().out
    assert len(re.findall(r"0\.123 +0\.234 +- +0\.\d{3}", shown)) == 2 * (2 + len(report["by_snr_db"]))
    assert "…" not in shown


def test_the_report_has_the_calibration_and_its_picture(finetuned: Path, scenes: Path, tmp_path: Path) -> None:
    evaluate.main(model=finetuned / checkpoint.BEST, data=scenes, out=tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["labels"] == ["background", "LTE", "NR"]
    assert 0 <= report["calibration"]["all_pixels"]["expected_calibration_error"] < 0.2
    assert "calibration" not in report["energy_detector"]  # it has no confidence
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_windows_with_other_labels_are_refused(finetuned: Path, scenes: Path, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        (tmp_path / split).mkdir()
        for path in (scenes / split).iterdir():
            (tmp_path / split / path.name).symlink_to(path)
        record = json.loads((scenes / split / "scenes.json").read_text()) | {"labels": ["background", "WLAN", "NR"]}
        (tmp_path / split / "scenes.json").unlink()
        (tmp_path / split / "scenes.json").write_text(json.dumps(record))
    call = {"model": finetuned / checkpoint.BEST, "data": tmp_path, "out": tmp_path / "report.json"}
    with pytest.raises(ModelError, match="labelled background, WLAN, NR, the model knows background, LTE, NR"):
        evaluate.main(**call)
    right = json.loads((scenes / "test" / "scenes.json").read_text())
    (tmp_path / "test" / "scenes.json").write_text(json.dumps(right))
    with pytest.raises(ModelError, match="validation are labelled background, WLAN, NR"):  # the detector is tuned there
        evaluate.main(**call)
    (tmp_path / "test" / "scenes.json").write_text(json.dumps(right | {"spec": right["spec"] | {"db_scale": 30.0}}))
    with pytest.raises(SpecMismatch, match=r"test were made with db_scale 30\.0, not 20\.0"):
        evaluate.main(**call)


def test_windows_without_a_label_are_nothing_to_measure_on(finetuned: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "data")
    masks = np.load(tmp_path / "data" / "test" / "masks.npy")
    np.save(tmp_path / "data" / "test" / "masks.npy", np.full_like(masks, IGNORED))
    with pytest.raises(RecordingError, match=r"no pixel .* has a label"):
        evaluate.main(model=finetuned / checkpoint.BEST, data=tmp_path / "data", out=tmp_path / "report.json")
