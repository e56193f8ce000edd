#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: Simulated survey
# Description: Simulated frequency-hopping survey, marked as such, to rfvit over ZeroMQ.
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
from rfvit_radio.hop_plan import HopPlan
from rfvit_radio.sigmf import SigmfSource
from rfvit_radio.simulated import SimulatedTuner


def snipfcn_say_simulated(self):
    print("SIMULATED: these signals are made here from a generated recording; nothing is received.", flush=True)


def snippets_main_after_init(tb):
    snipfcn_say_simulated(tb)


class survey_simulated(gr.top_block):

    def __init__(self, band_frequency=2.14e9, dwell=0.5, endpoint='tcp://127.0.0.1:5555', frequencies='2.135e9,2.143e9', noise=0.01, sample_rate=10e6, settle=0.1, sweeps=1):
        gr.top_block.__init__(self, "Simulated survey", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.band_frequency = band_frequency
        self.dwell = dwell
        self.endpoint = endpoint
        self.frequencies = frequencies
        self.noise = noise
        self.sample_rate = sample_rate
        self.settle = settle
        self.sweeps = sweeps

        ##################################################
        # Variables
        ##################################################
        self.plan = plan = [float(part) for part in frequencies.split(",")]
        self.band_rate = band_rate = 20e6

        ##################################################
        # Blocks
        ##################################################

        self.tuner = SimulatedTuner(band_rate, band_frequency, plan[0], sample_rate)
        self.throttle = blocks.throttle(gr.sizeof_gr_complex*1, band_rate,True)
        self.scene = SigmfSource('', True, False)
        self.marker = blocks.tags_strobe(gr.sizeof_gr_complex*1, pmt.PMT_T, int(sample_rate), pmt.intern("simulated"))
        self.mark_simulated = blocks.tag_share(gr.sizeof_gr_complex, gr.sizeof_gr_complex, 1)
        self.iq_sink = rfvit.IQSink('complex', endpoint, 'pub', 'drop', sample_rate, plan[0], 0.05, 200)
        self.hop_plan = HopPlan(plan, sample_rate, dwell, settle, sweeps)
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
        self.msg_connect((self.hop_plan, 'command'), (self.tuner, 'command'))
        self.connect((self.channel, 0), (self.throttle, 0))
        self.connect((self.hop_plan, 0), (self.mark_simulated, 0))
        self.connect((self.mark_simulated, 0), (self.iq_sink, 0))
        self.connect((self.marker, 0), (self.mark_simulated, 1))
        self.connect((self.scene, 0), (self.channel, 0))
        self.connect((self.throttle, 0), (self.tuner, 0))
        self.connect((self.tuner, 0), (self.hop_plan, 0))


    def get_band_frequency(self):
        return self.band_frequency

    def set_band_frequency(self, band_frequency):
        self.band_frequency = band_frequency

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
        self.tuner.set_frequency(self.plan[0])

    def get_band_rate(self):
        return self.band_rate

    def set_band_rate(self, band_rate):
        self.band_rate = band_rate
        self.throttle.set_sample_rate(self.band_rate)



def argument_parser():
    description = 'Simulated frequency-hopping survey, marked as such, to rfvit over ZeroMQ.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--band-frequency", dest="band_frequency", type=eng_float, default=eng_notation.num_to_str(float(2.14e9)),
        help="Set centre of the simulated band in Hz, 20 MHz wide [default=%(default)r]")
    parser.add_argument(
        "--dwell", dest="dwell", type=eng_float, default=eng_notation.num_to_str(float(0.5)),
        help="Set seconds on each frequency [default=%(default)r]")
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5555',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--frequencies", dest="frequencies", type=str, default='2.135e9,2.143e9',
        help="Set centre frequencies in Hz, with commas [default=%(default)r]")
    parser.add_argument(
        "--noise", dest="noise", type=eng_float, default=eng_notation.num_to_str(float(0.01)),
        help="Set noise voltage of the simulated receiver [default=%(default)r]")
    parser.add_argument(
        "--sample-rate", dest="sample_rate", type=eng_float, default=eng_notation.num_to_str(float(10e6)),
        help="Set samples per second [default=%(default)r]")
    parser.add_argument(
        "--settle", dest="settle", type=eng_float, default=eng_notation.num_to_str(float(0.1)),
        help="Set seconds left out after each retune [default=%(default)r]")
    parser.add_argument(
        "--sweeps", dest="sweeps", type=intx, default=1,
        help="Set times through the list, 0 for ever [default=%(default)r]")
    return parser


def main(top_block_cls=survey_simulated, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(band_frequency=options.band_frequency, dwell=options.dwell, endpoint=options.endpoint, frequencies=options.frequencies, noise=options.noise, sample_rate=options.sample_rate, settle=options.settle, sweeps=options.sweeps)
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
