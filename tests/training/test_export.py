# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rfvit_rt.contract import ModelFile, read_model
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import ModelError, OutputError, SpecMismatch
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.vit import Probabilities, VitConfig
from training import checkpoint, evaluate, export
from training.datasets import WindowWriter, open_windows

LABELS = ("background", "LTE", "NR")


@pytest.fixture(scope="module")
def exported(finetuned: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    out = tmp_path_factory.mktemp("models") / "small.onnx"
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=out)
    return read_model(out)


def test_the_contract_says_what_the_model_is(exported: ModelFile) -> None:
    contract = exported.contract
    assert (contract.name, contract.task, contract.labels) == ("small", "segmentation", LABELS)
    assert (contract.spectrogram.n_steps, contract.spectrogram.n_bins) == (64, 64)
    assert contract.metrics == {}
    assert contract.provenance["recipe"]["seed"] == 3
    assert contract.provenance["training"]["train_windows"] == 48
    assert contract.provenance["training"]["pretrained"]["kind"] == "pretrain"
    assert contract.provenance["software"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    assert VitConfig(**contract.provenance["vit"]).width == 48


@pytest.mark.parametrize("engine", ["openvino", "pytorch"])
def test_engines_reproduce_the_network_that_was_trained(
    engine: str, exported: ModelFile, finetuned: Path, scenes: Path
) -> None:
    windows = open_windows(scenes / "test")
    pictures, bin_widths = windows.pictures[:6].astype(np.float32), windows.bin_widths[:6]
    network = Probabilities(export.as_shipped(checkpoint.load(finetuned / checkpoint.BEST)))
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures), torch.tensor(bin_widths)).numpy()
    with load_engine(exported, engine, precision="f32") as loaded:
        actual = loaded.infer(pictures, bin_widths)
    assert actual.shape == (6, 64, 64, 3)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_rounding_to_float16_hardly_changes_the_network(finetuned: Path, scenes: Path) -> None:
    source = checkpoint.load(finetuned / checkpoint.BEST)
    shipped = export.as_shipped(source)
    rounded = {name: value.half().float() for name, value in source.mean.items()}
    assert all(torch.equal(value, rounded[name]) for name, value in shipped.state_dict().items())
    pictures = torch.from_numpy(open_windows(scenes / "test").pictures[:4].astype(np.float32))
    with torch.no_grad():
        after = shipped(pictures, torch.zeros(4)).softmax(1)
        shipped.load_state_dict(source.mean)
        before = shipped(pictures, torch.zeros(4)).softmax(1)
    assert 0 < (after - before).abs().max() < 0.02


def test_the_batch_is_free_and_weights_are_float16_by_name(exported: ModelFile, finetuned: Path) -> None:
    graph = onnx.load(exported.path).graph
    shapes = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["pictures"] == ["batch", 64, 64]
    assert shapes["bin_widths"] == ["batch"]
    assert shapes["probabilities"][0] == "batch"
    assert shapes["probabilities"][3] == 3
    stored = {weight.name: weight for weight in graph.initializer}
    for name, value in checkpoint.load(finetuned / checkpoint.BEST).mean.items():
        assert stored[name].data_type == onnx.TensorProto.FLOAT16
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored[name]), value.half().numpy())


@pytest.mark.parametrize("count", [1, 5])
def test_any_batch_goes_through_the_graph(exported: ModelFile, count: int) -> None:
    from onnx.reference import ReferenceEvaluator

    pictures = np.random.default_rng(0).normal(0, 1, (count, 64, 64)).astype(np.float32)
    (output,) = ReferenceEvaluator(str(exported.path)).run(
        None, {"pictures": pictures, "bin_widths": np.zeros(count, np.float32)}
    )
    assert output.shape == (count, 64, 64, 3)
    np.testing.assert_allclose(output.sum(axis=3), 1, atol=1e-5)


def test_the_golden_picture_shows_every_class(exported: ModelFile, scenes: Path) -> None:
    windows = open_windows(scenes / "validation")
    spec = exported.contract.spectrogram
    golden = exported.contract.golden
    pictures, _ = golden.inputs(spec)
    step = (spec.db_max - spec.db_min) / spec.db_scale / 255
    place = int(np.argmin(np.abs(windows.pictures.astype(np.float32) - pictures).max(axis=(1, 2))))
    assert np.abs(windows.pictures[place].astype(np.float32) - pictures[0]).max() <= step
    assert set(np.unique(windows.masks[place])) >= {0, 1, 2}
    assert golden.bin_width == pytest.approx(float(windows.bin_widths[place]))
    assert golden.output.shape == (4, 4, 3)


