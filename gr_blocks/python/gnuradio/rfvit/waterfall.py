# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit Waterfall: live spectrum with rfvit's labels and boxes on it, for Qt flowgraphs."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr
from gnuradio.rfvit.result_socket import DEFAULT_ENDPOINT
from gnuradio.rfvit.waterfall_picture import Line, Tuning
from rfvit_rt.errors import StreamError

FFT_SIZES = 64, 8192
MAX_LINES = 4096
MAX_AVERAGE = 1024
WAITING = 64  # lines that wait for the screen, before the oldest are dropped
PATIENCE = 1.0  # s of spectra that wait for Python, before the flowgraph would
LEAST_POWER = 1e-20  # so that silence has a logarithm


class Waterfall(gr.hier_block2):
    """Shows a stream's spectrum over time, and on it what ``rfvit segment ... --publish ENDPOINT`` finds there.

    Labelled cells are coloured as in rfvit's pictures, boxes have label and confidence. Results come later than the
    spectrum, so colours and boxes appear some way down the picture, at the time and frequency they belong to. For
    that, rfvit reads this very stream (the same item count): connect rfvit IQ Sink to the same block.

    A line is the mean of short spectra spread evenly over it. Centre frequency and sample rate follow ``rx_freq`` and
    ``rx_rate`` tags; a change of either begins the picture anew. The flowgraph is not held up: where the
    screen is too slow, lines are dropped and counted (`dropped`).

    Parameters
    ----------
    sample_rate : float
        In Hz, until a tag says otherwise.
    frequency : float or None
        Centre frequency in Hz, until a tag says otherwise; None is unknown, and the axis shows offsets.
    endpoint : str
        What was given to ``--publish``.
    n_fft : int
        Bins of a line, 64 to 8192.
    lines_per_second : float
        Lines for a second of the stream; fewer where a line would not fill an FFT.
    seconds : float
        How long a line stays in the picture.
    average : int
        Spectra in a line; fewer where they would overlap.
    title : str
        Above the picture.

    Raises
    ------
    StreamError
        If a parameter is out of range, or the flowgraph has no Qt.
    """

    def __init__(
        self,
        sample_rate: float,
        frequency: float | None = None,
        endpoint: str = DEFAULT_ENDPOINT,
        n_fft: int = 1024,
        lines_per_second: float = 20.0,
        seconds: float = 10.0,
        average: int = 32,
        title: str = "",
    ) -> None:
        gr.hier_block2.__init__(
            self, "rfvit Waterfall", gr.io_signature(1, 1, gr.sizeof_gr_complex), gr.io_signature(0, 0, 0)
        )
        _check("sample_rate", sample_rate, 1e-3, 1e12)
        _check("n_fft", n_fft, *FFT_SIZES)
        _check("lines_per_second", lines_per_second, 1e-3, 100)
        _check("seconds", seconds, 1 / lines_per_second, MAX_LINES / lines_per_second)
        _check("average", average, 1, MAX_AVERAGE)
        # A line is a whole number of equal strides; each begins with the samples of one spectrum.
        line_samples = sample_rate / lines_per_second
        count = int(max(1, min(average, line_samples // n_fft)))
        stride = max(int(n_fft), round(line_samples / count))
        self._keep = blocks.keep_m_in_n(gr.sizeof_gr_complex, int(n_fft), stride, 0)
        self._vectors = blocks.stream_to_vector(gr.sizeof_gr_complex, int(n_fft))
        self._vectors.set_min_output_buffer(max(2 * count, round(PATIENCE * sample_rate / stride)))
        self._spectra = _Spectra(int(n_fft), count, Tuning(sample_rate, frequency))
        self.connect(self, self._keep, self._vectors, self._spectra)
        widget = _widget_class()
        self._widget = widget(self._spectra, endpoint, round(seconds * lines_per_second), stride * count, title)

    def qwidget(self) -> Any:
        """Return the widget, to be put into a window."""
        return self._widget

    def set_frequency(self, frequency: float | None) -> None:
        """Set the centre frequency in Hz, until a tag says otherwise."""
        self._spectra.retune(frequency=frequency)

    def set_sample_rate(self, sample_rate: float) -> None:
        """Set the sample rate in Hz, until a tag says otherwise; a line keeps its number of samples."""
        _check("sample_rate", sample_rate, 1e-3, 1e12)
        self._spectra.retune(sample_rate=sample_rate)

    def dropped(self) -> int:
        """Return the number of lines that came too fast for the screen."""
        return self._spectra.dropped

    def refused(self) -> int:
        """Return the number of messages that were no valid results."""
        return self._widget.refused


class _Spectra(gr.sync_block):
    """Vectors of samples → lines for the screen, which takes them from here in its own time."""

    def __init__(self, n_fft: int, average: int, tuning: Tuning) -> None:
        gr.sync_block.__init__(self, "rfvit spectra", [(np.complex64, n_fft)], None)
        self._window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
        self._average = average
        self._tuning = tuning
        self._reset()

    def _reset(self) -> None:
        self.lines: deque[Line] = deque()
        self.dropped = 0
        self._sum = np.zeros(len(self._window))
        self._line = 0  # number of the line that the newest spectrum belongs to
        self._given_up = -1  # number of a line

    def start(self) -> bool:
        """Begin anew."""
        self._reset()
        return True

    def retune(self, **changes: float | None) -> None:
        """Change sample rate or frequency; the line in which that happens is given up."""
        self._tuning = replace(self._tuning, **changes)
        self._given_up = self._line

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        """Add spectra to lines."""
        vectors = input_items[0]
        start = self.nitems_read(0)
        tags = deque(sorted(self.get_tags_in_window(0, 0, len(vectors)), key=lambda tag: tag.offset))
        power = np.abs(np.fft.fft(vectors * self._window, axis=1)) ** 2
        for number, spectrum in enumerate(power, start):
            self._line, place = divmod(number, self._average)
            while tags and tags[0].offset <= number:
                self._follow(tags.popleft())
            self._sum = spectrum if place == 0 else self._sum + spectrum
            if place == self._average - 1 and self._line != self._given_up:
                self._put_line()
        return len(vectors)

    def _follow(self, tag: gr.tag_t) -> None:
        key = pmt.symbol_to_string(tag.key)
        if key == "rx_freq":
            frequency = pmt.to_double(tag.value) if pmt.is_number(tag.value) else None
            if frequency != self._tuning.frequency:
                self.retune(frequency=frequency)
        elif key == "rx_rate" and pmt.is_number(tag.value) and pmt.to_double(tag.value) != self._tuning.sample_rate:
            self.retune(sample_rate=pmt.to_double(tag.value))

    def _put_line(self) -> None:
        scale = self._average * float(np.sum(self._window)) ** 2
        mean = np.fft.fftshift(self._sum / scale)
        power = (10 * np.log10(np.maximum(mean, LEAST_POWER))).astype(np.float32)
        if len(self.lines) == WAITING:
            self.lines.popleft()
            self.dropped += 1
        self.lines.append(Line(self._line, power, self._tuning))


def _widget_class() -> Any:
    try:
        from gnuradio.rfvit.waterfall_widget import WaterfallWidget
        from PyQt5.QtWidgets import QApplication
    except ImportError as error:
        raise StreamError("rfvit Waterfall needs PyQt5; install python3-pyqt5, or leave the block out") from error
    if QApplication.instance() is None:
        raise StreamError("rfvit Waterfall needs a window; set the flowgraph's Generate Options to QT GUI")
    return WaterfallWidget


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise StreamError(f"{name} is {value}; expected {least:g} to {most:g}")
