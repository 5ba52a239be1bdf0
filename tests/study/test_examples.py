"""The examples in the docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import convscope.study

MODULES = [
    name for _, name, is_room in pkgutil.iter_modules(convscope.study.__path__, "convscope.study.") if not is_room
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    names = {each: getattr(convscope.study, each) for each in convscope.study.__all__}
    assert doctest.testmod(importlib.import_module(name), extraglobs={**names, "np": np}).failed == 0
