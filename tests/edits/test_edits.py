"""Edits: each against a loop over pixels, Pillow or SciPy; in a batch and alone; random lists of them; wrong ones."""

from __future__ import annotations

import io
import json
from math import hypot
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from convscope import edits
from convscope.data import Change, ImageSet
from convscope.edits import apply, check, describe, touched, with_own
from convscope.errors import SettingError
from tests.gpus import CUDA, on_gpu
from tests.scans.test_invariance import by_scipy

HEIGHT, WIDTH = 11, 14


def pictures(n: int = 3, channels: int = 3, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(n + channels))


def distance_to(points: list[list[float]], x: float, y: float) -> float:
    """Of a pixel's centre to a line through points."""
    distances = []
    for (ax, ay), (bx, by) in zip(points, points[1:] or points, strict=False):
        squared = (bx - ax) ** 2 + (by - ay) ** 2
        t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / squared if squared else 0
        t = min(max(t, 0), 1)
        distances.append(hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)))
    return min(distances)


STROKES = [
    ([[4, 5]], 2),
    ([[2.5, 3.5]], 0),
    ([[0.5, 0.5]], 5),  # 3, 4, 5: centres that are on the circle
    ([[1.2, 8.7], [12.3, 2.2]], 1.4),
    ([[3, 4], [11, 4]], 2.2),
    ([[3, 2], [3, 9], [10, 9], [3, 2]], 1),
    ([[-4, -3], [20, 20], [5, -8]], 2.7),
    ([[6, 6], [6, 6]], 3.3),
    ([[40, 40], [50, 40]], 4),
]


@pytest.mark.parametrize(("points", "radius"), STROKES)
def test_a_stroke_covers_the_pixels_within_its_radius(points: list[list[float]], radius: float) -> None:
    images = pictures()
    found = apply(images, [["paint", points, radius, "black"]])
    covered = [
        (row, column)
        for row in range(HEIGHT)
        for column in range(WIDTH)
        if distance_to(points, column + 0.5, row + 0.5) <= radius
    ]
    expected = images.clone()
    for row, column in covered:
        expected[:, :, row, column] = 0
    assert torch.equal(found, expected)
    if covered:
        rows, columns = zip(*covered, strict=True)
        box = (min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1)
    else:
        box = (0, 0, 0, 0)
    assert touched([["paint", points, radius, "black"]], images.shape) == box


@given(st.lists(st.tuples(*[st.floats(-20, 30)] * 2), min_size=1, max_size=5), st.floats(0, 12))
@settings(max_examples=60, deadline=None)
def test_any_stroke(points: list[tuple[float, float]], radius: float) -> None:
    found = apply(torch.zeros(1, 1, HEIGHT, WIDTH), [["paint", points, radius, "white"]])[0, 0]
    for row in range(HEIGHT):
        for column in range(WIDTH):
            away = distance_to(points, column + 0.5, row + 0.5) - radius  # type: ignore[arg-type]
            assert abs(away) < 1e-6 or bool(found[row, column]) == (away < 0)


@pytest.mark.parametrize(
    "box", [[0, 0, 8, 8], [2, 3, 1, 4], [-3, 5, 6, 100], [1.4, 2.6, 3.2, 2], [20, 0, 5, 5], [3, 3, 0, 2]]
)
def test_a_rectangle_covers_the_pixels_inside(box: list[float]) -> None:
    images, (x, y, width, height) = pictures(), box
    expected = images.clone()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if x <= column + 0.5 < x + width and y <= row + 0.5 < y + height:
                expected[:, :, row, column] = 1
    assert torch.equal(apply(images, [["rectangle", box, "white"]]), expected)


