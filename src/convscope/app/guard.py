"""Who may talk to the server, and how much: hosts, origins, a token, sizes of bodies, and the policy that browsers enforce."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Any]

LARGEST_BODY = 20_000_000
"""Bytes of a request's body: an uploaded photograph."""

MOST_AT_ONCE = 400
"""HTTP requests that are answered at the same time; more are answered 429."""

_DRAIN_SECONDS = 2  # a body of 20 MB on the same machine takes 0.05

_COOKIE = "convscope"
_POLICY = "; ".join([
    "default-src 'self'", "img-src 'self' data: blob:", "media-src 'self' blob:", "style-src 'self' 'unsafe-inline'",
    "script-src 'self'", "connect-src 'self'", "object-src 'none'", "base-uri 'none'", "form-action 'self'",
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",
])  # fmt: skip
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def new_token() -> str:
    """A secret for the address of a server that others can reach."""
    return secrets.token_urlsafe(24)


def is_local(host: str) -> bool:
    """Whether a host, as an address has it, is this machine alone, whoever is asked."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI application that lets through to another what is allowed.

    - Without a token the `Host` of a request has to name this machine, so that no page of another site reaches the server
      by a name that it resolves to 127.0.0.1 (DNS rebinding).
    - With a token it has to be in the address once, or in the cookie that the first answer sets.
    - A WebSocket, and a request that changes something, has to come from a page of this server (`Origin`).
    - A body is cut off at LARGEST_BODY with 413; beyond MOST_AT_ONCE requests at the same time the answer is 429.

    Args:
        app: what is guarded.
        token: a secret, for a server that others can reach; None for one of this machine alone.
    """

    def __init__(self, app: App, token: str | None = None) -> None:
        self._app, self._token, self._at_work = app, token, 0

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        connection = HTTPConnection(scope)
        if refusal := self._refusal(connection):
            return await _refuse(scope, receive, send, *refusal)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        if self._token and "token" in connection.query_params:
            return await _welcome(connection, self._token)(scope, receive, send)
        if self._at_work >= MOST_AT_ONCE:
            return await _refuse(scope, receive, send, 429, "too many requests at the same time; try again")
        if int(connection.headers.get("content-length") or 0) > LARGEST_BODY:
            return await _refuse(scope, receive, send, 413, f"the body has more than {LARGEST_BODY // 10**6} MB")
        self._at_work += 1
        try:
            await self._app(scope, _bounded(receive), _with_headers(send))
        except asyncio.CancelledError:  # the server ends
            with suppress(RuntimeError):  # where a part is sent already
                await _words(503, "the explorer has ended")(scope, receive, send)
        finally:
            self._at_work -= 1

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        headers = connection.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None:
            if not is_local(host.rpartition(":")[0]) and not is_local(host):
                return 403, "this server answers under 127.0.0.1 and localhost alone"
        else:
            sent_tokens = connection.query_params.get("token", ""), connection.cookies.get(_COOKIE, "")
            if not any(hmac.compare_digest(one.encode(), self._token.encode()) for one in sent_tokens):
                return 403, "open the address that convscope serve printed, with its token"
        changes = connection.scope.get("method") not in ("GET", "HEAD", "OPTIONS")  # a WebSocket has none
        if changes and origin is not None and origin.partition("://")[2] != host:
            return 403, "this comes from a page of another site"
        return None


def _welcome(connection: HTTPConnection, token: str) -> RedirectResponse:
    """Keeps the token in a cookie, and leads to the same address without it, so that it is in no history."""
    rest = [(name, value) for name, value in connection.query_params.multi_items() if name != "token"]
    path = "/" + quote(connection.scope["path"].lstrip("/"))  # "//other.site" and "/\\other.site" would be of another
    response = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
    response.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
    return response


async def _refuse(scope: Message, receive: Any, send: Any, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 1008, "reason": words})
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            await _drain(receive)
    await _words(status, words)(scope, receive, send)


def _words(status: int, words: str) -> PlainTextResponse:
    return PlainTextResponse(f"{words}\n", status, {"connection": "close", **_HEADERS})


async def _drain(receive: Any) -> None:
    """Reads what a refused request still sends: a connection that is closed before loses the answer at the client."""
    size = 0
    while size <= LARGEST_BODY and (message := await receive()).get("more_body"):
        size += len(message["body"])


class TooLargeError(Exception):
    """A body that says less of its length than it has."""


def _bounded(receive: Any) -> Any:
    """The body of a request, which ends with TooLargeError beyond LARGEST_BODY."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise TooLargeError
        return message

    return bounded


def _with_headers(send: Any) -> Any:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
