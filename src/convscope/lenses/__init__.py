"""Lenses: functions of a network and images that return plain tensors, one method a file."""

from __future__ import annotations

from convscope.lenses.activations import activations, select_layers
from convscope.lenses.filters import filters

__all__ = ["activations", "filters", "select_layers"]
