# SPDX-License-Identifier: Apache-2.0
"""What people correct and keep, and when that is written: nothing that somebody said is lost with the samples."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rfvit_rt.contract import ModelFile
from rfvit_rt.errors import RfvitError, WireError
from rfvit_rt.web.board import Board
from rfvit_rt.web.protocol import Box, Correct, Delete, Save
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.saving import CorrectedCopy, Origin, save_samples

FINAL_SECONDS = 1.2
"""Stream time after which no box that began before is still to come: pieces of 1 s, and what joins them."""

PATIENCE = 10.0  # s to wait for boxes to be final; a stream may have fallen silent
SECONDS_BETWEEN = 2.0  # two recordings
GATHERING_SECONDS = 0.3  # corrections that come together are written together
SECONDS_LEFT = 2.5  # before a stream's samples with unsaved corrections are let go, they are saved
MARGIN = 0.5  # s of samples that are saved before a correction, so that it has surroundings to learn from
MOST_TARGETS = 64  # recordings saved last whose boxes can still be corrected


class _File(Protocol):
    """A file with annotations that can be written anew."""

    @property
    def path(self) -> Path: ...

    def write(self, boxes: list[Box]) -> int: ...


@dataclass(frozen=True, eq=False)
class _Target:
    """Where corrections of a stretch of time go, in s of the stream."""

    file: _File
    time_start: float
    time_end: float

    def has(self, span: _Span) -> bool:
        return span[0] < self.time_end and span[1] > self.time_start


_Span = tuple[float, float]  # s of the stream


class Saver:
    """Takes corrections and wishes to save; belongs to the server's thread, and does the writing in others.

    Corrections of a recording go to a copy of its metadata. Those of a stream go to the recordings that were saved from
    it; samples with corrections that no recording has yet are saved before they are let go.

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
        Where corrections go if a recording is looked at.

    Attributes
    ----------
    written : dict of Path to int
        Annotations in each file that was written.
    problems : dict of object to str
        Why corrections are not in the file that they should be in.
    lost : int
        Corrections that no file was made for.
    """

    def __init__(
        self, board: Board, ring: IQRing, folder: Path, title: str, model: ModelFile, copy: CorrectedCopy | None
    ) -> None:
        self.written: dict[Path, int] = {}
        self.problems: dict[object, str] = {}
        self.lost = 0
        self._board = board
        self._ring = ring
        self._folder = folder
        self._title = title
        self._model = f"{model.contract.name}@{model.sha256[:12]}"
        self._copy = copy
        self._targets = [_Target(copy, -math.inf, math.inf)] if copy else []
        self._outdated: list[_Target] = []
        self._unsaved: list[_Span] = []
        self._writing: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[bool] | asyncio.Task[None] | None = None
        self._saved_at = -SECONDS_BETWEEN

    def take(self, request: Correct | Delete | Save) -> None:
        """Do what a page asks for.

        Raises
        ------
        WireError
            If it cannot be done.
        """
        match request:
            case Save():
                self._begin_saving(request.seconds)
            case Delete():
                deleted = self._board.boxes.find(request.id)
                span = (deleted.time_start, deleted.time_end)
                self._check_samples(span)
                self._board.boxes.delete(request.id)
                self._note(span)
                self._board.tell("deleted", id=request.id)
            case Correct():
                spans = [(request.time_start, request.time_end)]
                if request.id is not None:
                    before = self._board.boxes.find(request.id)
                    spans.append((before.time_start, before.time_end))
                self._check_samples(*spans)
                box = self._board.boxes.correct(request, self._board.clock, self._board.frequency)
                self._board.show_box(box)
                self._note(*spans)

    def tend(self) -> None:
        """Save what is about to be let go and was corrected; to be called about once a second."""
        if not self._unsaved or self._saving is not None:
            return
        held = self._held
        if held and (gone := [span for span in self._unsaved if span[1] <= held[0]]):
            self._unsaved = [span for span in self._unsaved if span not in gone]
            self.lost += len(gone)
            lost = f"{len(gone)} corrections are lost: no file was made yet, and their samples are held no longer"
            self._board.tell_now("error", message=lost)
            if not self._unsaved:
                return
        age = held[1] - min(self._unsaved)[0] if held else math.inf
        if age > self._ring.seconds_at(self._board.clock.sample_rate or 1.0) - SECONDS_LEFT:
            self._saving = asyncio.create_task(self._save_unsaved())

    def finish(self) -> None:
        """Write the corrections of a recording with the boxes that came after them; to be called at the run's end."""
        if self._copy is not None and self._board.boxes.corrections:
            self._note((-math.inf, math.inf))

    async def close(self) -> None:
        """Write what was corrected and not saved, before it is gone; to be called before the server stops."""
        if self._saving is not None:
            await self._saving
        if self._unsaved:
            await self._save_unsaved()
            self.lost += len(self._unsaved)  # about samples that never came
            self._unsaved = []
        if self._writing is not None:
            await self._writing

    # ---- corrections ----

    @property
    def _held(self) -> _Span | None:
        """What time samples are held of; None before the first."""
        held = self._ring.held
        return self._board.clock.seconds(*held) if held else None

    def _check_samples(self, *spans: _Span) -> None:
        held = self._held
        for span in spans:
            is_held = held is not None and span[1] > held[0]
            if not is_held and not any(target.has(span) for target in self._targets):
                raise WireError(
                    "the samples there are no longer held, and no saved recording has them; save the last seconds "
                    "first, and correct then"
                )

    def _note(self, *spans: _Span) -> None:
        """Take up that boxes changed."""
        targets = [target for target in self._targets if any(map(target.has, spans))]
        if not targets:
            self._unsaved.append((min(span[0] for span in spans), max(span[1] for span in spans)))
        self._outdated += [target for target in targets if target not in self._outdated]
        if self._outdated and self._writing is None:
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        try:
            while self._outdated:
                await asyncio.sleep(0 if self._board.ended else GATHERING_SECONDS)
                await self._write(self._outdated.pop(0))
        finally:
            self._writing = None

    async def _write(self, target: _Target) -> None:
        board = self._board
        try:
            if self._copy is not None and board.boxes.forgotten:
                raise WireError("there are more boxes than can be held; corrections of so many are not written")
            boxes, is_over, seconds = (
                board.boxes.during(target.time_start, target.time_end),
                board.ended,
                board.clock.now,
            )
            count = await asyncio.to_thread(target.file.write, boxes)
        except RfvitError as error:
            self.problems[target] = str(error)
            board.tell_now("error", message=str(error))
            return
        self.problems.pop(target, None)
        is_partial = self._copy is not None and not is_over
        remark = f"boxes up to {seconds:.1f} s; the others follow when the run is over" if is_partial else ""
        self._tell("corrections", target.file.path, count, remark)

    # ---- samples ----

    def _begin_saving(self, seconds: float) -> None:
        if self._saving is not None:
            raise WireError("a recording is being saved; wait until that is done")
        if time.monotonic() - self._saved_at < SECONDS_BETWEEN:
            raise WireError(f"a recording was saved just now; wait {SECONDS_BETWEEN:g} s")
        self._saving = asyncio.create_task(self._save(seconds))

    async def _save(self, seconds: float, why: str = "") -> bool:
        """Save the last samples, and tell all pages; return whether that was done."""
        try:
            await self._save_samples(seconds, why)
            return True
        except RfvitError as error:
            self._board.tell_now("error", message=str(error))
            return False
        finally:
            self._saving = None
            self._saved_at = time.monotonic()

    async def _save_unsaved(self) -> None:
        """Save the samples from the first of those corrections on that no file has."""
        held, wanted = self._held, list(self._unsaved)
        seconds = held[1] - min(wanted)[0] + MARGIN if held else math.inf
        if not await self._save(seconds, "because of corrections in them"):
            self.lost += len(wanted)  # it will not be tried for ever
            self._unsaved = [span for span in self._unsaved if span not in wanted]

    async def _save_samples(self, seconds: float, why: str) -> None:
        board = self._board
        snapshot = await asyncio.to_thread(self._ring.last, seconds)
        if snapshot is None:
            raise WireError("there are no samples yet; wait until some came")
        held, rate = snapshot.sample_count / snapshot.sample_rate, snapshot.sample_rate
        times = board.clock.seconds(snapshot.sample_start, snapshot.sample_end)  # now, before a sender begins anew
        is_final = await self._wait_until(snapshot.sample_end + round(FINAL_SECONDS * rate))
        boxes, before = board.boxes.during(*times), self._unsaved
        self._unsaved = []  # what is corrected while the samples are being written
        origin = Origin(self._title, bool(board.figures().recorded), board.is_simulated, self._model)
        try:
            recording, count = await asyncio.to_thread(save_samples, self._folder, snapshot, boxes, origin)
        except RfvitError:
            self._unsaved = before + self._unsaved
            raise
        target = _Target(recording, *times)
        self._targets = [*self._targets, target][-MOST_TARGETS:] if self._copy is None else self._targets
        missed = [span for span in before if not target.has(span)]
        newer = [span for span in missed if span[1] > times[1]]  # corrected while the end was awaited
        self.lost += len(missed) - len(newer)
        late, self._unsaved = self._unsaved, newer
        for span in late:
            self._note(span)
        remarks = [why] if why else []
        if held < seconds - 0.5 / rate and not why:
            remarks.append(f"{held:.3g} s were held, of the {seconds:g} s asked for")
        if not is_final:
            remarks.append("boxes at its end may be missing")
        self._tell("recording", recording.path, count, "; ".join(remarks))

    async def _wait_until(self, position: int) -> bool:
        """Wait until all boxes before a position are known; return whether they are."""
        deadline = time.monotonic() + PATIENCE
        while not self._board.ended and self._board.clock.position < position:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    def _tell(self, kind: str, path: Path, count: int, remark: str) -> None:
        self.written[path] = count
        self._board.tell_now("saved", kind=kind, path=str(path), count=count, message=remark)
