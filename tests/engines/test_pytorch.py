# SPDX-License-Identifier: Apache-2.0
"""What only the torch engine does: it is the reference that others are held to."""

from __future__ import annotations

import numpy as np
import pytest

from rfvit_rt.engines import load_engine, prove, prove_iq
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.models import find_model, model_names
from rfvit_rt.spectrogram import bin_width_feature, join_tiles, spectrogram, tiles

torch = pytest.importorskip("torch", reason="the reference needs torch: pip install -e '.[train]'")

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
TOLERANCE = 1e-4  # of any pixel's probability: f32 against f32, whose sums are ordered differently


def test_agrees_with_openvino(model, batch):
    pictures, bin_widths = batch(6)
    with (
        load_engine(model, "pytorch", device="cpu") as reference,
        load_engine(model, "openvino", precision="f32") as engine,
    ):
        expected, got = reference.infer(pictures, bin_widths), engine.infer(pictures, bin_widths)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", model_names() or [pytest.param("", marks=pytest.mark.skip(reason="no model ships in this checkout yet"))]
)
def test_agrees_with_openvino_on_what_ships(name, batch):
    model = find_model(name)
    pictures, bin_widths = batch(4, spec=model.contract.spec)
    with (
        load_engine(model, "pytorch", device="cpu") as reference,
        load_engine(model, "openvino", precision="f32") as engine,
    ):
        expected, got = reference.infer(pictures, bin_widths), engine.infer(pictures, bin_widths)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


@NEEDS_CUDA
def test_runs_on_cuda_as_on_the_processor(model, batch):
    pictures, bin_widths = batch(6)
    with (
        load_engine(model, "pytorch", device="cpu") as processor,
        load_engine(model, "pytorch", precision="f32", device="cuda") as cuda,
    ):
        assert torch.cuda.get_device_name() in cuda.description
        np.testing.assert_allclose(
            cuda.infer(pictures, bin_widths), processor.infer(pictures, bin_widths), atol=TOLERANCE
        )


@NEEDS_CUDA
@pytest.mark.parametrize("count", [1, 5, 8, 41])
def test_a_result_on_cuda_does_not_depend_on_its_batch(model, batch, count):
    pictures, bin_widths = batch(41)
    with load_engine(model, "torch", device="cuda") as engine:
        assert engine.precision == "f16"
        together = engine.infer(pictures, bin_widths)
        part = engine.infer(pictures[-count:], bin_widths[-count:])
    np.testing.assert_array_equal(part, together[-count:])


@NEEDS_CUDA
@pytest.mark.parametrize("precision", ["f16", "bf16", "f32"])
def test_iq_on_cuda_is_labelled_as_pictures_of_the_processor(model, precision):
    with load_engine(model, "torch", device="cuda", precision=precision) as engine:
        prove_iq(engine, model.contract.spectrogram, 20e6)
        masks = engine.mask_iq(windows_of(model, 20e6), 20e6)
        _, probabilities = engine.infer_iq(windows_of(model, 20e6), 20e6)
    np.testing.assert_array_equal(masks, probabilities.argmax(axis=3))


@pytest.mark.parametrize(("precision", "atol"), [("f16", 0.02), ("bf16", 0.1)])
def test_half_precision_is_near_the_reference(model, batch, precision, atol):
    pictures, bin_widths = batch(3)
    with (
        load_engine(model, "torch", device="cpu") as reference,
        load_engine(model, "torch", device="cpu", precision=precision) as halved,
    ):
        expected, got = reference.infer(pictures, bin_widths), halved.infer(pictures, bin_widths)
        assert halved.precision == precision
        assert precision in halved.description
        assert reference.precision == "f32"
        assert 0 < prove(halved, model) <= halved.golden_tolerance
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=atol)
    assert np.abs(got - expected).max() > 1e-5  # it does compute in fewer bits


def test_fp16_is_f16(model):
    with load_engine(model, "torch", device="cpu", precision="FP16") as engine:
        assert engine.precision == "f16"


def windows_of(model, rate, count=3):
    """Noise that grows over each window, as complex samples."""
    size = model.contract.spectrogram.window_length(rate)
    samples = np.random.default_rng(1).standard_normal((count, size, 2), np.float32).view(np.complex64)[..., 0]
    return samples * np.linspace(1, 4, size, dtype=np.float32)


@pytest.mark.parametrize("rate", [4e6, 20e6])  # 64 bins, and 128 in tiles
def test_iq_is_labelled_as_its_pictures(model, rate):
    spec = model.contract.spectrogram
    windows = windows_of(model, rate)
    with load_engine(model, "torch", device="cpu") as engine:
        pictures, probabilities = engine.infer_iq(windows, rate)
        masks = engine.mask_iq(windows, rate)
        cut = [tiles(spectrogram(window, rate, spec), spec) for window in windows]
        widths = np.full(len(cut[0]), bin_width_feature(rate, spec), np.float32)
        expected = np.stack([join_tiles(engine.infer(part, widths), spec.n_fft(rate), spec) for part in cut])
    np.testing.assert_allclose(pictures, [spectrogram(window, rate, spec) for window in windows], atol=1e-4)
    np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(masks, probabilities.argmax(axis=3))
    assert len(np.unique(masks)) > 1


