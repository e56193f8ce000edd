#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Live: any SoapySDR radio: RTL-SDR, HackRF, LimeSDR, Pluto
# Description: Live samples of any SoapySDR radio: RTL-SDR, HackRF, LimeSDR, Pluto, to rfvit over ZeroMQ.
# GNU Radio version: 3.10.5.1

from gnuradio import gr
from gnuradio.filter import firdes
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from gnuradio import eng_notation
from gnuradio import rfvit
from rfvit_radio.soapy import SoapySource




class live_soapy(gr.top_block):

    def __init__(self, antenna='', bandwidth=0, device='driver=rtlsdr', endpoint='tcp://127.0.0.1:5555', frequency=806e6, gain='auto', sample_rate=2.4e6):
        gr.top_block.__init__(self, "Live: any SoapySDR radio: RTL-SDR, HackRF, LimeSDR, Pluto", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.antenna = antenna
        self.bandwidth = bandwidth
        self.device = device
        self.endpoint = endpoint
        self.frequency = frequency
        self.gain = gain
        self.sample_rate = sample_rate

        ##################################################
        # Blocks
        ##################################################

        self.radio = SoapySource(device, frequency, sample_rate, gain, antenna, bandwidth)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, frequency, 0.1, 200)


        ##################################################
        # Connections
        ##################################################
        self.connect((self.radio, 0), (self.iq_sink, 0))


    def get_antenna(self):
        return self.antenna

    def set_antenna(self, antenna):
        self.antenna = antenna

    def get_bandwidth(self):
        return self.bandwidth

    def set_bandwidth(self, bandwidth):
        self.bandwidth = bandwidth

    def get_device(self):
        return self.device

    def set_device(self, device):
        self.device = device

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_frequency(self):
        return self.frequency

    def set_frequency(self, frequency):
        self.frequency = frequency
        self.iq_sink.set_frequency(self.frequency)
        self.radio.set_frequency(self.frequency)

    def get_gain(self):
        return self.gain

    def set_gain(self, gain):
        self.gain = gain
        self.radio.set_gain(self.gain)

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)



def argument_parser():
    description = 'Live samples of any SoapySDR radio: RTL-SDR, HackRF, LimeSDR, Pluto, to rfvit over ZeroMQ.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--antenna", dest="antenna", type=str, default='',
        help="Set name of the antenna port, empty for the default [default=%(default)r]")
    parser.add_argument(
        "--bandwidth", dest="bandwidth", type=eng_float, default=eng_notation.num_to_str(float(0)),
        help="Set filter in Hz, 0 for the default [default=%(default)r]")
    parser.add_argument(
        "--device", dest="device", type=str, default='driver=rtlsdr',
        help="Set SoapySDR device arguments [default=%(default)r]")
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
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(2.4e6)),
        help="Set samples per second [default=%(default)r]")
    return parser


def main(top_block_cls=live_soapy, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(antenna=options.antenna, bandwidth=options.bandwidth, device=options.device, endpoint=options.endpoint, frequency=options.frequency, gain=options.gain, sample_rate=options.sample_rate)

    def sig_handler(sig=None, frame=None):
        tb.stop()
        tb.wait()

        sys.exit(0)

    signal.signal(signal.SIGINT, sig_handler)
    signal.signal(signal.SIGTERM, sig_handler)

    tb.start()

    tb.wait()


if __name__ == '__main__':
    main()
