# SPDX-License-Identifier: Apache-2.0
"""The torch front end against the NumPy spectrogram, and the whole graph against its parts and as ONNX."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from rfvit_rt.engines import PICTURE_TOLERANCE_DB
from rfvit_rt.engines.iq_model import iq_words
from rfvit_rt.errors import SpecMismatch
from rfvit_rt.spectrogram import (
    SpectrogramSpec,
    bin_width_feature,
    join_tiles,
    noise_floor,
    picture,
    power,
    spectrogram,
    tiles,
)

torch = pytest.importorskip("torch", reason="the graph is a torch module: pip install -e '.[train]'")

from rfvit_rt.iq_graph import OUTPUTS, FrontEnd, IQGraph, to_onnx  # noqa: E402
from rfvit_rt.vit import Probabilities, Segmenter, VitConfig  # noqa: E402

SPEC = SpectrogramSpec()
SMALL = SpectrogramSpec(n_steps=48, n_bins=64, tile_overlap=16)
IQ = NDArray[np.complex64]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(rate: float, seed: int = 1, spec: SpectrogramSpec = SPEC) -> IQ:
    count = spec.window_length(rate)
    return np.random.default_rng(seed).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]


def in_band(samples: IQ, low: float, high: float) -> IQ:
    """Only what lies between two frequencies, in parts of the sample rate from -0.5 to 0.5."""
    offset = np.fft.fftfreq(len(samples))
    return np.fft.ifft(np.fft.fft(samples) * ((low <= offset) & (offset < high))).astype(np.complex64)


def picture_of(samples: IQ, rate: float, spec: SpectrogramSpec = SPEC) -> NDArray[np.float32]:
    front_end = FrontEnd(spec, rate, "cf32_le")
    with torch.inference_mode():
        return front_end(torch.from_numpy(iq_words(samples[None])))[0].numpy()


def deviation_db(samples: IQ, rate: float) -> float:
    difference = picture_of(samples, rate) - spectrogram(samples, rate, SPEC)
    return float(np.abs(difference).max()) * SPEC.db_scale


def occupied(rate: float) -> IQ:
    """Full to the edges, and nowhere quiet."""
    return noise(rate) * np.linspace(1, 3, SPEC.window_length(rate), dtype=np.float32)


def behind_filter(rate: float) -> IQ:
    """A receiver whose skirts take a fifth of the band."""
    return in_band(noise(rate), -0.4, 0.4) * np.float32(0.01) + noise(rate, 2) * np.float32(1e-5)


def bursts(rate: float) -> IQ:
    """Two carriers, one of them 40 dB over the noise and there for a third of the time."""
    samples = noise(rate) + in_band(noise(rate, 2), -0.3, -0.1) * np.float32(100)
    samples[len(samples) // 3 :] -= in_band(noise(rate, 2), -0.3, -0.1)[len(samples) // 3 :] * np.float32(100)
    return samples + in_band(noise(rate, 3), 0.2, 0.4) * np.float32(3)


def too_strong(rate: float) -> IQ:
    """100 dB over the noise: the floor is raised."""
    return in_band(noise(rate), -0.2, 0.2) * np.float32(1e5) + noise(rate, 2)


def no_level_is_shared(rate: float) -> IQ:
    """Every bin at a level of its own: the densest stretch is the floor."""
    spectrum = np.fft.fft(noise(rate)) * 10 ** (np.abs(np.fft.fftfreq(SPEC.window_length(rate))) * 10)
    return np.fft.ifft(spectrum).astype(np.complex64)


@pytest.mark.parametrize("rate", [1.92e6, 2e6, 7.68e6, 17.77e6, 61.44e6, 61.5e6, 245.76e6])
def test_the_picture_of_noise_and_a_tone_at_every_rate(rate):
    samples = noise(rate)
    samples[len(samples) // 2 :] += 10 * np.exp(2j * np.pi * 0.13 * np.arange(len(samples) - len(samples) // 2))
    assert deviation_db(samples, rate) < PICTURE_TOLERANCE_DB / 20  # some 1e-5 dB; the rest is for GPUs


@pytest.mark.parametrize("scene", [occupied, behind_filter, bursts, too_strong, no_level_is_shared])
@pytest.mark.parametrize("rate", [4e6, 5.123e6])
def test_the_picture_of_scenes_that_are_hard_on_the_floor(scene, rate):
    samples = scene(rate)
    assert picture_of(samples, rate).std() > 0.01
    assert deviation_db(samples, rate) < PICTURE_TOLERANCE_DB


def test_the_scene_without_a_shared_level_has_none():
    """Or the case above does not take the branch that it is there for."""
    energy = power(no_level_is_shared(4e6), 4e6, SPEC)
    levels = np.sort(10 * np.log10(np.partition(energy, 25, axis=0)[25]))
    assert (levels[15:] - levels[:-15]).min() > SPEC.floor_spread


@pytest.mark.parametrize("seed", range(8))
def test_the_floor_itself(seed):
    rng = np.random.default_rng(seed)
    samples = bursts(2e6) * np.float32(10 ** rng.uniform(-6, 6)) + noise(2e6, seed) * np.float32(
        10 ** rng.uniform(-6, 6)
    )
    energy = power(samples, 2e6, SPEC)
    with torch.inference_mode():
        floor = FrontEnd(SPEC, 2e6, "cf32_le").floor_db(torch.from_numpy(energy[None]))
    assert float(floor[0, 0]) == pytest.approx(10 * np.log10(noise_floor(energy, 2e6, SPEC)), abs=1e-3)


def test_silence_gives_zero():
    assert not picture_of(np.zeros(SPEC.window_length(2e6), np.complex64), 2e6).any()


@pytest.mark.parametrize("pixels", [1, 160, 512])
def test_a_short_burst_without_noise_is_no_stripe_over_the_band(pixels):
    """Where less than a hundredth of all has any power, the strongest of all limits the dynamic range."""
    energy = np.zeros((256, 256), np.float32)
    energy[10:12] = 1e-14  # what rounding leaves beside it
    energy[10:12].reshape(-1)[:pixels] = 1
    expected = 10 ** (-SPEC.dynamic_range / 10)
    assert noise_floor(energy, 2e6, SpectrogramSpec()) == pytest.approx(expected)
    assert (picture(energy, noise_floor(energy, 2e6, SpectrogramSpec()), SpectrogramSpec()) > 0).sum() == pixels
    with torch.inference_mode():
        floor = FrontEnd(SpectrogramSpec(), 2e6, "cf32_le").floor_db(torch.from_numpy(energy[None]))
    assert float(floor[0, 0]) == pytest.approx(10 * np.log10(expected), abs=1e-4)
    energy[:] = 0
    assert noise_floor(energy, 2e6, SpectrogramSpec()) == 0


def test_silence_in_all_but_one_step_is_no_floor():
    samples = np.zeros(SPEC.window_length(2e6), np.complex64)
    samples[40_000:40_300] = noise(2e6)[:300]
    assert deviation_db(samples, 2e6) < PICTURE_TOLERANCE_DB


def test_integers_are_the_same_samples():
    """At both ends of their range, where halves of a word run into each other."""
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, (1, SPEC.window_length(2e6), 2), np.int16)
    samples[0, :4] = [[-32768, -32768], [32767, 32767], [-1, 32767], [-32768, -1]]
    floats = (samples.astype(np.float32) / 2**15).view(np.complex64)[..., 0]
    integer, real = FrontEnd(SPEC, 2e6, "ci16_le"), FrontEnd(SPEC, 2e6, "cf32_le")
    with torch.inference_mode():
        found = integer(torch.from_numpy(iq_words(samples)))
        expected = real(torch.from_numpy(iq_words(floats)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("iq", [np.zeros((1, 5)), np.zeros(5, np.complex64), np.zeros((1, 5, 3), np.int16)])
def test_other_arrays_are_refused(iq):
    with pytest.raises(ValueError, match="complex64 or"):
        iq_words(iq)


def test_rates_that_the_spec_does_not_fit_are_refused():
    with pytest.raises(SpecMismatch, match="resample"):
        FrontEnd(SPEC, 1e6, "cf32_le")
    with pytest.raises(SpecMismatch, match="take 8192 bins, the graph that takes IQ at most 4096"):
        FrontEnd(SpectrogramSpec(max_sample_rate=2e9), 1.5e9, "cf32_le")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    segmenter = Segmenter(VitConfig(SMALL.n_steps, SMALL.n_bins, 3, width=32, depth=2, heads=2)).eval()
    with torch.no_grad():
        segmenter.head.classify.weight.mul_(8)
    return Probabilities(segmenter)


def labelled_in_parts(network, samples: IQ, rate: float) -> NDArray[np.float32]:
    cut = tiles(spectrogram(samples, rate, SMALL), SMALL)
    widths = torch.full((len(cut),), bin_width_feature(rate, SMALL))
    with torch.inference_mode():
        outputs = network(torch.from_numpy(cut), widths).numpy()
    return join_tiles(outputs, SMALL.n_fft(rate), SMALL)


@pytest.mark.parametrize("rate", [4e6, 20e6, 61e6])  # one tile, two, and seven that overlap unevenly
def test_labels_are_those_of_the_parts(network, rate):
    windows = np.stack([noise(rate, seed, SMALL) for seed in range(2)])
    windows[1] *= np.linspace(1, 5, windows.shape[1])
    graph = IQGraph(network, SMALL, rate, "cf32_le")
    with torch.inference_mode():
        masks, probabilities, pictures = (part.numpy() for part in graph(torch.from_numpy(iq_words(windows))))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, probabilities.argmax(axis=3))
    for window, labels, made in zip(windows, probabilities, pictures, strict=True):
        np.testing.assert_allclose(made, spectrogram(window, rate, SMALL), atol=1e-4)
        np.testing.assert_allclose(labels, labelled_in_parts(network, window, rate), atol=1e-4)
    assert len(np.unique(masks)) > 1


@pytest.mark.parametrize(("item_type", "rate"), [("ci16_le", 4e6), ("cf32_le", 20e6)])
def test_onnx_gives_the_same(network, item_type, rate):
    runtime = pytest.importorskip("onnxruntime", reason="pip install -e '.[test]'")
    graph = IQGraph(network, SMALL, rate, item_type)
    content = to_onnx(graph, {"about": json.dumps(rate)})
    iq = np.random.default_rng(1).integers(-3000, 3000, (3, SMALL.window_length(rate), 2), np.int16)
    if item_type == "cf32_le":
        iq = iq.astype(np.float32).view(np.complex64)[..., 0]
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"iq": iq_words(iq)}), strict=True))
    with torch.inference_mode():
        expected = dict(zip(OUTPUTS, graph(torch.from_numpy(iq_words(iq))), strict=True))
    np.testing.assert_allclose(found["pictures"], expected["pictures"], atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-4)
    assert np.mean(found["masks"] == expected["masks"].numpy()) > 0.9995  # all but ties
    outputs = onnx.load_model_from_string(content).graph.output
    sizes = [[size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim] for output in outputs]
    assert sizes[1] == ["batch", SMALL.n_steps, SMALL.n_fft(rate), 3]


def test_onnx_of_a_band_that_tensorrt_cannot_search_is_refused(network):
    wide = SpectrogramSpec()
    with pytest.raises(SpecMismatch, match="largest 5242 of its pixels, TensorRT finds 3839 at most"):
        to_onnx(IQGraph(network, wide, 400e6, "ci16_le"), {})
