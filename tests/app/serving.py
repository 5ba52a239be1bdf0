"""The explorer on a free port, in a thread, and what talks to it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from websockets.sync.client import connect

from convscope.app import ExploredRuns, create_app, serving


@contextmanager
def served(*folders: Path, token: str | None = None) -> Iterator[str]:
    """The address of an explorer of these runs, such as "127.0.0.1:12345"."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(serving._config(create_app(ExploredRuns(folders), token)))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def get(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of an answer; redirects are not followed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", body, named, method=method)
    opener = urllib.request.build_opener(_Staying)
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers.items())


def run_async(work: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own, for Playwright's loop runs in that of the tests as soon as a browser is open."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: Any) -> None:
        return None


@contextmanager
def lab(address: str, **headers: str) -> Iterator[Any]:
    """The socket of the lab."""
    with connect(f"ws://{address}/lab/socket", additional_headers=headers, max_size=None, proxy=None) as socket:
        yield socket


def answer(
    socket: Any, request: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[dict[str, Any], np.ndarray]]]:
    """The first part of the answer to a request, and its frames by layer."""
    socket.send(json.dumps(request))
    frames: dict[str, tuple[dict[str, Any], np.ndarray]] = {}
    first: dict[str, Any] = {}
    while True:
        message = socket.recv(60)
        if isinstance(message, bytes):
            [length] = struct.unpack("<I", message[:4])
            header = json.loads(message[4 : 4 + length])
            frames[header["layer"]] = header, np.frombuffer(message[4 + length :], np.uint8).reshape(header["shape"])
            assert header["seq"] == request["seq"]
            continue
        found = json.loads(message)
        if "error" in found or found.get("done"):
            return first | found, frames
        first = found
