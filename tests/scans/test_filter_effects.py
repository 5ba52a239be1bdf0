"""Effects of filters against whole passes of edited weights, planted truths, and the same bytes however data is cut."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.data import ImageSet
from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError
from convscope.lenses import interventions
from convscope.nets import make_task
from convscope.scans import (
    BatchOutputs,
    FilterEffects,
    FirstOrder,
    LayerEffects,
    filter_effects,
    head_of,
    scan,
)
from convscope.scope import Scope
from tests.graph.graph_networks import Mixer, Residual, SqueezeExcite, Transformer, chain
from tests.graph.test_unit_runs import Functional, Twice, with_head
from tests.lenses.lens_networks import ByFunctions, Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing
from tests.scans.scan_networks import CLASSES, bytes_of, make_images, make_scope, network


def images_of(height: int, n: int = 40, classes: int = 3, seed: int = 1) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, height, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return ImageSet(pixels, torch.arange(n), {"class": labels}, {"class": tuple("abcdefghij"[:classes])})


def undecided(net: nn.Module, images: ImageSet, seed: int = 0) -> Scope:
    """The network with weights such that its answers to these images differ, and hang on single units."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    scope = Scope(net.eval(), images.images([0]), normalize=((0.5,) * 3, (0.3,) * 3))
    last: Any = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = scope.logits(images.images())
        scale = 2 / logits.std(0)
        last.weight.mul_(scale[:, None])
        last.bias.copy_((last.bias - logits.mean(0)) * scale)
    return scope


NETWORKS = {
    "mixed": lambda: Mixed(), "functions": lambda: ByFunctions(), "mixer": lambda: with_head(Mixer(), 4),
    "squeeze": lambda: with_head(SqueezeExcite(), 4), "residual": lambda: with_head(Residual(), 4),
    "twice": lambda: with_head(Twice(), 4), "transformer": lambda: Transformer(),
}  # fmt: skip


def classes_of(net: nn.Module) -> int:
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1].out_features


def probabilities(scope: Scope, pixels: Tensor) -> Tensor:
    """By the network itself, untraced."""
    with torch.no_grad():
        return scope.net(scope.prepare(pixels)).softmax(1)


def check(found: LayerEffects, scope: Scope, edit: Any, images: ImageSet) -> int:
    """Compares every figure with those of whole passes, to 1e-6 in probability; returns how many images flip.

    In float32 probabilities differ by some 1e-7. The images' classes must be told apart by more than that.
    """
    pixels, labels, n_classes = images.images(), images.targets_of(), len(images.classes["class"])
    before = probabilities(scope, pixels)
    flips = []
    for unit in range(len(found.measured)):
        after = probabilities(edit(unit), pixels)
        best = after.topk(2, 1).values
        assert float((best[:, 0] - best[:, 1]).min()) > 2e-6
        was, now = before.argmax(1), after.argmax(1)
        for k in range(n_classes):
            of_class = labels == k
            assert int(found.lost[unit, k]) == int((of_class & (was == k) & (now != k)).sum())
            assert int(found.gained[unit, k]) == int((of_class & (was != k) & (now == k)).sum())
            expected = after[of_class, k].double().mean()
            assert float(found.probability_after[unit, k]) == pytest.approx(float(expected), abs=1e-6)
        right = (now == labels).double().mean()
        assert float(found.accuracy_after[unit]) == float(right)
        changes = (after - before).gather(1, labels[:, None])[:, 0].double()
        assert found.probability_change(unit).value == pytest.approx(float(changes.mean()), abs=1e-6)
        assert float(found.deviation[unit]) == pytest.approx(float(changes.std(correction=0)), abs=1e-6)
        differs = ((was == labels) != (now == labels)).nonzero()[:, 0].tolist()
        flips += [[unit, i, int(labels[i]), int(was[i]), int(now[i])] for i in differs]
        assert found.lost_images(unit).tolist() == [i for i in differs if was[i] == labels[i]]
        assert found.gained_images(unit).tolist() == [i for i in differs if now[i] == labels[i]]
    assert found.flips.tolist() == flips
    assert found.accuracy_before == float((before.argmax(1) == labels).double().mean())
    return len(flips)


