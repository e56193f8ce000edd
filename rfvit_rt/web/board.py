# SPDX-License-Identifier: Apache-2.0
"""What all pages are shown of one run. It belongs to the server's thread: nobody else touches it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from itertools import accumulate
from typing import Any

from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.emissions import EmissionTracker
from rfvit_rt.figures import Figures, Histogram, SegmentationFigures
from rfvit_rt.web.clock import StreamClock
from rfvit_rt.web.corrections import Boxes
from rfvit_rt.web.log import Log
from rfvit_rt.web.protocol import Box, EmissionRow, Hello, Status, Tile, encode, message
from rfvit_rt.web.waterfall import Waterfall

MOST_MESSAGES = 10_000
MOST_NEWS = 1000
MOST_OCCUPANCIES = 20_000  # ten minutes of one every 30 ms
MOST_EMISSIONS = 200  # those that were seen last
TICKS = 1_000_000  # of the emissions' clock in a second
CURRENT_SECONDS = 1.5  # an endless emission is seen once a second
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Board:
    """What all pages are shown.

    Parameters
    ----------
    hello : Hello
        What there is to say of the run before it began.
    figures : callable
        Gives the run's figures of the moment.

    Attributes
    ----------
    figures : callable
        As above.
    clock : StreamClock
    waterfall : Waterfall
    boxes : Boxes
    messages : Log
        What pages have to know of, in order, since the beginning of the run.
    news : Log
        What matters to the pages of the moment alone.
    occupancies : Log
        Likewise, but nothing else depends on any of them.
    status : Status
    emissions : str
        Newest message of that kind.
    frequency : float or None
        Centre frequency in Hz that holds now.
    achieved_rate : float or None
        As in :class:`rfvit_rt.web.protocol.Status`.
    answer : tuple of str and float
        Label and confidence of the newest window of CSI; "" before the first.
    clients : int
        Pages connected.
    stretches_dropped : int
        Of the waterfall, on their way here.
    ended : bool
    """

    def __init__(self, hello: Hello, figures: Callable[[], Figures]) -> None:
        self._hello = hello
        self.figures = figures
        self._tracker = EmissionTracker()
        self._rate = _Rate()
        self.clock = StreamClock()
        self.waterfall = Waterfall()
        self.boxes = Boxes()
        self.messages = Log(MOST_MESSAGES)
        self.news = Log(MOST_NEWS)
        self.occupancies = Log(MOST_OCCUPANCIES)
        self.frequency = hello.frequency
        self.achieved_rate: float | None = None
        self.answer = ("", 0.0)
        self.clients = 0
        self.stretches_dropped = 0
        self.ended = False
        self.status = self._status()
        self.emissions = message("emissions", list=[], unlisted=0)

    @property
    def is_simulated(self) -> bool:
        """Whether it is known that no radio received this: a recording or the stream itself says so."""
        figures = self.figures()
        return self._hello.simulated or (isinstance(figures, SegmentationFigures) and figures.simulated)

    def hello(self) -> str:
        """What a page is told first."""
        figures = self.figures()
        known = replace(self._hello, recorded=figures.recorded, frequency=self.frequency)
        if isinstance(figures, SegmentationFigures):
            rate = figures.sample_rate or self._hello.sample_rate
            known = replace(known, sample_rate=rate, simulated=self.is_simulated)
        return encode(known)

    def tell(self, kind: str, /, **values: object) -> None:
        """Give all pages a message, and those that come later."""
        self.messages.append(message(kind, **values))

    def tell_now(self, kind: str, /, **values: object) -> None:
        """Give all pages of the moment a message."""
        self.news.append(message(kind, **values))

    def show(self, tile: Tile) -> None:
        """Put a stretch on the waterfall."""
        self.waterfall.append(tile)

    def listen(self, sample_start: int, sample_end: int, sample_rate: float, frequency: float | None) -> None:
        """Take up how far the stream has been analysed."""
        self.clock.note(sample_start, sample_end, sample_rate)
        begin, end = (round(time * TICKS) for time in self.clock.seconds(sample_start, sample_end))
        self._tracker.listen(begin, end, frequency)

    def describe_columns(self, n_bins: int, frequency: float | None) -> None:
        """Take up what pages are told of the waterfall's columns when they connect."""
        self.frequency = frequency
        if n_bins != self._hello.n_bins:
            self._hello = replace(self._hello, n_bins=n_bins)

    def note_rate(self, achieved_rate: float) -> None:
        """Take up how fast the stream is worked through."""
        self.achieved_rate = achieved_rate

    def note_answer(self, label: str, confidence: float, seconds: float) -> None:
        """Take up what the newest window of CSI alone says."""
        self.answer = (label, confidence)
        self.tell_now("answer", label=label, confidence=confidence, time=seconds)

    def add_occupancy(self, seconds: float, shares: Mapping[str, float]) -> None:
        """Take up what share of the pixels about a time has which label."""
        self.occupancies.append(message("occupancy", time=seconds, shares=shares))

    def add_annotation(self, annotation: Annotation) -> None:
        """Take up what the model found."""
        # By the page's clock: positions begin anew with their sender, and change their meaning with the rate.
        begin, end = (
            round(time * TICKS) for time in self.clock.seconds(annotation.sample_start, annotation.sample_end)
        )
        timed = replace(annotation, sample_start=begin, sample_count=max(1, end - begin), sample_rate=float(TICKS))
        self._tracker.add(timed)
        self.show_box(self.boxes.add(annotation, self.clock))

    def show_box(self, box: Box) -> None:
        """Give all pages a box, in place of that with the same number."""
        self.messages.append(encode(box))

    def tick(self) -> None:
        """Bring status and emissions up to date; to be called about once a second."""
        self.status = self._status()
        rows = sorted(map(self._emission_row, self._tracker.latest(MOST_EMISSIONS)), key=lambda row: -row.last_seen)
        unlisted = self._tracker.count - len(rows)
        self.emissions = message("emissions", list=[asdict(row) for row in rows], unlisted=unlisted)

    def end(self, reason: str) -> None:
        """Say that the run is over."""
        self.ended = self.waterfall.closed = True
        self.tick()
        self.tell("end", reason=reason)

    def _emission_row(self, emission: Emission) -> EmissionRow:
        first, last = emission.first_seen / TICKS, emission.last_seen / TICKS
        is_current = not self.ended and self.clock.now - last < CURRENT_SECONDS
        return EmissionRow(
            label=emission.label,
            freq_lower_edge=emission.freq_lower_edge,
            freq_upper_edge=emission.freq_upper_edge,
            first_seen=first,
            last_seen=last,
            burst_count=emission.burst_count,
            duty_cycle=emission.duty_cycle,
            confidence=emission.confidence,
            is_current=is_current,
        )

    def _status(self) -> Status:
        figures = self.figures()
        common: dict[str, Any] = {
            "seconds": self.clock.now,
            "frequency": self.frequency,
            "achieved_rate": self.achieved_rate,
            "restarts": figures.restarts,
            "windows": figures.windows,
            "windows_per_second": 0.0 if self.ended else self._rate.of(figures.windows),
            "clients": self.clients,
            "frames_dropped": 0,
            "rows_dropped": self.stretches_dropped,
            "recorded": figures.recorded,
            "simulated": self.is_simulated,
            "ended": self.ended,
        }
        if isinstance(figures, SegmentationFigures):
            return Status(
                position=self.clock.position,
                sample_rate=figures.sample_rate,
                lost=dict(figures.lost),
                age=percentiles(figures.sample_age),
                **common,
            )
        return Status(
            position=figures.frames,
            sample_rate=self.achieved_rate,
            lost={name: getattr(figures, name) for name in ("lost", "dropped", "foreign", "malformed")},
            age=percentiles(figures.result_age),
            **common,
        )


class _Rate:
    """How fast a count has been growing since it was last asked for."""

    def __init__(self) -> None:
        self._count = 0
        self._time = time.monotonic()

    def of(self, count: int) -> float:
        now = time.monotonic()
        rate = (count - self._count) / max(now - self._time, 1e-3)
        self._count, self._time = count, now
        return max(0.0, rate)


def percentiles(histogram: Histogram) -> dict[str, float] | None:
    """Upper bounds in s that 50, 95 and 99 % of the durations stay below; None where there are none.

    What exceeds all bounds of the histogram counts as twice the largest.
    """
    counts = list(accumulate(histogram.counts))
    if not counts[-1]:
        return None
    bounds = [*histogram.bounds, 2 * histogram.bounds[-1]]
    return {name: bounds[bisect_left(counts, share * counts[-1])] for name, share in PERCENTILES.items()}
