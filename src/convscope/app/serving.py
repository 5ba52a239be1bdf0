"""`serve`: the explorer on a port of this machine."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from convscope.app.explored import ExploredRuns
from convscope.app.guard import new_token
from convscope.app.server import create_app
from convscope.errors import SettingError, system_error_in_words

PORT = 8765
_LARGEST_MESSAGE = 1 << 20
_GRACE_S = 2


def serve(
    folders: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    trust: bool = False,
    tell: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the explorer until the process is interrupted.

    Args:
        folders: of runs, or with runs below them.
        host: the address to listen at. Others than that of this machine alone need a token, which is in the address told.
        port: 0 for any that is free.
        trust: whether runs may run the code that they name as their network.
        tell: is given the address to open, once the server listens.
    Raises:
        RunFolderError: a folder is no run, and holds none.
        SettingError: nothing can listen there.
    """
    runs = ExploredRuns(folders, trust)
    token = None if _is_local(host) else new_token()
    listening = _listen(host, port)
    bound = listening.getsockname()[1]
    shown = "127.0.0.1" if host in ("localhost", "127.0.0.1") else f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        create_app(runs, token), log_level="warning", ws_max_size=_LARGEST_MESSAGE, ws_ping_interval=20,
        timeout_graceful_shutdown=_GRACE_S, server_header=False, access_log=False,
    )  # fmt: skip
    tell(f"http://{shown}:{bound}/" + (f"?token={token}" if token else ""))
    uvicorn.Server(config).run(sockets=[listening])


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is known before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = system_error_in_words(error) if isinstance(error, OSError) else str(error)
        raise SettingError(f"--host {host} --port {port}: {reason}; give another --port, or --port 0 for any") from None
    return listening
