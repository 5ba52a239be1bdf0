"""Backward passes that a network defines itself (`torch.autograd.Function`), carried into its graph.

`torch.export` records what such a function computes, and its backward is lost: the gradient of the graph would be that
of its operations, 0 for a straight-through sign. So each result of a function is marked while the network is exported,
and in the finished graph the mark becomes an operation whose value is the result and whose gradient is the function's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionMeta
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

_LIBRARY = torch.library.Library("convscope", "FRAGMENT")
_LIBRARY.define("result(Tensor value, Tensor[] inputs, int call, int index) -> Tensor")
_LIBRARY.impl("result", lambda value, inputs, call, index: value.clone(), "CompositeExplicitAutograd")
torch.library.register_fake(
    "convscope::result", lambda value, inputs, call, index: torch.empty_like(value), lib=_LIBRARY
)


@dataclass(frozen=True)
class Result:
    """An operator of the graph: one result of an autograd function, with the gradient that the function defines.

    Attributes:
        function: the class.
        arguments: as they were given, with None for tensors.
        slots: which of them are tensors.
        index: of the result among several.
    """

    function: Any
    arguments: tuple[Any, ...]
    slots: tuple[int, ...]
    index: int = 0

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, value: Tensor, *tensors: Tensor) -> Tensor:
        """The value that the function's operations gave; where gradients are wanted, the function's own result."""
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in (value, *tensors)):
            return value
        arguments = list(self.arguments)
        for slot, tensor in zip(self.slots, tensors, strict=True):
            arguments[slot] = tensor
        result = self.function.apply(*arguments)
        return result[self.index] if isinstance(result, tuple) else result


@contextmanager
def marked_functions() -> Iterator[list[Result]]:
    """While it lasts, the results of autograd functions are marked in what is traced; lists the calls.

    PyTorch's own functions (checkpoints, hooks) are left out: their gradients are those of their operations. So are calls
    that hold tensors or sizes within other arguments.
    """
    calls: list[Result] = []

    def marked(function: Any, forward: Callable[..., Any], given: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = forward(*given, **kwargs)
        has_context = bool(given) and isinstance(given[0], function._backward_cls)
        if not has_context and function.setup_context is Function.setup_context:
            return result  # called by the forward of another function, whose backward counts
        arguments = given[1:] if has_context else given
        slots = tuple(i for i, a in enumerate(arguments) if isinstance(a, Tensor))
        others = [None if i in slots else a for i, a in enumerate(arguments)]
        within = any(isinstance(leaf, Tensor | torch.SymInt | torch.SymFloat) for leaf in pytree.tree_leaves(others))
        if kwargs or within or (has_context and given[0].dirty_tensors):
            return result
        calls.append(Result(function, tuple(others), slots))
        tensors, number = [arguments[i] for i in slots], len(calls) - 1
        if isinstance(result, Tensor):
            return torch.ops.convscope.result(result, tensors, number, 0)
        return tuple(
            torch.ops.convscope.result(one, tensors, number, i) if isinstance(one, Tensor) else one
            for i, one in enumerate(result)
        )

    def attribute(function: Any, name: str) -> Any:
        value = type.__getattribute__(function, name)
        if name != "forward" or function.__module__.startswith("torch."):
            return value

        @wraps(value)
        def forward(*given: Any, **kwargs: Any) -> Any:
            return marked(function, value, given, kwargs)

        return forward

    # `Function.apply`, also one that a module kept, takes `forward` from its class, in all versions of PyTorch.
    metaclass: Any = FunctionMeta
    metaclass.__getattribute__ = attribute
    try:
        yield calls
    finally:
        del metaclass.__getattribute__


def carry(graph: Graph, calls: list[Result]) -> None:
    """Turns each mark of the graph into an operation that carries the function's backward."""
    for node in list(graph.nodes):
        if node.target is torch.ops.convscope.result.default:
            value, tensors, number, index = node.args
            node.target = replace(calls[number], index=index)
            node.args = (value, *tensors)


def is_carried(node: Node) -> bool:
    """Whether the node is a result of an autograd function."""
    return isinstance(node.target, Result)
