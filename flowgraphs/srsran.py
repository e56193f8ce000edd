#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: srsRAN over ZeroMQ
# Description: Between an srsRAN eNB or gNB and its UE, which talk over ZeroMQ: passes both ways on, and the downlink to rfvit.
# GNU Radio version: 3.10.5.1

from gnuradio import blocks
from gnuradio import gr
from gnuradio.filter import firdes
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from gnuradio import eng_notation
from gnuradio import rfvit
from gnuradio import zeromq




class srsran(gr.top_block):

    def __init__(self, downlink_from='tcp://127.0.0.1:2000', downlink_to='tcp://127.0.0.1:2100', endpoint='tcp://127.0.0.1:5555', frequency=2.68e9, sample_rate=23.04e6, uplink_from='tcp://127.0.0.1:2001', uplink_to='tcp://127.0.0.1:2101'):
        gr.top_block.__init__(self, "srsRAN over ZeroMQ", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.downlink_from = downlink_from
        self.downlink_to = downlink_to
        self.endpoint = endpoint
        self.frequency = frequency
        self.sample_rate = sample_rate
        self.uplink_from = uplink_from
        self.uplink_to = uplink_to

        ##################################################
        # Blocks
        ##################################################

        self.ue = zeromq.req_source(gr.sizeof_gr_complex, 1, uplink_from, 100, False, (-1))
        self.to_ue = zeromq.rep_sink(gr.sizeof_gr_complex, 1, downlink_to, 100, False, (-1))
        self.to_base_station = zeromq.rep_sink(gr.sizeof_gr_complex, 1, uplink_to, 100, False, (-1))
        self.throttle = blocks.throttle(gr.sizeof_gr_complex*1, sample_rate,True)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, frequency, 0.1, 200)
        self.base_station = zeromq.req_source(gr.sizeof_gr_complex, 1, downlink_from, 100, False, (-1))


        ##################################################
        # Connections
        ##################################################
        self.connect((self.base_station, 0), (self.throttle, 0))
        self.connect((self.throttle, 0), (self.iq_sink, 0))
        self.connect((self.throttle, 0), (self.to_ue, 0))
        self.connect((self.ue, 0), (self.to_base_station, 0))


    def get_downlink_from(self):
        return self.downlink_from

    def set_downlink_from(self, downlink_from):
        self.downlink_from = downlink_from

    def get_downlink_to(self):
        return self.downlink_to

    def set_downlink_to(self, downlink_to):
        self.downlink_to = downlink_to

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_frequency(self):
        return self.frequency

    def set_frequency(self, frequency):
        self.frequency = frequency
        self.iq_sink.set_frequency(self.frequency)

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)
        self.throttle.set_sample_rate(self.sample_rate)

    def get_uplink_from(self):
        return self.uplink_from

    def set_uplink_from(self, uplink_from):
        self.uplink_from = uplink_from

    def get_uplink_to(self):
        return self.uplink_to

    def set_uplink_to(self, uplink_to):
        self.uplink_to = uplink_to



def argument_parser():
    description = 'Between an srsRAN eNB or gNB and its UE, which talk over ZeroMQ: passes both ways on, and the downlink to rfvit.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--downlink-from", dest="downlink_from", type=str, default='tcp://127.0.0.1:2000',
        help="Set the base station's tx_port [default=%(default)r]")
    parser.add_argument(
        "--downlink-to", dest="downlink_to", type=str, default='tcp://127.0.0.1:2100',
        help="Set bound here: the UE's rx_port [default=%(default)r]")
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--frequency", dest="frequency", type=eng_float, default=eng_notation.num_to_str(float(2.68e9)),
        help="Set centre frequency in Hz [default=%(default)r]")
    parser.add_argument(
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(23.04e6)),
        help="Set samples per second [default=%(default)r]")
    parser.add_argument(
        "--uplink-from", dest="uplink_from", type=str, default='tcp://127.0.0.1:2001',
        help="Set the UE's tx_port [default=%(default)r]")
    parser.add_argument(
        "--uplink-to", dest="uplink_to", type=str, default='tcp://127.0.0.1:2101',
        help="Set bound here: the base station's rx_port [default=%(default)r]")
    return parser


def main(top_block_cls=srsran, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(downlink_from=options.downlink_from, downlink_to=options.downlink_to, endpoint=options.endpoint, frequency=options.frequency, sample_rate=options.sample_rate, uplink_from=options.uplink_from, uplink_to=options.uplink_to)

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
