"""The attribution `saliency`; see `convscope.lenses`."""

from convscope.analyses.attribution import NeuronRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(NeuronRequest):
    """Saliency: the size of the gradient of a class, or of a layer's units, at each pixel (Simonyan et al. 2013)."""


compute = attribution("saliency")
