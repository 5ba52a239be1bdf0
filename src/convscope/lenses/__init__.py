"""Lenses: functions of a network and images that return plain tensors, one method a file."""

from __future__ import annotations

from convscope.lenses.activations import activations, select_layers
from convscope.lenses.attribution import Attribution
from convscope.lenses.cam import grad_cam, grad_cam_plus_plus, hires_cam, last_map, layer_cam
from convscope.lenses.captum_adapter import CAPTUM_METHODS, attribute
from convscope.lenses.fills import Fill, fill_images
from convscope.lenses.filters import filters
from convscope.lenses.gradients import gradient_times_input, saliency
from convscope.lenses.memory import portions
from convscope.lenses.occlusion import OcclusionMap, Size, occlusion
from convscope.lenses.question import Position
from convscope.lenses.rectified import deconvnet, guided_backprop
from convscope.lenses.targets import Target, choose_targets

__all__ = [
    "CAPTUM_METHODS",
    "Attribution",
    "Fill",
    "OcclusionMap",
    "Position",
    "Size",
    "Target",
    "activations",
    "attribute",
    "choose_targets",
    "deconvnet",
    "fill_images",
    "filters",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_times_input",
    "guided_backprop",
    "hires_cam",
    "last_map",
    "layer_cam",
    "occlusion",
    "portions",
    "saliency",
    "select_layers",
]
