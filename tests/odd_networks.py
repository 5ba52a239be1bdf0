"""Small classifiers of 3×32×32 images that are written in ways which tracing finds hard, as people write them.

Each function in `ODD` gives a module with random weights. `answer` says which part of what it returns are the class scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

CLASSES = 10


class Plain(nn.Module):
    """Two convolutions, a pool and a dense layer; what a subclass does with the maps between them is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.fc = nn.Linear(12, CLASSES)

    def between(self, maps: Tensor) -> Tensor:
        return maps.relu()

    def features(self, images: Tensor) -> Tensor:
        return self.conv2(self.between(self.conv1(images))).relu()

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.features(images).mean((2, 3)))


class _StraightThrough(torch.autograd.Function):
    """Sign forwards, the identity backwards."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.sign()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Spike(torch.autograd.Function):
    """A step forwards, the derivative of a fast sigmoid backwards."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return (values > 0).float()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        [values] = context.saved_tensors
        return gradient / (1 + 10 * values.abs()) ** 2


class CustomSign(Plain):
    def between(self, maps: Tensor) -> Tensor:
        return _StraightThrough.apply(maps)


class Spiking(Plain):
    """Leaky integrate-and-fire over four steps."""

    def between(self, maps: Tensor) -> Tensor:
        potential, spikes = torch.zeros_like(maps), torch.zeros_like(maps)
        for _ in range(4):
            potential = 0.9 * potential + maps
            fired = _Spike.apply(potential - 0.5)
            potential, spikes = potential - 0.5 * fired, spikes + fired
        return spikes / 4


class SliceScaled(Plain):
    def between(self, maps: Tensor) -> Tensor:
        maps = maps.relu().clone()  # what a ReLU gives autograd forbids to write on
        maps[:, :4] *= 2
        return maps


class SliceAssigned(Plain):
    """A temporal shift of channels, written into zeros."""

    def between(self, maps: Tensor) -> Tensor:
        shifted = torch.zeros_like(maps)
        shifted[:, :2, 1:] = maps[:, :2, :-1]
        shifted[:, 2:] = maps[:, 2:]
        return shifted.relu()


class MaskedFill(Plain):
    def between(self, maps: Tensor) -> Tensor:
        return maps.clone().masked_fill_(maps < 0, 0.0)


class NewZeros(Plain):
    def between(self, maps: Tensor) -> Tensor:
        padding = maps.new_zeros((maps.shape[0], 1, *maps.shape[2:]))
        return torch.cat([maps, padding], 1)[:, :8].relu() + maps.new_full((1,), 0.1)


class AuxiliaryFirst(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Any:
        maps = self.conv1(images).relu()
        return self.auxiliary(maps.mean((2, 3))), self.fc(self.conv2(maps).relu().mean((2, 3)))


class AsDict(AuxiliaryFirst):
    def forward(self, images: Tensor) -> Any:
        auxiliary, logits = super().forward(images)
        return {"aux": auxiliary, "logits": logits}


@dataclass
class Answer:
    """As the models of transformers answer."""

    hidden: Tensor
    logits: Tensor


class AsDataclass(AuxiliaryFirst):
    def forward(self, images: Tensor) -> Any:
        return Answer(*super().forward(images))


class SoftmaxInside(Plain):
    def logits(self, images: Tensor) -> Tensor:
        return super().forward(images)

    def forward(self, images: Tensor) -> Any:
        return self.logits(images).softmax(1)


class Starred(Plain):
    def forward(self, *images: Tensor) -> Any:
        return super().forward(images[0])


class Checkpointed(Plain):
    def features(self, images: Tensor) -> Tensor:
        return checkpoint(super().features, images, use_reentrant=False)


class CheckpointedReentrant(Plain):
    def features(self, images: Tensor) -> Tensor:
        return checkpoint(super().features, images, use_reentrant=True)


class InPlace(Plain):
    def between(self, maps: Tensor) -> Tensor:
        maps = F.relu(maps, inplace=True)
        maps += 0.1
        return maps.mul_(1.5)


class LoopOverBatch(Plain):
    def forward(self, images: Tensor) -> Any:
        return torch.stack([self.fc(self.features(image[None]).mean((2, 3)))[0] for image in images])


class ValueDependent(Plain):
    def between(self, maps: Tensor) -> Tensor:
        return maps.relu() if maps.mean() > 0 else maps.abs()


class OnlyOneImage(Plain):
    def forward(self, images: Tensor) -> Any:
        assert len(images) == 1
        return self.fc(self.features(images).mean((2, 3)))


class BatchSize(Plain):
    def forward(self, images: Tensor) -> Any:
        return self.fc(self.features(images).reshape(int(images.shape[0]), 12, -1).mean(2))


class BatchMean(Plain):
    """The images of a batch act on each other."""

    def between(self, maps: Tensor) -> Tensor:
        return (maps - maps.mean((0, 2, 3), keepdim=True)).relu()


class NormWithoutStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(8, track_running_stats=False)

    def between(self, maps: Tensor) -> Tensor:
        return self.bn(maps).relu()


class WeightNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.conv2)
        parametrizations.spectral_norm(self.fc)


