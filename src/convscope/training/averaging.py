"""Means of the weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convscope.runs import Recipe

_LOOKAHEAD_STEPS = 5
_LOOKAHEAD_SHARE = 0.5


class Averaging:
    """What a recipe's `averaging` keeps beside the weights, and what it does with it; see Recipe.

    Args:
        net: whose weights are trained.
        recipe: says how.
        kept: the mean so far, by name in the network's state; filled from the weights where it is empty.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, kept: dict[str, Tensor]) -> None:
        self.net, self.recipe, self.kept = net, recipe, kept
        if recipe.averaging != "none" and not kept:
            kept |= {name: tensor.detach().clone() for name, tensor in self._averaged().items()}

    def _averaged(self) -> dict[str, Tensor]:
        """Weights and, of ema, the statistics of batch norm."""
        if self.recipe.averaging == "lookahead":
            return dict(self.net.named_parameters())
        return {name: tensor for name, tensor in self.net.state_dict().items() if tensor.is_floating_point()}

    @torch.no_grad()
    def step(self, number: int, last: bool) -> None:
        """After an optimizer step.

        Args:
            number: of the step, from 0 over the stage.
            last: of its epoch.
        """
        if self.recipe.averaging == "ema":
            live = self._averaged()
            decay = min(self.recipe.ema_decay, (1 + number) / (10 + number))
            torch._foreach_lerp_(list(self.kept.values()), [live[name] for name in self.kept], 1 - decay)
        elif self.recipe.averaging == "lookahead" and ((number + 1) % _LOOKAHEAD_STEPS == 0 or last):
            live = self._averaged()
            for name, slow in self.kept.items():
                live[name].copy_(slow.lerp_(live[name], _LOOKAHEAD_SHARE))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the mean weights inside."""
        if self.recipe.averaging != "ema":
            yield
            return
        live = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        self.finish()
        try:
            yield
        finally:
            self.net.load_state_dict(live)

    def finish(self) -> None:
        """Gives the network the mean weights for good."""
        if self.recipe.averaging == "ema":
            self.net.load_state_dict(self.kept, strict=False)
