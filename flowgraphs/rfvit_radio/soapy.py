# SPDX-License-Identifier: GPL-3.0-or-later
"""Any radio that SoapySDR has a driver for, told only what was asked for."""

from __future__ import annotations

from gnuradio import gr, soapy


class SoapySource(gr.hier_block2):
    """GNU Radio's SoapySDR source with the device's own defaults where nothing was asked for.

    The stock block sets antenna, bandwidth and gain always, to values that one device knows and another refuses.

    Parameters
    ----------
    device : str
        SoapySDR's arguments, such as ``driver=rtlsdr`` or ``driver=lime,serial=1234``.
    frequency : float
        Centre frequency in Hz.
    sample_rate : float
        Samples per second, in Hz.
    gain : str
        Gain in dB, or ``auto``: the device's automatic gain where it has one, else what it starts with.
    antenna : str
        Its name; empty leaves the device's own choice.
    bandwidth : float
        Of the filter, in Hz; 0 leaves the device's own choice.

    Raises
    ------
    RuntimeError
        If there is no such device, or it refuses; in one line.
    """

    def __init__(
        self,
        device: str = "driver=rtlsdr",
        frequency: float = 100e6,
        sample_rate: float = 2.4e6,
        gain: str = "auto",
        antenna: str = "",
        bandwidth: float = 0.0,
    ) -> None:
        gr.hier_block2.__init__(
            self, "SoapySDR source", gr.io_signature(0, 0, 0), gr.io_signature(1, 1, gr.sizeof_gr_complex)
        )
        try:
            self.source = soapy.source(device, "fc32", 1, "", "", [""], [""])
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"no SoapySDR device matches {device!r} ({error}); is it plugged in, and its driver installed? "
                "SoapySDRUtil --find lists what is there"
            ) from None
        try:
            self._configure(frequency, sample_rate, gain, antenna, bandwidth)
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(f"SoapySDR device {device!r}: {error}") from None
        self.connect(self.source, self)
        self.message_port_register_hier_in("command")
        self.msg_connect(self, "command", self.source, "cmd")

    def set_frequency(self, frequency: float) -> None:
        """Retune."""
        self.source.set_frequency(0, frequency)

    def set_gain(self, gain: str) -> None:
        """Set the gain: dB, or ``auto``."""
        if gain == "auto":
            if self.source.has_gain_mode(0):
                self.source.set_gain_mode(0, True)
            return
        try:
            decibels = float(gain)
        except ValueError:
            raise RuntimeError(f"gain is {gain!r}; expected a number of dB, or auto") from None
        reach = self.source.get_gain_range(0)
        if not reach.minimum() <= decibels <= reach.maximum():
            raise RuntimeError(f"gain is {decibels:g} dB; it has {reach.minimum():g} to {reach.maximum():g} dB")
        if self.source.has_gain_mode(0):
            self.source.set_gain_mode(0, False)
        self.source.set_gain(0, decibels)

    def _configure(self, frequency: float, sample_rate: float, gain: str, antenna: str, bandwidth: float) -> None:
        self.source.set_sample_rate(0, sample_rate)
        if antenna:
            self.source.set_antenna(0, antenna)
        if bandwidth:
            self.source.set_bandwidth(0, bandwidth)
        self.set_frequency(frequency)
        self.set_gain(gain)