def test_an_8_by_8_rectangle_by_hand() -> None:
    expected = pictures()
    expected[:, :, :8, :8] = 0.5
    assert torch.equal(apply(pictures(), [["rectangle", [0, 0, 8, 8], "grey"]]), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_fills(channels: int) -> None:
    images = pictures(4, channels)

    def filled(fill: str, of: Tensor = images) -> Tensor:
        return apply(of, [["rectangle", [0, 0, WIDTH, HEIGHT], fill]])

    for fill, level in {"grey": 0.5, "black": 0.0, "white": 1.0}.items():
        assert bool((filled(fill) == level).all())
    mean = np.array([[image[c].numpy().mean(dtype=float) for c in range(channels)] for image in images])
    np.testing.assert_allclose(filled("mean").numpy(), np.broadcast_to(mean[..., None, None], images.shape), rtol=1e-6)
    deviation = HEIGHT / 16
    blurred = [
        [gaussian_filter(plane, deviation, mode="nearest", radius=3) for plane in image] for image in images.numpy()
    ]
    np.testing.assert_allclose(filled("blur").numpy(), blurred, atol=1e-6)
    noise = filled("noise")
    assert torch.equal(noise[0], noise[3])  # whatever the image
    assert 0.4 < float(noise.mean()) < 0.6
    assert torch.equal(filled("noise", images[2:3]), noise[2:3])
    red, green, blue = 255 / 255, 128 / 255, 0.0
    colour = filled("#ff8000")[1, :, 4, 4].tolist()
    assert colour == pytest.approx(
        [red, green, blue] if channels == 3 else [0.299 * red + 0.587 * green + 0.114 * blue]
    )


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ([2, 3, 4, 5], [1, 1]),
        ([0, 0, 6, 6], [-3, 8]),
        ([10, 8, 9, 9], [0, 0]),
        ([-2, -2, 5, 5], [4, 4]),
        ([0, 0, 3, 3], [40, 0]),
    ],
)
def test_a_patch_is_pasted_and_cut_off_at_the_edge(box: list[int], place: list[int]) -> None:
    images, others = pictures(), pictures(5)
    expected = images.clone()
    for row in range(box[3]):
        for column in range(box[2]):
            source, target = (box[1] + row, box[0] + column), (place[1] + row, place[0] + column)
            if all(0 <= at[0] < HEIGHT and 0 <= at[1] < WIDTH for at in (source, target)):
                expected[:, :, target[0], target[1]] = others[4, :, source[0], source[1]]
    edit = [["paste", 4, box, place]]
    assert torch.equal(apply(images, edit, others), expected)
    changed = (expected != images).any(0).any(0)
    rows, columns = changed.any(1).nonzero().flatten().tolist(), changed.any(0).nonzero().flatten().tolist()
    box_changed = (columns[0], rows[0], len(columns), len(rows)) if rows else (0, 0, 0, 0)
    assert touched(edit, images.shape) == box_changed


def test_a_blend_is_a_weighted_sum() -> None:
    images, others = pictures(), pictures(2)
    expected = torch.stack([0.75 * image + 0.25 * others[1] for image in images])
    torch.testing.assert_close(apply(images, [["blend", 1, 0.25]], others), expected)
    assert torch.equal(apply(images, [["blend", 1, 1]], others), others[1].expand_as(images))


@pytest.mark.parametrize(
    ("edit", "change"),
    [
        (["shift", 3, -2], Change("shift", (-2, 3))),
        (["shift", 0.25, 1.5], Change("shift", (1.5, 0.25))),
        (["rotate", 15], Change("rotate", 15)),
        (["rotate", -100], Change("rotate", -100)),
        (["scale", 0.7], Change("scale", 0.7)),
        (["scale", 1.6], Change("scale", 1.6)),
    ],
)
def test_geometry_is_scipys(edit: list[Any], change: Change) -> None:
    """To 1e-5: coordinates of float32."""
    images = pictures(2)
    for image, found in zip(images, apply(images, [edit]), strict=True):
        cover = image.mean((1, 2), keepdim=True).expand_as(image)
        assert found.numpy() == pytest.approx(by_scipy(image, cover, change), abs=1e-5)


def test_geometry_by_hand() -> None:
    """Right, down, anticlockwise and larger are what a viewer calls so."""
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 1, 2] = 1
    bright = image > 0.9

    def places(edit: list[Any]) -> list[list[int]]:
        return (apply(image, [edit])[0, 0] > 0.9).nonzero().tolist()

    assert bright.sum() == 1
    assert places(["shift", 1, 0]) == [[1, 3]]
    assert places(["shift", 0, 2]) == [[3, 2]]
    assert places(["rotate", 90]) == [[2, 1]]  # from above the centre to its left
    assert float(apply(image, [["scale", 2]]).sum()) > 2


def test_colours_are_plain_arithmetic() -> None:
    images = pictures()
    for image, brighter, contrasted, saturated in zip(
        images, *(apply(images, [[name, 1.7]]) for name in ("brightness", "contrast", "saturation")), strict=True
    ):
        luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        torch.testing.assert_close(brighter, (1.7 * image).clamp(0, 1))
        torch.testing.assert_close(contrasted, (1.7 * image - 0.7 * luma.mean()).clamp(0, 1))
        torch.testing.assert_close(saturated, (1.7 * image - 0.7 * luma).clamp(0, 1))


