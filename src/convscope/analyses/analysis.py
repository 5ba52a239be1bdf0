"""The catalogue of analyses: each is an attribution lens, or a file of `convscope.analyses.catalogue`, found by its name.

Such a file has a `Request`, whose docstring is its help; `compute(scope, request, inputs)`, which gives the result; and
`view(scope, request, result, inputs)`, which gives a `View` of it. From these come the options and the help of
`convscope look`, its JSON schemas, the reference page, and the looks that a study names.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from convscope import analyses, edits, graph
from convscope.analyses import attribution
from convscope.analyses.maps import strongest_unit
from convscope.analyses.request import Reads, Request, checked
from convscope.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.analyses.view import View
    from convscope.data import ImageSet
    from convscope.scope import Scope


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an analysis looks at; `look` makes sure that what its request `reads` is there.

    Attributes:
        image: in [0, 1], (C, H, W).
        test: the test images.
    """

    image: Tensor = None  # type: ignore[assignment]
    test: ImageSet = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Analysis:
    """One question that can be asked of a network; see the head of this file."""

    name: str
    request: type[Request]
    compute: Callable[[Scope, Any, Inputs], Any]
    view: Callable[[Scope, Any, Any, Inputs], View]

    @property
    def reads(self) -> Reads:
        """What it looks at beside the network."""
        return self.request.reads

    @property
    def about(self) -> str:
        """What it is, in a line."""
        return (self.request.__doc__ or "").strip().splitlines()[0]


def names() -> tuple[str, ...]:
    """Of all analyses, in the order of the alphabet; nothing is loaded."""
    folder = f"{analyses.__path__[0]}/catalogue"
    return tuple(sorted([*attribution.ATTRIBUTIONS, *(module.name for module in pkgutil.iter_modules([folder]))]))


def find(name: str) -> Analysis:
    """An analysis by its name; a dash counts as an underscore.

    Raises:
        UnknownNameError: there is none of this name; the message lists those there are.
    """
    identifier = name.replace("-", "_")
    if identifier not in names():
        raise UnknownNameError("lens", name, names(), "one of convscope's or Captum's")
    if identifier in attribution.ATTRIBUTIONS:
        request = attribution.ATTRIBUTIONS[identifier]
        return Analysis(identifier, request, partial(attribution.compute, identifier), attribution.view)
    file = import_module(f"convscope.analyses.catalogue.{identifier}")
    return Analysis(identifier, file.Request, file.compute, file.view)


def look(
    scope: Scope,
    lens: str,
    *,
    image: Tensor | None = None,
    test: ImageSet | None = None,
    edit: str | Sequence[Any] | None = None,
    **settings: Any,
) -> View:
    """What an analysis shows of one image, of the network alone, or of the test images.

    Args:
        scope: over the network.
        lens: name of the analysis, see `names`.
        image: in [0, 1], (C, H, W), for those that look at an image.
        test: for those that look at the test images; edits that take from another image take from these.
        edit: of the image before the lens, or of the test images in an analysis that takes edits; see `convscope.edits`.
        settings: of its request; text is read as on the command line.
    Raises:
        UnknownNameError: there is no such analysis, or layer.
        SettingError: something that it needs is missing, or something that it does not take is given.
        FailedError: weights of the network, or what is to be shown, are NaN or infinite.

    Example:
        >>> look(scope, "grad_cam", image=image, layer="relu5").heading
    """
    analysis = find(lens)
    if edit is not None and "edit" in analysis.request.model_fields:
        settings["edit"], edit = edit, None
    request = request_of(analysis, settings, image, test)
    if edit is not None:
        if image is None:
            raise SettingError(f"--edit: {analysis.name} is shown no image to edit; leave it out, or ask edit_effect")
        image = edits.apply(image[None], edit, test)[0]
    inputs = Inputs(image, test)  # type: ignore[arg-type]
    graph.check_weights(scope.net)
    if settings.get("unit") == "max":
        if image is None or settings.get("layer") is None:
            raise SettingError("--unit max: the unit that answers an image most; give --image and --layer too")
        request = request.model_copy(update={"unit": strongest_unit(scope, image, settings["layer"])})
    view = analysis.view(scope, request, analysis.compute(scope, request, inputs), inputs)
    if edit is not None and image is not None:
        view = replace(view, heading=f"{view.heading}; image edited: {edits.describe(edit)}")
    return view if analysis.name == "filters" else replace(view, note=scope.note)  # filters need no traced network


def request_of(analysis: Analysis, settings: Mapping[str, Any], image: Tensor | None, test: ImageSet | None) -> Request:
    """The request of an analysis: what can be refused before any work is refused here.

    Raises:
        SettingError: an input that it needs is missing, or one that it does not look at is given; or a setting is.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    request = checked(
        analysis.name, analysis.request, settings
    )  # first: a misspelt --image is a setting that is not there
    if analysis.reads == "image" and image is None:
        raise SettingError(f"--image: {analysis.name} needs one; give a file, or the index of a test image")
    if analysis.reads == "test images" and test is None:
        raise SettingError(f"{analysis.name} looks at the test images of a run; give a run's folder")
    if analysis.reads != "image" and image is not None and settings.get("unit") != "max":
        raise SettingError(f"--image: {analysis.name} has no such setting; leave it out")
    return request