@pytest.mark.parametrize("name", NETWORKS)
def test_as_whole_passes_of_edited_weights(name: str) -> None:
    net = NETWORKS[name]()
    images = images_of(12, classes=classes_of(net)) if name not in ("mixed", "functions") else images_of(9, classes=5)
    if name == "functions":
        net.fc1 = nn.Linear(16, 8)
    scope = undecided(net, images)
    found = scope.filter_effects(
        images, ["conv", "dense"] if name == "mixed" else "conv", batch_size=16, progress=False
    )
    n = sum(
        check(each, scope, lambda unit, layer=layer: scope.ablate({layer: unit}), images)
        for layer, each in found.items()
    )
    assert n > 10


def test_convolutions_that_are_no_modules() -> None:
    images = images_of(12)
    scope = undecided(with_head(Functional(), 4), images)
    found = scope.filter_effects(images, "conv", batch_size=7, progress=False)
    for layer, weight in zip(found, ("first", "second"), strict=True):

        def edit(unit: int, weight: str = weight) -> Scope:
            net = deepcopy(scope.net)
            with torch.no_grad():
                getattr(net[0], weight)[unit] = 0
            return Scope(net, images.images([0]), normalize=((0.5,) * 3, (0.3,) * 3))

        assert check(found[layer], scope, edit, images) > 3


def test_chosen_units_are_as_among_all() -> None:
    images = images_of(9, classes=5)
    scope = undecided(Mixed(), images)
    whole = scope.filter_effects(images, batch_size=16, progress=False)
    asked = {"dilated": torch.tensor([2, 0]), "residual.conv1": 1}
    found = scope.filter_effects(images, asked, batch_size=16, progress=False)
    assert list(found) == ["residual.conv1", "dilated"]
    for layer, units in (("residual.conv1", [1]), ("dilated", [0, 2])):
        assert found[layer].measured.nonzero()[:, 0].tolist() == units
        assert torch.equal(found[layer].lost[units], whole[layer].lost[units])
        assert torch.equal(found[layer].gained[units], whole[layer].gained[units])
        torch.testing.assert_close(found[layer].probability_after[units], whole[layer].probability_after[units])
    screened = scope.filter_effects(images, {"dilated": [0, 1, 2]}, screen=2, batch_size=16, progress=False)["dilated"]
    assert screened.measured.nonzero()[:, 0].tolist() == sorted(screened.estimate[:3].argsort()[1:].tolist())


