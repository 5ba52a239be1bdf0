"""`serve`: the explorer on a port of this machine."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import uvicorn

from convscope.app.explored import ExploredRuns
from convscope.app.guard import Guard, is_local, new_token
from convscope.app.server import create_app
from convscope.errors import SettingError, system_error_in_words
from convscope.runs import Run, RunOrFolder

PORT = 8765
_LARGEST_MESSAGE = 1 << 20  # and address: it holds the edits
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
        folders: of runs, or with runs below them; or opened runs.
        host: the address to listen at. Others than that of this machine alone need a token, which is in the address told.
        port: 0 for any that is free.
        trust: whether runs may run the code that they name as their network.
        tell: is given the address to open, once the server listens.
    Raises:
        RunFolderError: a folder is no run, and holds none.
        SettingError: nothing can listen there.
    """
    runs = ExploredRuns(folders, trust)
    token = None if is_local(host) else new_token()
    listening = _listen(host, port)
    bound_port = listening.getsockname()[1]
    url_host = "127.0.0.1" if host in ("localhost", "127.0.0.1") else f"[{host}]" if ":" in host else host
    config = _config(create_app(runs, token))
    # Questions that are ended by Ctrl-C are no error.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "graceful shutdown" not in str(record.msg))
    tell(f"http://{url_host}:{bound_port}/" + (f"?token={token}" if token else ""))
    with suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(config).run(sockets=[listening])


def _config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_level="warning", ws_max_size=_LARGEST_MESSAGE, h11_max_incomplete_event_size=_LARGEST_MESSAGE,
        ws_ping_interval=20, ws_per_message_deflate=False, timeout_graceful_shutdown=_GRACE_S, server_header=False,
        access_log=False,
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is known before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name, for only then asyncio sets TCP_NODELAY: without it each of the lab's small frames waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


@dataclass(frozen=True)
class ServedExplorer:
    """An explorer that runs in this process until it ends; a notebook shows it as a frame.

    Attributes:
        address: to open in a browser.
    """

    address: str

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.address}" width="100%" height="860" style="border: 0" allow="camera"></iframe>'


def explore(*folders: RunOrFolder, trust: bool = False) -> ServedExplorer:
    """The explorer of runs, served by a thread of this process to this machine alone; in a notebook it is shown below the cell.

    Args:
        folders: of runs, or with runs below them; or opened runs.
        trust: whether runs may run the code that they name as their network.
    Raises:
        RunFolderError: a folder is no run, and holds none.

    Example:
        >>> cs.explore("runs/first")                          # doctest: +SKIP
    """
    paths = [folder.path if isinstance(folder, Run) else Path(folder) for folder in folders]
    runs, listening = ExploredRuns(paths, trust), _listen("127.0.0.1", 0)
    server = uvicorn.Server(_config(create_app(runs)))
    Thread(target=server.run, args=([listening],), daemon=True, name="convscope-explorer").start()
    return ServedExplorer(f"http://127.0.0.1:{listening.getsockname()[1]}/")
