"""One object over one network: the face of the graph and the lenses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from functools import cached_property, partial, wraps
from inspect import isfunction
from pathlib import Path
from typing import Any, Protocol, TypeVar, Unpack, overload, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope import lenses, scans
from convscope.base.words import shape_text
from convscope.data import ImageSet, as_images
from convscope.errors import NetworkError, RequestError, UnknownNameError
from convscope.graph import (
    Anatomy,
    Positions,
    ReceptiveField,
    TracedGraph,
    anatomy,
    anatomy_of,
    answering_logits,
    check_has_values,
    initialized,
    positions,
    receptive_fields,
    trace,
    unwrapped,
)
from convscope.lenses import (
    Attribution,
    CamSettings,
    Fill,
    LensSettings,
    Maximized,
    MaximizeSettings,
    NamedTarget,
    NeuronSettings,
    Normalization,
    OcclusionMap,
    SeededSettings,
    Size,
    SmallestOcclusion,
    Target,
    TaskTarget,
    UnitEffects,
    Units,
)
from convscope.nets import Task, no_logits, task_over
from convscope.runs import open_run
from convscope.scans import (
    Answers,
    AnyImages,
    FaithfulnessCurves,
    InvarianceCurves,
    RandomizationCheck,
    Shift,
    TiedLens,
)

Lens = str | Callable[..., Attribution | Tensor]
"""The name of an attribution lens, see `Scope.attribute`; or a function of (scope, images, target) to a map of each image, such
as `Scope.saliency`, to which settings of another name than those of our lenses are best bound by `functools.partial`.
"""

_OF_OCCLUSION = ("size", "stride", "occlusion_fill", "logits", "max_memory")

_Class = TypeVar("_Class")


def _outside_inference_mode(cls: type[_Class]) -> type[_Class]:
    """Lets each public method run as outside `torch.inference_mode()`, on copies of tensors that were made inside: no
    gradient passes what inference mode has made, be it an image, a target or a copy of the network."""
    for name, method in list(vars(cls).items()):
        if isfunction(method) and (not name.startswith("_") or name == "__init__"):
            setattr(cls, name, _outside(method))
    return cls


def _outside(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        inside = torch.is_inference_mode_enabled()
        with torch.inference_mode(mode=False), torch.set_grad_enabled(torch.is_grad_enabled() and not inside):
            return method(*map(_of_its_own, arguments), **{name: _of_its_own(value) for name, value in named.items()})

    return call


def _of_its_own(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        return [_of_its_own(part) for part in value]
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


@runtime_checkable
class RunLike(Protocol):
    """What a scope needs of a run: the network, its classes, and the images that it takes."""

    @property
    def net(self) -> nn.Module: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def normalization(self) -> Any: ...

    @property
    def input_shape(self) -> tuple[int, int, int]: ...

    @property
    def task(self) -> Task: ...


@_outside_inference_mode
class Scope:
    """A network to look into: its anatomy, its answers, its filters, what its units see.

    Images are floats in [0, 1], (C, H, W) or (N, C, H, W), before normalisation, or of another kind, see `AnyImages`; the
    scope normalises them and moves them to the network's device. It answers in evaluation mode and leaves the network as it was
    found. The network is traced when first needed; its weights stay its own, so a scope over a network that
    trains on shows the present ones.

    Args:
        net_or_run: a run, or its folder, which knows the rest; or any module, with an example.
        example: a batch of images (N, C, H, W), of which only the shape matters; needed with a module.
        classes: names of the classes, in the order of the logits.
        normalize: (means, deviations), one number a channel; None where the network takes pixels in [0, 1].
        task: what the outputs of a module mean, where it has several heads; see `convscope.nets.make_task`. By default
            they are one softmax's, and a single output a sigmoid's; a network that ends in one is read before it.
        output: which of several results of a module is its answer, by key, field or index. By default the one called
            "logits" or "out", else that of as many numbers as there are classes, else the first that is a row of numbers.

    Attributes:
        net: the network: of one within `DataParallel` or `torch.compile` the inner one; of one with lazy modules a copy that is
            initialised for such images.
        classes: their names as far as they are known: of several heads those of each, as "angle=45°".

    Raises:
        RequestError: a module came without an example, or the normalisation does not fit the channels.
        RunFolderError: the folder holds no run.

    Example:
        >>> scope = Scope(net, example=torch.zeros(1, 3, 32, 32))
        >>> scope.probabilities(images).argmax(1)
        >>> Scope("runs/first").grad_cam("cat.jpg")
    """

    def __init__(
        self,
        net_or_run: nn.Module | RunLike | str | os.PathLike[str],
        example: Tensor | None = None,
        classes: Sequence[str] | None = None,
        normalize: Normalization | None = None,
        task: Task | None = None,
        output: str | int | None = None,
    ) -> None:
        if isinstance(net_or_run, str | os.PathLike):
            net_or_run = open_run(Path(net_or_run))
        if isinstance(net_or_run, nn.Module):
            images = _batch(example)
            check_has_values(net_or_run)
            self.net, shape = initialized(unwrapped(net_or_run), images), tuple(images.shape[1:])
        elif isinstance(net_or_run, RunLike):
            self.net, shape = net_or_run.net, tuple(net_or_run.input_shape)
            task = task or net_or_run.task
            normalize = normalize or net_or_run.normalization
        else:
            kind = type(net_or_run).__name__
            raise RequestError(f"a scope opens a torch.nn.Module, a run or the folder of one, not a {kind}")
        self.run = net_or_run if isinstance(net_or_run, RunLike) else None
        self.given_task, self._output = task, output
        self.classes = tuple(classes or (task.classes if task else ()))
        if task is None and len(set(self.classes)) < len(self.classes):
            duplicate = next(name for name in self.classes if self.classes.count(name) > 1)
            raise RequestError(f"classes: {duplicate!r} stands there twice; each class has a name of its own")
        self.input_shape, self._bits = shape, getattr(self.run, "bits", 8)
        self._normalize = normalize
        self._mean, self._deviation = lenses.normalization(normalize, shape[0])

    def __repr__(self) -> str:
        shape = shape_text(self.input_shape)
        return f"Scope({type(self.net).__name__}, {shape} images, {len(self.classes) or 'unnamed'} classes)"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, here or in another process: it traces its network itself, and writes to no run folder."""
        left_out = ("graph", "_fields", "_positions", "run")
        return {name: value for name, value in vars(self).items() if name not in left_out} | {"run": None}

    @cached_property
    def task(self) -> Task:
        """What the outputs mean: the run's task, or the one that was given, or what their number says.

        Raises:
            RequestError: nothing was given, and the network gives no row of logits.
        """
        if self.given_task is not None:
            return self.given_task
        shape = self.graph.operation(self.graph.outputs[0]).output_shape
        if len(shape) != 1:
            raise no_logits(shape)
        if self.classes and len(self.classes) != max(2, shape[0]):
            raise RequestError(
                f"classes: {len(self.classes)} names, but the network gives {shape[0]} outputs; name each, in their order"
            )
        return task_over(shape[0], self.classes)

    @cached_property
    def graph(self) -> TracedGraph:
        """The traced network, for what the methods here do not offer; see `convscope.graph.trace`."""
        graph = trace(self.net, self._example(), self._output, len(self.classes) or None)
        return graph if self.given_task is not None else answering_logits(graph)

    @property
    def note(self) -> str | None:
        """What a reader of the network's answers has to know, such as which of several outputs is taken; None if nothing."""
        return self.graph.note

    def anatomy(self) -> Anatomy:
        """The table of the network's operations; see `convscope.graph.anatomy`."""
        try:
            return anatomy_of(self.graph)
        except NetworkError:  # it cannot be traced: by hooks, then
            return anatomy(self.net, self._example())

    def activations(self, images: AnyImages, layers: Sequence[str]) -> dict[str, Tensor]:
        """The activations of some layers for each image; see `convscope.lenses.activations`."""
        return lenses.activations(self.graph, self.prepare(images), layers)

    def filters(self, layer: str) -> Tensor:
        """A copy of a layer's weights, (out, in, kh, kw) of a convolution; see `convscope.lenses.filters`."""
        return lenses.filters(self.net, layer)

    def logits(self, images: AnyImages) -> Float[Tensor, "N K"]:
        """The network's answer to each image, before the softmax."""
        with torch.no_grad():
            return self.graph.run(self.prepare(images))[self.graph.outputs[0]]

    def probabilities(self, images: AnyImages, head: str | None = None) -> Float[Tensor, "N K"]:
        """Of each class, in the order of `classes`; they sum to 1, of several heads those of each.

        Args:
            images: in [0, 1].
            head: of a network of several heads only the classes of this one, called by its target.
        Raises:
            UnknownNameError: there is no such head.
        """
        heads = {each.target: each for each in self.task.heads}
        if head is not None and head not in heads:
            raise UnknownNameError("head", head, heads, "one of this network's")
        answering = self.task if head is None else heads[head]
        return answering.probabilities(self.logits(images))

    def saliency(
        self, images: AnyImages, target: NamedTarget = None, **settings: Unpack[NeuronSettings]
    ) -> Attribution:
        """The gradient of a class or of a layer's units; see `convscope.lenses.saliency`."""
        return lenses.saliency(self.graph, self.prepare(images), self._asked(target), **settings)

    def gradient_times_input(
        self, images: AnyImages, target: NamedTarget = None, **settings: Unpack[NeuronSettings]
    ) -> Attribution:
        """That gradient times the image; see `convscope.lenses.gradient_times_input`."""
        return lenses.gradient_times_input(self.graph, self.prepare(images), self._asked(target), **settings)

    def guided_backprop(
        self, images: AnyImages, target: NamedTarget = None, **settings: Unpack[NeuronSettings]
    ) -> Attribution:
        """Guided backpropagation; see `convscope.lenses.guided_backprop`."""
        return lenses.guided_backprop(self.graph, self.prepare(images), self._asked(target), **settings)

    def deconvnet(
        self, images: AnyImages, target: NamedTarget = None, **settings: Unpack[NeuronSettings]
    ) -> Attribution:
        """What a deconvolutional network shows; see `convscope.lenses.deconvnet`."""
        return lenses.deconvnet(self.graph, self.prepare(images), self._asked(target), **settings)

    def grad_cam(
        self, images: AnyImages, layer: str | None = None, target: NamedTarget = None, **settings: Unpack[CamSettings]
    ) -> Attribution:
        """Grad-CAM at a layer, by default the last with positions; see `convscope.lenses.grad_cam`."""
        return lenses.grad_cam(self.graph, self.prepare(images), self._asked(target), layer, **settings)

    def grad_cam_plus_plus(
        self, images: AnyImages, layer: str | None = None, target: NamedTarget = None, **settings: Unpack[CamSettings]
    ) -> Attribution:
        """Grad-CAM++, likewise; see `convscope.lenses.grad_cam_plus_plus`."""
        return lenses.grad_cam_plus_plus(self.graph, self.prepare(images), self._asked(target), layer, **settings)

    def hires_cam(
        self, images: AnyImages, layer: str | None = None, target: NamedTarget = None, **settings: Unpack[CamSettings]
    ) -> Attribution:
        """HiResCAM, likewise; see `convscope.lenses.hires_cam`."""
        return lenses.hires_cam(self.graph, self.prepare(images), self._asked(target), layer, **settings)

    def xgrad_cam(
        self, images: AnyImages, layer: str | None = None, target: NamedTarget = None, **settings: Unpack[CamSettings]
    ) -> Attribution:
        """XGrad-CAM, likewise; see `convscope.lenses.xgrad_cam`."""
        return lenses.xgrad_cam(self.graph, self.prepare(images), self._asked(target), layer, **settings)

    def layer_cam(
        self, images: AnyImages, layer: str | None = None, target: NamedTarget = None, **settings: Unpack[CamSettings]
    ) -> Attribution:
        """LayerCAM, likewise; see `convscope.lenses.layer_cam`."""
        return lenses.layer_cam(self.graph, self.prepare(images), self._asked(target), layer, **settings)

    def integrated_gradients(
        self,
        images: AnyImages,
        target: NamedTarget = None,
        *,
        n_steps: int = 50,
        baseline: Tensor | None = None,
        max_memory: int | None = None,
    ) -> Attribution:
        """Integrated gradients, through Captum; see `convscope.lenses.attribute`."""
        return self.attribute(
            "integrated_gradients", images, target, n_steps=n_steps, baseline=baseline, max_memory=max_memory
        )

    def smooth_grad(
        self, images: AnyImages, target: NamedTarget = None, *, n_samples: int = 50, noise: float = 0.15, seed: int = 0
    ) -> Attribution:
        """SmoothGrad, through Captum; see `convscope.lenses.attribute`."""
        return self.attribute("smooth_grad", images, target, n_samples=n_samples, noise=noise, seed=seed)

    def gradient_shap(
        self, images: AnyImages, target: NamedTarget = None, *, n_samples: int = 50, noise: float = 0.0, seed: int = 0
    ) -> Attribution:
        """Gradient SHAP, through Captum; see `convscope.lenses.attribute`."""
        return self.attribute("gradient_shap", images, target, n_samples=n_samples, noise=noise, seed=seed)

    def lrp(self, images: AnyImages, target: NamedTarget = None, *, epsilon: float = 1e-9) -> Attribution:
        """Layer-wise relevance propagation, through Captum; see `convscope.lenses.attribute`."""
        return self.attribute("lrp", images, target, epsilon=epsilon)

    def attribute(
        self, name: str, images: AnyImages, target: NamedTarget = None, **settings: Unpack[SeededSettings]
    ) -> Attribution:
        """Any attribution lens by its name: those above, Captum's methods, see `convscope.lenses.attribute`, and "occlusion".

        The drops of occlusion are placed on the pixels, and its fill is asked for as `occlusion_fill`.

        Raises:
            UnknownNameError: there is no such lens, or it has no such setting; the message lists those there are.
        """
        if name == "occlusion":
            _check_settings(name, settings)
            named: dict[str, Any] = {
                "fill" if name == "occlusion_fill" else name: value for name, value in settings.items()
            }
            drops = self.occlusion(images, target=target, **named)
            values = drops.on_image(*self.input_shape[1:])[:, None]
            return Attribution(values, "occlusion", drops.targets, drops.whole, note=drops.note)
        return lenses.attribute_by_name(self.graph, self.prepare(images), name, self._asked(target), **settings)

    @overload
    def occlusion(
        self,
        images: AnyImages,
        size: Size = ...,
        stride: Size = ...,
        target: NamedTarget = ...,
        *,
        fill: Fill = ...,
        logits: bool = ...,
        max_memory: int | None = ...,
    ) -> OcclusionMap: ...

    @overload
    def occlusion(
        self,
        images: AnyImages,
        size: list[Size],
        stride: Size = ...,
        target: NamedTarget = ...,
        *,
        fill: Fill = ...,
        logits: bool = ...,
        max_memory: int | None = ...,
    ) -> list[OcclusionMap]: ...

    def occlusion(
        self,
        images: AnyImages,
        size: Size | list[Size] = 5,
        stride: Size = 1,
        target: NamedTarget = None,
        *,
        fill: Fill = "grey",
        logits: bool = False,
        max_memory: int | None = None,
    ) -> OcclusionMap | list[OcclusionMap]:
        """The target's probability with a square of the image covered, at each position; a list for a list of sizes.

        See `convscope.lenses.occlusion`, and `convscope.lenses.fill_images` for `fill`, in pixels as they are here.
        """
        batch = self.images(images)
        prepared, covers = self.prepare(batch), self.prepare(lenses.fill_images(batch, fill))
        return lenses.occlusion(
            self.graph, prepared, covers, size, stride, self._asked(target), logits=logits, max_memory=max_memory
        )

    def smallest_occlusion(
        self, images: AnyImages, fill: Fill = "grey", target: NamedTarget = None
    ) -> SmallestOcclusion:
        """The smallest square that changes the predicted class of an image; see `convscope.lenses.smallest_occlusion`."""
        batch = self.images(images)
        prepared, covers = self.prepare(batch), self.prepare(lenses.fill_images(batch, fill))
        return lenses.smallest_occlusion(self.graph, prepared, covers, self._asked(target))

    def unit_effects(
        self, images: AnyImages, layers: Sequence[str], target: NamedTarget = None, *, measured: int = 200
    ) -> UnitEffects:
        """Which units an answer to one image rests on; see `convscope.lenses.unit_effects`."""
        return lenses.unit_effects(self.graph, self.prepare(images), layers, self._asked(target), measured)

    def maximize(
        self,
        layer: str | None = None,
        units: Units = None,
        position: tuple[int, int] | None = None,
        **settings: Unpack[MaximizeSettings],
    ) -> Maximized:
        """The pictures that maximally activate units of a layer, or the classes; see `convscope.lenses.maximize`."""
        return lenses.maximize(self.graph, layer, units, position, normalize=self._normalize, **settings)

    def ablate(
        self,
        layers: Mapping[str, Units],
        how: str = "zero_weights",
        images: AnyImages | None = None,
    ) -> Scope:
        """A scope over an edited copy in which some units are ablated; see `convscope.lenses.ablate`.

        Images are needed for "mean_activation" alone: the mean is over these.

        Example:
            >>> scope.ablate({"conv1": [3, 5]}).probabilities(images)
        """
        needs_none = images is None and how != "mean_activation"
        prepared = self._example() if needs_none else None if images is None else self.prepare(images)
        graph = None if how == "zero_weights" else scans.graph_of(self)
        edited = lenses.ablate(self.net, layers, how, prepared, graph=graph)
        scope = copy(self)
        scope.net = edited
        if "graph" in vars(self) and (graph := lenses.ablated_graph(self.graph, edited, layers, how)) is not None:
            scope.graph = graph
        return scope

    # Functions of a scope, a set and settings, which are its methods as they stand.

    top_patches = scans.top_patches
    """For every unit the images it answers most to, and where in them; see `convscope.scans.top_patches`.

    The patches themselves are cut from a set or a batch: of other kinds of images from `Scope.images` of them.
    """
    statistics = scans.statistics
    """What every unit gives over a set of images; see `convscope.scans.statistics`."""
    filter_effects = scans.filter_effects
    """The effect of ablating each filter of some layers, one at a time; see `convscope.scans.filter_effects`."""
    ablation = scans.ablation
    """The effect of ablating a chosen set of units, together; see `convscope.scans.ablation`."""
    edit_effect = scans.edit_effect
    """The effect of the same edits of all images; see `convscope.scans.edit_effect` and `convscope.edits`."""
    embeddings = scans.embeddings
    """The features at a layer, by default those that the logits are read from; see `convscope.scans.embeddings`."""
    projection = scans.project
    """The images as points of a plane, by those features; see `convscope.scans.project`."""
    nearest = scans.nearest
    """The images of a set that are nearest to some images, by those features; see `convscope.scans.nearest`."""

    def faithfulness(
        self,
        lens: Lens,
        images: AnyImages,
        targets: NamedTarget = None,
        *,
        steps: int = 20,
        fill: Fill = "blur",
        seed: int = 0,
        max_memory: int | None = None,
        **settings: Unpack[LensSettings],
    ) -> FaithfulnessCurves:
        """Insertion and deletion curves of a lens with its settings; see `convscope.scans.faithfulness`, `Lens`.

        The images of a set are all held in memory. Of a lens by name the result is kept in a run's folder, and found again.
        """
        _check_settings(lens, settings)
        shown = scans.shown(self, images)
        request = {"lens": lens, "targets": _listed(targets), "steps": steps, "fill": fill, "seed": seed}

        def make() -> FaithfulnessCurves:
            look, answers = self._look(lens, settings, max_memory), self._answers(max_memory)
            questions = answers.asked(self.images(shown), self._asked(targets))
            return scans.faithfulness(answers, look, questions, _name(lens), steps=steps, fill=fill, seed=seed)

        request |= {"max_memory": max_memory, "settings": settings}
        return scans.cached_record(self, "faithfulness", shown, request, FaithfulnessCurves, make)

    def randomization_check(
        self,
        lens: Lens,
        images: AnyImages,
        targets: NamedTarget = None,
        *,
        layers: Sequence[str] | None = None,
        seed: int = 0,
        max_memory: int | None = None,
        **settings: Unpack[LensSettings],
    ) -> RandomizationCheck:
        """How much of a lens's maps is left as weights become random; see `convscope.scans.randomization_check`, `Lens`.

        The images of a set are all held in memory. Of a lens by name the result is kept in a run's folder, and found again.
        """
        _check_settings(lens, settings)
        shown = scans.shown(self, images)
        request = {"lens": lens, "targets": _listed(targets), "layers": layers, "seed": seed}

        def make() -> RandomizationCheck:
            look, answers = self._look(lens, settings, max_memory), self._answers(max_memory)
            copied = partial(self._copied, lens, settings, max_memory)
            questions = answers.asked(self.images(shown), self._asked(targets))
            return scans.randomization_check(self.graph, look, copied, questions, _name(lens), layers=layers, seed=seed)

        request |= {"max_memory": max_memory, "settings": settings}
        return scans.cached_record(self, "randomization", shown, request, RandomizationCheck, make)

    def invariance(
        self,
        images: AnyImages,
        layers: Sequence[str],
        targets: NamedTarget = None,
        *,
        shift: Sequence[Shift] | float = (1, 2, 4, 8),
        rotate: Sequence[float] | float = (5, 15, 45, 90),
        scale: Sequence[float] | float = (0.8, 0.9, 1.1, 1.25),
        fill: Fill = "mean",
        max_memory: int | None = None,
    ) -> InvarianceCurves:
        """How far features and answer move as images are shifted, rotated, scaled; see `convscope.scans.invariance`.

        The images of a set are all held in memory. The result is kept in a run's folder, and found again.
        """
        shown = scans.shown(self, images)
        raw = {"shift": shift, "rotate": rotate, "scale": scale}
        changes: dict[str, Any] = {name: scans.amounts(name, values) for name, values in raw.items()} | {"fill": fill}

        def make() -> InvarianceCurves:
            answers = self._answers(max_memory)
            questions = answers.asked(self.images(shown), self._asked(targets))
            return scans.invariance(answers, questions, layers, **changes)

        request = changes | {"layers": layers, "targets": _listed(targets), "max_memory": max_memory}
        return scans.cached_record(self, "invariance", shown, request, InvarianceCurves, make)

    def n_units(self, layer: str | None = None) -> int:
        """How many units a layer has; without a layer, how many logits.

        Raises:
            UnknownNameError: there is no such layer; the message lists those there are.
            RequestError: it is not known which of its numbers are a unit's.
        """
        operation = self.graph.operation(layer or self.graph.outputs[0])
        return lenses.count_units(operation, self._positions.get(operation.name))

    def class_name(self, k: int) -> str:
        """The name of a class, or "class k" where it has none."""
        return self.classes[k] if k < len(self.classes) else f"class {k}"

    def output_name(self, output: int) -> str:
        """The name of the class that an output of the network speaks for."""
        return self.task.output_name(output)

    def target(self, target: NamedTarget) -> TaskTarget:
        """A target by its name or index, as lenses take it; see `convscope.lenses.NamedTarget`."""
        return lenses.named_target(self.task, target)

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What part of the image a layer's units see.

        Raises:
            UnknownNameError: there is no such layer; the message lists those there are.
        """
        name = self.graph.operation(layer).name
        return self._fields[name]

    def images(self, images: AnyImages) -> Float[Tensor, "N C H W"]:
        """Images of any kind as a batch in [0, 1], not yet normalised, on the network's device.

        Files and PIL images are brought to the size and the channels that the network takes, as the data of a run are; see
        `convscope.data.as_images`.

        Raises:
            RequestError: tensors or arrays have another shape than the network takes, or pixels that are not in [0, 1].
            DataError: a file is missing, or is no image.
        """
        pixels = images.images() if isinstance(images, ImageSet) else images
        return as_images(pixels, self.input_shape, self._bits).to(self._example())

    def prepare(self, images: AnyImages) -> Float[Tensor, "N C H W"]:
        """The images as the network takes them: a batch, normalised, on its device. Raises as `images`."""
        batch = self.images(images)
        return (batch - self._mean.to(batch)) / self._deviation.to(batch)

    def _answers(self, max_memory: int | None) -> Answers:
        return Answers(self.graph, self.prepare, max_memory, self.given_task)

    def _asked(self, target: NamedTarget) -> Target:
        """As a lens takes it. Without a task none is needed for what is most probable, nor for a question about a layer."""
        return None if target is None and self.given_task is None else self.target(target)

    def _look(self, lens: Lens, settings: Mapping[str, Any], max_memory: int | None = None) -> TiedLens:
        """A lens tied to this network; those by name take a budget of memory."""
        if not isinstance(lens, str):
            return lambda images, target: lens(self, images, target, **settings)
        budget: dict[str, Any] = {} if max_memory is None else {"max_memory": max_memory}
        return lambda images, target: self.attribute(lens, images, target, **settings, **budget)

    def _copied(
        self, lens: Lens, settings: Mapping[str, Any], max_memory: int | None = None
    ) -> tuple[nn.Module, TiedLens]:
        """A copy of the network, weights and all, and a lens tied to it."""
        scope = copy(self)
        scope.net = deepcopy(lenses.ablate(self.net, {}))  # which can copy any network
        scope.graph = self.graph.over(scope.net)
        return scope.net, scope._look(lens, settings, max_memory)

    @cached_property
    def _fields(self) -> dict[str, ReceptiveField]:
        return receptive_fields(self.graph)

    @cached_property
    def _positions(self) -> dict[str, Positions]:
        return positions(self.graph)

    def _example(self) -> Float[Tensor, "N C H W"]:
        """A black image of the network's type, on its device."""
        weights = (p for p in self.net.parameters() if p.is_floating_point())
        like = next(weights, torch.zeros(()))
        return torch.zeros((1, *self.input_shape), dtype=like.dtype, device=like.device)


def _check_settings(lens: Lens, settings: Mapping[str, Any]) -> None:
    """Raises what `Scope.attribute` does, before any work; a function checks its own settings."""
    if lens == "occlusion":
        for name in settings.keys() - _OF_OCCLUSION:
            raise UnknownNameError("setting", name, _OF_OCCLUSION, "one of occlusion")
    elif isinstance(lens, str):
        lenses.check_settings(lens, settings)


def _name(lens: Lens) -> str:
    return lens if isinstance(lens, str) else getattr(lens, "__name__", type(lens).__name__)


def _listed(targets: NamedTarget) -> Any:
    return targets.tolist() if isinstance(targets, Tensor) else targets


def _batch(example: Tensor | None) -> Tensor:
    if not isinstance(example, Tensor) or example.ndim != 4:
        given = f"one of shape {tuple(example.shape)}" if isinstance(example, Tensor) else f"a {type(example).__name__}"
        given = "none" if example is None else given
        raise RequestError(
            f"a scope over a module needs an example of shape (N, C, H, W), and there is {given}; "
            "pass example=torch.zeros(1, 3, 32, 32)"
        )
    return example
