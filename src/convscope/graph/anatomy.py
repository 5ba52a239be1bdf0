"""The anatomy of a network: a table with a row per operation, and its totals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.base.words import shape_text
from convscope.errors import NetworkError
from convscope.graph.calls import Call
from convscope.graph.costs import nothing
from convscope.graph.fields import receptive_fields
from convscope.graph.naming import unused
from convscope.graph.traced import TracedGraph
from convscope.graph.tracing import check_images, trace
from convscope.graph.untouched import evaluate, left_as_found
from convscope.graph.wrapped import opened, tensors_of

CONVOLUTIONAL = ("conv", "conv_transpose")
DENSE = ("dense",)
RECURRENT = ("rnn", "lstm", "gru")


@dataclass(frozen=True)
class Layer:
    """One row of the table, with its numbers for one image.

    Attributes:
        name: as `Operation.name`.
        kind: as `Operation.kind`.
        output_shape: without the batch.
        parameters: elements of the parameters that it is the first to use.
        neurons: its outputs, where it is convolutional, recurrent (at every step) or dense; else 0, as pools,
            norms and activations add none.
        multiply_adds: multiplications with their additions; 0 for what is no product of weights or
            activations.
        receptive_field: (height, width) in pixels on the infinite plane; None where unknown.
        stride: (down, across) in pixels; None where the operation has no rows and columns that lie evenly on
            the image.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    neurons: int
    multiply_adds: int
    receptive_field: tuple[int, int] | None
    stride: tuple[int, int] | None


@dataclass(frozen=True)
class Share:
    """What one sort of layers holds of the whole network; shares run from 0 to 1."""

    parameters: int
    parameters_share: float
    neurons: int
    neurons_share: float


@dataclass(frozen=True)
class Anatomy:
    """The table of a network's layers, and its totals for one image.

    Attributes:
        network: its name.
        input: (C, H, W).
        layers: in order of execution.
        parameters: elements of all its parameters, those that no layer uses included.
        trainable: of these, those that require a gradient.
        note: one line on what the table does not know exactly; None where it knows all.
    """

    network: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    note: str | None = None

    @property
    def neurons(self) -> int:
        """Outputs of convolutional, recurrent and dense layers; inputs and pools are not counted."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def convolutional(self) -> Share:
        """What the convolutions hold of the network's parameters and neurons."""
        return self._share(CONVOLUTIONAL)

    @property
    def recurrent(self) -> Share:
        """What the recurrent layers hold of the network's parameters and neurons."""
        return self._share(RECURRENT)

    @property
    def dense(self) -> Share:
        """What the dense layers hold of the network's parameters and neurons."""
        return self._share(DENSE)

    def to_json(self) -> dict[str, Any]:
        """The table as plain values; a square receptive field or stride is one number, else [h, w]."""
        return {
            "network": self.network,
            "input": list(self.input),
            "parameters": self.parameters,
            "trainable": self.trainable,
            "neurons": self.neurons,
            "multiply_adds": self.multiply_adds,
            "convolutional": asdict(self.convolutional),
            "recurrent": asdict(self.recurrent),
            "dense": asdict(self.dense),
            "layers": [_layer_to_json(layer) for layer in self.layers],
            **({"note": self.note} if self.note else {}),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Anatomy:
        """The anatomy that `to_json` wrote; its totals are worked out again from the layers."""
        return cls(
            network=table["network"],
            input=tuple(table["input"]),
            layers=tuple(
                Layer(**{key: _from_json(key, value) for key, value in row.items()}) for row in table["layers"]
            ),
            parameters=table["parameters"],
            trainable=table["trainable"],
            note=table.get("note"),
        )

    def _share(self, kinds: tuple[str, ...]) -> Share:
        layers = [layer for layer in self.layers if layer.kind in kinds]
        parameters, neurons = sum(layer.parameters for layer in layers), sum(layer.neurons for layer in layers)
        return Share(parameters, parameters / max(self.parameters, 1), neurons, neurons / max(self.neurons, 1))

    def _repr_html_(self) -> str:
        titles = ("layer", "kind", "output", "parameters", "neurons", "multiply-adds", "receptive field", "stride")
        rows = [_row(_cells(layer)) for layer in self.layers]
        counts = (f"{n:,}" for n in (self.parameters, self.neurons, self.multiply_adds))
        total = _row(["total", "", "", *counts, "", ""])
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        caption = f"<caption>{escape(self.network)}, input {shape_text(self.input)}</caption>"
        head = f"<thead>{_row(titles, 'th')}</thead>"
        return f"<table>{caption}{head}<tbody>{''.join(rows)}</tbody><tfoot>{total}</tfoot></table>{note}"


def anatomy(net: nn.Module, example: Float[Tensor, "N C H W"], name: str | None = None) -> Anatomy:
    """The table of a network's operations: shapes, parameters, neurons, multiply-adds and receptive fields.

    Read off the traced graph. A network that cannot be exported is run once with forward hooks instead: then
    the rows are its modules, receptive fields are unknown, and the note says why.

    Args:
        net: any image network; it is left as it was found.
        example: a batch of which only shape, type and device matter.
        name: what to call the network; None means its class.

    Returns:
        The table, its numbers for one image. The parameters of its layers sum to those the network uses.

    Raises:
        RequestError: the example is no batch of images.
        NetworkError: the network does not run on such images; give an example of the size it was made for.

    Example:
        >>> table = anatomy(nn.Sequential(nn.Conv2d(3, 64, 3, padding=1)), torch.zeros(1, 3, 32, 32))
        >>> table.parameters, table.neurons
        (1792, 65536)
    """
    check_images(example)
    try:
        graph = trace(net, example)
    except NetworkError as error:
        layers = hooked_layers(net, example)
        note = f"read by forward hooks, so modules only and without receptive fields: {error}"
        return _whole(net, example.shape[1:], layers, name, note)
    return anatomy_of(graph, name=name)


def anatomy_of(graph: TracedGraph, name: str | None = None) -> Anatomy:
    """The anatomy of a network that has been traced already; see `anatomy`."""
    fields = receptive_fields(graph)
    layers = [
        Layer(
            name=op.name,
            kind=op.kind,
            output_shape=op.output_shape,
            parameters=op.n_parameters,
            neurons=_neurons(op.kind, op.output_shape),
            multiply_adds=op.row.multiply_adds(Call(op.node, 1)),
            receptive_field=fields[op.name].size,
            stride=fields[op.name].stride,
        )
        for op in graph.operations
    ]
    unknown = ", ".join(f"{op.name} ({op.target})" for op in graph.operations if not op.known)
    routed = ", ".join(op.name for op in graph.operations if op.is_routed and op.row.multiply_adds is not nothing)
    notes = [f"taken to see the whole image, for want of a rule: {unknown}"] if unknown else []
    if routed:
        notes.append(
            f"how many rows they take depends on the image, and neurons and multiply-adds are of one: {routed}"
        )
    return _whole(graph.net, graph.input_shape, layers, name, "; ".join(notes) or None)


def _whole(net: nn.Module, shape: Iterable[int], layers: list[Layer], name: str | None, note: str | None) -> Anatomy:
    parameters = list(net.parameters())
    return Anatomy(
        network=name or type(net).__name__,
        input=tuple(shape),
        layers=tuple(layers),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        note=note,
    )


def _neurons(kind: str, output_shape: tuple[int, ...]) -> int:
    return prod(output_shape) if kind in CONVOLUTIONAL + RECURRENT + DENSE else 0


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    return {
        **asdict(layer),
        "output_shape": list(layer.output_shape),
        "receptive_field": _side(layer.receptive_field),
        "stride": _side(layer.stride),
    }


def _from_json(key: str, value: Any) -> Any:
    """One number of a layer, as `_layer_to_json` wrote it."""
    if key in ("receptive_field", "stride") and isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _side(pair: tuple[int, int] | None) -> int | list[int] | None:
    return None if pair is None else pair[0] if pair[0] == pair[1] else list(pair)


def _cells(layer: Layer) -> list[str]:
    counts = [f"{n:,}" for n in (layer.parameters, layer.neurons, layer.multiply_adds)]
    pairs = ["" if pair is None else shape_text(pair) for pair in (layer.receptive_field, layer.stride)]
    return [layer.name, layer.kind, shape_text(layer.output_shape), *counts, *pairs]


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


_KINDS: dict[type[nn.Module], str] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), "conv"),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "conv_transpose"),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), "batch_norm"),
    nn.Linear: "dense",
    nn.ReLU: "relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    **dict.fromkeys((nn.LSTM, nn.LSTMCell), "lstm"),
    **dict.fromkeys((nn.GRU, nn.GRUCell), "gru"),
    **dict.fromkeys((nn.RNN, nn.RNNCell), "rnn"),
}


