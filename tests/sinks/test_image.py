# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray

from rfvit_rt.datatypes import Annotation, Mask
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.image import COLOURS, MAX_BANDS, MAX_BOXES, MAX_COLUMNS, ImageSink

LABELS = ("background", "LTE", "NR")
RATE = 25.6e6
STEP = 4000  # samples: 156.25 us
FREQUENCY = 2e9
BINS = 64


def stretch(
    steps: int, start: int = 0, frequency: float | None = FREQUENCY, rate: float = RATE, bins: int = BINS
) -> tuple[NDArray[np.float32], Mask]:
    """Noise in a band; LTE in its lowest, NR in its highest quarter, 20 dB above."""
    picture = np.random.default_rng(start).normal(0, 1, (steps, bins)).astype(np.float32)
    probabilities = np.zeros((steps, bins, 3), np.float32)
    probabilities[:, :, 0] = 1
    for label, band in ((1, slice(0, bins // 4)), (2, slice(bins - bins // 4, bins))):
        picture[:, band] += 20
        probabilities[:, band] = 0
        probabilities[:, band, label] = 1
    return picture, Mask(probabilities, start * STEP, steps * STEP, rate, frequency)


def box(start: int, steps: int, label: str = "LTE", **other: float) -> Annotation:
    return Annotation(
        label, start * STEP, steps * STEP, FREQUENCY - RATE / 2, FREQUENCY - RATE / 4, 0.9, RATE, FREQUENCY
    )


def drawn(sink: ImageSink) -> tuple[NDArray[np.float32], list[Axes], list[str]]:
    """The picture's pixels, its panels and all its text."""
    figure = sink._figure()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    texts = [text.get_text() for text in figure.texts] + [t.get_text() for axes in figure.axes for t in axes.texts]
    content.seek(0)
    panels = [axes for axes in figure.axes if axes.get_images()]
    return imread(content)[:, :, :3], panels, [text for text in texts if text]


def test_dollars_in_names_are_no_formulas(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "a.png", ("background", "$\\frac{$", "NR"), "$\\frac{$.sigmf-meta", "$\\frac{$")
    sink.add(*stretch(64))
    sink.add_annotation(box(0, 64, "$\\frac{$"))
    sink.close()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_name_that_is_not_utf8_is_drawn_as_bytes(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "a.png", LABELS, "caf\udce9.sigmf-meta", "m")
    sink.add(*stretch(64))
    sink.close()
    assert b"caf\\udce9" in (tmp_path / "a.png").read_bytes()


def around(pixels: NDArray[np.float32], panel: Axes, milliseconds: float, megahertz: float) -> NDArray[np.float32]:
    """A few pixels about a point of a panel, (pixel, RGB)."""
    x, y = panel.transData.transform((milliseconds, megahertz))
    row, column = pixels.shape[0] - round(y), round(x)
    return pixels[row - 4 : row + 5, column - 4 : column + 5].reshape(-1, 3)


def has_hue(pixels: NDArray[np.float32], colour: str) -> bool:
    hue = rgb_to_hsv(to_rgb(colour))[0]
    return bool(np.all(np.abs(rgb_to_hsv(pixels)[:, 0] - hue) < 0.04))


def is_grey(pixels: NDArray[np.float32]) -> bool:
    return bool(np.all(np.ptp(pixels, axis=1) < 0.02))


def test_the_file_is_a_picture_of_1600_pixels(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    with ImageSink(path, LABELS, "capture.sigmf-meta", "rfvit-wide") as sink:
        sink.add(*stretch(256))
    pixels = imread(path)
    assert pixels.shape == (900, 1600, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


def test_labels_have_their_colours_and_noise_is_dark_grey(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(256))
    pixels, (panel,), _ = drawn(sink)
    assert has_hue(around(pixels, panel, 20, 1990), COLOURS[0])
    assert has_hue(around(pixels, panel, 20, 2010), COLOURS[1])
    noise = around(pixels, panel, 20, 2000)
    assert is_grey(noise)
    assert noise.mean() < 0.3
    assert around(pixels, panel, 20, 1990).mean() > noise.mean() + 0.2


def test_axes_title_and_facts(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS, "capture.sigmf-meta", "rfvit-wide")
    sink.add(*stretch(256, start=64))
    _, (panel,), texts = drawn(sink)
    assert panel.get_xlim() == pytest.approx((10, 50))
    assert panel.get_ylim() == pytest.approx((1987.0, 2012.6))  # the centre frequency is the centre of a bin
    assert panel.get_ylabel() == "Frequency (MHz)"
    assert panel.get_xlabel() == "Time since the stream's start (ms)"
    assert texts[0] == "capture.sigmf-meta"
    assert texts[1] == "centre 2000 MHz   ·   25.6 MS/s   ·   model rfvit-wide"
    unknown = ImageSink(tmp_path / "run.png", LABELS)
    unknown.add(*stretch(256, frequency=None))
    _, (panel,), texts = drawn(unknown)
    assert panel.get_ylabel() == "Offset from centre (MHz)"
    assert panel.get_ylim() == pytest.approx((-13.0, 12.6))
    assert texts[0].startswith("centre unknown")


def test_a_long_title_leaves_the_legend_alone(tmp_path: Path) -> None:
    name = "a capture with a long name, " * 8 + "SIMULATED"
    sink = ImageSink(tmp_path / "run.png", LABELS, name, "rfvit-wide")
    sink.add(*stretch(256))
    _, _, texts = drawn(sink)
    start, end = texts[0].split("…")
    assert name.startswith(start)
    assert end.endswith("SIMULATED")
    figure = sink._figure()
    title, (legend,) = figure.texts[0], figure.legends
    assert len(texts[0]) > 30
    assert title.get_window_extent().x1 < legend.get_window_extent().x0


def test_a_gap_is_blank(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(256))
    sink.add(*stretch(256, start=512))
    pixels, (panel,), _ = drawn(sink)
    gap = around(pixels, panel, 60, 1990)
    assert is_grey(gap)
    assert gap.mean() > 0.8
    for milliseconds in (38, 82):
        assert has_hue(around(pixels, panel, milliseconds, 1990), COLOURS[0])
    level = next(iter(sink._bands.values())).level
    assert np.flatnonzero(np.isnan(level[:768, 0])).tolist() == list(range(256, 512))


@pytest.mark.parametrize("rate", [2e6, 2.048e6, 3.333333e6])
def test_consecutive_stretches_leave_no_column_out(tmp_path: Path, rate: float) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    step, at = rate * 156.25e-6, 0
    for steps in np.random.default_rng(1).integers(1, 100, 35):
        picture, mask = stretch(int(steps), rate=rate)
        start, end = 777 + round(at * step), 777 + round((at + int(steps)) * step)
        sink.add(picture, Mask(mask.probabilities, start, end - start, rate, FREQUENCY))
        at += int(steps)
    level = next(iter(sink._bands.values())).level
    assert abs(sink._columns - at) <= 1
    assert np.isfinite(level[: sink._columns]).all()


def test_memory_is_bounded_and_short_bursts_stay(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    probabilities = np.zeros((256, BINS, 3), np.float32)
    probabilities[:, :, 0] = 1
    quiet = np.zeros((256, BINS), np.float32)
    burst, burst_probabilities = quiet.copy(), probabilities.copy()
    burst[100, 20], burst_probabilities[100, 20] = 30, [0, 0, 1]
    for i in range(500):
        here = i == 321
        mask = Mask(burst_probabilities if here else probabilities, i * 256 * STEP, 256 * STEP, RATE, FREQUENCY)
        sink.add(burst if here else quiet, mask)
    (band,) = sink._bands.values()
    assert band.level.shape == (MAX_COLUMNS, BINS)
    assert MAX_COLUMNS // 2 < sink._columns <= MAX_COLUMNS
    loud = np.argwhere(band.level > 0)
    assert loud.tolist() == [[int((321 * 256 + 100) * STEP / RATE / sink._column), 20]]
    assert np.argwhere(band.signal[:, :, 1] > 0).tolist() == loud.tolist()
    pixels, (panel,), texts = drawn(sink)
    assert panel.get_xlabel().endswith("(s)")
    blue = np.abs(rgb_to_hsv(pixels)[:, :, 0] - rgb_to_hsv(to_rgb(COLOURS[1]))[0]) < 0.04
    x, y = panel.transData.transform(((321 * 256 + 100) * STEP / RATE, 1987.2 + 20.5 * 0.4)).round().astype(int)
    assert blue[900 - y, x - 2 : x + 3].any()
    assert any("a column is 10 ms" in text for text in texts)


def test_a_jump_far_ahead_does_not_need_more_memory(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(256))
    sink.add(*stretch(256, start=10**12))
    assert sink._columns <= MAX_COLUMNS
    drawn(sink)


def test_overlapping_windows_and_stitched_masks_may_come_apart(tmp_path: Path) -> None:
    apart, together = (ImageSink(tmp_path / "run.png", LABELS) for _ in range(2))
    picture, mask = stretch(448)
    for first in (0, 192):
        part = Mask(mask.probabilities[first : first + 256], first * STEP, 256 * STEP, RATE, FREQUENCY)
        apart.add_picture(picture[first : first + 256], part)
    apart.add_mask(mask)
    together.add(picture, mask)
    np.testing.assert_array_equal(drawn(apart)[0], drawn(together)[0])


def test_every_band_has_a_panel(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(256))
    picture, mask = stretch(256, start=256)
    sink.add(picture, Mask(mask.probabilities, mask.sample_start, 256 * STEP * 2, 2 * RATE, 1e9))
    pixels, (first, second), texts = drawn(sink)
    assert second.get_ylim() == pytest.approx((974.0, 1025.2))
    assert first.get_xlim() == second.get_xlim() == pytest.approx((0, 80))
    assert has_hue(around(pixels, first, 20, 1990), COLOURS[0])
    assert is_grey(around(pixels, first, 60, 1990))
    assert has_hue(around(pixels, second, 60, 980), COLOURS[0])
    assert first.get_title("left") == "centre 2000 MHz   ·   25.6 MS/s"
    assert not any("bands" in text for text in texts)


def test_too_many_bands_are_left_out_and_said_so(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    for i in range(MAX_BANDS + 3):
        sink.add(*stretch(16, start=16 * i, frequency=FREQUENCY + i * RATE))
    _, panels, texts = drawn(sink)
    assert len(panels) == MAX_BANDS
    assert any(f"only the first {MAX_BANDS} bands are shown" in text for text in texts)


def test_boxes_are_outlined_and_named(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    picture, mask = stretch(256)
    sink.add_picture(np.zeros_like(picture), mask)
    sink.add_annotation(box(64, 128))
    pixels, (panel,), texts = drawn(sink)
    assert "LTE 0.90" in texts
    for edge in ((10, 1991), (30, 1991), (20, 1993.6)):
        outline = around(pixels, panel, *edge)
        assert has_hue(outline[np.ptp(outline, axis=1) > 0.5], COLOURS[0])
        assert (np.ptp(outline, axis=1) > 0.5).any()
    assert is_grey(around(pixels, panel, 25, 1990))


def test_pieces_of_a_long_box_are_drawn_as_one(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(512))
    for start in range(0, 512, 128):
        sink.add_annotation(box(start, 128))
    _, (panel,), texts = drawn(sink)
    (rectangle,) = panel.patches
    assert (rectangle.get_x(), rectangle.get_width()) == pytest.approx((0, 80))
    assert texts.count("LTE 0.90") == 1


def test_boxes_are_bounded_and_the_largest_stay(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(2048))
    for i in range(MAX_BOXES + 100):
        sink.add_annotation(box(2 * i, 1))
    sink.add_annotation(box(0, 2048, "NR"))
    _, (panel,), texts = drawn(sink)
    assert len(panel.patches) == MAX_BOXES
    assert "NR 0.90" in texts
    assert any(f"only the {MAX_BOXES} largest of {MAX_BOXES + 101} boxes" in text for text in texts)


def test_texts_do_not_lie_on_one_another(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(512))
    for i in range(40):
        sink.add_annotation(box(3 * i, 1))
    _, (panel,), _ = drawn(sink)
    extents = [text.get_window_extent() for text in panel.texts if text.get_text().startswith("LTE")]
    assert len(extents) > 2
    for i, extent in enumerate(extents):
        assert not extent.count_overlaps(extents[:i])


def test_many_bins_and_one_step(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "run.png", LABELS)
    sink.add(*stretch(1, bins=1024))
    pixels, (panel,), _ = drawn(sink)
    assert has_hue(around(pixels, panel, 0.08, 1990), COLOURS[0])


def test_nothing_received(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    with ImageSink(path, LABELS) as sink:
        pass
    assert imread(path).shape == (900, 1600, 4)
    assert "no samples" in drawn(sink)[2]


def test_an_interrupted_run_still_gives_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "run.png"

    def interrupted() -> None:
        with ImageSink(path, LABELS) as sink:
            sink.add(*stretch(256))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert imread(path).shape == (900, 1600, 4)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists; name another file or give --overwrite"):
        ImageSink(path, LABELS)
    assert path.read_bytes() == b"precious"
    ImageSink(path, LABELS, overwrite=True).close()
    assert imread(path).shape == (900, 1600, 4)


def test_a_file_that_came_up_during_the_run_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    sink = ImageSink(path, LABELS)
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        sink.close()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"precious"]


@pytest.mark.parametrize(
    ("name", "message"), [("run.jpg", r"\.png"), ("missing/run.png", "no folder"), ("folder.png", "is a folder")]
)
def test_places_where_no_picture_can_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=message):
        ImageSink(tmp_path / name, LABELS)


def test_shapes_are_checked(tmp_path: Path) -> None:
    picture, mask = stretch(16)
    with pytest.raises(ValueError, match="shape"):
        ImageSink(tmp_path / "run.png", LABELS).add(picture[1:], mask)
    with pytest.raises(ValueError, match="3 classes"):
        ImageSink(tmp_path / "run.png", LABELS[:2]).add(picture, mask)
