# SPDX-License-Identifier: GPL-3.0-or-later
"""A radio retuned by plan: so many samples on each frequency, and none that were taken while it settled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pmt
from gnuradio import gr
from gnuradio.rfvit.radio_clock import RadioClock, read_clock

from rfvit_radio import tune_command

MOST_HOPS = 100_000
_TIME = pmt.intern("rx_time")


class HopPlan(gr.basic_block):
    """Tunes the radio before it through a list of frequencies, and passes on what belongs to each.

    Counts samples, not seconds: after each command, as many as `settle` says are left out, then as many as `dwell`
    says are passed on, the first of them tagged with ``rx_freq`` and ``rx_rate``. All tags from before are dropped:
    the radio's own ``rx_freq`` says when it was told to retune, not when its samples followed, and its ``rx_time``
    would make every pause for settling look like a loss. What the radio loses while its samples are passed on is told
    by ``rx_time`` on a clock that stands still in these pauses, and begins with the radio's.

    The message output goes to the radio's command input, and to a sink that says the frequency to late listeners.

    Parameters
    ----------
    frequencies : sequence of float
        Centre frequencies in Hz, in order.
    sample_rate : float
        Samples per second, in Hz.
    dwell : float
        Seconds of samples to pass on from each frequency.
    settle : float
        Seconds of samples to leave out after each command: what is on its way in buffers, and the synthesiser's.
    sweeps : int
        Times to go through the list; 0 is for ever.

    Raises
    ------
    RuntimeError
        If the plan is not possible.
    """

    def __init__(
        self, frequencies: Sequence[float] = (100e6,), sample_rate=2.4e6, dwell=0.5, settle=0.1, sweeps: int = 1
    ) -> None:
        gr.basic_block.__init__(self, "Hop Plan", [np.complex64], [np.complex64])
        _check(frequencies, sample_rate, dwell, settle, sweeps)
        self._frequencies = [float(frequency) for frequency in frequencies]
        self._rate = float(sample_rate)
        self._dwell = max(1, round(dwell * sample_rate))
        self._settle = round(settle * sample_rate)
        self._hops = sweeps * len(self._frequencies) or math.inf
        self._hop = 0
        self._skip = 0
        self._left = 0
        self._clock: RadioClock | None = None  # the radio's, at its last stamp
        self._told: RadioClock | None = None  # what was passed on, at its first sample
        self._lost = 0.0  # samples that the radio lost of what is passed on
        self.set_tag_propagation_policy(gr.TPP_DONT)
        self.message_port_register_out(pmt.intern("command"))

    def start(self) -> bool:
        """Tune to the first frequency."""
        self._tune()
        return True

    def forecast(self, noutput_items, ninputs):
        """Take whatever comes."""
        return [1] * ninputs

    def general_work(self, input_items, output_items):
        """Leave out or pass on, up to the next change from one to the other."""
        if self._hop >= self._hops:
            return -1  # the end of the stream, as GNU Radio has it
        samples, out = input_items[0], output_items[0]
        if self._skip:
            count = min(self._skip, len(samples))
            self._follow_clock(count, is_passed=False)
            self._skip -= count
            self.consume(0, count)
            return 0
        count = min(self._left, len(samples), len(out))
        if count and self._left == self._dwell:
            self._add_tags()
        self._follow_clock(count, is_passed=True)
        out[:count] = samples[:count]
        self._left -= count
        self.consume(0, count)
        if not self._left:
            self._hop += 1
            if self._hop < self._hops:
                self._tune()
        return count

    @property
    def _frequency(self) -> float:
        return self._frequencies[self._hop % len(self._frequencies)]

    def _tune(self) -> None:
        # Where the frequency stays, nothing changes and nothing has to settle after the first time.
        if self._hop == 0 or self._frequency != self._frequencies[(self._hop - 1) % len(self._frequencies)]:
            self.message_port_pub(pmt.intern("command"), tune_command(self._frequency))
            self._skip = self._settle
        self._left = self._dwell

    def _follow_clock(self, count: int, is_passed: bool) -> None:
        """Read the radio's time in the next items; tell what it lost among those that are passed on."""
        read, written = self.nitems_read(0), self.nitems_written(0)
        if is_passed and count and self._told is None and self._clock is not None:
            self._begin_clock(written, read)
        for tag in self.get_tags_in_window(0, 0, count, _TIME):
            now = read_clock(tag)
            if now is None:
                continue
            before, self._clock = self._clock, now
            if not is_passed:
                continue
            position = written + now.offset - read
            is_first = now.offset == read and self._left == self._dwell  # what was lost before it is not missed
            if self._told is None:
                self._begin_clock(position, now.offset)
            elif before is not None and not is_first:
                elapsed = (now.seconds - before.seconds) + (now.fraction - before.fraction)
                lost = elapsed * self._rate - (now.offset - before.offset)
                if lost > 0.5:  # less is rounding
                    self._lost += lost
                    self._add_time(position)

    def _begin_clock(self, position: int, offset: int) -> None:
        """Begin the clock of what is passed on with the radio's time at an item."""
        assert self._clock is not None
        fraction = self._clock.fraction + (offset - self._clock.offset) / self._rate
        self._told = RadioClock(position, self._clock.seconds, fraction)
        self._add_time(position)

    def _add_time(self, position: int) -> None:
        assert self._told is not None
        self.add_item_tag(0, position, _TIME, self._told.at(position + self._lost, self._rate))

    def _add_tags(self) -> None:
        for key, value in (("rx_freq", self._frequency), ("rx_rate", self._rate)):
            self.add_item_tag(0, self.nitems_written(0), pmt.intern(key), pmt.from_double(value))


def _check(frequencies: Sequence[float], sample_rate: float, dwell: float, settle: float, sweeps: int) -> None:
    if not 0 < len(frequencies) <= MOST_HOPS:
        raise RuntimeError(f"the hop plan has {len(frequencies)} frequencies; expected 1 to {MOST_HOPS}")
    if not all(math.isfinite(frequency) for frequency in frequencies):
        raise RuntimeError("a frequency of the hop plan is not a finite number of Hz")
    if not 0 < sample_rate < math.inf:
        raise RuntimeError(f"the hop plan's sample rate is {sample_rate:g}; expected more than 0")
    if not 0 < dwell < math.inf or not 0 <= settle < math.inf:
        raise RuntimeError(f"dwell is {dwell:g} s and settle {settle:g} s; expected more than 0, and 0 or more")
    if sweeps < 0:
        raise RuntimeError(f"sweeps is {sweeps}; expected how often to go through the plan, or 0 for ever")
