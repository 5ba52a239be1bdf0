"""What others get of a run: one file from raw pixels to probabilities, or a folder with a model card, also on the Hub."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.share.card import write_card
    from convscope.share.deployed import Deployed
    from convscope.share.export import FORMATS, Export, export_run
    from convscope.share.publish import Published, publish_run
else:
    load_when_used(__name__)

__all__ = ["FORMATS", "Deployed", "Export", "Published", "export_run", "publish_run", "write_card"]