def test_a_layer_named_by_two_patterns_has_the_units_of_both() -> None:
    images = images_of(12)
    scope = undecided(with_head(Twice(), 4), images)
    found = scope.filter_effects(images, {"conv": 2, "0.conv_2": [0]}, progress=False)
    assert list(found) == ["0.conv"]
    assert found["0.conv"].measured.nonzero()[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize("how", ["zero_activation", "mean_activation"])
def test_activations_are_replaced_as_by_the_lens(how: str) -> None:
    images = images_of(9, classes=5)
    scope = undecided(Mixed(), images)
    layers = ["residual.conv1", "residual.bn1", "dilated", "pool"]
    found = scope.filter_effects(images, layers, how, batch_size=16, progress=False)
    assert list(found) == layers
    for layer, each in found.items():
        assert check(each, scope, lambda unit, at=layer: scope.ablate({at: unit}, how, images.images()), images) > 3


class TokenMlp(nn.Module):
    """As many tokens, and a class token, as its activation has units and more."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 2, stride=2), nn.Parameter(torch.randn(1, 1, 8))
        self.fc1, self.act, self.fc2, self.head = nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head((x + self.fc2(self.act(self.fc1(x)))).mean(1))


class MapNorm(nn.LayerNorm):
    """A layer norm over the units of a map, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_units_of_maps_that_a_norm_turns_and_turns_back() -> None:
    images = images_of(9)
    scope = undecided(chain(nn.Conv2d(3, 12, 3), MapNorm(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 42, 3)), images)
    found = scope.filter_effects(images, ["1"], "zero_activation", progress=False)["1"]
    together = scope.ablation({"1": [11]}, images, "zero_activation", progress=False)
    assert float(together.probability_after.mean()) == pytest.approx(float(found.mean_probability_after[11]), abs=1e-6)


@pytest.mark.parametrize("how", ["zero_activation", "mean_activation"])
def test_units_of_tokens_are_replaced_and_not_tokens(how: str) -> None:
    images = images_of(8)
    scope = undecided(TokenMlp(), images)
    effects = scope.filter_effects(images, ["act"], how, progress=False)["act"]
    labels, pixels = images.targets_of()[:, None], images.images()
    activations = scope.graph.run(scope.prepare(pixels), ["act"])["act"].detach()
    for unit in (0, 5):
        activations_ablated = activations.clone()
        activations_ablated[..., unit] = activations[..., unit].mean() if how == "mean_activation" else 0
        given = {"act": activations_ablated}
        logits = scope.graph.run(scope.prepare(pixels), given=given)[scope.graph.outputs[0]].detach()
        expected = pytest.approx(float(logits.softmax(1).gather(1, labels).mean()), abs=1e-6)
        ablated = scope.ablate({"act": [unit]}, how, pixels)
        assert float(effects.mean_probability_after[unit]) == expected
        assert float(ablated.probabilities(pixels).gather(1, labels).mean()) == expected
        together = scope.ablation({"act": [unit]}, images, how, progress=False)
        assert float(together.probability_after.mean()) == expected


def test_the_mean_of_tokens_is_over_the_class_token_too() -> None:
    """As by the lens, which replaces all tokens, and not over those alone that stand for a place in the image."""
    images = images_of(8, classes=10)
    net = Transformer()
    nn.init.normal_(net.token)
    scope = undecided(net, images)
    [found] = scope.filter_effects(images, "norm", "mean_activation", batch_size=16, progress=False).values()
    check(found, scope, lambda unit: scope.ablate({"norm": unit}, "mean_activation", images.images()), images)


def test_a_layer_that_is_used_again_counts_once() -> None:
    images = images_of(12)
    scope = undecided(with_head(Twice(), 4), images)
    assert list(scope.filter_effects(images, progress=False)) == ["0.conv"]
    assert list(scope.filter_effects(images, "0.conv_2", progress=False)) == ["0.conv"]
    alone = scope.filter_effects(images, "conv", "zero_activation", progress=False)
    assert list(alone) == ["0.conv", "0.conv_2"]
    assert not torch.equal(alone["0.conv"].probability_after, alone["0.conv_2"].probability_after)


def routed() -> tuple[Scope, ImageSet]:
    """Each class is one colour, and is told by one filter; filter 3 is dead. Without its filter a class is taken for c."""
    net: Any = chain(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(4)[:, :3].view(4, 3, 1, 1))
        net[0].bias.copy_(torch.tensor([0.0, 0, 0, -1]))
        net[4].weight.copy_(10 * torch.eye(4)[:3])
        net[4].bias.copy_(torch.tensor([0.0, 0, 1]))
    labels = torch.arange(12) % 3
    pixels = torch.zeros(12, 3, 4, 5, dtype=torch.uint8)
    pixels[torch.arange(12), labels] = 200
    return Scope(net, torch.zeros(1, 3, 4, 5), CLASSES), ImageSet(
        pixels, torch.arange(12), {"class": labels}, {"class": CLASSES}
    )


def test_a_class_that_goes_through_one_filter() -> None:
    scope, images = routed()
    found = scope.filter_effects(images, progress=False)["0"]
    assert found.class_accuracy_before.tolist() == [1, 1, 1]
    assert found.class_accuracy_after.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]]
    assert found.lost_images(0).tolist() == [0, 3, 6, 9]
    assert found.flips[:4].tolist() == [[0, i, 0, 0, 2] for i in (0, 3, 6, 9)]
    assert found.accuracy_after.tolist() == [8 / 12, 8 / 12, 1, 1]
    assert (found.change(0).value, found.change(0, of_class=0).value) == (-4 / 12, -1)
    assert found.change(0, of_class=1).value == 0
    assert torch.equal(found.probability_after[0, 1:], found.probability[1:])
    assert found.probability_change(0).high < 0


