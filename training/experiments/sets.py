# SPDX-License-Identifier: Apache-2.0
"""Windows that single tables measure on, beside the data's test split; generated once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfvit_rt.errors import RecordingError
from rfvit_rt.segments import OTHER
from rfvit_rt.spectrogram import SpectrogramSpec
from training.batches import read_spec
from training.datasets import CELLULAR, WindowWriter, open_windows, read_record
from training.scenes import LabelledWindow, labelled_window
from training.signals.scene import RULES
from training.signals.surroundings import SceneSettings, random_scene

SNRS_DB = (-5, 0, 5, 10, 15, 20, 25, 30)
SAMPLE_RATES = (5e6, 10e6, 20e6, 30.72e6, 61.44e6, 122.88e6)
STRONG_DB = (10.0, 30.0)
_FIRST_SEED = 3_000_000_000  # past those of all splits


@dataclass(frozen=True)
class WindowSet:
    """Windows of one kind.

    Attributes
    ----------
    table : str
        The table that it belongs to.
    level : str
        What sets it apart from the others of the table.
    value : float
        Its place on the table's axis.
    changes : tuple of (str, object)
        Fields of the scenes' settings that differ from the data's; the classes that scenes are about, ``labels``, may
        be others than those that are labelled.
    unwanted : tuple of str
        Labels of which nothing may be on the air.
    """

    table: str
    level: str
    value: float = 0.0
    changes: tuple[tuple[str, object], ...] = ()
    unwanted: tuple[str, ...] = ()

    def folder(self, out: Path) -> Path:
        """Where it lies."""
        return out / "sets" / self.table / self.level


def window_sets(table: str, labels: tuple[str, ...]) -> list[WindowSet]:
    """The sets of a table; none where it measures on the test split.

    Parameters
    ----------
    table : str
    labels : tuple of str
        The data's; false alarms are about classes that there are.
    """
    if table == "snr":
        return [WindowSet(table, f"{snr} dB", snr, (("snr_db", (float(snr), float(snr))),)) for snr in SNRS_DB]
    if table == "rates":
        return [
            WindowSet(table, f"{rate / 1e6:g} MS/s", rate / 1e6, (("sample_rate", rate), ("snr_db", STRONG_DB)))
            for rate in SAMPLE_RATES
        ]
    if table == "alarms":
        named = tuple(label for label in labels[1:] if label != OTHER)
        return [
            WindowSet(table, "noise", changes=(("noise_only", 1.0),), unwanted=labels[1:]),
            WindowSet(table, "other", changes=(("noise_only", 0.0), ("labels", (labels[0], OTHER))), unwanted=named),
            WindowSet(
                table,
                "WLAN and Bluetooth",
                changes=(("noise_only", 0.0), ("labels", (labels[0], "WLAN", "Bluetooth"))),
                unwanted=CELLULAR,
            ),
        ]
    return []


def make_set(wanted: WindowSet, data: Path, out: Path, count: int) -> str:
    """Generate a set's windows, in the way that the data's own were made; a line that says so."""
    folder = wanted.folder(out)
    validation = open_windows(data / "validation")
    spec, labels = read_spec(data / "validation", validation), validation.labels
    made = read_record(data / "validation").get("settings", {})
    plain = SceneSettings(labels=labels, rule=made.get("rule", RULES[0]), sample_rate=made.get("sample_rate"))
    with WindowWriter(folder, spec, labels) as writer:
        for window in _windows(wanted, plain, spec, count):
            writer.append(window.picture, window.mask, window.bin_width, window.snr_db, window.scene)
        writer.finish(set=dataclasses.asdict(wanted), rule=plain.rule)
    return f"{wanted.table}, {wanted.level}: {count} windows"


def _windows(wanted: WindowSet, plain: SceneSettings, spec: SpectrogramSpec, count: int) -> Iterator[LabelledWindow]:
    drawn = dataclasses.replace(plain, **dict(wanted.changes))  # type: ignore[arg-type]
    made = 0
    for seed in range(_FIRST_SEED, _FIRST_SEED + 20 * count):
        scene = random_scene(drawn, np.random.default_rng(seed))
        if any(transmitter.label in wanted.unwanted for transmitter in scene.transmitters):
            continue
        yield labelled_window(scene, seed, plain, spec)
        made += 1
        if made == count:
            return
    raise RecordingError(f"of {20 * count} scenes only {made} are such as {wanted.table}, {wanted.level} asks for")
