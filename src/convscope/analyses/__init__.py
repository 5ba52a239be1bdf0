"""Analyses: the questions that can be asked of a network, a file each, with request, computation and view."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.analyses.ablation import AblationPlan, ablation_plan
    from convscope.analyses.analysis import Analysis, Inputs, find, look, names
    from convscope.analyses.attribution import shown_map, small_picture
    from convscope.analyses.catalogue.occlusion import drop_scale, sum_in_words
    from convscope.analyses.notebook import notebook_picture
    from convscope.analyses.request import Request, checked, option_of
    from convscope.analyses.subject import OpenedNetwork, look_at, open_subject
    from convscope.analyses.view import View
else:
    load_when_used(__name__)

__all__ = [
    "AblationPlan",
    "Analysis",
    "Inputs",
    "OpenedNetwork",
    "Request",
    "View",
    "ablation_plan",
    "checked",
    "drop_scale",
    "find",
    "look",
    "look_at",
    "names",
    "notebook_picture",
    "open_subject",
    "option_of",
    "shown_map",
    "small_picture",
    "sum_in_words",
]
