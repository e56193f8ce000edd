# SPDX-License-Identifier: Apache-2.0
"""The boxes that the page shows: what the model found, corrected by people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import WireError
from rfvit_rt.sinks.sigmf import describe_annotation
from rfvit_rt.web.clock import StreamClock
from rfvit_rt.web.protocol import Box, Correct

MOST_BOXES = 100_000
MOST_CORRECTIONS = 10_000

_KEPT_OF_THE_MODEL = ("label", "confidence", "time_start", "time_end", "freq_lower_edge", "freq_upper_edge")


class Boxes:
    """All boxes of a run, the oldest of the model's let go where they are too many.

    Attributes
    ----------
    corrections : int
        Boxes that people corrected, drew or deleted.
    forgotten : int
        Boxes that were let go.
    """

    def __init__(self) -> None:
        self._boxes: dict[int, Box] = {}
        self._next = 0
        self.corrections = 0
        self.forgotten = 0

    def __iter__(self) -> Iterator[Box]:
        return iter(self._boxes.values())

    def __len__(self) -> int:
        return len(self._boxes)

    def add(self, annotation: Annotation, clock: StreamClock) -> Box:
        """Take up what the model found."""
        start, end = clock.seconds(annotation.sample_start, annotation.sample_end)
        return self._keep(
            Box(
                id=self._take_number(),
                label=annotation.label,
                confidence=annotation.confidence,
                sample_start=annotation.sample_start,
                sample_count=annotation.sample_count,
                time_start=start,
                time_end=end,
                freq_lower_edge=annotation.freq_lower_edge,
                freq_upper_edge=annotation.freq_upper_edge,
                frequency=annotation.frequency,
            )
        )

    def correct(self, request: Correct, clock: StreamClock, frequency: float | None) -> Box:
        """Put a box as a person says it should be.

        Parameters
        ----------
        request : Correct
        clock : StreamClock
        frequency : float or None
            Centre frequency in Hz that holds where a box is drawn anew.

        Raises
        ------
        WireError
            If there is no such box, it lies where there is no stream, or there are too many corrections.
        """
        before = self.find(request.id) if request.id is not None else None
        if request.time_start >= clock.now:
            raise WireError(f"the box begins at {request.time_start:g} s, and the stream reaches to {clock.now:g} s")
        if self.corrections == MOST_CORRECTIONS and (before is None or before.origin == "model"):
            raise WireError(f"there are {MOST_CORRECTIONS} corrections already; save them, and start again")
        first, last, start, end = clock.place(request.time_start, min(request.time_end, clock.now))
        drawn = before is None or before.origin == "drawn"
        self.corrections += before is None or before.origin == "model"
        return self._keep(
            Box(
                id=self._take_number() if before is None else before.id,
                label=request.label,
                confidence=1.0,
                sample_start=first,
                sample_count=last - first,
                time_start=start,
                time_end=end,
                freq_lower_edge=request.freq_lower_edge,
                freq_upper_edge=request.freq_upper_edge,
                frequency=frequency if before is None else before.frequency,
                origin="drawn" if drawn else "corrected",
                was=None if before is None or drawn else before.was or _of_the_model(before),
            )
        )

    def delete(self, identity: int) -> None:
        """Take a box out.

        Raises
        ------
        WireError
            If there is no such box, or there are too many corrections.
        """
        box = self.find(identity)
        if self.corrections == MOST_CORRECTIONS and box.origin == "model":
            raise WireError(f"there are {MOST_CORRECTIONS} corrections already; save them, and start again")
        del self._boxes[identity]
        self.corrections += box.origin == "model"

    def during(self, time_start: float, time_end: float) -> list[Box]:
        """Boxes that lie in a stretch of time, in s of the stream, at least in part."""
        return [box for box in self if box.time_start < time_end and box.time_end > time_start]

    def find(self, identity: int) -> Box:
        """Give a box by its number; raises WireError where there is none."""
        if identity not in self._boxes:
            raise WireError(f"there is no box {identity}; it was deleted, or is too old")
        return self._boxes[identity]

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1

    def _keep(self, box: Box) -> Box:
        self._boxes[box.id] = box
        if len(self._boxes) > MOST_BOXES:
            # What people said is not let go.
            oldest = next((number for number, held in self._boxes.items() if held.origin == "model"), None)
            if oldest is not None:
                del self._boxes[oldest]
                self.forgotten += 1
        return box


def sigmf_annotations(boxes: Sequence[Box], sample_rate: float, sample_end: int, model: str) -> list[dict[str, Any]]:
    """Give boxes as SigMF has them, in order.

    Parameters
    ----------
    boxes : sequence of Box
    sample_rate : float
        In Hz.
    sample_end : int
        Position just past the last sample that there is; what reaches beyond is cut off there.
    model : str
        Name and digest of the model that found those which it found.
    """
    ordered = sorted(boxes, key=lambda box: (box.sample_start, box.freq_lower_edge))
    return [_sigmf(box, sample_rate, sample_end, model) for box in ordered if box.sample_start < sample_end]


def _sigmf(box: Box, sample_rate: float, sample_end: int, model: str) -> dict[str, Any]:
    annotation = Annotation(
        label=box.label,
        sample_start=box.sample_start,
        sample_count=box.sample_count,
        freq_lower_edge=box.freq_lower_edge,
        freq_upper_edge=box.freq_upper_edge,
        confidence=box.confidence,
        sample_rate=sample_rate,
        frequency=box.frequency,
    )
    fields = describe_annotation(annotation, sample_end)
    if box.origin == "model":
        return fields | {"rfvit:model": model}
    comment = "drawn by a person"
    if box.was is not None:
        comment = f"corrected by a person; the model said {box.was['label']}, confidence {box.was['confidence']:.0%}"
    return fields | {"core:comment": comment, "rfvit:origin": box.origin}


def _of_the_model(box: Box) -> dict[str, Any]:
    return {name: getattr(box, name) for name in _KEPT_OF_THE_MODEL}


def shifted(box: Box, samples: int, sample_start: int) -> Box:
    """A box whose positions count from elsewhere, cut off before a sample."""
    first = max(box.sample_start, sample_start)
    return replace(box, sample_start=first - samples, sample_count=box.sample_start + box.sample_count - first)
