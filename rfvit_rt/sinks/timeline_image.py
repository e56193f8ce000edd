# SPDX-License-Identifier: Apache-2.0
"""A picture of a sensing run: CSI over time, activities under it. Memory stays the same however long the run is."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.sinks.image import COLOURS, DPI, MAX_COLUMNS, WIDTH, check_png, drawable, put_png

FIRST_COLUMN = 0.01  # s: duration of a column of a short run
HOLD = 0.5  # s: a column without a frame shows the last one's amplitudes for so long, and nothing after
ROUNDING = 1e-6  # s: an interval that ends on a column's edge does not reach into the next one
COLOUR_MAP = "cividis"  # reads the same for colour-blind people (Nuñez et al. 2018)
HATCHES = ("", "///", "...", "xxx")  # tell labels apart that must share a colour
NO_LABEL = "0.88"  # grey of what is labelled unknown
LEFT, RIGHT = 0.07, 0.93  # edges of the panels, as shares of the width


class TimelineSink:
    """Gathers a sensing run and writes it as a PNG of 1600 pixels' width when closed.

    Time runs to the right. A column of the picture is 10 ms at first; whenever more than `MAX_COLUMNS` are needed,
    neighbouring columns become one. Each shows the mean amplitudes of its frames, and the activity that lasted longest
    in it. Where no frame came for more than half a second, and where no window was full, there is hatching.

    Parameters
    ----------
    path : path
        The ``.png`` file.
    labels : sequence of str
        Names of the model's classes.
    title : str
        What the picture shows, such as the name of the source.
    facts : sequence of str
        What else there is to say, in the line under the title.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists already, its name does not end in ``.png``, or its folder is missing.

    Attributes
    ----------
    facts : list of str
        As above; what comes up during the run can be added.
    """

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str],
        title: str = "",
        facts: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        self._path = Path(path)
        self._overwrite = overwrite
        check_png(self._path, overwrite)
        self._labels = tuple(labels)
        self._title = drawable(title)
        self.facts = list(facts)
        self._column = FIRST_COLUMN
        self._columns = 0  # in use
        self._seconds = np.zeros((MAX_COLUMNS, len(self._labels) + 1))  # of every label, and of what is none of them
        self._amplitudes: _Amplitudes | None = None
        self._left_out = 0  # frames of other devices

    def add_frame(self, frame: CSIFrame, amplitude: NDArray[np.float32]) -> None:
        """Take up a frame.

        Parameters
        ----------
        frame : CSIFrame
            Its time stamp is in seconds since the stream's start.
        amplitude : (antenna, subcarrier) float32
            What is to be shown of it, in any unit.
        """
        if self._amplitudes is None:
            self._amplitudes = _Amplitudes(frame.device, frame.subcarriers, len(amplitude))
        if not self._amplitudes.holds(frame, amplitude):
            self._left_out += 1
            return
        place = self._place(frame.timestamp)
        self._amplitudes.sums[place] += amplitude.ravel()
        self._amplitudes.counts[place] += 1

    def add_activity(self, activity: Activity) -> None:
        """Take up an interval; a label that is none of the model's counts as unknown."""
        last = self._place(activity.time_end - ROUNDING)
        first = min(int(activity.time_start / self._column), last)
        edges = np.arange(first, last + 2) * self._column
        number = self._labels.index(activity.label) if activity.label in self._labels else len(self._labels)
        self._seconds[first : last + 1, number] += np.diff(np.clip(edges, activity.time_start, activity.time_end))

    def close(self) -> None:
        """Draw the picture and put it in place, complete or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        content = io.BytesIO()
        FigureCanvasAgg(self._figure()).print_png(content, metadata={"Title": self._title, "Software": "rfvit-rt"})
        put_png(self._path, content.getvalue(), self._overwrite)

    def __enter__(self) -> TimelineSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()  # after an error as well: what came before it is worth seeing

    # --- gathering ---

    def _place(self, seconds: float) -> int:
        """Find the column that a time belongs to, and make room for it."""
        while (column := max(0, int(seconds / self._column))) >= MAX_COLUMNS:
            self._column *= 2
            self._columns = (self._columns + 1) // 2
            _halve(self._seconds)
            if self._amplitudes is not None:
                _halve(self._amplitudes.sums)
                _halve(self._amplitudes.counts)
        self._columns = max(self._columns, column + 1)
        return column

    # --- drawing ---

    def _figure(self) -> Figure:
        figure = Figure(figsize=(WIDTH, 9.0), dpi=DPI, facecolor="white")
        top, bottom = 1 - 0.9 / figure.get_figheight(), 1.25 / figure.get_figheight()
        panel, strip = figure.subplots(
            2,
            1,
            sharex=True,
            gridspec_kw={
                "left": LEFT,
                "right": RIGHT,
                "top": top,
                "bottom": bottom,
                "hspace": 0.04,
                "height_ratios": (8, 1),
            },
        )
        if self._amplitudes is None:
            strip.set_axis_off()
            panel.text(0.5, 0.5, "no frames", transform=panel.transAxes, ha="center", va="center", fontsize=16)
            panel.set(xticks=[], yticks=[])
            self._head(figure, [])
            return figure
        is_blank = self._draw_amplitudes(figure, panel, self._amplitudes)
        shown = self._draw_strip(strip)
        self._head(figure, [self._amplitudes.device])
        self._foot(figure, shown, is_blank or not self._seconds[: self._columns].any(axis=1).all())
        return figure

    def _draw_amplitudes(self, figure: Figure, panel: Axes, amplitudes: _Amplitudes) -> bool:
        """Draw the upper panel; return whether some of it stays blank."""
        levels = amplitudes.levels(self._columns, round(HOLD / self._column))
        known = levels[np.isfinite(levels)]
        limits = Normalize(*np.percentile(known, (1, 99))) if len(known) else Normalize(0, 1)
        room = panel.get_window_extent()
        # Nothing is left to the drawing library's own resampling, which may skip columns.
        pixels = _mean_pool(_mean_pool(levels, int(room.width), 0), int(room.height), 1)
        panel.patch.set(facecolor="white", edgecolor="0.8", hatch="////")
        panel.imshow(
            pixels.T,
            extent=(0, self._columns * self._column, -0.5, levels.shape[1] - 0.5),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap=COLOUR_MAP,
            norm=limits,
            zorder=1,
        )
        amplitudes.label_axis(panel)
        panel.tick_params(labelsize=11, labelbottom=False)
        place = panel.get_position()
        colour_bar = figure.add_axes((RIGHT + 0.01, place.y0, 0.012, place.height))
        figure.colorbar(ScalarMappable(limits, COLOUR_MAP), cax=colour_bar)
        colour_bar.set_ylabel("Amplitude (dB)", fontsize=11)
        return bool(np.isnan(pixels).any())

    def _draw_strip(self, strip: Axes) -> list[int]:
        """Draw the activities; return the numbers of the labels that occur."""
        strip.patch.set(facecolor="white", edgecolor="0.8", hatch="////")
        strip.set(xlim=(0, self._columns * self._column), ylim=(0, 1), yticks=[])
        strip.set_ylabel("Activity", fontsize=12, rotation=0, ha="right", va="center")
        strip.set_xlabel("Time since the first frame (s)", fontsize=12)
        strip.tick_params(labelsize=11)
        strip.ticklabel_format(useOffset=False, style="plain")
        shown = set()
        for number, first, last in self._stretches():
            start, end = first * self._column, last * self._column
            strip.add_patch(self._painted(Rectangle((start, 0), end - start, 1, linewidth=0, zorder=1), number))
            shown.add(number)
            text = strip.text(
                (start + end) / 2,
                0.5,
                self._name(number),
                ha="center",
                va="center",
                fontsize=10.5,
                fontweight="bold",
                parse_math=False,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "boxstyle": "square,pad=0.15"},
                zorder=2,
            )
            if text.get_window_extent().width + 10 > strip.transData.transform((end - start, 0))[0] - strip.bbox.x0:
                text.remove()  # the legend has it
        return sorted(shown)

    def _stretches(self) -> Iterator[tuple[int, int, int]]:
        """Yield stretches of columns with one label: its number, the first column, and the one past the last."""
        seconds = self._seconds[: self._columns]
        longest = np.where(seconds.any(axis=1), seconds.argmax(axis=1), -1)
        first = 0
        for number, group in groupby(longest.tolist()):
            last = first + len(list(group))
            if number >= 0:
                yield number, first, last
            first = last

    def _name(self, number: int) -> str:
        return self._labels[number] if number < len(self._labels) else "unknown"

    def _painted(self, patch: Patch, number: int) -> Patch:
        if number == len(self._labels):
            patch.set_facecolor(NO_LABEL)
        else:
            hatch = HATCHES[number // len(COLOURS) % len(HATCHES)]
            patch.set(facecolor=COLOURS[number % len(COLOURS)], edgecolor="white", hatch=hatch)
        return patch

    def _head(self, figure: Figure, facts: list[str]) -> None:
        y = 1 - 0.12 / figure.get_figheight()
        figure.text(LEFT, y, self._title, fontsize=15, fontweight="bold", va="top", parse_math=False)
        facts = [*facts, *self.facts]
        if self._left_out:
            facts.append(f"{self._left_out} frames of other devices are not shown")
        y -= 0.36 / figure.get_figheight()
        figure.text(LEFT, y, "   ·   ".join(facts), fontsize=11, va="top", color="0.25", parse_math=False)

    def _foot(self, figure: Figure, shown: Sequence[int], is_blank: bool) -> None:
        handles = [self._painted(Patch(label=self._name(number)), number) for number in shown]
        if is_blank:
            handles.append(
                Patch(facecolor="white", edgecolor="0.6", hatch="////", label="no frames, or no full window")
            )
        legend = figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(LEFT - 0.008, 0.0),
            ncols=8,
            frameon=False,
            fontsize=11,
            handlelength=1.4,
            columnspacing=1.6,
        )
        for entry in legend.get_texts():
            entry.set_parse_math(False)
        text = f"a column is {self._column * 1e3:.6g} ms and shows the mean of its frames"
        figure.text(RIGHT, 0.087, text, ha="right", va="bottom", fontsize=9.5, color="0.4")


class _Amplitudes:
    """Amplitudes of one device so far.

    Attributes
    ----------
    sums : (column, antenna * subcarrier) float64
    counts : (column,) int64
        Frames in each column.
    """

    def __init__(self, device: str, subcarriers: NDArray[np.int16], antennas: int) -> None:
        self.device = device
        self.sums = np.zeros((MAX_COLUMNS, antennas * len(subcarriers)))
        self.counts = np.zeros(MAX_COLUMNS, np.int64)
        self._subcarriers = subcarriers
        self._antennas = antennas

    def holds(self, frame: CSIFrame, amplitude: NDArray[np.float32]) -> bool:
        return (
            frame.device == self.device
            and amplitude.size == self.sums.shape[1]
            and np.array_equal(frame.subcarriers, self._subcarriers)
        )

    def levels(self, columns: int, hold: int) -> NDArray[np.float64]:
        """Return mean amplitudes in dB, (column, row); a blank of up to `hold` columns repeats what is before it."""
        sums, counts = self.sums[:columns], self.counts[:columns]
        filled = np.flatnonzero(counts)
        places = np.searchsorted(filled, np.arange(columns), side="right") - 1  # the last filled one, or -1
        source = filled[np.maximum(places, 0)]
        known = (places >= 0) & (np.arange(columns) - source <= max(hold, 0))
        means = sums[source] / counts[source, None]
        levels = 20 * np.log10(np.maximum(means, 1e-6 * means.max(initial=1e-300)))
        levels[~known] = np.nan
        return np.asarray(levels)

    def label_axis(self, panel: Axes) -> None:
        """Name antennas where there are several, subcarriers where there is one."""
        count = len(self._subcarriers)
        if self._antennas == 1:
            wanted = np.unique(np.linspace(0, count - 1, min(count, 9)).round().astype(int))
            panel.set_yticks(wanted, [str(self._subcarriers[row]) for row in wanted])
            panel.set_ylabel("Subcarrier", fontsize=12)
            return
        centres = (np.arange(self._antennas) + 0.5) * count - 0.5
        panel.set_yticks(centres, [str(antenna + 1) for antenna in range(self._antennas)])
        first, last = self._subcarriers[0], self._subcarriers[-1]
        panel.set_ylabel(f"Antenna; subcarriers {first} to {last} in each", fontsize=12)
        for antenna in range(1, self._antennas):
            panel.axhline(antenna * count - 0.5, color="white", linewidth=1.2, zorder=2)


def _halve(columns: NDArray[np.float64] | NDArray[np.int64]) -> None:
    """Make two neighbouring columns one, their sum; the later half becomes free."""
    half = len(columns) // 2
    columns[:half] = columns[0::2] + columns[1::2]
    columns[half:] = 0


def _mean_pool(values: NDArray[np.float64], most: int, axis: int) -> NDArray[np.float64]:
    """Average neighbours until at most `most` are left along an axis; blanks count only where there is nothing else."""
    size = values.shape[axis]
    if size <= most:
        return values
    starts = np.arange(most) * size // most
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0), starts, axis=axis)
    counts = np.add.reduceat(known.astype(np.int64), starts, axis=axis)
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))
