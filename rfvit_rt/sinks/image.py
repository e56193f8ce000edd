# SPDX-License-Identifier: Apache-2.0
"""A picture of a whole run: spectrogram, labelled pixels, boxes. Memory stays the same however long the run is."""

from __future__ import annotations

import heapq
import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from rfvit_rt.datatypes import Annotation, Mask
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import check_output, replace_file

MAX_COLUMNS = 2048
MAX_BANDS = 4
MAX_BOXES = 500

# Okabe and Ito's colours, which colour-blind people can tell apart (jfly.uni-koeln.de/color); the lighter ones first,
# since they lie on a dark spectrogram.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
TINT = 0.75  # how far a labelled pixel's grey is drawn towards its label's colour
CROWD = 60  # with more boxes than this, only those that have room for a text get one
SAME_BAND = 0.9  # intersection over union from which abutting boxes are drawn as one
DPI = 100
WIDTH = 16.0  # inches: 1600 pixels


def drawable(text: str) -> str:
    """Text without what neither fonts nor PNGs take, such as the bytes of a file's name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class RunPicture:
    """Gathers a run and draws it, 1600 pixels wide.

    Time runs to the right. A column of the picture is one time step at first; whenever more than `MAX_COLUMNS` are
    needed, neighbouring columns become one. Each shows the strongest of its time steps, so that a short burst in a long
    run does not fade; a pixel is coloured if any of its time steps carries a label. Where there were no samples
    there is no picture, but hatching. Every band that the stream is tuned to, in order of appearance, has a panel of
    its own; bands beyond `MAX_BANDS` are left out, and of the boxes only the `MAX_BOXES` largest are drawn, and the
    picture says so.

    Parameters
    ----------
    labels : sequence of str
        Name of every class; the first is background.
    title : str
        What the picture shows, such as the recording's name.
    model : str
        Name of the model that found it.
    sample_start : int
        Position that counts as time 0.
    """

    def __init__(self, labels: Sequence[str], title: str = "", model: str = "", sample_start: int = 0) -> None:
        self._labels = tuple(labels)
        self._title = drawable(title)
        self._model = drawable(model)
        self._clock = _Clock(sample_start)
        self._column = 0.0  # duration of a column in s; 0 before the first
        self._columns = 0  # columns in use
        self._bands: dict[tuple[float | None, float, int], _Band] = {}
        self._left_out = False  # whether there were more bands
        self._boxes: list[tuple[float, int, Annotation]] = []  # a heap: the smallest box is the first to go
        self._box_count = 0

    def add(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take up a stretch of the run.

        Parameters
        ----------
        picture : (step, bin) float32
            Power in dB over the noise floor, in the same pixels as the mask.
        mask : Mask
            Class probabilities.
        """
        self.add_picture(picture, mask)
        self.add_mask(mask)

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take up the spectrogram alone, at the place of `mask`; windows may overlap."""
        if picture.shape != mask.probabilities.shape[:2]:
            raise ValueError(f"the picture has shape {picture.shape}, its mask {mask.probabilities.shape[:2]}")
        band, place = self._place(mask)
        if band is not None:
            pooled = _pool(picture, place.stop - place.start)
            band.level[place] = np.fmax(band.level[place], pooled)

    def add_mask(self, mask: Mask) -> None:
        """Take up the labels alone; the masks should be stitched ones."""
        if mask.probabilities.shape[2] != len(self._labels):
            raise ValueError(f"a mask has {mask.probabilities.shape[2]} classes; the labels are {self._labels}")
        band, place = self._place(mask)
        if band is not None:
            signal = mask.probabilities[:, :, 1:]
            signal = np.where(signal > mask.probabilities[:, :, :1], signal, 0)
            band.signal[place] = np.maximum(band.signal[place], _pool(signal, place.stop - place.start))

    def add_annotation(self, annotation: Annotation) -> None:
        """Take up a box."""
        self._box_count += 1
        heapq.heappush(self._boxes, (_area(annotation), -self._box_count, annotation))
        if len(self._boxes) > MAX_BOXES:
            heapq.heappop(self._boxes)

    def png(self) -> bytes:
        """Draw what was gathered so far, as a PNG file."""
        content = io.BytesIO()
        FigureCanvasAgg(self._figure()).print_png(content, metadata={"Title": self._title, "Software": "rfvit-rt"})
        return content.getvalue()

    # --- gathering ---

    def _place(self, mask: Mask) -> tuple[_Band | None, slice]:
        """Find the band and the columns that a mask belongs to, and make room for them."""
        if mask.step_count == 0:
            return None, slice(0, 0)
        self._clock.note(mask)
        if not self._column:
            self._column = mask.sample_count / mask.sample_rate / mask.step_count
        # Rounded, so that stretches that follow one another neither overlap nor leave a column out.
        while (last := round(self._clock.seconds(mask.sample_start + mask.sample_count) / self._column)) > MAX_COLUMNS:
            self._halve()
        first = max(0, min(round(self._clock.seconds(mask.sample_start) / self._column), MAX_COLUMNS - 1))
        last = max(first + 1, last)
        band = self._band(mask)
        if band is not None:
            self._columns = max(self._columns, last)
        return band, slice(first, last)

    def _band(self, mask: Mask) -> _Band | None:
        key = (mask.frequency, mask.sample_rate, mask.probabilities.shape[1])
        if key not in self._bands:
            if len(self._bands) == MAX_BANDS:
                self._left_out = True
                return None
            self._bands[key] = _Band(mask.frequency, mask.sample_rate, key[2], len(self._labels) - 1)
        return self._bands[key]

    def _halve(self) -> None:
        self._column *= 2
        self._columns = (self._columns + 1) // 2
        for band in self._bands.values():
            band.halve()

    # --- drawing ---

    def _figure(self) -> Figure:
        panels = max(1, len(self._bands))
        figure = Figure(figsize=(WIDTH, 9.0 if panels == 1 else 2.2 + 4.0 * panels), dpi=DPI, facecolor="white")
        top, bottom = 1 - (0.9 if panels == 1 else 1.15) / figure.get_figheight(), 0.75 / figure.get_figheight()
        grid = figure.subplots(
            panels,
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"left": 0.065, "right": 0.93, "top": top, "bottom": bottom, "hspace": 0.14},
        )
        axes = list(grid[:, 0])
        self._head(figure)
        if not self._bands:
            axes[0].text(0.5, 0.5, "no samples", transform=axes[0].transAxes, ha="center", va="center", fontsize=16)
            axes[0].set(xticks=[], yticks=[])
            return figure
        limits = _limits([band.level[: self._columns] for band in self._bands.values()])
        for panel, band in zip(axes, self._bands.values(), strict=True):
            self._panel(panel, band, limits)
        self._foot(axes[-1])
        colour_bar = figure.add_axes((0.94, bottom, 0.012, top - bottom))
        figure.colorbar(ScalarMappable(Normalize(*limits), "gray"), cax=colour_bar)
        colour_bar.set_ylabel("Power over noise floor (dB)", fontsize=11)
        for panel, band in zip(axes, self._bands.values(), strict=True):
            self._draw_boxes(panel, band)
        return figure

    def _panel(self, panel: Axes, band: _Band, limits: tuple[float, float]) -> None:
        unit, _ = self._time_unit()
        start = self._clock.origin
        lower, upper = band.edges
        extent = (start * unit, (start + self._columns * self._column) * unit, lower / 1e6, upper / 1e6)
        panel.patch.set(facecolor="white", edgecolor="0.8", hatch="////")
        # Nothing is left to the drawing library's own resampling, which may skip a short burst.
        room = panel.get_window_extent()
        pixels = self._pixels(band, limits, most_columns=int(room.width), most_bins=int(room.height))
        panel.imshow(pixels, extent=extent, origin="lower", aspect="auto", interpolation="nearest", zorder=1)
        panel.set_ylabel("Frequency (MHz)" if band.frequency is not None else "Offset from centre (MHz)", fontsize=12)
        panel.tick_params(labelsize=11)
        panel.ticklabel_format(useOffset=False, style="plain")
        if len(self._bands) > 1:
            panel.set_title(_describe(band), fontsize=11, loc="left", pad=4)

    def _pixels(self, band: _Band, limits: tuple[float, float], most_columns: int, most_bins: int) -> NDArray[np.uint8]:
        """Colours, (bin, column, RGBA): grey by power, tinted by label, transparent where nothing was received."""
        level, signal = band.level[: self._columns], band.signal[: self._columns]
        for axis, most in ((0, most_columns), (1, most_bins)):
            if level.shape[axis] > most:
                level, signal = _pool(level, most, axis), _pool(signal, most, axis)
        known = np.isfinite(level)
        grey = np.clip((np.where(known, level, limits[0]) - limits[0]) / (limits[1] - limits[0]), 0, 1)
        pixels = np.repeat(grey[:, :, None], 4, axis=2)
        strongest = np.where(signal.max(axis=2, initial=0) > 0, signal.argmax(axis=2), -1)
        for number in range(signal.shape[2]):
            tinted = strongest == number
            # Bright enough on dark pixels to be seen, and still darker there, so that the spectrogram shows through.
            colour = np.array(to_rgb(_colour(number))) * (0.45 + 0.55 * grey[tinted][:, None])
            pixels[tinted, :3] = TINT * colour + (1 - TINT) * pixels[tinted, :3]
        pixels[:, :, 3] = known
        return np.asarray((pixels * 255).round().astype(np.uint8).transpose(1, 0, 2))

    def _head(self, figure: Figure) -> None:
        y = 1 - 0.12 / figure.get_figheight()
        title = figure.text(0.065, y, self._title, fontsize=15, fontweight="bold", va="top", parse_math=False)
        facts = [_describe(band) for band in self._bands.values()] if len(self._bands) == 1 else []
        if self._model:
            facts.append(f"model {self._model}")
        if self._left_out:
            facts.append(f"only the first {MAX_BANDS} bands are shown")
        if self._box_count > len(self._boxes):
            facts.append(f"only the {len(self._boxes)} largest of {self._box_count} boxes are drawn")
        y -= 0.36 / figure.get_figheight()
        figure.text(0.065, y, "   ·   ".join(facts), fontsize=11, va="top", color="0.25", parse_math=False)
        handles = [Patch(facecolor=_colour(i), label=name) for i, name in enumerate(self._labels[1:])]
        handles.append(Patch(facecolor="none", edgecolor="black", linewidth=1.8, label="box: label, confidence"))
        if any(np.isnan(band.level[: self._columns]).any() for band in self._bands.values()):
            handles.append(Patch(facecolor="white", edgecolor="0.6", hatch="////", label="no samples"))
        legend = figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=(0.935, 1 - 0.08 / figure.get_figheight()),
            ncols=len(handles),
            frameon=False,
            fontsize=12,
            handlelength=1.4,
            columnspacing=1.6,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        room = legend.get_window_extent().x0 - title.get_window_extent().x0
        if (width := title.get_window_extent().width) > room:  # its end may say that all is simulated
            half = max(1, int(len(self._title) * room / width) // 2 - 2)
            title.set_text(f"{self._title[:half]}…{self._title[-half:]}")

    def _foot(self, panel: Axes) -> None:
        _, name = self._time_unit()
        panel.set_xlabel(f"Time since the stream's start ({name})", fontsize=12)
        panel.text(
            1.0,
            -0.42 * DPI / panel.get_window_extent().height,
            f"a column is {self._column * 1e3:.6g} ms and shows its strongest time step",
            transform=panel.transAxes,
            ha="right",
            va="top",
            fontsize=9.5,
            color="0.4",
        )

    def _time_unit(self) -> tuple[float, str]:
        """Units in a second, and the unit's name."""
        return (1.0, "s") if self._columns * self._column > 10 else (1e3, "ms")

    def _draw_boxes(self, panel: Axes, band: _Band) -> None:
        placed: list[Bbox] = []
        boxes = _join(annotation for _, _, annotation in self._boxes if band.holds(annotation))
        for box in sorted(boxes, key=_area, reverse=True):  # large boxes get their text first
            self._draw_box(panel, box, placed, is_crowded=len(boxes) > CROWD)

    def _draw_box(self, panel: Axes, annotation: Annotation, placed: list[Bbox], is_crowded: bool) -> None:
        unit, _ = self._time_unit()
        start, end = (
            (self._clock.origin + self._clock.seconds(sample)) * unit
            for sample in (annotation.sample_start, annotation.sample_end)
        )
        lower, upper = annotation.freq_lower_edge / 1e6, annotation.freq_upper_edge / 1e6
        number = self._labels.index(annotation.label) - 1 if annotation.label in self._labels else 0
        colour = _colour(number)
        rectangle = Rectangle((start, lower), end - start, upper - lower, fill=False, edgecolor=colour, zorder=3)
        size = panel.transData.transform([(start, lower), (end, upper)])
        width, height = size[1] - size[0]
        if width < 8:  # two outlines would fill it
            rectangle.set(linewidth=0.8)
        else:
            rectangle.set(linewidth=1.8, path_effects=[withStroke(linewidth=3.6, foreground="black", alpha=0.7)])
        panel.add_patch(rectangle)
        has_room = width > 110 and height > 40
        if is_crowded and not has_room:
            return
        text = f"{annotation.label} {annotation.confidence:.2f}"
        for corner in _label_places(start, end, lower, upper, has_room):
            if _place_label(panel, text, colour, corner, placed):
                return


