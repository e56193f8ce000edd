# SPDX-License-Identifier: Apache-2.0
"""CSI frames from anywhere: sniffers on the network, boards on a serial port, flowgraphs, and recordings.

===================================  =================================================================================
``nexmon://0.0.0.0:5500``            packets of nexmon_csi (Raspberry Pi and other Broadcom chips) over UDP
``esp32:///dev/ttyUSB0?baud=921600`` lines of an ESP32 (esp-csi, ESP32-CSI-Tool) on a serial port
``esp32+udp://0.0.0.0:5501``         the same lines over UDP, one or more whole lines in a datagram
``zmq+pull://127.0.0.1:5555``        frames from a PUSH socket (``zmq+sub://`` from PUB; ``zmq+pull+ipc:///path``)
``capture.pcap``                     recorded packets of nexmon_csi
``log.dat``                          a log of the 802.11n CSI Tool (Intel 5300)
``lines.csv``, ``.txt``, ``.log``    recorded lines of an ESP32
===================================  =================================================================================

Frames of one link are handed out, in order: ``frame_index`` and ``timestamp`` only go up. Time stamps are the device's
own where it has a clock. nexmon's packets carry none: live, the kernel's time of reception on this process's monotonic
clock is taken, from files the capture's.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import RecordingError, StreamError, WireError
from rfvit_rt.sources.csi_file import Arrivals, file_format, read_arrivals
from rfvit_rt.sources.csi_frames import SETTLING_FRAMES, CSIStatistics, FrameAssembler, Select
from rfvit_rt.sources.csi_live import RING_BYTES, LiveArrivals, Port
from rfvit_rt.sources.csi_packets import (
    REPLAY_NOTICE,
    Arrival,
    Decode,
    decode_intel5300,
    decode_nexmon,
    esp32_decoder,
    occupied_subcarriers,
)
from rfvit_rt.sources.csi_udp import UdpLinePort, UdpPort
from rfvit_rt.sources.csi_zmq import ZmqPort, decode_message

_MOST_NOTICES = 50  # kept until they are taken; the newest
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class CSIOptions:
    """How to read a source; each can follow a URL as a query, ``?mac=1a:00:00:00:00:00&pilots=no``.

    Attributes
    ----------
    mac : str or None
        Follow this transmitter alone; None follows the one that most packets come from.
    pilots : bool
        Keep pilot subcarriers.
    legacy : bool
        Of an ESP32's training fields take LLTF (802.11a/g), which every frame has. Otherwise the widest is taken, and
        frames that lack it are left out.
    baud : int
        Bits per second of a serial port; the default is that of Espressif's and ESP32-CSI-Tool's examples.
    bind : bool
        Listen at a ZeroMQ endpoint instead of connecting to it.
    drop_oldest : bool or None
        Drop the oldest packets where they are not read fast enough, rather than let the sender wait. None drops
        everywhere but at ``zmq+pull``, the only one whose sender can wait.
    idle_timeout : float
        Seconds without a usable packet after which a live source is given up; 0 waits for ever.
    ring_bytes : int
        Most bytes of packets kept until they are read.
    """

    mac: str | None = None
    pilots: bool = True
    legacy: bool = False
    baud: int = 921600
    bind: bool = False
    drop_oldest: bool | None = None
    idle_timeout: float = 10.0
    ring_bytes: int = RING_BYTES

    def __post_init__(self) -> None:
        if self.mac is not None:
            mac = self.mac.lower().replace("-", ":")
            if not _MAC.fullmatch(mac):
                raise StreamError(f"mac is {self.mac!r}, expected six octets such as b8:27:eb:03:e1:9f")
            object.__setattr__(self, "mac", mac)
        if not 0 <= self.idle_timeout <= 1e9:
            raise StreamError(f"idle_timeout is {self.idle_timeout}, expected seconds, or 0 to wait for ever")
        for name, least, most in (("baud", 50, 10**8), ("ring_bytes", 1 << 16, 1 << 40)):
            if not least <= getattr(self, name) <= most:
                raise StreamError(f"{name} is {getattr(self, name)}, expected {least} to {most}")


class CSISource:
    """Frames of one source; made by :func:`open_csi`.

    Iterating yields :class:`~rfvit_rt.datatypes.CSIFrame` until a file ends, `stop` says so, or the source fails.

    Attributes
    ----------
    name : str
        The URL or file name.
    live : bool
        Whether frames come as they are taken; a file's come as fast as they are read.
    replayed : bool
        Whether a sender over UDP has said so far that it sends a recording again.
    """

    def __init__(
        self,
        name: str,
        arrivals: LiveArrivals | Arrivals,
        decode: Decode,
        select: Select | None,
        settling: int | None,
        options: CSIOptions,
        stop: Callable[[], bool] | None,
        notices: deque[str],
    ) -> None:
        self.name = name
        self.live = isinstance(arrivals, LiveArrivals)
        self.replayed = False
        self._arrivals = arrivals
        self._decode = decode
        self._options = options
        self._stop = stop or (lambda: False)
        self._notices = notices
        self._statistics = CSIStatistics()
        self._last_refusal = ""
        self._frames = FrameAssembler(self._statistics, options.mac, settling, select, notices.append)

    @property
    def statistics(self) -> CSIStatistics:
        """A copy of the counts so far."""
        if isinstance(self._arrivals, LiveArrivals):
            self._statistics.dropped = self._arrivals.dropped
        return self._statistics.copy()

    def take_notices(self) -> list[str]:
        """Return what the user should know, in a line each, and has not been told: what is followed, or left out."""
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def __iter__(self) -> Iterator[CSIFrame]:
        try:
            if isinstance(self._arrivals, LiveArrivals):
                yield from self._live_frames(self._arrivals)
            else:
                yield from self._recorded_frames(self._arrivals)
        finally:
            self.close()

    def close(self) -> None:
        """Stop receiving and free the port or file; doing it again does nothing."""
        self._arrivals.close()

    def __enter__(self) -> CSISource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recorded_frames(self, arrivals: Arrivals) -> Iterator[CSIFrame]:
        try:
            for arrival in arrivals:
                if self._stop():
                    return
                yield from self._take(arrival)
        except RecordingError:
            yield from self._frames.finish()  # what came before the damage
            raise
        yield from self._frames.finish()
        if not self._statistics.frames:
            raise RecordingError(f"{self.name} holds no CSI frame that can be used; {self._what_came()}")

    def _live_frames(self, arrivals: LiveArrivals) -> Iterator[CSIFrame]:
        usable_at, unusable = time.monotonic(), 0
        patience = self._options.idle_timeout or float("inf")
        while not self._stop():
            arrival = arrivals.get(timeout=0.1)
            if arrival is None and arrivals.finished:
                return
            if arrival is not None:
                before = self._unusable
                yield from self._take(arrival)
                if self._unusable == before:
                    # Taken after the frames were handed out: time that their reader took is no silence.
                    usable_at, unusable = time.monotonic(), before
            if time.monotonic() - usable_at >= patience:
                why = self._what_came() if self._unusable > unusable else self._silence(arrivals)
                raise StreamError(f"{self.name}: no usable packet for {patience:g} s; {why}")

    @property
    def _unusable(self) -> int:
        return self._statistics.foreign + self._statistics.ignored + self._statistics.unusable

    def _take(self, arrival: Arrival | None) -> Iterator[CSIFrame]:
        self._statistics.packets += 1
        if arrival is not None and arrival.data in (REPLAY_NOTICE, REPLAY_NOTICE.rstrip()):  # a line has lost its end
            self.replayed = True
            self._statistics.ignored += 1
            return
        try:
            packet = self._decode(arrival) if arrival is not None else None
        except WireError as error:
            self._last_refusal = str(error)
            self._statistics.refuse(self._last_refusal)
            return
        if packet is None:
            self._statistics.ignored += 1
            return
        yield from self._frames.add(packet)

    def _silence(self, arrivals: LiveArrivals) -> str:
        came = self._statistics.packets
        return f"after {came} packets it fell silent; {_SENDER_GONE}" if came else arrivals.diagnosis()

    def _what_came(self) -> str:
        """Why nothing could be used, from what was counted."""
        counts = self._statistics
        if not counts.packets:
            return "it is empty"
        parts = [f"{counts.packets} packets or lines came"]
        if counts.foreign and self._options.mac is not None:
            macs = ", ".join(dict.fromkeys(link.mac or "unknown" for link, _ in self._frames.links.most_common(5)))
            parts.append(f"{counts.foreign} not from {self._options.mac}, mostly from {macs}")
        elif counts.foreign:
            parts.append(f"{counts.foreign} of other transmitters or kinds than the one that is followed")
        if counts.ignored:
            parts.append(f"{counts.ignored} that are no CSI")
        if counts.unusable:
            parts.append(f"{counts.unusable} malformed, the last because: {self._last_refusal}")
        return "; ".join(parts)


_SENDER_GONE = "is the sender still running, and does its transmitter still send?"


def open_csi(
    source: str | Path,
    *,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> CSISource:
    """Open a source of CSI frames.

    Parameters
    ----------
    source : str or Path
        A URL or file, see this module's table.
    stop : callable or None
        Asked about ten times a second; the iteration ends once it returns True.
    **options
        Attributes of :class:`CSIOptions`, which win over the URL's query; those that are None are passed over.

    Returns
    -------
    CSISource
        A context manager that iterates over frames.

    Raises
    ------
    StreamError
        If the URL or an option is not one of these, or the port cannot be opened; while iterating, if nothing usable
        comes for too long or receiving fails.
    RecordingError
        If the file cannot be read; while iterating, if it is damaged or holds no frame.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file, open_csi(file.name) as frames:
    ...     try:
    ...         len(list(frames))
    ...     except RecordingError as error:
    ...         print(str(error).partition("; ")[2])
    it is empty
    """
    text = str(source)
    if "://" not in text:
        return _open_file(Path(source), _options({}, options), stop)
    try:
        url = urlsplit(text)
        address = (url.hostname, url.port)
    except ValueError as error:
        raise StreamError(f"{text!r} is not a URL: {error}; {_HINT}") from None
    settings = _options(dict(parse_qsl(url.query, keep_blank_values=True)), options)
    kind, _, transport = url.scheme.partition("+")
    _refuse_useless(text, settings, (*_USEFUL.get(kind, ()), *(("baud",) if url.scheme == "esp32" else ())))
    if url.scheme in ("nexmon", "esp32+udp"):
        port: Port = _udp_port(text, url.scheme, address)
    elif url.scheme == "esp32":
        port = _serial_port(text, unquote(url.netloc + url.path), settings.baud)
    elif kind == "zmq" and transport.partition("+")[0] in ("pull", "sub"):
        port = _zmq_port(text, transport, url.netloc, url.path, address, settings.bind)
    else:
        raise StreamError(f"{text!r} is no kind of CSI source that is known; {_HINT}")
    return _live(text, port, url.scheme, settings, stop)


_HINT = (
    "expected nexmon://HOST:PORT, esp32:///dev/ttyUSB0?baud=921600, esp32+udp://HOST:PORT, zmq+pull://HOST:PORT, "
    "zmq+sub://HOST:PORT or a file"
)

_Address = tuple[str | None, int | None]

# Options that mean nothing elsewhere, by the kinds of source that have them.
_USEFUL = {"nexmon": ("mac", "pilots"), "esp32": ("mac", "pilots", "legacy"), "zmq": ("bind",), "intel5300": ()}
_PARTICULAR = ("mac", "pilots", "legacy", "baud", "bind")


def _open_file(path: Path, options: CSIOptions, stop: Callable[[], bool] | None) -> CSISource:
    kind = file_format(path)
    if not path.is_file():
        raise RecordingError(f"no file at {path}; check its name and folder")
    _refuse_useless(str(path), options, _USEFUL[kind])
    notices: deque[str] = deque(maxlen=_MOST_NOTICES)
    decode, select = _reader(kind, options)
    return CSISource(str(path), read_arrivals(path, notices.append), decode, select, None, options, stop, notices)


def _live(name: str, port: Port, scheme: str, options: CSIOptions, stop: Callable[[], bool] | None) -> CSISource:
    kind = scheme.partition("+")[0]
    decode, select = _reader(kind, options)
    drops_oldest = not scheme.startswith("zmq+pull") if options.drop_oldest is None else options.drop_oldest
    arrivals = LiveArrivals(port, drops_oldest, options.ring_bytes)
    # Who sends frames over ZeroMQ made them of packets already: there is nothing left to settle.
    settling = 1 if kind == "zmq" else SETTLING_FRAMES
    return CSISource(name, arrivals, decode, select, settling, options, stop, deque(maxlen=_MOST_NOTICES))


def _reader(kind: str, options: CSIOptions) -> tuple[Decode, Select | None]:
    if kind == "nexmon":
        return decode_nexmon, occupied_subcarriers(options.pilots)
    if kind == "esp32":
        return esp32_decoder(options.legacy, options.pilots), None
    return (decode_message if kind == "zmq" else decode_intel5300), None


def _udp_port(text: str, scheme: str, address: _Address) -> Port:
    host, port = address
    if host is None or port is None:
        raise StreamError(f"{text!r} names no host and port; {_HINT}")
    if scheme == "esp32+udp":
        return UdpLinePort(host, port, "does the board, or what forwards its lines, send to this address?")
    return UdpPort(
        host,
        port,
        "is the sniffer running, and does it filter for a transmitter that sends? It broadcasts to port 5500, which "
        "nexmon://0.0.0.0:5500 receives",
    )


def _serial_port(text: str, device: str, baud: int) -> Port:
    from rfvit_rt.sources.csi_serial import SerialPort  # pyserial is imported where a serial port is asked for

    if not device:
        raise StreamError(f"{text!r} names no serial port; {_HINT}")
    return SerialPort(device, baud)


def _zmq_port(text: str, transport: str, netloc: str, path: str, address: _Address, bind: bool) -> Port:
    kind, _, protocol = transport.partition("+")
    if protocol == "ipc":
        if netloc or not path:
            raise StreamError(f"{text!r} names no socket file; write zmq+{kind}+ipc:///path")
        endpoint = f"ipc://{path}"
    elif protocol in ("", "tcp") and None not in address and path in ("", "/"):
        endpoint = f"tcp://{netloc}"
    else:
        raise StreamError(f"{text!r} names no host and port; {_HINT}")
    return ZmqPort("pull" if kind == "pull" else "sub", endpoint, bind)


def _refuse_useless(name: str, options: CSIOptions, useful: tuple[str, ...]) -> None:
    for option in fields(CSIOptions):
        if option.name in _PARTICULAR and option.name not in useful and getattr(options, option.name) != option.default:
            raise StreamError(f"{name}: the option {option.name} means nothing there; leave it out")


def _options(query: dict[str, str], given: dict[str, Any]) -> CSIOptions:
    values = {name: _query_value(name, text) for name, text in query.items()}
    values |= {name: value for name, value in given.items() if value is not None}
    return CSIOptions(**values)


def _query_value(name: str, text: str) -> Any:
    """Read one value of a URL's query as the type of the option it names."""
    types = {option.name: str(option.type) for option in fields(CSIOptions)}
    if name not in types:
        raise StreamError(f"option {name!r} in the URL is not known; use {', '.join(types)}")
    try:
        if types[name].startswith("bool"):
            return _SWITCH[text.lower()]
        if types[name].startswith("int"):
            return int(text)
        if types[name].startswith("float"):
            return float(text)
    except (ValueError, KeyError):
        raise StreamError(f"option {name} in the URL is {text!r}, expected a value of type {types[name]}") from None
    return text
