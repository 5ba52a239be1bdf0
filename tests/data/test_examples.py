"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import convscope.data

MODULES = [name for _, name, _ in pkgutil.iter_modules(convscope.data.__path__, "convscope.data.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    names = {each: getattr(convscope.data, each) for each in convscope.data.__all__}
    found = doctest.testmod(importlib.import_module(name), extraglobs={**names, "np": np, "torch": torch})
    assert found.failed == 0
