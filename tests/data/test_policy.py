"""TrivialAugment and RandAugment: torchvision's tables, and each image by hand from the numbers drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from convscope.data import Augmentation, augment, policy
from convscope.data.seeds import generator
from tests.data.test_operations import HEIGHT, WIDTH, sample
from tests.gpus import CUDA, on_gpu

KEY = (1, 2, 3)
OTHER_NAMES = {
    **{"shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY"},
    "autocontrast": "AutoContrast",
}
UNITS = {"brightness": 1, "color": 1, "contrast": 1, "sharpness": 1}
"""Of our value, what torchvision adds itself."""


@pytest.fixture(scope="module")
def autoaugment() -> Any:
    from tests.zoo import open_zoo

    open_zoo()
    from torchvision.transforms import autoaugment

    return autoaugment


@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_the_tables_are_torchvisions(autoaugment: Any, kind: Any) -> None:
    height, width = 48, 32
    theirs = (
        autoaugment.TrivialAugmentWide()._augmentation_space(31)
        if kind == "trivial"
        else autoaugment.RandAugment()._augmentation_space(31, (height, width))
    )
    ours = policy.ranges(kind, height, width)
    assert [OTHER_NAMES.get(name, name.capitalize()) for name in ours] == list(theirs)
    for (name, (start, end, signed)), (expected, expected_signed) in zip(ours.items(), theirs.values(), strict=True):
        found = start + np.linspace(0, 1, 31) * (end - start) - UNITS.get(name, 0)
        found = {"posterize": np.round, "solarize": lambda v: 255 * v}.get(name, lambda v: v)(found)
        assert signed == expected_signed
        np.testing.assert_allclose(found, np.broadcast_to(expected.numpy(), 31), rtol=1e-5, atol=1e-5)


def chosen_values(kind: Any, n: int, rounds: int, strength: float | None) -> list[list[tuple[str, float]]]:
    """Of each round each image's operation and its value."""
    table = list(policy.ranges(kind, HEIGHT, WIDTH).items())
    result = []
    for which, strong, sign in generator("policy", *KEY).random((rounds, 3, n)):
        row = []
        for a, b, c in zip(which, strong, sign, strict=True):
            name, (start, end, signed) = table[int(a * 14)]
            level = int(b * 31) / 30 if strength is None else strength
            row.append((name, start + (-1 if signed and c < 0.5 else 1) * level * (end - start)))
        result.append(row)
    return result


@pytest.mark.parametrize(("kind", "rounds"), [("trivial", 1), ("rand", 3)])
def test_each_image_by_itself(kind: Any, rounds: int) -> None:
    images = sample(80)
    strength = None if kind == "trivial" else 0.45
    found = augment(images, Augmentation(policy=kind, rand_ops=rounds, rand_strength=0.45), KEY)
    seen = Counter[str]()
    expected = images.clone()
    for row in chosen_values(kind, 80, rounds, strength):
        for place, (name, value) in enumerate(row):
            single = torch.tensor([value], dtype=torch.float32)
            expected[place] = policy._OPERATIONS[name](expected[place : place + 1].clone(), single, "zero")[0]
            seen[name] += 1
    # groups of other sizes are summed in another order; of a value between two, posterize and equalize may take either
    assert ((found - expected).abs() > 1e-5).float().mean() < 1e-4
    assert set(seen) == set(policy.ranges(kind, HEIGHT, WIDTH))


def test_against_torchvision_itself(autoaugment: Any) -> None:
    """TrivialAugment, image by image; geometry, whose interpolation differs, is left to the operations' own tests."""
    images = sample(200)
    found = augment(images, Augmentation(policy="trivial"), KEY)
    [row] = chosen_values("trivial", 200, 1, None)
    n_compared = 0
    for image, result, (name, value) in zip(images, found, row, strict=True):
        if name.startswith(("shear", "rotate")):
            continue
        magnitude = {"posterize": round(value), "solarize": 255 * value}.get(name, value - UNITS.get(name, 0))
        magnitude = -magnitude if name.startswith("translate") else magnitude  # theirs says where a pixel goes to
        pixels = (image * 255).round().byte()
        other = OTHER_NAMES.get(name, name.capitalize())
        theirs = autoaugment._apply_op(pixels, other, magnitude, autoaugment.InterpolationMode.NEAREST, None)
        assert (result - theirs / 255).abs().max() < 2.01 / 255, name  # they round each step to 8 bits
        n_compared += 1
    assert n_compared > 100


def test_operations_strengths_and_signs_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of 28,000 images are within 4 standard deviations of what is expected."""
    seen: dict[str, list[float]] = {}
    for name in policy._OPERATIONS:

        def note(images: torch.Tensor, values: torch.Tensor, padding: str, name: str = name) -> torch.Tensor:
            seen[name] = values.tolist()
            return images

        monkeypatch.setitem(policy._OPERATIONS, name, note)
    augment(torch.zeros(28_000, 1, 1, 1), Augmentation(policy="trivial"), KEY)
    counts = {name: len(values) for name, values in seen.items()}
    assert set(counts) == set(policy._OPERATIONS) - {"identity"}  # of which there is nothing to do
    assert all(abs(count - 2000) < 4 * 43 for count in counts.values())
    rotations = Counter(np.round(np.array(seen["rotate"]) / 135 * 30).astype(int).tolist())
    assert set(rotations) == set(range(-30, 31))
    assert abs(sum(count for value, count in rotations.items() if value < 0) - 2000 * 30 / 62) < 4 * 22
    assert all(abs(rotations[value] + rotations[-value] - 2000 / 31) < 4 * 8 for value in range(1, 31))


def test_it_changes_nothing_else_and_comes_before_cutout() -> None:
    """The other distortions are those of the same key without a policy."""
    images = sample(40)
    before = {"crop": 3, "flip": "random", "rotation": 10, "brightness": 0.2}
    both = augment(images, Augmentation(**before, policy="trivial", cutout=5), KEY)
    in_turn = policy.apply_policy(augment(images, Augmentation(**before), KEY), "trivial", 1, None, "zero", KEY)
    assert torch.equal(augment(in_turn, Augmentation(cutout=5), KEY), both)
    assert not torch.equal(both, augment(images, Augmentation(**before, cutout=5), KEY))


def test_strength_0_of_rand_moves_no_pixel() -> None:
    """All but autocontrast, equalize and solarize, which inverts the very brightest, leave the image as it is."""
    images = sample(200) * 0.9
    found = augment(images, Augmentation(policy="rand", rand_ops=1, rand_strength=0), KEY)
    [row] = chosen_values("rand", 200, 1, 0.0)
    for image, result, (name, _) in zip(images, found, row, strict=True):
        if name not in ("autocontrast", "equalize"):
            assert (result - image).abs().max() < (0.501 / 255 if name == "posterize" else 1e-4), name


@on_gpu
def test_on_a_gpu_as_on_the_cpu() -> None:
    """Of a value between two, posterize, equalize and solarize may take either."""
    images, chosen = sample(200), Augmentation(crop=2, flip="random", shear=0.2, hue=0.2, policy="trivial")
    here, there = augment(images, chosen, KEY), augment(images.to(CUDA), chosen, KEY).cpu()
    assert ((here - there).abs() > 1e-4).float().mean() < 1e-3
