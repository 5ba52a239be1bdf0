from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import NetworkError, RequestError, SettingError, UnknownNameError
from convscope.graph import receptive_fields, trace
from convscope.lenses.ablation import ablate
from tests.gpus import CUDA, assert_near, on_gpu
from tests.graph.graph_networks import Mixer, Recurrent, Residual, Transformer, chain
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing

IMAGES = torch.rand(6, 3, 9, 8, generator=torch.Generator().manual_seed(1))
LAYERS: dict[str, Any] = {"residual.conv1": [1], "branches.grouped": [0, 4], "fc": 2}


def answers(net: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return deepcopy(net).eval()(images)


@pytest.fixture
def net() -> nn.Module:
    return lived_in(evaluated(Mixed()))


def test_zero_weights_are_those_of_a_copy_edited_by_hand(net: nn.Module) -> None:
    by_hand: Any = deepcopy(net)
    with torch.no_grad():
        by_hand.residual.conv1.weight[1] = 0  # which has no bias
        for unit in (0, 4):
            by_hand.branches.grouped.weight[unit] = by_hand.branches.grouped.bias[unit] = 0
        by_hand.fc.weight[2] = by_hand.fc.bias[2] = 0
    edited = ablate(net, LAYERS)
    assert torch.equal(answers(edited), answers(by_hand))
    assert list(edited.state_dict()) == list(net.state_dict())
    for name, value in by_hand.state_dict().items():
        assert torch.equal(edited.state_dict()[name], value)
    assert not torch.equal(answers(edited), answers(net))


def test_behind_a_batch_norm_a_silenced_filter_is_a_constant() -> None:
    """β − γ · mean / √(variance + ε) = 0.5 − 2 · 3 / √4, with no ε."""
    net = chain(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1, eps=1e-30)).eval()
    bn: Any = net[1]
    with torch.no_grad():
        for value, number in ((bn.weight, 2), (bn.bias, 0.5), (bn.running_mean, 3), (bn.running_var, 4)):
            value.fill_(number)
    assert answers(ablate(net, {"0": 0}), torch.rand(1, 1, 4, 4)).unique().tolist() == [-2.5]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_unit_of_a_transposed_convolution(groups: int) -> None:
    net = chain(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=groups))
    image = torch.rand(2, 4, 3, 3)
    expected = answers(net, image)
    expected[:, [1, 5]] = 0
    assert torch.equal(answers(ablate(net, {"0": [1, 5]}), image), expected)


@pytest.mark.parametrize("how", ["zero_activation", "mean_activation"])
@pytest.mark.parametrize(
    ("layer", "units"),
    [("residual.bn1", [1]), ("branches.pool", [0]), ("dilated", [0, 3]), ("pool", 2), ("fc", [1, 4])],
)
def test_activations_are_those_that_a_hook_puts_there(net: nn.Module, layer: str, units: Any, how: Any) -> None:
    by_hand = deepcopy(net).eval()
    module = by_hand.get_submodule(layer)
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    answers(by_hand)
    handle.remove()
    mean = seen[0].transpose(0, 1).flatten(1).mean(1)

    def silence(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for unit in [units] if isinstance(units, int) else units:
            output[:, unit] = mean[unit] if how == "mean_activation" else 0
        return output

    module.register_forward_hook(silence)
    edited = ablate(net, {layer: units}, how, IMAGES)
    torch.testing.assert_close(answers(edited), answers(by_hand))  # the means are summed up in another order
    assert list(edited.state_dict()) == list(net.state_dict())
    portioned = ablate(net, {layer: units}, how, IMAGES, max_memory=1)
    torch.testing.assert_close(answers(portioned), answers(edited))


def test_units_of_tokens_are_the_last_axis() -> None:
    """Of four images each, so that no axis can be taken for another."""
    for net, layer in ((Transformer(), "norm"), (Mixer(), "up")):
        seen: list[Tensor] = []
        edited = ablate(net, {layer: [2, 5]}, "mean_activation", torch.rand(4, 3, 8, 8))
        edited.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))  # noqa: B023
        answers(edited, torch.rand(4, 3, 8, 8))
        assert seen[0].shape[-1] == 8
        assert [i for i in range(8) if seen[0][..., i].unique().numel() == 1] == [2, 5]


@pytest.mark.parametrize("how", ["zero_weights", "zero_activation", "mean_activation"])
def test_the_copy_can_be_traced_and_looked_into(net: nn.Module, how: Any) -> None:
    edited = ablate(net, {"dilated": [1]}, how, IMAGES)
    graph = trace(edited, IMAGES[:1])
    with torch.no_grad():
        found = graph.run(IMAGES, ["dilated", *graph.outputs])
    torch.testing.assert_close(found[graph.outputs[0]], answers(edited))
    assert found["dilated"][:, 1].unique().numel() == 1
    assert found["dilated"][:, 0].unique().numel() > 1
    before = receptive_fields(trace(net, IMAGES[:1]))["dilated"]
    assert torch.equal(receptive_fields(graph)["dilated"].boxes, before.boxes)


def test_what_is_not_edited_lies_in_the_same_memory(net: nn.Module) -> None:
    edited = ablate(net, {"dilated": [1]})
    original, copy = dict(net.named_parameters()), dict(edited.named_parameters())
    own = {name for name in original if original[name].data_ptr() != copy[name].data_ptr()}
    assert own == {"dilated.weight", "dilated.bias"}
    assert [p.requires_grad for p in copy.values()] == [p.requires_grad for p in original.values()]
    assert [m.training for m in edited.modules()] == [m.training for m in net.modules()]
    with torch.no_grad():
        net.get_submodule("fc").bias.fill_(7)  # type: ignore[union-attr, operator]
    assert copy["fc.bias"].tolist() == [7] * 5


