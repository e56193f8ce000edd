# SPDX-License-Identifier: GPL-3.0-or-later
"""CSI that comes as plain numbers in UDP packets."""

from __future__ import annotations

import numpy as np
import pmt
from gnuradio import gr


class CsiDatagrams(gr.basic_block):
    """PDUs of bytes, one packet each, to PDUs of complex numbers, one CSI frame each.

    A packet is float32 real and imaginary, little-endian, of every subcarrier, antenna by antenna, and nothing else.
    One of another length is no frame; it is dropped and counted.

    Parameters
    ----------
    values : int
        Complex numbers in a frame: antennas times subcarriers.
    """

    def __init__(self, values: int = 56) -> None:
        gr.basic_block.__init__(self, "CSI Datagrams", None, None)
        self._values = values
        self._refused = 0
        self._port = pmt.intern("pdus")
        self.message_port_register_in(self._port)
        self.set_msg_handler(self._port, self._take)
        self.message_port_register_out(self._port)

    def refused(self) -> int:
        """Return the number of packets so far that were no frame."""
        return self._refused

    def _take(self, pdu) -> None:
        packet = pmt.cdr(pdu) if pmt.is_pair(pdu) else pmt.PMT_NIL
        raw = bytes(pmt.u8vector_elements(packet)) if pmt.is_u8vector(packet) else b""
        if len(raw) != 8 * self._values:
            self._refused += 1
            if self._refused == 1:
                gr.logger("CSI Datagrams").warn(
                    f"a packet has {len(raw)} bytes, a frame of {self._values} values has {8 * self._values}: dropped"
                )
            return
        values = np.frombuffer(raw, "<c8").astype(np.complex64)
        self.message_port_pub(self._port, pmt.cons(pmt.car(pdu), pmt.init_c32vector(len(values), values.tolist())))
