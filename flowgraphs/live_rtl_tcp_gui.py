#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Live: an RTL-SDR in the network, with waterfall
# Description: Live samples of an RTL-SDR in the network, to rfvit, shown with what it finds in them.
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
from gnuradio import eng_notation
from gnuradio import rfvit
from gnuradio import gr
from gnuradio.filter import firdes
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from rfvit_radio.rtl_tcp import RtlTcpSource



from gnuradio import qtgui

class live_rtl_tcp_gui(gr.top_block, Qt.QWidget):

    def __init__(self, endpoint='tcp://127.0.0.1:5555', frequency=806e6, gain='auto', host='127.0.0.1', port=1234, results='tcp://127.0.0.1:5558', sample_rate=2.4e6):
        gr.top_block.__init__(self, "Live: an RTL-SDR in the network, with waterfall", catch_exceptions=False)
        Qt.QWidget.__init__(self)
        self.setWindowTitle("Live: an RTL-SDR in the network, with waterfall")
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

        self.settings = Qt.QSettings("GNU Radio", "live_rtl_tcp_gui")

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
        self.gain = gain
        self.host = host
        self.port = port
        self.results = results
        self.sample_rate = sample_rate

        ##################################################
        # Variables
        ##################################################
        self.tuned = tuned = frequency

        ##################################################
        # Blocks
        ##################################################

        self._tuned_tool_bar = Qt.QToolBar(self)
        self._tuned_tool_bar.addWidget(Qt.QLabel("Centre frequency (Hz)" + ": "))
        self._tuned_line_edit = Qt.QLineEdit(str(self.tuned))
        self._tuned_tool_bar.addWidget(self._tuned_line_edit)
        self._tuned_line_edit.returnPressed.connect(
            lambda: self.set_tuned(eng_notation.str_to_num(str(self._tuned_line_edit.text()))))
        self.top_grid_layout.addWidget(self._tuned_tool_bar, 0, 0, 1, 1)
        for r in range(0, 1):
            self.top_grid_layout.setRowStretch(r, 1)
        for c in range(0, 1):
            self.top_grid_layout.setColumnStretch(c, 1)
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
        self.radio = RtlTcpSource(host, port, tuned, sample_rate, gain)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, frequency, 0.1, 200)


        ##################################################
        # Connections
        ##################################################
        self.connect((self.radio, 0), (self.iq_sink, 0))
        self.connect((self.radio, 0), (self.waterfall, 0))


    def closeEvent(self, event):
        self.settings = Qt.QSettings("GNU Radio", "live_rtl_tcp_gui")
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
        self.set_tuned(self.frequency)
        self.iq_sink.set_frequency(self.frequency)
        self.waterfall.set_frequency(self.frequency)

    def get_gain(self):
        return self.gain

    def set_gain(self, gain):
        self.gain = gain
        self.radio.set_gain(self.gain)

    def get_host(self):
        return self.host

    def set_host(self, host):
        self.host = host

    def get_port(self):
        return self.port

    def set_port(self, port):
        self.port = port

    def get_results(self):
        return self.results

    def set_results(self, results):
        self.results = results

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)
        self.waterfall.set_sample_rate(self.sample_rate)

    def get_tuned(self):
        return self.tuned

    def set_tuned(self, tuned):
        self.tuned = tuned
        Qt.QMetaObject.invokeMethod(self._tuned_line_edit, "setText", Qt.Q_ARG("QString", eng_notation.num_to_str(self.tuned)))
        self.radio.set_frequency(self.tuned)



def argument_parser():
    description = 'Live samples of an RTL-SDR in the network, to rfvit, shown with what it finds in them.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--frequency", dest="frequency", type=eng_float, default=eng_notation.num_to_str(float(806e6)),
        help="Set centre frequency in Hz [default=%(default)r]")
    parser.add_argument(
        "--gain", dest="gain", type=str, default='auto',
        help="Set gain in dB, or auto [default=%(default)r]")
    parser.add_argument(
        "--host", dest="host", type=str, default='127.0.0.1',
        help="Set host of the rtl_tcp server [default=%(default)r]")
    parser.add_argument(
        "--port", dest="port", type=intx, default=1234,
        help="Set port of the rtl_tcp server [default=%(default)r]")
    parser.add_argument(
        "--results", dest="results", type=str, default='tcp://127.0.0.1:5558',
        help="Set ZeroMQ address that rfvit publishes results at [default=%(default)r]")
    parser.add_argument(
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(2.4e6)),
        help="Set samples per second [default=%(default)r]")
    return parser


def main(top_block_cls=live_rtl_tcp_gui, options=None):
    if options is None:
        options = argument_parser().parse_args()

    if StrictVersion("4.5.0") <= StrictVersion(Qt.qVersion()) < StrictVersion("5.0.0"):
        style = gr.prefs().get_string('qtgui', 'style', 'raster')
        Qt.QApplication.setGraphicsSystem(style)
    qapp = Qt.QApplication(sys.argv)

    tb = top_block_cls(endpoint=options.endpoint, frequency=options.frequency, gain=options.gain, host=options.host, port=options.port, results=options.results, sample_rate=options.sample_rate)

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
