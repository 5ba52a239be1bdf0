"""The test images as points of a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import METHOD, AnyLayer
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted

if TYPE_CHECKING:
    from convscope.scans import Projection
    from convscope.scope import Scope


class Request(SampleRequest):
    """The test images as points, by their features at a layer (PCA or t-SNE), in the colours of their classes."""

    default_images = 2000

    layer: AnyLayer = None
    method: Annotated[Literal["pca", "tsne"], Field(description=METHOD)] = "pca"


def compute(scope: Scope, request: Request, inputs: Inputs) -> Projection:
    """Of 2,000 test images by default, and the features that the logits are read from."""
    return scope.projection(request.sample(inputs.test), request.layer, request.method)


def view(scope: Scope, request: Request, result: Projection, inputs: Inputs) -> View:
    """The points, and a row for each: the image's number among the test images, its class, x and y."""
    test, table = inputs.test, result.table()
    rows = request.rows(test)[result.index]
    table["index"] = rows.numpy()
    classes = test.classes["class"]
    table.insert(1, "class", [classes[k] for k in test.targets_of("class")[rows].tolist()])
    method = {"pca": "PCA", "tsne": "t-SNE"}[result.method]
    heading = f"{method} of {counted(len(table), 'test image')}, by the features of {result.layer}"
    remark = (
        f"the picture keeps {100 * result.kept:.1f} % of the {counted(result.neighbours.shape[1], 'nearest neighbour')} that "
        "an image has by its features"
    )
    tensors = {"index": rows} | {name: getattr(result, name) for name in ("points", "neighbours", "similarity")}
    figures = [chart(draw.points(table, classes))]
    return View(f"{heading}; {remark}", figures, tensors, table, heading, remark, side=1)
