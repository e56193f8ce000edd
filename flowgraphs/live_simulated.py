#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Simulated band
# Description: Simulated band, marked as such: LTE and NR through a channel, with noise, to rfvit over ZeroMQ.
# GNU Radio version: 3.10.5.1

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
from gnuradio import rfvit
from rfvit_radio.sigmf import SigmfSource
from rfvit_radio.simulated import SimulatedTuner


def snipfcn_say_simulated(self):
    print("SIMULATED: these signals are made here from a generated recording; nothing is received.", flush=True)


def snippets_main_after_init(tb):
    snipfcn_say_simulated(tb)


class live_simulated(gr.top_block):

    def __init__(self, endpoint='tcp://127.0.0.1:5555', frequency=2.14e9, noise=0.01, sample_rate=20e6):
        gr.top_block.__init__(self, "Simulated band", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.endpoint = endpoint
        self.frequency = frequency
        self.noise = noise
        self.sample_rate = sample_rate

        ##################################################
        # Variables
        ##################################################
        self.band_rate = band_rate = 20e6

        ##################################################
        # Blocks
        ##################################################

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
        self.connect((self.marker, 0), (self.mark_simulated, 1))
        self.connect((self.scene, 0), (self.channel, 0))
        self.connect((self.throttle, 0), (self.tuner, 0))
        self.connect((self.tuner, 0), (self.mark_simulated, 0))


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

    def get_noise(self):
        return self.noise

    def set_noise(self, noise):
        self.noise = noise
        self.channel.set_noise_voltage(self.noise)

    def get_sample_rate(self):
        return self.sample_rate

    def set_sample_rate(self, sample_rate):
        self.sample_rate = sample_rate
        self.iq_sink.set_sample_rate(self.sample_rate)
        self.marker.set_nsamps(int(self.sample_rate))

    def get_band_rate(self):
        return self.band_rate

    def set_band_rate(self, band_rate):
        self.band_rate = band_rate
        self.throttle.set_sample_rate(self.band_rate)



def argument_parser():
    description = 'Simulated band, marked as such: LTE and NR through a channel, with noise, to rfvit over ZeroMQ.'
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
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(20e6)),
        help="Set samples per second [default=%(default)r]")
    return parser


def main(top_block_cls=live_simulated, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(endpoint=options.endpoint, frequency=options.frequency, noise=options.noise, sample_rate=options.sample_rate)
    snippets_main_after_init(tb)
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
