# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.errors import StreamError
from rfvit_rt.sources.ring import BlockRing

from .ramps import RATE, ramp


def block(start: int, count: int, radio_lost: int = 0) -> IQBlock:
    return IQBlock(ramp(start, count), start, RATE, None, radio_lost)


def test_ring_drops_the_oldest_and_keeps_what_the_radio_lost() -> None:
    ring = BlockRing(25, drop_oldest=True)
    dropped = [ring.put([block(start, 10, radio_lost=start)]) for start in range(0, 50, 10)]
    assert dropped == [0, 0, 10, 10, 10]
    assert ring.put([block(50, 100, radio_lost=1)]) == 20
    survivor = ring.get(0)
    assert survivor is not None
    assert (survivor.sample_start, survivor.radio_lost) == (50, 10 + 20 + 30 + 40 + 1)


def test_ring_hands_over_what_it_holds_before_a_failure() -> None:
    ring = BlockRing(100, drop_oldest=False)
    ring.put([block(0, 10)])
    ring.finish(StreamError("gone"))
    assert ring.get(0) is not None
    assert not ring.finished
    with pytest.raises(StreamError, match="gone"):
        ring.get(0)
    assert ring.finished


def test_closing_wakes_a_full_ring() -> None:
    ring = BlockRing(10, drop_oldest=False)
    ring.put([block(0, 10)])
    waiting = threading.Thread(target=ring.put, args=([block(10, 10), block(20, 10)],), daemon=True)
    waiting.start()
    ring.close()
    waiting.join(timeout=30)
    assert not waiting.is_alive()
