"""The attribution `deconvnet`; see `convscope.lenses`."""

from convscope.analyses.attribution import NeuronRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(NeuronRequest):
    """A deconvolutional network: activations led back to the pixels (Zeiler & Fergus 2013)."""


compute = attribution("deconvnet")
