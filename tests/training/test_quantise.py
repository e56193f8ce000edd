# SPDX-License-Identifier: Apache-2.0
"""Quantisation to int8, done for real with NNCF on a small model. How fast it is, is not judged here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rfvit_rt.errors import SpecMismatch
from training import checkpoint, export, quantise


def test_it_measures_int8_beside_the_other_precisions(
    finetuned: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "small.onnx"
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=model)
    quantise.main(data=scenes, out=tmp_path / "new" / "report.json", model=str(model), calibration=8, limit=12)
    report = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert report["model"] == "small"
    assert {"f32", "int8"} <= report["reports"].keys() <= {"f32", "bf16", "int8"}
    assert report["windows_per_second"].keys() == report["mask_agreement_with_f32"].keys() == report["reports"].keys()
    assert min(report["windows_per_second"].values()) > 0
    assert report["mask_agreement_with_f32"]["f32"] == 1.0
    # It is another network, and still much the same one.
    assert 0.8 < report["mask_agreement_with_f32"]["int8"] < 1.0
    kept = report["lost_miou"] <= quantise.KEPT_MIOU
    assert report["worth_it"] == (kept and report["speedup"] > 1)
    assert "worth it" in capsys.readouterr().out
    assert sys.modules.get("openvino_telemetry") is None  # nothing is reported to anybody


def test_windows_of_another_shape_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="made with n_steps 64, not 256"):
        quantise.main(data=scenes, out=tmp_path / "report.json", model="spectrum-small")
