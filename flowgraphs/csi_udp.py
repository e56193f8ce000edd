#!/usr/bin/env python3
# -*- coding: utf-8 -*-

#
# SPDX-License-Identifier: GPL-3.0
#
# GNU Radio Python Flow Graph
# Title: CSI over UDP
# Description: CSI frames that come as UDP packets, to rfvit over ZeroMQ.
# GNU Radio version: 3.10.5.1

from gnuradio import gr
from gnuradio.filter import firdes
from gnuradio.fft import window
import sys
import signal
from argparse import ArgumentParser
from gnuradio.eng_arg import eng_float, intx
from gnuradio import eng_notation
from gnuradio import network
from gnuradio import rfvit
from rfvit_radio.csi_datagrams import CsiDatagrams




class csi_udp(gr.top_block):

    def __init__(self, antennas=1, device='CSI over UDP', endpoint='tcp://127.0.0.1:5556', host='127.0.0.1', port=5500):
        gr.top_block.__init__(self, "CSI over UDP", catch_exceptions=False)

        ##################################################
        # Parameters
        ##################################################
        self.antennas = antennas
        self.device = device
        self.endpoint = endpoint
        self.host = host
        self.port = port

        ##################################################
        # Variables
        ##################################################
        self.subcarriers = subcarriers = [k for k in range(-28, 29) if k]

        ##################################################
        # Blocks
        ##################################################

        self.packets = network.socket_pdu('UDP_SERVER', host, str(port), 65535, False)
        self.frames = CsiDatagrams((antennas * len(subcarriers)))
        self.csi_sink = rfvit.CSISink('pdu', antennas, subcarriers, device, 100.0, endpoint, 'pub')


        ##################################################
        # Connections
        ##################################################
        self.msg_connect((self.frames, 'pdus'), (self.csi_sink, 'pdus'))
        self.msg_connect((self.packets, 'pdus'), (self.frames, 'pdus'))


    def get_antennas(self):
        return self.antennas

    def set_antennas(self, antennas):
        self.antennas = antennas

    def get_device(self):
        return self.device

    def set_device(self, device):
        self.device = device

    def get_endpoint(self):
        return self.endpoint

    def set_endpoint(self, endpoint):
        self.endpoint = endpoint

    def get_host(self):
        return self.host

    def set_host(self, host):
        self.host = host

    def get_port(self):
        return self.port

    def set_port(self, port):
        self.port = port

    def get_subcarriers(self):
        return self.subcarriers

    def set_subcarriers(self, subcarriers):
        self.subcarriers = subcarriers



def argument_parser():
    description = 'CSI frames that come as UDP packets, to rfvit over ZeroMQ.'
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--antennas", dest="antennas", type=intx, default=1,
        help="Set rows of a frame [default=%(default)r]")
    parser.add_argument(
        "--device", dest="device", type=str, default='CSI over UDP',
        help="Set name of the device, as rfvit shall show it [default=%(default)r]")
    parser.add_argument(
        "--endpoint", dest="endpoint", type=str, default='tcp://127.0.0.1:5556',
        help="Set ZeroMQ address that rfvit reads [default=%(default)r]")
    parser.add_argument(
        "--host", dest="host", type=str, default='127.0.0.1',
        help="Set address to listen at, 0.0.0.0 for all [default=%(default)r]")
    parser.add_argument(
        "--port", dest="port", type=intx, default=5500,
        help="Set UDP port to listen at [default=%(default)r]")
    return parser


def main(top_block_cls=csi_udp, options=None):
    if options is None:
        options = argument_parser().parse_args()
    tb = top_block_cls(antennas=options.antennas, device=options.device, endpoint=options.endpoint, host=options.host, port=options.port)

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
