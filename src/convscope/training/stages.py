"""The stages of a recipe on a network: which modules learn, and that all others stay as they are."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from convscope.errors import SettingError, UnknownNameError
from convscope.runs import Recipe, Stage

_ALL = "all"


def learning_modules(net: nn.Module, stage: Stage, place: int = 0) -> list[nn.Module]:
    """The modules that a stage names; those inside them learn as well.

    Args:
        net: whose modules have the names.
        stage: its `train` is looked up.
        place: of the stage in the recipe, for messages.
    Raises:
        UnknownNameError: a name that no module has.
        SettingError: the modules have no parameters that could learn.
    """
    found = [module for pattern in stage.train for module in _named(net, pattern, f"recipe.stages.{place}.train")]
    if not any(parameter.requires_grad for module in found for parameter in module.parameters()):
        names = ", ".join(stage.train)
        raise SettingError(
            f"recipe.stages.{place}.train: {names} has no parameters to train; name a layer with weights"
        )
    return found


def _named(net: nn.Module, pattern: str, key: str) -> list[nn.Module]:
    if pattern == _ALL:
        return [net]
    names = [name for name, _ in net.named_modules() if name]
    if found := [net.get_submodule(name) for name in names if fnmatchcase(name, pattern)]:
        return found
    raise UnknownNameError(f"{key}: module", pattern, names, "in this network")


class Stages:
    """The network as each stage of a recipe wants it; as it is where the recipe has none.

    Args:
        net: what its owner froze (requires_grad off) stays so.
        recipe: with or without stages.
    Raises:
        UnknownNameError, SettingError: see learning_modules.
    """

    def __init__(self, net: nn.Module, recipe: Recipe) -> None:
        self.net, self.stages = net, recipe.stages or ()
        self.modules = [learning_modules(net, stage, place) for place, stage in enumerate(self.stages)]
        self._before = {parameter: parameter.requires_grad for parameter in net.parameters()}
        self.learning = [net]

    def begin(self, number: int) -> None:
        """Freezes all but what the stage trains."""
        if not self.stages:
            return
        self.learning = self.modules[number]
        learn = {parameter for module in self.learning for parameter in module.parameters()}
        for parameter, before in self._before.items():
            parameter.requires_grad_(before and parameter in learn)

    def train(self) -> None:
        """Training mode for what learns, evaluation mode for all else."""
        self.net.eval()
        for module in self.learning:
            module.train()

    def end(self) -> None:
        """Every parameter may learn again that could before."""
        for parameter, before in self._before.items():
            parameter.requires_grad_(before)

    @property
    def n_learning(self) -> int:
        """Parameters that learn now."""
        return sum(parameter.numel() for parameter in self.net.parameters() if parameter.requires_grad)
