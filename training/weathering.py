# SPDX-License-Identifier: Apache-2.0
"""Recordings that a computer made without noise, brought nearer to what a receiver would have had of them."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import RecordingError
from rfvit_rt.sources.recording import Recording
from training.datasets import CELLULAR

SNR_DB = 15.0  # in the carriers' own band, of clean recordings with noise added
DELAY_SPREAD = 100e-9  # seconds, of the echoes that they get


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a file's name, without its ending, is one of those that patterns of the shell stand for."""
    return any(fnmatch.fnmatch(path.stem, pattern) for pattern in patterns)


def check_patterns(paths: Sequence[Path], patterns: Sequence[str], option: str) -> None:
    """Raise :class:`RecordingError` where a pattern, given with an option, is of none of the files."""
    for pattern in patterns:
        if not any(matches(path, (pattern,)) for path in paths):
            raise RecordingError(
                f"{option} '{pattern}' is the name of no recording; a name is given without its folder and .sigmf-meta"
            )


def weathered(recording: Recording, rng: np.random.Generator) -> Iterator[IQBlock]:
    """A clean recording as one block, through echoes that do not change and with noise added.

    The noise is `SNR_DB` below the recording's mean power, both in the band of its annotated carriers.

    Raises
    ------
    RecordingError
        If it has no annotated carriers, or one without a width.
    """
    annotated = [a for a in recording.metadata.get("annotations", []) if a.get("core:label") in CELLULAR]
    if any("core:freq_lower_edge" not in a or "core:freq_upper_edge" not in a for a in annotated):
        raise RecordingError(
            f"a carrier annotated in {recording.meta_path} has no edges, which the noise is scaled by; add them"
        )
    if any(a["core:freq_upper_edge"] <= a["core:freq_lower_edge"] for a in annotated):
        raise RecordingError(f"a carrier annotated in {recording.meta_path} is without a width; mend its edges")
    bandwidth = _union((a["core:freq_lower_edge"], a["core:freq_upper_edge"]) for a in annotated)
    if not bandwidth:
        raise RecordingError(f"{recording.meta_path} has no annotated carrier to scale noise by; name others as clean")
    blocks = list(recording.blocks())
    spectrum = scipy.fft.fft(np.concatenate([block.samples for block in blocks]))
    spectrum *= _echoes(len(spectrum), recording.sample_rate, rng)
    samples = scipy.fft.ifft(spectrum)
    power = np.mean(np.abs(samples) ** 2) * 10 ** (-SNR_DB / 10) * recording.sample_rate / bandwidth
    noise = rng.standard_normal((len(samples), 2)).view(np.complex128)[:, 0] * np.sqrt(power / 2)
    yield dataclasses.replace(blocks[0], samples=(samples + noise).astype(np.complex64))


def _union(bands: Iterable[tuple[float, float]]) -> float:
    """Width of what bands cover together, in Hz."""
    total, covered = 0.0, -np.inf
    for lower, upper in sorted(bands):
        total += max(0.0, upper - max(lower, covered))
        covered = max(covered, upper)
    return total


def _echoes(n: int, sample_rate: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Response of a path and five Rayleigh echoes whose power decays exponentially, at FFT frequencies: (n,)."""
    delays = np.concatenate([[0.0], np.sort(rng.exponential(DELAY_SPREAD, 5))])
    gains = np.exp(-delays / (2 * DELAY_SPREAD)) * rng.standard_normal((6, 2)).view(np.complex128)[:, 0] / 2
    gains[0] = 1.0
    frequencies = scipy.fft.fftfreq(n, 1 / sample_rate)
    response = np.zeros(n, np.complex128)
    for gain, delay in zip(gains, delays, strict=True):
        response += gain * np.exp(-2j * np.pi * frequencies * delay)
    return response