def test_a_dead_filter_changes_nothing() -> None:
    scope, images = routed()
    found = scope.filter_effects(images, progress=False)["0"]
    assert torch.equal(found.probability_after[3], found.probability)
    assert (found.lost[3].sum(), found.gained[3].sum(), found.deviation[3]) == (0, 0, 0)
    assert (found.change(3).value, found.probability_change(3).figures) == (0, (0, 0, 0))
    assert found.lost_images(3).tolist() == []


def test_a_class_without_images() -> None:
    scope, images = routed()
    found = scope.filter_effects(images.subset([0, 2, 3]), progress=False)["0"]
    assert found.images_per_class.tolist() == [2, 0, 1]
    assert found.class_accuracy_after.isnan().any(0).tolist() == [False, True, False]
    assert found.change(0, of_class=1).value is None
    assert found.mean_probability_before == pytest.approx(
        float(found.probability[[0, 2]] @ torch.tensor([2 / 3, 1 / 3]).double())
    )


def plain(found: dict[str, LayerEffects]) -> dict[str, dict[str, object]]:
    return {layer: bytes_of(record) for layer, record in found.items()}


def mixed() -> tuple[Scope, ImageSet]:
    images = images_of(9, 36, classes=5)
    return undecided(Mixed(), images), images


def test_every_order_and_partition_of_the_batches_gives_the_same_bytes() -> None:
    scope, images = mixed()
    layers, head = interventions(scope.graph, "conv", "zero_weights"), head_of(scope, images)
    whole = plain(filter_effects(scope, images, batch_size=4, progress=False))
    [estimates] = scan(scope, images, [FirstOrder(scope, layers, head)], batch_size=4, progress=False)
    template = FilterEffects(scope, layers, head)
    batches = []
    for start in range(0, 36, 4):
        rows = torch.arange(start, start + 4)
        prepared = scope.prepare(images.images(rows))
        with torch.no_grad():
            needs = [name for name in template.layers if name != "input"]
            known = scope.graph.run(prepared, [*needs, scope.graph.outputs[0]])
        targets = {"class": images.targets_of()[rows]}
        batches.append(BatchOutputs(rows, known[scope.graph.outputs[0]], targets, known | {"input": prepared}))
    rng = random.Random(0)
    for n_parts in (1, 2, 4, 9):
        shuffled = rng.sample(batches, len(batches))
        parts = [(FilterEffects(scope, layers, head), FirstOrder(scope, layers, head)) for _ in range(n_parts)]
        for i, seen in enumerate(shuffled):
            for each in parts[i % n_parts]:
                each.update(seen)
        first, *others = rng.sample(parts, n_parts)
        for other in others:
            for mine, theirs in zip(first, other, strict=True):
                mine.merge(theirs)
        assert plain(first[0].result()) == whole
        assert all(torch.equal(estimates[layer], found) for layer, found in first[1].result().items())


@pytest.mark.slow
def test_one_process_equals_several() -> None:
    scope, images = make_scope(), make_images()
    alone = scope.filter_effects(images, batch_size=8, progress=False)
    shared = scope.filter_effects(images, batch_size=8, workers=2, progress=False)
    assert plain(shared) == plain(alone)


def test_the_size_of_batches_changes_rounding_alone() -> None:
    """Probabilities to 1e-6, as float32 gives them; counts and flips as they are."""
    scope, images = mixed()
    first = scope.filter_effects(images, progress=False)
    for settings in ({"batch_size": 5}, {"max_memory": 20_000}):
        second = scope.filter_effects(images, progress=False, **settings)
        for layer, found in first.items():
            assert torch.equal(found.flips, second[layer].flips)
            torch.testing.assert_close(found.probability_after, second[layer].probability_after, rtol=0, atol=1e-6)


