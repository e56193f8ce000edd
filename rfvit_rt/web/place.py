# SPDX-License-Identifier: Apache-2.0
"""Where a page is served, and where what is saved from it goes: checked before anything heavy is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.prometheus import Address, parse_address

DEFAULT_ADDRESS = "127.0.0.1:8470"


@dataclass(frozen=True)
class Place:
    """Where a page is served, and where what is saved from it goes.

    Attributes
    ----------
    address : Address
    folder : Path or None
        None is beside the recording, or the current folder.
    """

    address: Address
    folder: Path | None = None


def parse_web_address(text: str) -> Address:
    """Read ``PORT``, which means this machine alone, or ``HOST:PORT``.

    Raises
    ------
    OutputError
        If it is neither.
    """
    try:
        return parse_address(text)
    except OutputError:
        raise OutputError(
            f"--web-address is {text!r}; expected a port such as 8470, or HOST:PORT to be open to others"
        ) from None


def check_folder(folder: Path) -> None:
    """Check that files can be saved in a folder, before the work; make it where it is missing.

    Raises
    ------
    OutputError
        If it cannot be made or is not writable.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"what the page saves would go to {folder}, which is no folder and cannot be made one ({reason}); name "
            "another with --save-dir"
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"what the page saves would go to {folder}, which is not writable; name another folder with --save-dir"
        )
