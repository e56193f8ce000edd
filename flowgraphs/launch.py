#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one of the flowgraphs here for `rfvit live`, which reads its samples and says when to begin and when to end.

    launch.py live_soapy.py --device driver=rtlsdr --endpoint ipc:///tmp/iq

It prints "endpoint" and the address once the flowgraph is built, begins when a line "start" comes on standard input,
prints "sent" when the flowgraph has come to its end, and ends when standard input closes, as it does when its parent
dies. What goes wrong is the last line that it prints, and its exit status is 1.

The flowgraph's sink is its block ``iq_sink``. A block that fails while it runs says why in an attribute ``failure``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from gnuradio import gr

from rfvit_rt.errors import RfvitError

POLL_SECONDS = 0.1
STOP_SECONDS = 1.0  # a flowgraph that takes longer to stop is left to the end of the process


def main() -> None:
    """Build, announce, wait for the word, run."""
    script = Path(sys.argv[1]).resolve()
    module = load(script)
    flowgraph = build(module, script.stem, sys.argv[2:])
    if sys.stdin.readline().strip() != "start":
        return
    flowgraph.start()
    threading.Thread(target=watch, args=(flowgraph,), daemon=True).start()
    threading.Thread(target=report_end, args=(flowgraph,), daemon=True).start()
    sys.stdin.read()
    threading.Timer(STOP_SECONDS, os._exit, (0,)).start()
    flowgraph.stop()
    flowgraph.wait()
    os._exit(0)  # whatever threads are still about


def load(script: Path) -> ModuleType:
    """Import a flowgraph that GNU Radio Companion made."""
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None or not script.is_file():
        sys.exit(f"no flowgraph at {script}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        sys.exit(f"flowgraph {script.name} needs a part of GNU Radio that is not installed: {error}")
    return module


def build(module: ModuleType, name: str, arguments: list[str]) -> gr.top_block:
    """Make the flowgraph with its own command line, and announce its endpoint."""
    options = module.argument_parser().parse_args(arguments)
    try:
        flowgraph = getattr(module, name)(**vars(options))
    except (RuntimeError, ValueError, RfvitError) as error:
        sys.exit(one_line(error))
    print("endpoint", flowgraph.iq_sink.endpoint, flush=True)
    return flowgraph


def watch(flowgraph: gr.top_block) -> None:
    """End the process when a block has failed."""
    pause = threading.Event()
    while not pause.wait(POLL_SECONDS):
        check(flowgraph)


def report_end(flowgraph: gr.top_block) -> None:
    """Say when all blocks are done."""
    flowgraph.wait()
    check(flowgraph)
    print("sent", flush=True)


def check(flowgraph: gr.top_block) -> None:
    """Fail as the first block that has failed."""
    for block in list(vars(flowgraph).values()):
        failure = getattr(block, "failure", None)
        if failure:
            fail(failure)


def fail(reason: str) -> NoReturn:
    """End the process at once, from any thread."""
    print(one_line(reason), flush=True)
    os._exit(1)


def one_line(error: object) -> str:
    """Text of an error without its line breaks; some of UHD's are a screenful."""
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
