"""Names for operations: the path of the module they run in, and their kind where the module runs several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from torch import nn
from torch.fx import Node


def module_path(node: Node) -> str:
    """The path of the innermost module in whose forward the node runs; "" for the network itself."""
    return _stack(node)[-1][1][0]


def name_operations(nodes: Iterable[Node], net: nn.Module, image: Node, kind: Callable[[Node], str]) -> dict[Node, str]:
    """A name for each node, unlike all others.

    A layer is called by its path: "layer1.0.conv2". What a module computes besides gets the module's path and
    its kind: "layer1.0.add", "layer1.0.relu_2". A layer used again gets a number from its second use:
    "relu_2".
    """
    nodes = list(nodes)
    layers = _layer_nodes(nodes, net, image)
    paths = {path for path, _ in net.named_modules()}
    used: set[str] = set()
    names: dict[Node, str] = {}
    for node in sorted(nodes, key=lambda node: node not in layers):  # layers first: a path belongs to its module
        path = module_path(node)
        base = path if node in layers else f"{path}.{kind(node)}".lstrip(".")
        own = {base} if node in layers else set()
        names[node] = unused(base, used | (paths - own))
        used.add(names[node])
    return names


def _layer_nodes(nodes: list[Node], net: nn.Module, image: Node) -> set[Node]:
    """The node that stands for each call of a layer: the one with its weights, else its last."""
    calls: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        calls[_stack(node)[-1][0]].append(node)
    modules = dict(net.named_modules(remove_duplicate=False))
    layers: set[Node] = set()
    for call in calls.values():
        path = module_path(call[0])
        module = modules.get(path)  # None where an export left it out
        # A layer has no parts, other than those that work out its weights.
        parts = () if module is None else [name for name, _ in module.named_children() if name != "parametrizations"]
        if path and not parts:
            with_weights = [
                node for node in call if any(n.op == "placeholder" and n is not image for n in node.all_input_nodes)
            ]
            layers.add(with_weights[0] if len(with_weights) == 1 else call[-1])
    return layers


def _stack(node: Node) -> list[tuple[str, tuple[str, str]]]:
    """The calls of modules around the node, outermost first: (key of the call, (path, class))."""
    stack = node.meta.get("nn_module_stack") or {}
    return [("", ("", ""))] + [(k, (v[0], str(v[1]))) for k, v in stack.items() if k != v[0]]


def unused(base: str, used: set[str]) -> str:
    """The name, with a number from 2 on where it is in use."""
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}_{number}"
    return name
