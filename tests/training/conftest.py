# SPDX-License-Identifier: Apache-2.0
"""Small labelled windows and a model trained on them, shared by the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.spectrogram import SpectrogramSpec

torch = pytest.importorskip("torch", reason="training needs torch; pip install -e '.[train]'")

from training.datasets import IGNORED, WindowWriter  # noqa: E402

torch.set_num_threads(1)  # small networks gain nothing from more, and lose by far where other processes run


@pytest.fixture(autouse=True)
def keep_denormals() -> Iterator[None]:
    """Training flushes denormal numbers to zero in the whole process; the tests after it must not notice."""
    yield
    torch.set_flush_denormal(False)


LABELS = ("background", "LTE", "NR")
SPEC = SpectrogramSpec(n_steps=64, n_bins=64, tile_overlap=16)
COUNTS = {"train": 48, "validation": 16, "test": 24}
RECIPE = """
seed = 3
{more}
[model]
width = 48
depth = 2
heads = 3

[optimisation]
steps = {steps}
batch_size = 8
learning_rate = 4e-3
ema_decay = 0.9
log_every = 2
checkpoint_every = 5
threads = 2
precision = "f32"
"""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits: noise, an LTE stripe that is always on, an NR stripe that comes in bursts; a quarter is empty."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(7)
    seed = 0
    for split, count in COUNTS.items():
        with WindowWriter(root / split, SPEC, LABELS) as writer:
            for place in range(count):
                seed += 1
                picture = rng.normal(0, 0.05, (64, 64))
                mask = np.zeros((64, 64), np.uint8)
                empty = place % 4 == 0
                snr_db = float(rng.choice([0.0, 10.0, 20.0, 30.0]))
                if not empty:
                    low, high = int(rng.integers(2, 18)), int(rng.integers(34, 46))
                    mask[:, low : low + 12] = 1
                    mask[np.arange(64) % 8 < 3, high : high + 16] = 2
                    picture[mask > 0] += 0.4 + snr_db / 20
                if place % 10 == 9:
                    mask[40:], picture[40:] = IGNORED, 0
                writer.append(picture, mask, rng.uniform(-1, 2), np.nan if empty else snr_db, seed)
            writer.finish()
    return root


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recipes that train a small network in seconds."""
    root = tmp_path_factory.mktemp("recipes")
    texts = {
        "pretrain": RECIPE.format(more="", steps=10)
        + '[masking]\ndecoder_width = 24\nregion = 2\ntarget = "textures"\n',
        "finetune": RECIPE.format(more="validate_every = 40", steps=80),
    }
    for kind, text in texts.items():
        (root / f"{kind}.toml").write_text(text)
    return {kind: root / f"{kind}.toml" for kind in texts}


@pytest.fixture(scope="session")
def pretrained(scenes: Path, recipes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pretraining run."""
    from training import pretrain

    out = tmp_path_factory.mktemp("runs") / "pretrain"
    pretrain.main(config=recipes["pretrain"], data=scenes, out=out)
    return out


@pytest.fixture(scope="session")
def finetuned(
    scenes: Path, recipes: dict[str, Path], pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a finetuning run that starts from the pretrained encoder."""
    from training import finetune

    out = tmp_path_factory.mktemp("runs") / "finetune"
    finetune.main(config=recipes["finetune"], data=scenes, out=out, init=pretrained / "last.safetensors")
    return out