class Shared(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, maps: Tensor) -> Tensor:
        return self.middle(self.middle(maps.relu()).relu()).relu()


class Fourier(Plain):
    """A convolution as a product of spectra, with complex weights (global filter network)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(8, 32, 17, 2) * 0.1 + 1)

    def between(self, maps: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(maps) * torch.view_as_complex(self.spectrum), s=maps.shape[2:]).relu()


class Unpooled(Plain):
    def between(self, maps: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(maps.relu(), 2, return_indices=True)
        return F.max_unpool2d(pooled, where, 2)


class Attention(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, images: Tensor) -> Any:
        tokens = F.avg_pool2d(self.features(images), 4).flatten(2).mT
        return self.fc((tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1))


class Recurrent(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(12 * 16, 12, batch_first=True)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.rnn(self.features(images).transpose(1, 2).flatten(2))[0][:, -1])


def _hooked() -> nn.Module:
    """A hook that changes what a layer gives."""
    net = Plain()
    net.conv1.register_forward_hook(lambda module, given, made: made.clamp(-0.5, 0.5))
    return net


def _backward_hooked() -> nn.Module:
    """A hook that changes the gradient."""
    net = Plain()
    net.conv2.register_full_backward_hook(lambda module, inwards, outwards: (inwards[0] * 2,))
    return net


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES))


def _inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Plain()


def _exported() -> nn.Module:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(Plain().eval(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=shapes).module()


def _quantized() -> nn.Module:
    """The dense layer in eight bits."""
    return torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, torch.qint8)


def _frozen() -> nn.Module:
    return Plain().requires_grad_(False)


ODD: dict[str, Callable[[], nn.Module]] = {
    "custom autograd.Function (straight-through sign)": CustomSign,
    "spiking, surrogate gradient": Spiking,
    "slice scaled in place": SliceScaled,
    "slice assignment": SliceAssigned,
    "masked_fill_": MaskedFill,
    "new_zeros, new_full": NewZeros,
    "auxiliary head first, a tuple": AuxiliaryFirst,
    "auxiliary head, a dict": AsDict,
    "auxiliary head, a dataclass": AsDataclass,
    "softmax inside": SoftmaxInside,
    "DataParallel": lambda: nn.DataParallel(Plain()),
    "torch.compile": lambda: torch.compile(Plain(), backend="eager"),
    "forward(*images)": Starred,
    "an exported program's module": _exported,
    "lazy modules": _lazy,
    "ScriptModule": lambda: torch.jit.script(Plain()),
    "traced ScriptModule": lambda: torch.jit.trace(Plain(), torch.zeros(2, 3, 32, 32)),
    "checkpoint": Checkpointed,
    "checkpoint, re-entrant": CheckpointedReentrant,
    "in-place ReLU, += and mul_": InPlace,
    "loop over the batch": LoopOverBatch,
    "path depends on values": ValueDependent,
    "one image at a time": OnlyOneImage,
    "int(x.shape[0])": BatchSize,
    "images of a batch mixed": BatchMean,
    "batch norm without running statistics": NormWithoutStatistics,
    "weight norm and spectral norm": WeightNorm,
    "a module run twice": Shared,
    "complex weights (FFT)": Fourier,
    "max_unpool2d": Unpooled,
    "MultiheadAttention": Attention,
    "GRU over rows": Recurrent,
    "forward hook that changes values": _hooked,
    "backward hook that changes gradients": _backward_hooked,
    "built in inference mode": _inference_mode,
    "dynamically quantized": _quantized,
    "float64": lambda: Plain().double(),
    "frozen weights": _frozen,
}
"""Name → builder."""


def answer(outputs: Any) -> Tensor:
    """The class scores (N, 10) in what one of these networks returns."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, dict):
        return outputs["logits"]
    return outputs[1] if isinstance(outputs, tuple) else outputs.logits
