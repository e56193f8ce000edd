# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit Band Gate: only the samples of the bursts that are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from gnuradio.rfvit.annotation_tagger import END_KEY, START_KEY
from gnuradio.rfvit.ring import Ring
from numpy.typing import NDArray
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.pmt import Pair, serialize

GATE_START_KEY = "gate_start"
GATE_END_KEY = "gate_end"

MAX_SAMPLES = 1 << 24  # of a guard or a PDU: 128 MiB
MAX_OPEN = 64  # bursts that are gathered at the same time


class BandGate(gr.hier_block2):
    """Lets through only what carries a wanted label, to the sample; works from the tags of rfvit Annotation Tagger.

    ``stream``: the samples of all wanted bursts, one after the other, each once, with their tags. Bursts that overlap
    are one stretch. The tag ``gate_start`` lies on the first sample of a stretch: a dictionary of offset (the
    sample's own, before the gate) and all that ``rfvit_start`` says of the burst that opened the gate. ``gate_end``
    lies on the last sample; its value is that one's offset before the gate. A burst that begins just after another
    begins a stretch of its own.

    ``pdu``: one PDU (c32 vector) for every wanted burst on the message port ``pdus``, at the burst's end; those of
    bursts that overlap hold the same samples. The metadata is what ``rfvit_start`` says, and offset (of the PDU's
    first sample), part (counted from 0) and last (whether the burst ends here). A burst longer than `max_samples` comes
    in parts, and is counted (`split`). What has not ended when the flowgraph does is not sent.

    Parameters
    ----------
    labels : sequence of str
        The wanted labels.
    output : str
        ``stream`` or ``pdu``.
    min_confidence : float
        Bursts of lower confidence are not wanted, 0 to 1.
    guard_before, guard_after : int
        Samples before and after a burst that are let through with it.
    max_samples : int
        Most samples of a PDU.

    Raises
    ------
    StreamError
        If a parameter is out of range.
    """

    def __init__(
        self,
        labels: Sequence[str],
        output: str = "stream",
        min_confidence: float = 0.0,
        guard_before: int = 0,
        guard_after: int = 0,
        max_samples: int = 1 << 20,
    ) -> None:
        wanted = _Wanted(_checked_labels(labels), _checked_confidence(min_confidence))
        guard = _Guard(_checked("guard_before", guard_before, 0), _checked("guard_after", guard_after, 0))
        if output not in ("stream", "pdu"):
            raise StreamError(f"output is {output!r}; expected 'stream' or 'pdu'")
        signature = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        if output == "stream":
            gr.hier_block2.__init__(self, "rfvit Band Gate", signature, signature)
            self._gate: _StreamGate | _PDUGate = _StreamGate(wanted, guard)
            self.connect(self, self._gate, self)
        else:
            gr.hier_block2.__init__(self, "rfvit Band Gate", signature, gr.io_signature(0, 0, 0))
            self.message_port_register_hier_out("pdus")
            self._gate = _PDUGate(wanted, guard, _checked("max_samples", max_samples, 1))
            self.connect(self, self._gate)
            self.msg_connect(self._gate, "pdus", self, "pdus")

    def set_labels(self, labels: Sequence[str]) -> None:
        """Want other labels, from the next burst on."""
        self._gate.wanted = replace(self._gate.wanted, labels=_checked_labels(labels))

    def set_min_confidence(self, min_confidence: float) -> None:
        """Want another least confidence, from the next burst on."""
        self._gate.wanted = replace(self._gate.wanted, min_confidence=_checked_confidence(min_confidence))

    def bursts(self) -> int:
        """Return the number of wanted bursts so far."""
        return self._gate.bursts

    def split(self) -> int:
        """Return the number of bursts so far that took more than one PDU."""
        return self._gate.split

    def skipped(self) -> int:
        """Return the number of wanted bursts so far for which too many others were open (PDUs only)."""
        return self._gate.skipped


@dataclass(frozen=True)
class _Wanted:
    labels: frozenset[str]
    min_confidence: float

    def accepts(self, burst: dict[str, Any]) -> bool:
        return burst["label"] in self.labels and burst["confidence"] >= self.min_confidence


@dataclass(frozen=True)
class _Guard:
    before: int
    after: int


@dataclass(frozen=True)
class _Change:
    """A burst begins or ends.

    Attributes
    ----------
    position : int
        Of its first sample, or just past its last.
    burst_id : int
    burst : dict or None
        What its start tag says; None at its end.
    """

    position: int
    burst_id: int
    burst: dict[str, Any] | None = None


def _changes(tags: Iterable[gr.tag_t], wanted: _Wanted) -> list[_Change]:
    """Wanted begins, and all ends, in order; where one ends and another begins, the end comes first."""
    changes = []
    for tag in tags:
        key = pmt.symbol_to_string(tag.key)
        if key == START_KEY:
            burst = pmt.to_python(tag.value)
            if wanted.accepts(burst):
                changes.append(_Change(tag.offset, burst["burst_id"], burst))
        elif key == END_KEY:
            changes.append(_Change(tag.offset + 1, pmt.to_long(tag.value)))
    return sorted(changes, key=lambda change: (change.position, change.burst is not None))