def test_a_screen_measures_those_that_matter_most_to_first_order() -> None:
    scope, images = mixed()
    whole = scope.filter_effects(images, batch_size=12, progress=False)
    found = scope.filter_effects(images, screen=2, batch_size=12, progress=False)
    for layer, screened in found.items():
        chosen = screened.estimate.argsort(descending=True, stable=True)[:2].sort().values
        assert torch.equal(screened.measured.nonzero()[:, 0], chosen)
        measured = screened.measured
        assert torch.equal(screened.lost[measured], whole[layer].lost[measured])
        torch.testing.assert_close(screened.accuracy_after[measured], whole[layer].accuracy_after[measured])
        assert screened.accuracy_after[~measured].isnan().all()
        assert screened.probability_after[~measured].isnan().all()
        for left in (~measured).nonzero()[:, 0].tolist():
            with pytest.raises(RequestError, match=f"unit {left} of layer '{layer}' was not measured; ask for it"):
                screened.change(left)
        table = screened.table()
        assert table["measured"].sum() == 2
        assert table["change"].notna().sum() == 2
        assert table["estimate"].notna().all()
    everything = scope.filter_effects(images, screen=999, batch_size=12, progress=False)
    assert torch.equal(everything["dilated"].probability_after, whole["dilated"].probability_after)


@pytest.mark.parametrize("how", ["zero_weights", "mean_activation"])
def test_the_estimate_is_the_slope_of_the_cross_entropy(how: str) -> None:
    """A central difference of a step of 1e-6 of the way, in float64: to 1e-6 of the largest."""
    images = images_of(12, 10)
    scope = undecided(with_head(Residual().double(), 4).double(), images)
    [found] = scope.filter_effects(images, "0.conv1", how, screen=1, progress=False).values()
    graph, prepared, labels = scope.graph, scope.prepare(images.images().double()), images.targets_of()
    for unit in range(4):
        with torch.no_grad():
            maps = graph.run(prepared, ["0.conv1"])["0.conv1"]
            value = maps[:, unit].mean() if how == "mean_activation" else 0.0

            def loss(step: float, maps: Tensor = maps, unit: int = unit, value: Any = value) -> Tensor:
                moved = maps.clone()
                moved[:, unit] += step * (value - moved[:, unit])
                beside = graph.run(prepared, ["0.shortcut"])
                logits = graph.run(None, given=beside | {"0.conv1": moved})[graph.outputs[0]]
                return nn.functional.cross_entropy(logits, labels, reduction="none")

            expected = float(((loss(1e-6) - loss(-1e-6)) / 2e-6).abs().mean())
        assert float(found.estimate[unit]) == pytest.approx(expected, abs=1e-6 * float(found.estimate.max()))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_two_classes_by_one_number_or_two(n_outputs: int) -> None:
    images = images_of(9, classes=2)
    net = with_head(Residual(), 4)
    net[3] = nn.Linear(16, n_outputs)
    scope = undecided(net, images)
    found = scope.filter_effects(images, "0.conv1", progress=False)["0.conv1"]
    pixels, labels = images.images(), images.targets_of()
    for unit in range(4):
        edited = scope.ablate({"0.conv1": unit}).probabilities(pixels).double()
        of_true = edited.gather(1, labels[:, None])[:, 0]
        assert float(found.mean_probability_after[unit]) == pytest.approx(float(of_true.mean()), abs=1e-6)
        assert float(found.accuracy_after[unit]) == float((of_true > 0.5).double().mean())


