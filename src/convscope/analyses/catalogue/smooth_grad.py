"""The attribution `smooth_grad`; see `convscope.lenses`."""

from convscope.analyses.attribution import ClassRequest, attribution, view
from convscope.analyses.request import Noise, NSamples

__all__ = ["Request", "compute", "view"]


class Request(ClassRequest):
    """SmoothGrad: the mean gradient of noisy copies of the image (Smilkov et al. 2017), through Captum."""

    n_samples: NSamples = None
    noise: Noise = None


compute = attribution("smooth_grad")
