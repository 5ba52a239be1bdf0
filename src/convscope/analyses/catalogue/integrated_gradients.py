"""The attribution `integrated_gradients`; see `convscope.lenses`."""

from typing import Annotated

from pydantic import Field

from convscope.analyses.attribution import ClassRequest, attribution, view

__all__ = ["Request", "compute", "view"]


class Request(ClassRequest):
    """Integrated gradients from a baseline to the image (Sundararajan et al. 2017), through Captum."""

    n_steps: Annotated[int | None, Field(ge=1, description="Steps from the baseline to the image; 50 by default.")] = (
        None
    )


compute = attribution("integrated_gradients")
