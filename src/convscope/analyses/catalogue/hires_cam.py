"""The attribution `hires_cam`; see `convscope.lenses`."""

from convscope.analyses.attribution import LayerRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """HiResCAM: a layer's maps times the gradient of a class at each position (Draelos & Carin 2020)."""


compute = attribution("hires_cam")
