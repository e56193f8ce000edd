# SPDX-License-Identifier: Apache-2.0
"""Sends a recorded CSI capture again, with its own timing, so that live listeners can be tried without hardware."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import zmq
from rich.console import Console

from rfvit_rt import terminal
from rfvit_rt.errors import RecordingError, StreamError, WireError
from rfvit_rt.running import end, stopping_at_signals
from rfvit_rt.sources.csi import open_csi
from rfvit_rt.sources.csi_file import file_format, read_arrivals
from rfvit_rt.sources.csi_packets import REPLAY_NOTICE
from rfvit_rt.wire import esp32
from rfvit_rt.wire.csi import encode_csi

REPLAY_MARK = " (replay)"
"""Ends the device's name in frames that are sent over ZeroMQ."""

_NOTICE_SECONDS = 1.0  # between two notices: who comes late shall know soon too
_LONGEST_SLEEP = 0.1  # seconds: how soon `stop` is noticed
_LISTENER_PATIENCE = 0.1  # seconds between two looks for a listener
_MOST_WAITING = 16  # messages in ZeroMQ's own queue, which has little time to empty in the end


@dataclass(frozen=True)
class ReplayReport:
    """How a replay went.

    Attributes
    ----------
    sent : int
        Datagrams or messages sent.
    elapsed : float
        Seconds from the first to the last.
    latest : float
        Seconds by which the latest of them left after its time.
    stopped : bool
        Whether it was stopped before its end.
    """

    sent: int
    elapsed: float
    latest: float
    stopped: bool


def replay_csi(
    path: str | Path,
    to: str,
    *,
    speed: float = 1.0,
    stop: Callable[[], bool] | None = None,
    tell: Callable[[str], None] = print,
    passed: Callable[[int, float], None] = lambda sent, seconds: None,
) -> ReplayReport:
    """Send a recorded capture again.

    To UDP everything goes out as it was captured, foreign packets included, but for lines of an ESP32 that cannot be
    read. Such packets have no field that could say
    that they are a replay, so :data:`~rfvit_rt.sources.csi_packets.REPLAY_NOTICE` goes before the first, and once a
    second. To ZeroMQ go the frames that :func:`~rfvit_rt.sources.csi.open_csi` makes of the file, and each says it in
    its device's name.

    Parameters
    ----------
    path : str or Path
        A ``.pcap`` of nexmon_csi, ``.csv``, ``.txt`` or ``.log`` of ESP32 lines; to ZeroMQ also a ``.dat`` of an Intel
        5300.
    to : str
        ``udp://HOST:PORT``, for listeners at ``nexmon://`` and ``esp32+udp://``; or ``zmq+push://HOST:PORT``, which is
        bound, and waits for a listener at ``zmq+pull://HOST:PORT``.
    speed : float
        Multiple of real time; 0 is as fast as it goes, which over UDP loses what the listener cannot take in time.
    stop : callable or None
        Asked about ten times a second; the replay ends once it returns True.
    tell : callable
        Told, in a line each, what the user should know.
    passed : callable
        Told after each message how many were sent, and how many seconds of the capture have passed.

    Returns
    -------
    ReplayReport

    Raises
    ------
    RecordingError
        If the file cannot be read.
    StreamError
        If the address or the speed is none, or nothing can be sent there.
    """
    if not 0 <= speed <= 1e6:
        raise StreamError(f"speed is {speed}, expected 1 for real time, another multiple, or 0 for as fast as it goes")
    path = Path(path)
    kind = file_format(path)
    if not path.is_file():
        raise RecordingError(f"no file at {path}; check its name and folder")
    host, port = _address(to)
    over_udp = to.startswith("udp:")
    if over_udp and kind == "intel5300":
        raise StreamError(f"no listener reads the records of {path.name} over UDP; replay it to zmq+push://HOST:PORT")
    stop = stop or (lambda: False)
    pace = f"at {speed:g} times its speed" if speed else "as fast as it goes"
    tell(f"REPLAY of the recording {path.name} to {to} {pace}: nothing of it is live")
    if over_udp:
        send, close = _udp_sender(host, port, to)
        messages = _datagrams(path, kind, tell)
    else:
        send, close = _push_sender(host, port, to, stop, tell)
        messages = _frames(path, tell)
    try:
        report = _send_on_time(messages, send, speed, stop, passed)
    finally:
        close()
    if not report.sent and not report.stopped:
        raise RecordingError(f"{path} holds nothing that can be replayed")
    tell(
        f"REPLAY of {path.name} {'stopped' if report.stopped else 'ended'}: {report.sent} sent "
        f"in {report.elapsed:.2f} s, the latest {report.latest * 1e3:.1f} ms after its time"
    )
    return report


def replay_for_people(path: Path, to: str, speed: float, console: Console) -> None:
    """Send a recorded capture again, as :func:`replay_csi` does, and show people how it goes.

    Raises
    ------
    RfvitError
        If the capture cannot be read, or nothing can be sent there.
    SystemExit
        After Ctrl-C or SIGTERM.
    """
    with stopping_at_signals(console) as stop, terminal.progress_bar(console, None) as progress:
        task = progress.add_task(f"REPLAYING {path.name}", total=None, note="")

        def tell(line: str) -> None:
            style = "bold yellow" if line.startswith("REPLAY") else None
            progress.console.print(line, style=style, soft_wrap=True)

        def passed(sent: int, seconds: float) -> None:
            progress.update(task, note=f"{sent:,} sent, {seconds:.1f} s of the recording")

        replay_csi(path, to, speed=speed, stop=stop.is_set, tell=tell, passed=passed)
    end([], stop)


