"""The traced network: its operations in order of execution, and running any part of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_leaves

from convscope.base.console import silenced
from convscope.base.words import shape_text
from convscope.errors import RequestError, UnknownNameError
from convscope.graph.calls import batch_axes, is_tensor_node, resolve, shape_of_one, shapes_at
from convscope.graph.naming import module_path, name_operations
from convscope.graph.table import Row, row_of

_PLANS_HELD = 64
INPUT = "input"
MIXED = "an image's values depend on the images beside it in the batch; heatmaps are of each image alone"
"""A note of graphs; see `TracedGraph.mixes_images`."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a traced network that depends on the image.

    Attributes:
        name: the path of its module, such as "layer1.0.conv2"; with its kind where the module computes more
            than itself.
        kind: in the field's words: conv, dense, relu, max_pool, add, …
        target: torch's name of the operator, such as "aten.conv2d.default".
        inputs: names of the operations that it reads; "input" is the image.
        module: path of the module in whose forward it runs, "" for the network's own.
        output_shape: the shape of its result (of the first, where it gives several) for one image, without
            the batch.
        parameters: names of the parameters that it is the first to use, directly or through the making of its
            weights.
        n_parameters: the number of their elements.
        known: whether its receptive field is exact; if not, it is taken as the whole image.
    """

    name: str
    kind: str
    target: str
    inputs: tuple[str, ...]
    module: str
    output_shape: tuple[int, ...]
    parameters: tuple[str, ...]
    n_parameters: int
    known: bool
    node: Node = field(repr=False)
    row: Row = field(repr=False)

    @property
    def is_routed(self) -> bool:
        """Whether the values of the images decide how many rows it has, as behind a mask of them; then no row is an image's."""
        return bool(free_unbacked_symbols(self.node.meta["val"]))


