"""Which weights of a network are random: those that another seed draws otherwise."""

from __future__ import annotations

import torch
from torch import nn

_MOST_NAMED = 3


def random_weights_in_words(net: nn.Module, other: nn.Module) -> str | None:
    """ "random weights" where no weights are trained, "random weights in fc" where some are, and None where all are.

    Constants that an initialisation sets, such as a bias of 0, count as neither.

    Args:
        net: the network.
        other: the same, built from another seed.
    """
    others = dict(other.named_parameters())
    own = {
        name: p for name, p in net.named_parameters() if p.requires_grad and p.numel() and (p != p.flatten()[0]).any()
    }
    drawn = [name for name, p in own.items() if name not in others or not torch.equal(p, others[name])]
    if len(drawn) in (0, len(own)):
        return "random weights" if drawn else None
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in drawn))
    more = f" and {len(layers) - _MOST_NAMED} more layers" if len(layers) > _MOST_NAMED else ""
    return f"random weights in {', '.join(layers[:_MOST_NAMED])}{more}"
