# SPDX-License-Identifier: Apache-2.0
"""Labelled spectrogram windows on disk: one folder a split, memory-mapped arrays inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from rfvit_rt.errors import RecordingError
from rfvit_rt.spectrogram import SpectrogramSpec

LABELS = ("background", "LTE", "NR")
IGNORED = 255  # mask value of steps that a short window does not have


@dataclass(frozen=True, eq=False)
class Windows:
    """Model inputs with their labels.

    Attributes
    ----------
    pictures : (window, n_steps, n_bins) float16
        As :func:`rfvit_rt.spectrogram.tiles` gives them.
    masks : (window, n_steps, n_bins) uint8
        Index into `LABELS`, or `IGNORED`.
    bin_widths : (window,) float32
        As :func:`rfvit_rt.spectrogram.bin_width_feature` gives them.
    snr_db : (window,) float32
        Signal-to-noise ratio of the strongest carrier in its own band, in dB; NaN where there is only noise.
    scenes : (window,) int64
        Seed of the scene that a window was cut from; no scene is in two splits.
    """

    pictures: NDArray[np.float16]
    masks: NDArray[np.uint8]
    bin_widths: NDArray[np.float32]
    snr_db: NDArray[np.float32]
    scenes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pictures)


def create_windows(folder: Path, count: int, spec: SpectrogramSpec) -> Windows:
    """Make empty arrays on disk for `count` windows, to be filled in place."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, spec.n_steps, spec.n_bins)
    return Windows(
        open_memmap(folder / "pictures.npy", "w+", np.float16, shape),
        open_memmap(folder / "masks.npy", "w+", np.uint8, shape),
        open_memmap(folder / "bin_widths.npy", "w+", np.float32, (count,)),
        open_memmap(folder / "snr_db.npy", "w+", np.float32, (count,)),
        open_memmap(folder / "scenes.npy", "w+", np.int64, (count,)),
    )


def open_windows(folder: Path, mode: str = "r") -> Windows:
    """Open what :func:`create_windows` made.

    Raises
    ------
    RecordingError
        If the folder holds no windows.
    """
    names = ("pictures", "masks", "bin_widths", "snr_db", "scenes")
    missing = [name for name in names if not (folder / f"{name}.npy").is_file()]
    if missing:
        raise RecordingError(f"{folder} holds no windows; make them with 'python -m training.scenes'")
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r+" if mode == "r+" else "r") for name in names]
    return Windows(*arrays)
