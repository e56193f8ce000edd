# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks that the flowgraphs of this folder need and GNU Radio does not have; their GRC descriptions are in ``grc/``.

Everything a radio can be told while it runs comes as a message ``{freq: Hz}``, the form that UHD's and SoapySDR's
sources take as well, so that one hop plan serves them all.
"""

from __future__ import annotations

import pmt

FREQUENCY_KEY = pmt.intern("freq")


def tune_command(frequency: float) -> pmt.pmt_base:
    """Message that tunes a radio to a centre frequency in Hz."""
    return pmt.dict_add(pmt.make_dict(), FREQUENCY_KEY, pmt.from_double(frequency))


def tuned_frequency(message: pmt.pmt_base) -> float | None:
    """Centre frequency in Hz that a message asks for; None where it is about something else."""
    if not pmt.is_dict(message):
        return None
    value = pmt.dict_ref(message, FREQUENCY_KEY, pmt.PMT_NIL)
    return pmt.to_double(value) if pmt.is_number(value) and not pmt.is_complex(value) else None
