# SPDX-License-Identifier: Apache-2.0
"""A small model of random weights, exported as real ones are, and ways to damage it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from rfvit_rt.contract import ModelContract, ModelFile, Spec, read_model
from rfvit_rt.csi import CSISpec
from rfvit_rt.spectrogram import SpectrogramSpec

NEEDS_TORCH = "the test model is made with torch: pip install -e '.[train]'"
LABELS = ("background", "LTE", "NR")
CSI_SPEC = CSISpec(n_steps=48, n_bins=64)
SPEC = SpectrogramSpec(n_steps=48, n_bins=64, tile_overlap=16)  # of unequal sides, so that a mix-up of the axes shows

Tamper = Callable[[onnx.ModelProto], None]
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A model file with a true contract."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from rfvit_rt.vit import Probabilities, Segmenter, VitConfig
    from training.export import make_golden, to_onnx

    torch.manual_seed(1)
    config = VitConfig(SPEC.n_steps, SPEC.n_bins, len(LABELS), width=32, depth=2, heads=2)
    segmenter = Segmenter(config).eval()
    with torch.no_grad():
        segmenter.head.classify.weight.mul_(8)  # probabilities far from uniform, and moved by every input: errors show
        segmenter.encoder.bin_width[2].weight.mul_(8)
        for weight in segmenter.parameters():
            weight.copy_(weight.half())  # exported weights are float16
    network = Probabilities(segmenter)
    golden = make_golden(network, batch_of(1, seed=2)[0][0], 0.5, SPEC)
    provenance = {"vit": dataclasses.asdict(config)}
    contract = ModelContract("small", "segmentation", LABELS, SPEC, golden, provenance)
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    path.write_bytes(to_onnx(network, contract).SerializeToString())
    return read_model(path)


@pytest.fixture(scope="session")
def activity_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A model file that labels pictures of CSI as a whole."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from rfvit_rt.vit import ActivityClassifier, ActivityProbabilities, VitConfig
    from training.export import make_golden, to_onnx

    torch.manual_seed(2)
    config = VitConfig(CSI_SPEC.n_steps, CSI_SPEC.n_bins, 4, width=32, depth=2, heads=2)
    classifier = ActivityClassifier(config).eval()
    with torch.no_grad():
        classifier.classify.weight.mul_(8)
        for weight in classifier.parameters():
            weight.copy_(weight.half())  # exported weights are float16
    network = ActivityProbabilities(classifier)
    picture = np.random.default_rng(3).normal(0, 1, (CSI_SPEC.n_steps, CSI_SPEC.n_bins)).astype(np.float32)
    golden = make_golden(network, picture, 0.5, CSI_SPEC)
    provenance = {"vit": dataclasses.asdict(config)}
    contract = ModelContract("moves", "activity", ("fall", "sit", "stand", "walk"), CSI_SPEC, golden, provenance)
    path = tmp_path_factory.mktemp("model") / "moves.onnx"
    path.write_bytes(to_onnx(network, contract).SerializeToString())
    return read_model(path)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Torch's idle threads spin: where others load the machine, more of them make small networks far slower."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def damaged(model: ModelFile, tmp_path: Path) -> Callable[[Tamper], ModelFile]:
    """Return a function that copies the model: its contract as it was, its graph as `tamper` leaves it."""

    def damage(tamper: Tamper) -> ModelFile:
        proto = onnx.load_model_from_string(model.path.read_bytes())
        tamper(proto)
        path = tmp_path / "damaged.onnx"
        path.write_bytes(proto.SerializeToString())
        return read_model(path)

    return damage


@pytest.fixture
def promising(model: ModelFile) -> Callable[..., ModelFile]:
    """Return a function that changes fields of the model's contract."""

    def promise(**changes: Any) -> ModelFile:
        return dataclasses.replace(model, contract=dataclasses.replace(model.contract, **changes))

    return promise


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """Return a function that draws a batch of model inputs."""
    return batch_of


def batch_of(count: int, seed: int = 1, spec: Spec = SPEC) -> Batch:
    """Draw noise with a raised band in each picture, and a bin width for each."""
    rng = np.random.default_rng(seed)
    pictures = rng.normal(0, 0.2, (count, spec.n_steps, spec.n_bins)).astype(np.float32)
    for picture in pictures:
        first = rng.integers(0, spec.n_bins // 2)
        picture[rng.integers(0, spec.n_steps // 2) :, first : first + spec.n_bins // 3] += rng.uniform(0.2, 2)
    return pictures.clip(spec.picture_min, spec.picture_max), rng.uniform(-1, 2, count).astype(np.float32)
