# SPDX-License-Identifier: Apache-2.0
"""Messages → blocks: where they belong in the stream, what is missing, and what the radio's tags say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import WireError
from rfvit_rt.wire.gnuradio import StreamMessage, Tag

MAX_HERTZ = 1e12
LEAST_RATE = 1.0  # Hz: below it no time can be told from a count of samples
LARGEST_JITTER = 1.5  # samples: a jump of the radio's clock or count that is no larger is rounding, not loss
_RADIO_TAGS = frozenset({"rx_rate", "rx_freq", "rx_time"})


@dataclass
class StreamStatistics:
    """What became of the samples so far.

    Attributes
    ----------
    messages : int
        Messages received.
    samples_received : int
        Samples in them.
    transport_lost : int
        Samples that the messages' offsets show to be missing: lost on the way, in ZeroMQ or the network.
    radio_lost : int
        Samples that the radio's time stamps show to be missing: never taken, or lost before the sender counted them.
    dropped : int
        Samples dropped here because the reader was too slow.
    without_rate : int
        Samples that came before any sample rate was known, and could not be used.
    restarts : int
        Times the offset went backwards: the sender began a new stream.
    requests_repeated : int
        Requests that went unanswered for too long and were sent again.
    simulated : bool
        Whether a tag ``simulated`` said that no radio received them.
    """

    messages: int = 0
    samples_received: int = 0
    transport_lost: int = 0
    radio_lost: int = 0
    dropped: int = 0
    without_rate: int = 0
    restarts: int = 0
    requests_repeated: int = 0
    simulated: bool = False


def samples_lost(jump: Fraction | float) -> int:
    """Samples that the radio lost where its clock or count went ahead of the samples by `jump`, in samples.

    One rule for recordings and streams, so that a recording loses the same read from disk and replayed. A step back is
    a clock that was set.
    """
    return round(jump) if jump > LARGEST_JITTER else 0


class Timeline:
    """Places messages in the stream: counts what is missing, and cuts a block wherever a radio tag changes something.

    Parameters
    ----------
    sample_rate : float or None
        Samples per second in Hz, until a tag says otherwise.
    frequency : float or None
        Centre frequency in Hz, until a tag says otherwise.
    sample_count : int or None
        Samples, lost ones included, after which the stream is complete.
    statistics : StreamStatistics
        Counted up here.
    may_retune : bool
        Whether any loss may hide a retune; else only those in a segment that has been retuned before.
    """

    def __init__(
        self,
        sample_rate: float | None,
        frequency: float | None,
        sample_count: int | None,
        statistics: StreamStatistics,
        may_retune: bool = False,
    ) -> None:
        self._first = _Segment(_Tuning(sample_rate, frequency), may_retune=may_retune)
        self._segment = replace(self._first)
        self._sample_count = sample_count
        self._statistics = statistics
        self._next: int | None = None

    @property
    def sample_rate(self) -> float | None:
        """Sample rate at the end of what came so far, in Hz."""
        return self._segment.tuning.sample_rate

    @property
    def complete(self) -> bool:
        """Whether all samples came or were lost."""
        return self._left() == 0

    def blocks(self, message: StreamMessage, received: float) -> Iterator[IQBlock]:
        """Yield the message's samples as blocks of one sample rate and one frequency each.

        Parameters
        ----------
        message : StreamMessage
            The next message.
        received : float
            ``time.monotonic()`` when it came.

        Raises
        ------
        WireError
            If a radio tag has a value that cannot be.
        """
        start = self._place(message)
        self._statistics.simulated |= any(tag.key == "simulated" and tag.value is not False for tag in message.tags)
        samples = message.samples[: self._left()]
        self._statistics.samples_received += len(samples)
        self._next = start + len(samples)
        cut = start
        for offset, values in _radio_tags(message.tags, start, self._next):
            tuning, lost = self._segment.follow(offset, values)
            if tuning != self._segment.tuning or lost:
                yield from self._block(samples[cut - start : offset - start], cut, received)
                cut = offset
            self._segment.tuning = tuning
            self._segment.radio_lost += lost
            self._statistics.radio_lost += lost
        yield from self._block(samples[cut - start :], cut, received)

    def _left(self) -> int | None:
        if self._sample_count is None:
            return None
        return max(0, self._sample_count - self._statistics.samples_received - self._statistics.transport_lost)

    def _place(self, message: StreamMessage) -> int:
        """Return where the message belongs; count what is missing before it."""
        self._statistics.messages += 1
        expected = self._next
        start = message.offset
        if start is None:
            return expected or 0
        if expected is None or start == expected:
            return start
        if start < expected:
            self._statistics.restarts += 1
            self._segment = replace(self._first)
        else:
            left = self._left()
            self._statistics.transport_lost += start - expected if left is None else min(start - expected, left)
            self._segment.forget_frequency()
        return start

    def _block(self, samples: NDArray[np.complex64], start: int, received: float) -> Iterator[IQBlock]:
        if not len(samples):
            return
        rate, frequency = self._segment.tuning
        if rate is None:
            self._statistics.without_rate += len(samples)
            return
        lost, self._segment.radio_lost = self._segment.radio_lost, 0
        yield IQBlock(samples, start, rate, frequency, lost, received)


class _Tuning(NamedTuple):
    """What holds for every sample of a block."""

    sample_rate: float | None
    frequency: float | None


@dataclass
class _Segment:
    """What the tags have said since the sender was started."""

    tuning: _Tuning
    radio_lost: int = 0  # not reported with a block yet
    clock: _RadioClock | None = None
    frequency_tagged: bool = False
    may_retune: bool = False  # known, or seen before

    def follow(self, offset: int, values: Mapping[str, Any]) -> tuple[_Tuning, int]:
        """Return what holds from ``offset`` on, and how many samples the radio lost just before it."""
        tuning = self.tuning
        lost = 0
        if "rx_time" in values:
            clock = _radio_clock(offset, values["rx_time"])
            if self.clock is not None and tuning.sample_rate is not None:
                lost = self.clock.samples_missing(clock, tuning.sample_rate)
            self.clock = clock
        if "rx_rate" in values:
            rate = _number("rx_rate", values["rx_rate"], above=LEAST_RATE)
            # Not where the rate stays, or the roundings of many repetitions would add up.
            if self.clock is not None and tuning.sample_rate is not None and rate != tuning.sample_rate:
                self.clock = self.clock.at(offset, tuning.sample_rate)
            tuning = tuning._replace(sample_rate=rate)
        if "rx_freq" in values:
            told = values["rx_freq"]  # nil takes back what was said: the centre frequency is unknown from here on
            frequency = None if told is None else _number("rx_freq", told, above=-MAX_HERTZ)
            self.may_retune |= self.frequency_tagged and frequency != tuning.frequency
            self.frequency_tagged = True
            tuning = tuning._replace(frequency=frequency)
        return tuning, lost

    def forget_frequency(self) -> None:
        """After a gap that may have swallowed a retune, the frequency is unknown."""
        if self.may_retune:
            self.tuning = self.tuning._replace(frequency=None)


class _RadioClock(NamedTuple):
    """The radio's time at one sample. Full seconds stay an integer, because a double is coarser than a sample there."""

    offset: int
    seconds: int
    fraction: float

    def samples_missing(self, later: _RadioClock, sample_rate: float) -> int:
        """Samples that fit into the time between two stamps beyond those that were counted: Δtime · rate − Δoffset."""
        elapsed = (later.seconds - self.seconds) * sample_rate + (later.fraction - self.fraction) * sample_rate
        return samples_lost(elapsed - (later.offset - self.offset))

    def at(self, offset: int, sample_rate: float) -> _RadioClock:
        """The time at a later sample, by the sample rate."""
        return _RadioClock(offset, self.seconds, self.fraction + (offset - self.offset) / sample_rate)


def _radio_tags(tags: tuple[Tag, ...], start: int, end: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the radio's tags as (offset, {key: value}), in stream order; the last of a key at one sample counts."""
    groups: dict[int, dict[str, Any]] = {}
    for tag in tags:
        if tag.key in _RADIO_TAGS:
            # A tag outside the message holds from the message's edge that is nearest.
            groups.setdefault(min(max(tag.offset, start), end), {})[tag.key] = tag.value
    return sorted(groups.items(), key=lambda group: group[0])


def _number(key: str, value: Any, above: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= MAX_HERTZ:
        raise WireError(f"the {key} tag is {_short(value)}, expected a number in Hz; check the block that sets it")
    return float(value)


def _radio_clock(offset: int, value: Any) -> _RadioClock:
    if isinstance(value, tuple) and len(value) == 2:
        seconds, fraction = value
        if isinstance(seconds, int) and isinstance(fraction, float) and -1.0 <= fraction <= 1.0:
            return _RadioClock(offset, int(seconds), fraction)
    raise WireError(
        f"the rx_time tag is {_short(value)}, expected (full seconds, fraction); check the block that sets it"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
