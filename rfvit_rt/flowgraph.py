# SPDX-License-Identifier: Apache-2.0
"""GNU Radio flowgraphs as child processes, run by GNU Radio's own Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from rfvit_rt.errors import StreamError

PYTHON_VARIABLE = "RFVIT_GNURADIO_PYTHON"


@cache
def find_gnuradio_python() -> Path:
    """Return the first Python that can import gnuradio: the environment's choice, the system's, then the path's.

    Raises
    ------
    StreamError
        If none can; the message says what to install.
    """
    chosen = os.environ.get(PYTHON_VARIABLE)
    candidates = [chosen] if chosen else ["/usr/bin/python3", "/usr/local/bin/python3", shutil.which("python3"), sys.executable]
    for candidate in dict.fromkeys(c for c in candidates if c):
        if _imports_gnuradio(candidate):
            return Path(candidate)
    if chosen:
        raise StreamError(f"{PYTHON_VARIABLE} is {chosen}, but that cannot import gnuradio; point it at a Python that can")
    raise StreamError(
        "no Python here can import gnuradio; install it with 'sudo apt-get install --no-install-recommends gnuradio', "
        f"or point {PYTHON_VARIABLE} at a Python that has it"
    )


def _imports_gnuradio(python: str) -> bool:
    try:
        probe = [python, "-c", "from gnuradio import gr, zeromq"]
        return subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
