# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from rfvit_rt.errors import StreamError
from rfvit_rt.flowgraph import find_gnuradio_python

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background has Ctrl-C ignored, here and in all child processes; tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def gnuradio_python() -> Path:
    """GNU Radio's Python; skips, and says how to install it, where there is none."""
    try:
        return find_gnuradio_python()
    except StreamError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def real_iq() -> Path:
    """Folder of real recordings kept beside the checkout; they are not part of the project."""
    folder = REPOSITORY.parent / "shared" / "data" / "iq"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}; these tests need them")
    return folder
