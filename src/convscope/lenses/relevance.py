"""The traced graph as Captum's layer-wise relevance propagation wants it: one module for each layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.graph import Operation, TracedGraph
from convscope.lenses.rectified import PassBack, is_rectifier

_SHARED_OUT = {"conv", "conv_transpose", "dense", "batch_norm", "avg_pool", "adaptive_avg_pool", "mean", "sum", "add"}
_PASSED_ON = (
    {"max_pool", "adaptive_max_pool", "dropout", "pad", "concat", "split", "part", "slice", "select"}
    | {"flatten", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "expand"}
    | {"contiguous", "clone", "alias", "to"}
)


class RelevanceSteps(nn.Module):
    """A network whose children are the operations that share relevance out among their inputs, each once.

    Captum sets its hooks on these children and none on the user's network, so functional, reused and residual
    parts of it are reached. Rectifiers pass all relevance on; so do operations that only move values, and max
    pools to where the maximum was.

    Args:
        graph: the traced network.
        output: the operation whose result is returned.
        rule: makes the rule of one operation, a `PropagationRule` of Captum.

    Raises:
        RequestError: there is no rule for an operation of the network, such as attention.
    """

    def __init__(self, graph: TracedGraph, output: str, rule: Callable[[], Any]) -> None:
        super().__init__()
        self._graph, self._output = graph, output
        self._instead: dict[str, Callable[..., Tensor]] = {}
        for op in graph.needed_for(output):
            if is_rectifier(op):
                self._instead[op.name] = _pass_all
            elif op.kind in _SHARED_OUT:
                step = _Step(op, {graph.image, *(o.node for o in graph.operations)}, rule())
                self.add_module(op.name.replace(".", "/"), step)
                self._instead[op.name] = step.stand_in
            elif op.kind not in _PASSED_ON:
                raise RequestError(f"lrp has no rule for {op.name!r}, of kind {op.kind}; try integrated_gradients")

    def forward(self, images: Float[Tensor, "N C H W"]) -> Tensor:
        return self._graph.run(images, [self._output], instead=self._instead)[self._output]


class _Step(nn.Module):
    """One operation, as a module of those arguments that depend on the image."""

    def __init__(self, op: Operation, of_image: set[Any], rule: Any) -> None:
        super().__init__()
        self.rule = rule
        self._places = [i for i, argument in enumerate(op.node.args) if argument in of_image]
        self._compute: Callable[..., Tensor] | None = None

    def stand_in(self, operator: Callable[..., Tensor], *arguments: Any, **more: Any) -> Tensor:
        def compute(*maps: Tensor) -> Tensor:
            given = list(arguments)
            for place, value in zip(self._places, maps, strict=True):
                given[place] = value
            return operator(*given, **more)

        self._compute = compute
        return self(*(arguments[place].clone() for place in self._places))  # a tensor of its own for Captum's hook

    def forward(self, *maps: Tensor) -> Tensor:
        return self._compute(*maps)  # type: ignore[misc]


def _pass_all(operator: Callable[..., Tensor], x: Tensor, *settings: Any, **more: Any) -> Tensor:
    return PassBack.apply(x, operator(x, *settings, **more).detach(), False)
