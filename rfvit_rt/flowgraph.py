# SPDX-License-Identifier: Apache-2.0
"""GNU Radio flowgraphs as child processes, run by GNU Radio's own Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import rfvit_rt
from rfvit_rt.errors import StreamError
from rfvit_rt.sources.recording import Recording, epoch_seconds
from rfvit_rt.wire.samples import item_size

PYTHON_VARIABLE = "RFVIT_GNURADIO_PYTHON"
START_TIMEOUT = 60.0


@cache
def find_gnuradio_python() -> Path:
    """Return the first Python that can import gnuradio: the environment's choice, the system's, then the path's.

    Raises
    ------
    StreamError
        If none can; the message says what to install.
    """
    chosen = os.environ.get(PYTHON_VARIABLE)
    candidates = (
        [chosen] if chosen else ["/usr/bin/python3", "/usr/local/bin/python3", shutil.which("python3"), sys.executable]
    )
    for candidate in dict.fromkeys(c for c in candidates if c):
        if _imports_gnuradio(candidate):
            return Path(candidate)
    if chosen:
        raise StreamError(
            f"{PYTHON_VARIABLE} is {chosen}, but that cannot import gnuradio; point it at a Python that can"
        )
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


def find_flowgraph(name: str) -> Path:
    """Return a flowgraph's script: beside the package in a checkout, else where it was installed.

    Raises
    ------
    StreamError
        If it is in neither place.
    """
    package = Path(rfvit_rt.__file__).resolve().parent
    folders = [package.parent / "flowgraphs", Path(sys.prefix) / "share" / "rfvit" / "flowgraphs"]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise StreamError(f"flowgraph {name} is neither in {folders[0]} nor in {folders[1]}; install rfvit-rt again")


def find_blocks() -> list[Path]:
    """Return where rfvit's GNU Radio blocks are: beside the package in a checkout, or installed with it."""
    package = Path(rfvit_rt.__file__).resolve().parent
    folders = [package.parent / "gr_blocks" / "python", Path(sys.prefix) / "share" / "rfvit" / "gr_blocks" / "python"]
    return [folder for folder in folders if folder.is_dir()][:1]


