#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Replay a recording
# Description: Replay a SigMF recording to rfvit over ZeroMQ, without loss.
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
from rfvit_radio.sigmf import SigmfSource
from rfvit_radio.sigmf import sample_rate_of




class replay(gr.top_block):

    def __init__(self, endpoint='tcp://127.0.0.1:5555', recording='', speed=1.0):
        gr.top_block.__init__(self, "Replay a recording", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.endpoint = endpoint
        self.recording = recording
        self.speed = speed

        ##################################################
        # Variables
        ##################################################
        self.sample_rate = sample_rate = sample_rate_of(recording)

        ##################################################
        # Blocks
        ##################################################

        self.throttle = blocks.throttle(gr.sizeof_gr_complex*1, (sample_rate * speed),True)
        self.recorded = SigmfSource(recording, False, True)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'push', 'block', sample_rate, None, 0.1, 8)


        ##################################################
        # Connections
        ##################################################
        self.connect((self.recorded, 0), (self.throttle, 0))
        self.connect((self.throttle, 0), (self.iq_sink, 0))


    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_recording(self):
        return self.recording

    def set_recording(self, recording):
        self.recording = recording
        self.set_sample_rate(sample_rate_of(self.recording))

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



def argument_parser():
    description = 'Replay a SigMF recording to rfvit over ZeroMQ, without loss.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--recording", dest="recording", type=str, default='',
        help="Set SigMF metadata file, empty for the example [default=%(default)r]")
    parser.add_argument(
        "--speed", dest="speed", type=eng_float, default=eng_notation.num_to_str(float(1.0)),
        help="Set multiple of real time [default=%(default)r]")
    return parser


def main(top_block_cls=replay, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(endpoint=options.endpoint, recording=options.recording, speed=options.speed)

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