def _address(to: str) -> tuple[str, int]:
    try:
        url = urlsplit(to)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise StreamError(f"{to!r} is not a URL: {error}; {_HINT}") from None
    if url.scheme not in ("udp", "zmq+push") or not host or not port or url.path not in ("", "/") or url.query:
        raise StreamError(f"{to!r} is nowhere to replay to; {_HINT}")
    return host, port


_SET_BACK = 1.0  # s from which a capture's clock counts as set back
_PAUSE = 2.0  # s; no model takes longer gaps

_HINT = "expected udp://HOST:PORT or zmq+push://HOST:PORT"

_Messages = Iterator[tuple[float, bytes]]  # seconds on the capture's clock, and what was taken then
_Send = Callable[[bytes], None]


def _datagrams(path: Path, kind: str, tell: Callable[[str], None]) -> _Messages:
    if kind == "nexmon":
        seconds, before = 0.0, None
        for arrival in read_arrivals(path, tell):
            if arrival is not None:
                step = 0.0 if before is None else arrival.time - before
                # A capture's clock that was set back ends windows where it is read, as a pause does where it is heard.
                seconds += max(0.0, step) if step > -_SET_BACK else _PAUSE
                before = arrival.time
                yield seconds, arrival.data
        return
    ticks, last = 0, None
    for arrival in read_arrivals(path, tell):
        try:
            record = esp32.decode_esp32(arrival.data) if arrival is not None else None
        except WireError:
            continue  # it has no time that could be trusted
        if arrival is not None and record is not None:
            step = 0 if last is None else (record.clock - last) % esp32.CLOCK_MODULUS
            ticks += step if step < esp32.CLOCK_MODULUS // 2 else 0  # a clock that was set back takes no time
            last = record.clock
            yield ticks * 1e-6, arrival.data


def _frames(path: Path, tell: Callable[[str], None]) -> _Messages:
    with open_csi(path) as source:
        for frame in source:
            for notice in source.take_notices():
                tell(notice)
            yield frame.timestamp, encode_csi(replace(frame, device=frame.device + REPLAY_MARK))


def _reason(error: OSError | UnicodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "no such name"


def _udp_sender(host: str, port: int, to: str) -> tuple[_Send, Callable[[], None]]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sender = socket.socket(family, kind, protocol)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    except (OSError, UnicodeError) as error:
        raise StreamError(f"cannot send to {to}: {_reason(error)}; check the address") from None

    noticed = -math.inf

    def send(message: bytes) -> None:
        nonlocal noticed
        if time.monotonic() - noticed >= _NOTICE_SECONDS:
            noticed = time.monotonic()
            put(REPLAY_NOTICE)
        put(message)

    def put(message: bytes) -> None:
        try:
            sender.sendto(message, address)
        except ConnectionRefusedError:
            pass  # nobody listens yet; the sniffer does not care either
        except OSError as error:
            raise StreamError(f"cannot send to {to}: {error.strerror}; check the address") from None

    return send, sender.close


def _push_sender(
    host: str, port: int, to: str, stop: Callable[[], bool], tell: Callable[[str], None]
) -> tuple[_Send, Callable[[], None]]:
    context = zmq.Context()
    sender = context.socket(zmq.PUSH)
    sender.sndhwm = _MOST_WAITING
    sender.ipv6 = ":" in host
    try:
        sender.bind(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise StreamError(f"cannot listen at {to}: {error}; check the address and the port") from None

    def wait_for_listener() -> bool:
        while not sender.poll(round(_LISTENER_PATIENCE * 1000), zmq.POLLOUT):
            if stop():
                return False
        return True

    def send(message: bytes) -> None:
        if wait_for_listener():
            sender.send(message)

    def close() -> None:
        context.destroy(linger=0 if stop() else 2000)

    tell(f"waiting for a listener at {to.replace('push', 'pull')}")
    if not wait_for_listener():
        tell("stopped before one came")
    return send, close


def _send_on_time(
    messages: _Messages, send: _Send, speed: float, stop: Callable[[], bool], passed: Callable[[int, float], None]
) -> ReplayReport:
    """Send each message at its own time after the first: what is late once does not make all that follow late."""
    sent, latest = 0, 0.0
    started = first = moment = time.monotonic()
    for position, (seconds, message) in enumerate(messages):
        if position == 0:
            started, first = time.monotonic(), seconds
        due = started + (seconds - first) / speed if speed else time.monotonic()
        while (wait := due - time.monotonic()) > 0 and not stop():
            time.sleep(min(wait, _LONGEST_SLEEP))
        if stop():
            return ReplayReport(sent, moment - started, latest, True)
        send(message)
        moment = time.monotonic()
        latest = max(latest, moment - due)
        sent += 1
        passed(sent, seconds - first)
    return ReplayReport(sent, moment - started, latest, False)
