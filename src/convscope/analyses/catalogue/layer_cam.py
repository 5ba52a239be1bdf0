"""The attribution `layer_cam`; see `convscope.lenses`."""

from convscope.analyses.attribution import LayerRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """LayerCAM: as HiResCAM, with positive gradients alone (Jiang et al. 2021)."""


compute = attribution("layer_cam")
