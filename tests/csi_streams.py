# SPDX-License-Identifier: Apache-2.0
"""CSI of a room where somebody moves or nobody does, and a small model that tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.contract import ModelContract, ModelFile, read_model
from rfvit_rt.csi import CSISpec, bin_width_feature, csi_picture, csi_windows
from rfvit_rt.datatypes import CSIFrame

LABELS = ("still", "moving")
SPEC = CSISpec(n_steps=32, n_bins=32, doppler_steps=15, gain="none")
WINDOW = SPEC.window_seconds  # 1.6 s
RATE = 50.0  # frames per second
POINTS = np.arange(-32, 32)
USED = np.abs(POINTS) <= 26
USED[32] = False  # the carrier
DEVICE = "made for tests, 20 MHz"


def channels(moving: Sequence[bool], seconds: float, seed: int = 0, rate: float = RATE) -> NDArray[np.complex64]:
    """Channel estimates, (frame, FFT point), of stretches of `seconds` each: walls, and one path that grows or not."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    speed = np.repeat(np.where(moving, rng.uniform(2, 4), 0.0), count)  # changes of the path, in wavelengths per second
    phase = 2 * np.pi * np.cumsum(speed) / rate
    walls = np.exp(1j * rng.uniform(0, 6.3)) * (1 + 0.3 * np.exp(1j * (POINTS / 9 + rng.uniform(0, 6.3))))
    person = 0.5 * np.exp(1j * (phase[:, None] + POINTS / rng.uniform(5, 12)))
    noise = rng.normal(0, 0.02, (2, len(moving) * count, len(POINTS)))
    return (500 * USED * (walls + person + noise[0] + 1j * noise[1])).astype(np.complex64)


def frames(csi: NDArray[np.complex64], rate: float = RATE, start: float = 0.0) -> Iterator[CSIFrame]:
    """The same as frames of one antenna."""
    for number, row in enumerate(csi):
        yield CSIFrame(row[None, USED], POINTS[USED].astype(np.int16), start + number / rate, number, DEVICE)


def make_model(path: Path, spec: CSISpec = SPEC, rate: float = RATE) -> ModelFile:
    """Train a very small network for a moment to tell moving from still, and export it as real ones are."""
    torch = pytest.importorskip("torch", reason="the test model is made with torch: pip install -e '.[train]'")
    from rfvit_rt.vit import ActivityClassifier, ActivityProbabilities, VitConfig
    from training.export import make_golden, write_model

    pictures, labels = [], []
    for seed in range(1, 25):
        for label in (0, 1):
            stream = frames(channels([bool(label)], 2 * spec.window_seconds, seed, rate), rate)
            for window in csi_windows(stream, spec, spec.window_seconds / 2):
                pictures.append(csi_picture(window, spec))
                labels.append(label)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(1)
        config = VitConfig(spec.n_steps, spec.n_bins, len(LABELS), width=32, depth=1, heads=2)
        classifier = ActivityClassifier(config)
        inputs = torch.from_numpy(np.stack(pictures)), torch.full((len(pictures),), bin_width_feature(spec))
        optimiser = torch.optim.Adam(classifier.parameters(), 3e-3)
        for _ in range(40):
            loss = torch.nn.functional.cross_entropy(classifier(*inputs), torch.tensor(labels))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert loss < 0.1
        with torch.no_grad():
            for weight in classifier.parameters():
                weight.copy_(weight.half())  # exported weights are float16
        network = ActivityProbabilities(classifier.eval())
        golden = make_golden(network, pictures[0], bin_width_feature(spec), spec)
        contract = ModelContract("motion", "activity", LABELS, spec, golden, {"vit": dataclasses.asdict(config)})
        write_model(network, contract, path)
    finally:
        torch.set_num_threads(threads)
    return read_model(path)
