"""One node of the graph, read by the names of its operator's schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.node import map_aggregate


def at_batch(value: Any, n: int) -> Any:
    """A size of the graph, which may be an expression of the batch's size, at a batch of `n` images."""
    if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return value
    number = _evaluated(value.node.expr, n)
    if isinstance(value, torch.SymInt):
        return int(number)
    return float(number) if isinstance(value, torch.SymFloat) else bool(number)


@lru_cache(maxsize=10_000)
def _evaluated(expression: Any, n: int) -> Any:
    # A network has few expressions of its batch's size, and SymPy takes 0.08 ms to evaluate one.
    return expression.subs(dict.fromkeys(expression.free_symbols, n))


def is_tensor_node(node: Node) -> bool:
    """Whether the node yields a tensor or several; other nodes compute sizes or check them."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value))


def shapes_at(node: Node, n: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of the tensors that `node` yields (one, for most) at a batch of `n` images."""
    value = node.meta["val"]
    tensors = value if isinstance(value, list | tuple) else (value,)
    return tuple(tuple(at_batch(d, n) for d in t.shape) for t in tensors if isinstance(t, Tensor))


def batch_axes(node: Node) -> tuple[int, ...]:
    """For each tensor that `node` yields the axis that grows with the batch; −1 where none does."""
    pairs = zip(shapes_at(node, 1), shapes_at(node, 2), strict=True)
    return tuple(next((i for i, (a, b) in enumerate(zip(*shapes, strict=True)) if a != b), -1) for shapes in pairs)


def shape_of_one(node: Node) -> tuple[int, ...]:
    """The shape of the (first) tensor that `node` yields, for one image and without the batch's axis."""
    shape, axis = shapes_at(node, 1)[0], batch_axes(node)[0]
    return shape if axis < 0 or shape[axis] > 1 else shape[:axis] + shape[axis + 1 :]


def axis_order(call: Call) -> list[int]:
    """Of a permute or a transpose: for each axis of its result the one of its input."""
    n = len(call.output_shape)
    if "dims" in call:
        return [axis % n for axis in call["dims"]]
    order, first, second = list(range(n)), call["dim0"], call["dim1"]
    order[first], order[second] = order[second], order[first]
    return order


def named_axes(call: Call) -> list[int]:
    """The axes that `dim` names; none or an empty list means all but the batch's."""
    dim = call["dim"]
    return [dim] if isinstance(dim, int) else list(dim or range(1, len(call.input_shape)))


def resolve(argument: Any, values: Callable[[Node], Any], n: int) -> Any:
    """An argument with sizes at a batch of `n` images, and for each tensor node what `values` gives."""
    return map_aggregate(argument, partial(_resolved, values, n))


def _resolved(values: Callable[[Node], Any], n: int, argument: Any) -> Any:
    # Not a function within `resolve`: the tests' annotation checker would decorate it anew at every call.
    if not isinstance(argument, Node):
        return at_batch(argument, n)
    if isinstance(argument.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool):
        return at_batch(argument.meta["val"], n)
    return values(argument)


class Call:
    """The arguments of one node by name, defaults filled in, with what a rule works on in place of tensors.

    `call["stride"]` is a plain value; `call["input"]` is what `values` holds for that tensor, and None for
    one that does not depend on the image (weights, constants). `n` is the batch's size at which shapes are
    given.
    """

    def __init__(
        self,
        node: Node,
        n: int,
        values: Mapping[Node, Any] | None = None,
        constant: Callable[[Node], Tensor] | None = None,
        image_size: tuple[int, int] = (0, 0),
    ) -> None:
        self.node, self.n, self.values = node, n, values or {}
        self.constant, self.image_size = constant, image_size
        self.arguments = _by_name(node)

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    def __getitem__(self, name: str) -> Any:
        return resolve(self.arguments[name], self.values.get, self.n)

    @property
    def input(self) -> Any:
        """The value of the first argument, which for all layers is the feature map."""
        return self[next(iter(self.arguments))]

    @property
    def inputs(self) -> list[Any]:
        """The values of all arguments that depend on the image."""
        return [self.values[node] for node in self.node.all_input_nodes if node in self.values]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shape(next(iter(self.arguments)))

    @property
    def n_spatial(self) -> int:
        """How many axes a convolution or pool slides along: the number in its name, for its images may lack a batch's axis."""
        return int(next(letter for letter in str(self.node.target) if letter.isdigit()))

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        return shapes_at(self.node, self.n)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.output_shapes[0]

    def shape(self, name: str) -> tuple[int, ...]:
        return shapes_at(self.arguments[name], self.n)[0]

    def numel(self, name: str) -> int:
        return prod(self.shape(name))


def _by_name(node: Node) -> dict[str, Any]:
    if not isinstance(node.target, OpOverload):
        return {str(i): a for i, a in enumerate(node.args)} | dict(node.kwargs)
    arguments: dict[str, Any] = {}
    for i, parameter in enumerate(node.target._schema.arguments):
        value = node.args[i] if i < len(node.args) else node.kwargs.get(parameter.name, parameter.default_value)
        arguments[parameter.name] = value
    return arguments
