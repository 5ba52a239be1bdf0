"""Worked examples against report E's numbers and against PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch.nn import functional as F

from convscope import courses
from convscope.errors import ConvscopeError, DataError, SettingError, UnknownNameError

SMALL = st.integers(1, 3)
REPORT_E = {
    "valid": ({}, [[[45, 45], [54, 54]]]),
    "padded": ({"padding": "same"}, [[[18, 27, 27, 18], [30, 45, 45, 30], [36, 54, 54, 36], [26, 39, 39, 26]]]),
    "dilated": ({"padding": "same", "dilation": 2}, [[[20] * 4, [24] * 4, [20] * 4, [24] * 4]]),
    "pooled": ({"pool": "max"}, [[[1, 1], [1, 1]], [[2, 2], [2, 2]], [[2, 2], [4, 4]]]),
}


@pytest.mark.parametrize("name", REPORT_E)
def test_the_numbers_of_report_e(name: str) -> None:
    given, expected = REPORT_E[name]
    assert courses.worked_example("report-e", **given).output.tolist() == expected


def test_the_sums_of_report_e_by_channel() -> None:
    """9 + 18 + 18 in the upper row and 9 + 18 + 27 in the lower one."""
    found = courses.worked_example("report-e")
    assert found.per_channel().transpose(1, 2, 0).tolist() == [[[9, 18, 18]] * 2, [[9, 18, 27]] * 2]
    window = found.window(0, 1, 0)
    assert window.products[2].tolist() == [[2, 2, 2], [3, 3, 3], [4, 4, 4]]
    assert (window.rows, window.columns) == ((1, 2, 3), (0, 1, 2))


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(sum(shape))).double()


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)), st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL), st.integers(0, 2), SMALL,
    st.sampled_from([1, 2]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_convolutions_are_those_of_pytorch(size, kernel, stride, padding, dilation, groups) -> None:
    assume(all(n + 2 * padding > dilation * (k - 1) for n, k in zip(size, kernel, strict=True)))
    image, weight, bias = _numbers(4, *size), _numbers(6, 4 // groups, *kernel), _numbers(6)
    found = courses.worked_conv(image, weight, bias, stride, padding, dilation, groups)
    assert np.array_equal(found.output, F.conv2d(image, weight, bias, stride, padding, dilation, groups).numpy())
    _adds_up(found)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL), st.integers(0, 1), SMALL,
    st.integers(0, 2), st.sampled_from([1, 2]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_so_are_transposed_ones(size, kernel, stride, padding, dilation, extra, groups) -> None:
    assume(all(extra < max(s, dilation) for s in stride))
    assume(
        all(
            (n - 1) * s + dilation * (k - 1) + 1 + extra > 2 * padding
            for n, s, k in zip(size, stride, kernel, strict=True)
        )
    )
    image, weight = _numbers(4, *size), _numbers(4, 3, *kernel)
    expected = F.conv_transpose2d(image, weight, None, stride, padding, extra, groups, dilation)
    found = courses.worked_conv(image, weight, None, stride, padding, dilation, groups, True, extra)
    assert np.array_equal(found.output, expected.numpy())
    _adds_up(found)


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)), st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL), st.integers(0, 1),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_and_pools(size, kernel, stride, padding, up) -> None:
    assume(all(2 * padding <= k and n + 2 * padding >= k for n, k in zip(size, kernel, strict=True)))
    image = _numbers(3, *size)
    highest = courses.worked_pool(image, "max", kernel, stride, padding, 1, up)
    assert np.array_equal(highest.output, F.max_pool2d(image, kernel, stride, padding, 1, up).numpy())
    for count in (True, False):
        mean = courses.worked_pool(image, "average", kernel, stride, padding, 1, up, count)
        assert np.allclose(mean.output, F.avg_pool2d(image, kernel, stride, padding, up, count).numpy(), atol=1e-12)
        _adds_up(mean)


def test_a_dilated_pool_whose_taps_all_lie_in_the_padding_is_pytorchs() -> None:
    image = torch.ones(1, 1, 3)
    expected = F.max_pool2d(image, 2, 2, 1, 2)
    found = courses.worked_pool(image, "max", 2, 2, 1, 2)
    assert found.output.tolist() == expected.tolist() == [[[-np.inf, -np.inf]]]
    assert found.to_json()["output"] == [[[None, None]]]


def test_an_average_of_nothing_but_padding_that_does_not_count_is_no_number() -> None:
    """PyTorch's average pools have no dilation, and so no such window."""
    found = courses.worked_pool([[1, 2], [3, 4]], "average", kernel=2, dilation=3, padding=1, count_padding=False)
    assert np.isnan(found.output).all()
    assert courses.add_up(found.window()) == "0 / 0 = NaN"


