# SPDX-License-Identifier: Apache-2.0
"""Generate labelled windows: ``python -m training.scenes --out runs/scenes``."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, spectrogram, tiles
from training.datasets import LABELS, create_windows
from training.signals.scene import Scene, SceneSettings, random_scene

# The seeds of splits are far apart, so that no scene is in two of them.
SPLIT_SEEDS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
TEST_SNRS_DB = (-5.0, 0.0, 10.0, 20.0, 30.0)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledWindow:
    """One model input, its mask, and what it came from; fields as in :class:`training.datasets.Windows`."""

    picture: NDArray[np.float16]
    mask: NDArray[np.uint8]
    bin_width: float
    snr_db: float
    scene: int


def labelled_window(scene: Scene, seed: int, spec: SpectrogramSpec) -> LabelledWindow:
    """Turn a scene of one window's length into a model input with its mask."""
    image = spectrogram(scene.samples, scene.sample_rate, spec)
    snr_db = max((carrier.snr_db for carrier in scene.carriers), default=np.nan)
    mask = scene.mask(spec, LABELS)
    return LabelledWindow(
        tiles(image, spec)[0].astype(np.float16),
        mask[:, : spec.n_bins],
        bin_width_feature(scene.sample_rate, spec),
        snr_db,
        seed,
    )


def make_window(seed: int, settings: SceneSettings, spec: SpectrogramSpec) -> LabelledWindow:
    """Generate the window of one seed; the same seed gives the same window."""
    return labelled_window(random_scene(settings, np.random.default_rng(seed)), seed, spec)


def make_test_window(seed: int, settings: SceneSettings, spec: SpectrogramSpec) -> LabelledWindow:
    """Generate a window of the test split: its carriers share one of the SNRs that results are reported at."""
    snr_db = TEST_SNRS_DB[seed % len(TEST_SNRS_DB)]
    return make_window(seed, dataclasses.replace(settings, snr_db=(snr_db, snr_db)), spec)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder to write the splits to.")] = Path("runs/scenes"),
    train: Annotated[int, typer.Option(help="Windows to train on.")] = 6000,
    validation: Annotated[int, typer.Option(help="Windows to choose the best epoch on.")] = 400,
    test: Annotated[int, typer.Option(help="Windows that figures are reported on, spread over fixed SNRs.")] = 1000,
    seed: Annotated[int, typer.Option(help="Offset of all scene seeds.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to generate in parallel.")] = os.cpu_count() or 1,
) -> None:
    """Generate scenes of LTE, NR, other signals and noise, and write their spectrograms and masks."""
    for split, count in (("test", test), ("validation", validation), ("train", train)):
        if count:
            _write_split(out / split, split, count, seed, jobs)


def _write_split(folder: Path, split: str, count: int, seed: int, jobs: int) -> None:
    spec, settings = SpectrogramSpec(), SceneSettings()
    make = functools.partial(make_test_window if split == "test" else make_window, settings=settings, spec=spec)
    first = SPLIT_SEEDS[split] + seed
    windows = create_windows(folder, count, spec)
    columns = (TextColumn(f"{split:10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with multiprocessing.Pool(jobs) as pool, Progress(*columns) as progress:
        task = progress.add_task(split, total=count)
        for index, window in enumerate(pool.imap(make, range(first, first + count), chunksize=4)):
            windows.pictures[index] = window.picture
            windows.masks[index] = window.mask
            windows.bin_widths[index] = window.bin_width
            windows.snr_db[index] = window.snr_db
            windows.scenes[index] = window.scene
            progress.advance(task)
    record = {"split": split, "count": count, "first_seed": first, "settings": dataclasses.asdict(settings)}
    (folder / "scenes.json").write_text(json.dumps(record | {"spec": dataclasses.asdict(spec)}, indent=2))


if __name__ == "__main__":
    app()
