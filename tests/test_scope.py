from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope.errors import DataError, NetworkError, RequestError, RunFolderError, SettingError, UnknownNameError
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.nets import make_task
from convscope.runs import Run
from convscope.scope import Scope

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def network() -> nn.Sequential:
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(inplace=True))
    return nn.Sequential(layers | {"drop1": nn.Dropout(), "flatten": nn.Flatten(), "fc1": nn.Linear(4 * 36, 5)})


@pytest.fixture
def scope() -> Scope:
    return Scope(network(), example=torch.zeros(1, 3, 8, 8), classes="abcde", normalize=(MEAN, DEVIATION))


def test_answers_are_the_networks_in_evaluation_mode(scope: Scope) -> None:
    images = torch.rand(3, 3, 8, 8)
    scope.net.train()
    logits = scope.logits(images)
    assert scope.net.training
    scope.net.eval()
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(logits, scope.net(normalised))
    assert torch.equal(scope.probabilities(images), logits.softmax(1))
    torch.testing.assert_close(scope.logits(images[1]), logits[1:2])


def test_looking(scope: Scope) -> None:
    assert scope.anatomy().parameters == sum(p.numel() for p in scope.net.parameters())
    assert scope.activations(torch.rand(2, 3, 8, 8), ["conv"])["conv1"].shape == (2, 4, 6, 6)
    assert scope.anatomy().layers[0].name == "conv1"
    assert scope.filters("conv1").shape == (4, 3, 3, 3)
    assert scope.receptive_field("relu1").box(0, 5) == (0, 5, 3, 8)
    assert repr(scope) == "Scope(Sequential, 3×8×8 images, 5 classes)"


def test_a_single_sigmoid() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    scope = Scope(net, example=torch.zeros(1, 1, 2, 2))
    image = torch.rand(1, 2, 2)
    second = scope.logits(image).sigmoid()
    torch.testing.assert_close(scope.probabilities(image), torch.cat([1 - second, second], 1))
    named = Scope(net, torch.zeros(1, 1, 2, 2), ["cat", "dog"])
    assert torch.equal(named.saliency(image, "cat").values, -named.saliency(image, "dog").values)


def test_a_run_brings_all_that_a_scope_needs() -> None:
    task = make_task("softmax", {"class": tuple("abcde")})
    run = SimpleNamespace(
        net=network(), classes=tuple("abcde"), normalization=(MEAN, DEVIATION), input_shape=(3, 8, 8), task=task
    )
    scope = Scope(run)
    assert (scope.classes, scope.input_shape) == (tuple("abcde"), (3, 8, 8))
    same = Scope(run.net, torch.zeros(1, 3, 8, 8), normalize=run.normalization)
    image = torch.rand(3, 8, 8)
    assert torch.equal(scope.logits(image), same.logits(image))


