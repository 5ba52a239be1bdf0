"""What a network wants of the images, stated in a spec before they are loaded."""

from __future__ import annotations

from typing import Any

from convscope.data import LINES, Normalization
from convscope.errors import SettingError
from convscope.nets import takes_colour_alone, trained_input
from convscope.runs.spec import RunSpec


def as_network_wants(spec: RunSpec) -> RunSpec:
    """The spec with what only its network says of the images stated in `data`; what `data` says already stays.

    Pretrained weights want images of the size, and normalised, as those were that they were trained on. A network that
    takes 3 channels alone gets grey images with their channel repeated; `net.channels` may say otherwise.

    Raises:
        SettingError: `data` wants one channel, or bands, and the network 3.
        UnknownNameError, MissingPackageError, BrokenPackageError: as of build_net.
    """
    data, net = spec.data, spec.net
    trained = trained_input(net)
    natural = trained.channels if trained else 3 if takes_colour_alone(net.name) else 0
    channels = net.options.get("channels", natural)
    update: dict[str, Any] = {}
    if channels == 3 and data.channels not in (None, 3):
        raise SettingError(
            f"data.channels: {data.channels}, and {net.name} takes images of 3; leave it out, and grey images get 3 channels"
        )
    if channels == 3:
        update["channels"] = 3
    if trained is not None:
        resized = trained.resized(channels, trained.height, trained.width)
        if (
            data.image_size is None and resized.height == resized.width and data.source != LINES
        ):  # which are drawn in one size
            update["image_size"] = net.options.get("image_size", resized.height)
        if data.normalize is None and resized.normalize is not None:
            update["normalize"] = Normalization(mean=resized.normalize[0], std=resized.normalize[1])
    return spec.model_copy(update={"data": data.model_copy(update=update)})
