"""From a module to its graph, by torch.export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from threading import RLock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, GraphModule, Node

from convscope.base.console import silenced
from convscope.base.words import shape_text
from convscope.errors import NetworkError, RequestError
from convscope.graph.answers import choose
from convscope.graph.calls import Call, batch_axes, is_tensor_node
from convscope.graph.carried import carry, marked_functions
from convscope.graph.traced import MIXED, TracedGraph, attribute, reachable
from convscope.graph.untouched import evaluate, left_as_found
from convscope.graph.wrapped import opened, tensors_of

_ALONE = RLock()  # export keeps state of the process: of two threads that trace at the same time one would fail


def trace(
    net: nn.Module,
    example: Float[Tensor, "N C H W"],
    output: str | int | None = None,
    n_classes: int | None = None,
) -> TracedGraph:
    """The network's graph of operations in evaluation mode, for any number of images of the example's size.

    The network is exported by `torch.export` and left as it was found. Its weights stay its own. One with lazy modules is
    copied and initialised; of one within `DataParallel` or `torch.compile` it is the inner one.

    Args:
        net: any image network whose forward takes one batch of images.
        example: a batch, of which only shape, type and device matter; on the network's device.
        output: which of several results is the answer, by key, field or index; see `convscope.graph.answers.choose`.
        n_classes: how many classes the answer should have, to choose by where `output` is None.

    Raises:
        RequestError: the example is no batch of images.
        UnknownNameError: there is no such output; the message lists those there are.
        NetworkError: the network cannot be exported: it fails on such images, or its path depends on pixel
            values, or it lets the images of a batch act on each other. `anatomy` still works on most such
            networks.

    Example:
        >>> net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 3), relu1=nn.ReLU()))
        >>> [op.name for op in trace(net, torch.zeros(1, 3, 32, 32)).operations]
        ['conv1', 'relu1']
    """
    check_images(example)
    net = opened(net, example)
    shape = shape_text(example.shape[1:])
    with _ALONE, left_as_found(net), _global_hooks_kept(), silenced():
        evaluate(net)
        try:
            program, names = _export(net, example)
        except Exception as error:  # export fails in as many ways as there are networks
            raise NetworkError(
                f"network {type(net).__name__} cannot be traced for {shape} images; {_reason(error)}"
            ) from error
    image, weights = _inputs(program)
    for node in reachable(image):
        if isinstance(node.meta["val"], Tensor) and -1 in batch_axes(node):
            raise NetworkError(
                f"network {type(net).__name__} cannot be traced: {node.target} works out one value from all "
                "images of a batch; let each image stand alone"
            )
    returned = next(iter(reversed(program.graph.nodes))).args[0]
    results = dict(zip(names or map(str, range(len(returned))), returned, strict=True))
    graph = TracedGraph(net, program.graph_module, program.graph, image, weights, results)
    if not graph.results:
        raise NetworkError(
            f"network {type(net).__name__} gives no tensor that is worked out from the images; return logits (N, classes)"
        )
    norms = (op for op in graph.operations if op.kind == "batch_norm")
    if any(Call(op.node, 1).arguments.get("training") for op in norms):
        graph.notes = (f"batch norm without running statistics: {MIXED}",)
    return choose(graph, output, n_classes)


def check_images(images: object) -> None:
    """Raises RequestError unless `images` is a batch N C H W of floats."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        given = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise RequestError(
            f"the example is {given}; expected a float tensor (N, C, H, W), such as torch.zeros(1, 3, 32, 32)"
        )


