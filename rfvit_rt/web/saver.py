# SPDX-License-Identifier: Apache-2.0
"""When what is saved: samples as soon as their boxes are final, corrections of a recording soon after each of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rfvit_rt.contract import ModelFile
from rfvit_rt.errors import RfvitError, WireError
from rfvit_rt.figures import Figures, SegmentationFigures
from rfvit_rt.web.board import Board
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.saving import CorrectedCopy, Origin, save_samples

FINAL_SECONDS = 1.2
"""Stream time after which no box that began before is still to come: pieces of 1 s, and what joins them."""

PATIENCE = 10.0  # s to wait for boxes to be final; a stream may have fallen silent
SECONDS_BETWEEN = 2.0  # two recordings
GATHERING_SECONDS = 0.3  # corrections that come together are written together


class Saver:
    """Writes what people want to keep; belongs to the server's thread, and does the writing in others.

    Parameters
    ----------
    board : Board
    ring : IQRing
    folder : Path
        Where recordings are saved.
    title : str
        Where the samples come from.
    model : ModelFile
        What finds the boxes.
    copy : CorrectedCopy or None
        Where corrections go if a recording is looked at; None keeps those of a stream until samples are saved.
    """

    def __init__(
        self, board: Board, ring: IQRing, folder: Path, title: str, model: ModelFile, copy: CorrectedCopy | None
    ) -> None:
        self._board = board
        self._ring = ring
        self._folder = folder
        self._title = title
        self._model = model
        self._copy = copy
        self._is_saving = False
        self._saved_at = -SECONDS_BETWEEN
        self._is_unsaved = False  # whether there are corrections that no file has
        self._gathering: asyncio.Task[None] | None = None
        self._copying = asyncio.Lock()

    def begin_saving(self) -> None:
        """Note that samples are about to be saved.

        Raises
        ------
        WireError
            If that is done already, or was a moment ago.
        """
        if self._is_saving:
            raise WireError("a recording is being saved; wait until that is done")
        if time.monotonic() - self._saved_at < SECONDS_BETWEEN:
            raise WireError(f"a recording was saved just now; wait {SECONDS_BETWEEN:g} s")
        self._is_saving = True

    async def save(self, seconds: float, figures: Figures) -> None:
        """Save the last samples, and tell all pages; after :meth:`begin_saving`."""
        try:
            await self._save(seconds, figures)
        except RfvitError as error:
            self._board.tell("error", message=str(error))
        finally:
            self._is_saving = False
            self._saved_at = time.monotonic()

    async def _save(self, seconds: float, figures: Figures) -> None:
        snapshot = await asyncio.to_thread(self._ring.last, seconds)
        if snapshot is None:
            raise WireError("there are no samples yet; wait until some came")
        held, rate = snapshot.sample_count / snapshot.sample_rate, snapshot.sample_rate
        is_final = await self._wait_until(snapshot.sample_end + round(FINAL_SECONDS * rate))
        boxes = self._board.boxes.between(snapshot.sample_start, snapshot.sample_end)
        self._is_unsaved = False
        simulated = isinstance(figures, SegmentationFigures) and figures.simulated
        model = f"{self._model.contract.name}@{self._model.sha256[:12]}"
        origin = Origin(self._title, bool(figures.recorded), simulated, model)
        try:
            path, count = await asyncio.to_thread(save_samples, self._folder, snapshot, boxes, origin)
        except RfvitError:
            self._is_unsaved = True
            raise
        remarks = []
        if held < seconds - 0.5 / rate:
            remarks.append(f"{held:.3g} s were held, of the {seconds:g} s asked for")
        if not is_final:
            remarks.append("boxes at its end may be missing")
        self._board.tell("saved", kind="recording", path=str(path), count=count, message="; ".join(remarks))

    async def _wait_until(self, position: int) -> bool:
        """Wait until all boxes before a position are known; return whether they are."""
        deadline = time.monotonic() + PATIENCE
        while not self._board.ended and self._board.clock.position < position:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    def note_correction(self) -> None:
        """Take up that a box was corrected."""
        self._is_unsaved = True
        if self._copy is not None and self._gathering is None:
            self._gathering = asyncio.create_task(self._copy_soon())

    async def _copy_soon(self) -> None:
        await asyncio.sleep(GATHERING_SECONDS)
        self._gathering = None
        await self._write_copy()

    async def _write_copy(self) -> None:
        assert self._copy is not None
        async with self._copying:
            self._is_unsaved = False
            try:
                if self._board.boxes.forgotten:
                    raise WireError("there are more boxes than can be held; corrections of so many are not written")
                boxes, is_over, seconds = list(self._board.boxes), self._board.ended, self._board.clock.now
                contract = self._model.contract
                path, count = await asyncio.to_thread(self._copy.write, boxes, contract.name, self._model.sha256)
            except RfvitError as error:
                self._board.tell("error", message=str(error))
                return
            remark = "" if is_over else f"boxes up to {seconds:.1f} s; the others follow when the run is over"
            self._board.tell("saved", kind="corrections", path=str(path), count=count, message=remark)

    async def finish(self) -> None:
        """Write the corrections of a recording with the boxes that came after them; to be called at the run's end."""
        if self._copy is not None and self._board.boxes.corrections:
            await self._write_copy()

    async def rescue(self, seconds: float, figures: Figures) -> None:
        """Write what was corrected and not saved, before it is gone; to be called before the server stops."""
        if not self._is_unsaved:
            return
        if self._copy is not None:
            await self._write_copy()
        elif not self._is_saving:
            self._is_saving = True
            await self.save(seconds, figures)
