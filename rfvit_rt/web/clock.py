# SPDX-License-Identifier: Apache-2.0
"""Stream positions ↔ seconds of the stream, through changes of sample rate and senders that begin anew."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

ROUNDING = 5e-5  # s by which stretches that follow each other may seem to overlap
MOST_TICKS = 4096  # changes that are remembered; a stream that changes more often has forgotten its first ones


@dataclass
class _Tick:
    """From here on positions count at one rate.

    ``end`` is the furthest position that was seen so.
    """

    sample: int
    seconds: float
    sample_rate: float
    end: int

    def seconds_at(self, sample: float) -> float:
        return self.seconds + (sample - self.sample) / self.sample_rate

    def sample_at(self, seconds: float) -> int:
        return self.sample + round((seconds - self.seconds) * self.sample_rate)


class StreamClock:
    """Seconds since the stream's position 0, which only ever go forwards.

    Where a sender begins anew, its positions do too; the seconds go on from where they were.
    """

    def __init__(self) -> None:
        self._ticks: deque[_Tick] = deque(maxlen=MOST_TICKS)

    @property
    def now(self) -> float:
        """Time of the furthest position, in s; 0 before the first."""
        return self._ticks[-1].seconds_at(self._ticks[-1].end) if self._ticks else 0.0

    @property
    def position(self) -> int:
        """The furthest position, since the sender last began anew; 0 before the first."""
        return self._ticks[-1].end if self._ticks else 0

    @property
    def sample_rate(self) -> float | None:
        """Samples per second, in Hz, at present; None before the first position."""
        return self._ticks[-1].sample_rate if self._ticks else None

    def note(self, sample_start: int, sample_end: int, sample_rate: float) -> None:
        """Take up a stretch of the stream; each begins where the one before it ended, or later."""
        if not self._ticks:
            self._ticks.append(_Tick(0, 0.0, sample_rate, sample_end))
            return
        last = self._ticks[-1]
        if sample_start < last.end - ROUNDING * last.sample_rate:  # the sender began anew
            self._ticks.append(_Tick(sample_start, self.now, sample_rate, sample_end))
        elif sample_rate != last.sample_rate:
            self._ticks.append(_Tick(sample_start, last.seconds_at(sample_start), sample_rate, sample_end))
        last = self._ticks[-1]
        last.end = max(last.end, sample_end)

    def seconds(self, sample_start: int, sample_end: int) -> tuple[float, float]:
        """Begin and end of a stretch, in s: the newest one of these positions that the stream reached."""
        tick = next((tick for tick in reversed(self._ticks) if tick.sample <= sample_start <= tick.end), None)
        tick = tick or (self._ticks[-1] if self._ticks else _Tick(0, 0.0, 1.0, 0))
        return tick.seconds_at(sample_start), tick.seconds_at(sample_end)

    def place(self, time_start: float, time_end: float) -> tuple[int, int, float, float]:
        """Positions of a stretch of time, rounded to the nearest and at least one apart, and their times in s.

        Both as they were counted at its beginning: a sender that began anew since has the same positions again.
        """
        tick = self._tick_at(time_start)
        first, last = (max(0, tick.sample_at(time)) for time in (time_start, time_end))
        last = max(last, first + 1)
        return first, last, tick.seconds_at(first), tick.seconds_at(last)

    def sample(self, seconds: float) -> int:
        """Position at a time, rounded to the nearest."""
        return max(0, self._tick_at(seconds).sample_at(seconds))

    def _tick_at(self, seconds: float) -> _Tick:
        tick = next((tick for tick in reversed(self._ticks) if tick.seconds <= seconds), None)
        return tick or (self._ticks[0] if self._ticks else _Tick(0, 0.0, 1.0, 0))
