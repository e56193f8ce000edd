#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Simulated band, with waterfall
# Description: Simulated band, marked as such, to rfvit, shown with what it finds in it.
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
import pmt
from gnuradio import channels
from gnuradio.filter import firdes
from gnuradio import gr
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from gnuradio import eng_notation
from rfvit_radio.sigmf import SigmfSource
from rfvit_radio.simulated import SimulatedTuner


def snipfcn_say_simulated(self):
    print("SIMULATED: these signals are made here from a generated recording; nothing is received.", flush=True)


def snippets_main_after_init(tb):
    snipfcn_say_simulated(tb)

from gnuradio import qtgui

class live_simulated_gui(gr.top_block, Qt.QWidget):

    def __init__(self, endpoint='tcp://127.0.0.1:5555', frequency=2.14e9, noise=0.01, results='tcp://127.0.0.1:5558', sample_rate=20e6):
        gr.top_block.__init__(self, "Simulated band, with waterfall", catch_exceptions=False)
        Qt.QWidget.__init__(self)
        self.setWindowTitle("Simulated band, with waterfall")
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

        self.settings = Qt.QSettings("GNU Radio", "live_simulated_gui")

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
        self.frequency = frequency
        self.noise = noise
        self.results = results
        self.sample_rate = sample_rate

        ##################################################
        # Variables
        ##################################################
        self.band_rate = band_rate = 20e6

        ##################################################
        # Blocks
        ##################################################

        self.waterfall = rfvit.Waterfall(
            sample_rate,
            frequency,
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
        self.tuner = SimulatedTuner(band_rate, frequency, frequency, sample_rate)
        self.throttle = blocks.throttle(gr.sizeof_gr_complex*1, band_rate,True)
        self.scene = SigmfSource('', True, False)
        self.marker = blocks.tags_strobe(gr.sizeof_gr_complex*1, pmt.PMT_T, int(sample_rate), pmt.intern("simulated"))
        self.mark_simulated = blocks.tag_share(gr.sizeof_gr_complex, gr.sizeof_gr_complex, 1)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, frequency, 0.1, 200)
        self.channel = channels.channel_model(
            noise_voltage=noise,
            frequency_offset=0.0,
            epsilon=1.0,
            taps=[1.0, 0.0, 0.1 - 0.05j],
            noise_seed=0,
            block_tags=False)


        ##################################################
        # Connections
        ##################################################
        self.connect((self.channel, 0), (self.throttle, 0))
        self.connect((self.mark_simulated, 0), (self.iq_sink, 0))
        self.connect((self.mark_simulated, 0), (self.waterfall, 0))
        self.connect((self.marker, 0), (self.mark_simulated, 1))
        self.connect((self.scene, 0), (self.channel, 0))
        self.connect((self.throttle, 0), (self.tuner, 0))
        self.connect((self.tuner, 0), (self.mark_simulated, 0))


    def closeEvent(self, event):
        self.settings = Qt.QSettings("GNU Radio", "live_simulated_gui")
        self.settings.setValue("geometry", self.saveGeometry())
        self.stop()
        self.wait()

        event.accept()

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_frequency(self):
        return self.frequency

    def set_frequency(self, frequency):
        self.frequency = frequency
        self.iq_sink.set_frequency(self.frequency)
        self.tuner.set_frequency(self.frequency)
        self.waterfall.set_frequency(self.frequency)

    def get_noise(self):
        return self.noise

    def set_noise(self, noise):
        self.noise = noise
        self.channel.set_noise_voltage(self.noise)

    def get_results(self):
        return self.results

    def set_results(self, results):
        self.results = results

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)
        self.marker.set_nsamps(int(self.sample_rate))
        self.waterfall.set_sample_rate(self.sample_rate)

    def get_band_rate(self):
        return self.band_rate

    def set_band_rate(self, band_rate):
        self.band_rate = band_rate
        self.throttle.set_sample_rate(self.band_rate)



def argument_parser():
    description = 'Simulated band, marked as such, to rfvit, shown with what it finds in it.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--frequency", dest="frequency", type=eng_float, default=eng_notation.num_to_str(float(2.14e9)),
        help="Set centre frequency in Hz [default=%(default)r]")
    parser.add_argument(
        "--noise", dest="noise", type=eng_float, default=eng_notation.num_to_str(float(0.01)),
        help="Set noise voltage of the simulated receiver [default=%(default)r]")
    parser.add_argument(
        "--results", dest="results", type=str, default='tcp://127.0.0.1:5558',
        help="Set ZeroMQ address that rfvit publishes results at [default=%(default)r]")
    parser.add_argument(
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(20e6)),
        help="Set samples per second [default=%(default)r]")
    return parser


def main(top_block_cls=live_simulated_gui, options=None):
    if options is None:
        options = argument_parser().parse_args()

    if StrictVersion("4.5.0") <= StrictVersion(Qt.qVersion()) < StrictVersion("5.0.0"):
        style = gr.prefs().get_string('qtgui', 'style', 'raster')
        Qt.QApplication.setGraphicsSystem(style)
    qapp = Qt.QApplication(sys.argv)

    tb = top_block_cls(endpoint=options.endpoint, frequency=options.frequency, noise=options.noise, results=options.results, sample_rate=options.sample_rate)
    snippets_main_after_init(tb)
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
