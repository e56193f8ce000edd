# SPDX-License-Identifier: Apache-2.0
"""One page's connection: what it is sent, as fast as it takes it, and what it asks for."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from starlette.websockets import WebSocket, WebSocketDisconnect

from rfvit_rt.errors import WireError
from rfvit_rt.web.board import Board
from rfvit_rt.web.protocol import MAX_ROWS, Correct, Delete, Request, Save, View, encode, message, parse

FRAMES_PER_SECOND = 20
STATUS_SECONDS = 1.0
MESSAGES_AT_ONCE = 256  # of a log, between two tiles
MOST_LAG = 1.5  # s of stream that a slow page may be behind before it is taken to the newest
SLOW = 0.25  # s that a page takes to take a tile and messages from which it is slow
CATCHING_UP = 15.0  # s that it may take to read what is held when it connects, or asks for it again
FIRST_VIEW = 0.5  # s to wait for what the page shows
MESSAGES_PER_SECOND, BURST = 50.0, 200.0  # that a page may send


class Connection:
    """Sends a page what is new on the board, at its own pace.

    Nothing waits for a page: it reads the board, of which the newest part is held. One that takes too long skips what
    it missed, and is told how much that was.

    Parameters
    ----------
    websocket : WebSocket
    board : Board
    take : callable
        Called with every request but views; raises WireError where it cannot be.

    Attributes
    ----------
    knows_all : bool
        Whether the run is over, and the page has been sent all there is.
    """

    def __init__(self, websocket: WebSocket, board: Board, take: Callable[[Correct | Delete | Save], None]) -> None:
        self._websocket = websocket
        self._board = board
        self._take = take
        self._view = View()
        self._has_view = asyncio.Event()
        self._is_since = False  # whether the view asks for tiles again
        self._replies: deque[str] = deque(maxlen=MESSAGES_AT_ONCE)
        self._message = board.messages.begin  # next ones to send
        self._occupancy = board.occupancies.begin
        self._news = board.news.end
        self._row = board.waterfall.begin
        self._catching_up_until = math.inf
        self._took = 0.0  # s that the page took to take what was sent last
        self._dropped = 0
        self._allowance = BURST
        self._heard_at = time.monotonic()
        self.knows_all = False

    async def run(self) -> None:
        """Serve until either end hangs up."""
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, WebSocketDisconnect):
                raise error

    # ---- to the page ----

    async def _send(self) -> None:
        await self._websocket.send_text(self._board.hello())
        await self._send_state()
        await self._send_messages()
        with suppress(TimeoutError):  # it takes the view that there is
            await asyncio.wait_for(self._has_view.wait(), FIRST_VIEW)
        self._catching_up_until = time.monotonic() + CATCHING_UP
        next_frame = time.monotonic()
        next_state = next_frame + STATUS_SECONDS
        knows_end = False  # the last state is sent at once
        while True:
            began = time.monotonic()
            if began >= next_state or (self._board.ended and not knows_end):
                next_state, knows_end = began + STATUS_SECONDS, self._board.ended
                await self._send_state()
            await self._send_messages()
            has_more = await self._send_tile()
            self.knows_all = knows_end and not has_more
            self._took = time.monotonic() - began
            next_frame = began if has_more else max(next_frame + 1 / FRAMES_PER_SECOND, time.monotonic())
            await asyncio.sleep(next_frame - time.monotonic())

    async def _send_state(self) -> None:
        await self._websocket.send_text(encode(replace(self._board.status, frames_dropped=self._dropped)))
        await self._websocket.send_text(self._board.emissions)

    async def _send_messages(self) -> None:
        replies = [self._replies.popleft() for _ in range(len(self._replies))]
        new, self._message, missed = self._board.messages.read(self._message, MESSAGES_AT_ONCE)
        shares, self._occupancy, _ = self._board.occupancies.read(self._occupancy, MESSAGES_AT_ONCE)
        news, self._news, missed_news = self._board.news.read(self._news, MESSAGES_AT_ONCE)
        self._dropped += missed + missed_news
        for text in (*replies, *new, *news, *shares):
            await self._websocket.send_text(text)

    async def _send_tile(self) -> bool:
        """Send what is new on the waterfall, up to a tile; return whether there is likely more."""
        if self._is_since:
            await self._begin_again()
        self._skip_what_is_old()
        tile, self._row = self._board.waterfall.read(self._row, self._view)
        if tile is None:
            self._catching_up_until = 0.0
            return False
        await self._websocket.send_bytes(tile.encode())
        return len(tile.power) == MAX_ROWS or self._is_catching_up

    async def _begin_again(self) -> None:
        self._is_since = False
        self._row = self._board.waterfall.number_at(self._view.since or 0.0)
        self._catching_up_until = time.monotonic() + CATCHING_UP
        mark = self._board.waterfall.mark(self._row)
        if mark is not None:
            await self._websocket.send_bytes(mark.encode())

    @property
    def _is_catching_up(self) -> bool:
        return time.monotonic() < self._catching_up_until

    def _skip_what_is_old(self) -> None:
        if self._took < SLOW or self._is_catching_up or self._board.ended:
            return  # a stream that comes in a rush is no reason: a tile can hold many seconds
        lag = self._board.clock.now - self._board.waterfall.time_of(self._row, self._board.clock.now)
        if lag > MOST_LAG + 2 / self._view.rows_per_second:
            self._row = self._board.waterfall.number_at(self._board.clock.now - 1 / FRAMES_PER_SECOND)
            self._dropped += math.ceil(lag * FRAMES_PER_SECOND)

    # ---- from the page ----

    async def _receive(self) -> None:
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event.get("code", 1006))
            if not self._is_allowed():
                await self._websocket.close(1008, "too many messages")
                raise WebSocketDisconnect(1008)
            try:
                self._handle(parse(event.get("text") or ""))
            except WireError as error:
                self._replies.append(message("error", message=str(error)))

    def _handle(self, request: Request) -> None:
        if isinstance(request, View):
            self._view = request
            self._is_since = request.since is not None
            self._has_view.set()
        else:
            self._take(request)

    def _is_allowed(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._heard_at) * MESSAGES_PER_SECOND) - 1
        self._heard_at = now
        return self._allowance > 0
