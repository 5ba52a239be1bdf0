"""Analyses: the questions that can be asked of a network, a file each, with request, computation and view."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.analyses.ablation import AblationPlan as AblationPlan, ablation_plan as ablation_plan
    from convscope.analyses.analysis import (
        Analysis as Analysis,
        Inputs as Inputs,
        find as find,
        look as look,
        names as names,
        request_of as request_of,
    )
    from convscope.analyses.attribution import shown_map as shown_map, small_picture as small_picture
    from convscope.analyses.catalogue.occlusion import drop_scale as drop_scale, sum_in_words as sum_in_words
    from convscope.analyses.notebook import notebook_picture as notebook_picture
    from convscope.analyses.request import Request as Request, checked as checked, option_of as option_of
    from convscope.analyses.subject import (
        OpenedNetwork as OpenedNetwork,
        look_at as look_at,
        open_subject as open_subject,
    )
    from convscope.analyses.view import View as View
else:
    load_when_used(__name__)
