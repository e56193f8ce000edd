# SPDX-License-Identifier: GPL-3.0-or-later
"""A radio that is not there: tunes within a band that is simulated, as a real one would within the air."""

from __future__ import annotations

import pmt
from gnuradio import filter as gr_filter
from gnuradio import gr
from gnuradio.fft import window

from rfvit_radio import tuned_frequency

PASS_BAND = 0.8  # of the output's sample rate: a receiver's filter falls off towards the edges


class SimulatedTuner(gr.hier_block2):
    """Takes a part of a simulated band, at a lower sample rate if need be.

    Parameters
    ----------
    band_rate : float
        Samples per second of the whole band, in Hz.
    band_frequency : float
        Its centre frequency in Hz.
    frequency : float
        Centre frequency to tune to, in Hz.
    sample_rate : float
        Samples per second to give, in Hz; the band's divided by a whole number.

    Raises
    ------
    RuntimeError
        If it cannot be tuned there, or does not give that rate.
    """

    def __init__(
        self,
        band_rate: float = 20e6,
        band_frequency: float = 2.14e9,
        frequency: float = 2.14e9,
        sample_rate: float = 20e6,
    ) -> None:
        gr.hier_block2.__init__(
            self,
            "Simulated tuner",
            gr.io_signature(1, 1, gr.sizeof_gr_complex),
            gr.io_signature(1, 1, gr.sizeof_gr_complex),
        )
        decimation = round(band_rate / sample_rate)
        if decimation < 1 or abs(band_rate / decimation - sample_rate) > 1e-6 * sample_rate:
            raise RuntimeError(
                f"the simulated band gives {band_rate / 1e6:g} MS/s or a whole fraction of it, "
                f"not {sample_rate / 1e6:g} MS/s; the nearest is {band_rate / max(1, decimation) / 1e6:g} MS/s"
            )
        self.failure: str | None = None
        self._band_frequency = band_frequency
        self._reach = band_rate / 2
        taps = [1.0]
        if decimation > 1:
            edge = PASS_BAND * sample_rate / 2
            taps = gr_filter.firdes.low_pass(1.0, band_rate, edge, sample_rate - 2 * edge, window.WIN_BLACKMAN_HARRIS)
        self._filter = gr_filter.freq_xlating_fir_filter_ccf(decimation, taps, 0.0, band_rate)
        self.set_frequency(frequency)
        self._commands = _Commands(self)
        self.connect(self, self._filter, self)
        self.message_port_register_hier_in("command")
        self.msg_connect(self, "command", self._commands, "command")

    def set_frequency(self, frequency: float) -> None:
        """Retune."""
        offset = frequency - self._band_frequency
        if abs(offset) > self._reach:
            raise RuntimeError(
                f"the simulated band reaches from {(self._band_frequency - self._reach) / 1e6:g} to "
                f"{(self._band_frequency + self._reach) / 1e6:g} MHz; {frequency / 1e6:g} MHz is outside"
            )
        self._filter.set_center_freq(offset)


class _Commands(gr.basic_block):
    """Hands a hierarchical block the messages that its port gets, which only a plain block can read."""

    def __init__(self, tuner: SimulatedTuner) -> None:
        gr.basic_block.__init__(self, "Commands", None, None)
        self._tuner = tuner
        self.message_port_register_in(pmt.intern("command"))
        self.set_msg_handler(pmt.intern("command"), self._take)

    def _take(self, message) -> None:
        frequency = tuned_frequency(message)
        if frequency is None:
            return
        try:
            self._tuner.set_frequency(frequency)
        except RuntimeError as error:
            self._tuner.failure = str(error)
            gr.log.error(self._tuner.failure)
