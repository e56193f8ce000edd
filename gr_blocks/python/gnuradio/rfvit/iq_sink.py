# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples out of a flowgraph to rfvit, over ZeroMQ.

A message is what GNU Radio's own ZeroMQ sinks send with *Pass Tags*: header, tags, items. So ``rfvit segment --tags``
reads it, and so does any ZeroMQ source of GNU Radio. Those sinks themselves would not do: they cannot say a tag again
for a listener that came late, do not tell what they dropped, and a PUB sink that has to wait keeps its flowgraph from
ending. Their arguments (``bind``, ``drop_on_hwm``) also differ between GNU Radio 3.10's releases; none is needed here.

Python runs once for a buffer of samples, never for a sample. A stock copy block in front, whose buffer is large, makes
those buffers large when there is much to do, which is what makes it as fast as the stock sink.
"""

from __future__ import annotations

import math
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pmt
from gnuradio import blocks, gr
from gnuradio.rfvit.radio_clock import RadioClock, read_clock
from gnuradio.rfvit.sending_socket import SendingSocket
from rfvit_rt.errors import StreamError

BUFFER_ITEMS = 1 << 19
"""Samples that fit between the flowgraph and the socket."""

LARGEST_MESSAGE = 1 << 17
"""Most samples in a message."""

MOST_TAGS = 1 << 14
"""Most of a stream's own tags in a message; a message with more is cut into several. A reader has a limit, too."""

_ITEMS: dict[str, Any] = {"complex": np.complex64, "sc16": (np.int16, 2), "sc8": (np.int8, 2)}
_HEADER = struct.Struct("<HBQQ")
_MAGIC, _VERSION = 0x5FF0, 1
_OFFSET = struct.Struct("<Q")
_SOURCE = pmt.intern("rfvit_iq_sink")
_RATE, _FREQUENCY, _TIME = "rx_rate", "rx_freq", "rx_time"
_SECONDS_BETWEEN_COUNTS = 1.0
_MAX_HERTZ = 1e12


class IQSink(gr.hier_block2):
    """Send a stream of samples to rfvit over ZeroMQ, with its sample rate, centre frequency and time.

    Read it with ``rfvit segment zmq+pull://127.0.0.1:5555 --tags`` (PUSH) or ``zmq+sub://127.0.0.1:5555 --tags`` (PUB),
    and ``--item-type ci16_le`` or ``ci8`` for sc16 and sc8.

    The stream's own tags go out unchanged. Where they do not say ``rx_rate`` or ``rx_freq``, the parameters do, in tags
    on the first sample, again every ``repeat_period``, after every loss, and as soon as a PUB reader comes. Once the
    stream has said them, it is the stream's values that are said again.

    Message port ``command`` takes retunes as a UHD source and the Qt sinks do, ``(freq . hertz)`` or a dict with
    ``freq`` (and ``rate``); they hold from the next sample on. Leave it unconnected where the source itself tags
    ``rx_freq``: it knows better when the retune came about. Message port ``counts`` says about once a second how many
    samples were ``sent`` and ``dropped``.

    Parameters
    ----------
    item_type : {"complex", "sc16", "sc8"}
        What an item is: one sample in all three; sc16 and sc8 are a pair of shorts or bytes (vlen 2), as UHD has them.
    endpoint : str
        ZeroMQ address to listen at; loopback unless told otherwise. Port ``*`` takes a free one.
    socket : {"push", "pub"}
        PUSH is for one reader, PUB for any number.
    policy : {"block", "drop"}
        When nobody reads, or not fast enough: hold the flowgraph back, or drop and count. What is dropped is a jump in
        the messages' offsets to the reader, exact to the sample. ``drop`` with PUB: every reader loses for itself, and
        sees what it lost; counted here is what came while there was no reader at all.
    sample_rate : float
        Samples per second, in Hz.
    frequency : float or None
        Centre frequency in Hz; None where unknown.
    repeat_period : float
        Seconds of stream after which rate and frequency are said again.
    high_water_mark : int
        Most messages queued for a reader. Few keep the samples young, many outlast a reader's pauses.

    Raises
    ------
    StreamError
        If a parameter cannot be, or the endpoint is taken.

    Examples
    --------
    >>> sink = IQSink("complex", "tcp://127.0.0.1:*", sample_rate=1e6)
    >>> sink.dropped()
    0
    """

    def __init__(
        self,
        item_type: str = "complex",
        endpoint: str = "tcp://127.0.0.1:5555",
        socket: str = "push",
        policy: str = "block",
        sample_rate: float = 1e6,
        frequency: float | None = None,
        repeat_period: float = 1.0,
        high_water_mark: int = 32,
    ) -> None:
        if item_type not in _ITEMS:
            raise StreamError(f"type is {item_type!r}, expected one of {', '.join(_ITEMS)}")
        if not 0 < repeat_period < math.inf:
            raise StreamError(f"the repeat period is {repeat_period} s, expected more than 0")
        told = {_RATE: _rate(sample_rate)}
        if frequency is not None:
            told[_FREQUENCY] = _frequency(frequency)
        link = SendingSocket(endpoint, socket, policy, high_water_mark)
        size = np.dtype(_ITEMS[item_type]).itemsize
        gr.hier_block2.__init__(self, "rfvit IQ Sink", gr.io_signature(1, 1, size), gr.io_signature(0, 0, 0))
        self._buffer = blocks.copy(size)
        self._buffer.set_min_output_buffer(0, BUFFER_ITEMS)
        self._sender = _Sender(_ITEMS[item_type], link, told, repeat_period, self._forget_buffer_size)
        self.connect(self, self._buffer, self._sender)
        self.message_port_register_hier_in("command")
        self.message_port_register_hier_out("counts")
        self.msg_connect(self, "command", self._sender, "command")
        self.msg_connect(self._sender, "counts", self, "counts")

    def _forget_buffer_size(self) -> None:
        """Else GNU Radio, which sets a largest size by the first run, ignores the smallest in the next."""
        self._buffer.set_max_output_buffer(0, -1)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self._sender.link.endpoint

    def dropped(self) -> int:
        """Return how many samples were dropped so far."""
        return self._sender.dropped

    def sent(self) -> int:
        """Return how many samples were sent so far."""
        return self._sender.sent

    def set_frequency(self, frequency: float | None) -> None:
        """Say another centre frequency, in Hz, from the next sample on; None takes back what was said."""
        self._sender.commands.append((_FREQUENCY, _frequency(frequency)))

    def set_sample_rate(self, sample_rate: float) -> None:
        """Say another sample rate, in Hz, from the next sample on."""
        self._sender.commands.append((_RATE, _rate(sample_rate)))