@dataclass
class _Piece:
    """Consecutive samples that are let through.

    Attributes
    ----------
    start, end : int
        Positions of the first, and just past the last.
    opened_by : dict or None
        The burst that opened the gate, if it opened here.
    shuts : bool
        Whether the gate shuts after the last.
    """

    start: int
    end: int
    opened_by: dict[str, Any] | None = None
    shuts: bool = False


class Stretches:
    """Where the gate is open. How the stream is cut into chunks leaves no trace.

    Parameters
    ----------
    guard_before, guard_after : int
        Samples that are let through around a burst.
    """

    def __init__(self, guard_before: int, guard_after: int) -> None:
        self._before = guard_before
        self._after = guard_after
        self._open: set[int] = set()  # bursts
        self._shut_at = 0  # position, where no burst is open
        self._pieces: list[_Piece] = []

    def feed(self, start: int, end: int, changes: Iterable[_Change]) -> list[_Piece]:
        """Give what is let through now that the samples from `start` to `end` are here; some may lie before `start`."""
        last = self._pieces[-1].end if self._pieces else 0
        self._pieces = [_Piece(last, last)]  # so that no sample is let through twice
        for change in changes:
            self._pass(start, change.position)
            start = change.position
            if change.burst is None:
                self._end(change)
            else:
                self._begin(change.position, change.burst_id, change.burst)
        self._pass(start, end)
        return [piece for piece in self._pieces if piece.end > piece.start]

    def _pass(self, start: int, end: int) -> None:
        if not self._open:
            end = min(end, self._shut_at)
        if start < end:
            if self._pieces[-1].end < start or self._pieces[-1].shuts:
                self._pieces.append(_Piece(start, start))
            self._pieces[-1].end = end
            self._pieces[-1].shuts = not self._open and end == self._shut_at

    def _begin(self, position: int, burst_id: int, burst: dict[str, Any]) -> None:
        if not self._open and self._shut_at <= position:
            start = max(position - self._before, self._pieces[-1].end)
            self._pieces.append(_Piece(start, position, opened_by=burst))
        self._open.add(burst_id)

    def _end(self, change: _Change) -> None:
        if change.burst_id in self._open:
            self._open.remove(change.burst_id)
            self._shut_at = change.position + self._after
            self._pieces[-1].shuts = not self._open and not self._after