def hooked_layers(net: nn.Module, example: Float[Tensor, "N C H W"]) -> list[Layer]:
    """The calls of modules that have no children, or parameters of their own, in the order in which they finish.

    Multiply-adds are known for PyTorch's convolutions, dense and recurrent layers. The network is left as it was found.

    Raises:
        NetworkError: the network does not run on the example.
    """
    layers, counted = list[Layer](), set[int]()
    net = opened(net, example)
    with left_as_found(net), torch.no_grad():
        evaluate(net)
        modules = dict(net.named_modules())
        for path, module in modules.items():
            if not any(module.children()) or list(module.parameters(recurse=False)):
                hook = partial(_add_call, path, modules.keys() - {path}, layers, counted)
                module.register_forward_hook(hook, with_kwargs=True)
        try:
            net(example[:1].detach().clone())
        except Exception as error:  # whatever a network's own code may raise
            shape = shape_text(example.shape[1:])
            reason = " ".join(str(error).split())[:200]
            raise NetworkError(
                f"network {type(net).__name__} does not run on {shape} images "
                f"({type(error).__name__}: {reason}); give an example of the size it was made for"
            ) from error
    return layers


def _add_call(
    path: str,
    others: set[str],
    layers: list[Layer],
    counted: set[int],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    result = next(iter(tensors_of(output).values()), None)
    if result is None:
        return
    new = [p for p in module.parameters(recurse=False) if id(p) not in counted]
    counted.update(id(p) for p in new)
    listed = next((kind for layer, kind in _KINDS.items() if isinstance(module, layer)), None)
    kind = listed or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(module).__name__).lower()
    name, shape = unused(path or kind, others.union(layer.name for layer in layers)), tuple(result.shape[1:])
    cost = _multiply_adds(listed, module, (*args, kwargs.get("input"))[0], result)
    layers.append(Layer(name, kind, shape, sum(p.numel() for p in new), _neurons(kind, shape), cost, None, None))


def _multiply_adds(kind: str | None, module: nn.Module, source: Any, output: Tensor) -> int:
    """Every weight is used once at every position; a user's own layers are not known."""
    if kind == "conv":
        return module.weight.numel() * prod(output.shape[2:])  # type: ignore[operator]
    if kind == "conv_transpose":
        return module.weight.numel() * prod(source.shape[2:])  # type: ignore[operator]
    if kind == "dense":
        return module.weight.numel() * prod(output.shape[1:-1])  # type: ignore[operator]
    if kind in RECURRENT:  # at every step
        return sum(p.numel() for p in module.parameters() if p.ndim == 2) * prod(output.shape[:-1])
    return 0
