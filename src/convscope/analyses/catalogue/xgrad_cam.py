"""The attribution `xgrad_cam`; see `convscope.lenses`."""

from convscope.analyses.attribution import LayerRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """XGrad-CAM: a layer's maps, weighted by the gradient of a class where they are active (Fu et al. 2020)."""


compute = attribution("xgrad_cam")
