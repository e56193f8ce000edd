# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit Annotation Tagger: results → tags on the very samples that they speak of."""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr
from gnuradio.rfvit.result_socket import DEFAULT_ENDPOINT, ResultSocket, check_endpoint
from gnuradio.rfvit.ring import Ring
from numpy.typing import NDArray
from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.gnuradio import MAX_POSITION

START_KEY = "rfvit_start"
END_KEY = "rfvit_end"

DEFAULT_DELAY = 2.0  # s: rfvit tells of an endless carrier once a second, and some 0.1 to 0.5 s after that
BUCKET = 1e-3  # s of samples that are held back together, and between two looks for results
AHEAD = 1.0  # s that a box may end after the newest sample: this branch of the flowgraph may lag behind the sink's
PAUSE = 0.1  # s that the thread may be kept waiting by others
SPARE = 1 << 18  # items of room in the ring beyond the delay, and in the buffer before it
MAX_ITEMS = 1 << 31  # 16 GiB
MAX_PENDING = 10_000  # boxes that wait for their samples; rfvit finds some tens in a second


@dataclass(frozen=True)
class Scale:
    """Positions at the sink that rfvit reads → positions here.

    Attributes
    ----------
    interpolation, decimation : int
        Items here for so many at the sink.
    shift : int
        Position here of the sink's item 0.
    """

    interpolation: int = 1
    decimation: int = 1
    shift: int = 0

    def apply(self, annotation: Annotation) -> Annotation:
        """Give the box in items of this stream: those that hold any of its samples."""
        start = annotation.sample_start * self.interpolation // self.decimation + self.shift
        end = -(-annotation.sample_end * self.interpolation // self.decimation) + self.shift
        rate = annotation.sample_rate * self.interpolation / self.decimation
        return replace(annotation, sample_start=start, sample_count=end - start, sample_rate=rate)


class AnnotationTagger(gr.hier_block2):
    """Delays a stream until rfvit's results for it are there, and tags their first and last samples.

    Every item leaves `delay` seconds after it came, with its offset and its tags unchanged, also those that are held
    when the stream ends. A box puts two tags on the stream:

    ``rfvit_start`` on its first item: a dictionary of burst_id, label (symbol), confidence, freq_lower_edge and
    freq_upper_edge (Hz; absolute where the centre frequency is known), sample_start, sample_count (in this stream's
    items), sample_rate, frequency (centre in Hz, or nil);

    ``rfvit_end`` on its last item: the burst_id. Boxes may overlap.

    A box whose first item has left already is not put anywhere else: it is counted (`late`) and told on the message
    port ``missed``, as the dictionary above with ``reason`` (``late``) and ``by`` (s). So is one that ends more than a
    second after the newest item (``ahead``): it belongs to another run of the flowgraph.

    The delay takes memory: 8 bytes an item, 320 MB for 2 s at 20 MS/s.

    Parameters
    ----------
    sample_rate : float
        Items per second of this stream, in Hz.
    delay : float
        Seconds. rfvit tells of a box after its end, and of one that does not end once a second; the default leaves it
        a second more. What a run needs is `lag`, plus a margin.
    endpoint : str
        What was given to ``rfvit segment --publish``.
    interpolation, decimation : int
        This stream has `interpolation` items for `decimation` items at the sink that rfvit reads.
    shift : int
        Offset here of the item that was the sink's first.

    Raises
    ------
    StreamError
        If a parameter is out of range, or the endpoint is not one.
    """

    def __init__(
        self,
        sample_rate: float,
        delay: float = DEFAULT_DELAY,
        endpoint: str = DEFAULT_ENDPOINT,
        interpolation: int = 1,
        decimation: int = 1,
        shift: int = 0,
    ) -> None:
        signature = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "rfvit Annotation Tagger", signature, signature)
        self.message_port_register_hier_out("missed")
        scale = _checked_scale(interpolation, decimation, shift)
        self._tagger = _Tagger(_checked_rate(sample_rate), _checked_delay(delay, sample_rate), endpoint, scale)
        # Its buffer bridges the pauses of the Python block behind it, so that the radio does not feel them.
        self._buffer = blocks.copy(gr.sizeof_gr_complex)
        self._buffer.set_min_output_buffer(0, SPARE)
        self._tagger.set_min_output_buffer(SPARE)
        self.connect(self, self._buffer, self._tagger, self)
        self.msg_connect(self._tagger, "missed", self, "missed")

    def tagged(self) -> int:
        """Return the number of boxes that were put on the stream, or wait for their samples."""
        return self._tagger.tagged

    def late(self) -> int:
        """Return the number of boxes whose first sample had left already."""
        return self._tagger.late

    def ahead(self) -> int:
        """Return the number of boxes that ended long after the newest sample."""
        return self._tagger.ahead

    def refused(self) -> int:
        """Return the number of messages that were no valid results, or too many to keep."""
        return self._tagger.refused

    def lag(self) -> float:
        """Return the most seconds that a box's first item was here before its result came."""
        return self._tagger.lag


