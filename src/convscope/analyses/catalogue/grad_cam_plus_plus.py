"""The attribution `grad_cam_plus_plus`; see `convscope.lenses`."""

from convscope.analyses.attribution import LayerRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """Grad-CAM++: weights for several occurrences of a class (Chattopadhay et al. 2018)."""


compute = attribution("grad_cam_plus_plus")
