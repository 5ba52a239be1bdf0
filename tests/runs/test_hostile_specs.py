"""Specs that would take all memory, or bring the parser down: refused in one line, in no time."""

from __future__ import annotations

import pytest

from convscope.base.bounded import load_yaml
from convscope.errors import SettingError, shortened
from convscope.runs import make_spec, parse_overrides, read_spec

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
PAIRS = "a0: &a0 !!pairs [k: 1]\n" + "".join(
    f"a{n}: &a{n} !!pairs [{', '.join([f'k: *a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGED = "a0: &a0 {k0: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, 2000))
BOMBS = {
    "billions of values by aliases": (
        f"{LAUGHS}data: mnist\nnet: *a29\n",
        "more than 100,000 values, each alias counted",
    ),
    "an alias within itself": ("data: mnist\nnet: &a [*a]\n", "more than 100,000 values, each alias counted"),
    "in an option of the network": (
        f"{LAUGHS}data: mnist\nnet: {{name: net4, width: *a29}}\n",
        "each alias counted as often",
    ),
    "deep lists": (
        f"data: mnist\nnet: {'[' * 100_000}{']' * 100_000}\n",
        "spec line 2: this is no YAML: more than 50 levels",
    ),
    "deep lists, never closed": (f"data: mnist\nnet: {'[' * 100_000}\n", "more than 50 levels"),
    "deep mappings": (f"data: mnist\nnet: {'{a: ' * 3000}1{'}' * 3000}\n", "more than 50 levels"),
    "deep lists by dashes": (f"data: mnist\nnet:\n  {'- ' * 50_000}a\n", "more than 50 levels"),
    "a long number in hexadecimal": (
        f"data: mnist\nnet: {{name: net4, width: 0x{'f' * 3999}}}\n",
        "thousands of digits",
    ),
    "values in pairs": (f"{PAIRS}data: mnist\nnet: *a8\n", "more than 100,000 values, each alias counted"),
    "values in an ordered mapping": (f"{PAIRS.replace('!!pairs', '!!omap')}net: *a8\n", "each alias counted as often"),
    "values in a set": (
        f"a: &a !!set {{{', '.join(map(str, range(999)))}}}\nnet: [{'*a, ' * 999}]\n",
        "each alias counted",
    ),
    "keys that are merged in": (f"{MERGED}net: *a1999\n", "more than 100,000 keys, with those that << merges in"),
    "mappings merged one into the next": (
        f"net:\n  - {{b: {{{MERGED.strip().replace(chr(10), ', ')}}}}}\n  - {{<<: *a1999}}\n",
        "too many mappings merged one into the next",
    ),
    "deep keys": (f"{'? ' * 50_000}a\n", "more than 50 levels"),
}


@pytest.mark.parametrize(("text", "complaint"), BOMBS.values(), ids=BOMBS)
def test_bombs(text: str, complaint: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_spec(text, "spec")
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


def test_on_the_command_line_too() -> None:
    with pytest.raises(SettingError, match="no YAML"):
        parse_overrides([f"net={'[' * 100_000}"])


def test_anchors_that_people_write_are_read() -> None:
    text = "data: mnist\nnet: {name: net4}\nrecipe: {epochs: 2, stages: &s [{name: a, epochs: 2, rate: 0.1}]}\n"
    assert read_spec(text, "spec").recipe.epochs == 2
    assert read_spec("data: mnist\nnet: &n c8 M f16\nabout: *n\n", "spec").about == "c8 M f16"


def test_a_key_of_ones_own_overrides_the_merged_one_also_where_the_mapping_is_merged_in_again() -> None:
    text = "a: &a {k: 1}\nb: {c: [&c {<<: *a, k: 2}]}\nd: {<<: *c}\ne: {<<: [*a, *c]}\n"
    assert load_yaml(text) == {"a": {"k": 1}, "b": {"c": [{"k": 2}]}, "d": {"k": 2}, "e": {"k": 1}}
    doubled = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 50))
    assert load_yaml(doubled)["a49"] == {"k": 1}


@pytest.mark.parametrize("given", ["x" * 10_000_000, [["y" * 1000] * 1000] * 1000, {str(n): n for n in range(10_000)}])
def test_messages_quote_the_ends_of_what_is_long(given: object) -> None:
    with pytest.raises(SettingError) as caught:
        make_spec({"data": "mnist", "net": "net4", "recipe": {"epochs": given}})
    assert str(caught.value).startswith("spec: recipe.epochs: ")
    assert len(str(caught.value)) < 800


def test_what_is_short_is_quoted_whole() -> None:
    assert shortened({"a": [1, 2, None], "b": "c"}) == "{'a': [1, 2, None], 'b': 'c'}"
