# SPDX-License-Identifier: Apache-2.0
"""Which recordings train, and which are kept to measure on: whole ones, so that no window has a twin elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from rfvit_rt.errors import RecordingError
from training.config import Split

SPLITS = ("train", "validation", "test")


def split_names(names: Iterable[str], split: Split, seed: int) -> dict[str, list[str]]:
    """Divide recordings.

    Where they lie in folders ``train``, ``validation`` and ``test``, that is the division. Otherwise they are drawn by
    a hash of their name and the seed; with three or more, at least one goes to every split that has a share, with two
    one to training and one to validation.

    Parameters
    ----------
    names : iterable of str
        Paths within the data's folder.
    split : Split
    seed : int

    Returns
    -------
    dict of str to list of str
        Names in order, by split; splits without any are left out.

    Raises
    ------
    RecordingError
        If some lie in such folders and others do not: nobody knows where those belong.
    """
    names = sorted(names)
    if sorted_by_hand(names):
        chosen = {kind: [name for name in names if _folder(name) == kind] for kind in SPLITS}
        if strays := [name for name in names if not in_split(name)]:
            raise RecordingError(
                f"there is a folder train, but {len(strays)} of {len(names)} are in none of {', '.join(SPLITS)}: "
                f"{', '.join(strays[:5])}{', …' if len(strays) > 5 else ''}; move them there or away"
            )
    else:
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        counts = [_count(share, len(names)) for share in (split.validation, split.test)]
        while sum(counts) >= len(names):  # something must be left to train on
            counts[0 if counts[0] > counts[1] else 1] -= 1  # the test split gives first: without validation no training
        held = counts[0] + counts[1]
        chosen = {"train": drawn[held:], "validation": drawn[: counts[0]], "test": drawn[counts[0] : held]}
    return {kind: sorted(part) for kind, part in chosen.items() if part}


def sorted_by_hand(names: Iterable[str]) -> bool:
    """Whether somebody has put recordings into folders that say what they are for."""
    return any(_folder(name) == "train" for name in names)


def in_split(name: str) -> bool:
    """Whether a path begins with a folder that says what it is for."""
    return _folder(name) in SPLITS


def _folder(name: str) -> str:
    """The first folder on a path, empty where there is none."""
    first, *rest = PurePosixPath(name).parts
    return first if rest else ""


def _count(share: float, total: int) -> int:
    return max(1, round(share * total)) if share else 0