class Flowgraph:
    """A flowgraph script in GNU Radio's Python, from entering the context until leaving it.

    The script takes lines on standard input, prints ``endpoint ADDRESS`` when its sink is bound and ``sent`` when it
    has handed over its last sample, and ends when standard input closes.

    Parameters
    ----------
    script : Path
        The script.
    arguments : sequence of str
        Its command line.
    description : object
        What to send it first, as a line of JSON; None is nothing.
    stop : callable or None
        Asked about ten times a second while it starts; once it returns True, nobody waits for the start any longer.
    name : str or None
        What errors call it; None is the script's name.

    Attributes
    ----------
    endpoint : str
        ZeroMQ address its sink is bound to.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str] = (),
        description: object = None,
        stop: Callable[[], bool] | None = None,
        name: str | None = None,
    ) -> None:
        self.endpoint = ""
        self._name = name or script.name
        self._command = [str(script), *arguments]
        self._description = description
        self._stop = stop or (lambda: False)
        self._output: deque[str] = deque(maxlen=100)
        self._bound = threading.Event()
        self._sent = threading.Event()

    def __enter__(self) -> Self:
        """Start it and wait until its sink is bound.

        Raises
        ------
        StreamError
            If there is no GNU Radio, or the script ends before its sink is bound.
        """
        python = find_gnuradio_python()
        # Only this package is put on the path: its folder may be a site-packages with another NumPy than GNU Radio's.
        self._path = tempfile.TemporaryDirectory(prefix="rfvit-")
        (Path(self._path.name) / "rfvit_rt").symlink_to(Path(rfvit_rt.__file__).resolve().parent)
        paths = [self._path.name, *map(str, find_blocks()), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [python, "-u", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # GNU Radio logs to either
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us; the flowgraph ends when we are done
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read_output, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        try:
            if self._description is not None:
                self._tell(json.dumps(self._description))
            self._wait_until_bound()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; see :meth:`close`."""
        self.close()

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._process.pid

    @property
    def sent(self) -> bool:
        """Whether it has handed its last sample to its socket; the socket may still hold some."""
        return self._sent.is_set()

    @property
    def over(self) -> bool:
        """Whether no sample will come any more: the last one was sent, or the process has ended."""
        return self.sent or self._process.poll() is not None

    def start(self) -> None:
        """Give a script that waits for it the word to begin."""
        self._tell("start")

    def check(self) -> None:
        """Raise if it is not running any more.

        Raises
        ------
        StreamError
            With the last line that it printed.
        """
        status = self._process.poll()
        if status is not None:
            self._reader.join(1.0)
            last = self._output[-1] if self._output else "it printed nothing"
            raise StreamError(f"flowgraph {self._name} ended (exit status {status}): {last}")

    def close(self) -> None:
        """End it: by closing its input, then by force. Samples that nobody read yet are dropped. Takes 2 s at most."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(0.9)
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._path.cleanup()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; what it printed says why
            print(line, file=self._process.stdin, flush=True)

    def _wait_until_bound(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._bound.wait(0.1):
            if self._stop():
                return
            if time.monotonic() >= deadline:
                raise StreamError(f"flowgraph {self._name} did not start in {START_TIMEOUT:.0f} s")
        if not self.endpoint:
            self._process.wait()
            self.check()

    def _read_output(self, output: IO[str]) -> None:
        for line in output:
            word, _, rest = line.strip().partition(" ")
            if word == "endpoint":
                self.endpoint = rest
                self._bound.set()
            elif word == "sent":
                self._sent.set()
            # GNU Radio ends its last words with a stack trace, and UHD's own log may come after them.
            elif line.strip() and not line.startswith(("0x", "[INFO]")):
                self._output.append(line.strip())
        self._bound.set()


def replay(recording: Recording, speed: float = 1.0) -> Flowgraph:
    """Return a flowgraph that replays a recording through GNU Radio into a ZeroMQ PUSH sink with tags.

    Positions on the wire count from 0; add ``recording.sample_start`` for the recording's own. Retunes come as
    ``rx_freq`` tags (nil where the frequency is unknown), losses inside the recording as jumps of ``rx_time``.

    Parameters
    ----------
    recording : Recording
        What to replay.
    speed : float
        Multiple of real time; 0 is as fast as it goes.

    Returns
    -------
    Flowgraph
        To be entered; its ``endpoint`` is for one PULL socket.

    Raises
    ------
    StreamError
        If the recording or the speed cannot be replayed.

    Examples
    --------
    >>> with replay(recording, speed=0) as flowgraph:  # doctest: +SKIP
    ...     socket.connect(flowgraph.endpoint)
    """
    if not 0 <= speed < float("inf"):
        raise StreamError(f"speed {speed} is not possible; 1 is real time, 0 as fast as it goes")
    return Flowgraph(find_flowgraph("replay_sigmf.py"), ["--speed", repr(float(speed))], describe(recording))


def describe(recording: Recording) -> dict[str, Any]:
    """Return what the replay flowgraph needs to know of a recording, ready for JSON.

    Raises
    ------
    StreamError
        If headers lie between its captures: GNU Radio's file source reads one run of bytes.
    """
    first, size = recording.captures[0], item_size(recording.datatype)
    for capture in recording.captures:
        if capture.byte_start - first.byte_start != (capture.sample_start - first.sample_start) * size:
            raise StreamError(
                f"{recording.data_path} has headers between its captures, which GNU Radio's file source cannot skip; "
                "use 'rfvit segment'"
            )
    times = _radio_times(recording)
    return {
        "data_path": str(recording.data_path.resolve()),
        "datatype": recording.datatype,
        "byte_start": first.byte_start,
        "sample_count": recording.sample_count,
        "sample_rate": recording.sample_rate,
        "captures": [
            {"offset": capture.sample_start - recording.sample_start, "rx_freq": capture.frequency, "rx_time": time}
            for capture, time in zip(recording.captures, times, strict=True)
        ],
    }


def _radio_times(recording: Recording) -> list[tuple[int, float] | None]:
    """Times of the captures on one steady clock, which jumps by exactly the samples that were lost.

    The stamps themselves are rounded to their last digit and would show losses where there are none.
    """
    stamps = [epoch_seconds(capture.datetime) for capture in recording.captures]
    if not any(capture.radio_lost for capture in recording.captures) and not any(stamps):
        return [None] * len(recording.captures)
    start = max(stamps[0] or Fraction(0), Fraction(0))  # rx_time has no sign
    times: list[tuple[int, float] | None] = []
    lost = 0
    for capture in recording.captures:
        lost += capture.radio_lost
        seconds = start + (capture.sample_start - recording.sample_start + lost) / Fraction(recording.sample_rate)
        times.append((int(seconds), float(seconds % 1)))
    return times