def test_a_copy_of_a_scope_takes_images_of_as_many_bits() -> None:
    task = make_task("softmax", {"class": tuple("abcde")})
    scope = Scope(
        SimpleNamespace(
            net=network(), classes=task.classes, normalization=None, input_shape=(3, 8, 8), task=task, bits=16
        )
    )
    for each in (scope, scope.ablate({}), copy(scope)):
        torch.testing.assert_close(
            each.images(np.full((8, 8, 3), 300, np.uint16)), torch.full((1, 3, 8, 8), 300 / 65535)
        )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 9, 8), "images have the shape 3×9×8; this network takes 3×8×8 or N×3×8×8"),
        (torch.zeros(0, 3, 8, 8), "images have the shape 0×3×8×8"),
        (torch.full((3, 8, 8), 255.0), r"pixels run from 255 to 255; expected \[0, 1\]"),
        (torch.randn(4, 3, 8, 8), r"expected \[0, 1\] before normalisation"),
        (torch.full((3, 8, 8), torch.nan), "pixels run from nan to nan"),
    ],
)
def test_bad_images(scope: Scope, images: torch.Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        scope.prepare(images)


def test_whole_numbers(scope: Scope) -> None:
    with pytest.raises(RequestError, match=r"images are torch\.uint8; expected floats"):
        scope.prepare(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_bad_requests(scope: Scope) -> None:
    with pytest.raises(RequestError, match="needs an example of shape"):
        Scope(network())
    with pytest.raises(RequestError, match="a positive deviation for each of 3 channels"):
        Scope(network(), torch.zeros(1, 3, 8, 8), normalize=((0.5,), (0.5,)))
    with pytest.raises(UnknownNameError, match="layer 'conv2' is not in this network"):
        scope.receptive_field("conv2")
    with pytest.raises(NetworkError, match="cannot be traced for 3×9×9 images"):
        Scope(network(), torch.zeros(1, 3, 9, 9)).logits(torch.zeros(3, 9, 9))


SIDES = (6, 9)  # oblong, so that rows and columns cannot be taken for each other
LENSES: dict[str, Callable[[Scope, Any], Any]] = {
    "images": lambda scope, images: scope.images(images),
    "prepare": lambda scope, images: scope.prepare(images),
    "activations": lambda scope, images: scope.activations(images, ["relu1"]),
    "logits": lambda scope, images: scope.logits(images),
    "probabilities": lambda scope, images: scope.probabilities(images),
    "occlusion": lambda scope, images: scope.occlusion(images, [2, (3, 2)], fill="mean"),
    **{name: lambda scope, images, name=name: getattr(scope, name)(images) for name in ATTRIBUTIONS},
    **{
        f"attribute {name}": lambda scope, images, name=name: scope.attribute(name, images)
        for name in (*ATTRIBUTIONS, *CAPTUM_METHODS)
    },
    "integrated_gradients": lambda scope, images: scope.integrated_gradients(images, n_steps=5),
    "ablate": lambda scope, images: scope.ablate({"conv1": [0]}, "mean_activation", images).logits(images),
    "top_patches": lambda scope, images: scope.top_patches(images, "conv1", top=2, progress=False),
    "statistics": lambda scope, images: scope.statistics(images, "conv1", progress=False),
    "faithfulness": lambda scope, images: scope.faithfulness("grad_cam", images, steps=4),
    "randomization_check": lambda scope, images: scope.randomization_check("saliency", images),
    "invariance": lambda scope, images: scope.invariance(images, ["conv1"], shift=[1], rotate=[], scale=[]),
}
"""Every method that takes images without classes."""


def tensors_of(found: Any) -> list[Tensor]:
    if is_dataclass(found):
        return tensors_of([getattr(found, one.name) for one in fields(found)])
    if isinstance(found, dict | list):
        return [tensor for one in (found.values() if isinstance(found, dict) else found) for tensor in tensors_of(one)]
    return [found] if isinstance(found, Tensor) else []


@pytest.fixture(scope="module")
def oblong() -> Scope:
    torch.manual_seed(0)
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), flatten=nn.Flatten())
    net = nn.Sequential(layers | {"fc1": nn.Linear(4 * 54, 5)})
    return Scope(net, example=torch.zeros(1, 3, *SIDES), classes="abcde", normalize=(MEAN, DEVIATION))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Tensor]:
    """An array, a PIL image and a file, and the same as a tensor."""
    arrays = np.random.default_rng(0).integers(0, 256, (3, *SIDES, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "one.png"
    Image.fromarray(arrays[2]).save(path)
    return [arrays[0], Image.fromarray(arrays[1]), path], torch.from_numpy(arrays).permute(
        0, 3, 1, 2
    ).contiguous() / 255


@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_takes_images_of_every_kind(oblong: Scope, pictures: tuple[list[Any], Tensor], lens: str) -> None:
    given, tensor = pictures
    expected = tensors_of(LENSES[lens](oblong, tensor))
    assert expected
    for found in (tensors_of(LENSES[lens](oblong, given)), tensors_of(LENSES[lens](oblong, [*map(one, given)]))):
        for mine, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_works_under_inference_mode_and_on_images_made_there(oblong: Scope, lens: str, inside: bool) -> None:
    images = torch.rand(2, 3, *SIDES, generator=torch.Generator().manual_seed(3))
    expected = tensors_of(LENSES[lens](oblong, images))
    with torch.inference_mode():
        made, scope = images.clone(), Scope(oblong.net, oblong._example(), "abcde", (MEAN, DEVIATION))
        found = tensors_of(LENSES[lens](scope, made)) if inside else None
    for mine, wanted in zip(found or tensors_of(LENSES[lens](scope, made)), expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0, equal_nan=True)
        assert not mine.is_inference()


@pytest.mark.parametrize("normalize", [((123.7,), (58.4,)), ((0.5,), (58.4,)), ((-0.1,), (0.2,))])
def test_a_normalization_of_0_to_255_is_refused(normalize: Any) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(
        RequestError, match=r"^normalize: .* cannot be that of images in \[0, 1\]; of pixels 0…255 divide"
    ):
        Scope(net, torch.zeros(1, 1, 2, 2), normalize=normalize)


def one(given: Any) -> Any:
    """The same image in another kind."""
    return Image.open(given) if isinstance(given, Path) else np.asarray(given)


@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_names_a_file_that_is_no_image(oblong: Scope, lens: str) -> None:
    with pytest.raises(DataError, match=r"test_scope\.py: is no image"):
        LENSES[lens](oblong, __file__)
    with pytest.raises(RequestError, match="images have the shape 9×6×3; this network takes 6×9×3"):
        LENSES[lens](oblong, np.zeros((9, 6, 3)))


def test_images_without_classes_have_no_effects_of_filters(oblong: Scope, pictures: tuple[list[Any], Tensor]) -> None:
    for look in (oblong.filter_effects, lambda images: oblong.ablation({"conv1": [0]}, images)):
        with pytest.raises(RequestError, match="without classes"):
            look(pictures[0])


MISSPELT: dict[str, Callable[[Scope, Tensor], Any]] = {
    "layr": lambda scope, images: scope.attribute("grad_cam", images, layr="relu1"),
    "n_sample": lambda scope, images: scope.attribute("smooth_grad", images, n_sample=3),
    "n_samples": lambda scope, images: scope.attribute("integrated_gradients", images, n_samples=3),
    "unit": lambda scope, images: scope.attribute("hires_cam", images, unit=3),
    "relu": lambda scope, images: scope.faithfulness("saliency", images, relu=True),
    "fil": lambda scope, images: scope.randomization_check("occlusion", images, fil="grey"),
    "batchsize": lambda scope, images: scope.statistics(images, "conv1", batchsize=3),
    "worker": lambda scope, images: scope.top_patches(images, "conv1", worker=3),
    "progres": lambda scope, images: scope.filter_effects(images, progres=False),
    "max_memry": lambda scope, images: scope.ablation({"conv1": [0]}, images, max_memry=3),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_setting_is_refused_with_those_there_are(oblong: Scope, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"^setting '{name}' is not one of .*; .*there is [^\n]+$"):
        MISSPELT[name](oblong, torch.rand(2, 3, *SIDES))


def test_a_misspelt_setting_of_a_scan_may_be_meant_for_one_of_its_own(oblong: Scope) -> None:
    images = torch.rand(2, 3, *SIDES)
    with pytest.raises(UnknownNameError, match=r"'tops' .*; did you mean 'top'\? there is layers, top, .*, batch_size"):
        oblong.top_patches(images, "conv1", tops=3)
    with pytest.raises(UnknownNameError, match=r"'hwo' .*; did you mean 'how'\? there is layers, how, batch_size"):
        oblong.ablation({"conv1": [0]}, images, hwo="zero_weights")


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("name", ["top", "batch_size", "max_memory", "workers"])
@pytest.mark.parametrize(("value", "written"), [("3", "'3'"), (2.5, "2.5"), (0, "0"), (True, "True")])
def test_a_count_that_is_none_is_refused(oblong: Scope, name: str, value: object, written: str) -> None:
    with pytest.raises(
        SettingError, match=f"^{name}: {written}.*; (give 1 or more|expected a whole number from 1 up)$"
    ):
        oblong.top_patches(torch.rand(2, 3, *SIDES), "conv1", **{name: value})


def test_a_misspelt_keyword_of_a_lens(oblong: Scope) -> None:
    with pytest.raises(TypeError, match="layr"):
        oblong.saliency(torch.rand(3, *SIDES), layr="relu1")


def test_a_misspelt_setting_where_the_result_was_kept(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    scope.statistics(test, "conv1", progress=False)
    with pytest.raises(UnknownNameError, match="setting 'progres' is not one of this scan's; did you mean 'progress'"):
        scope.statistics(test, "conv1", progres=False)


def test_the_folder_of_a_run_opens(reported: Run, tmp_path: Path, annotations_unchecked: None) -> None:
    expected = Scope(reported)
    images = reported.load_data().test.images([0, 1])
    for folder in (reported.path, str(reported.path)):
        scope = Scope(folder)
        assert (scope.classes, scope.input_shape) == (expected.classes, expected.input_shape)
        assert torch.equal(scope.logits(images), expected.logits(images))
        assert scope.run is not None
    with pytest.raises(RunFolderError, match="no run"):
        Scope(tmp_path)
    with pytest.raises(RequestError, match=r"a scope opens a torch\.nn\.Module, a run or the folder of one, not a int"):
        Scope(3)


class _Aux(torch.nn.Module):
    """An auxiliary head first, and a softmax behind the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 3), torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.conv(x).relu().mean((2, 3)) * 20
        return {"aux": self.aux(features), "out": self.head(features).softmax(1)}


def test_the_output_that_is_asked_about() -> None:
    net, images = _Aux().eval(), torch.rand(2, 3, 6, 5)
    scope = Scope(net, example=images)
    torch.testing.assert_close(scope.probabilities(images), net(images)["out"])
    assert scope.note == (
        "of the network's results aux (3 numbers), out (5 numbers), out is taken: output= names another; "
        "the network ends in a softmax; its logits are taken before it"
    )
    assert scope.saliency(images).note == scope.note
    for output in ("aux", 0):
        auxiliary = Scope(net, example=images, output=output)
        torch.testing.assert_close(auxiliary.logits(images), net(images)["aux"])
        assert auxiliary.note is None
        edited = auxiliary.ablate({"conv": [0]})
        assert edited.logits(images).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_wrapped_and_lazy_networks() -> None:
    images = torch.rand(2, 3, 6, 5)
    inner = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    scope = Scope(torch.nn.DataParallel(inner), example=images)
    assert scope.net is inner
    assert scope.ablate({"0": [1]}).logits(images).shape == (2, 5)
    lazy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5))
    assert torch.equal(Scope(lazy, example=images).logits(images), Scope(lazy, example=images).logits(images))


def test_ablate_traces_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 6, 5)
    scope = Scope(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(48, 5)), images)
    assert scope.graph
    monkeypatch.setattr("convscope.scope.trace", None)
    for how in ("zero_weights", "zero_activation", "mean_activation"):
        edited = scope.ablate({"0": [1, 2]}, how, images)
        torch.testing.assert_close(edited.logits(images), edited.net(images))


IMAGE = torch.full((1, 3, 8, 8), 0.5)

ODD: dict[str, Callable[[Scope], object]] = {
    **{
        f"images: {name}": lambda scope, given=given: scope.logits(given)
        for name, given in {
            "None": None, "numbers": [0.5, 0.2], "lists": [[1, 2], [3]], "a list of None": [None], "a mapping": {"a": 1},
            "a number": 3, "meta": IMAGE.to("meta"), "sparse": IMAGE.to_sparse(), "complex": IMAGE + 0j, "bool": IMAGE > 0,
        }.items()
    },
    **{
        f"units: {given!r}": lambda scope, given=given: scope.ablate({"conv1": given})
        for given in ("0", ["0"], [None], [[0], [1, 2]], 0.5, True, 1j, {}, "all", 2**80, IMAGE.to("meta"))
    },
    **{f"layers: {given!r}": lambda scope, given=given: scope.ablate(given) for given in (None, "conv1", ["conv1"])},
    **{
        f"layers to see: {given!r}": lambda scope, given=given: scope.activations(IMAGE, given)
        for given in (None, 3, [None], torch.zeros(2))
    },
    **{
        f"target: {given!r}": lambda scope, given=given: scope.saliency(IMAGE, given)
        for given in ("0", 1.5, [None], {}, 1j, True, [1, 2, 3])
    },
    **{
        f"unit: {given!r}": lambda scope, given=given: scope.saliency(IMAGE, layer="conv1", unit=given)
        for given in ("0", [0], 1.0)
    },
    **{
        f"position: {given!r}": lambda scope, given=given: scope.saliency(IMAGE, layer="conv1", unit=0, position=given)
        for given in ("3", (1,), (None, 1), 3, (1, 2, 3))
    },
    **{f"layer: {given!r}": lambda scope, given=given: scope.grad_cam(IMAGE, given) for given in (3, ["conv1"], {})},
    **{f"filters: {given!r}": lambda scope, given=given: scope.filters(given) for given in (None, 3, ["conv1"])},
    **{
        f"fill: {name}": lambda scope, given=given: scope.occlusion(IMAGE, 3, 3, fill=given)
        for name, given in {"None": None, "a list": [0.5], "sparse": IMAGE.to_sparse(), "meta": IMAGE.to("meta")}.items()
    },
    **{f"example: {given!r}": lambda scope, given=given: Scope(scope.net, given) for given in ([1, 2], None, 3, "x")},
    "deviations that are infinite": lambda scope: Scope(scope.net, IMAGE, normalize=((0.5,) * 3, (torch.inf,) * 3)),
    "means that are NaN": lambda scope: Scope(scope.net, IMAGE, normalize=((torch.nan,) * 3, (1.0,) * 3)),
    "weights without values": lambda scope: Scope(network().to("meta"), IMAGE),
}  # fmt: skip


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("what", ODD)
def test_what_is_no_image_layer_unit_or_class_is_refused_in_one_line(scope: Scope, what: str) -> None:
    with pytest.raises(RequestError) as caught:
        ODD[what](scope)
    assert "\n" not in str(caught.value)


def test_looking_at_filters_takes_no_step_of_a_spectral_norm() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 3))
    scope = Scope(net.train(), torch.zeros(1, 3, 8, 8))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = scope.filters("0")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert torch.equal(found, net.eval()[0].weight)


def test_occlusion_is_an_attribution_by_its_name_too(scope: Scope) -> None:
    images = torch.rand(2, *scope.input_shape, generator=torch.Generator().manual_seed(0))
    found = scope.attribute("occlusion", images, 1, size=3, occlusion_fill="zero")
    assert found.target is not None
    drops = scope.occlusion(images, 3, target=1, fill="zero")
    assert torch.equal(found.values[:, 0], drops.on_image(*images.shape[2:]))
    assert (found.method, found.target.tolist()) == ("occlusion", [1] * len(images))
    with pytest.raises(UnknownNameError, match="setting 'layer' is not one of occlusion"):
        scope.attribute("occlusion", images, layer="conv1")
