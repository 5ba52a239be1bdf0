"""Whether a lens finds the pixels that the answer depends on: insertion and deletion curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.errors import RequestError, SettingError
from convscope.lenses import Attribution, Fill
from convscope.scans.by_image import Answers, Questions, TiedLens, check_map, cover_of, one_by_one
from convscope.scans.exact import ByImage
from convscope.scans.intervals import Estimate, mean_of
from convscope.scans.scan import check_count

GRADIENTS = frozenset({"saliency", "guided_backprop", "deconvnet", "smooth_grad"})
"""Lenses that say how much a pixel matters, not what it adds; their channels are taken together by size."""


@dataclass(frozen=True, eq=False)
class FaithfulnessCurves:
    """A class's probability as pixels are replaced, those first that a lens puts first; and in a random order.

    A lens is faithful where its deletion curve falls faster, and its insertion curve rises faster, than at random. The
    areas under the curves lie in [0, 1]. What they are without a random order to compare with says little: they
    depend on how sure the network is, and on the fill.

    Attributes:
        method: the lens.
        fill: what pixels were replaced by, in words.
        index: of each image in its set.
        target: the class asked about.
        shares: of the pixels replaced (or put back), from 0 to 1: the curves' abscissae.
        deletion: probability of the target as the first pixels of the map are replaced.
        insertion: probability of the target as the first pixels of the map are put back into a replaced image.
        random: deletion in a random order. Read backwards it is the insertion in the reverse order, which is just as
            random, so that one curve serves for both, with the same area.
    """

    method: str
    fill: str
    index: Int[Tensor, " N"]
    target: Int[Tensor, " N"]
    shares: Float[Tensor, " S"]
    deletion: Float[Tensor, "N S"]
    insertion: Float[Tensor, "N S"]
    random: Float[Tensor, "N S"]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.index)

    def areas(self, curve: Float[Tensor, "N S"]) -> Float[Tensor, " N"]:
        """The area under each image's curve, by trapezoids, as float64; in [0, 1]."""
        return torch.trapezoid(curve.double(), self.shares)

    def area(self, curve: Float[Tensor, "N S"]) -> Estimate:
        """The mean area over the images."""
        return mean_of(self.areas(curve).tolist(), 0, 1)

    def course(self, curve: Float[Tensor, "N S"]) -> list[Estimate]:
        """The mean probability over the images at each share, to draw."""
        return [mean_of(column, 0, 1) for column in curve.double().T.tolist()]

    @property
    def deletion_gain(self) -> Estimate:
        """By how much deleting in the map's order does more harm than at random: the mean of the images' differences."""
        return mean_of((self.areas(self.random) - self.areas(self.deletion)).tolist(), -1, 1)

    @property
    def insertion_gain(self) -> Estimate:
        """By how much inserting in the map's order helps more than at random: the mean of the images' differences."""
        return mean_of((self.areas(self.insertion) - self.areas(self.random)).tolist(), -1, 1)

    def table(self) -> pd.DataFrame:
        """A row for each image: method, index, target, the areas under its curves."""
        curves = {"deletion": self.deletion, "insertion": self.insertion, "random": self.random}
        areas = {name: self.areas(curve).numpy() for name, curve in curves.items()}
        return pd.DataFrame({"method": self.method, "index": self.index, "target": self.target} | areas)

    @property
    def verdict(self) -> str:
        """One sentence that says no more than the intervals carry."""
        gains = {"deletion": self.deletion_gain, "insertion": self.insertion_gain}
        better = [name for name, gain in gains.items() if gain.low is not None and gain.low > 0]
        worse = [name for name, gain in gains.items() if gain.high is not None and gain.high < 0]
        phrases = [f"beats a random order at {' and '.join(better)}"] if better else []
        phrases += [f"does worse than a random order at {' and '.join(worse)}"] if worse else []
        plural = "s" if self.n > 1 else ""
        return f"{self.method} {' but '.join(phrases) or 'cannot be told from a random order'} ({self.n} image{plural})"


def faithfulness(
    answers: Answers,
    look: TiedLens,
    asked: Questions,
    method: str,
    *,
    steps: int = 20,
    fill: Fill = "blur",
    seed: int = 0,
) -> FaithfulnessCurves:
    """Insertion and deletion curves of a lens over images, beside those of a random order.

    The pixels of each image are ordered by the lens's map, the largest value first, equal ones by their index. In
    that order they are replaced by the fill, share by share (deletion), or put back into the replaced image
    (insertion); at each share the network is asked anew. The paper deletes to a constant and inserts into a blur;
    here one fill serves for both, so that both curves run between the same two images.

    Args:
        answers: the network's.
        look: the lens, tied to the same network. Its maps are read by `importance`.
        asked: the images in [0, 1] and the class asked about for each. An interval needs two images, and says
            much from some fifty on.
        method: the lens's name.
        steps: equal shares, at most one a pixel; each costs three passes of the network an image.
        fill: what replaces pixels, see `convscope.lenses.fill_images`; one for all images. "blur" leaves the image
            natural; a sharp fill draws edges, which a network may answer to in their own right.
        seed: of the random orders, from 0 up; each depends on it and on the image's index alone.

    Returns:
        A `FaithfulnessCurves`: each image's probabilities in [0, 1] at each share, and from them the areas under the
        curves, their means with 95 % intervals, the gains over the random order, a verdict in words.

    Raises:
        SettingError: `steps` or `seed` is out of range.
        RequestError: the fill, or what the lens gives, does not fit the images.
        FailedError: the lens or the network gives NaN or infinity.

    Source: Petsiuk, Das & Saenko 2018, section 4.2, arXiv 1806.07421.

    Example:
        >>> curves = scope.faithfulness("grad_cam", images, layer="relu4")
        >>> curves.deletion_gain, curves.verdict
    """
    scan = Faithfulness(answers, look, method, steps, fill, seed)
    scan.update(asked)
    return scan.result()


