"""What others get of a run: one file from raw pixels to probabilities, or a folder with a model card, also on the Hub."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.share.card import write_card as write_card
    from convscope.share.export import (
        FORMATS as FORMATS,
        Deployed as Deployed,
        Export as Export,
        export_run as export_run,
    )
    from convscope.share.publish import Published as Published, publish_run as publish_run
else:
    load_when_used(__name__)
