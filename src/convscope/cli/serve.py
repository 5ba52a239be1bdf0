"""convscope serve: the explorer of runs in a browser."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import TrustCode
from convscope.cli.show import print_line


def serve(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or one with runs below it.", show_default=False),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Listen at this address; if others can reach it, they need the token that is printed.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65535, help="Listen at this port; 0 takes any that is free."),
    ] = 8765,
    trust_code: TrustCode = False,
) -> None:
    """Explore runs in a browser.

    Edit an image and see every layer change; look at units, mistakes, a map of the test images. Needs no internet, no
    account and no database. Ctrl-C ends it."""
    gc.disable()  # what is loaded stays, and to look through it again and again takes a quarter of the start
    try:
        import torch

        from convscope.app import serve

        if "OMP_NUM_THREADS" not in os.environ:
            # A second one would keep a core from the sockets; slow questions have their own process.
            torch.set_num_threads(1)
        template = "explorer: {}  (Ctrl-C ends it)"
        serve(folders, host, port, trust=trust_code, tell=lambda address: print_line(template.format(address)))
    finally:
        gc.enable()
    os._exit(0)  # its threads may still load data or trace a network, for nobody
