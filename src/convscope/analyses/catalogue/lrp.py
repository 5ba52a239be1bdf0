"""The attribution `lrp`; see `convscope.lenses`."""

from typing import Annotated

from pydantic import Field

from convscope.analyses.attribution import ClassRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(ClassRequest):
    """Layer-wise relevance propagation, the ε-rule (Bach et al. 2015), through Captum."""

    epsilon: Annotated[float | None, Field(gt=0, description="Of the ε-rule; 1e-9 by default.")] = None


compute = attribution("lrp")
