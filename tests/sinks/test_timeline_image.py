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

from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.image import COLOURS, MAX_COLUMNS
from rfvit_rt.sinks.timeline_image import FIRST_COLUMN, TimelineSink

LABELS = ("nobody", "walk", "sit down")
SUBCARRIERS = np.r_[-28:0, 1:29].astype(np.int16)


def add_frames(
    sink: TimelineSink, start: float, end: float, antennas: int = 1, device: str = "esp32 20 MHz", rate: float = 100
) -> None:
    """Amplitude 1 in the lower half of the rows, 10 (20 dB more) in the upper."""
    for number in range(round(start * rate), round(end * rate)):
        amplitude = np.ones((antennas, len(SUBCARRIERS)), np.float32)
        amplitude.ravel()[amplitude.size // 2 :] = 10
        frame = CSIFrame(amplitude.astype(np.complex64), SUBCARRIERS, number / rate, number, device)
        sink.add_frame(frame, amplitude)


def activity(label: str, start: float, end: float) -> Activity:
    return Activity(label, start, end, 0, 1, 0.9, 100.0)


def drawn(sink: TimelineSink) -> tuple[NDArray[np.float32], list[Axes], list[str]]:
    """The picture's pixels, its panels (amplitudes, activities), and all its text."""
    figure = sink._figure()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    texts = [text.get_text() for text in figure.texts] + [t.get_text() for axes in figure.axes for t in axes.texts]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    content.seek(0)
    return imread(content)[:, :, :3], figure.axes[:2], [text for text in texts if text]


def around(pixels: NDArray[np.float32], panel: Axes, seconds: float, height: float) -> NDArray[np.float32]:
    """A few pixels about a point of a panel, (pixel, RGB)."""
    x, y = panel.transData.transform((seconds, height))
    row, column = pixels.shape[0] - round(y), round(x)
    return pixels[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 3)


def has_hue(pixels: NDArray[np.float32], colour: str) -> bool:
    hue = rgb_to_hsv(to_rgb(colour))[0]
    return bool(np.all(np.abs(rgb_to_hsv(pixels)[:, 0] - hue) < 0.04))


def test_the_file_is_a_picture_of_1600_pixels(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    with TimelineSink(path, LABELS, "capture.pcap", ["model small"]) as sink:
        add_frames(sink, 0, 5)
        sink.add_activity(activity("walk", 0, 4))
    assert imread(path).shape == (900, 1600, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


def test_amplitudes_activities_and_axes_are_where_they_belong(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS, "capture.pcap", ["RECORDED, not live", "model small"])
    add_frames(sink, 0, 10)
    sink.add_activity(activity("walk", 0, 4))
    sink.add_activity(activity("unknown", 4, 6))
    sink.add_activity(activity("nobody", 6, 10))
    pixels, (panel, strip), texts = drawn(sink)
    low, high = around(pixels, panel, 5, 10), around(pixels, panel, 5, 45)
    assert high.mean() > low.mean() + 0.3
    assert has_hue(around(pixels, strip, 1, 0.2), COLOURS[1])
    assert has_hue(around(pixels, strip, 7, 0.2), COLOURS[0])
    assert np.ptp(around(pixels, strip, 4.5, 0.2)) < 0.02  # grey: unknown
    assert panel.get_xlim() == strip.get_xlim() == pytest.approx((0, 10), abs=0.02)
    assert strip.get_xlabel() == "Time since the first frame (s)"
    assert panel.get_ylabel() == "Subcarrier"
    assert [label.get_text() for label in panel.get_yticklabels()][::8] == ["-28", "28"]
    assert texts[:2] == ["capture.pcap", "esp32 20 MHz   ·   RECORDED, not live   ·   model small"]
    assert {"walk", "unknown", "nobody"} <= set(texts)
    assert "sit down" not in texts  # it did not occur
    assert not any("no frames" in text for text in texts)


def test_several_antennas_lie_over_one_another(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 2, antennas=3)
    _, (panel, _), _ = drawn(sink)
    assert panel.get_ylim() == (-0.5, 3 * 56 - 0.5)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["1", "2", "3"]
    assert panel.get_yticks() == pytest.approx([27.5, 83.5, 139.5])


def test_a_gap_is_blank_in_both_panels_and_said_so(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 4)
    add_frames(sink, 6, 10)
    sink.add_activity(activity("walk", 0, 4))
    sink.add_activity(activity("walk", 6, 10))
    pixels, panels, texts = drawn(sink)
    for panel, height in zip(panels, (28, 0.5), strict=True):
        gap = around(pixels, panel, 5.2, height)
        assert np.ptp(gap, axis=1).max() < 0.02
        assert gap.mean() > 0.8
    assert any("no frames" in text for text in texts)


def test_rare_frames_leave_no_gaps(tmp_path: Path) -> None:
    """Five frames a second, in columns of 10 ms."""
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 10, rate=5)
    sink.add_activity(activity("walk", 0, 9.81))
    _, _, texts = drawn(sink)
    assert not any("no frames" in text for text in texts)


def test_memory_is_bounded_and_time_stays_right(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    arrays = [sink._seconds]
    for number in range(3000):  # 50 minutes: a frame and an activity a second
        amplitude = np.full((1, 56), 100.0 if number == 2000 else 1.0, np.float32)
        frame = CSIFrame(amplitude.astype(np.complex64), SUBCARRIERS, float(number), number, "esp32")
        sink.add_frame(frame, amplitude)
        sink.add_activity(activity(LABELS[number // 1000], number, number + 1))
    assert sink._amplitudes is not None
    arrays += [sink._amplitudes.sums, sink._amplitudes.counts]
    assert {len(array) for array in arrays} == {MAX_COLUMNS}
    assert sink._column == FIRST_COLUMN * 256
    assert sink._amplitudes.counts.sum() == 3000
    assert np.argmax(sink._amplitudes.sums[:, 0] / np.maximum(sink._amplitudes.counts, 1)) == int(2000 / sink._column)
    assert sink._seconds.sum(axis=0) == pytest.approx([1000, 1000, 1000, 0])
    edges = [(number, first * sink._column, last * sink._column) for number, first, last in sink._stretches()]
    assert [edge[0] for edge in edges] == [0, 1, 2]
    assert [edge[2] for edge in edges] == pytest.approx([1000, 2000, 3000], abs=sink._column)


def test_a_jump_far_ahead_does_not_need_more_memory(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 1)
    frame = CSIFrame(np.ones((1, 56), np.complex64), SUBCARRIERS, 1e12, 100, "esp32 20 MHz")
    sink.add_frame(frame, np.ones((1, 56), np.float32))
    assert sink._columns <= MAX_COLUMNS
    drawn(sink)


def test_labels_that_share_a_colour_have_their_own_hatches(tmp_path: Path) -> None:
    labels = tuple(f"label {number}" for number in range(11))
    sink = TimelineSink(tmp_path / "run.png", labels)
    add_frames(sink, 0, 11)
    for number, label in enumerate(labels):
        sink.add_activity(activity(label, number, number + 1))
    _, (_, strip), _ = drawn(sink)
    styles = [(patch.get_facecolor(), patch.get_hatch()) for patch in strip.patches]
    assert len(set(styles)) == len(styles) == 11


def test_texts_of_short_activities_give_way(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 20)
    sink.add_activity(activity("walk", 0, 19.9))
    sink.add_activity(activity("sit down", 19.9, 20))
    _, (_, strip), texts = drawn(sink)
    assert [text.get_text() for text in strip.texts] == ["walk"]
    assert "sit down" in texts  # in the legend


def test_another_devices_frames_are_left_out_and_said_so(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    add_frames(sink, 0, 2)
    add_frames(sink, 2, 3, device="nexmon bcm4358 20 MHz")
    add_frames(sink, 3, 4, antennas=2)
    _, _, texts = drawn(sink)
    assert any("200 frames of other devices are not shown" in text for text in texts)


def test_silence_is_drawn_too(tmp_path: Path) -> None:
    """Amplitudes of nothing but zero have no level in dB."""
    sink = TimelineSink(tmp_path / "run.png", LABELS)
    for number in range(100):
        frame = CSIFrame(np.zeros((1, 56), np.complex64), SUBCARRIERS, number / 100, number, "esp32")
        sink.add_frame(frame, np.zeros((1, 56), np.float32))
    drawn(sink)


def test_dollars_in_names_are_no_formulas(tmp_path: Path) -> None:
    sink = TimelineSink(tmp_path / "run.png", ("a$_$", "$\\frac{$"), title="$\\frac{$.csv")
    add_frames(sink, 0, 2, device="a$_$ b$\\foo$")
    sink.add_activity(activity("$\\frac{$", 0, 2))
    sink.close()
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_received(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    with TimelineSink(path, LABELS) as sink:
        pass
    assert imread(path).shape == (900, 1600, 4)
    assert "no frames" in drawn(sink)[2]


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists; name another file or give --overwrite"):
        TimelineSink(path, LABELS)
    assert path.read_bytes() == b"precious"
    with pytest.raises(OutputError, match=r"\.png"):
        TimelineSink(tmp_path / "run.jpg", LABELS)
