import json

import pytest

from convscope.study.words import setting_in_words, settings_in_words

STAGES = [
    {"name": "frozen", "train": ["fc"], "epochs": 3, "rate": 0.001, "augmentation": None},
    {"name": "last block", "train": ["block4", "fc"], "epochs": 2, "rate": 1e-05},
]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        (None, "null"),
        (0.01, "0.01"),
        ("c8 M f32", "c8 M f32"),
        ([1, 2], "[1, 2]"),
        ([], "[]"),
        ({"depth": 3}, '{"depth": 3}'),
        ({"name": "blocks-cifar", "block": "residual", "bias": False}, "blocks-cifar (block residual, bias false)"),
        ({"name": "lenet5"}, "lenet5"),
        (STAGES, "frozen (epochs 3, rate 0.001), last block (epochs 2, rate 1e-05)"),
        (json.dumps(STAGES), "frozen (epochs 3, rate 0.001), last block (epochs 2, rate 1e-05)"),  # as tables keep it
        ('{"name": "lenet5", "width": 8}', "lenet5 (width 8)"),  # as a table by networks keeps it
        ('{"depth": 3}', '{"depth": 3}'),
        ('[{"name": 3}]', '[{"name": 3}]'),
        ("[{broken", "[{broken"),
    ],
)
def test_a_value_in_words(value: object, words: str) -> None:
    assert setting_in_words(value) == words


def test_settings_in_words() -> None:
    settings = {"a": 1, "b": 0.000123, "c": "x", "net": {"name": "net1", "width": 6}}
    assert settings_in_words(settings) == "a 1, b 0.000123, c x, net net1 (width 6)"
    assert settings_in_words({}) == "the settings as they are"
