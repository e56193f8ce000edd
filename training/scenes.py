# SPDX-License-Identifier: Apache-2.0
"""Generate labelled windows: ``python -m training.scenes --out runs/scenes``."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import replace_file
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, spectrogram, tiles
from training.command import progress_bar, run
from training.datasets import LABELS, create_windows
from training.signals.scene import Scene, SceneSettings, random_scene

# The seeds of splits are far apart, so that no scene is in two of them.
SPLIT_SEEDS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
TEST_SNRS_DB = (-5.0, 0.0, 10.0, 20.0, 30.0)


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


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the splits to.")] = Path("runs/scenes"),
    train: Annotated[int, typer.Option(help="Windows to train on.", min=0)] = 6400,
    validation: Annotated[int, typer.Option(help="Windows to choose the best epoch on.", min=0)] = 320,
    test: Annotated[int, typer.Option(help="Windows to report figures on, spread over fixed SNRs.", min=0)] = 600,
    seed: Annotated[int, typer.Option(help="Offset of all scene seeds.", min=0)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to generate in parallel.", min=1)] = os.cpu_count() or 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing splits.")] = False,
) -> None:
    """Generate scenes of LTE, NR, other signals and noise, and write their spectrograms and masks."""
    counts = {split: count for split, count in (("test", test), ("validation", validation), ("train", train)) if count}
    for split in counts:
        if (out / split).exists() and not overwrite:
            raise OutputError(f"{out / split} exists; --overwrite replaces it, or name another folder with --out")
    for split, count in counts.items():
        try:
            _write_split(out / split, split, count, seed, jobs)
        except OSError as error:
            raise OutputError(f"cannot write {out / split}: {error.strerror or error}") from error


def _write_split(folder: Path, split: str, count: int, seed: int, jobs: int) -> None:
    spec, settings = SpectrogramSpec(), SceneSettings()
    make = functools.partial(make_test_window if split == "test" else make_window, settings=settings, spec=spec)
    first = SPLIT_SEEDS[split] + seed
    # Its presence says that the windows are complete: it goes before the first is replaced and comes after the last.
    record = folder / "scenes.json"
    record.unlink(missing_ok=True)
    windows = create_windows(folder, count, spec)
    with multiprocessing.Pool(jobs, _leave_interrupts_to_parent) as pool, progress_bar() as progress:
        task = progress.add_task(split, total=count)
        for index, window in enumerate(pool.imap(make, range(first, first + count), chunksize=4)):
            windows.pictures[index] = window.picture
            windows.masks[index] = window.mask
            windows.bin_widths[index] = window.bin_width
            windows.snr_db[index] = window.snr_db
            windows.scenes[index] = window.scene
            progress.advance(task)
    fields = {"split": split, "count": count, "first_seed": first, "settings": dataclasses.asdict(settings)}
    replace_file(record, json.dumps(fields | {"spec": dataclasses.asdict(spec)}, indent=2).encode())


def _leave_interrupts_to_parent() -> None:
    """Ctrl-C goes to every process of the terminal; the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    run(main)
