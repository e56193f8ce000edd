#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Replay a recording, with waterfall
# Description: Replay a SigMF recording to rfvit, and show it with what rfvit finds in it.
# GNU Radio version: 3.10.5.1

from packaging.version import Version as StrictVersion

if __name__ == '__main__':
    import ctypes
    import sys
    if sys.platform.startswith('linux'):
        try:
            x11 = ctypes.cdll.LoadLibrary('libX11.so')
            x11.XInitThreads()
        except:
            print("Warning: failed to XInitThreads()")

from PyQt5 import Qt
from gnuradio import rfvit
from gnuradio import blocks
from gnuradio import gr
from gnuradio.filter import firdes
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from gnuradio import eng_notation
from rfvit_radio.sigmf import SigmfSource
from rfvit_radio.sigmf import sample_rate_of



from gnuradio import qtgui

class replay_gui(gr.top_block, Qt.QWidget):

    def __init__(self, endpoint='tcp://127.0.0.1:5555', recording='', results='tcp://127.0.0.1:5558', speed=1.0):
        gr.top_block.__init__(self, "Replay a recording, with waterfall", catch_exceptions=False)
        Qt.QWidget.__init__(self)
        self.setWindowTitle("Replay a recording, with waterfall")
        qtgui.util.check_set_qss()
        try:
            self.setWindowIcon(Qt.QIcon.fromTheme('gnuradio-grc'))
        except:
            pass
        self.top_scroll_layout = Qt.QVBoxLayout()
        self.setLayout(self.top_scroll_layout)
        self.top_scroll = Qt.QScrollArea()
        self.top_scroll.setFrameStyle(Qt.QFrame.NoFrame)
        self.top_scroll_layout.addWidget(self.top_scroll)
        self.top_scroll.setWidgetResizable(True)
        self.top_widget = Qt.QWidget()
        self.top_scroll.setWidget(self.top_widget)
        self.top_layout = Qt.QVBoxLayout(self.top_widget)
        self.top_grid_layout = Qt.QGridLayout()
        self.top_layout.addLayout(self.top_grid_layout)

        self.settings = Qt.QSettings("GNU Radio", "replay_gui")

        try:
            if StrictVersion(Qt.qVersion()) < StrictVersion("5.0.0"):
                self.restoreGeometry(self.settings.value("geometry").toByteArray())
            else:
                self.restoreGeometry(self.settings.value("geometry"))
        except:
            pass

        ##################################################
        # Parameters
        ##################################################
        self.endpoint = endpoint
        self.recording = recording
        self.results = results
        self.speed = speed

        ##################################################
        # Variables
        ##################################################
        self.sample_rate = sample_rate = sample_rate_of(recording)

        ##################################################
        # Blocks
        ##################################################

        self.waterfall = rfvit.Waterfall(
            sample_rate,
            None,
            results,
            1024,
            20,
            10,
            32,
            '')
        self._waterfall_win = self.waterfall.qwidget()
        self.top_grid_layout.addWidget(self._waterfall_win, 1, 0, 1, 1)
        for r in range(1, 2):
            self.top_grid_layout.setRowStretch(r, 1)
        for c in range(0, 1):
            self.top_grid_layout.setColumnStretch(c, 1)
        self.throttle = blocks.throttle(gr.sizeof_gr_complex*1, (sample_rate * speed),True)
        self.recorded = SigmfSource(recording, False, True)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'push', 'block', sample_rate, None, 0.1, 8)


        ##################################################
        # Connections
        ##################################################
        self.connect((self.recorded, 0), (self.throttle, 0))
        self.connect((self.throttle, 0), (self.iq_sink, 0))
        self.connect((self.throttle, 0), (self.waterfall, 0))


    def closeEvent(self, event):
        self.settings = Qt.QSettings("GNU Radio", "replay_gui")
        self.settings.setValue("geometry", self.saveGeometry())
        self.stop()
        self.wait()

        event.accept()

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_recording(self):
        return self.recording

    def set_recording(self, recording):
        self.recording = recording
        self.set_sample_rate(sample_rate_of(self.recording))

    def get_results(self):
        return self.results

    def set_results(self, results):
        self.results = results

    def get_speed(self):
        return self.speed

    def set_speed(self, speed):
        self.speed = speed
        self.throttle.set_sample_rate((self.sample_rate * self.speed))

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)
        self.throttle.set_sample_rate((self.sample_rate * self.speed))
        self.waterfall.set_sample_rate(self.sample_rate)



def argument_parser():
    description = 'Replay a SigMF recording to rfvit, and show it with what rfvit finds in it.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--recording", dest="recording", type=str, default='',
        help="Set SigMF metadata file, empty for the example [default=%(default)r]")
    parser.add_argument(
        "--results", dest="results", type=str, default='tcp://127.0.0.1:5558',
        help="Set ZeroMQ address that rfvit publishes results at [default=%(default)r]")
    parser.add_argument(
        "--speed", dest="speed", type=eng_float, default=eng_notation.num_to_str(float(1.0)),
        help="Set multiple of real time [default=%(default)r]")
    return parser


def main(top_block_cls=replay_gui, options=None):
    if options is None:
        options = argument_parser().parse_args()

    if StrictVersion("4.5.0") <= StrictVersion(Qt.qVersion()) < StrictVersion("5.0.0"):
        style = gr.prefs().get_string('qtgui', 'style', 'raster')
        Qt.QApplication.setGraphicsSystem(style)
    qapp = Qt.QApplication(sys.argv)

    tb = top_block_cls(endpoint=options.endpoint, recording=options.recording, results=options.results, speed=options.speed)

    tb.start()

    tb.show()

    def sig_handler(sig=None, frame=None):
        tb.stop()
        tb.wait()

        Qt.QApplication.quit()

    signal.signal(signal.SIGINT, sig_handler)
    signal.signal(signal.SIGTERM, sig_handler)

    timer = Qt.QTimer()
    timer.start(500)
    timer.timeout.connect(lambda: None)

    qapp.exec_()

if __name__ == '__main__':
    main()
