#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Survey: an RTL-SDR in the network (rtl_tcp)
# Description: Frequency-hopping survey with an RTL-SDR in the network (rtl_tcp), to rfvit over ZeroMQ.
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
from rfvit_radio.hop_plan import HopPlan
from rfvit_radio.rtl_tcp import RtlTcpSource




class survey_rtl_tcp(gr.top_block):

    def __init__(self, dwell=0.5, endpoint='tcp://127.0.0.1:5555', frequencies='806e6,816e6', gain='auto', host='127.0.0.1', port=1234, sample_rate=2.4e6, settle=0.1, sweeps=1):
        gr.top_block.__init__(self, "Survey: an RTL-SDR in the network (rtl_tcp)", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.dwell = dwell
        self.endpoint = endpoint
        self.frequencies = frequencies
        self.gain = gain
        self.host = host
        self.port = port
        self.sample_rate = sample_rate
        self.settle = settle
        self.sweeps = sweeps

        ##################################################
        # Variables
        ##################################################
        self.plan = plan = [float(part) for part in frequencies.split(",")]

        ##################################################
        # Blocks
        ##################################################

        self.radio = RtlTcpSource(host, port, plan[0], sample_rate, gain)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, plan[0], 0.05, 200)
        self.hop_plan = HopPlan(plan, sample_rate, dwell, settle, sweeps)


        ##################################################
        # Connections
        ##################################################
        self.msg_connect((self.hop_plan, 'command'), (self.radio, 'command'))
        self.connect((self.hop_plan, 0), (self.iq_sink, 0))
        self.connect((self.radio, 0), (self.hop_plan, 0))


    def get_dwell(self):
        return self.dwell

    def set_dwell(self, dwell):
        self.dwell = dwell

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_frequencies(self):
        return self.frequencies

    def set_frequencies(self, frequencies):
        self.frequencies = frequencies

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

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)

    def get_settle(self):
        return self.settle

    def set_settle(self, settle):
        self.settle = settle

    def get_sweeps(self):
        return self.sweeps

    def set_sweeps(self, sweeps):
        self.sweeps = sweeps

    def get_plan(self):
        return self.plan

    def set_plan(self, plan):
        self.plan = plan
        self.iq_sink.set_frequency(self.plan[0])
        self.radio.set_frequency(self.plan[0])



def argument_parser():
    description = 'Frequency-hopping survey with an RTL-SDR in the network (rtl_tcp), to rfvit over ZeroMQ.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--dwell", dest="dwell", type=eng_float, default=eng_notation.num_to_str(float(0.5)),
        help="Set seconds on each frequency [default=%(default)r]")
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--frequencies", dest="frequencies", type=str, default='806e6,816e6',
        help="Set centre frequencies in Hz, with commas [default=%(default)r]")
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
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(2.4e6)),
        help="Set samples per second [default=%(default)r]")
    parser.add_argument(
        "--settle", dest="settle", type=eng_float, default=eng_notation.num_to_str(float(0.1)),
        help="Set seconds left out after each retune [default=%(default)r]")
    parser.add_argument(
        "--sweeps", dest="sweeps", type=intx, default=1,
        help="Set times through the list, 0 for ever [default=%(default)r]")
    return parser


def main(top_block_cls=survey_rtl_tcp, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(dwell=options.dwell, endpoint=options.endpoint, frequencies=options.frequencies, gain=options.gain, host=options.host, port=options.port, sample_rate=options.sample_rate, settle=options.settle, sweeps=options.sweeps)

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
