# SPDX-License-Identifier: Apache-2.0
"""Where everything is printed that people read."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console


class PipedConsole(Console):
    """Goes silent where its reader leaves, as ``head`` does after some lines; rich would end the program there.

    Attributes
    ----------
    on_left : callable
        Called once when that happens.
    """

    on_left: Callable[[], object] = staticmethod(lambda: None)

    def on_broken_pipe(self) -> None:
        """Print to nowhere from now on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)
        self.on_left()
