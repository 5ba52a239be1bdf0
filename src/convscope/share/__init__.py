"""What others use without convscope: a trained network as one file, from raw pixels to probabilities."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.share.deployed import Deployed
    from convscope.share.export import FORMATS, Export, export_run
else:
    load_when_used(__name__)

__all__ = ["FORMATS", "Deployed", "Export", "export_run"]