def test_using_the_copy_leaves_the_network_as_it_was(net: nn.Module) -> None:
    before = state(net)
    edited = ablate(net, {"dilated": [1]}, "mean_activation", IMAGES)
    assert state(net) == before
    with torch.random.fork_rng(devices=[]):
        edited.train()(IMAGES).sum().backward()  # writes statistics and gradients
    assert state(net) == before


def test_an_ablated_copy_can_be_ablated_again_moved_and_copied(net: nn.Module) -> None:
    once = ablate(net, {"dilated": [1]}, "mean_activation", IMAGES)
    twice = ablate(once, {"dilated": [3]}, "zero_activation", IMAGES)
    both = deepcopy(twice).double()
    graph = trace(both, IMAGES[:1].double())
    with torch.no_grad():
        found = graph.run(IMAGES.double(), [name for name in graph.by_name if name.startswith("dilated")])
    silent = [unit for unit in range(4) if list(found.values())[-1][:, unit].unique().numel() == 1]
    assert silent == [1, 3]
    assert torch.equal(answers(net), answers(deepcopy(net)))


def test_shared_weights_and_reused_layers() -> None:
    """A layer used twice is silenced in both places; another layer with the same weights is not."""
    net: Any = nn.Module()
    net.one, net.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    net.two.weight = net.one.weight
    net.again = net.one
    edited: Any = ablate(net, {"again": [0]})
    assert edited.one is edited.again
    assert edited.one.weight[0].abs().max() == 0
    assert edited.two.weight.data_ptr() == net.one.weight.data_ptr()


def test_weights_worked_out_by_hooks_can_be_copied() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this way of weight norm is old
        net = chain(nn.utils.weight_norm(nn.Conv2d(1, 2, 3)), nn.Conv2d(2, 2, 1))
    net(torch.rand(1, 1, 4, 4))
    assert answers(ablate(net, {"1": [0]}), torch.rand(1, 1, 4, 4))[:, 0].unique().tolist() == [0]
    with pytest.raises(
        UnknownNameError, match=r"layer with filters of its own '0' is not in this network; .*there is 1"
    ):
        ablate(net, {"0": [0]})


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.conv(x)))


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle 'file' object")


@pytest.mark.parametrize(
    ("net", "layers", "how", "images", "error", "message"),
    [
        (ByModules(), {"conv9": 0}, "zero_weights", None, UnknownNameError, "layer with filters of its own 'conv9' is not"),
        (ByModules(), {"bn1": 0}, "zero_weights", None, UnknownNameError, "'bn1' is not in this network; .*conv1, conv2"),
        (ByModules(), {"conv1": [0, 6]}, "zero_weights", None, RequestError, "unit 6 is not in layer 'conv1'; it has 0 to 5"),
        (ByModules(), {"relu1": 6}, "zero_activation", IMAGES, RequestError, "unit 6 is not in layer 'relu1'; it has 0 to 5"),
        (ByModules(), {"relu9": 6}, "zero_activation", IMAGES, UnknownNameError, "layer 'relu9' is not .* mean 'relu"),
        (ByModules(), {"relu1": 0}, "mean_activation", None, RequestError, "how='mean_activation' needs images"),
        (ByModules(), {"relu1": 0}, "zero", None, SettingError, "^how: 'zero'; expected one of zero_weights, "),
        (Residual(), {"relu": 0}, "zero_activation", IMAGES, RequestError, "'relu' runs 2 times in a pass; an activation"),
        (ByFunctions(), {"relu3": 0}, "mean_activation", IMAGES, RequestError, "'relu3' runs 2 times in a pass"),
        (Twice(), {"unused": 0}, "zero_activation", IMAGES[:, :1], RequestError, "'unused' runs 0 times in a pass"),
        (Recurrent(), {"rnn": 0}, "zero_activation", IMAGES[:, :1], RequestError, "'rnn' gives no maps or neurons"),
        (Uncopyable(), {}, "zero_weights", None, NetworkError, "Uncopyable cannot be copied.*TypeError: cannot pickle 'file'"),
    ],
)  # fmt: skip
def test_wrong_requests_leave_everything_as_it_was(
    net: nn.Module, layers: dict, how: Any, images: Any, error: type[Exception], message: str
) -> None:
    before = state(net)
    with pytest.raises(error, match=message) as caught:
        ablate(net, layers, how, images)
    assert "\n" not in str(caught.value)
    assert state(net) == before


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("how", ["zero_weights", "mean_activation"])
def test_a_crash_on_the_way_leaves_everything_as_it_was(
    net: nn.Module, how: str, error: type[BaseException], share: float
) -> None:
    """But for the copying itself: what fails there, on purpose or not, is a NetworkError that says so."""
    with Failing() as counting:
        ablate(net, {"dilated": [1]}, how, IMAGES)
    before = state(net)
    expected = error if error is KeyboardInterrupt else (error, NetworkError)
    with pytest.raises(expected), Failing(error, at=max(1, int(share * counting.calls))):
        ablate(net, {"dilated": [1]}, how, IMAGES)
    assert state(net) == before


@on_gpu
@pytest.mark.parametrize("how", ["zero_weights", "zero_activation", "mean_activation"])
def test_on_a_gpu_as_on_the_cpu(net: nn.Module, how: str) -> None:
    net, images = net.double(), IMAGES.double()
    here = answers(ablate(net, LAYERS, how, images), images)
    net.to(CUDA)
    before = state(net)
    assert_near(answers(ablate(net, LAYERS, how, images.to(CUDA)), images.to(CUDA)), here)
    assert state(net) == before
