"""What `head` and `last_block` mean in a recipe, for any network: found from how the output is computed and from its modules.

**head** is the module that `net.head` put there. Without one it is what one meets first on every way back from the output
that has a matrix of weights: the last dense layer, or the last convolution where a network pools after it; with norms that
come behind it.

**last_block** is the last of the blocks that the network is made of, with all that has weights between it and the head. A
block is a module with two matrices of weights or more. Where the last one of a module's children holds more than half of
their matrices, it is no block but the row of them, and its own children are looked at: `layer4` of a ResNet, `blocks.11` of
a ViT, `_blocks.15` of EfficientNet-Lite0. Where no child is a block it is the last convolution, or without one the last
layer. Modules count in the order in which they are registered, and only if the output depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.graph import evaluate, left_as_found
from convscope.nets import HEAD_NAME

HEAD, LAST_BLOCK = WORDS = ("head", "last_block")


def named_part(net: nn.Module, word: str, input_shape: tuple[int, int, int]) -> list[str]:
    """The names of the modules that `head` or `last_block` stands for, in the order in which they are registered.

    Args:
        net: gives logits for images; left as it was.
        word: one of WORDS.
        input_shape: (C, H, W) of an image.
    Raises:
        NetworkError: there are none.
    """
    nearest, reached = _parameters_of_output(net, input_shape)
    new_head = getattr(net, HEAD_NAME, None)
    owners = {new_head} if new_head else set(map(_owner, nearest))
    head = [name for name, _ in net.named_modules() if name in owners]
    if not head or "" in head:
        raise NetworkError("no module with weights gives the output by itself")
    if word == HEAD:
        return head
    ndims = {name: parameter.ndim for name, parameter in net.named_parameters() if name in reached}
    return _Trunk(net, ndims, [*head, HEAD] if hasattr(net, HEAD) else head).last_block()


def _owner(parameter: str) -> str:
    """The module of a parameter; of a weight that is computed from others (weight norm), that which uses it."""
    module, computed, _ = parameter.partition(".parametrizations.")
    return module if computed else parameter.rpartition(".")[0]


def _parameters_of_output(net: nn.Module, input_shape: tuple[int, int, int]) -> tuple[list[str], set[str]]:
    """The names of the parameters that come first on the ways from the output to the image, to the first matrix; and of all."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    first = next(iter(names))
    with left_as_found(net), torch.enable_grad():
        evaluate(net)
        for parameter in names:
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        image = torch.zeros(1, *input_shape, device=first.device, dtype=first.dtype, requires_grad=True)
        outputs = net(image.clone())  # a forward may change its input in place
        if not isinstance(outputs, Tensor) or outputs.grad_fn is None:
            raise NetworkError("its output is no tensor that depends on its weights")
        graph = _Graph(outputs.grad_fn, image)
    nearest = [names[one] for one in graph.nearest() if one in names]
    return nearest, {names[one] for one in graph.leaves if one in names}


class _Graph:
    """Autograd's record of a pass, from the output back.

    Attributes:
        leaves: the tensors it ends in.
    """

    def __init__(self, output: Any, image: Tensor) -> None:
        self.output = output
        self.before: dict[Any, list[Any]] = {}
        waiting, order = [output], []
        while waiting:
            node = waiting.pop()
            if node not in self.before:
                self.before[node] = [earlier for earlier, _ in node.next_functions if earlier is not None]
                order.append(node)
                waiting += self.before[node]
        self.leaves = [node.variable for node in order if hasattr(node, "variable")]
        later: dict[Any, list[Any]] = {node: [] for node in order}
        for node, earlier in self.before.items():
            for one in earlier:
                later[one].append(node)
        start = [node for node in order if getattr(node, "variable", None) is image]
        self.of_image = set(_closure(start, later))

    def nearest(self) -> list[Tensor]:
        """The leaves that enter first, going back on each way to the image until a matrix has entered."""
        leaves: list[Tensor] = []
        ways = [self.output]
        visited = set()
        while ways:
            node = ways.pop()
            if node in visited:
                continue
            visited.add(node)
            beside = [one for one in self.before[node] if one not in self.of_image]
            entering = [one.variable for one in _closure(beside, self.before) if hasattr(one, "variable")]
            leaves += entering
            if not any(one.ndim > 1 for one in entering):
                ways += [one for one in self.before[node] if one in self.of_image]
        return leaves


def _closure(start: list[Any], edges: dict[Any, list[Any]]) -> list[Any]:
    """All that can be reached, itself included."""
    nodes: dict[Any, None] = {}
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in nodes:
            nodes[node] = None
            waiting += edges[node]
    return list(nodes)


@dataclass(frozen=True)
class _Trunk:
    """A network without its head.

    Attributes:
        ndims: of each parameter on which the output depends, by name.
        head: names of modules.
    """

    net: nn.Module
    ndims: dict[str, int]
    head: list[str]

    def last_block(self) -> list[str]:
        """See the top of this module; the block, and what follows it."""
        block = self._block("")
        path = block.split(".")
        following = []
        for depth in range(len(path) - 1, -1, -1):
            siblings = self._children(".".join(path[:depth]))
            later = siblings[siblings.index(".".join(path[: depth + 1])) + 1 :]
            following += [name for one in later for name in self._outside_head(one)]
        return [block, *following]

    def _block(self, level: str) -> str:
        """The last block among what a module is made of, or the module itself if it is made of nothing."""
        counts = {one: self._matrices(one) for one in self._children(level)}
        inside = next((one for one in counts if self._holds_head(one) and counts[one]), None)
        candidates = {one: n for one, n in counts.items() if n and not self._holds_head(one)}
        total = sum(candidates.values())
        if inside is not None and counts[inside] > total:
            return self._block(inside)
        if not candidates:
            if not level:
                raise NetworkError("there is no layer with weights before the head")
            return level
        last = next((one for one in reversed(candidates) if candidates[one] > 1), None)
        if last is not None:
            return self._block(last) if 2 * candidates[last] > total else last
        convolutions = [one for one in candidates if any(n > 2 for n in self._of(one).values())]
        return (convolutions or list(candidates))[-1]

    def _children(self, level: str) -> list[str]:
        above = f"{level}." if level else ""
        return [above + name for name, _ in self.net.get_submodule(level).named_children()]

    def _of(self, module: str) -> dict[str, int]:
        """The parameters in a module that are outside the head."""
        own = {name: n for name, n in self.ndims.items() if name.startswith(f"{module}.")}
        return {name: n for name, n in own.items() if not any(name.startswith(f"{one}.") for one in self.head)}

    def _matrices(self, module: str) -> int:
        return sum(n > 1 for n in self._of(module).values())

    def _holds_head(self, module: str) -> bool:
        return any(f"{one}.".startswith(f"{module}.") for one in self.head)

    def _outside_head(self, module: str) -> list[str]:
        """The names of the modules in it, itself included, that have weights and nothing of the head."""
        if not self._of(module):
            return []
        if not self._holds_head(module):
            return [module]
        return [name for one in self._children(module) for name in self._outside_head(one)]
