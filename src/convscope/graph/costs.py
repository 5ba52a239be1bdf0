"""Multiply-adds of one operation for one image.

A multiplication with its addition counts once, biases do not count. Only products of weights or of
activations with each other count: convolutions, dense layers, matrix products, attention, recurrent layers.
Everything else (norms, activations, pools, sums) counts 0, as is the field's habit.
"""

from __future__ import annotations

from math import prod

from convscope.graph.calls import Call, shapes_at


def nothing(call: Call) -> int:
    return 0


def convolution(call: Call) -> int:
    """Every weight is used once at every position of the output."""
    return call.numel("weight") * prod(call.output_shape[2:])


def transposed_convolution(call: Call) -> int:
    """Every weight is used once at every position of the input."""
    return call.numel("weight") * prod(call.input_shape[2:])


def dense(call: Call) -> int:
    return call.numel("weight") * prod(call.input_shape[:-1])


def matmul(call: Call) -> int:
    """Each element of the product sums over the axis that the factors share."""
    return prod(call.output_shape) * call.input_shape[-1]


def added_matmul(call: Call) -> int:
    """A matrix product with something added to it: addmm, baddbmm."""
    left = call.shape("mat1" if "mat1" in call else "batch1")
    return prod(call.output_shape) * left[-1]


def attention(call: Call) -> int:
    """Queries with keys, and the weights that come of it with values."""
    query, n_keys, n_value = call.shape("query"), call.shape("key")[-2], call.shape("value")[-1]
    return prod(query[:-1]) * n_keys * (query[-1] + n_value)


def einsum(call: Call) -> int:
    """One product for each combination of all the letters and of what an ellipsis stands for; exact for two factors."""
    terms = call.arguments["equation"].replace(" ", "").split("->")[0].split(",")
    factors = [shapes_at(node, call.n)[0] for node in call.arguments["tensors"]]
    sizes: dict[str | int, int] = {}
    for term, shape in zip(terms, factors, strict=True):
        head, _, tail = term.partition("...")
        axes = [*head, *range(len(head) + len(tail) - len(shape), 0), *tail]  # an ellipsis' are aligned at their ends
        sizes |= {axis: max(n, sizes.get(axis, 1)) for axis, n in zip(axes, shape, strict=True)}
    return prod(sizes.values()) if len(factors) > 1 else 0


def recurrent(call: Call) -> int:
    """Every weight matrix is used once at every step; a cell takes a single one."""
    weights = call.arguments["params"] if "params" in call else (call.arguments["w_ih"], call.arguments["w_hh"])
    shapes = [shapes_at(node, call.n)[0] for node in weights]
    return prod(call.input_shape[:-1]) * sum(prod(shape) for shape in shapes if len(shape) == 2)