def test_iq_of_int16_is_labelled_as_of_floats(model):
    whole = np.round(windows_of(model, 4e6) * 2000).view(np.float32).reshape(3, -1, 2).astype(np.int16)
    floats = (whole.astype(np.float32) / 2**15).view(np.complex64)[..., 0]
    with load_engine(model, "torch", device="cpu") as engine:
        for found, expected in zip(engine.infer_iq(whole, 4e6), engine.infer_iq(floats, 4e6), strict=True):
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_rates_come_and_go(model):
    """More of them than the engine keeps graphs of."""
    rates = [4e6, 5e6, 6e6, 4e6]
    with load_engine(model, "torch", device="cpu") as engine:
        shapes = [engine.mask_iq(windows_of(model, rate, 1), rate).shape for rate in rates]
        assert len(engine._iq_passes) == 2
    assert shapes == [(1, 48, 64)] * 4


def test_windows_of_another_length_are_refused(model):
    with (
        load_engine(model, "torch", device="cpu") as engine,
        pytest.raises(ValueError, match=r"a window at 4e\+06 Hz has 30000 samples, not 29999"),
    ):
        engine.infer_iq(windows_of(model, 4e6)[:, 1:], 4e6)


def test_a_model_of_activities_takes_no_iq(activity_model):
    with load_engine(activity_model, "torch", device="cpu") as engine:
        assert not engine.takes_iq
        with pytest.raises(EngineError, match="takes pictures of CSI"):
            engine.infer_iq(np.zeros((1, 5), np.complex64), 4e6)


def test_an_engine_of_pictures_says_that_it_takes_no_iq(model):
    with load_engine(model, "openvino") as engine:
        assert not engine.takes_iq
        for method in (engine.infer_iq, engine.mask_iq):
            with pytest.raises(EngineError, match="the openvino engine takes pictures, not IQ"):
                method(np.zeros((1, 5), np.complex64), 4e6)


def test_pictures_made_with_an_error_are_not_believed(model):
    """A taper that is off by half a percent, as too few bits would make it."""
    with load_engine(model, "torch", device="cpu") as engine:
        assert prove_iq(engine, model.contract.spectrogram, 4e6) < 1e-3
        front_end = engine._iq_passes[4e6, "cf32_le"]._slots[0]._passes[1]._function.front_end
        front_end.matrix *= 1 + 0.005 * torch.rand(front_end.matrix.shape, generator=torch.manual_seed(1))
        with pytest.raises(ModelError, match=r"made at 4 MS/s .* deviate by \d.* dB .* leave --front-end gpu out"):
            prove_iq(engine, model.contract.spectrogram, 4e6)


@pytest.mark.parametrize("device", ["cuda:97", "cuda", "meta"])
def test_refuses_a_device_that_is_not_there(model, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(EngineError, match=f"torch cannot use the device '{device}' here"):
        load_engine(model, "pytorch", device=device)


def test_refuses_a_model_that_lacks_weights(damaged):
    def rename(proto):
        for tensor in proto.graph.initializer:
            if tensor.name == "encoder.embed.weight":
                tensor.name = "other"

    with pytest.raises(ModelError, match=r"it lacks 1, segmenter\.encoder\.embed\.weight among them"):
        load_engine(damaged(rename), "pytorch")


@pytest.mark.parametrize("vit", [None, {}, {"n_steps": 48}, {"rows": 3}, [], "vit"])
def test_refuses_a_contract_that_does_not_describe_the_network(promising, vit):
    with pytest.raises(ModelError, match="does not describe its network"):
        load_engine(promising(provenance={"vit": vit}), "pytorch")


@pytest.mark.parametrize("change", [{"heads": 2.0}, {"n_steps": "48"}, {"depth": None}, {"width": [32]}])
def test_refuses_sizes_that_are_not_whole_numbers(model, promising, change):
    vit = model.contract.provenance["vit"]
    with pytest.raises(ModelError, match="does not describe its network"):
        load_engine(promising(provenance={"vit": vit | change}), "pytorch")


def test_refuses_a_contract_that_describes_another_network(model, promising):
    vit = model.contract.provenance["vit"]
    for change in ({"width": 64}, {"patch": 8}, {"depth": 3}, {"mlp_ratio": -1}):
        with pytest.raises(ModelError, match=r"the weights in .* do not fit its network"):
            load_engine(promising(provenance={"vit": vit | change}), "pytorch")
    with pytest.raises(ModelError, match=r"a network of \(64, 64, 3\) steps, bins and classes"):
        load_engine(promising(provenance={"vit": vit | {"n_steps": 64}}), "pytorch")


@pytest.mark.parametrize("head", [3, None, ["decoder"], "x" * 10**6])
def test_refuses_a_head_that_there_is_not(model, promising, head):
    vit = model.contract.provenance["vit"]
    with pytest.raises(ModelError, match="there is no head") as caught:
        load_engine(promising(provenance={"vit": vit | {"head": head}}), "pytorch")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 10**9},
        {"width": 10**9, "heads": 1},
        {"width": 32768},
        {"embedding": "convolutions", "stem_features": 4096},
        {"embedding": "convolutions", "stem_features": 10**9},
    ],
)
def test_builds_no_network_that_the_file_cannot_hold(model, promising, change):
    vit = model.contract.provenance["vit"]
    with pytest.raises(ModelError, match="too small for the network"):
        load_engine(promising(provenance={"vit": vit | change}), "pytorch")