def _adds_up(found: courses.Worked) -> None:
    """Every number is the sum of its products over its divisor, and its bias."""
    for one in found.windows():
        whole = np.nansum(one.products) / one.divisor + one.bias
        assert one.value == pytest.approx(whole, abs=1e-12)
        assert found.output[one.unit, one.row, one.column] == one.value


def test_one_filter_for_all_channels_is_said() -> None:
    found = courses.worked_conv(np.ones((3, 4, 4)), np.ones((3, 3)))
    assert found.notes == ("the filter's 3×3 numbers serve each of the 3 channels",)
    assert found.output.tolist() == [[[27, 27], [27, 27]]]


def test_a_filter_for_each_channel() -> None:
    found = courses.worked_conv(_numbers(2, 3, 3), _numbers(2, 2, 2), groups=2)
    expected = F.conv2d(_numbers(2, 3, 3), _numbers(2, 2, 2)[:, None], groups=2)
    assert found.output.tolist() == expected.tolist()
    assert found.window(1, 0, 0).channels == (1,)


def test_numbers_as_text_and_files(tmp_path: Path) -> None:
    expected = [[[1.0, 2.0], [3.0, 4.5]], [[5.0, 6.0], [7.0, -8.0]]]
    (tmp_path / "a.csv").write_text("1,2\n3,4.5\n\n5,6\n7,-8\n")
    np.save(tmp_path / "a.npy", np.array(expected))
    (tmp_path / "a.yaml").write_text("- [[1, 2], [3, 4.5]]\n- [[5, 6], [7, -8]]\n")
    for text in ("1 2; 3 4.5 | 5, 6; 7 −8", *(str(path) for path in tmp_path.iterdir())):
        assert courses.read_numbers("image", text).tolist() == expected, text
    assert courses.read_numbers("filter", "1 2 | 3 4 || 5 6 | 7 8").shape == (2, 2, 1, 2)
    (tmp_path / "b.csv").write_text("1 2\n\n3 4\n---\n5 6\n\n7 8\n")
    assert courses.read_numbers("filter", str(tmp_path / "b.csv")).shape == (2, 2, 1, 2)


def test_an_example_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "image: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nfilter: 1 -1; 0 2\npadding: 1x0\nstride: [2, 1]\nbias: 0.5\n"
    )
    expected = F.conv2d(
        torch.arange(1.0, 10).view(1, 3, 3), torch.tensor([[[[1.0, -1], [0, 2]]]]), torch.tensor([0.5]), (2, 1), (1, 0)
    )
    assert courses.worked_example(str(path)).output.tolist() == expected.tolist()
    assert courses.worked_example(str(path), pool="average", stride=1).output.tolist() == [[[3, 4], [6, 7]]]


def test_the_numbers_as_json() -> None:
    found = courses.worked_example("upsample").to_json()
    assert found["output"][0][0] == [1, 1.5, 2, 1]
    assert found["windows"][0]["products"][0] == [[None, None, None], [None, 1, None], [None, None, None]]


BAD = {
    "1 2; 3": "filter: rows or channels of different length",
    "1 two": "filter: 'two' is no number",
    "1 | ": "filter: a part of it is empty",
    "1 nan": "filter: there is a number that is infinite or none",
    "1 1 1; 1 1 1; 1 1 1; 1 1 1": "does not fit into 3 positions",
    "1 | 1 | 1": "filter: it has 3 channels, the input 1; expected 1",
}


@pytest.mark.parametrize("text", BAD)
def test_a_filter_that_will_not_do(text: str) -> None:
    with pytest.raises(SettingError) as error:
        courses.worked_example(image="1 2 3; 4 5 6; 7 8 9", filter=text)
    assert BAD[text] in str(error.value)


