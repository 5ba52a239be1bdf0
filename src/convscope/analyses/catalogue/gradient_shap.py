"""The attribution `gradient_shap`; see `convscope.lenses`."""

from convscope.analyses.attribution import ClassRequest, attribution, view
from convscope.analyses.request import Noise, NSamples

__all__ = ["Request", "compute", "view"]


class Request(ClassRequest):
    """Gradient SHAP: expected gradients over random baselines (Lundberg & Lee 2017), through Captum."""

    n_samples: NSamples = None
    noise: Noise = None


compute = attribution("gradient_shap")
