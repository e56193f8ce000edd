# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from rfvit_rt.contract import read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.engines.iq_model import IQ_KEY, IQModel, iq_words
from rfvit_rt.errors import EngineError, ModelError, OutputError, SpecMismatch
from rfvit_rt.models import default_model
from training import export_iq

RATE = 2e6


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "iq.onnx"
    export_iq.main(sample_rate=RATE, out=out)
    return out


def test_the_file_says_what_it_is(exported: Path) -> None:
    shipped = default_model()
    assert read_model(exported).contract.labels == shipped.contract.labels
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert json.loads(metadata[IQ_KEY]) == {
        "sample_rate": RATE,
        "item_type": "ci16_le",
        "model_sha256": shipped.sha256,
    }


def test_the_file_gives_what_the_engine_does(exported: Path) -> None:
    count = default_model().contract.spectrogram.window_length(RATE)
    iq = np.random.default_rng(1).integers(-900, 900, (2, count, 2), np.int16)
    iq[:, count // 2 :] *= 8
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    masks, probabilities, pictures = session.run(["masks", "probabilities", "pictures"], {"iq": iq_words(iq)})
    with load_engine(default_model(), "torch", device="cpu") as engine:
        expected_pictures, expected = engine.infer_iq(iq, RATE)
    np.testing.assert_allclose(pictures, expected_pictures, atol=1e-4)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(masks, probabilities.argmax(axis=3))


def test_refuses_what_does_not_fit(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--overwrite replaces it"):
        export_iq.main(sample_rate=RATE, out=exported)
    with pytest.raises(EngineError, match="takes no cf64_le; choose ci16_le or cf32_le"):
        export_iq.main(sample_rate=RATE, out=tmp_path / "a.onnx", item_type="cf64_le")
    with pytest.raises(SpecMismatch, match="resample"):
        export_iq.main(sample_rate=1e6, out=tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="is for activity, not for spectrograms"):
        export_iq.main(sample_rate=RATE, out=tmp_path / "a.onnx", model="activity-esp32-tiny")
    assert not list(tmp_path.iterdir())


def test_plans_of_different_graphs_are_told_apart() -> None:
    model = default_model()
    models = [
        IQModel.of(model, RATE, "ci16_le"),
        IQModel.of(model, RATE, "cf32_le"),
        IQModel.of(model, 2 * RATE, "ci16_le"),
        IQModel.of(replace(model, sha256="0" * 64), RATE, "ci16_le"),
    ]
    assert len({each.sha256 for each in [model, *models]}) == 5
    assert models[0].contract.name == "spectrum-small-ci16_le-2000000"
    assert IQModel.of(model, RATE, "ci16_le").sha256 == models[0].sha256
