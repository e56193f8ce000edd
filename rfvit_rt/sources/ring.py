# SPDX-License-Identifier: Apache-2.0
"""The bounded store of blocks between the thread that receives a stream and the reader of its blocks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from rfvit_rt.datatypes import IQBlock


class BlockRing:
    """Blocks between one receiving thread and one reader, bounded by their samples.

    Parameters
    ----------
    capacity : int
        Most samples held; a single block may be larger.
    drop_oldest : bool
        Make room by dropping the oldest blocks instead of waiting for the reader.
    """

    def __init__(self, capacity: int, drop_oldest: bool) -> None:
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._blocks: deque[IQBlock] = deque()
        self._held = 0
        self._dropped_loss = 0
        self._changed = threading.Condition()
        self._done = False
        self._failure: Exception | None = None
        self.closed = False

    @property
    def finished(self) -> bool:
        """Whether nothing more will come out, not even a failure."""
        with self._changed:
            return self._done and not self._blocks and self._failure is None

    def put(self, blocks: Sequence[IQBlock]) -> int:
        """Add blocks, and return how many samples were dropped for them. After ``close()`` they go nowhere."""
        dropped = 0
        with self._changed:
            for block in blocks:
                dropped += self._make_room(len(block.samples))
                if self.closed:
                    break
                self._blocks.append(block)
                self._held += len(block.samples)
                self._report_dropped_loss()
            self._changed.notify_all()
        return dropped

    def get(self, timeout: float) -> IQBlock | None:
        """Return the oldest block; None if none came within ``timeout`` seconds or none will.

        Raises
        ------
        Exception
            What :meth:`finish` was given, once all blocks are read.
        """
        with self._changed:
            if not self._blocks and not self._done:
                self._changed.wait(timeout)
            if self._blocks:
                self._changed.notify_all()
                return self._pop()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            return None

    def finish(self, failure: Exception | None = None) -> None:
        """Say that no more blocks will come, and why."""
        with self._changed:
            self._done = True
            self._failure = None if self.closed else failure
            self._changed.notify_all()

    def close(self) -> None:
        """Wake and turn away the receiving thread; blocks and failures not yet read are gone."""
        with self._changed:
            self.closed = self._done = True
            self._blocks.clear()
            self._held = 0
            self._changed.notify_all()

    def _make_room(self, size: int) -> int:
        dropped = 0
        while self._blocks and self._held + size > self._capacity:
            if self._drop_oldest:
                block = self._pop()
                dropped += len(block.samples)
                self._dropped_loss += block.radio_lost
            else:
                self._changed.notify_all()
                self._changed.wait()
        return dropped

    def _report_dropped_loss(self) -> None:
        """What the radio lost before blocks that are dropped now happened before the block that is the oldest."""
        if self._dropped_loss:
            oldest = self._blocks[0]
            self._blocks[0] = replace(oldest, radio_lost=oldest.radio_lost + self._dropped_loss)
            self._dropped_loss = 0

    def _pop(self) -> IQBlock:
        block = self._blocks.popleft()
        self._held -= len(block.samples)
        return block