class _Tagger(gr.basic_block):
    """Holds every item back for the delay."""

    def __init__(self, sample_rate: float, delay: float, endpoint: str, scale: Scale) -> None:
        gr.basic_block.__init__(self, "rfvit tagger", [np.complex64], [np.complex64])
        self.message_port_register_out(pmt.intern("missed"))
        # Tags that come in are copied when their items are taken in, and stay with them, since offsets do not change.
        self.set_tag_propagation_policy(gr.TPP_ONE_TO_ONE)
        self._sample_rate = sample_rate
        self._delay = delay
        self._endpoint = check_endpoint(endpoint)
        self._scale = scale
        self._capacity = round(sample_rate * (delay + PAUSE)) + SPARE
        self._reset()

    def _reset(self) -> None:
        self.tagged = self.late = self.ahead = self.refused = 0
        self.lag = 0.0
        self._received = self._released = 0  # positions
        self._due = 0  # position up to which items may leave
        self._buckets: deque[_Bucket] = deque()
        self._pending: list[tuple[int, int, str, Any]] = []  # a heap: position, order, key, value
        self._order = count()
        self._looked = 0.0

    def start(self) -> bool:
        """Begin anew."""
        self._reset()
        self._ring = Ring(self._capacity)
        self._socket = ResultSocket(self._endpoint, ["annotation"])
        return True

    def stop(self) -> bool:
        """Give the memory back."""
        self._socket.close()
        self._ring = Ring(0)
        return True

    def forecast(self, noutput_items: int, ninputs: int) -> list[int]:
        """Ask for input only when nothing is left to give out: at the stream's end the rest has still to leave."""
        return [int(self._received == self._released)] * ninputs

    def general_work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Take in, look for results, give out."""
        now = time.monotonic()
        taken = self._take(input_items[0], now)
        self.consume(0, taken)
        if now - self._looked >= BUCKET:
            self._looked = now
            self._look_for_results()
        given = self._give(output_items[0], now)
        if not taken and not given:
            time.sleep(BUCKET)  # nothing came and nothing is due
        return given

    def _take(self, items: NDArray[np.complex64], now: float) -> int:
        taken = min(len(items), self._capacity - (self._received - self._released))
        if not taken:
            return 0
        self._ring.write(self._received, items[:taken])
        self._received += taken
        if not self._buckets or now - self._buckets[-1].opened >= BUCKET:
            self._buckets.append(_Bucket(now, self._received))
        else:
            self._buckets[-1].end = self._received
        return taken

    def _give(self, out: NDArray[np.complex64], now: float) -> int:
        while self._buckets and self._buckets[0].opened + BUCKET + self._delay <= now:
            self._due = self._buckets.popleft().end
        given = min(len(out), self._due - self._released)
        if not given:
            return 0
        self._ring.read(self._released, out[:given])
        while self._pending and self._pending[0][0] < self._released + given:
            position, _, key, value = heapq.heappop(self._pending)
            self.add_item_tag(0, position, pmt.intern(key), value, pmt.intern("rfvit"))
        self._released += given
        return given

    def _look_for_results(self) -> None:
        before = self._socket.refused
        for result in self._socket.results():
            if isinstance(result, Annotation):
                self._place(self._scale.apply(result))
        self.refused += self._socket.refused - before

    def _place(self, box: Annotation) -> None:
        if box.sample_end >= MAX_POSITION:
            self.refused += 1
            return
        ahead = box.sample_end - self._received - round(AHEAD * self._sample_rate)
        if ahead > 0:
            self.ahead += 1
            self._tell_missed(box, "ahead", ahead)
            return
        self.lag = max(self.lag, self._age(box.sample_start))
        if box.sample_start < self._released:
            self.late += 1
            self._tell_missed(box, "late", self._released - box.sample_start)
        elif len(self._pending) >= 2 * MAX_PENDING:
            self.refused += 1
        else:
            self.tagged += 1
            number = next(self._order)
            start = pmt.to_pmt({"burst_id": number, **asdict(box)})
            heapq.heappush(self._pending, (box.sample_start, 2 * number, START_KEY, start))
            heapq.heappush(self._pending, (box.sample_end - 1, 2 * number + 1, END_KEY, pmt.from_long(number)))

    def _age(self, position: int) -> float:
        """Seconds since an item came; at least that, if it has left."""
        if position < self._released:
            return self._delay + (self._released - position) / self._sample_rate
        now = time.monotonic()
        return next((now - bucket.opened for bucket in self._buckets if bucket.end > position), 0.0)

    def _tell_missed(self, box: Annotation, reason: str, items: int) -> None:
        told = pmt.to_pmt({"reason": reason, "by": items / self._sample_rate, **asdict(box)})
        self.message_port_pub(pmt.intern("missed"), told)


@dataclass
class _Bucket:
    """Items that came at nearly the same time.

    Attributes
    ----------
    opened : float
        When the first came: seconds of ``time.monotonic``. The last came less than `BUCKET` later.
    end : int
        Position just past the last.
    """

    opened: float
    end: int


def _checked_rate(sample_rate: float) -> float:
    if not 0 < sample_rate < float("inf"):
        raise StreamError(f"sample_rate is {sample_rate}; expected the stream's items per second, in Hz")
    return sample_rate


def _checked_delay(delay: float, sample_rate: float) -> float:
    most = MAX_ITEMS / sample_rate
    if not 0 <= delay <= most:
        raise StreamError(f"delay is {delay}; expected 0 to {most:.0f} seconds, which is {MAX_ITEMS} items")
    return delay


def _checked_scale(interpolation: int, decimation: int, shift: int) -> Scale:
    for name, value in (("interpolation", interpolation), ("decimation", decimation)):
        if value < 1 or value != int(value):
            raise StreamError(f"{name} is {value}; expected a whole number from 1 on")
    if shift != int(shift):
        raise StreamError(f"shift is {shift}; expected a whole number of items")
    return Scale(int(interpolation), int(decimation), int(shift))
