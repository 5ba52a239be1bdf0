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
from graphlib import TopologicalSorter
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
    head_prefixes = tuple(f"{name}." for name in ([*head, HEAD] if hasattr(net, HEAD) else head))
    ndims = {
        name: parameter.ndim
        for name, parameter in net.named_parameters()
        if name in reached and not name.startswith(head_prefixes)
    }
    return _Trunk(net, ndims, head_prefixes).last_block()


def _owner(parameter: str) -> str:
    """The module of a parameter; of a weight that is computed from others (weight norm), that which uses it."""
    module, computed, _ = parameter.partition(".parametrizations.")
    return module if computed else parameter.rpartition(".")[0]


def _parameters_of_output(net: nn.Module, input_shape: tuple[int, int, int]) -> tuple[list[str], list[str]]:
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
        nearest, reached = _leaves(outputs.grad_fn, image)
    return [names[one] for one in nearest if one in names], [names[one] for one in reached if one in names]


def _leaves(output: Any, image: Tensor) -> tuple[set[Tensor], set[Tensor]]:
    """The leaves of autograd's record of a pass: those that enter first, going back from the output on each way to the image
    until a matrix has entered; and all."""
    inputs: dict[Any, list[Any]] = {}
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if node not in inputs:
            inputs[node] = [earlier for earlier, _ in node.next_functions if earlier is not None]
            waiting += inputs[node]
    order = list(TopologicalSorter(inputs).static_order())  # from the leaves to the output
    of_image = set[Any]()  # nodes that depend on the image
    beside = dict[Any, set[Tensor]]()  # the leaves behind all others
    for node in order:
        variable = getattr(node, "variable", None)
        if variable is image or not of_image.isdisjoint(inputs[node]):
            of_image.add(node)
        else:
            beside[node] = {variable} if variable is not None else set().union(*(beside[one] for one in inputs[node]))
    nearest, ways = set[Tensor](), {output}
    for node in reversed(order):
        if node in ways:
            entering = set[Tensor]().union(*(beside[one] for one in inputs[node] if one in beside))
            nearest |= entering
            if not any(one.ndim > 1 for one in entering):
                ways |= of_image.intersection(inputs[node])
    return nearest, {node.variable for node in order if hasattr(node, "variable")}


@dataclass(frozen=True)
class _Trunk:
    """A network without its head.

    Attributes:
        ndims: of each parameter outside the head on which the output depends, by name.
        head_prefixes: the names of the head's modules, each with a dot.
    """

    net: nn.Module
    ndims: dict[str, int]
    head_prefixes: tuple[str, ...]

    def last_block(self, level: str = "") -> list[str]:
        """See the top of this module: the last block in a module, or the module itself if it is made of nothing; and what
        follows it."""
        children = self._children(level)
        counts = {one: sum(n > 1 for n in self._ndims_in(one)) for one in children}
        inside = next((one for one in children if self._holds_head(one) and counts[one]), None)
        candidates = [one for one in children if counts[one] and not self._holds_head(one)]
        total = sum(counts[one] for one in candidates)
        blocks = [one for one in candidates if counts[one] > 1]
        if inside is not None and counts[inside] > total:
            last, goes_on = inside, True
        elif blocks:
            last, goes_on = blocks[-1], 2 * counts[blocks[-1]] > total
        elif candidates:
            convolutions = [one for one in candidates if any(n > 2 for n in self._ndims_in(one))]
            last, goes_on = (convolutions or candidates)[-1], False
        elif level:
            return [level]
        else:
            raise NetworkError("there is no layer with weights before the head")
        later = children[children.index(last) + 1 :]
        following = [name for one in later for name in self._outside_head(one)]
        return [*(self.last_block(last) if goes_on else [last]), *following]

    def _children(self, level: str) -> list[str]:
        above = f"{level}." if level else ""
        return [above + name for name, _ in self.net.get_submodule(level).named_children()]

    def _ndims_in(self, module: str) -> list[int]:
        return [n for name, n in self.ndims.items() if name.startswith(f"{module}.")]

    def _holds_head(self, module: str) -> bool:
        return any(prefix.startswith(f"{module}.") for prefix in self.head_prefixes)

    def _outside_head(self, module: str) -> list[str]:
        """The names of the modules in it, itself included, that have weights and nothing of the head."""
        if not self._ndims_in(module):
            return []
        if not self._holds_head(module):
            return [module]
        return [name for one in self._children(module) for name in self._outside_head(one)]
