"""The attribution `guided_backprop`; see `convscope.lenses`."""

from convscope.analyses.attribution import NeuronRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(NeuronRequest):
    """Guided backpropagation: the gradient through rectifiers that pass positive gradients alone (Springenberg et al. 2014)."""


compute = attribution("guided_backprop")
