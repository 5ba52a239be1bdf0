"""From a module to its graph, by torch.export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node

from convscope.errors import NetworkError, RequestError
from convscope.graph.calls import batch_axes, is_tensor_node
from convscope.graph.traced import TracedGraph, reachable
from convscope.graph.untouched import left_as_found


def trace(net: nn.Module, example: Float[Tensor, "N C H W"]) -> TracedGraph:
    """The network's graph of operations in evaluation mode, for any number of images of the example's size.

    The network is exported by `torch.export` and left as it was found. Its weights stay its own.

    Args:
        net: any image network whose forward takes one batch of images.
        example: a batch, of which only shape, type and device matter; on the network's device.

    Raises:
        RequestError: the example is no batch of images.
        NetworkError: the network cannot be exported: it fails on such images, or its path depends on pixel
            values, or it lets the images of a batch act on each other. `anatomy` still works on most such
            networks.

    Example:
        >>> net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 3), relu1=nn.ReLU()))
        >>> [op.name for op in trace(net, torch.zeros(1, 3, 32, 32)).operations]
        ['conv1', 'relu1']
    """
    check_images(example)
    shape = "×".join(map(str, example.shape[1:]))
    with left_as_found(net), _quiet():
        net.eval()
        try:
            program = _export(net, example)
        except Exception as error:  # export fails in as many ways as there are networks
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise NetworkError(f"network {type(net).__name__} cannot be traced for {shape} images; {reason}") from error
    _refuse_mixing(program, net)
    return TracedGraph(net, program.graph_module, _image_of(program), _weights_of(program))


def check_images(images: object) -> None:
    """Raises RequestError unless `images` is a batch N C H W of floats."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        given = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise RequestError(
            f"the example is {given}; expected a float tensor (N, C, H, W), such as torch.zeros(1, 3, 32, 32)"
        )


def first_line(error: BaseException) -> str:
    """What an exception says, cut to one line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"


def _export(net: nn.Module, example: Tensor) -> ExportedProgram:
    # Export takes a batch of one for a fixed size, so it is shown two.
    pair = example.detach()[:1].expand(2, -1, -1, -1).contiguous()
    with (
        torch.no_grad(),
        _plain_attention(),
    ):  # else each no_grad() of the network hides its body from the graph
        program = torch.export.export(net, (pair,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    if not _replace_in_place(program.graph):
        _bypass_dropout(program)
        program = program.run_decompositions({})  # an empty table: little but in-place writes made explicit
    program.graph.eliminate_dead_code()
    return program


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
            written.replace_all_uses_with(node, delete_user_cb=lambda user, at=order[node]: order[user] > at)
        elif (source := _shares_memory_with(node)) is not None:
            storage[node] = storage[source]
    return True


def _bypass_dropout(program: ExportedProgram) -> None:
    """Dropout returns its very input in evaluation, which `run_decompositions` would make a copy of."""
    for node in program.graph.nodes:
        if isinstance(node.target, OpOverload) and "dropout" in node.target._schema.name:
            node.replace_all_uses_with(node.args[0])
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _shares_memory_with(node: Node) -> Node | None:
    """The argument whose memory the node's result may share, by its operator's schema."""
    if not isinstance(node.target, OpOverload):
        sources = node.all_input_nodes
        return sources[0] if node.op == "call_function" and sources and is_tensor_node(node) else None
    schema = node.target._schema
    shares = (
        any(r.alias_info is not None for r in schema.returns) or "dropout" in schema.name
    )  # which returns its input
    return node.args[0] if shares and isinstance(node.args[0], Node) else None


def _out_of_place(target: OpOverload) -> OpOverload | None:
    """relu for relu_; None where there is no such twin."""
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].removesuffix("_"), None)
    twin = getattr(packet, target._overloadname, None) if packet is not None else None
    return twin if twin is not None and not twin._schema.is_mutable else None


def _refuse_mixing(program: ExportedProgram, net: nn.Module) -> None:
    """A result without the batch's axis has been worked out from all images together."""
    for node in reachable(_image_of(program)):
        if isinstance(node.meta["val"], Tensor) and -1 in batch_axes(node):
            raise NetworkError(
                f"network {type(net).__name__} cannot be traced: {node.target} works out one value from all "
                "images of a batch; let each image stand alone"
            )


def _image_of(program: ExportedProgram) -> Node:
    kinds = _inputs(program)
    return next(node for node, kind, _ in kinds if kind == InputKind.USER_INPUT)


def _weights_of(program: ExportedProgram) -> dict[Node, str | Tensor]:
    """For each other input of the graph the path of the parameter or buffer, or the constant itself."""
    own = (InputKind.PARAMETER, InputKind.BUFFER)
    return {
        node: target if kind in own else program.constants[target]
        for node, kind, target in _inputs(program)
        if kind != InputKind.USER_INPUT
    }


def _inputs(program: ExportedProgram) -> Iterator[tuple[Node, InputKind, str]]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        yield nodes[spec.arg.name], spec.kind, spec.target or ""


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
def _quiet() -> Iterator[None]:
    """Keeps what export says of itself from the user: warnings, log lines, the graph printed on failure."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
