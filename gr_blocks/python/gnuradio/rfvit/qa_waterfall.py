#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of rfvit Waterfall: what it shows, as pixels on a screen; Xvfb is one, where there is no other."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unittest
from collections.abc import Callable

import numpy as np
from gnuradio import blocks, gr, gr_unittest, rfvit
from gnuradio.rfvit.testbed import PATIENCE, Publisher, tag
from gnuradio.rfvit.waterfall import WAITING
from gnuradio.rfvit.waterfall_picture import COLOURS, NOTHING, Line, Tuning, WaterfallPicture
from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import StreamError
from rfvit_rt.wire.summary import WindowSummary

if __name__ == "__main__" and not os.environ.get("DISPLAY") and "QT_QPA_PLATFORM" not in os.environ:
    if shutil.which("xvfb-run"):
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1280x1024x24", sys.executable]
        os.execvp(screen[0], [*screen, *sys.argv])
    os.environ["QT_QPA_PLATFORM"] = "offscreen"

try:
    from PyQt5.QtGui import QImage
    from PyQt5.QtWidgets import QApplication
except ImportError:
    QApplication = None

RATE = 1e6
CENTRE = 100e6
LABELS = ("background", "LTE", "NR")


def rgb(colour: str) -> list[int]:
    """Red, green and blue of a colour's name."""
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


class QaWaterfallPicture(gr_unittest.TestCase):
    """What is where, in numbers."""

    TUNING = Tuning(1000.0, 5000.0)

    def picture(self, *numbers: int) -> WaterfallPicture:
        picture = WaterfallPicture(lines=10, bins=8, line_samples=100)
        for number in numbers:
            picture.add_line(Line(number, np.full(8, number, np.float32), self.TUNING))
        return picture

    def coloured(self, picture: WaterfallPicture) -> np.ndarray:
        pixels = picture.pixels(8)
        return (pixels != pixels[:, :, :1]).any(axis=2)

    def test_lines_run_down_and_gaps_stay_empty(self) -> None:
        picture = self.picture(0, 1, 2, 4, 12)
        pixels = picture.pixels(8)
        self.assertEqual(picture.seconds(), (0.3, 1.3))
        known = [row for row in range(10) if (pixels[row] != NOTHING).any()]
        self.assertEqual(known, [0, 8])  # lines 12 and 4; 0 to 2 have left
        self.assertGreater(int(pixels[0, 0, 0]), int(pixels[8, 0, 0]))

    def test_a_window_colours_its_cells(self) -> None:
        picture = self.picture(*range(10))
        cells = np.zeros((4, 4), np.uint8)
        cells[0, 0], cells[3, 2] = 1, 2
        picture.add_window(WindowSummary(350, 400, 1000.0, 5000.0, LABELS, (0.8, 0.1, 0.1), cells))
        where = [(9 - int(row), int(column)) for row, column in np.argwhere(self.coloured(picture))]
        # The first step covers samples 350 to 450, in lines 3 and 4, the last 650 to 750, in 6 and 7.
        # A cell is two bins wide.
        lines = {3: (0, 1), 4: (0, 1), 6: (4, 5), 7: (4, 5)}
        self.assertEqual(sorted(where), [(line, bin_) for line, bins in lines.items() for bin_ in bins])

    def test_a_box_is_cut_to_the_picture(self) -> None:
        picture = self.picture(*range(5, 15))  # 0.5 to 1.5 s, 4437.5 to 5437.5 Hz
        for start, end, lower, upper in [(600, 700, 4500, 4600), (0, 5000, 0, 9e9), (0, 400, 4500, 4600)]:
            picture.add_annotation(Annotation("NR", start, end - start, lower, upper, 0.5, 1000.0, 5000.0))
        shown = [(box.bottom, box.top, box.left, box.right) for box in picture.boxes()]
        np.testing.assert_allclose(shown, [(0.6, 0.7, 0.0625, 0.1625), (0.5, 1.5, 0, 1)])

    def test_results_of_another_tuning_are_not_shown(self) -> None:
        picture = self.picture(*range(10))
        cells = np.ones((1, 1), np.uint8)
        for rate, frequency in [(2000.0, 5000.0), (1000.0, 7000.0)]:
            picture.add_annotation(Annotation("NR", 0, 100, 4900, 5100, 0.5, rate, frequency))
            picture.add_window(WindowSummary(0, 500, rate, frequency, LABELS, (0, 1, 0), cells))
        self.assertEqual(picture.boxes(), [])
        self.assertFalse(self.coloured(picture).any())

    def test_offsets_are_shown_where_only_rfvit_knows_the_centre_and_the_other_way_round(self) -> None:
        for mine, theirs in [(None, 5000.0), (5000.0, None), (None, None)]:
            picture = WaterfallPicture(10, 8, 100)
            picture.add_line(Line(9, np.zeros(8, np.float32), Tuning(1000.0, mine)))
            edges = ((theirs or 0) - 62.5, (theirs or 0) + 437.5)
            picture.add_annotation(Annotation("NR", 0, 100, *edges, 0.5, 1000.0, theirs))
            (box,) = picture.boxes()
            np.testing.assert_allclose((box.left, box.right), (0.5, 1.0))

    def test_another_tuning_and_another_run_begin_anew(self) -> None:
        for number, tuning in [(10, Tuning(1000.0, 6000.0)), (3, self.TUNING)]:
            picture = self.picture(*range(10))
            picture.add_annotation(Annotation("NR", 0, 100, 4900, 5100, 0.5, 1000.0, 5000.0))
            picture.add_line(Line(number, np.zeros(8, np.float32), tuning))
            self.assertEqual((picture.boxes(), picture.tuning), ([], tuning))
            self.assertEqual((picture.pixels(8) != NOTHING).any(axis=(1, 2)).sum(), 1)

    def test_a_narrow_signal_is_not_lost_in_a_narrow_window(self) -> None:
        picture = WaterfallPicture(1, 1000, 100)
        power = np.zeros(1000, np.float32)
        power[777] = 50
        picture.add_line(Line(0, power, self.TUNING))
        self.assertEqual(np.flatnonzero(picture.pixels(10)[0, :, 0] == 255).tolist(), [7])


