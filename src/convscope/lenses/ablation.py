"""An edited copy of a network, in which some units are ablated; and the interventions that do the same in its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn.modules.conv import _ConvTransposeNd

from convscope.compute import own_random_state
from convscope.errors import NetworkError, RequestError, SettingError, UnknownNameError
from convscope.graph import Intervention, Operation, Positions, TracedGraph, positions
from convscope.lenses.activations import select_layers
from convscope.lenses.memory import portions
from convscope.lenses.units import Units, choose_units, layers_with_units, units_and_axis

HOW = ("zero_weights", "zero_activation", "mean_activation")
"""What can become of an ablated unit; see `ablate`."""

UnitsOf = Sequence[str] | str | Mapping[str, Units]
"""Layers, by names, patterns or kinds, with all their units; or each with those units that are meant."""

_FILTERED = ("conv", "conv_transpose", "dense")


def ablate(
    net: nn.Module,
    layers: Mapping[str, Units],
    how: str = "zero_weights",
    images: Float[Tensor, "N C H W"] | None = None,
    *,
    graph: TracedGraph | None = None,
    max_memory: int | None = None,
) -> nn.Module:
    """A copy of the network in which some units are ablated; the network itself is left as it is.

    - "zero_weights": the unit's filter and bias are 0, as by pruning. The unit then gives 0; through a batch
      norm behind it that becomes a constant, β − γ·mean/√(variance + ε), which need not be 0 and can be about
      the largest that the unit ever gives: then the unit is not silent.
    - "zero_activation": what the layer gives for the unit is replaced by 0, for any layer.
    - "mean_activation": it is replaced by the unit's mean over `images` and positions, so that what follows
      meets a usual value and no information.

    The copy shares the memory of all weights that are not edited, so it costs little and follows the network
    when that is trained on. Each has its own gradients. Buffers (running statistics, counters) are copies, for
    a forward pass may write them. To train the copy alone, take its `deepcopy`.

    Args:
        net: any network.
        layers: path of the module → the units to ablate, see `choose_units`. A unit is a filter of a
            convolution, a neuron of a dense layer, or the map (N, unit, …) that a module gives. Of dense layers
            and layer norms on tokens it is the last axis, and of other modules on tokens if the graph is given.
        how: see above. With "zero_weights" each layer has to be a convolution or a dense layer; an activation
            is replaced where the module is called, once in a pass.
        images: normalised; needed for activations: the mean is over these. For "zero_activation" one is
            enough, whose pixels do not matter.
        graph: of the network, which knows on which axis of a module's result the units lie.
        max_memory: bytes that the images worked on at once may take; see `portions`.

    Returns:
        The copy, in the network's train or eval mode. Its modules have the same paths, and its state_dict the
        same keys.

    Raises:
        UnknownNameError: there is no such layer, or none that can be ablated so; the message lists those
            there are.
        RequestError: the layer has no such unit; or there are no images where some are needed; or an activation
            cannot be replaced, for the module gives no maps or neurons or does not run exactly once.
        SettingError: `how` is none of the three.
        NetworkError: the network cannot be copied.

    Source: zero weights and the change of accuracy: Morcos et al. 2018, "On the importance of single directions
        for generalization", arXiv 1803.06959.

    Example:
        >>> edited = ablate(net, {"conv1": [0, 1]})
        >>> edited.conv1.weight[:2].abs().max().item(), edited.conv2.weight.data_ptr() == net.conv2.weight.data_ptr()
        (0.0, True)
    """
    check_how(how)
    if not isinstance(layers, Mapping):
        raise RequestError(
            f"layers are a {type(layers).__name__}; expected units by layer, such as {{'conv1': [0, 1]}}"
        )
    if how != "zero_weights":
        return _with_replaced_activations(net, layers, how, images, graph, max_memory)
    copy = _sharing_copy(net)
    modules = {path: module for path, module in _modules(copy).items() if _has_filters(module)}
    for layer, units in layers.items():
        if layer not in modules:
            raise UnknownNameError("layer with filters of its own", layer, modules, "in this network")
        _zero_filters(modules[layer], units, layer)
    return copy


def check_how(how: str) -> None:
    """Raises SettingError where `how` is none of `HOW`."""
    if how not in HOW:
        raise SettingError(f"how: {how!r}; expected one of {', '.join(HOW)}")


def ablated_graph(graph: TracedGraph, edited: nn.Module, layers: Mapping[str, Units], how: str) -> TracedGraph | None:
    """The graph of a network that `ablate` made, from that of the network before, so that it need not be traced again.

    Returns:
        None where that cannot be: a layer is no single operation of the graph, or its activation is replaced elsewhere; or its
        weights are another module's too, under whose name the graph may read them.
    """
    graph, before = graph.over(edited), graph
    holders = Counter(weight for module in before.net.modules() for weight in module.parameters(recurse=False))
    edits = (weight for layer in layers for weight in before.net.get_submodule(layer).parameters(recurse=False))
    if how == "zero_weights" and any(holders[weight] > 1 for weight in edits):
        return None
    for layer in layers if how != "zero_weights" else ():
        if [op.name for op in before.operations if op.module == layer] != [layer]:
            return None
        module = edited.get_submodule(layer)
        hook: Any = list(module._forward_hooks.values())[-1]
        graph = graph.inserting(layer, _inserted, {name: getattr(module, name) for name in hook.args[0]})
    return graph


def _inserted(nodes: Graph, node: Node, constants: Mapping[str, Node]) -> Node:
    new = nodes.call_function(torch.ops.aten.where.self, (*constants.values(), node))
    new.meta = dict(node.meta)
    return new


def interventions(graph: TracedGraph, layers: UnitsOf, how: str) -> dict[str, Intervention]:
    """The same in the graph: for each layer, in the network's order, the units that are meant, which give 0.

    Functions can be among the layers, and single calls of a module that is used again. With "zero_weights" such a module
    is one layer, under its first name.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: a layer's units are not known, or it has no such unit, or with "zero_weights" it has no filters.
    """
    by_layer: dict[str, Intervention] = {}
    units_of = layers if isinstance(layers, Mapping) else dict.fromkeys(layers_with_units(graph, layers))
    for layer, units in units_of.items():
        for name in select_layers(graph, [layer]):
            n_units, axis = units_and_axis(graph, name)
            calls = _with_same_filters(graph, graph.operation(name)) if how == "zero_weights" else (name,)
            no_units = torch.zeros(n_units, dtype=torch.bool)
            intervention = by_layer.setdefault(calls[0], Intervention(calls, torch.zeros(n_units), no_units, axis))
            by_layer[calls[0]] = intervention.of({*intervention.units, *choose_units(units, n_units, calls[0])})
    return {op.name: by_layer[op.name] for op in graph.operations if op.name in by_layer}


def _with_same_filters(graph: TracedGraph, op: Operation) -> tuple[str, ...]:
    """The operations that run with the same filters: calls of one module, not of another with the same weights."""
    if op.kind not in _FILTERED:
        raise RequestError(
            f"layer {op.name!r} is a {op.kind} and has no filters of its own; name a convolution or dense layer, "
            "or give how='zero_activation'"
        )

    def filters(op: Operation) -> tuple[nn.Module, object]:
        return graph.net.get_submodule(op.module), op.node.args[1]

    return tuple(other.name for other in graph.operations if other.kind == op.kind and filters(other) == filters(op))


def _sharing_copy(net: nn.Module) -> nn.Module:
    """A copy with its own modules, buffers and gradients, whose parameters lie in the same memory."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in net.parameters()}
    # What a forward pass left on a module may hang on gradients, and such tensors cannot be deep-copied.
    tensors = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
    memo |= {id(tensor): tensor.detach().clone() for tensor in tensors}
    try:
        return deepcopy(net, memo)
    except Exception as error:  # a module may hold anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise NetworkError(f"network {type(net).__name__} cannot be copied, and so not edited; {reason}") from error


