# SPDX-License-Identifier: GPL-3.0-or-later
"""GNU Radio blocks of rfvit: samples and CSI out to it, its results back in.

Blocks are loaded when they are first used, so that one whose libraries are missing (the waterfall needs PyQt5) does not
take the others with it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HOMES = {
    "AnnotationSource": "annotation_source",
    "AnnotationTagger": "annotation_tagger",
    "BandGate": "band_gate",
    "CSISink": "csi_sink",
    "IQSink": "iq_sink",
    "Waterfall": "waterfall",
}

__all__ = list(_HOMES)


def _make_wire_importable() -> None:
    """Let the blocks import ``rfvit_rt.wire``, which is all they need of rfvit.

    Where rfvit is installed for this Python, that one is used. Else it is the copy that was installed with these
    blocks, or, in a checkout, the original beside them.
    """
    if find_spec("rfvit_rt") is None:
        here = Path(__file__).resolve().parent
        for folder in (here / "private", *here.parents[3:4]):
            if (folder / "rfvit_rt" / "wire").is_dir():
                sys.path.append(str(folder))  # last, so that it hides nothing
                return


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


_make_wire_importable()
