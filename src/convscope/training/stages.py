"""The stages of a recipe on a network: which modules learn, and that all others stay as they are."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from convscope.errors import NetworkError, SettingError, UnknownNameError
from convscope.runs import Recipe
from convscope.training.parts import WORDS, named_part

_ALL = "all"


class Stages:
    """The network as each stage of a recipe wants it; as it is where the recipe has none.

    A stage's `train` names modules, each with all inside it; `*` stands for any letters. `all` is the whole network, and
    `head` and `last_block` are what convscope.training.parts says, unless a module has that very name.

    Attributes:
        factors: of the rate, by parameter, as the recipe's `rates` say.

    Args:
        net: what its owner froze (requires_grad off) stays so.
        recipe: with or without stages.
        input_shape: (C, H, W) of an image.
    Raises:
        UnknownNameError: a name that no module has.
        SettingError: the modules have no parameters that could learn; or a word stands for nothing in this network.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, input_shape: tuple[int, int, int]) -> None:
        self.net, self._shape = net, input_shape
        self._parts: dict[str, list[str]] = {}  # what the words stand for
        self.modules = [
            self._learning(part.train, f"recipe.stages.{place}.train" if recipe.stages else "recipe.train")
            for place, part in enumerate(recipe.parts)
        ]
        self.factors = {
            parameter: factor
            for name, factor in (recipe.rates or {}).items()
            for module in self._named(name, "recipe.rates")
            for parameter in module.parameters()
        }
        self._before = {parameter: parameter.requires_grad for parameter in net.parameters()}

    def begin(self, number: int) -> None:
        """Freezes all but what the stage trains."""
        self.learning = self.modules[number]
        trained = {parameter for module in self.learning for parameter in module.parameters()}
        for parameter, before in self._before.items():
            parameter.requires_grad_(before and parameter in trained)

    def train(self) -> None:
        """Training mode for what learns, evaluation mode for all else."""
        self.net.eval()
        for module in self.learning:
            module.train()

    def end(self) -> None:
        """Every parameter may learn again that could before."""
        for parameter, before in self._before.items():
            parameter.requires_grad_(before)

    def words_of(self, patterns: tuple[str, ...]) -> str:
        """What the words `head` and `last_block` stand for among names of modules: "head is fc1; "; nothing without such."""
        return "".join(f"{word} is {', '.join(self._parts[word])}; " for word in patterns if word in self._parts)

    def _learning(self, patterns: tuple[str, ...], key: str) -> list[nn.Module]:
        """The modules that a stage names; those inside them learn as well."""
        modules = [module for pattern in patterns for module in self._named(pattern, key)]
        if not any(parameter.requires_grad for module in modules for parameter in module.parameters()):
            raise SettingError(f"{key}: {', '.join(patterns)} has no parameters to train; name a layer with weights")
        return modules

    def _named(self, pattern: str, key: str) -> list[nn.Module]:
        if pattern == _ALL:
            return [self.net]
        own = [name for name, _ in self.net.named_modules() if name]
        names = [name for name in own if fnmatchcase(name, pattern)]
        if not names and pattern in WORDS:
            try:
                names = self._parts[pattern] = named_part(self.net, pattern, self._shape)
            except NetworkError as error:
                raise SettingError(
                    f"{key}: {pattern!r} cannot be found in this network: {error}; name modules (convscope anatomy lists them)"
                ) from None
        if not names:
            raise UnknownNameError(f"{key}: module", pattern, [*own, *WORDS, _ALL], "in this network")
        return [self.net.get_submodule(name) for name in names]