def test_of_several_heads_the_first_counts() -> None:
    images = images_of(9, classes=3)
    targets = images.targets | {"other": 1 - images.targets["class"] % 2}
    images = ImageSet(images.pixels, images.index, targets, images.classes | {"other": ("no", "yes")})
    net = with_head(Residual(), 4)
    net[3] = nn.Linear(16, 4)
    scope = undecided(net, images)
    task = make_task({"other": "sigmoid", "class": "softmax"}, images.classes)
    scope.given_task = task
    found = scope.filter_effects(images, "0.conv1", progress=False)["0.conv1"]
    assert found.classes == ["no", "yes"]
    logits = scope.ablate({"0.conv1": 2}).logits(images.images())
    right = (logits[:, 0] > 0).long() == images.targets_of("other")
    assert float(found.accuracy_after[2]) == float(right.double().mean())


def test_the_table() -> None:
    scope, images = routed()
    table = scope.filter_effects(images, progress=False)["0"].table()
    assert table.iloc[0][["layer", "unit", "lost", "gained"]].tolist() == ["0", 0, 4, 0]
    assert table["accuracy of a"].tolist() == [0, 1, 1, 1]
    assert (table["change_low"] <= table["change"]).all()
    assert (table["change"] <= table["change_high"]).all()
    assert "estimate" not in table


@pytest.mark.parametrize("error", [None, ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_the_network_is_left_as_it_was_found(error: type[BaseException] | None, share: float) -> None:
    net = lived_in(evaluated(Mixed()))
    images = images_of(9, 8, classes=5)
    scope = Scope(net, images.images([0])[..., :8])
    images = ImageSet(images.pixels[..., :8], images.index, images.targets, images.classes)
    ask = lambda: scope.filter_effects(images, "dilated", screen=2, progress=False)  # noqa: E731
    ask()  # traces the network, once
    with Failing() as counting:
        ask()
    before = state(net)
    if error is None:
        with torch.inference_mode():
            ask()
    else:
        with pytest.raises(error), Failing(error, at=max(1, int(share * counting.calls))):
            ask()
    assert state(net) == before


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"layers": "conv9"}, UnknownNameError, "layer 'conv9' is not in this network"),
        (
            {"layers": "bn1"},
            RequestError,
            "layer 'bn1' is a batch_norm and has no filters of its own; .*zero_activation",
        ),
        ({"layers": {"conv1": [0, 9]}}, RequestError, "unit 9 is not in layer 'conv1'"),
        ({"layers": {"conv1": []}}, RequestError, "units of layer 'conv1'"),
        ({"how": "zero"}, SettingError, "^how: 'zero'; expected one of zero_weights, "),
        ({"screen": 0}, SettingError, "^screen: 0 is out of range; give 1 or more"),
        ({"max_memory": 0}, SettingError, "^max_memory: 0 is out of range"),
        (
            {"images": torch.rand(2, 3, 9, 12)},
            RequestError,
            "came without classes, and accuracy needs them; give an Im",
        ),
        ({"images": images_of(9, classes=4)}, RequestError, "images have 4 classes, and the network answers 3 numbers"),
        ({"images": make_images().subset([])}, RequestError, "there are no images to scan"),
    ],
)
def test_bad_requests(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make_scope().filter_effects(**({"images": make_images(), "progress": False} | asked))
    assert "\n" not in str(caught.value)


def test_a_network_that_breaks_without_a_unit() -> None:
    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(1 / self.conv(x).abs().mean((2, 3)))

    scope = make_scope(Dividing().eval())
    with pytest.raises(FailedError, match="with units ablated the network answers with NaN or infinity"):
        scope.filter_effects(make_images(), progress=False)


def test_a_unit_that_is_not_there() -> None:
    scope, images = routed()
    with pytest.raises(RequestError, match=r"^unit 4 is not in layer '0'; it has 0 to 3$"):
        scope.filter_effects(images, progress=False)["0"].lost_images(4)


def test_beside_other_scans_in_one_pass() -> None:
    scope, images = make_scope(network()), make_images()
    head = head_of(scope, images)
    asked = [
        FilterEffects(scope, interventions(scope.graph, [layer], "zero_weights"), head) for layer in ("conv1", "conv2")
    ]
    first, second = scan(scope, images, asked, batch_size=16, progress=False)
    assert plain(first | second) == plain(scope.filter_effects(images, batch_size=16, progress=False))