@unittest.skipIf(QApplication is None, "PyQt5 is not installed; install python3-pyqt5")
class QaWaterfall(gr_unittest.TestCase):
    """On a screen."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.application = QApplication.instance() or QApplication(sys.argv[:1])

    def setUp(self) -> None:
        self.publisher = Publisher()
        self.top = gr.top_block()

    def tearDown(self) -> None:
        self.top.stop()
        self.top.wait()
        self.waterfall.qwidget().close()
        self.publisher.close()
        self.top = self.waterfall = None

    def show_until(self, condition: Callable[[], object]) -> None:
        """Run the screen's loop until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            self.application.processEvents()
            time.sleep(0.005)

    def waterfall_of(self, samples: np.ndarray, tags: list[gr.tag_t] | None = None, **parameters: object) -> None:
        # 25 spectra a line, so that the stretch from one to the next is a whole number of samples.
        self.waterfall = rfvit.Waterfall(RATE, endpoint=self.publisher.endpoint, average=25, **parameters)
        self.source = blocks.vector_source_c(samples.astype(np.complex64), tags=tags or [])
        self.throttle = blocks.throttle(gr.sizeof_gr_complex, 4 * RATE)
        self.top.connect(self.source, self.throttle, self.waterfall)

    def picture(self) -> WaterfallPicture:
        return self.waterfall.qwidget()._picture

    def grab(self) -> np.ndarray:
        """Give what is on the screen: (y, x, RGB)."""
        widget = self.waterfall.qwidget()
        widget.repaint()
        self.application.processEvents()
        time.sleep(0.1)  # the X server draws in its own time
        image = widget.screen().grabWindow(widget.winId()).toImage().convertToFormat(QImage.Format_RGB888)
        self.assertEqual((image.width(), image.height()), (widget.width(), widget.height()))
        if folder := os.environ.get("RFVIT_QA_PICTURES"):
            image.save(f"{folder}/{self.id().rsplit('.')[-1]}.png")
        lines = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
        return lines.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()].reshape(
            image.height(), image.width(), 3
        )

    def test_the_box_is_where_the_signal_is(self) -> None:
        # Two seconds of noise; from 0.5 to 1 s a signal from +200 to +300 kHz, from 1.2 to 1.5 s one around -250 kHz.
        numbers = np.random.default_rng(1)
        count = int(2 * RATE)
        samples = 1e-3 * (numbers.normal(size=count) + 1j * numbers.normal(size=count))
        for start, end, lower, upper in [(500_000, 1_000_000, 200e3, 300e3), (1_200_000, 1_500_000, -280e3, -220e3)]:
            spectrum = np.fft.fft(numbers.normal(size=end - start) + 1j * numbers.normal(size=end - start))
            frequency = np.fft.fftfreq(end - start, 1 / RATE)
            samples[start:end] += np.fft.ifft(np.where((lower <= frequency) & (frequency < upper), spectrum, 0))
        self.waterfall_of(samples, frequency=CENTRE, seconds=2.5, title="simulated")
        widget = self.waterfall.qwidget()
        widget.resize(900, 700)
        widget.show()
        self.top.start()
        self.show_until(lambda: self.picture() is not None and self.picture().seconds()[1] == 2)
        self.publisher.wait_for_listeners(2)
        cells = np.zeros((6, 100), np.uint8)
        cells[:, 22:28] = 2
        self.publisher.publish(
            Annotation("LTE", 500_000, 500_000, CENTRE + 200e3, CENTRE + 300e3, 0.93, RATE, CENTRE),
            WindowSummary(1_200_000, 300_000, RATE, CENTRE, LABELS, (0.9, 0.0, 0.1), cells),
        )
        self.publisher.publish_bytes(b'{"type":"window",nonsense')
        self.show_until(lambda: self.waterfall.refused())
        shot = self.grab()
        plot = widget.plot()

        def place(seconds: float, offset: float) -> tuple[int, int]:
            """Row and column of a time and a frequency; the newest, 2 s, is on top, and there are 2.5 s."""
            return (
                round(plot.top() + (2 - seconds) / 2.5 * plot.height()),
                round(plot.left() + (offset + RATE / 2) / RATE * plot.width()),
            )

        def is_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
            return (np.abs(pixels.astype(int) - rgb(colour)) <= 8).all(axis=-1)

        lte, nr = COLOURS[:2]
        (top, left), (bottom, right) = place(1.0, 200e3), place(0.5, 300e3)
        # The box's four sides, within two pixels, and nowhere else in the picture but in its label.
        box = is_colour(shot[plot.top() : plot.bottom(), plot.left() : plot.right()], lte)
        rows, columns = np.nonzero(box)
        self.assertLessEqual(abs(rows.min() + plot.top() - top), 2)
        self.assertLessEqual(abs(rows.max() + plot.top() - bottom), 2)
        self.assertLessEqual(abs(columns.min() + plot.left() - left), 2)
        self.assertLessEqual(abs(columns.max() + plot.left() - right), 2)
        # Inside the signal is bright, outside is dark: the box is where the signal is.
        inside = shot[top + 30 : bottom - 4, left + 4 : right - 4].mean()
        for outside in (
            shot[top + 30 : bottom - 4, left - 60 : left - 8],
            shot[top + 30 : bottom - 4, right + 8 : right + 60],
            shot[bottom + 8 : bottom + 40, left:right],
            shot[top - 40 : top - 8, left:right],
        ):
            self.assertGreater(inside, outside.mean() + 100)
        # The label: dark letters on the box's colour, in its upper left corner.
        label = shot[top + 2 : top + 14, left + 2 : left + 40]
        self.assertGreater(is_colour(label, lte).mean(), 0.4)
        self.assertGreater((label.max(axis=2) < 60).sum(), 20)
        # The coloured cells: blue where the window says NR, and not beside it.
        (top, left), (bottom, right) = place(1.5, -280e3), place(1.2, -220e3)
        tinted = shot[top + 4 : bottom - 4, left + 4 : right - 4].astype(int)
        self.assertGreater((tinted[:, :, 2] - tinted[:, :, 0]).mean(), 0.5 * (rgb(nr)[2] - rgb(nr)[0]))
        for beside in (shot[top:bottom, left - 40 : left - 4], shot[bottom + 16 : bottom + 40, left:right]):
            self.assertLess(np.abs(beside.astype(int)[:, :, 2] - beside.astype(int)[:, :, 0]).max(), 4)
        # Legend, and texts at both axes.
        head = shot[: plot.top()]
        for colour in (lte, nr):
            self.assertGreater(is_colour(head, colour).sum(), 100)
        self.assertGreater((shot[plot.bottom() + 6 :].max(axis=2) < 120).sum(), 200)
        self.assertGreater((shot[:, : plot.left() - 6].max(axis=2) < 120).sum(), 200)

    def test_tags_retune_it(self) -> None:
        tags = [tag(0, "rx_freq", 200e6), tag(1_234_567, "rx_freq", 300e6), tag(1_234_567, "rx_rate", RATE)]
        self.waterfall_of(np.ones(int(2 * RATE)), tags, frequency=CENTRE, seconds=2.0)
        self.top.start()
        self.show_until(lambda: self.picture() is not None and self.picture().seconds()[1] == 2)
        self.assertEqual(self.picture().tuning, Tuning(RATE, 300e6))
        shown = (self.picture().pixels(64) != NOTHING).any(axis=(1, 2))
        self.assertEqual(np.flatnonzero(shown).tolist(), list(range(15)))  # lines 25 to 39; 24 has both frequencies

    def test_a_tone_is_in_its_bin_at_its_power(self) -> None:
        tone = 0.1 * np.exp(2j * np.pi * 0.125 * np.arange(int(RATE / 10)))
        self.waterfall_of(tone, n_fft=64, seconds=1.0)
        self.top.start()
        self.show_until(lambda: self.picture() is not None and self.picture().seconds()[1] == 0.1)
        power = self.picture()._power[1]
        self.assertEqual(int(power.argmax()), 32 + 8)
        self.assertAlmostEqual(float(power.max()), -20, places=2)

    def test_a_screen_that_hangs_holds_up_nobody(self) -> None:
        self.waterfall_of(np.ones(int(10 * RATE)))
        self.top.run()  # and nobody runs the screen's loop
        self.assertEqual(self.waterfall.dropped(), 200 - WAITING)
        self.show_until(lambda: self.picture() is not None)
        self.assertEqual(self.picture().seconds()[1], 10)

    def test_parameters_are_checked(self) -> None:
        self.waterfall_of(np.ones(10))
        for name, value in [
            ("sample_rate", 0),
            ("sample_rate", float("nan")),
            ("n_fft", 32),
            ("lines_per_second", 0),
            ("seconds", 0.01),
            ("seconds", 1e6),
            ("average", 0),
        ]:
            with self.subTest(name=name, value=value), self.assertRaisesRegex(StreamError, f"^{name} is .*; expected"):
                rfvit.Waterfall(**{"sample_rate": RATE, name: value})
        with self.assertRaisesRegex(StreamError, "--publish"):
            rfvit.Waterfall(RATE, endpoint="nowhere")


if __name__ == "__main__":
    gr_unittest.main()
