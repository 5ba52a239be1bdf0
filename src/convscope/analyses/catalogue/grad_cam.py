"""The attribution `grad_cam`; see `convscope.lenses`."""

from convscope.analyses.attribution import LayerRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """Grad-CAM: a layer's maps, weighted by the mean gradient of a class (Selvaraju et al. 2017)."""


compute = attribution("grad_cam")
