"""Lenses: functions of a network and images that return plain tensors, one method a file."""

from __future__ import annotations

from convscope.lenses.activations import activations, select_layers
from convscope.lenses.filters import filters
from convscope.lenses.memory import portions
from convscope.lenses.targets import Target, choose_targets

__all__ = ["Target", "activations", "choose_targets", "filters", "portions", "select_layers"]
