# SPDX-License-Identifier: Apache-2.0
"""Who may have the page: hosts, origins, the token, and what a browser may do with what it gets."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rfvit_rt.sinks.prometheus import Address

HEADERS = {
    # Nothing but what the page itself consists of; text that comes from outside can do nothing even if it got in.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Access:
    """Who may have the page.

    Attributes
    ----------
    address : Address
        Where the server listens.
    token : str or None
        What everybody has to know; None where nobody but this machine can reach the server.
    """

    address: Address
    token: str | None

    @property
    def url(self) -> str:
        """Where to find the page, with the token that it takes."""
        host = self.address.host
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()  # no browser can go to "everywhere"
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.address.port}/" + (f"?token={self.token}" if self.token else "")

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; other servers of this host have their own."""
        return f"rfvit-{self.address.port}"

    def refusal(self, headers: Headers, query: str) -> str | None:
        """Say why a request is refused, or None where it is not.

        Parameters
        ----------
        headers : Headers
            Of the request.
        query : str
            Of its URL.
        """
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_name_of_ours(host):
            # A name of somebody else's that leads here: a page of theirs would pass for ours (DNS rebinding).
            return "this server does not go by that name; use the address that rfvit printed"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return "another site's page asks for this"
        if self.token is not None and not self._has_token(headers, query):
            return "the token is missing or wrong; use the address that rfvit printed"
        return None

    def is_token_in(self, query: str) -> bool:
        """Whether a URL's query has the token."""
        try:
            given = parse_qs(query, max_num_fields=16).get("token", [""])[0] if len(query) < 1024 else ""
        except ValueError:  # too many fields
            return False
        return self._is_token(given)

    def _has_token(self, headers: Headers, query: str) -> bool:
        # Cookies of the host's other services come along, and need not be such as http.cookies reads.
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        held = next((value for name, _, value in cookies if name == self.cookie), "")
        return self.is_token_in(query) or self._is_token(held)

    def _is_token(self, given: str) -> bool:
        expected = self.token or ""
        return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())

    def _is_name_of_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True  # nobody can make an address lead elsewhere

    @property
    def _names(self) -> set[str]:
        own = socket.gethostname().lower()
        names = {"localhost", self.address.host.lower()}
        return names | {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"} if self.token else names


def grant(address: Address) -> Access:
    """Decide who may have the page of a server: this machine, or who has a new token."""
    return Access(address, secrets.token_urlsafe(24) if address.is_open else None)


class Guard:
    """Lets only those requests through that access is granted to, and gives every answer its headers.

    Parameters
    ----------
    app : ASGI application
    access : Access
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        refusal = self._access.refusal(Headers(scope=scope), query)
        sets_cookie = refusal is None and self._access.is_token_in(query)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if sets_cookie:
                    token = f"{self._access.cookie}={self._access.token}"
                    headers.append("Set-Cookie", f"{token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        if refusal is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "http":
            await PlainTextResponse(f"rfvit: {refusal}\n", status_code=403)(scope, receive, send_guarded)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
