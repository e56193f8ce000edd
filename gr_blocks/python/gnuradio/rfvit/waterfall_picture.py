# SPDX-License-Identifier: GPL-3.0-or-later
"""What a waterfall shows, without the toolkit that draws it: lines, labelled cells and boxes, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rfvit_rt.datatypes import Annotation
from rfvit_rt.wire.summary import MAX_LABELS, WindowSummary

# Okabe and Ito's colours, which colour-blind people can tell apart (jfly.uni-koeln.de/color), in the order of rfvit's
# pictures: the same label has the same colour in both.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
TINT = 0.75  # how far a labelled cell's grey is drawn towards its label's colour
NOTHING = 64  # grey where there are no samples
MAX_BOXES = 500


@dataclass(frozen=True)
class Tuning:
    """What the radio is set to.

    Attributes
    ----------
    sample_rate : float
        In Hz.
    frequency : float or None
        Centre in Hz; None where unknown.
    """

    sample_rate: float
    frequency: float | None

    def fits(self, sample_rate: float, frequency: float | None) -> bool:
        """Whether a result is about this tuning, as far as both know theirs."""
        return sample_rate == self.sample_rate and (None in (frequency, self.frequency) or frequency == self.frequency)


@dataclass(frozen=True, eq=False)
class Line:
    """Spectrum of a short stretch of the stream.

    Attributes
    ----------
    number : int
        Lines of the stream before it, dropped ones included.
    power : (bin,) float32
        In dB; bins ascend in frequency.
    tuning : Tuning
    """

    number: int
    power: NDArray[np.float32]
    tuning: Tuning


@dataclass(frozen=True)
class Box:
    """A labelled region in the picture.

    Attributes
    ----------
    left, right : float
        Share of the band, 0 to 1.
    top, bottom : float
        Seconds of the stream; the top is newer.
    label, colour : str
    confidence : float
    """

    left: float
    right: float
    top: float
    bottom: float
    label: str
    colour: str
    confidence: float


class WaterfallPicture:
    """The newest lines of a stream, and what rfvit says of them; begins anew where the radio is tuned to another band.

    Parameters
    ----------
    lines : int
        Lines that are shown.
    bins : int
        Bins of a line.
    line_samples : int
        Samples from the start of a line to that of the next.
    """

    def __init__(self, lines: int, bins: int, line_samples: int) -> None:
        self._line_samples = line_samples
        self._power = np.full((lines, bins), np.nan, np.float32)  # line n in row n modulo their number
        self._classes = np.zeros((lines, bins), np.uint8)
        self._newest = -1
        self._boxes: deque[Annotation] = deque(maxlen=MAX_BOXES)
        self.labels: list[str] = ["background"]
        self.tuning: Tuning | None = None

    def add_line(self, line: Line) -> None:
        """Take up a line; one that is older than the newest begins the stream anew."""
        rows = len(self._power)
        if line.tuning != self.tuning or line.number <= self._newest:
            self._clear()
            self.tuning = line.tuning
            self._newest = line.number - 1
        for number in range(max(self._newest + 1, line.number - rows + 1), line.number + 1):
            self._power[number % rows] = np.nan
            self._classes[number % rows] = 0
        self._power[line.number % rows] = line.power
        self._newest = line.number

    def _clear(self) -> None:
        self._power[:] = np.nan
        self._classes[:] = 0
        self._boxes.clear()

    def add_window(self, window: WindowSummary) -> None:
        """Colour the cells of the lines that the window covers."""
        if self.tuning is None or not self.tuning.fits(window.sample_rate, window.frequency):
            return
        self.labels = list(window.labels)
        steps, bins = window.class_map.shape
        columns = (2 * np.arange(self._power.shape[1]) + 1) * bins // (2 * self._power.shape[1])
        first = max(self._oldest, window.sample_start // self._line_samples)
        last = min(self._newest, (window.sample_end - 1) // self._line_samples)
        for number in range(first, last + 1):
            start = number * self._line_samples - window.sample_start
            begin = max(0, start) * steps // window.sample_count
            end = -(-min(window.sample_count, start + self._line_samples) * steps // window.sample_count)
            cells = window.class_map[begin:end].max(axis=0)[columns]
            row = self._classes[number % len(self._classes)]
            np.copyto(row, cells, where=cells > 0)

    def add_annotation(self, annotation: Annotation) -> None:
        """Draw a box."""
        if self.tuning is None or not self.tuning.fits(annotation.sample_rate, annotation.frequency):
            return
        if annotation.label not in self.labels and len(self.labels) < MAX_LABELS:
            self.labels.append(annotation.label)
        self._boxes.append(annotation)

    @property
    def _oldest(self) -> int:
        return self._newest - len(self._power) + 1

    def seconds(self) -> tuple[float, float]:
        """Time in the stream of the picture's lower and upper edge, in s."""
        rate = self.tuning.sample_rate if self.tuning else 1.0
        return tuple(number * self._line_samples / rate for number in (self._oldest, self._newest + 1))

    def edges(self) -> tuple[float, float]:
        """Lower and upper edge of the band in Hz; from the centre, where that is unknown."""
        if self.tuning is None:
            return -0.5, 0.5
        # The centre frequency is the centre of the bin above the middle, as FFTs have it.
        centre = (self.tuning.frequency or 0.0) - self.tuning.sample_rate / self._power.shape[1] / 2
        return centre - self.tuning.sample_rate / 2, centre + self.tuning.sample_rate / 2

    def boxes(self) -> list[Box]:
        """Boxes of which a part is in the picture, cut to it."""
        if self.tuning is None:
            return []
        oldest, newest = self.seconds()
        cut = [self._box(annotation, self.tuning, oldest, newest) for annotation in self._boxes]
        return [box for box in cut if box.left < box.right and box.bottom < box.top]

    def _box(self, annotation: Annotation, tuning: Tuning, oldest: float, newest: float) -> Box:
        # Relative to the centre that rfvit knows, so that a waterfall that knows none shows them in place.
        left, right = (
            (edge - (annotation.frequency or 0.0) + (tuning.frequency or 0.0) - self.edges()[0]) / tuning.sample_rate
            for edge in (annotation.freq_lower_edge, annotation.freq_upper_edge)
        )
        return Box(
            left=max(0.0, left),
            right=min(1.0, right),
            top=min(newest, annotation.sample_end / tuning.sample_rate),
            bottom=max(oldest, annotation.sample_start / tuning.sample_rate),
            label=annotation.label,
            colour=self.colour(annotation.label),
            confidence=annotation.confidence,
        )

    def colour(self, label: str) -> str:
        """Colour of a label."""
        number = self.labels.index(label) - 1 if label in self.labels else 0
        return COLOURS[number % len(COLOURS)]

    def pixels(self, columns: int) -> NDArray[np.uint8]:
        """Give the picture as (line, column, RGB), the newest line first; at most so many columns, or one for each bin.

        A column shows its strongest bin: nothing is left to resampling, which may skip a narrow signal.
        """
        rows = np.arange(self._newest, self._oldest - 1, -1) % len(self._power)
        bins = self._power.shape[1]
        columns = max(1, min(columns, bins))
        starts = np.arange(columns) * bins // columns
        power = np.fmax.reduceat(self._power[rows], starts, axis=1)
        classes = np.maximum.reduceat(self._classes[rows], starts, axis=1)
        known = np.isfinite(power)
        low, high = _limits(power[known])
        grey = np.clip((np.where(known, power, low) - low) / (high - low), 0, 1)
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
        for number in range(1, len(self.labels)):
            tinted = classes == number
            # Bright enough on dark cells to be seen, and still darker there, so that the spectrum shows through.
            colour = _rgb(COLOURS[(number - 1) % len(COLOURS)]) * (0.45 + 0.55 * grey[tinted][:, None])
            pixels[tinted] = TINT * colour + (1 - TINT) * pixels[tinted]
        shown = (pixels * 255).round().astype(np.uint8)
        shown[~known] = NOTHING
        return shown


def _limits(power: NDArray[np.float32]) -> tuple[float, float]:
    """Power in dB that is drawn black, and white: noise is dark, and a few strong cells do not hide the rest."""
    if not len(power):
        return 0.0, 15.0
    low, high = np.percentile(power[::7], (5, 99.7))
    return float(low), max(float(high), float(low) + 15)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