def _reason(error: Exception) -> str:
    if "Constraints violated" in str(error):
        return (
            "it fixes the number of images in a batch, as do len(x), int(x.shape[0]) and loops over images; "
            "take sizes as x.shape[0], and all images at once"
        )
    if "data-dependent" in str(error):
        return "its path depends on the values of pixels; take the same operations for all images, as by torch.where"
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _export(net: nn.Module, example: Tensor) -> tuple[ExportedProgram, list[str]]:
    """The exported network and the names of its results."""
    # Export takes a batch of one for a fixed size, so it is shown two.
    pair = example.detach()[:1].expand(2, -1, -1, -1).contiguous()
    sizes: Any = {0: Dim.DYNAMIC}
    first = next(iter(signature(net.forward).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:  # forward(*images)
        sizes = (sizes,)
    names: list[str] = []

    def flat(module: nn.Module, inputs: Any, result: Any) -> tuple[Tensor, ...]:
        names[:] = tensors_of(result)
        return tuple(tensors_of(result).values())

    net.register_forward_hook(flat)  # for export knows no dataclasses, and loses keys
    # Without no_grad each no_grad() of the network hides its body from the graph.
    eager, by_shape = torch.compiler.set_stance("force_eager"), _recurrent_layers_by_shape()
    with torch.no_grad(), _plain_attention(), eager, by_shape, marked_functions() as calls:
        program = torch.export.export(net, (pair,), dynamic_shapes=(sizes,), strict=False)
    _inline_full_precision(program.graph_module)
    if not _replace_in_place(program.graph):
        _bypass_dropout(program)
        program = program.run_decompositions({})  # an empty table: little but in-place writes made explicit
    carry(program.graph, calls)
    simplify(program.graph)
    program.graph.eliminate_dead_code()
    return program, names


def _inline_full_precision(module: GraphModule) -> None:
    """Puts what runs in an `autocast(enabled=False)` into the graph itself, for graphs run without autocast anyway."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not torch.ops.higher_order.wrap_with_autocast or node.args[2]:
            continue
        body = attribute(module, node.args[4].target)
        _inline_full_precision(body)
        if any(each.op == "get_attr" for each in body.graph.nodes):  # another part that is kept apart
            continue
        placeholders = [each for each in body.graph.nodes if each.op == "placeholder"]
        with graph.inserting_before(node):
            results: Any = graph.graph_copy(body.graph, dict(zip(placeholders, node.args[5:], strict=True)))
        for part in list(node.users):
            part.replace_all_uses_with(results[part.args[1]])
            graph.erase_node(part)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def _replace_in_place(graph: Graph) -> bool:
    """Gives each in-place operation its out-of-place twin, and its result to later readers.

    Returns False where another view of the written memory is read later, for then the twin is not enough.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    storage: dict[Node, Node] = {}
    for node in graph.nodes:
        storage[node] = node
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            written, twin = node.args[0], _out_of_place(node.target)
            views = [n for n, base in storage.items() if base is storage[written] and n is not written]
            if twin is None or any(order[reader] > order[node] for view in views for reader in view.users):
                return False
            node.target = twin
            written.replace_all_uses_with(node, delete_user_cb=lambda user, place=order[node]: order[user] > place)
        elif (source := _shares_memory_with(node)) is not None:
            storage[node] = storage[source]
    return True


def _bypass_dropout(program: ExportedProgram) -> None:
    """Dropout returns its very input in evaluation, which `run_decompositions` would make a copy of."""
    for node in program.graph.nodes:
        dropout = isinstance(node.target, OpOverload) and "dropout" in node.target._schema.name
        if dropout and not Call(node, 1)["train"]:
            node.replace_all_uses_with(node.args[0])
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _shares_memory_with(node: Node) -> Node | None:
    """The argument whose memory the node's result may share, by its operator's schema."""
    if not isinstance(node.target, OpOverload):
        sources = node.all_input_nodes
        return sources[0] if node.op == "call_function" and sources and is_tensor_node(node) else None
    schema = node.target._schema
    # dropout returns its input
    shares = any(r.alias_info is not None for r in schema.returns) or "dropout" in schema.name
    return node.args[0] if shares and isinstance(node.args[0], Node) else None


def _out_of_place(target: OpOverload) -> OpOverload | None:
    """relu for relu_; None where there is no such twin."""
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].removesuffix("_"), None)
    twin = getattr(packet, target._overloadname, None) if packet is not None else None
    return twin if twin is not None and not twin._schema.is_mutable else None