def test_a_blur_is_scipys() -> None:
    """To 1e-6: float64 sums, rounded to float32."""
    images = pictures(2, 1)
    for deviation, radius in ((0.3, 1), (1.5, 5), (9.0, 27)):
        expected = [
            [gaussian_filter(p.astype(float), deviation, mode="nearest", radius=radius) for p in i]
            for i in images.numpy()
        ]
        np.testing.assert_allclose(apply(images, [["blur", deviation]]).numpy(), expected, atol=1e-6)
    assert torch.equal(apply(images, [["blur", 0]]), images)


def test_noise_is_normal_and_seeded() -> None:
    plain = torch.full((2, 3, 64, 64), 0.5)
    first, again, other = (apply(plain, [["noise", 0.1, seed]]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = (first - plain)[0]
    assert float(noise.mean()) == pytest.approx(0, abs=0.004)  # four standard errors
    assert float(noise.std()) == pytest.approx(0.1, abs=0.003)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels: int) -> None:
    images = pictures(2, channels)
    for image, found in zip(images, apply(images, [["jpeg", 40]]), strict=True):
        pixels = np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "JPEG", quality=40)
        with Image.open(file) as decoded:
            expected = np.array(decoded).reshape(HEIGHT, WIDTH, channels).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


ALL: list[list[Any]] = [
    ["paint", [[1, 2], [9.5, 7]], 1.5, "mean"],
    ["paint", [[8, 3]], 2, "blur"],
    ["rectangle", [2, 2, 5, 4], "noise"],
    ["rectangle", [6, 6, 3, 3], "#20c040"],
    ["paste", 1, [0, 0, 5, 5], [7, 4]],
    ["blend", 0, 0.3],
    ["shift", 1.5, -2],
    ["rotate", 20],
    ["scale", 1.2],
    ["brightness", 1.3],
    ["contrast", 0.8],
    ["saturation", 2],
    ["blur", 0.8],
    ["noise", 0.05, 3],
    ["jpeg", 60],
]


@pytest.mark.parametrize("edit", [*([one] for one in ALL), ALL], ids=[*(one[0] for one in ALL), "all"])
@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (100, 3, 9, 10), (64, 1, 28, 28)])
def test_an_image_has_the_same_result_in_every_batch(edit: list[Any], shape: tuple[int, ...]) -> None:
    images, others = pictures(*shape), pictures(2, *shape[1:])
    whole = apply(images, edit, others)
    for row in (0, 17, len(images) - 1):
        assert torch.equal(apply(images[row : row + 1], edit, others)[0], whole[row])
    assert torch.equal(apply(images[:0], edit, others), images[:0])


