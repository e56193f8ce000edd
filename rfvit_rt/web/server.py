# SPDX-License-Identifier: Apache-2.0
"""Serves the page: HTTP and WebSocket in a thread and an event loop of their own, away from the pipeline."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from rfvit_rt.errors import OutputError, WireError
from rfvit_rt.sinks.prometheus import Address
from rfvit_rt.web.access import Guard, grant
from rfvit_rt.web.board import Board
from rfvit_rt.web.connection import Connection
from rfvit_rt.web.protocol import MAX_CLIENT_BYTES, Correct, Delete, Save, message
from rfvit_rt.web.saver import Saver

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_CLIENTS = 16
MAX_CONNECTIONS = 64
MAX_HEAD = 16 * 1024  # bytes of a request's head
SEND_BUFFER = 256 * 1024  # bytes in the kernel for each client: what waits there is old when it arrives
REQUEST_SECONDS = 30.0  # that a connection may last which is no WebSocket
PARTING_SECONDS = 2.0  # at most, for pages to hear how it ended
STOP_SECONDS = 10.0

Act = Callable[[], None]


class Server:
    """Serves one run's board.

    Parameters
    ----------
    address : Address
        Where to listen.
    board : Board
        Belongs to the server's thread from now on: see :meth:`post`.
    saver : Saver or None
        Saves and corrects; None where neither is of use.

    Attributes
    ----------
    access : Access
        Who may have the page, and where it is.
    processor_seconds : float
        Processor time of the server's thread, up to about a second ago.

    Raises
    ------
    OutputError
        If there is no such address, or the port is taken.
    """

    def __init__(
        self,
        address: Address,
        board: Board,
        saver: Saver | None = None,
    ) -> None:
        files = page_files()
        listening = _listen(address)
        self.access = grant(Address(address.host, listening.getsockname()[1]))
        self.processor_seconds = 0.0
        self._board = board
        self._saver = saver
        self._connections: set[Connection] = set()
        self._socket = listening
        self._inbox: deque[Act] = deque()
        self._loop = asyncio.new_event_loop()
        config = _config(Guard(self._application(files), self.access))
        config.load()  # what it imports is imported here, where a failure is seen
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="rfvit-web", daemon=True)
        self._thread.start()

    # ---- for the pipeline's threads ----

    def post(self, act: Act, most: int | None = None) -> None:
        """Have the server's thread do something; never waits for it.

        Parameters
        ----------
        act : callable
            What to do, in the order of the calls.
        most : int or None
            Forget it, and count that, where so much waits already.
        """
        if most is not None and len(self._inbox) >= most:
            act = self._count_dropped
        self._inbox.append(act)
        self._loop.call_soon_threadsafe(self._act)

    def _act(self) -> None:
        self._inbox.popleft()()

    def _count_dropped(self) -> None:
        self._board.stretches_dropped += 1

    def end(self, reason: str) -> None:
        """Tell the pages that the run is over, once all that was posted before is done; they go on being served."""

        def end() -> None:
            self._board.end(reason)
            if self._saver is not None:
                self._saver.finish()

        self.post(end)

    def close(self) -> None:
        """Save what was corrected and not saved, and stop serving."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._part(), self._loop).result()
        self._uvicorn.should_exit = True
        self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- in the server's thread ----

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        ticking = asyncio.create_task(self._tick())
        await self._uvicorn.serve(sockets=[self._socket])
        ticking.cancel()

    async def _tick(self) -> None:
        while True:
            self._board.tick()
            if self._saver is not None:
                self._saver.tend()
            self.processor_seconds = time.thread_time()
            await asyncio.sleep(1.0)

    async def _part(self) -> None:
        if not self._board.ended:
            self._board.end("the run broke off")
        if self._saver is not None:
            await self._saver.close()
        latest = time.monotonic() + PARTING_SECONDS
        while not all(each.knows_all for each in self._connections) and time.monotonic() < latest:
            await asyncio.sleep(0.01)

    # ---- what is served ----

    def _application(self, files: dict[str, Response]) -> Starlette:
        async def index(request: HttpRequest) -> Response:
            return files["index.html"]

        async def static(request: HttpRequest) -> Response:
            # Looked up among the page's own files, never on the disk.
            return files.get(request.path_params["name"], PlainTextResponse("rfvit: no such file\n", status_code=404))

        async def health(request: HttpRequest) -> Response:
            return JSONResponse({"status": "ok"})

        return Starlette(
            routes=[
                Route("/", index),
                Route("/static/{name}", static),
                Route("/health", health),
                WebSocketRoute("/stream", self._stream),
            ]
        )

    async def _stream(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if self._board.clients >= MAX_CLIENTS:
            await websocket.send_text(message("error", message=f"{MAX_CLIENTS} pages are open already; close one"))
            await websocket.close(1013, "too many pages")
            return
        connection = Connection(websocket, self._board, self._take)
        self._connections.add(connection)
        self._board.clients = len(self._connections)
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)
            self._board.clients = len(self._connections)

    def _take(self, request: Correct | Delete | Save) -> None:
        """Do what a page asks for."""
        if self._saver is None:
            raise WireError("nothing of this can be corrected or saved")
        self._saver.take(request)


def page_files() -> dict[str, Response]:
    """Read the files that the page consists of, by name; nothing else is ever served.

    Raises
    ------
    OutputError
        If they are not there.
    """
    files = {
        path.name: Response(path.read_bytes(), media_type=TYPES[path.suffix])
        for path in sorted(PAGE.iterdir())
        if path.suffix in TYPES and re.fullmatch(r"[a-z0-9_.-]+", path.name) and path.is_file()
    }
    if "index.html" not in files:
        raise OutputError(f"there is no page in {PAGE}; install rfvit-rt again")
    return files


class _Impatient(H11Protocol):
    """HTTP that hangs up where a request does not come: nobody can hold all connections by saying nothing.

    A page takes milliseconds; a WebSocket has left this protocol by then.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        if self.transport.get_protocol() is self:
            self.transport.close()


def _config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Impatient,
        ws="websockets-sansio",
        loop="asyncio",
        lifespan="off",
        ws_max_size=MAX_CLIENT_BYTES,
        ws_per_message_deflate=False,  # tiles hardly shrink, and it would take most of the server's time
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )


def _listen(address: Address) -> socket.socket:
    where = f"{address.host}:{address.port}"
    try:
        family, _, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise OutputError(f"cannot serve the page at {where}: {reason}; name an address of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listening.bind(place)
        listening.listen(MAX_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise OutputError(
            f"cannot serve the page at {where}: {error.strerror}; give another port, or an address of this machine, "
            "with --web-address"
        ) from error
    return listening
