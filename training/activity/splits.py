# SPDX-License-Identifier: Apache-2.0
"""Which recordings are learnt from and which are held out; windows of one recording are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import RecordingError
from training.activity.examples import Examples

KINDS = ("random", "held_out", "subject", "room", "session")
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Places of windows on the training side and on the test side."""

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def splits(data: Examples, kind: str) -> list[Split]:
    """All splits of one kind.

    ``random`` is five folds of recordings, for comparison with the literature alone; ``held_out`` is the set's own
    split; ``subject``, ``room`` and ``session`` hold out each of them in turn.

    Raises
    ------
    RecordingError
        If the set has no two of them.
    """
    if kind == "random":
        folds = np.random.default_rng(0).permutation(int(data.recordings.max()) + 1) % FOLDS
        return [_split(f"random {fold}", folds[data.recordings] == fold) for fold in range(FOLDS)]
    if kind == "held_out":
        return [_split(kind, data.held_out)]
    groups = {"subject": data.subjects, "room": data.rooms, "session": data.sessions}[kind]
    names = np.unique(groups)
    if len(names) < 2:
        raise RecordingError(f"the recordings are of one {kind} only, so none can be held out; choose another split")
    return [_split(f"{kind} {name}", groups == name) for name in names]


def few(
    labels: NDArray[np.int64], places: NDArray[np.int64], recordings: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Places of all windows of `count` recordings of every label, drawn by a seed; all where `count` is 0."""
    if not count:
        return places
    rng = np.random.default_rng([seed, 4])
    chosen = []
    for label in np.unique(labels[places]):
        of_label = places[labels[places] == label]
        drawn = rng.permutation(np.unique(recordings[of_label]))[:count]
        chosen.append(of_label[np.isin(recordings[of_label], drawn)])
    return np.concatenate(chosen)


def inner_validation(data: Examples, train: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a part of a training side: one subject, else one session, else every fifth recording.

    Returns
    -------
    train, validation : integer arrays
    """
    for groups in (data.subjects, data.sessions):
        names = np.unique(groups[train])
        if len(names) > 1:
            held = groups[train] == names[-1]
            return train[~held], train[held]
    held = data.recordings[train] % FOLDS == FOLDS - 1
    return train[~held], train[held]


def _split(name: str, held: NDArray[np.bool_]) -> Split:
    return Split(name, np.flatnonzero(~held), np.flatnonzero(held))
