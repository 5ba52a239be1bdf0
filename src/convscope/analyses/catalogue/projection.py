"""The test images as points of a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import METHOD, AnyLayer
from convscope.analyses.testset import SampleRequest, chart, counted, sample, sample_rows
from convscope.analyses.view import View

if TYPE_CHECKING:
    from convscope.scans import Projection
    from convscope.scope import Scope


class Request(SampleRequest):
    """The test images as points, by their features at a layer (PCA or t-SNE), in the colours of their classes."""

    layer: AnyLayer = None
    method: Annotated[Literal["pca", "tsne"], Field(description=METHOD)] = "pca"


def compute(scope: Scope, request: Request, inputs: Inputs) -> Projection:
    """Of 2,000 test images by default, and the features that the logits are read from."""
    return scope.projection(sample(inputs, _n_images(request)), request.layer, request.method)


def view(scope: Scope, request: Request, result: Projection, inputs: Inputs) -> View:
    """The points, and a row for each: the image's number among the test images, its class, x and y."""
    images = sample(inputs, _n_images(request))
    table = result.table()
    rows = sample_rows(inputs, _n_images(request))[result.index]
    table["index"] = rows.numpy()
    classes = images.classes["class"]
    targets = images.targets_of("class")[result.index]
    table.insert(1, "class", [classes[k] for k in targets.tolist()])
    method = {"pca": "PCA", "tsne": "t-SNE"}[result.method]
    heading = f"{method} of {counted(len(table), 'test image')}, by the features of {result.layer}"
    remark = (
        f"the picture keeps {100 * result.kept:.1f} % of the {counted(result.neighbours.shape[1], 'nearest neighbour')} that "
        "an image has by its features"
    )
    tensors = {"index": rows} | {name: getattr(result, name) for name in ("points", "neighbours", "similarity")}
    figures = [chart(draw.points(table, classes))]
    return View(f"{heading}; {remark}", figures, tensors, table, heading, remark, side=1)


def _n_images(request: Request) -> int:
    return request.images or 2000