def test_other_requests_that_cannot_be_met(tmp_path: Path, annotations_unchecked: None) -> None:
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    (tmp_path / "bad.yaml").write_text("image: [1, 2\n")
    (tmp_path / "list.yaml").write_text("[1, 2]\n")
    np.save(tmp_path / "words.npy", np.array(["a"]))
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    with open(tmp_path / "packed.npy", "wb") as packed:
        np.savez(packed, a=np.ones((2, 2)))
    for name, size in (("vast", 10**15), ("vaster", 10**30)):
        with open(tmp_path / f"{name}.npy", "wb") as said:
            np.lib.format.write_array_header_1_0(said, {"descr": "<f8", "fortran_order": False, "shape": (size,)})
    (tmp_path / "date.yaml").write_text("2024-02-30\n")
    (tmp_path / "deep.json").write_text("[" * 3000)
    (tmp_path / "huge.json").write_text(f"[[1{'0' * 400}]]")
    (tmp_path / "pool.yaml").write_text("image: [[1]]\npool: [max]\n")
    wrong: list[tuple[dict[str, object], type[ConvscopeError], str]] = [
        ({}, SettingError, "image: there is none"),
        ({"image": "1 2"}, SettingError, "filter: there is none"),
        ({"image": "missing.csv", "pool": "max"}, DataError, "missing.csv: cannot be read"),
        ({"image": str(tmp_path / "bad.npy"), "pool": "max"}, DataError, "cannot be read as an array"),
        *(
            ({"image": str(tmp_path / f"{name}.npy"), "pool": "max"}, DataError, "cannot be read as an array")
            for name in ("empty", "folder", "packed", "vast", "vaster")
        ),
        ({"image": str(tmp_path / "date.yaml"), "pool": "max"}, DataError, "no valid YAML"),
        ({"image": str(tmp_path / "deep.json"), "pool": "max"}, DataError, "no valid YAML (more than 50 levels"),
        ({"image": str(tmp_path / "huge.json"), "pool": "max"}, SettingError, "or a value that is no number"),
        ({"image": "a\0.csv", "pool": "max"}, DataError, "cannot be read"),
        ({"example": str(tmp_path / "pool.yaml")}, SettingError, "pool: ['max'] is not known"),
        ({"image": str(tmp_path / "words.npy"), "pool": "max"}, DataError, "expected numbers"),
        ({"example": str(tmp_path / "bad.yaml")}, DataError, "no valid YAML"),
        ({"example": str(tmp_path / "list.yaml")}, DataError, "expected keys"),
        ({"example": "report-f"}, UnknownNameError, "did you mean 'report-e'"),
        ({"example": "report-e", "filters": 3}, UnknownNameError, "setting 'filters'"),
        ({"example": "report-e", "kernel": 3}, SettingError, "kernel: it does not go with"),
        ({"example": "report-e", "pool": "max", "groups": 3}, SettingError, "groups: it does not go with a pool"),
        ({"example": "report-e", "pool": "least"}, SettingError, "expected max or average"),
        ({"example": "report-e", "stride": "2y"}, SettingError, "stride: '2y'"),
        ({"example": "report-e", "padding": "full"}, SettingError, "padding: 'full'; expected same, valid"),
        ({"example": "report-e", "groups": 2}, SettingError, "groups: 2 groups do not divide 3 channels"),
        ({"example": "report-e", "bias": "1 2 3"}, SettingError, "bias: 3 numbers for 1 filter;"),
        ({"example": "report-e", "channels": "R,G"}, SettingError, "2 names for 3 channels"),
        ({"example": "report-e", "transposed": "yes"}, SettingError, "expected true or false"),
    ]
    for request, kind, message in wrong:
        with pytest.raises(kind) as error:
            courses.worked_example(**request)
        assert message in str(error.value)
    with pytest.raises(SettingError, match="input: rows or channels of different length, or a value that is no number"):
        courses.worked_conv([[10**400]], [[1]])
    with pytest.raises(SettingError, match="10,201 numbers are too many"):
        courses.worked_conv(np.ones((101, 101)), [[1]])
    with pytest.raises(SettingError, match="unit 0, row 2, column 0 is not in the output, which has 1 unit, 2 rows"):
        courses.worked_example("report-e").window(0, 2, 0)