class TracedGraph:
    """A network as a plain list of operations, run with the network's own weights.

    `trace` makes it. No weight is copied: training the network on, or moving it to another device, shows at
    once. Operations are those of evaluation mode, whatever mode the network is in.

    Attributes:
        operations: in order of execution.
        results: for each tensor that the network returns its name, a key, field or index ("" for a single one), and that of
            its operation.
        outputs: names of the operations that give them; the network's answer to the question of the class comes first.
        image: the node that stands for the batch of images.
        input_shape: (C, H, W) of the images that it takes.
        notes: what a reader of its answers has to know, a line each.
        gradient_checked: whether the graph's gradient is known to be the network's own.
        findings: what has been found out of the operations alone, for who asks again; copies of the graph share it.
    """

    def __init__(
        self,
        net: nn.Module,
        root: nn.Module,
        nodes: Graph,
        image: Node,
        weights: Mapping[Node, str | Tensor],
        results: Mapping[str, Node],
    ) -> None:
        self.net, self._root, self._nodes, self.image, self._weights = net, root, nodes, image, weights
        self._plans: dict[tuple[Any, ...], dict[Node, list[Node]]] = {}
        self.notes: tuple[str, ...] = ()
        self.gradient_checked = False
        self.findings: dict[Any, Any] = {}
        self.input_shape: tuple[int, ...] = shape_of_one(image)
        steps = [node for node in reachable(image) if is_tensor_node(node)]
        self._name_of = name_operations(steps, net, image, lambda node: row_of(node).kind)
        counted: set[int] = set()
        self.operations = tuple(self._operation(node, self._name_of | {image: INPUT}, counted) for node in steps)
        self._node_of = {name: node for node, name in self._name_of.items()} | {INPUT: image}
        self.results = {name: self._name_of[node] for name, node in results.items() if node in self._name_of}
        self.outputs = tuple(dict.fromkeys(self.results.values()))

    def __repr__(self) -> str:
        shape = shape_text(self.input_shape)
        return f"TracedGraph({type(self.net).__name__}, {shape} images, {len(self.operations)} operations)"

    @property
    def note(self) -> str | None:
        """The notes in one line; None without any."""
        return "; ".join(self.notes) or None

    @property
    def mixes_images(self) -> bool:
        """Whether the images of a batch are known to act on each other, so that a lens looks at one at a time."""
        return any(MIXED in note for note in self.notes)

    @property
    def device(self) -> torch.device:
        """Where the network's weights lie now; of one without weights, where it was traced."""
        weights = chain(self.net.parameters(), self.net.buffers())
        return next((weight.device for weight in weights), self.image.meta["val"].device)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device that the network takes images in: one of its weights."""
        weights = (p for p in self.net.parameters() if p.is_floating_point())
        return next(weights, torch.zeros(()))

    def over(self, net: nn.Module) -> TracedGraph:
        """The same operations over another network: a copy of this one, whose weights have other values."""
        graph = copy(self)
        graph.net = net
        return graph

    def answering(self, answer: str, *notes: str) -> TracedGraph:
        """The same graph, in which that operation gives the answer."""
        graph = copy(self)
        graph.outputs = tuple(dict.fromkeys((self.operation(answer).name, *self.outputs)))
        graph.notes = (*self.notes, *notes)
        return graph

    def inserting(
        self,
        name: str,
        build: Callable[[Graph, Node, Mapping[str, Node]], Node],
        constants: Mapping[str, Tensor] | None = None,
    ) -> TracedGraph:
        """A copy of the graph with operations behind one of it.

        Args:
            name: of the operation.
            build: adds nodes to the copy, right behind the operation's node, and gives the one that is read in its place. It
                gets the copy, the operation's node, and the nodes of the constants.
            constants: tensors for `build`, by name.
        """
        nodes, copies = Graph(), dict[Node, Node]()
        placeholders = {key: nodes.placeholder(key) for key in constants or {}}
        for key, placeholder in placeholders.items():
            placeholder.meta = {"val": (constants or {})[key]}
        with silenced():  # PyTorch warns of the sizes that its own export wrote into the arguments
            nodes.output(nodes.graph_copy(self._nodes, copies))
        node = copies[self.operation(name).node]
        readers = list(node.users)
        with nodes.inserting_before(node.next):
            last = build(nodes, node, placeholders)
        for reader in readers:
            reader.replace_input_with(node, last)
        weights = {copies[old]: source for old, source in self._weights.items()}
        weights |= {placeholders[key]: value for key, value in (constants or {}).items()}
        results = {key: copies[self._node_of[operation]] for key, operation in self.results.items()}
        results = {key: last if result is node else result for key, result in results.items()}
        graph = TracedGraph(self.net, self._root, nodes, copies[self.image], weights, results)
        answer = copies[self._node_of[self.outputs[0]]]
        extended = graph.answering(graph._name_of[last if answer is node else answer], *self.notes)
        extended.gradient_checked = self.gradient_checked
        return extended

    @cached_property
    def by_name(self) -> dict[str, Operation]:
        return {op.name: op for op in self.operations}

    def operation(self, name: str) -> Operation:
        """The operation of that name.

        Raises:
            UnknownNameError: there is none; the message lists those there are.
        """
        if not isinstance(name, str) or name not in self.by_name:
            raise UnknownNameError("layer", name, self.by_name, "in this network")
        return self.by_name[name]

    def run(
        self,
        images: Float[Tensor, "N C H W"] | None,
        outputs: Sequence[str] | None = None,
        given: Mapping[str, Tensor] | None = None,
        instead: Mapping[str, Callable[..., Any]] | None = None,
        before_each: Callable[[], object] | None = None,
    ) -> dict[str, Tensor]:
        """The results of the wanted operations, by name.

        Only what they need is run, and each tensor is let go after its last use. Gradients flow unless
        switched off around the call. An in-place operation of the network is run out of place, so every
        result stays as it was.

        Args:
            images: normalised, of the size that the network was traced with, any number. None where `given`
                suffices.
            outputs: names of operations; None means what the network returns.
            given: results to start from, by name, in place of running the operations that would give them.
            instead: functions to call in place of operations, by name; each gets the operation's own operator,
                then its arguments.
            before_each: called before each operation; what it raises ends the run.

        Returns:
            Name → tensor, in the order wanted; of an operation with several results, the first.

        Raises:
            UnknownNameError: a name is not in this network.
            RequestError: the images have another shape than those traced, or `given` does not suffice without
                images, or names an operation with several results.

        Example:
            >>> hidden = graph.run(images, ["conv3"])
            >>> logits = graph.run(None, given=hidden)[graph.outputs[0]]
        """
        names = tuple(outputs or self.outputs)
        values: dict[Node, Any] = {self.operation(name).node: value for name, value in (given or {}).items()}
        for node in values:
            if not isinstance(node.meta["val"], Tensor):
                raise RequestError(
                    f"layer {self._name_of[node]!r} has several results; give those of its parts instead"
                )
        if images is not None:
            self.check(images)
            values[self.image] = images
        stand_ins = {self.operation(name).node: function for name, function in (instead or {}).items()}
        n = _batch_size(values)
        for node, finished in self._plan(names, values).items():
            if before_each is not None:
                before_each()
            if node not in values:
                values[node] = self._execute(node, values.__getitem__, n, stand_ins.get(node))
            for done in finished:
                values.pop(done, None)
        return {name: _first(values[self._node_of[name]]) for name in names}

    def check(self, images: Tensor) -> None:
        """Raises RequestError where the images have another shape than those traced."""
        if tuple(images.shape[1:]) != self.input_shape or images.ndim != 4:
            given, expected = shape_text(images.shape), shape_text(self.input_shape)
            raise RequestError(
                f"images have the shape {given}; this graph was traced for N×{expected}: resize, or trace again"
            )

    def needed_for(self, name: str) -> tuple[Operation, ...]:
        """The operations that have to run for that one, which comes last, in order of execution."""
        needed = {self.operation(name).name}
        for op in reversed(self.operations):
            if op.name in needed:
                needed.update(op.inputs)
        return tuple(op for op in self.operations if op.name in needed)

    def depending_on(self, names: Iterable[str]) -> set[str]:
        """These operations, and all that are worked out from them."""
        dependents = set(names)
        for op in self.operations:
            if dependents.intersection(op.inputs):
                dependents.add(op.name)
        return dependents

    def constant(self, node: Node, n: int) -> Tensor:
        """The value of a tensor that does not depend on the image, for a batch of `n` images."""
        values: dict[Node, Any] = {}
        with torch.no_grad():
            for needed in self._needed([node], values):
                values[needed] = self._execute(needed, values.__getitem__, n)
        return values[node]

    def _plan(self, layers: tuple[str, ...], values: Mapping[Node, Any]) -> dict[Node, list[Node]]:
        """The nodes to run for these layers, each with what nobody needs any more once it has run."""
        nodes = tuple(self.operation(name).node for name in layers)
        key = nodes, frozenset(values)
        if key not in self._plans:
            if len(self._plans) >= _PLANS_HELD:
                self._plans.clear()
            self._plans[key] = last_uses(self._needed(nodes, values), keep=set(nodes))
        return self._plans[key]

    def _needed(self, layers: Iterable[Node], values: Mapping[Node, Any]) -> list[Node]:
        """The nodes to run for these layers, in order; those that already have a value end the search."""
        needed: set[Node] = set()
        pending = list(layers)
        while pending:
            node = pending.pop()
            if node in needed:
                continue
            needed.add(node)
            if node is self.image and node not in values:
                raise RequestError("what was given does not suffice to run the wanted layers; pass images as well")
            if node not in values:
                pending += [
                    source for source in node.all_input_nodes if is_tensor_node(source) or source.op == "get_attr"
                ]
        return [node for node in self._nodes.nodes if node in needed]

    def _execute(
        self, node: Node, value_of: Callable[[Node], Any], n: int, stand_in: Callable[..., Any] | None = None
    ) -> Any:
        if node.op == "placeholder":
            source = self._weights[node]
            return source.to(self.device) if isinstance(source, Tensor) else attribute(self.net, source)
        if node.op == "get_attr":  # a part of the graph of its own, such as the body of a torch.no_grad()
            return attribute(self._root, str(node.target))
        args, kwargs = resolve(node.args, value_of, n), resolve(node.kwargs, value_of, n)
        if node in self._placed:
            args, kwargs = map_aggregate((args, kwargs), self._here)
        operator: Any = node.target
        result = stand_in(operator, *args, **kwargs) if stand_in else operator(*args, **kwargs)
        if operator is torch.ops.aten.batch_norm.default and result.requires_grad:
            # PyTorch (2.11 and 2.13, CPU) reads the gradient of a single image in a wrong order where its units lie side
            # by side, as behind a stem whose map becomes a list of tokens.
            result.register_hook(Tensor.contiguous)
        return result

    @cached_property
    def _placed(self) -> set[Node]:
        """The nodes that name the device on which the network was traced, such as the making of a range of numbers."""
        arguments = ((node, leaf) for node in self._nodes.nodes for leaf in tree_leaves((node.args, node.kwargs)))
        return {node for node, leaf in arguments if isinstance(leaf, torch.device)}

    def _here(self, argument: Any) -> Any:
        traced_on = self.image.meta["val"].device.type
        return self.device if isinstance(argument, torch.device) and argument.type == traced_on else argument

    def _operation(self, node: Node, names: Mapping[Node, str], counted: set[int]) -> Operation:
        row = row_of(node)
        parameters = {}
        for path in self._weight_paths(node, names):
            weight = attribute(self.net, path)
            if isinstance(weight, nn.Parameter) and id(weight) not in counted:
                counted.add(id(weight))
                parameters[path] = weight.numel()
        return Operation(
            name=names[node],
            kind=row.kind,
            target=str(node.target),
            inputs=tuple(names[source] for source in node.all_input_nodes if source in names),
            module=module_path(node),
            output_shape=shape_of_one(node),
            parameters=tuple(parameters),
            n_parameters=sum(parameters.values()),
            known=row.known,
            node=node,
            row=row,
        )

    def _weight_paths(self, node: Node, names: Mapping[Node, str]) -> list[str]:
        """The network's own tensors that the node uses, also through operations that only prepare weights."""
        paths, pending, met = list[str](), [node], {node}
        while pending:
            source = pending.pop()
            if isinstance(own := self._weights.get(source), str):
                paths.append(own)
            new = [one for one in source.all_input_nodes if one not in names and one not in met]
            met.update(new)
            pending += reversed(new)
        return paths


def attribute(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted path of modules."""
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part)
    return value


def reachable(start: Node) -> list[Node]:
    """The nodes that depend on `start`, in order of execution, without those that only handle its size."""
    dependents = {start}
    for node in start.graph.nodes:
        if node.op == "call_function" and is_tensor_node(node) and any(s in dependents for s in node.all_input_nodes):
            dependents.add(node)
    return [node for node in start.graph.nodes if node in dependents and node is not start]


def last_uses(nodes: Sequence[Node], keep: Collection[Node] = ()) -> dict[Node, list[Node]]:
    """Each node, in order of execution, with those that nobody needs any more once it has run; without those to keep."""
    last = {source: node for node in nodes for source in (*node.all_input_nodes, node)}
    finished: dict[Node, list[Node]] = {node: [] for node in nodes}
    for source, node in last.items():
        if source not in keep:
            finished[node].append(source)
    return finished


def _batch_size(values: Mapping[Node, Any]) -> int:
    """The number of images, read off any tensor that has the batch's axis."""
    for node, value in values.items():
        axis = batch_axes(node)[0]
        if axis >= 0:
            return value.shape[axis] // shapes_at(node, 1)[0][axis]
    raise RequestError("nothing to run on; pass images, or results to start from")


def _first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]
