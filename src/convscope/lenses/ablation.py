"""An edited copy of a network, in which some units are silenced."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn.modules.conv import _ConvTransposeNd

from convscope.errors import NetworkError, RequestError, SettingError, UnknownNameError
from convscope.graph import TracedGraph
from convscope.lenses.memory import portions
from convscope.lenses.units import Units, choose_units

HOW = ("zero_weights", "zero_activation", "mean_activation")
"""What can become of an ablated unit; see `ablate`."""


def ablate(
    net: nn.Module,
    layers: Mapping[str, Units],
    how: str = "zero_weights",
    images: Float[Tensor, "N C H W"] | None = None,
    *,
    max_memory: int | None = None,
) -> nn.Module:
    """A copy of the network in which some units are silenced; the network itself is left as it is.

    - "zero_weights": the unit's filter and bias are 0, as by pruning. The unit then gives 0; through a batch
      norm behind it that becomes a constant, β − γ·mean/√(variance + ε), which need not be 0 and can be about
      the loudest that the unit ever is: then it is not silenced.
    - "zero_activation": what the layer gives for the unit is replaced by 0, for any layer.
    - "mean_activation": it is replaced by the unit's mean over `images` and positions, so that what follows
      meets a usual value and no information.

    The copy shares the memory of all weights that are not edited, so it costs little and follows the network
    when that is trained on. Each has its own gradients. Buffers (running statistics, counters) are copies, for
    a forward pass may write them. To train the copy alone, take its `deepcopy`.

    Args:
        net: any network.
        layers: path of the module → the units to silence, see `choose_units`. A unit is a filter of a
            convolution, a neuron of a dense layer, or the map (N, unit, …) that a module gives. Of dense layers
            and layer norms on tokens it is the last axis.
        how: see above. With "zero_weights" each layer has to be a convolution or a dense layer; an activation
            is replaced where the module is called, once in a pass.
        images: normalised; needed for activations: the mean is over these. For "zero_activation" one is
            enough, whose pixels do not matter.
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
    if how not in HOW:
        raise SettingError(f"how: {how!r}; expected one of {', '.join(HOW)}")
    if not isinstance(layers, Mapping):
        raise RequestError(
            f"layers are a {type(layers).__name__}; expected units by layer, such as {{'conv1': [0, 1]}}"
        )
    if how == "zero_weights":
        return _with_zero_weights(net, layers)
    return _with_replaced_activations(net, layers, how, images, max_memory)


def ablated_graph(graph: TracedGraph, edited: nn.Module, layers: Mapping[str, Units], how: str) -> TracedGraph | None:
    """The graph of a network that `ablate` made, from that of the network before, so that it need not be traced again.

    Returns:
        None where that cannot be: a layer is no single operation of the graph, or its activation is replaced elsewhere.
    """
    found = graph.over(edited)
    if how == "zero_weights":
        return found
    for layer in layers:
        if [op.name for op in graph.operations if op.module == layer] != [layer]:
            return None
        hooks = edited.get_submodule(layer)._forward_hooks.values()
        replacement = [hook for hook in hooks if isinstance(hook, _Replacement)][-1]
        found = found.inserting(layer, _replaced, replacement.constants(edited.get_submodule(layer)))
    return found


def _replaced(nodes: Graph, node: Node, constants: Mapping[str, Node]) -> Node:
    new = nodes.call_function(torch.ops.aten.where.self, (constants["silenced"], constants["values"], node))
    new.meta = dict(node.meta)
    return new