class Faithfulness(ByImage):
    """A scan of insertion and deletion curves; each image is worked on alone, so the cut of the data does not matter.

    Args and Raises as of `faithfulness`.
    """

    def __init__(
        self, answers: Answers, look: TiedLens, method: str, steps: int = 20, fill: Fill = "blur", seed: int = 0
    ) -> None:
        n_pixels = answers.graph.input_shape[-2] * answers.graph.input_shape[-1]
        check_count("steps", steps)
        if steps > n_pixels:
            raise SettingError(f"steps: {steps}; expected 1 to {n_pixels}, the number of pixels")
        check_count("seed", seed, 0)
        self.answers, self.look, self.method, self.fill, self.seed = answers, look, method, fill, seed
        self.counts = torch.tensor([k * n_pixels // steps for k in range(steps + 1)])

    def update(self, asked: Questions) -> None:
        for one in one_by_one(asked, "replacing pixels"):
            [image], [target] = one.images, one.target
            cover = cover_of(one, self.fill)
            first = importance(self.look(one.images, one.target), *image.shape[1:])[0].flatten()
            order = first.argsort(descending=True, stable=True).to(image.device)
            chance = np.random.default_rng((self.seed, int(one.index))).permutation(len(order))
            curves = self._curves(image, cover, target, order, torch.from_numpy(chance).to(image.device))
            self.keep(one.index, target=one.target, **{name: curve[None] for name, curve in curves.items()})

    def result(self) -> FaithfulnessCurves:
        fill = "own pixels" if isinstance(self.fill, Tensor) else str(self.fill)
        return FaithfulnessCurves(self.method, fill, shares=self.counts.double() / self.counts[-1], **super().result())

    def _curves(
        self, image: Tensor, cover: Tensor, target: Tensor, order: Tensor, chance: Tensor
    ) -> dict[str, Float[Tensor, " S"]]:
        """All variants of an image in one batch; the whole and the replaced image are the ends of every curve."""
        replaced = self._first(order, image)
        deletion = torch.where(replaced, cover, image)
        insertion = torch.where(replaced, image, cover)[1:-1]
        random = torch.where(self._first(chance, image), cover, image)[1:-1]
        probabilities = self.answers.probabilities(torch.cat([deletion, insertion, random]), target)
        down, up, by_chance = probabilities.split([len(deletion), len(insertion), len(random)])
        whole, none = down[:1], down[-1:]
        return {
            "deletion": down,
            "insertion": torch.cat([none, up, whole]),
            "random": torch.cat([whole, by_chance, none]),
        }

    def _first(self, order: Int[Tensor, " P"], image: Float[Tensor, "C H W"]) -> Bool[Tensor, "S 1 H W"]:
        """For each step the pixels that come first in an order."""
        place = order.argsort()
        return (place < self.counts.to(place.device)[:, None]).view(-1, 1, *image.shape[1:])


def importance(found: Attribution | Tensor, height: int, width: int) -> Float[Tensor, "N height width"]:
    """How early each pixel comes: what a map says of it, channels taken together, enlarged to the image.

    Of attributions the channels are added, with their signs; of gradients (`GRADIENTS`), whose sign says nothing of
    for or against, the largest size over the channels is taken.

    Args:
        found: of a lens; or a tensor (N, H, W) or (N, C, H, W).
        height, width: of the image. A smaller map is enlarged bilinearly, as by `Attribution.on_image`.

    Raises:
        RequestError: the tensor has another shape.
        FailedError: a value is no finite number.
    """
    if isinstance(found, Tensor):
        if found.ndim not in (3, 4):
            raise RequestError(
                f"the lens gives a tensor of shape {tuple(found.shape)}; expected (N, H, W) or (N, C, H, W)"
            )
        found = Attribution(found if found.ndim == 4 else found[:, None], "map")
    check_map(found.values)
    large = found.on_image(height, width) if found.values.shape[2:] != (height, width) else found.values
    return large.abs().amax(1) if found.method in GRADIENTS else large.sum(1)