class ImageSink(RunPicture):
    """Gathers a run and writes its picture when closed.

    Parameters
    ----------
    path : path
        The ``.png`` file.
    labels, title, model
        As for :class:`RunPicture`.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the file exists already, its name does not end in ``.png``, or its folder is missing.
    """

    def __init__(
        self, path: str | Path, labels: Sequence[str], title: str = "", model: str = "", overwrite: bool = False
    ) -> None:
        super().__init__(labels, title, model)
        self._path = Path(path)
        self._overwrite = overwrite
        check_png(self._path, overwrite)

    def close(self) -> None:
        """Draw the picture and put it in place, complete or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        put_png(self._path, self.png(), self._overwrite)

    def __enter__(self) -> ImageSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()  # after an error as well: what came before it is worth seeing


class _Band:
    """The picture so far of one band.

    Attributes
    ----------
    level : (column, bin) float32
        Power in dB over the noise floor; NaN where nothing was received.
    signal : (column, bin, class but background) float32
        Probability where it is above the background's, else 0.
    """

    def __init__(self, frequency: float | None, sample_rate: float, bins: int, classes: int) -> None:
        self.frequency = frequency
        self.sample_rate = sample_rate
        self.level = np.full((MAX_COLUMNS, bins), np.nan, np.float32)
        self.signal = np.zeros((MAX_COLUMNS, bins, classes), np.float32)

    @property
    def edges(self) -> tuple[float, float]:
        """Lower and upper edge in Hz."""
        # The centre frequency is the centre of the bin above the middle, as FFTs have it.
        centre = (self.frequency or 0.0) - self.sample_rate / self.level.shape[1] / 2
        return centre - self.sample_rate / 2, centre + self.sample_rate / 2

    def holds(self, annotation: Annotation) -> bool:
        return (annotation.frequency, annotation.sample_rate) == (self.frequency, self.sample_rate)

    def halve(self) -> None:
        half = MAX_COLUMNS // 2
        self.level[:half] = np.fmax(self.level[0::2], self.level[1::2])
        self.level[half:] = np.nan
        self.signal[:half] = np.maximum(self.signal[0::2], self.signal[1::2])
        self.signal[half:] = 0


@dataclass(frozen=True)
class _Tick:
    sample: int
    seconds: float
    sample_rate: float


class _Clock:
    """Turns positions into seconds since the first sample seen, through changes of sample rate."""

    def __init__(self, sample_start: int) -> None:
        self._sample_start = sample_start
        self._ticks: list[_Tick] = []

    @property
    def origin(self) -> float:
        """Time of the first sample seen since the position that counts as 0, in s, by its sample rate."""
        return (self._ticks[0].sample - self._sample_start) / self._ticks[0].sample_rate

    def note(self, mask: Mask) -> None:
        if not self._ticks:
            self._ticks.append(_Tick(mask.sample_start, 0.0, mask.sample_rate))
        elif mask.sample_start > self._ticks[-1].sample and mask.sample_rate != self._ticks[-1].sample_rate:
            self._ticks.append(_Tick(mask.sample_start, self.seconds(mask.sample_start), mask.sample_rate))

    def seconds(self, sample: int) -> float:
        tick = self._ticks[max(0, bisect_right(self._ticks, sample, key=lambda tick: tick.sample) - 1)]
        return tick.seconds + (sample - tick.sample) / tick.sample_rate


def _pool(values: NDArray[np.float32], count: int, axis: int = 0) -> NDArray[np.float32]:
    """Spread values over `count` places: the largest where several share one, repeated where there are too few."""
    starts = np.arange(count) * values.shape[axis] // count
    return np.asarray(np.fmax.reduceat(values, starts, axis=axis))


def _area(annotation: Annotation) -> float:
    """Time-bandwidth product."""
    duration = annotation.sample_count / annotation.sample_rate
    return duration * (annotation.freq_upper_edge - annotation.freq_lower_edge)


def _join(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Join the pieces that a long box was given out in."""
    joined: list[Annotation] = []
    ending: dict[tuple[str, int], list[int]] = {}  # numbers of the boxes so far by label and end
    for piece in sorted(annotations, key=lambda annotation: annotation.sample_start):
        before = [
            n for n in ending.get((piece.label, piece.sample_start), []) if _overlap(joined[n], piece) > SAME_BAND
        ]
        if before:
            number = before[0]
            joined[number] = _union(joined[number], piece)
        else:
            number = len(joined)
            joined.append(piece)
        ending.setdefault((piece.label, piece.sample_end), []).append(number)
    return joined


