"""Lenses: functions of a network and images that return plain tensors, one method a file."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.lenses.ablation import (
        HOW as HOW,
        UnitsOf as UnitsOf,
        ablate as ablate,
        ablated_graph as ablated_graph,
        check_how as check_how,
        interventions as interventions,
    )
    from convscope.lenses.activations import (
        activations as activations,
        filters as filters,
        select_layers as select_layers,
    )
    from convscope.lenses.attribution import Attribution as Attribution
    from convscope.lenses.by_name import (
        ATTRIBUTIONS as ATTRIBUTIONS,
        attribute_by_name as attribute_by_name,
        check_settings as check_settings,
    )
    from convscope.lenses.cam import (
        WEIGHINGS as WEIGHINGS,
        class_activation_map as class_activation_map,
        grad_cam as grad_cam,
        grad_cam_plus_plus as grad_cam_plus_plus,
        hires_cam as hires_cam,
        last_map as last_map,
        layer_cam as layer_cam,
        xgrad_cam as xgrad_cam,
    )
    from convscope.lenses.captum_adapter import (
        CAPTUM_METHODS as CAPTUM_METHODS,
        attribute as attribute,
        settings_of as settings_of,
    )
    from convscope.lenses.gradients import gradient_times_input as gradient_times_input, saliency as saliency
    from convscope.lenses.maximize import (
        Maximized as Maximized,
        Normalization as Normalization,
        maximize as maximize,
        normalization as normalization,
    )
    from convscope.lenses.memory import portions as portions
    from convscope.lenses.occlusion import (
        Fill as Fill,
        OcclusionMap as OcclusionMap,
        Size as Size,
        fill_images as fill_images,
        occlusion as occlusion,
    )
    from convscope.lenses.parametrize import Fourier as Fourier, Parametrization as Parametrization, Pixels as Pixels
    from convscope.lenses.rectified import deconvnet as deconvnet, guided_backprop as guided_backprop
    from convscope.lenses.regularizers import (
        L2 as L2,
        Blur as Blur,
        Jitter as Jitter,
        Regularizer as Regularizer,
        TotalVariation as TotalVariation,
    )
    from convscope.lenses.settings import (
        CamSettings as CamSettings,
        LensSettings as LensSettings,
        MaximizeSettings as MaximizeSettings,
        NeuronSettings as NeuronSettings,
        SeededSettings as SeededSettings,
    )
    from convscope.lenses.smallest_occlusion import (
        SmallestOcclusion as SmallestOcclusion,
        smallest_occlusion as smallest_occlusion,
    )
    from convscope.lenses.targets import (
        NamedTarget as NamedTarget,
        Position as Position,
        Target as Target,
        TaskTarget as TaskTarget,
        choose_targets as choose_targets,
        named_target as named_target,
        with_task as with_task,
    )
    from convscope.lenses.unit_effects import UnitEffects as UnitEffects, unit_effects as unit_effects
    from convscope.lenses.units import (
        Units as Units,
        choose_units as choose_units,
        convolutions as convolutions,
        count_units as count_units,
        layers_with_units as layers_with_units,
    )
else:
    load_when_used(__name__)
