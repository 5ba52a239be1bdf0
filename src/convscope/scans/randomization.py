"""Whether a lens depends on what the network has learned: its maps again as the weights are made random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.compute import own_random_state
from convscope.errors import RequestError
from convscope.graph import Operation, TracedGraph
from convscope.lenses import Attribution, select_layers
from convscope.scans.by_image import Questions, TiedLens, check_map
from convscope.scans.exact import ByImage
from convscope.scans.intervals import Estimate, mean_of
from convscope.scans.scan import check_count

SIMILAR, UNLIKE = 0.7, 0.3
"""Rank correlations with the original map above and below which a verdict is given."""

Copied = Callable[[], tuple[nn.Module, TiedLens]]
"""Makes a copy of the network, whose weights may be written, and the lens tied to that copy."""


@dataclass(frozen=True, eq=False)
class RandomizationCheck:
    """How much of a lens's maps is left as the network's weights are made random, from the last layer downwards.

    Attributes:
        method: the lens.
        layers: those randomized, from the top. At each all above it are random, too.
        index: of each image in its set.
        target: the class asked about, the same for all maps of an image.
        similarity: to the map of the untouched network, Spearman's rank correlation of the absolute values: 1 the
            same order, 0 nothing in common (or the new map is flat). NaN for an image whose own map is flat, which
            orders nothing; it is left out of the means.
    """

    method: str
    layers: list[str]
    index: Int[Tensor, " N"]
    target: Int[Tensor, " N"]
    similarity: Float[Tensor, "N L"]

    @property
    def n(self) -> int:
        """Number of images that could be compared."""
        return int((~self.similarity.isnan()).any(1).sum())

    @property
    def similarities(self) -> dict[str, Estimate]:
        """For each layer the mean similarity over the images."""
        compared = self.similarity[~self.similarity.isnan().any(1)].double()
        return {layer: mean_of(column, -1, 1) for layer, column in zip(self.layers, compared.T.tolist(), strict=True)}

    def table(self) -> pd.DataFrame:
        """A row for each layer: method, layer, mean similarity with its interval."""
        rows = [{"method": self.method, "layer": layer} | one.to_json() for layer, one in self.similarities.items()]
        return pd.DataFrame(rows).rename(columns={"value": "similarity"})

    @property
    def verdict(self) -> str | None:
        """One sentence on what the maps depend on; None where the intervals carry none.

        From the top the layers are named whose weights can be random while the maps stay (above `SIMILAR`); where
        not even the first stays so, it is said if nearly nothing is left at the last (below `UNLIKE`).
        """
        means = self.similarities
        stays = list(takewhile(lambda layer: (means[layer].low or 0) > SIMILAR, self.layers))
        if stays:
            which = (
                stays[0] if len(stays) == 1 else f"{stays[0]} to {stays[-1]}, {len(stays)} of {len(self.layers)} layers"
            )
            return f"{self.method} hardly depends on the weights of {which}: {_figures(means[stays[-1]])} with those random"
        last = means[self.layers[-1]]
        if last.high is None or last.high >= UNLIKE:
            return None
        return f"{self.method} depends on the weights: {_figures(last)} with all down to {self.layers[-1]} random"


def _figures(estimate: Estimate) -> str:
    value, low, high = estimate.figures
    return f"rank correlation {value:z.2f} (95 % {low:z.2f} to {high:z.2f})"


def randomization_check(
    graph: TracedGraph,
    look: TiedLens,
    copied: Copied,
    asked: Questions,
    method: str,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> RandomizationCheck:
    """How much of a lens's maps is left as the weights are made random, layer by layer from the top.

    A lens that explains what the network has learned has to change. From the last layer with filters to the first,
    each layer's weights are drawn anew, those above it staying random, and the lens is taken again for the same class.
    Weights are drawn by the module's own `reset_parameters`, which gives an untrained layer, running statistics
    included; where it has none, or holds other modules, the values of each parameter are shuffled. Norms and the
    like go with the layer that they follow; what lies before the first stays. All is done in a copy.

    Args:
        graph: the traced network.
        look: the lens, tied to the network. Of several channels the largest absolute value counts.
        copied: see `Copied`.
        asked: the images in [0, 1] and the class asked about for each, the same at every step.
        method: the lens's name.
        layers: where to stop and look: names, patterns or kinds, see `convscope.lenses.select_layers`; every layer with
            filters by default. Each costs a look at all images.
        seed: of the weights, from 0 up. They are the same whichever images are asked about, so that parts of a
            data set may be merged.

    Returns:
        A `RandomizationCheck`: for each layer from the top and each image the rank correlation of the absolute values
        with those of the untouched network, in [−1, 1], 0 for nothing in common; and from them the means with 95 %
        intervals, and a verdict in words where they carry one.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: none of the layers has filters.
        SettingError: the seed is negative.
        FailedError: the lens gives NaN or infinity.
        NetworkError: the network cannot be copied.

    Source: Adebayo et al. 2018, section 3.1 (cascading randomization), arXiv 1810.03292. They compare by structural
        similarity too; it needs a scaling of the maps to be chosen, and ranks do not.

    Example:
        >>> result = scope.randomization_check("guided_backprop", images)
        >>> result.similarities, result.verdict
    """
    scan = Randomization(graph, look, copied, method, layers, seed)
    scan.update(asked)
    return scan.result()


class Randomization(ByImage):
    """A scan of the randomization check; the lens sees the images of an update together.

    Args and Raises as of `randomization_check`.
    """

    def __init__(
        self,
        graph: TracedGraph,
        look: TiedLens,
        copied: Copied,
        method: str,
        layers: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        check_count("seed", seed, 0)
        self.look, self.copied, self.method, self.seed = look, copied, method, seed
        self.steps = _cascade(graph, layers)

    def update(self, asked: Questions) -> None:
        own = strength(self.look(asked.images, asked.target))
        net, look = self.copied()
        similar = []
        for number, parameters in enumerate(self.steps.values()):
            randomize(net, parameters, (self.seed, number))
            similar.append(rank_correlation(own, strength(look(asked.images, asked.target))))
        self.keep(asked.index, target=asked.target, similarity=torch.stack(similar, 1))

    def result(self) -> RandomizationCheck:
        return RandomizationCheck(self.method, list(self.steps), **super().result())


def _cascade(graph: TracedGraph, layers: Sequence[str] | None) -> dict[str, list[str]]:
    """The layers to randomize from the top, with the parameters of each and of what follows up to the next."""
    chosen = {op.name for op in graph.operations} if layers is None else set(select_layers(graph, layers))
    steps: dict[str, list[str]] = {}
    for op in graph.operations:
        if op.name in chosen and _has_filters(op, graph.net):
            steps[op.name] = []
        if steps:
            steps[next(reversed(steps))] += op.parameters
    if not steps:
        what = "this network" if layers is None else f"layers {', '.join(map(repr, layers))}"
        raise RequestError(f"{what}: there are no filters to randomize; give layers such as 'conv*' or 'fc*'")
    return dict(reversed(steps.items()))


def _has_filters(op: Operation, net: nn.Module) -> bool:
    """Whether it multiplies by filters; a class token, positions or scales are only joined, added or multiplied on."""
    is_on_each = op.kind in ("add", "concat", "mul") or op.kind.endswith("_norm")
    return not is_on_each and any(net.get_parameter(path).ndim > 1 for path in op.parameters)


def randomize(net: nn.Module, parameters: Sequence[str], seed: Sequence[int]) -> None:
    """Gives some parameters random values, in place; see `Randomization`. Global random states stay as they are.

    Args:
        net: the network, which is written.
        parameters: their paths.
        seed: any number of integers from 0 up.
    """
    before = {path: net.get_parameter(path).detach().clone() for path in parameters}
    modules = dict.fromkeys(net.get_submodule(path.rpartition(".")[0]) for path in parameters)
    device = next((parameter.device for parameter in before.values()), torch.device("cpu"))
    with torch.no_grad(), own_random_state(device):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        for module in modules:
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and not any(module.children()):
                reset()
        for path, old in before.items():
            parameter = net.get_parameter(path)
            if torch.equal(parameter, old):
                parameter.copy_(old.flatten()[torch.randperm(old.numel(), device=old.device)].view_as(old))


def strength(found: Attribution | Tensor) -> Float[Tensor, "N P"]:
    """How much each place matters, for or against: the largest absolute value over the channels, one row an image.

    Raises:
        FailedError: a value is no finite number.
    """
    values = found.values if isinstance(found, Attribution) else found if found.ndim == 4 else found[:, None]
    check_map(values)
    return values.abs().amax(1).flatten(1)


def rank_correlation(first: Float[Tensor, "N P"], second: Float[Tensor, "N P"]) -> Float[Tensor, " N"]:
    """Spearman's rank correlation of each row of `first` with that of `second`, in [−1, 1].

    Equal values share the mean of their ranks. 0 where the second row is flat, NaN where the first is.

    Source: Spearman 1904, doi 10.2307/1412159.
    """
    a, b = (_centred_ranks(rows) for rows in (first, second))
    lengths = a.norm(dim=1) * b.norm(dim=1)
    correlation = torch.where(lengths > 0, (a * b).sum(1) / lengths.clamp(min=1e-300), 0).clamp(-1, 1)
    return torch.where(a.any(1), correlation, torch.nan)


def _centred_ranks(rows: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
    """The mean rank of each value among its row's, less the mean of all."""
    ordered = rows.sort(dim=1).values
    below, upto = (torch.searchsorted(ordered, rows, right=right) for right in (False, True))
    return (below + upto).double() / 2 - rows.shape[1] / 2
