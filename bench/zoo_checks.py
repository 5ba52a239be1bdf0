"""What each lens is held against: the module itself, without the traced graph."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.odd_networks import answer

from convscope import Scope

STEPS = 8
"""Of integrated gradients."""

Check = Callable[["Case"], tuple[str | None, float | None]]
"""(note of the lens, difference from the oracle as a share of the largest value; None where there is none)."""


@dataclass(eq=False)
class Case:
    """A network, a scope over it, and what the module itself says."""

    net: nn.Module
    scope: Scope
    images: Tensor

    @property
    def image(self) -> Tensor:
        return self.images[:1]

    @cached_property
    def oracle(self) -> nn.Module:
        """A copy of the module (of a wrapped one the inner one, of a lazy one the scope's own), so that what the oracles do to
        it is not taken for a lens's doing; and itself where it cannot be copied."""
        try:
            return deepcopy(self.scope.net)
        except Exception:  # compiled and exported ones fail in their own ways
            return self.net

    @property
    def dtype(self) -> torch.dtype:
        return next((one.dtype for one in known(self.net.parameters()) if one.is_floating_point()), torch.float32)

    def module(self, images: Tensor) -> Tensor:
        """The class scores that the module gives by itself; of one that ends in a softmax those before it."""
        return _logits(self.oracle, images.to(self.dtype))

    @cached_property
    def target(self) -> int:
        with torch.no_grad():
            return int(self.module(self.image).argmax())

    @cached_property
    def layer(self) -> str:
        """The last convolution that is a module; of its maps and filters the oracles know."""
        convolutions = [name for name, one in self.oracle.named_modules() if isinstance(one, nn.Conv2d)]
        named = [name for name in convolutions if name in self.scope.graph.by_name]
        if not named:
            raise NoOracle
        return named[-1]

    def hooked(self, layer: str, images: Tensor, gradient: bool = False) -> tuple[Tensor, Tensor | None]:
        """What a module gives when it first runs, which its name stands for, and the target logit's gradient there."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
            kept.append(made)
            return made.clone()  # for the next layer may work in place

        hook = self.oracle.get_submodule(layer).register_forward_hook(keep)
        try:
            if not gradient:
                with torch.no_grad():
                    self.module(images)
                return kept[0], None
            score = self.module(_twice(images))[:, self.target].sum()
        finally:
            hook.remove()
        if not kept[0].requires_grad:  # inside a re-entrant checkpoint, which runs forward without gradients
            return kept[0][: len(images)], None
        return kept[0].detach()[: len(images)], self._gradient(score, kept[0])[: len(images)]

    def saliency(self, images: Tensor) -> Tensor:
        given = _twice(images)
        return self._gradient(self.module(given)[:, self.target].sum(), given)[: len(images)]

    def _gradient(self, score: Tensor, at: Tensor) -> Tensor:
        at.retain_grad()
        try:
            score.backward()  # not torch.autograd.grad, which re-entrant checkpoints forbid
        except RuntimeError as error:
            raise NoOracle from error
        self.oracle.zero_grad()
        assert at.grad is not None
        return at.grad


def _twice(images: Tensor) -> Tensor:
    """A leaf that holds them twice: of a single image PyTorch's batch norm gives a wrong gradient behind some layouts."""
    return torch.cat([images, images]).requires_grad_()


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return answer(getattr(net, "logits", net)(images))


def _difference(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    if found.shape != expected.shape:
        raise Wrong(f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    if not found.isfinite().all():
        raise Wrong("not finite")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


class NoOracle(Exception):
    """The module itself cannot be asked: it has no modules of its own, or no gradient."""


class Wrong(Exception):
    """An answer that differs from the oracle's."""


def check_logits(case: Case) -> tuple[str | None, float | None]:
    with torch.no_grad():
        return None, _difference(case.scope.logits(case.image), case.module(case.image))


def check_anatomy(case: Case) -> tuple[str | None, float | None]:
    table = case.scope.anatomy()
    expected = sum(parameter.numel() for parameter in case.oracle.parameters())
    if table.parameters != expected:
        raise Wrong(f"{table.parameters:,} parameters, expected {expected:,}")
    return table.note, 0.0


def check_activations(case: Case) -> tuple[str | None, float | None]:
    [found] = case.scope.activations(case.image, [case.layer]).values()
    return None, _difference(found, case.hooked(case.layer, case.image)[0])


def check_saliency(case: Case) -> tuple[str | None, float | None]:
    found = case.scope.saliency(case.image, case.target)
    return found.note, _difference(found.values, case.saliency(case.image))


def check_guided_backprop(case: Case) -> tuple[str | None, float | None]:
    found = case.scope.guided_backprop(case.image, case.target)
    if not found.values.isfinite().all():
        raise Wrong("not finite")
    return found.note, None


def check_grad_cam(case: Case) -> tuple[str | None, float | None]:
    by_default = case.scope.grad_cam(case.image, target=case.target)
    if not by_default.values.isfinite().all():
        raise Wrong(f"not finite at {by_default.layer}")
    note = "; ".join(filter(None, [f"at {by_default.layer} by default", by_default.note]))
    found = case.scope.grad_cam(case.image, case.layer, case.target)  # of a module the oracle knows the maps
    maps, gradient = case.hooked(case.layer, case.image, gradient=True)
    if gradient is None:
        return note, None
    return note, _difference(found.values, (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))


def check_integrated_gradients(case: Case) -> tuple[str | None, float | None]:
    found = case.scope.integrated_gradients(case.image, case.target, n_steps=STEPS)
    points, weights = np.polynomial.legendre.leggauss(STEPS)  # Captum's own rule, on [-1, 1]
    steps = [
        weight / 2 * case.saliency((1 + point) / 2 * case.image) for point, weight in zip(points, weights, strict=True)
    ]
    return None, _difference(found.values, sum(steps) * case.image)  # the note gives the error of so few steps


def check_occlusion(case: Case) -> tuple[str | None, float | None]:
    side = case.image.shape[-1] // 4
    found = case.scope.occlusion(case.image, side, side, case.target, fill="zero")
    covered = case.image.repeat(16, 1, 1, 1)
    for place, one in enumerate(covered):
        row, column = divmod(place, 4)
        one[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = 0
    with torch.no_grad():
        scores = torch.cat([case.module(one[None]) for one in covered])
    are_probabilities = bool((scores >= 0).all()) and torch.allclose(scores.sum(1), torch.ones(()).to(scores))
    expected = scores if are_probabilities else scores.softmax(1)
    return found.note, _difference(found.probabilities, expected[:, case.target].view(1, 4, 4))


def check_lrp(case: Case) -> tuple[str | None, float | None]:
    found = case.scope.attribute("lrp", case.image, case.target)
    if not found.values.isfinite().all():
        raise Wrong("not finite")
    return found.note, None


def check_ablate(case: Case) -> tuple[str | None, float | None]:
    edited = deepcopy(case.oracle)
    with torch.no_grad():
        for parameter in edited.get_submodule(case.layer).parameters(recurse=False):
            parameter[0] = 0
        expected = _logits(edited, case.image.to(case.dtype))
        return None, _difference(case.scope.ablate({case.layer: [0]}).logits(case.image), expected)


def check_top_patches(case: Case) -> tuple[str | None, float | None]:
    found = case.scope.top_patches(case.images, [case.layer], top=1, before_relu=True)[case.layer]
    if found.looked_at not in dict(case.oracle.named_modules()):
        return None, None
    maps = torch.cat([case.hooked(found.looked_at, image[None])[0] for image in case.images])
    return None, _difference(found.mean, maps.sum((2, 3)).mean(0))


LENSES: dict[str, Check] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


def known(values: Iterable[Tensor]) -> list[Tensor]:
    """Without those of lazy modules that have no shape yet."""
    return [one for one in values if not isinstance(one, nn.UninitializedParameter | nn.UninitializedBuffer)]
