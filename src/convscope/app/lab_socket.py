"""The WebSocket of the lab: the newest state of each client is answered, part by part."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from convscope.app.explorer import Explorer
from convscope.app.lab import LabRequest
from convscope.errors import ConvscopeError, RequestError, first_line

_LOG = logging.getLogger("uvicorn.error")
_LARGEST_MESSAGE = 1 << 18  # 200 edits with long strokes
_SLOW_CLIENT_S = 30


def add_lab(app: FastAPI, explorer: Explorer) -> None:
    @app.websocket("/lab/socket")
    async def lab(socket: WebSocket) -> None:
        await socket.accept()
        newest: list[LabRequest] = []
        came = asyncio.Event()
        answering = asyncio.create_task(_answer(explorer, socket, newest, came))
        try:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                try:
                    request = checked_request(as_json(message.get("text") or ""))
                except RequestError as error:
                    await socket.send_json({"error": str(error)})
                    continue
                newest[:] = [request]
                came.set()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await answering


async def _answer(explorer: Explorer, socket: WebSocket, newest: list[LabRequest], came: asyncio.Event) -> None:
    """Answers the newest request, as long as the client is there; a newer one ends the answer to an older."""
    while True:
        await came.wait()
        came.clear()
        request = newest[0]
        parts: Iterator[dict[str, Any] | bytes] | None = None
        try:
            while True:
                try:
                    part, parts = await explorer.by_network(_next_part, explorer, request, parts, came.is_set)
                except ConvscopeError as error:
                    part, parts = {"seq": request.seq, "error": str(error)}, iter(())
                except Exception as error:  # the socket goes on
                    _LOG.exception("the lab could not answer")
                    part, parts = {"seq": request.seq, "error": unforeseen_in_words(error)}, iter(())
                if part is None:
                    break
                sending = socket.send_bytes(part) if isinstance(part, bytes) else socket.send_json(part)
                await asyncio.wait_for(sending, _SLOW_CLIENT_S)
        except TimeoutError:
            await socket.close(1008)
            return


def _next_part(
    explorer: Explorer, request: LabRequest, parts: Iterator[Any] | None, is_superseded: Callable[[], bool]
) -> tuple[Any, Iterator[Any] | None]:
    """The next part of an answer, None after the last, and where it comes from."""
    if parts is None:
        parts = explorer.lab(request.run).answer(request, explorer.uploaded(request.run), is_superseded)
    return next(parts, None), parts


def as_json(text: str) -> Any:
    if len(text) > _LARGEST_MESSAGE:
        raise RequestError(f"this has {len(text):,} characters; send {_LARGEST_MESSAGE:,} at most")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("this is no JSON; send a request as the documentation shows it") from None


def checked_request(values: Any) -> LabRequest:
    try:
        return LabRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}") from None


def unforeseen_in_words(error: Exception) -> str:
    return f"this failed, which is a fault of convscope: {type(error).__name__}: {first_line(error)}"