def test_the_given_images_and_the_random_state_stay() -> None:
    images, others = pictures().expand(3, 3, HEIGHT, WIDTH), pictures(2)
    before, state = images.clone(), torch.get_rng_state()
    kept = others.clone()
    for edit in [[], *([one] for one in ALL), ALL]:
        found = apply(images, edit, others)
        assert found.data_ptr() != images.data_ptr()
        assert torch.equal(found, apply(images, json.dumps(edit), others))
        assert found.dtype == images.dtype
    assert torch.equal(images, before)
    assert torch.equal(others, kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_edits_follow_each_other() -> None:
    images, others = pictures(), pictures(2)
    step = images
    for one in ALL:
        step = apply(step, [one], others)
    assert torch.equal(apply(images, ALL, others), step)


PX = st.floats(-10, 25)
FILL = st.sampled_from(["grey", "black", "white", "mean", "blur", "noise", "#123456"])
SIDE = st.integers(0, 12)
LOCAL = st.one_of(
    st.tuples(st.just("paint"), st.lists(st.tuples(PX, PX), min_size=1, max_size=6), st.floats(0, 6), FILL),
    st.tuples(st.just("rectangle"), st.tuples(PX, PX, st.floats(0, 12), st.floats(0, 12)), FILL),
    st.tuples(
        st.just("paste"),
        st.integers(0, 1),
        st.tuples(st.integers(-5, 15), st.integers(-5, 15), SIDE, SIDE),
        st.tuples(st.integers(-9, 15), st.integers(-9, 15)),
    ),
)
ANY = st.one_of(
    LOCAL,
    st.tuples(st.just("blend"), st.integers(0, 1), st.floats(0, 1)),
    st.tuples(st.just("shift"), PX, PX),
    st.tuples(st.just("rotate"), st.floats(-360, 360)),
    st.tuples(st.just("scale"), st.floats(0.1, 10)),
    st.tuples(st.sampled_from(["brightness", "contrast", "saturation"]), st.floats(0, 100)),
    st.tuples(st.just("blur"), st.floats(0, 100)),
    st.tuples(st.just("noise"), st.floats(0, 10), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("jpeg"), st.integers(1, 100)),
)


@given(st.lists(ANY, max_size=6), st.sampled_from([1, 3]))
@settings(max_examples=80, deadline=None)
def test_any_list_gives_images(some: list[Any], channels: int) -> None:
    images, others = pictures(2, channels), pictures(2, channels).flip(0)
    found = apply(images, some, others)
    assert found.shape == images.shape
    assert bool(found.isfinite().all())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert isinstance(describe(some), str)
    assert check(json.dumps(some)) == check(some)
    box = touched(some, images.shape)
    assert (box is None) == any(one[0] not in ("paint", "rectangle", "paste") for one in some)


@given(st.lists(LOCAL, max_size=4))
@settings(max_examples=80, deadline=None)
def test_nothing_is_changed_outside_of_what_is_touched(some: list[Any]) -> None:
    images, others = pictures(2), pictures(2).flip(0)
    box = touched(some, images.shape)
    assert box is not None
    x, y, width, height = box
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[y : y + height, x : x + width] = False
    changed = (apply(images, some, others) != images).any(0).any(0)
    assert not bool((changed & outside).any())
    assert 0 <= x <= x + width <= WIDTH
    assert 0 <= y <= y + height <= HEIGHT


def test_touched_by_several() -> None:
    shape = (3, 32, 32)
    assert touched([], shape) == (0, 0, 0, 0)
    assert touched([["rectangle", [2, 3, 4, 5], "grey"], ["paint", [[20.5, 10.5]], 1, "blur"]], shape) == (2, 3, 20, 9)
    assert touched([["rectangle", [2, 3, 4, 5], "grey"], ["rotate", 5]], shape) is None
    assert touched([["rectangle", [40, 3, 4, 5], "grey"]], shape) == (0, 0, 0, 0)


def test_in_words() -> None:
    assert describe([["rectangle", [0, 0, 8, 8], "grey"], ["rotate", 5]]) == "grey rectangle 8×8 at 0, 0; rotated by 5°"
    assert describe([]) == "no edit"
    assert describe([["rotate", 1]] * 6).endswith("rotated by 1°; 2 more")
    assert "; ".join(map(describe, ([one] for one in ALL))) == (
        "mean stroke of radius 1.5 px, 2 points from 1, 2 to 9.5, 7; blur dot of radius 2 px at 8, 3; "
        "noise rectangle 5×4 at 2, 2; #20c040 rectangle 3×3 at 6, 6; 5×5 px of image 1 from 0, 0 pasted at 7, 4; "
        "30 % of image 0 blended in; shifted by 1.5 px right, -2 px down; rotated by 20°; scaled by 1.2; brightness ×1.3; "
        "contrast ×0.8; saturation ×2; blurred by 0.8 px; noise of deviation 0.05, seed 3; JPEG of quality 60"
    )


def test_images_to_take_from_may_be_a_set() -> None:
    pixels = (pictures(6) * 255).round().byte()
    others = ImageSet(pixels, torch.tensor([5, 3, 1]), {"class": torch.zeros(6).long()}, {"class": ("a",)})
    edit = [["blend", 2, 1], ["paste", 0, [0, 0, 4, 4], [1, 1]], ["rotate", 9]]
    found = apply(pictures(), edit, others)
    assert torch.equal(found, apply(pictures(), edit, others.images()))
    numbered, own = with_own(edit, others)
    assert own is not None
    assert torch.equal(own, others.images([0, 2]))
    assert numbered == (("blend", 1, 1.0), ("paste", 0, (0, 0, 4, 4), (1, 1)), ("rotate", 9.0))
    assert torch.equal(apply(pictures(), numbered, own), found)
    assert with_own([["rotate", 9]], others)[1] is None


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("[[", r"^edits: '\[\[' is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("1" * 5_000, "is no JSON"),
        (" " * (2**20 + 1), "a text of 1,048,577 characters; expected at most 1,048,576"),
        ('{"rotate": 5}', r"^edits: .*expected a list such as \[\[\"rotate\", 15\]\]"),
        ('"rotate"', "expected a list such as"),
        ([["rotate", 5]] * 201, "a list of 201; expected at most 200"),
        (["rotate", 5], "^edit 1: 'rotate'; expected a list that begins with paint, rectangle, "),
        ([["rotate", 5], ["rotat", 5]], r"^edit 2: \['rotat', 5\]; expected a list that begins with"),
        ([[]], r"^edit 1: \[\]; expected"),
        ([[["rotate"], 5]], "^edit 1: "),
        ([["rotate"]], r'^edit 1 \(rotate\): .*expected \["rotate", degrees\]'),
        ([["rotate", "5"]], r"^edit 1 \(rotate\): degrees: '5'; expected a number from -360 to 360"),
        ([["rotate", True]], "degrees: True; expected a number"),
        ('[["rotate", NaN]]', "degrees: nan; expected a number"),
        ('[["rotate", 1e999]]', "degrees: inf; expected a number"),
        ([["rotate", 10**400]], "degrees: 1000.*; expected a number"),
        ([["scale", 0.05]], "factor: 0.05; expected a number from 0.1 to 10"),
        ([["blur", 101]], "deviation: 101; expected a number from 0 to 100"),
        ([["brightness", -1]], "factor: -1; expected a number from 0 to 100"),
        ([["noise", 0.1, 1.5]], r"^edit 1 \(noise\): seed: 1.5; expected a whole number"),
        ([["jpeg", 0]], "quality: 0; expected a whole number from 1 to 100"),
        ([["paint", np.zeros((2, 2)), 2, "grey"]], r"points: array\(.*expected 1 to 2,000 points"),
        ([["paint", [], 2, "grey"]], "points: .*expected 1 to 2,000 points"),
        ([["paint", [[0, 0]] * 2001, 2, "grey"]], "points: .*expected 1 to 2,000 points"),
        ([["paint", [[0, 0]] * 2000, 2, "grey"]] * 11, "strokes of 22,000 points in all; expected at most 20,000"),
        ([["paint", [[0, 0, 0]], 2, "grey"]], r"points: .*expected \[x, y\]"),
        ([["paint", [[0, 0]], -1, "grey"]], "radius: -1; expected a number from 0 to 100,000"),
        ([["paint", [[0, 0]], 1, "gray"]], "fill: 'gray'; expected grey, black, white, mean, blur, noise or a colour"),
        ([["paint", [[0, 0]], 1, "#12345"]], "fill: '#12345'"),
        ([["rectangle", [0, 0, -1, 3], "grey"]], r"^edit 1 \(rectangle\): box: "),
        ([["rectangle", [0, 0, 1e6, 3], "grey"]], "expected a number from 0 to 100,000"),
        ([["paste", 0, [0.5, 0, 3, 3], [0, 0]]], "box: .*expected a whole number"),
        ([["paste", 5, [0, 0, 3, 3], [0, 0]]], r"^edit 1 \(paste\): index: 5; there are images 0 to 1"),
        ([["blend", 0, 1.1]], "share: 1.1; expected a number from 0 to 1"),
    ],
)
def test_wrong_edits_are_named(wrong: Any, expected: str) -> None:
    with pytest.raises(SettingError, match=expected) as error:
        apply(pictures(), wrong, pictures(2))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_edits_that_do_not_fit_the_images() -> None:
    checked = check([["jpeg", 50]])
    with pytest.raises(SettingError, match=r"edit 1 \(jpeg\): the images have 4 channels; JPEG has 1 or 3"):
        apply(pictures(1, 4), checked)
    with pytest.raises(SettingError, match="#aabbcc; the images have 2 channels"):
        apply(pictures(1, 2), [["rectangle", [0, 0, 2, 2], "#aabbcc"]])
    found = apply(pictures(1, 5), [["rectangle", [0, 0, 2, 2], "blur"], ["rotate", 4], ["saturation", 0]])
    assert found.shape == (1, 5, HEIGHT, WIDTH)
    with pytest.raises(SettingError, match=r"edit 1 \(blend\): index: 0; there are no other images to take from"):
        apply(pictures(), [["blend", 0, 0.5]])
    with pytest.raises(SettingError, match="others: images of 3×5×5; expected 3×11×14"):
        apply(pictures(), [["blend", 0, 0.5]], pictures(2, 3, 5, 5))


@on_gpu
def test_on_a_gpu_as_on_the_cpu() -> None:
    images, others = pictures(), pictures(2)
    for one in ALL:
        found = apply(images.to(CUDA), [one], others)
        assert found.device == CUDA
        level = 1 / 255 if one[0] == "jpeg" else 1e-5  # a value between two of 8 bits may be rounded either way
        torch.testing.assert_close(found.cpu(), apply(images, [one], others), rtol=0, atol=level)


def test_every_edit_of_the_face_is_known() -> None:
    """The table in the docstring is the program's."""
    named = [line.split('"')[1] for line in (edits.__doc__ or "").splitlines() if line.startswith('    ["')]
    assert set(named) == {one[0] for one in ALL}