def _inputs(program: ExportedProgram) -> tuple[Node, dict[Node, str | Tensor]]:
    """The node of the images; and of each other input the path of the parameter or buffer, or the constant itself."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [(nodes[spec.arg.name], spec.kind, spec.target or "") for spec in program.graph_signature.input_specs]
    own = (InputKind.PARAMETER, InputKind.BUFFER)
    weights = {
        node: target if kind in own else program.constants[target]
        for node, kind, target in inputs
        if kind != InputKind.USER_INPUT
    }
    return next(node for node, kind, _ in inputs if kind == InputKind.USER_INPUT), weights


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps torch's attention layers off their fused path, which runs without gradients only."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _recurrent_layers_by_shape() -> Iterator[None]:
    """Export works out the shapes that a recurrent layer gives step by step, 0.2 s each; input and first states tell them."""

    def shaped(x: Tensor, hx: Tensor | Sequence[Tensor], *settings: Any) -> tuple[Tensor, ...]:
        states, is_bidirectional = [hx] if isinstance(hx, Tensor) else hx, settings[-2]
        steps = x.new_empty(*x.shape[:-1], states[0].shape[-1] * (1 + is_bidirectional))
        return (steps, *(state.new_empty(state.shape) for state in states))

    aten = torch.ops.aten
    layers = [aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input]
    before = [dict(layer.py_kernels) for layer in layers]
    try:
        for layer in layers:
            layer.py_kernels.update(dict.fromkeys(layer.py_kernels, shaped))
            layer._dispatch_cache.clear()
        yield
    finally:
        for layer, kernels in zip(layers, before, strict=True):
            layer.py_kernels.update(kernels)
            layer._dispatch_cache.clear()


@contextmanager
def _global_hooks_kept() -> Iterator[None]:
    """Before PyTorch 2.12 an export that fails leaves a hook behind that refuses every buffer that is set from then on."""
    hooks = torch.nn.modules.module._global_buffer_registration_hooks
    before = dict(hooks)
    try:
        yield
    finally:
        hooks.clear()
        hooks.update(before)


aten = torch.ops.aten
Rewrite = Callable[[Graph, Node, Tensor], Node]
"""From the graph, a node and an example of its result to the node that takes its place."""


def simplify(graph: Graph) -> None:
    """Rewrites each operation of `_REWRITES` in place.

    Else constants such as `x.new_zeros(8)` would count as worked out from the images. A written slice becomes what was
    written: PyTorch knows no derivative of `aten.copy`.
    """
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None:
            continue
        with graph.inserting_before(node):
            new = rewrite(graph, node, node.meta["val"])
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _filled(value: Callable[[Node], Any]) -> Rewrite:
    def rewrite(graph: Graph, node: Node, result: Tensor) -> Node:
        options: dict[str, Any] = {"dtype": result.dtype, "device": result.device}
        return graph.call_function(aten.full.default, (list(result.shape), value(node)), options)

    return rewrite


def _reshaped(operator: Any) -> Rewrite:
    return lambda graph, node, result: graph.call_function(operator, (node.args[0], list(result.shape)))


def _permuted(graph: Graph, node: Node, result: Tensor) -> Node:
    sizes_as_numbers: Any = torch.empty(tuple(range(result.ndim)), device="meta")
    order = list(node.target(sizes_as_numbers, *node.args[1:], **node.kwargs).shape)  # type: ignore[operator]
    return graph.call_function(aten.permute.default, (node.args[0], order))


def _concatenated(graph: Graph, node: Node, result: Tensor) -> Node:
    return graph.call_function(aten.cat.default, node.args, node.kwargs)


def _as_type(graph: Graph, node: Node, result: Tensor) -> Node:
    return graph.call_function(aten.to.dtype, (node.args[0], result.dtype))


def _copied(graph: Graph, node: Node, result: Tensor) -> Node:
    source: Any = node.args[1]
    like: Tensor = source.meta["val"]
    if like.dtype != result.dtype:
        source = graph.call_function(aten.to.dtype, (source, result.dtype))
        source.meta = {**node.meta, "val": like.to(result.dtype)}
    return graph.call_function(aten.expand.default, (source, list(result.shape)))


_zeros = _filled(lambda node: 0)
_REWRITES: dict[Any, Rewrite] = {
    **dict.fromkeys((aten.new_zeros.default, aten.zeros_like.default), _zeros),
    # What an uninitialised tensor holds counts for nothing: it is written before it is read.
    **dict.fromkeys((aten.new_empty.default, aten.new_empty_strided.default, aten.empty_like.default), _zeros),
    **dict.fromkeys((aten.new_ones.default, aten.ones_like.default), _filled(lambda node: 1)),
    **dict.fromkeys((aten.new_full.default, aten.full_like.default), _filled(lambda node: node.args[-1])),
    aten.expand_as.default: _reshaped(aten.expand.default),
    # A view holds for the strides of the device that it was traced on.
    **dict.fromkeys(
        (aten.view.default, aten.view_as.default, aten._unsafe_view.default), _reshaped(aten.reshape.default)
    ),
    aten.reshape_as.default: _reshaped(aten.reshape.default),
    **dict.fromkeys((aten.type_as.default, aten.to.other, aten.to.dtype_layout, aten.to.device), _as_type),
    aten.copy.default: _copied,
    **dict.fromkeys((aten.swapaxes.default, aten.swapdims.default, aten.mT.default), _permuted),
    **dict.fromkeys((aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist), _permuted),
    **dict.fromkeys((aten.concat.default, aten.concatenate.default), _concatenated),
    aten.broadcast_to.default: _reshaped(aten.expand.default),
}