def _overlap(one: Annotation, other: Annotation) -> float:
    """Intersection over union of two bands."""
    shared = min(one.freq_upper_edge, other.freq_upper_edge) - max(one.freq_lower_edge, other.freq_lower_edge)
    both = max(one.freq_upper_edge, other.freq_upper_edge) - min(one.freq_lower_edge, other.freq_lower_edge)
    return shared / both


def _union(one: Annotation, other: Annotation) -> Annotation:
    share = other.sample_count / (one.sample_count + other.sample_count)
    return replace(
        one,
        sample_count=one.sample_count + other.sample_count,
        freq_lower_edge=min(one.freq_lower_edge, other.freq_lower_edge),
        freq_upper_edge=max(one.freq_upper_edge, other.freq_upper_edge),
        confidence=one.confidence + share * (other.confidence - one.confidence),
    )


def _limits(levels: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Power in dB that is drawn black, and white: noise is dark, and a few strong pixels do not hide the rest."""
    sample = np.concatenate([level[np.isfinite(level)][::7] for level in levels])
    if not len(sample):
        return 0.0, 15.0
    low, high = np.percentile(sample, (5, 99.7))
    low = float(np.clip(low, -5, 5))
    return low, max(float(high), low + 15)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _describe(band: _Band) -> str:
    centre = "centre unknown" if band.frequency is None else f"centre {band.frequency / 1e6:.10g} MHz"
    return f"{centre}   ·   {band.sample_rate / 1e6:.10g} MS/s"


@dataclass(frozen=True)
class _Corner:
    x: float
    y: float
    horizontal: str
    vertical: str
    shift: tuple[float, float]  # in points


def _label_places(start: float, end: float, lower: float, upper: float, has_room: bool) -> Iterator[_Corner]:
    """Where a box's text may go: within it if it has room, else above it, else below."""
    if has_room:
        yield _Corner(start, upper, "left", "top", (5, -5))
        yield _Corner(start, lower, "left", "bottom", (5, 5))
    yield _Corner(start, upper, "left", "bottom", (0, 4))
    yield _Corner(start, lower, "left", "top", (0, -4))
    yield _Corner(end, upper, "right", "bottom", (0, 4))
    yield _Corner(end, lower, "right", "top", (0, -4))


def _place_label(panel: Axes, text: str, colour: str, corner: _Corner, placed: list[Bbox]) -> bool:
    """Write a box's text unless it would lie on another one or outside the panel."""
    label: Text = panel.annotate(
        text,
        (corner.x, corner.y),
        xytext=corner.shift,
        textcoords="offset points",
        ha=corner.horizontal,
        va=corner.vertical,
        fontsize=10.5,
        fontweight="bold",
        color="black",
        parse_math=False,
        zorder=4,
        bbox={"facecolor": colour, "edgecolor": "none", "alpha": 0.92, "boxstyle": "square,pad=0.18"},
    )
    extent = label.get_window_extent().padded(4)
    inside = panel.get_window_extent().padded(2)
    fits = inside.x0 <= extent.x0 and extent.x1 <= inside.x1 and inside.y0 <= extent.y0 and extent.y1 <= inside.y1
    if not fits or extent.count_overlaps(placed):
        label.remove()
        return False
    placed.append(extent)
    return True


def check_png(path: Path, overwrite: bool) -> None:
    """Check that a picture can be written, as :func:`rfvit_rt.sinks.files.check_output`, and that it is a PNG."""
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} does not end in .png, the only kind of picture that is written; rename it")
    check_output(path, overwrite)


def put_png(path: Path, content: bytes, overwrite: bool) -> None:
    """Put a picture in place, complete or not at all; raises :class:`rfvit_rt.errors.OutputError`."""
    check_png(path, overwrite)  # once more: it may have come up during the run
    try:
        replace_file(path, content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
