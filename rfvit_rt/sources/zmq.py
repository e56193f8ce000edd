# SPDX-License-Identifier: Apache-2.0
"""IQ blocks from GNU Radio's ZeroMQ stream sinks, and from anything that speaks like them (srsRAN's RF-over-ZMQ).

``zmq+pull://`` reads a PUSH sink, ``zmq+sub://`` a PUB sink, ``zmq+req://`` a REP sink.

What a stream can tell about itself depends on its sender. With tags, every message says where it belongs, so loss on
the way is counted exactly, and ``rx_rate``, ``rx_freq`` and ``rx_time`` are followed sample by sample. Without tags
nothing is known but the samples: positions are counted here, and loss on the way cannot be seen.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import zmq
from zmq.utils.monitor import recv_monitor_message

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import StreamError, WireError
from rfvit_rt.sources.ring import BlockRing
from rfvit_rt.sources.timeline import MAX_HERTZ, StreamStatistics, Timeline
from rfvit_rt.wire.gnuradio import StreamFormat, decode_stream_message

Kind = Literal["pull", "sub", "req"]
Policy = Literal["block", "drop-oldest"]

SINKS: dict[str, str] = {"pull": "PUSH", "sub": "PUB", "req": "REP"}
"""The sender's socket that each kind of source reads."""

