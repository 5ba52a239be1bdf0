"""The attribution `gradient_times_input`; see `convscope.lenses`."""

from convscope.analyses.attribution import NeuronRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(NeuronRequest):
    """Gradient × input: the gradient of a class or of units, times the pixel."""


compute = attribution("gradient_times_input")
