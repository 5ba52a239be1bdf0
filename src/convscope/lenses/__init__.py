"""Lenses: functions of a network and images that return plain tensors, one method a file."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.lenses.ablation import HOW, UnitsOf, ablate, ablated_graph, check_how, interventions
    from convscope.lenses.activations import activations, select_layers
    from convscope.lenses.attribution import Attribution
    from convscope.lenses.by_name import ATTRIBUTIONS, attribute_by_name, check_settings
    from convscope.lenses.cam import (
        class_activation_map,
        grad_cam,
        grad_cam_plus_plus,
        hires_cam,
        last_map,
        layer_cam,
        xgrad_cam,
    )
    from convscope.lenses.captum_adapter import CAPTUM_METHODS, attribute, settings_of
    from convscope.lenses.fills import Fill, fill_images
    from convscope.lenses.filters import filters
    from convscope.lenses.gradients import gradient_times_input, saliency
    from convscope.lenses.maximize import Maximized, maximize
    from convscope.lenses.memory import portions
    from convscope.lenses.occlusion import OcclusionMap, Size, occlusion
    from convscope.lenses.parametrize import Fourier, Parametrization, Pixels
    from convscope.lenses.rectified import deconvnet, guided_backprop
    from convscope.lenses.regularizers import L2, Blur, Jitter, Regularizer, TotalVariation
    from convscope.lenses.settings import CamSettings, LensSettings, MaximizeSettings, NeuronSettings, SeededSettings
    from convscope.lenses.smallest_occlusion import SmallestOcclusion, smallest_occlusion
    from convscope.lenses.targets import (
        NamedTarget,
        Position,
        Target,
        TaskTarget,
        choose_targets,
        named_target,
        with_task,
    )
    from convscope.lenses.unit_effects import UnitEffects, unit_effects
    from convscope.lenses.units import Units, choose_units, count_units
else:
    load_when_used(__name__)

__all__ = [
    "ATTRIBUTIONS",
    "CAPTUM_METHODS",
    "HOW",
    "L2",
    "Attribution",
    "Blur",
    "CamSettings",
    "Fill",
    "Fourier",
    "Jitter",
    "LensSettings",
    "MaximizeSettings",
    "Maximized",
    "NamedTarget",
    "NeuronSettings",
    "OcclusionMap",
    "Parametrization",
    "Pixels",
    "Position",
    "Regularizer",
    "SeededSettings",
    "Size",
    "SmallestOcclusion",
    "Target",
    "TaskTarget",
    "TotalVariation",
    "UnitEffects",
    "Units",
    "UnitsOf",
    "ablate",
    "ablated_graph",
    "activations",
    "attribute",
    "attribute_by_name",
    "check_how",
    "check_settings",
    "choose_targets",
    "choose_units",
    "class_activation_map",
    "count_units",
    "deconvnet",
    "fill_images",
    "filters",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_times_input",
    "guided_backprop",
    "hires_cam",
    "interventions",
    "last_map",
    "layer_cam",
    "maximize",
    "named_target",
    "occlusion",
    "portions",
    "saliency",
    "select_layers",
    "settings_of",
    "smallest_occlusion",
    "unit_effects",
    "with_task",
    "xgrad_cam",
]
