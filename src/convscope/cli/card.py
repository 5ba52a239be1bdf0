"""convscope card: a folder to publish a run with."""

from __future__ import annotations

from convscope.cli.options import CardFolder, RunDir, TrustCode, opened
from convscope.cli.show import print_line


def card(
    run: RunDir,
    out: CardFolder = None,
    trust_code: TrustCode = False,
) -> None:
    """Write a model card.

    A folder of README.md with the Hub's metadata, weights, config.json, the recipe, and the worst errors. Accuracy and
    per-class figures carry their intervals. What the model is meant for is left to be filled in."""
    from convscope.share import write_card

    print_line(f"card: {write_card(opened(run, trust_code), out)}")
