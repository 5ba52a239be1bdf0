"""The explorer: a server of pages and of a socket, over runs; it asks the catalogue of analyses and computes nothing itself."""

from convscope.app.explored import ExploredRun, ExploredRuns
from convscope.app.server import create_app
from convscope.app.serving import ServedExplorer, explore, serve
from convscope.app.twin import write_twin

__all__ = ["ExploredRun", "ExploredRuns", "ServedExplorer", "create_app", "explore", "serve", "write_twin"]