_SOCKET_TYPES = {"pull": zmq.PULL, "sub": zmq.SUB, "req": zmq.DEALER}
_MAX_MESSAGE_BYTES = 1 << 28
_POLL_SECONDS = 0.05  # how soon close() is noticed
_BATCH_MESSAGES = 16
_DUMMY_REQUEST = b"\xff"  # under four bytes: whatever is ready
_REQUESTS_AHEAD = 2
_COUNT = struct.Struct("=I")  # native, as gr-zeromq reads it
_REQUEST_NUMBER = struct.Struct("=Q")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class ZmqConfig:
    """How to read one endpoint.

    Attributes
    ----------
    kind : {"pull", "sub", "req"}
        Reads a PUSH, PUB or REP sink.
    endpoint : str
        ZeroMQ endpoint, ``tcp://host:port`` or ``ipc:///path``.
    tags : bool
        Whether the sink passes tags.
    key : str or None
        The sink's key; only PUB sinks have one. Empty is none, as in GNU Radio.
    sample_rate : float or None
        Samples per second in Hz, until an ``rx_rate`` tag says otherwise.
    frequency : float or None
        Centre frequency in Hz, until an ``rx_freq`` tag says otherwise; None where unknown.
    may_retune : bool
        Whether the radio is known to be retuned while it streams: after any loss, the frequency is unknown until the
        next ``rx_freq``. Else only after loss in a segment that has been retuned before.
    item_type : str
        SigMF type of a sample, ``cf32_le`` or another complex type such as ``ci16_le``. With tags, one item of the sink
        must be one sample: shorts that pass one by one (``vlen`` 1 of 2 bytes) are counted twice by the sender.
    vlen : int
        Samples per item of the sink.
    bind : bool
        Listen at the endpoint; GNU Radio's sinks listen themselves, so the default is to connect.
    request : {"count", "dummy"}
        What ``req`` asks with: GNU Radio's item count, or a single byte as srsRAN does.
    request_items : int
        Most items asked for at once.
    reply_timeout : float
        Seconds after which an unanswered request is repeated.
    sample_count : int or None
        End after this many samples, lost ones included; None for a stream without an end.
    policy : {"block", "drop-oldest"} or None
        What happens when the reader of the blocks is too slow: hold the sender back, or drop the oldest samples.
        None is drop-oldest for ``sub``, whose sender does not wait, and block for the others.
    ring_samples : int
        Most samples kept between the receiving thread and the reader; the thread itself holds 16 messages at most.
    receive_hwm : int
        Most messages that ZeroMQ queues before they are received: few, so that samples stay young.
    idle_timeout : float or None
        Seconds of silence after which the stream is given up; None waits for ever.
    rate_timeout : float
        Seconds to wait for an ``rx_rate`` tag where ``sample_rate`` is None. Samples that come before it cannot be
        used; they are counted.
    """

    kind: Kind
    endpoint: str
    tags: bool = False
    key: str | None = None
    sample_rate: float | None = None
    frequency: float | None = None
    may_retune: bool = False
    item_type: str = "cf32_le"
    vlen: int = 1
    bind: bool = False
    request: Literal["count", "dummy"] = "count"
    request_items: int = 65536
    reply_timeout: float = 2.0
    sample_count: int | None = None
    policy: Policy | None = None
    ring_samples: int = 1 << 23
    receive_hwm: int = 32
    idle_timeout: float | None = 10.0
    rate_timeout: float = 5.0

    def __post_init__(self) -> None:
        _choice("source kind", self.kind, tuple(_SOCKET_TYPES))
        _choice("request", self.request, ("count", "dummy"))
        _choice("policy", self.policy, (None, "block", "drop-oldest"))
        if self.key and self.kind != "sub":
            raise StreamError(f"only a PUB sink has a key; read it with zmq+sub://, or leave out key {self.key!r}")
        if self.sample_rate is None and not self.tags:
            raise StreamError(
                f"{self.endpoint}: a stream without tags does not say its sample rate; give --sample-rate"
            )
        for name in ("sample_rate", "reply_timeout", "idle_timeout", "rate_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_HERTZ:
                raise StreamError(f"{name} is {value}, expected a positive number")
        if self.frequency is not None and not math.isfinite(self.frequency):
            raise StreamError(f"frequency is {self.frequency}, expected a number in Hz")
        for name, most in (("request_items", 2**32 - 1), ("ring_samples", 2**62), ("receive_hwm", 2**31 - 1)):
            if not 1 <= getattr(self, name) <= most:
                raise StreamError(f"{name} is {getattr(self, name)}, expected 1 to {most}")
        if self.sample_count is not None and self.sample_count < 0:
            raise StreamError(f"sample_count is {self.sample_count}, expected 0 or more")
        try:
            _ = self.stream_format
        except WireError as error:
            raise StreamError(str(error)) from None

    @property
    def stream_format(self) -> StreamFormat:
        """The messages to expect."""
        key = self.key.encode("utf-8", "surrogateescape") if self.key else None
        return StreamFormat(self.tags, key, self.item_type, self.vlen)

    @property
    def drops_oldest(self) -> bool:
        """Whether a slow reader loses samples."""
        return self.policy == "drop-oldest" if self.policy else self.kind == "sub"


def parse_zmq_url(url: str, **options: Any) -> ZmqConfig:
    """Return the configuration that a URL and options describe.

    Parameters
    ----------
    url : str
        ``zmq+pull://host:port``, ``zmq+sub://…``, ``zmq+req://…``, or ``zmq+pull+ipc:///path``. Any attribute of
        :class:`ZmqConfig` can follow as a query: ``?tags=1&sample_rate=30.72e6``.
    **options
        Attributes of :class:`ZmqConfig`, which win over the query's; those that are None are passed over.

    Raises
    ------
    StreamError
        If the URL or an option is not one of these.

    Examples
    --------
    >>> parse_zmq_url("zmq+req://127.0.0.1:2000?request=dummy", sample_rate=23.04e6).endpoint
    'tcp://127.0.0.1:2000'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise StreamError(f"{url!r} is not a URL: {error}; {_URL_HINT}") from None
    scheme, _, rest = parts.scheme.partition("+")
    kind, _, transport = rest.partition("+")
    if scheme != "zmq" or kind not in _SOCKET_TYPES or transport not in ("", "tcp", "ipc"):
        raise StreamError(f"{url!r} is not a ZeroMQ source; {_URL_HINT}")
    if transport == "ipc":
        if parts.netloc or not parts.path:
            raise StreamError(f"{url!r} names no socket file; write zmq+{kind}+ipc:///path")
        endpoint = f"ipc://{parts.path}"
    else:
        if port is None or not parts.hostname or parts.path not in ("", "/"):
            raise StreamError(f"{url!r} names no host and port; {_URL_HINT}")
        endpoint = f"tcp://{parts.netloc}"
    query = {name: _query_value(name, text) for name, text in parse_qsl(parts.query, keep_blank_values=True)}
    given = {name: value for name, value in options.items() if value is not None}
    return _config(kind, endpoint, query | given)


_URL_HINT = "expected zmq+pull://HOST:PORT, zmq+sub://HOST:PORT, zmq+req://HOST:PORT or zmq+pull+ipc:///PATH"


class ZmqSource:
    """Blocks from one endpoint, received by a thread of its own.

    Iterating yields :class:`~rfvit_rt.datatypes.IQBlock` in stream order. ``sample_start`` is the sender's own count
    where the stream has tags. If that count goes backwards, the sender was started again: a new segment begins, with
    nothing known from the old one's tags, and nothing is counted as lost. After loss on the way, where retunes have
    been seen or are known to come, the frequency is unknown until the next ``rx_freq``: the tag may have been lost too.

    Parameters
    ----------
    config : ZmqConfig
        What to read.
    stop : callable or None
        Asked about ten times a second; the iteration ends once it returns True. ``threading.Event().is_set`` is one.

    Raises
    ------
    StreamError
        On construction if the endpoint cannot be opened; while iterating if the sender is silent for too long or says
        no sample rate.
    WireError
        While iterating, if a message is not of the configured format.

    Examples
    --------
    >>> config = parse_zmq_url("zmq+pull://127.0.0.1:5555", sample_rate=1e6, sample_count=0)
    >>> with ZmqSource(config) as source:
    ...     sum(len(block.samples) for block in source)
    0
    """

    def __init__(self, config: ZmqConfig, stop: Callable[[], bool] | None = None) -> None:
        self.config = config
        self._stop = stop or (lambda: False)
        self._format = config.stream_format
        self._no_rate_since: float | None = None
        self._statistics = StreamStatistics()
        self._ring = BlockRing(config.ring_samples, config.drops_oldest)
        self._timeline = Timeline(
            config.sample_rate, config.frequency, config.sample_count, self._statistics, config.may_retune
        )
        self._link = _RequestLink(config, self._statistics) if config.kind == "req" else _Link(config)
        self._thread = threading.Thread(target=self._receive, name=f"receive {config.endpoint}", daemon=True)
        self._thread.start()

    @property
    def statistics(self) -> StreamStatistics:
        """A copy of the counts so far."""
        return replace(self._statistics)

    def __iter__(self) -> Iterator[IQBlock]:
        try:
            while not self._stop():
                block = self._ring.get(timeout=0.1)
                if block is not None:
                    yield block
                elif self._ring.finished:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Stop receiving and free the endpoint. Blocks not yet read are gone; doing it again does nothing."""
        self._ring.close()
        self._thread.join()

    def __enter__(self) -> ZmqSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> None:
        """The thread: messages → blocks → ring, until the stream ends, fails or is closed."""
        failure: Exception | None = None
        try:
            self._fill_ring()
        except WireError as error:
            failure = WireError(f"{self.config.endpoint}: {error}")
        except zmq.ZMQError as error:
            failure = StreamError(f"{self.config.endpoint}: receiving failed: {error}")
        except Exception as error:  # the reader of the blocks gets whatever it is
            failure = error
        finally:
            self._link.close()
            self._ring.finish(failure)

    def _fill_ring(self) -> None:
        while not self._timeline.complete and not self._ring.closed:
            batch: list[IQBlock] = []
            try:
                self._collect(batch)
            finally:  # what came before a failure is handed over too
                self._statistics.dropped += self._ring.put(batch)

    def _collect(self, batch: list[IQBlock]) -> None:
        """Wait for a message, then take what else is there already: to wake the reader for each costs as much again."""
        frames, taken = self._next_message(), 0
        while frames is not None:
            received = time.monotonic()
            batch.extend(self._timeline.blocks(decode_stream_message(frames, self._format), received))
            self._check_rate(received)
            taken += 1
            if self._timeline.complete or taken >= _BATCH_MESSAGES:
                return
            frames = self._link.receive(0.0)

    def _check_rate(self, now: float) -> None:
        if self._timeline.sample_rate is not None:
            self._no_rate_since = None
        elif self._no_rate_since is None:
            self._no_rate_since = now
        elif now - self._no_rate_since >= self.config.rate_timeout:
            raise StreamError(f"{self.config.endpoint}: {self._no_rate()}")

    def _next_message(self) -> list[memoryview] | None:
        """Return the next message's frames; None once closed."""
        patience = self.config.idle_timeout
        # Counted from here, so that time spent waiting for a slow reader is not taken for silence.
        waiting_since = time.monotonic()
        while not self._ring.closed:
            frames = self._link.receive(_POLL_SECONDS)
            if frames is not None:
                return frames
            if patience is not None and time.monotonic() - waiting_since >= patience:
                raise StreamError(f"{self.config.endpoint}: no samples for {patience:g} s; {self._silence()}")
        return None

    def _silence(self) -> str:
        if self._statistics.samples_received and self._timeline.sample_rate is None:
            return self._no_rate()
        return self._link.diagnosis()

    def _no_rate(self) -> str:
        count = self._statistics.without_rate
        return f"{count} samples came, but no rx_rate tag that says their sample rate; give --sample-rate"


class _Link:
    """An open PULL or SUB socket, and what is known about who is at its other end."""

    def __init__(self, config: ZmqConfig) -> None:
        self._config = config
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(_SOCKET_TYPES[config.kind])
        try:
            self._open()
        except zmq.ZMQError as error:
            self.close()
            raise StreamError(_open_failure(config, error)) from None

    def _open(self) -> None:
        config, socket = self._config, self._socket
        socket.linger = 0
        socket.rcvhwm = config.receive_hwm
        socket.set(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        socket.set(zmq.IPV6, "[" in config.endpoint)
        if config.kind == "req":
            # Requests queue only for a sender that is there. Not for the others: with this set, what came and was not
            # read yet is thrown away when the sender goes, and with it the end of a stream that ends.
            socket.set(zmq.IMMEDIATE, 1)
        if config.kind == "sub":
            socket.subscribe(config.stream_format.key or b"")
        events = zmq.EVENT_CONNECTED | zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor = socket.get_monitor_socket(events)
        if config.bind:
            socket.bind(config.endpoint)
        else:
            socket.connect(config.endpoint)

    def receive(self, timeout: float) -> list[memoryview] | None:
        """Return the frames of the next message, or None if none came within ``timeout`` seconds."""
        try:
            parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            if not self._socket.poll(round(timeout * 1000)):
                return None
            parts = self._socket.recv_multipart(copy=False)
        return [part.buffer for part in parts]

    def diagnosis(self) -> str:
        """Say what was seen of a sender that is silent, and what to check."""
        sink = SINKS[self._config.kind]
        seen = self._connection_events()
        if not seen:
            return "nothing is connected: is the flowgraph running, and its sink at this address?"
        if not seen & zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return f"what answers there is not a ZeroMQ {sink} sink; check the port and the kind of sink"
        if seen & zmq.EVENT_DISCONNECTED:
            return "the sender has gone; start its flowgraph again, or give the number of samples to expect"
        key = f", and its key {self._config.key!r}" if self._config.key else ""
        return f"a sender is connected but silent: is its flowgraph running{key}?"

    def _connection_events(self) -> int:
        """The events since the last connection was made, as a sum of flags."""
        seen = 0
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            begins = event in (zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED)
            seen = event if begins else seen | event
        return int(seen)

    def close(self) -> None:
        """Free the endpoint."""
        self._context.destroy(linger=0)  # the monitor's socket too, which would else keep the context alive


class _RequestLink(_Link):
    """Asks a REP socket for samples, always one request ahead, so that the sender need not wait for the next.

    A DEALER stands in for REQ. A REQ socket waits for ever for a reply that is lost, or, told not to, throws away one
    that is merely late. A DEALER can ask again and still takes the late reply, so nothing is lost by impatience. Each
    request carries a number that a REP socket hands back with its reply, unseen by the program that answers.
    """

    def __init__(self, config: ZmqConfig, statistics: StreamStatistics) -> None:
        super().__init__(config)
        self._body = _COUNT.pack(config.request_items) if config.request == "count" else _DUMMY_REQUEST
        self._statistics = statistics
        self._asked = 0  # number of the last request
        self._answered = 0  # number of the last request that was answered
        self._asked_at = 0.0

    def receive(self, timeout: float) -> list[memoryview] | None:
        waiting = self._asked > self._answered
        if waiting and time.monotonic() - self._asked_at >= self._config.reply_timeout:
            self._statistics.requests_repeated += self._ask(timeout)
        while self._asked - self._answered < _REQUESTS_AHEAD and self._ask(timeout):
            pass
        frames = super().receive(timeout)
        if frames is None:
            return None
        if len(frames) > 2 and len(frames[0]) == _REQUEST_NUMBER.size and not len(frames[1]):
            (number,) = _REQUEST_NUMBER.unpack(frames[0])
            if number <= self._asked:
                self._answered = max(self._answered, number)
                return frames[2:]
        raise WireError("what came is not a reply to a request; is the sender's socket a REP socket?")

    def _ask(self, timeout: float) -> bool:
        """Send a request, unless there is nobody to take it."""
        number = self._asked + 1
        try:
            self._socket.send_multipart([_REQUEST_NUMBER.pack(number), b"", self._body], zmq.NOBLOCK)
        except zmq.Again:
            self._socket.poll(round(timeout * 1000), zmq.POLLOUT)
            return False
        self._asked = number
        self._asked_at = time.monotonic()
        return True


def _open_failure(config: ZmqConfig, error: zmq.ZMQError) -> str:
    action = "listen at" if config.bind else "connect to"
    hint = "check the address"
    if error.errno == zmq.EADDRINUSE:
        hint = "another program uses this port; stop it or choose another"
    elif config.bind:
        hint = "the address must be one of this machine's own, or * for all"
    return f"cannot {action} {config.endpoint}: {error.strerror}; {hint}"


def _choice(what: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise StreamError(
            f"{what} is {value!r}, expected one of {', '.join(str(choice) for choice in choices if choice)}"
        )


def _config(kind: str, endpoint: str, values: Mapping[str, Any]) -> ZmqConfig:
    return ZmqConfig(kind, endpoint, **values)  # type: ignore[arg-type]


def _query_value(name: str, text: str) -> Any:
    """Read one value of a URL's query as the type of the attribute it names."""
    types = {field.name: str(field.type) for field in fields(ZmqConfig) if field.name not in ("kind", "endpoint")}
    if name not in types:
        raise StreamError(f"option {name!r} in the URL is not known; use {', '.join(types)}")
    try:
        if types[name] == "bool":
            return _SWITCH[text.lower()]
        if types[name].startswith("int"):
            return int(text)
        if types[name].startswith("float"):
            return float(text)
    except (ValueError, KeyError):
        raise StreamError(f"option {name} in the URL is {text!r}, expected a value of type {types[name]}") from None
    return text
