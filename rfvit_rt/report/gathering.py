# SPDX-License-Identifier: Apache-2.0
"""What a report keeps of a run while it goes, in constant memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Annotation, Mask
from rfvit_rt.sinks.image import RunPicture
from rfvit_rt.wire.results import Result
from rfvit_rt.wire.summary import class_numbers

MAX_ROWS = 500  # annotations that are listed
MAX_COLUMNS = 400  # points of time of the occupancy


class Gathered:
    """A sink and viewer of a run.

    Parameters
    ----------
    model : ModelFile
        What labels the run.
    sample_start : int
        Position that counts as time 0.
    sample_rate : float
        In Hz.

    Attributes
    ----------
    annotations : list of Annotation
        The first `MAX_ROWS`, in order of their ends.
    counts : Counter of str
        Annotations by label, all of them.
    picture : RunPicture
    occupancy : Occupancy
    """

    def __init__(self, model: ModelFile, sample_start: int, sample_rate: float) -> None:
        labels = model.contract.labels
        self.annotations: list[Annotation] = []
        self.counts: Counter[str] = Counter()
        self.picture = RunPicture(labels, "Spectrogram, labelled pixels and boxes", model.contract.name, sample_start)
        self.occupancy = Occupancy(len(labels), sample_start, sample_rate)

    def write(self, result: Result) -> None:
        """Take one result."""
        if isinstance(result, Annotation):
            self.counts[result.label] += 1
            self.picture.add_annotation(result)
            if len(self.annotations) < MAX_ROWS:
                self.annotations.append(result)

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take a window's spectrogram, as :class:`rfvit_rt.outputs.Viewer` has it."""
        self.picture.add_picture(picture, mask)

    def add_mask(self, mask: Mask) -> None:
        """Take a stretch of labels, as :class:`rfvit_rt.outputs.Viewer` has it."""
        self.picture.add_mask(mask)
        self.occupancy.add(mask)


class Occupancy:
    """Share of the pixels that each label has, over time.

    A column of time is one time step at first; whenever more than `MAX_COLUMNS` are needed, neighbours become one.

    Parameters
    ----------
    classes : int
        Background included.
    sample_start : int
        Position that counts as time 0.
    sample_rate : float
        In Hz.
    """

    def __init__(self, classes: int, sample_start: int, sample_rate: float) -> None:
        self._sample_start = sample_start
        self._sample_rate = sample_rate
        self._column = 0  # samples of a column; 0 before the first
        self._used = 0
        self._sums = np.zeros((MAX_COLUMNS, classes))  # of the shares of a column's time steps
        self._steps = np.zeros(MAX_COLUMNS)

    def add(self, mask: Mask) -> None:
        """Take up a stretch of labels."""
        if not mask.step_count:
            return
        numbers = class_numbers(mask)
        classes = self._sums.shape[1]
        shares = np.stack([(numbers == number).mean(axis=1) for number in range(classes)], axis=1)
        step = mask.sample_count / mask.step_count
        middles = mask.sample_start - self._sample_start + (np.arange(mask.step_count) + 0.5) * step
        self._column = self._column or max(1, round(step))
        while middles[-1] >= self._column * MAX_COLUMNS:
            self._halve()
        columns = (middles / self._column).astype(int)
        np.add.at(self._sums, columns, shares)
        np.add.at(self._steps, columns, 1)
        self._used = max(self._used, int(columns[-1]) + 1)

    def _halve(self) -> None:
        half = MAX_COLUMNS // 2
        for values in (self._sums, self._steps):
            values[:half] = values[0::2] + values[1::2]
            values[half:] = 0
        self._column *= 2
        self._used = (self._used + 1) // 2

    @property
    def column_seconds(self) -> float:
        """Duration of a column in s."""
        return self._column / self._sample_rate

    def shares(self) -> NDArray[np.float64]:
        """Share of every label, (column, class), 0 to 1; NaN where there were no samples."""
        sums, steps = self._sums[: self._used], self._steps[: self._used, None]
        return np.divide(sums, steps, out=np.full_like(sums, np.nan), where=steps > 0)

    def means(self) -> NDArray[np.float64]:
        """Share of every label over all time, (class,)."""
        return np.asarray(self._sums.sum(axis=0) / max(1.0, float(self._steps.sum())))
