# SPDX-License-Identifier: Apache-2.0
"""Which recordings train, and which are kept to measure on: whole ones, so that no window has a twin elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from training.config import Split

SPLITS = ("train", "validation", "test")


def split_names(names: Iterable[str], split: Split, seed: int) -> dict[str, list[str]]:
    """Divide recordings.

    Where all of them lie in folders ``train``, ``validation`` and ``test``, that is the division. Otherwise they are
    drawn by a hash of their name and the seed; with two or more, at least one goes to every split that has a share.

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
    """
    names = sorted(names)
    folders = [PurePosixPath(name).parts[0] for name in names]
    if set(folders) <= set(SPLITS) and "train" in folders and all(len(PurePosixPath(n).parts) > 1 for n in names):
        chosen = {kind: [n for n, folder in zip(names, folders, strict=True) if folder == kind] for kind in SPLITS}
    else:
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        counts = [_count(share, len(names)) for share in (split.validation, split.test)]
        while sum(counts) >= len(names):  # something must be left to train on
            counts[counts.index(max(counts))] -= 1
        held = counts[0] + counts[1]
        chosen = {"train": drawn[held:], "validation": drawn[: counts[0]], "test": drawn[counts[0] : held]}
    return {kind: sorted(part) for kind, part in chosen.items() if part}


def _count(share: float, total: int) -> int:
    return max(1, round(share * total)) if share else 0