def _sharing_copy(net: nn.Module) -> nn.Module:
    """A copy with its own modules, buffers and gradients, whose parameters lie in the same memory."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in net.parameters()}
    # What a forward pass left on a module may hang on gradients, and such tensors cannot be deep-copied.
    left = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
    memo |= {id(tensor): tensor.detach().clone() for tensor in left}
    try:
        return deepcopy(net, memo)
    except Exception as error:  # a module may hold anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise NetworkError(f"network {type(net).__name__} cannot be copied, and so not edited; {reason}") from error


def _with_zero_weights(net: nn.Module, layers: Mapping[str, Units]) -> nn.Module:
    copy = _sharing_copy(net)
    known = {path: module for path, module in _modules(copy).items() if _has_filters(module)}
    for layer, units in layers.items():
        if layer not in known:
            raise UnknownNameError("layer with filters of its own", layer, known, "in this network")
        _zero_filters(known[layer], units, layer)
    return copy


def _modules(net: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in net.named_modules(remove_duplicate=False) if path}


def _has_filters(module: nn.Module) -> bool:
    """Whether its weights are parameters; those that a parametrization works out cannot be set."""
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.ndim >= 2 and not isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _zero_filters(module: nn.Module, units: Units, layer: str) -> None:
    """Gives the module new weights, in which those of some units are 0."""
    own = dict(module.named_parameters(recurse=False))
    weight = own["weight"].detach().clone()
    by_unit = _by_unit(module, weight)
    groups, n_each = by_unit.shape[:2]
    chosen = torch.tensor(choose_units(units, groups * n_each, layer))
    by_unit[chosen // n_each, chosen % n_each] = 0
    module.weight = nn.Parameter(weight, requires_grad=own["weight"].requires_grad)
    if "bias" in own:
        bias = own["bias"].detach().clone()
        bias[chosen] = 0
        module.bias = nn.Parameter(bias, requires_grad=own["bias"].requires_grad)


def _by_unit(module: nn.Module, weight: Tensor) -> Tensor:
    """The weights (groups, units of a group, …) in their own memory; one group where the order of units needs none."""
    if isinstance(module, _ConvTransposeNd):  # kept as (in, units of a group, kh, kw), the groups one after another
        return weight.unflatten(0, (module.groups, -1)).transpose(1, 2)
    return weight[None]


def _with_replaced_activations(
    net: nn.Module, layers: Mapping[str, Units], how: str, images: Tensor | None, max_memory: int | None
) -> nn.Module:
    if images is None or images.ndim != 4 or not len(images):
        raise RequestError(
            f"how={how!r} needs images (N, C, H, W), normalised, to see what the layers give; pass images="
        )
    means = _mean_activations(net, list(layers), images, max_memory)
    copy = _sharing_copy(net)
    for layer, units in layers.items():
        mean = means[layer]
        chosen = choose_units(units, len(mean), layer)
        silenced = torch.zeros_like(mean, dtype=torch.bool)
        silenced[list(chosen)] = True
        values = mean if how == "mean_activation" else torch.zeros_like(mean)
        _Replacement.attach(copy.get_submodule(layer), silenced, values)
    return copy


@dataclass(frozen=True)
class _Replacement:
    """A forward hook that puts constants in place of some units' activations.

    Which, and by what, are buffers of the module, so that they move and are cast with it. They are shaped to
    stand behind the batch, (U, 1, 1) for a map, and are no part of the state_dict.
    """

    silenced: str
    values: str

    @classmethod
    def attach(cls, module: nn.Module, silenced: Tensor, values: Tensor) -> None:
        number = len(list(module.buffers(recurse=False)))  # a module may be ablated again
        hook = cls(f"ablated_{number}", f"ablated_values_{number}")
        module.register_buffer(hook.silenced, silenced, persistent=False)
        module.register_buffer(hook.values, values, persistent=False)
        module.register_forward_hook(hook)

    def constants(self, module: nn.Module) -> dict[str, Tensor]:
        """Which units are silenced, and by what, as the module has them."""
        return {"silenced": getattr(module, self.silenced), "values": getattr(module, self.values)}

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.where(getattr(module, self.silenced), getattr(module, self.values), output)


def _mean_activations(net: nn.Module, layers: list[str], images: Tensor, max_memory: int | None) -> dict[str, Tensor]:
    """For each layer the mean over images and positions, (U, 1, 1) for a map; in evaluation mode."""
    probe = _sharing_copy(net).eval()  # so that a forward pass writes nothing on the network
    modules = _modules(probe)
    means = {layer: _Mean(layer) for layer in layers}
    for layer, mean in means.items():
        if layer not in modules:
            raise UnknownNameError("layer", layer, modules, "in this network")
        modules[layer].register_forward_hook(mean)
    gpus = {p.device for p in net.parameters() if p.device.type == "cuda"}
    # A map of 64 units at the image's size, read and written, is about the widest there is.
    bytes_each = 2 * 64 * images[0, 0].numel() * images.element_size()
    with torch.no_grad(), torch.random.fork_rng(devices=gpus):
        parts = list(portions(len(images), bytes_each, images.device, max_memory))
        for part in parts:
            probe(images[part])
    return {layer: mean.result(passes=len(parts)) for layer, mean in means.items()}


class _Mean:
    """A forward hook that sums up what a module gives."""

    def __init__(self, layer: str) -> None:
        self.layer, self.calls, self.count = layer, 0, 0
        self.total: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2:
            raise RequestError(f"layer {self.layer!r} gives no maps or neurons (N, U, …); ablate another layer")
        axis = output.ndim - 1 if isinstance(module, nn.Linear | nn.LayerNorm) else 1
        sums = output.sum([a for a in range(output.ndim) if a != axis], keepdim=True)[0]
        sums = sums.flatten(0, axis - 1)  # tokens' axis goes, positions' axes stay to be stretched over
        self.total = sums.cpu().double() + (0 if self.total is None else self.total)
        self.count += output.numel() // output.shape[axis]
        self.calls += 1
        self.like = sums

    def result(self, passes: int) -> Tensor:
        if self.total is None or self.calls != passes:
            times = self.calls // passes
            raise RequestError(
                f"layer {self.layer!r} runs {times} times in a pass; an activation can be replaced where it runs once"
            )
        return (self.total / self.count).to(self.like)
