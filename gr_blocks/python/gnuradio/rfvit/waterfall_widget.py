# SPDX-License-Identifier: GPL-3.0-or-later
"""The waterfall on the screen: a Qt widget that draws a `WaterfallPicture`, with axes, boxes and legend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gnuradio.rfvit.result_socket import ResultSocket
from gnuradio.rfvit.waterfall_picture import Box, WaterfallPicture
from PyQt5.QtCore import QPointF, QRect, QRectF, QSize, Qt, QTimer
from PyQt5.QtGui import QCloseEvent, QColor, QFontMetrics, QImage, QPainter, QPaintEvent, QPen
from PyQt5.QtWidgets import QApplication, QSizePolicy, QWidget
from rfvit_rt.datatypes import Annotation
from rfvit_rt.wire.summary import WindowSummary

PERIOD = 50  # ms between two looks for news
MARGIN = QRect(74, 40, 16, 48)  # left, top, right, bottom of the picture, in pixels
LEAST_BOX = 3.0  # pixels: a box is never smaller
PREFERRED_SIZE = 800, 500  # pixels, where the window leaves it the choice
BACKGROUND, FOREGROUND, FAINT = "#FFFFFF", "#202020", "#707070"


class WaterfallWidget(QWidget):
    """Shows lines as they come, and the results for them.

    Parameters
    ----------
    spectra : object
        Has ``lines``, a deque that this takes from, and ``dropped``.
    endpoint : str
        Where results are published.
    lines, line_samples : int
        As `WaterfallPicture` takes them.
    title : str
        Above the picture.
    """

    def __init__(self, spectra: Any, endpoint: str, lines: int, line_samples: int, title: str) -> None:
        super().__init__()
        self.refused = 0
        self._spectra = spectra
        self._endpoint = endpoint
        self._lines = lines
        self._line_samples = line_samples
        self._title = title
        self._picture: WaterfallPicture | None = None  # until the first line
        # Results for a stream's last seconds come after its end, so this listens until the window is closed.
        self._socket: ResultSocket | None = ResultSocket(endpoint, ["annotation", "window"])
        self._has_results = False
        self.setMinimumSize(320, 240)
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Expanding)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._look)
        self._timer.start(PERIOD)
        QApplication.instance().aboutToQuit.connect(self._stop_listening)

    # ---- what comes in ----

    def _look(self) -> None:
        """Take up what is new, and draw it."""
        if self._take_lines() | self._take_results():
            self.update()

    def _take_lines(self) -> bool:
        taken = False
        while self._spectra.lines:
            line = self._spectra.lines.popleft()
            if self._picture is None:
                self._picture = WaterfallPicture(self._lines, len(line.power), self._line_samples)
            self._picture.add_line(line)
            taken = True
        return taken

    def _take_results(self) -> bool:
        if self._socket is None or self._picture is None:
            return False
        before, taken = self._socket.refused, False
        for result in self._socket.results():
            taken = self._has_results = True
            if isinstance(result, WindowSummary):
                self._picture.add_window(result)
            elif isinstance(result, Annotation):
                self._picture.add_annotation(result)
        self.refused += self._socket.refused - before
        return taken

    def _stop_listening(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802  (Qt's name)
        """End listening: what is in a window of its own was closed for good."""
        self._timer.stop()
        self._stop_listening()
        super().closeEvent(event)

    # ---- what is drawn ----

    def sizeHint(self) -> QSize:  # noqa: N802  (Qt's name)
        """Return the size that it would have."""
        return QSize(*PREFERRED_SIZE)

    def plot(self) -> QRect:
        """Return where in the widget the picture is."""
        return self.rect().adjusted(MARGIN.x(), MARGIN.y(), -MARGIN.width(), -MARGIN.height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  (Qt's name)
        """Draw everything."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(BACKGROUND))
        if self._picture is None:
            painter.setPen(QColor(FAINT))
            painter.drawText(self.rect(), Qt.AlignCenter, "no samples yet")
            return
        plot = self.plot()
        self._draw_lines(painter, plot, self._picture)
        for box in self._picture.boxes():
            self._draw_box(painter, plot, self._picture, box)
        self._draw_axes(painter, plot, self._picture)
        self._draw_head(painter, plot, self._picture)

    def _draw_lines(self, painter: QPainter, plot: QRect, picture: WaterfallPicture) -> None:
        pixels = picture.pixels(plot.width())
        height, width, _ = pixels.shape
        painter.drawImage(plot, QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format_RGB888))

    def _draw_box(self, painter: QPainter, plot: QRect, picture: WaterfallPicture, box: Box) -> None:
        frame = _frame(plot, picture, box)
        painter.setBrush(Qt.NoBrush)
        for colour, width in (("#000000", 4), (box.colour, 2)):  # dark around bright shows on any ground
            painter.setPen(QPen(QColor(colour), width, Qt.SolidLine, Qt.SquareCap, Qt.MiterJoin))
            painter.drawRect(frame)
        text = f"{box.label} {box.confidence:.2f}"
        size = QFontMetrics(painter.font()).boundingRect(text).adjusted(-3, -1, 3, 1).size()
        if size.width() > frame.width() or size.height() > frame.height():
            return  # the legend says what its colour means
        place = QRectF(frame.x(), frame.y(), size.width(), size.height())
        painter.fillRect(place, QColor(box.colour))
        painter.setPen(QColor("#000000"))
        painter.drawText(place, Qt.AlignCenter, text)

    def _draw_axes(self, painter: QPainter, plot: QRect, picture: WaterfallPicture) -> None:
        painter.setPen(QColor(FOREGROUND))
        lower, upper = picture.edges()
        for value, place, digits in _ticks(lower / 1e6, upper / 1e6, plot.width() // 90):
            x = plot.left() + place * plot.width()
            painter.drawLine(QPointF(x, plot.bottom() + 1), QPointF(x, plot.bottom() + 5))
            painter.drawText(QRectF(x - 60, plot.bottom() + 6, 120, 16), Qt.AlignCenter, f"{value:.{digits}f}")
        is_known = picture.tuning is not None and picture.tuning.frequency is not None
        name = "Frequency (MHz)" if is_known else "Offset from centre (MHz)"
        painter.drawText(QRectF(plot.left(), plot.bottom() + 24, plot.width(), 18), Qt.AlignCenter, name)
        oldest, newest = picture.seconds()
        for value, place, digits in _ticks(oldest, newest, plot.height() // 40):
            y = plot.bottom() - place * plot.height()
            if value >= 0:
                painter.drawLine(QPointF(plot.left() - 5, y), QPointF(plot.left() - 1, y))
                box = QRectF(16, y - 8, plot.left() - 24, 16)
                painter.drawText(box, Qt.AlignRight | Qt.AlignVCenter, f"{value:.{digits}f}")
        painter.save()
        painter.translate(12, plot.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-150, -10, 300, 20), Qt.AlignCenter, "Time since the stream's start (s)")
        painter.restore()

    def _draw_head(self, painter: QPainter, plot: QRect, picture: WaterfallPicture) -> None:
        metrics = QFontMetrics(painter.font())
        x = plot.right()
        for label in reversed(picture.labels[1:]):
            x -= metrics.boundingRect(label).width() + 8
            painter.setPen(QColor(FOREGROUND))
            painter.drawText(QPointF(x, 27), label)
            x -= 18
            painter.fillRect(QRectF(x, 16, 14, 13), QColor(picture.colour(label)))
            x -= 8
        facts = [self._title] if self._title else []
        if not self._has_results:
            facts.append(f"no results from {self._endpoint} yet")
        if self._spectra.dropped:
            facts.append(f"{self._spectra.dropped} lines dropped")
        painter.setPen(QColor(FOREGROUND))
        room = QRectF(plot.left(), 10, max(0, x - plot.left()), 24)
        painter.drawText(room, Qt.AlignLeft | Qt.AlignVCenter, "   ·   ".join(facts))


def _frame(plot: QRect, picture: WaterfallPicture, box: Box) -> QRectF:
    """Where a box is in the widget."""
    oldest, newest = picture.seconds()
    left, right = (plot.left() + share * plot.width() for share in (box.left, box.right))
    top, bottom = (
        plot.top() + (newest - seconds) / (newest - oldest) * plot.height() for seconds in (box.top, box.bottom)
    )
    return QRectF(left, top, max(LEAST_BOX, right - left), max(LEAST_BOX, bottom - top))


def _ticks(lower: float, upper: float, most: int) -> Iterator[tuple[float, float, int]]:
    """Round values from lower to upper, at most so many: value, share of the way, and decimals that tell them apart."""
    least = (upper - lower) / max(1, most)
    exponent = math.floor(math.log10(least))
    step = next(step for step in (1, 2, 5, 10) if step * 10**exponent >= least * (1 - 1e-9))
    digits = max(0, -exponent - (step == 10))
    step = step * 10.0**exponent
    for number in range(math.ceil(lower / step), math.floor(upper / step) + 1):
        yield number * step, (number * step - lower) / (upper - lower), digits