def _modules(net: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in net.named_modules(remove_duplicate=False) if path}


def _has_filters(module: nn.Module) -> bool:
    """Whether its weights are parameters; those that a parametrization computes cannot be set."""
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.ndim >= 2 and not isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _zero_filters(module: nn.Module, units: Units, layer: str) -> None:
    """Gives the module new weights, in which those of some units are 0."""
    parameters = dict(module.named_parameters(recurse=False))
    edited = {name: parameters[name].detach().clone() for name in ("weight", "bias") if name in parameters}
    by_unit = edited["weight"][None]  # (groups, units of a group, …); one group where the order of units needs none
    if isinstance(module, _ConvTransposeNd):  # kept as (in, units of a group, kh, kw), the groups one after another
        by_unit = edited["weight"].unflatten(0, (module.groups, -1)).transpose(1, 2)
    groups, n_each = by_unit.shape[:2]
    chosen = torch.tensor(choose_units(units, groups * n_each, layer))
    by_unit[chosen // n_each, chosen % n_each] = 0
    if "bias" in edited:
        edited["bias"][chosen] = 0
    for name, values in edited.items():
        setattr(module, name, nn.Parameter(values, requires_grad=parameters[name].requires_grad))


def _with_replaced_activations(
    net: nn.Module,
    layers: Mapping[str, Units],
    how: str,
    images: Tensor | None,
    graph: TracedGraph | None,
    max_memory: int | None,
) -> nn.Module:
    if images is None or images.ndim != 4 or not len(images):
        raise RequestError(
            f"how={how!r} needs images (N, C, H, W), normalised, to see what the layers give; pass images="
        )
    means = _mean_activations(net, list(layers), images, graph, max_memory)
    copy = _sharing_copy(net)
    for layer, units in layers.items():
        module, mean = copy.get_submodule(layer), means[layer]
        chosen = torch.zeros_like(mean, dtype=torch.bool)
        chosen.view(-1)[list(choose_units(units, mean.numel(), layer))] = True
        values = mean if how == "mean_activation" else torch.zeros_like(mean)
        number = len(list(module.buffers(recurse=False)))  # a module may be ablated again
        names = (f"ablated_{number}", f"ablated_values_{number}")
        # As buffers they move and are cast with the module, and are no part of the state_dict.
        for name, constant in zip(names, (chosen, values), strict=True):
            module.register_buffer(name, constant, persistent=False)
        module.register_forward_hook(partial(_replaced, names))
    return copy


def _replaced(names: tuple[str, str], module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.where(getattr(module, names[0]), getattr(module, names[1]), output)


def _mean_activations(
    net: nn.Module, layers: list[str], images: Tensor, graph: TracedGraph | None, max_memory: int | None
) -> dict[str, Tensor]:
    """For each layer the units' means over images and positions, in evaluation mode, as they stand behind the batch: (U, 1, 1)
    for a map."""
    probe = _sharing_copy(net).eval()  # so that a forward pass writes nothing on the network
    modules = _modules(probe)
    means = {layer: _Mean(layer, None if graph is None else _positions_of(graph, layer)) for layer in layers}
    for layer, mean in means.items():
        if layer not in modules:
            raise UnknownNameError("layer", layer, modules, "in this network")
        modules[layer].register_forward_hook(mean)
    # A map of 64 units at the image's size, read and written, is about the widest there is.
    bytes_each = 2 * 64 * images[0, 0].numel() * images.element_size()
    with torch.no_grad(), own_random_state(images.device):
        parts = list(portions(len(images), bytes_each, images.device, max_memory))
        for part in parts:
            probe(images[part])
    return {layer: mean.result(len(parts)) for layer, mean in means.items()}


def _positions_of(graph: TracedGraph, layer: str) -> Positions | None:
    """Those of what a module gives: of the last operation within it, for a norm of maps may turn them and turn them back."""
    within = [op.name for op in graph.operations if f"{op.module}.".startswith(f"{layer}.")]
    return positions(graph).get(within[-1]) if within else None


class _Mean:
    """A forward hook that sums up what a module gives."""

    def __init__(self, layer: str, where: Positions | None) -> None:
        self.layer, self.where, self.sums, self.count = layer, where, list[Tensor](), 0

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2:
            raise RequestError(f"layer {self.layer!r} gives no maps or neurons (N, U, …); ablate another layer")
        if self.where is not None:
            axis = self.where.unit_axis(output.ndim)
        else:
            axis = output.ndim - 1 if isinstance(module, nn.Linear | nn.LayerNorm) else 1
        self.sums.append(output.sum([other for other in range(output.ndim) if other != axis]))
        self.count += output.numel() // output.shape[axis]
        self.shape = (-1, *[1] * (output.ndim - 1 - axis))

    def result(self, passes: int) -> Tensor:
        if len(self.sums) != passes:
            raise RequestError(
                f"layer {self.layer!r} runs {len(self.sums) // passes} times in a pass; an activation can be replaced where "
                "it runs once"
            )
        total: Any = sum(each.cpu().double() for each in self.sums)
        return (total / self.count).to(self.sums[0]).view(self.shape)