def test_a_tampered_weight_is_noticed(exported: ModelFile, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    (weight,) = [weight for weight in model.graph.initializer if weight.name == "head.classify.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, tmp_path / "tampered.onnx")
    with pytest.raises(ModelError, match="golden"):
        load_engine(read_model(tmp_path / "tampered.onnx"), "openvino")


def test_the_size_that_ships_stays_under_its_limit(tmp_path: Path) -> None:
    """With random weights: only the size and the graph at full resolution matter here."""
    from rfvit_rt.contract import Golden, ModelContract
    from rfvit_rt.vit import Probabilities, Segmenter

    spec = SpectrogramSpec()
    golden = Golden(np.zeros((256, 256), np.uint8), 0.0, np.zeros((16, 16, 3), np.float16))
    segmenter = Segmenter(VitConfig(256, 256, 3))
    segmenter.load_state_dict({name: value.half().float() for name, value in segmenter.state_dict().items()})
    model = export.to_onnx(Probabilities(segmenter), ModelContract("full", "segmentation", LABELS, spec, golden))
    # Fresh biases are all alike; none may be merged with another.
    assert {weight.name for weight in model.graph.initializer} >= set(segmenter.state_dict())
    assert model.ByteSize() < export.LARGEST_FILE


def test_reports_of_checkpoint_and_file_agree_and_go_into_the_contract(
    exported: ModelFile, finetuned: Path, scenes: Path, tmp_path: Path
) -> None:
    reports = {}
    for name, model in (("onnx", exported.path), ("torch", finetuned / checkpoint.BEST)):
        evaluate.main(model=model, data=scenes, out=tmp_path / f"{name}.json", batch_size=5)
        reports[name] = json.loads((tmp_path / f"{name}.json").read_text())
    with pytest.raises(OutputError, match="is a folder"):
        evaluate.main(model=exported.path, data=scenes, out=tmp_path)
    for name in ("miou", "class_mean_accuracy", "pixel_accuracy"):
        assert reports["onnx"]["overall"][name] == pytest.approx(reports["torch"]["overall"][name], abs=2e-3)
    assert reports["onnx"]["windows"] == 24
    assert reports["onnx"]["overall"]["miou"] > reports["onnx"]["energy_detector"]["overall"]["miou"]
    out = tmp_path / "measured.onnx"
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=out, metrics=tmp_path / "onnx.json", name="tiny")
    contract = read_model(out).contract
    assert contract.name == "tiny"
    assert contract.metrics == reports["onnx"]
    for changed in ({"labels": ["background", "LTE"]}, {"temperature": 0.5}, {"class_bias": None}):
        (tmp_path / "other.json").write_text(json.dumps(reports["onnx"] | changed))
        with pytest.raises(ModelError, match=f"about another model, with other {next(iter(changed))}"):
            export.main(
                weights=finetuned / checkpoint.BEST,
                data=scenes,
                out=tmp_path / "x.onnx",
                metrics=tmp_path / "other.json",
            )


def test_an_existing_model_is_not_overwritten(exported: ModelFile, finetuned: Path, scenes: Path) -> None:
    before = exported.path.read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=exported.path)
    assert exported.path.read_bytes() == before
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=exported.path, name="small", overwrite=True)
    assert [path.name for path in exported.path.parent.iterdir()] == ["small.onnx"]


def test_a_pretrained_encoder_alone_is_refused(pretrained: Path, scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finetune it first"):
        export.main(weights=pretrained / checkpoint.LAST, data=scenes, out=tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_report_is_refused(finetuned: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[1,")
    with pytest.raises(ModelError, match="cannot read the report"):
        export.main(
            weights=finetuned / checkpoint.BEST, data=scenes, out=tmp_path / "m.onnx", metrics=tmp_path / "report.json"
        )


def test_windows_of_another_shape_are_refused(exported: ModelFile, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        with WindowWriter(tmp_path / split, SpectrogramSpec(n_steps=32, n_bins=64), LABELS) as writer:
            writer.append(np.zeros((32, 64)), np.zeros((32, 64), np.uint8), 0.0, np.nan, 1)
            writer.finish()
    with pytest.raises(SpecMismatch, match="n_steps 32, not 64"):
        evaluate.main(model=exported.path, data=tmp_path, out=tmp_path / "report.json")


def test_a_model_that_is_too_large_is_not_written_unless_allowed(
    finetuned: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_FILE", 10_000)
    out = tmp_path / "large.onnx"
    with pytest.raises(ModelError, match="at most 10,000 ship; train a smaller one; --large allows 45,000,000"):
        export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=out)
    assert not out.exists()
    export.main(weights=finetuned / checkpoint.BEST, data=scenes, out=out, large=True)
    assert out.stat().st_size > 10_000