class _StreamGate(gr.basic_block):
    """The samples of all wanted bursts, one after the other."""

    split = skipped = 0

    def __init__(self, wanted: _Wanted, guard: _Guard) -> None:
        gr.basic_block.__init__(self, "rfvit gate", [np.complex64], [np.complex64])
        self.set_tag_propagation_policy(gr.TPP_DONT)
        self.wanted = wanted
        self._guard = guard
        self.bursts = 0

    def start(self) -> bool:
        """Begin anew, shut."""
        self.bursts = 0
        self._stretches = Stretches(self._guard.before, self._guard.after)
        self._past = _Past(self._guard.before)
        self._past_tags: list[gr.tag_t] = []
        self._waiting: deque[_Passed] = deque()  # let through, and not yet given out
        return True

    def forecast(self, noutput_items: int, ninputs: int) -> list[int]:
        """Ask for input only when nothing is left to give out, at the stream's end too."""
        return [int(not self._waiting)] * ninputs

    def general_work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Give out what may pass; take in only when all of it has been given out."""
        out = output_items[0]
        given = 0
        if not self._waiting:
            self._take(input_items[0])
        while self._waiting and given < len(out):
            given += self._give(self._waiting[0], out[given:], self.nitems_written(0) + given)
        return given

    def _take(self, samples: NDArray[np.complex64]) -> None:
        start = self.nitems_read(0)
        end = start + len(samples)
        tags = [*self._past_tags, *self.get_tags_in_range(0, start, end)]
        changes = _changes((tag for tag in tags if tag.offset >= start), self.wanted)
        self.bursts += sum(change.burst is not None for change in changes)
        for piece in self._stretches.feed(start, end, changes):
            own = [tag for tag in tags if piece.start <= tag.offset < piece.end]
            self._waiting.append(_Passed(piece, self._past.joined(piece.start, piece.end, start, samples), own))
        self._past.write(start, samples)
        self._past_tags = [tag for tag in tags if tag.offset >= end - self._guard.before]
        self.consume(0, len(samples))

    def _give(self, passed: _Passed, out: NDArray[np.complex64], position: int) -> int:
        """Give out what there is room for, with its tags; return how much."""
        piece, begin = passed.piece, passed.given
        count = min(len(out), len(passed.samples) - begin)
        out[:count] = passed.samples[begin : begin + count]
        if begin == 0 and piece.opened_by is not None:
            opening = pmt.to_pmt({**piece.opened_by, "offset": piece.start})
            self.add_item_tag(0, position, pmt.intern(GATE_START_KEY), opening)
        for tag in passed.tags:
            place = tag.offset - piece.start - begin
            if 0 <= place < count:
                self.add_item_tag(0, position + place, tag.key, tag.value, tag.srcid)
        passed.given += count
        if passed.given == len(passed.samples):
            self._waiting.popleft()
            if piece.shuts:
                closing = pmt.from_long(piece.end - 1)
                self.add_item_tag(0, position + count - 1, pmt.intern(GATE_END_KEY), closing)
        return count


@dataclass
class _Passed:
    """Samples on their way out, with their tags."""

    piece: _Piece
    samples: NDArray[np.complex64]
    tags: list[gr.tag_t]
    given: int = 0


class _PDUGate(gr.sync_block):
    """Every wanted burst for itself."""

    def __init__(self, wanted: _Wanted, guard: _Guard, max_samples: int) -> None:
        gr.sync_block.__init__(self, "rfvit gate", [np.complex64], None)
        self.message_port_register_out(pmt.intern("pdus"))
        self.wanted = wanted
        self._guard = guard
        self._max_samples = max_samples
        self.bursts = self.split = self.skipped = 0

    def start(self) -> bool:
        """Begin anew."""
        self.bursts = self.split = self.skipped = 0
        self._past = _Past(self._guard.before)
        self._open: dict[int, _Gathered] = {}
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Gather the bursts, and send those that have ended."""
        samples = input_items[0]
        start = self.nitems_read(0)
        end = start + len(samples)
        for change in _changes(self.get_tags_in_range(0, start, end), self.wanted):
            self._finish(change.position, start, samples)
            if change.burst is not None:
                self._begin(change.position, change.burst_id, change.burst)
            elif change.burst_id in self._open:
                self._open[change.burst_id].end = change.position + self._guard.after
        self._finish(end, start, samples)
        for gathered in self._open.values():
            self._gather(gathered, end, start, samples)
        self._past.write(start, samples)
        return len(samples)

    def _finish(self, position: int, start: int, samples: NDArray[np.complex64]) -> None:
        """Send the bursts that have ended by there."""
        for burst_id, gathered in list(self._open.items()):
            if gathered.end is not None and gathered.end <= position:
                self._gather(gathered, gathered.end, start, samples)
                self._send(gathered, last=True)
                del self._open[burst_id]

    def _begin(self, position: int, burst_id: int, burst: dict[str, Any]) -> None:
        if len(self._open) >= MAX_OPEN:
            self.skipped += 1
            return
        self.bursts += 1
        start = max(0, position - self._guard.before)
        self._open[burst_id] = _Gathered(burst, offset=start, next=start)

    def _gather(self, gathered: _Gathered, end: int, start: int, samples: NDArray[np.complex64]) -> None:
        while gathered.next < end:
            if gathered.next - gathered.offset == self._max_samples:
                self.split += gathered.part == 0
                self._send(gathered, last=False)
            until = min(end, gathered.offset + self._max_samples)
            gathered.samples.append(self._past.joined(gathered.next, until, start, samples))
            gathered.next = until

    def _send(self, gathered: _Gathered, last: bool) -> None:
        told = {**gathered.burst, "offset": gathered.offset, "part": gathered.part, "last": last}
        # By way of bytes: many times faster than by way of a list of Python's numbers.
        pdu = pmt.deserialize_str(serialize(Pair(told, np.concatenate(gathered.samples))))
        self.message_port_pub(pmt.intern("pdus"), pdu)
        gathered.samples = []
        gathered.offset = gathered.next
        gathered.part += 1


@dataclass
class _Gathered:
    """What there is of a burst.

    Attributes
    ----------
    burst : dict
        What its start tag says.
    offset, next : int
        Positions of the first sample that was not sent, and of the first that is not here.
    end : int or None
        Position just past the last, where it is known.
    part : int
        Number of the next PDU.
    samples : list of (n,) complex64
        From `offset` to `next`.
    """

    burst: dict[str, Any]
    offset: int
    next: int
    end: int | None = None
    part: int = 0
    samples: list[NDArray[np.complex64]] = field(default_factory=list)


class _Past(Ring):
    """The samples just before a chunk, as many as the guard asks for."""

    def joined(self, start: int, end: int, chunk_start: int, chunk: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Copy the samples from `start` to `end`, those before the chunk from the past."""
        out = np.empty(end - start, np.complex64)
        before = max(0, min(end, chunk_start) - start)
        self.read(start, out[:before])
        out[before:] = chunk[max(start, chunk_start) - chunk_start : end - chunk_start]
        return out


def _checked_labels(labels: Sequence[str]) -> frozenset[str]:
    wanted = [labels] if isinstance(labels, str) else list(labels)
    if not wanted or not all(isinstance(label, str) and label for label in wanted):
        raise StreamError(f"labels is {labels!r}; expected one or more of the model's labels, such as ['LTE']")
    return frozenset(wanted)


def _checked_confidence(confidence: float) -> float:
    if not 0 <= confidence <= 1:
        raise StreamError(f"min_confidence is {confidence}; expected 0 to 1")
    return confidence


def _checked(name: str, count: int, least: int) -> int:
    if count != int(count) or not least <= count <= MAX_SAMPLES:
        raise StreamError(f"{name} is {count}; expected {least} to {MAX_SAMPLES} samples")
    return int(count)
