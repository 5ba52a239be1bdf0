"""convscope trains convolutional image classifiers, compares them honestly, and lets you look inside.

The names below are the public face. They are loaded when first used, so that importing convscope costs nothing.
"""

from typing import TYPE_CHECKING

import convscope.base.shown as _shown
from convscope.base.lazy import load_when_used

if TYPE_CHECKING:  # a function that is called as its file is named by the file: mypy might take the file for it
    from convscope import (
        analyses,
        app,
        courses,
        data,
        draw,
        edits,
        errors,
        graph,
        lenses,
        nets,
        report,
        runs,
        scans,
        study,
        training,
    )
    from convscope.app.serving import explore
    from convscope.compute import LocalProcesses, Ray
    from convscope.data import DataBundle, ImageSet, load_data
    from convscope.errors import ConvscopeError
    from convscope.nets import build_net
    from convscope.report import write_report
    from convscope.runs import Recipe, Run, RunSpec, load_images, open_run
    from convscope.scans.evaluate import evaluate
    from convscope.scans.scan import scan
    from convscope.scope import Scope
    from convscope.study import histories, open_study, sweep
    from convscope.study.compare import compare
    from convscope.study.table import table
    from convscope.training.train import train
else:
    load_when_used(__name__)

__version__ = "0.2.0"

__all__ = [
    "ConvscopeError",
    "DataBundle",
    "ImageSet",
    "LocalProcesses",
    "Ray",
    "Recipe",
    "Run",
    "RunSpec",
    "Scope",
    "__version__",
    "analyses",
    "app",
    "build_net",
    "compare",
    "courses",
    "data",
    "draw",
    "edits",
    "errors",
    "evaluate",
    "explore",
    "graph",
    "histories",
    "lenses",
    "load_data",
    "load_images",
    "nets",
    "open_run",
    "open_study",
    "report",
    "runs",
    "scan",
    "scans",
    "study",
    "sweep",
    "table",
    "train",
    "training",
    "write_report",
]

_shown.Shown.drawn_by = "convscope.analyses:notebook_picture"
