# SPDX-License-Identifier: Apache-2.0
"""Generate labelled windows: ``python -m training.scenes --out runs/scenes``."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rfvit_rt.errors import OutputError
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, spectrogram, tiles
from training import gallery
from training.command import progress_bar, run
from training.config import RecipeError
from training.datasets import IGNORED, WindowWriter
from training.signals.scene import RULES, Scene
from training.signals.surroundings import LABELS, SceneSettings, random_scene

# The seeds of splits are far apart, so that no scene is in two of them.
SPLIT_SEEDS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
TEST_SNRS_DB = (-5.0, 0.0, 10.0, 20.0, 30.0)
N_SHOWN = 12


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledWindow:
    """One model input, its mask, and what it came from; fields as in :class:`training.datasets.Windows`."""

    picture: NDArray[np.float16]
    mask: NDArray[np.uint8]
    bin_width: float
    snr_db: float
    scene: int


def labelled_window(scene: Scene, seed: int, settings: SceneSettings, spec: SpectrogramSpec) -> LabelledWindow:
    """Turn a scene of one window's length into a model input with its mask; of a wide band, one of its tiles."""
    images = tiles(spectrogram(scene.samples, scene.sample_rate, spec), spec)
    tile = seed % len(images)
    start = spec.tile_starts(spec.n_fft(scene.sample_rate))[tile]
    labelled = scene.mask(spec, settings.labels, settings.rule)[:, start : start + spec.n_bins]
    mask = np.full(images[tile].shape, IGNORED, np.uint8)
    mask[: len(labelled)] = labelled
    named = (one.snr_db for one in scene.transmitters if one.label in settings.labels)
    return LabelledWindow(
        images[tile].astype(np.float16),
        mask,
        bin_width_feature(scene.sample_rate, spec),
        max(named, default=np.nan),
        seed,
    )


def make_window(seed: int, settings: SceneSettings, spec: SpectrogramSpec) -> LabelledWindow:
    """Generate the window of one seed; the same seed gives the same window."""
    return labelled_window(random_scene(settings, np.random.default_rng(seed)), seed, settings, spec)


def make_test_window(seed: int, settings: SceneSettings, spec: SpectrogramSpec) -> LabelledWindow:
    """Generate a window of the test split: its carriers share one of the SNRs that results are reported at."""
    snr_db = TEST_SNRS_DB[seed % len(TEST_SNRS_DB)]
    return make_window(seed, dataclasses.replace(settings, snr_db=(snr_db, snr_db)), spec)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the splits to.")] = Path("runs/scenes"),
    train: Annotated[int, typer.Option(help="Windows to train on.", min=0)] = 24_000,
    validation: Annotated[int, typer.Option(help="Windows to choose the best epoch on.", min=0)] = 400,
    test: Annotated[int, typer.Option(help="Windows to report figures on, spread over fixed SNRs.", min=0)] = 800,
    classes: Annotated[
        str, typer.Option(help="Classes that scenes are about; what else they hold is background.")
    ] = ",".join(LABELS[1:]),
    rule: Annotated[
        str,
        typer.Option(help="What is labelled: 'occupancy', pixels in use; 'carrier', its band for the whole window."),
    ] = RULES[0],
    rate: Annotated[
        float | None, typer.Option(help="The only sample rate, in Hz; 1.92 to 61.44 MS/s by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Offset of all scene seeds.", min=0)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to generate in parallel.", min=1)] = os.cpu_count() or 1,
    show: Annotated[Path | None, typer.Option(help="Only draw some scenes with their masks, to this PNG file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing splits.")] = False,
) -> None:
    """Generate scenes of LTE, NR, WLAN, Bluetooth, other signals and noise; write their spectrograms and masks."""
    settings = _settings(classes, rule, rate)
    if show is not None:
        _show(show, settings, seed)
        return
    counts = {split: count for split, count in (("test", test), ("validation", validation), ("train", train)) if count}
    for split in counts:
        if (out / split).exists() and not overwrite:
            raise OutputError(f"{out / split} exists; --overwrite replaces it, or name another folder with --out")
    for split, count in counts.items():
        _write_split(out / split, split, count, settings, seed, jobs)


def _settings(classes: str, rule: str, rate: float | None) -> SceneSettings:
    """What scenes are drawn from, as the command line says."""
    wanted = [name.strip() for name in classes.split(",")]
    if not set(wanted) <= set(LABELS[1:]):
        raise RecipeError(f"--classes {classes}: there are {', '.join(LABELS[1:])}; name some of them, with commas")
    if rule not in RULES:
        raise RecipeError(f"--rule {rule}: there are {' and '.join(RULES)}")
    if rate is not None:
        SpectrogramSpec().check_sample_rate(rate)
    return SceneSettings((LABELS[0], *(label for label in LABELS[1:] if label in wanted)), rule, sample_rate=rate)


def _show(path: Path, settings: SceneSettings, seed: int) -> None:
    spec = SpectrogramSpec()
    seeds = range(seed, seed + N_SHOWN)
    with threadpool_limits(1):
        scenes = [random_scene(settings, np.random.default_rng(one)) for one in seeds]
    windows = [labelled_window(scene, one, settings, spec) for scene, one in zip(scenes, seeds, strict=True)]
    titles = [
        f"{one}: {scene.sample_rate / 1e6:g} MS/s, "
        + (", ".join(sorted({sent.label for sent in scene.transmitters})) or "noise")
        for scene, one in zip(scenes, seeds, strict=True)
    ]
    try:
        gallery.draw(path, windows, titles, settings.labels, spec)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(f"picture: {path}")


def _write_split(folder: Path, split: str, count: int, settings: SceneSettings, seed: int, jobs: int) -> None:
    spec = SpectrogramSpec()
    make = functools.partial(make_test_window if split == "test" else make_window, settings=settings, spec=spec)
    first = SPLIT_SEEDS[split] + seed
    with (
        WindowWriter(folder, spec, settings.labels) as writer,
        multiprocessing.Pool(jobs, _start_worker) as pool,
        progress_bar() as progress,
    ):
        task = progress.add_task(split, total=count)
        for window in pool.imap(make, range(first, first + count), chunksize=4):
            writer.append(window.picture, window.mask, window.bin_width, window.snr_db, window.scene)
            progress.advance(task)
        writer.finish(split=split, first_seed=first, settings=dataclasses.asdict(settings))


def _start_worker() -> None:
    """Leave Ctrl-C, which goes to every process of the terminal, to the parent; and every worker to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    torch.set_num_threads(1)


if __name__ == "__main__":
    run(main)