class _Tag(NamedTuple):
    """A tag on one item of the stream; all but offset and key are PMTs."""

    offset: int
    key: str
    value: Any
    source: Any

    def to_bytes(self) -> bytes:
        parts = (pmt.intern(self.key), self.value, self.source)
        return _OFFSET.pack(self.offset) + b"".join(pmt.serialize_str(part) for part in parts)


class _Sender(gr.sync_block):
    """The end of the stream: whatever items are there become one message.

    Attributes
    ----------
    link : SendingSocket
        Where messages go.
    commands : deque
        Values to say from the next item on, as (key, value); any thread may append.
    sent, dropped : int
        Samples so far.
    """

    def __init__(
        self,
        item: Any,
        link: SendingSocket,
        told: dict[str, Any],
        repeat_period: float,
        when_stopped: Callable[[], None],
    ) -> None:
        gr.sync_block.__init__(self, "rfvit IQ sender", [item], None)
        self.link = link
        self.commands: deque[tuple[str, Any]] = deque()
        self.sent = self.dropped = 0
        self._when_stopped = when_stopped
        self._told = told  # what holds at the next item
        self._repeat_period = repeat_period
        self._say_at = 0  # the item at which to say it again
        self._missed_time: RadioClock | None = None  # an rx_time that went with dropped samples
        self._counts_at = 0.0
        self._warned = False
        self.message_port_register_in(pmt.intern("command"))
        self.set_msg_handler(pmt.intern("command"), self._follow_command)
        self.message_port_register_out(pmt.intern("counts"))

    def start(self) -> bool:
        """Listen (again), and say everything with the first item."""
        self.link.open()
        self._say_at = 0
        return True

    def stop(self) -> bool:
        """Let readers take what is queued, and count what they did not."""
        left = self.link.close(self.detail().done())
        if left:
            self.sent -= left
            self.dropped += left
            gr.logger("rfvit IQ Sink").warn(f"the end came before anybody had taken the last {left} samples")
        self._when_stopped()
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Send, or drop, the items as one message."""
        start = self.nitems_read(0)
        tags, count = self._own_tags(min(len(input_items[0]), LARGEST_MESSAGE))
        self._run_commands(start)
        ready = self.link.ready()
        say = self.link.reader_came() or start >= self._say_at
        if ready and self._send(input_items[0][:count], start, tags, say):
            self.sent += count
            self._note(tags)
            if say:
                self._said(start)
        else:
            self._say_at = start  # who reads on knows nothing for sure
            if self.link.waits:
                return 0
            self._drop(start, count, tags)
            self._note(tags)
        self._publish_counts()
        return count

    def _own_tags(self, count: int) -> tuple[list[_Tag], int]:
        """Return the tags on the next items, and how many items to take."""
        tags = self.get_tags_in_window(0, 0, count)
        while len(tags) > MOST_TAGS and count > 1:
            count //= 2
            tags = self.get_tags_in_window(0, 0, count)
        own = [_Tag(tag.offset, pmt.symbol_to_string(tag.key), tag.value, tag.srcid) for tag in tags]
        return sorted(own, key=lambda tag: tag.offset), count

    def _send(self, items: Any, start: int, tags: list[_Tag], say: bool) -> bool:
        parts = self._sayings(start, tags) if say else []
        parts += [tag.to_bytes() for tag in tags]
        head = _HEADER.pack(_MAGIC, _VERSION, start, len(parts)) + b"".join(parts)
        message = np.empty(len(head) + items.nbytes, np.uint8)
        message[: len(head)] = np.frombuffer(head, np.uint8)
        message[len(head) :] = items.reshape(-1).view(np.uint8)
        return self.link.send(message, len(items))

    def _said(self, start: int) -> None:
        rate = pmt.to_double(self._told[_RATE])
        self._say_at = start + max(1, round(min(self._repeat_period * rate, 2**62)))
        self._missed_time = None

    def _sayings(self, start: int, tags: list[_Tag]) -> list[bytes]:
        """What holds at an item, as the bytes of tags, but for what the stream itself says of it."""
        values = dict(self._told)
        if self._missed_time is not None:
            values[_TIME] = self._missed_time.at(start, pmt.to_double(self._told[_RATE]))
        own = {tag.key for tag in tags if tag.offset == start}
        return [_Tag(start, key, value, _SOURCE).to_bytes() for key, value in values.items() if key not in own]

    def _note(self, tags: list[_Tag]) -> None:
        """Take up what the stream says of itself."""
        for tag in tags:
            if tag.key == _FREQUENCY or (tag.key == _RATE and _number(tag.value) is not None):
                self._told[tag.key] = tag.value

    def _drop(self, start: int, count: int, tags: list[_Tag]) -> None:
        self.dropped += count
        for tag in tags:
            if tag.key == _TIME:
                self._missed_time = read_clock(tag)
            elif tag.key == _RATE and self._missed_time is not None and tag.offset != self._missed_time.offset:
                self._missed_time = None  # reckoned on with another rate it would be wrong
        if not self._warned:
            self._warned = True
            gr.logger("rfvit IQ Sink").warn(
                f"nobody reads {self.link.endpoint} fast enough: samples are dropped, from sample {start} on"
            )

    def _run_commands(self, start: int) -> None:
        while self.commands:
            key, value = self.commands.popleft()
            self._told[key] = value
            self._say_at = start

    def _follow_command(self, message: Any) -> None:
        for key, word, make in ((_FREQUENCY, "freq", _frequency), (_RATE, "rate", _rate)):
            value = _command(message, pmt.intern(word))
            if value is None:
                continue
            try:
                self.commands.append((key, make(_plain(value))))
            except StreamError as error:
                gr.logger("rfvit IQ Sink").warn(f"command {word} ignored: {error}")

    def _publish_counts(self) -> None:
        now = time.monotonic()
        if now >= self._counts_at:
            self._counts_at = now + _SECONDS_BETWEEN_COUNTS
            counts = {"sent": self.sent, "dropped": self.dropped}
            self.message_port_pub(pmt.intern("counts"), pmt.to_pmt(counts))


def _command(message: Any, word: Any) -> Any:
    """What a command says of a word; None if nothing."""
    if pmt.is_dict(message):
        return pmt.dict_ref(message, word, None) if pmt.dict_has_key(message, word) else None
    if pmt.is_pair(message) and pmt.eqv(pmt.car(message), word):
        return pmt.cdr(message)
    return None


def _number(value: Any) -> float | None:
    """The number that a PMT is; None if it is none."""
    return pmt.to_double(value) if pmt.is_real(value) or pmt.is_integer(value) else None


def _plain(value: Any) -> float | str | None:
    """A command's value as a number, None for nil, or else as text, which no setting takes."""
    number = _number(value)
    return number if number is not None else None if pmt.is_null(value) else str(value)


def _rate(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= _MAX_HERTZ:
        raise StreamError(f"the sample rate is {value!r}, expected a positive number in Hz")
    return pmt.from_double(float(value))


def _frequency(value: Any) -> Any:
    if value is None:
        return pmt.PMT_NIL
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not abs(value) <= _MAX_HERTZ:
        raise StreamError(f"the centre frequency is {value!r}, expected a number in Hz, or None where it is unknown")
    return pmt.from_double(float(value))
