# SPDX-License-Identifier: Apache-2.0
"""Ports of this machine: one that is free, and whether somebody listens on it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

LISTENING = {"tcp": "0A", "udp": "07"}  # the states in /proc/net: TCP_LISTEN; UDP sockets have but this one


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_listener(port: int, protocol: str = "tcp", patience: float = 50) -> None:
    """Wait without touching the port: who binds it is in the program's way, and who connects may reach itself."""
    deadline = time.monotonic() + patience
    while not _is_listening(port, protocol):
        assert time.monotonic() < deadline, f"nobody listens on {protocol} port {port}"
        time.sleep(0.01)


def _is_listening(port: int, protocol: str) -> bool:
    sockets = [line.split() for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == LISTENING[protocol] for _, local, _, state, *_ in sockets)
