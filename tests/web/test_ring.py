# SPDX-License-Identifier: Apache-2.0
"""The samples that can still be saved: the newest, none copied, none twice, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.web.ring import IQRing, default_bytes

RATE = 1000.0


def block(start: int, count: int = 100, rate: float = RATE, radio_lost: int = 0) -> IQBlock:
    return IQBlock(np.arange(start, start + count).astype(np.complex64), start, rate, 1e9, radio_lost)


def test_the_newest_samples() -> None:
    ring = IQRing(seconds=1.0)
    assert ring.last(1.0) is None
    assert ring.held is None
    for start in range(0, 5000, 100):
        ring.add(block(start))
    assert ring.held == (4000, 5000)
    snapshot = ring.last(0.25)
    assert snapshot is not None
    assert (snapshot.sample_start, snapshot.sample_end, snapshot.sample_count) == (4750, 5000, 250)
    np.testing.assert_array_equal(np.concatenate([part.samples for part in snapshot.blocks]), np.arange(4750, 5000))
    everything = ring.last(float("inf"))
    assert everything is not None
    assert everything.sample_count == 1000


def test_a_block_that_reaches_into_the_last_seconds_is_kept() -> None:
    ring = IQRing(seconds=0.15)
    for start in range(0, 1000, 100):
        ring.add(block(start))
    snapshot = ring.last(0.15)
    assert snapshot is not None
    assert (snapshot.sample_start, snapshot.sample_count) == (850, 150)


def test_samples_are_held_not_copied() -> None:
    ring, given = IQRing(), block(0)
    ring.add(given)
    snapshot = ring.last(10.0)
    assert snapshot is not None
    assert np.shares_memory(snapshot.blocks[0].samples, given.samples)


def test_memory_is_bounded_whatever_the_rate() -> None:
    ring = IQRing(seconds=10.0, most_bytes=8 * 500)
    assert ring.seconds_at(RATE) == 0.5
    for start in range(0, 5000, 100):
        ring.add(block(start))
    snapshot = ring.last(10.0)
    assert snapshot is not None
    assert snapshot.sample_count == 500


def test_losses_are_kept_and_not_counted_as_samples() -> None:
    ring = IQRing()
    for start in (0, 100, 500, 600):
        ring.add(block(start))
    snapshot = ring.last(0.3)
    assert snapshot is not None
    assert (snapshot.sample_start, snapshot.sample_end, snapshot.sample_count) == (100, 700, 300)


@pytest.mark.parametrize("later", [block(0), block(200, rate=2 * RATE)], ids=["begins anew", "another rate"])
def test_what_no_recording_can_hold_together_is_let_go(later: IQBlock) -> None:
    ring = IQRing()
    ring.add(block(0))
    ring.add(block(100))
    ring.add(later)
    snapshot = ring.last(10.0)
    assert snapshot is not None
    assert list(snapshot.blocks) == [later]


def test_a_machine_is_never_filled() -> None:
    assert 2**20 < default_bytes() <= 2 * 2**30
