# SPDX-License-Identifier: GPL-3.0-or-later
"""The radio's time, as ``rx_time`` tags have it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pmt


class RadioClock(NamedTuple):
    """The radio's time at one sample: its position, full seconds, and the fraction of one."""

    offset: int
    seconds: int
    fraction: float

    def at(self, offset: float, sample_rate: float) -> Any:
        """The time at a later sample, or between two, as the value of an ``rx_time`` tag."""
        later = self.fraction + (offset - self.offset) / sample_rate
        whole = math.floor(later)
        return pmt.make_tuple(pmt.from_uint64(self.seconds + whole), pmt.from_double(later - whole))


def read_clock(tag: Any) -> RadioClock | None:
    """Return the time that an ``rx_time`` tag says; None if it is none, which its reader will complain of."""
    if not pmt.is_tuple(tag.value) or pmt.length(tag.value) != 2:
        return None
    seconds, fraction = pmt.tuple_ref(tag.value, 0), pmt.tuple_ref(tag.value, 1)
    if not pmt.is_uint64(seconds) or not pmt.is_real(fraction):
        return None
    return RadioClock(tag.offset, pmt.to_uint64(seconds), pmt.to_double(fraction))
