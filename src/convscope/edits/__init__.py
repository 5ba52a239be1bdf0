"""Edits of images as a list of plain values, such as `[["rectangle", [0, 0, 8, 8], "grey"], ["rotate", 5]]`.

An edit is a list, its name first. Coordinates are pixels from the upper left corner of the image, x across and y down: the
centre of the first pixel is at 0.5, 0.5.

    ["paint", [[x, y], …], radius, fill]            a stroke: the pixels whose centre is within the radius of the line; a dot
    ["rectangle", [x, y, width, height], fill]      the pixels whose centre is inside
    ["paste", index, [x, y, width, height], [x, y]] whole pixels of another image, their upper left corner there, cut off at
                                                    the edge
    ["blend", index, share]                         (1 − share) · image + share · another image
    ["shift", right, down]                          in pixels, and the next two about the centre: bilinear; what is uncovered
    ["rotate", degrees]                             gets the mean of the image, by channel; rotations are anticlockwise as
    ["scale", factor]                               seen, and a factor above 1 gives a larger picture
    ["brightness", factor]                          as `convscope.data.Augmentation` has it
    ["contrast", factor]
    ["saturation", factor]
    ["blur", deviation]                             of the Gaussian, in pixels
    ["noise", deviation, seed]                      normal, of each value of the image; the same for every image
    ["jpeg", quality]                               through JPEG, of 8 bits; for images of 1 or 3 channels

A fill is "grey" (0.5), "black", "white", "mean" (of the image, by channel), "blur" (the image under a Gaussian whose
deviation is a 16th of its shorter side), "noise" (uniform, the same for every image) or a colour "#rrggbb", of which one
channel gets the luma; only images of 1 or 3 channels have colours.
"""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.edits.applied import apply as apply, touched as touched
    from convscope.edits.read import (
        Edits as Edits,
        Others as Others,
        check as check,
        describe as describe,
        with_own as with_own,
    )
else:
    load_when_used(__name__)
