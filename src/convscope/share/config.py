"""config.json of a published folder: what a program must know beside the weights; of a network of timm's in timm's format."""

from __future__ import annotations

from typing import Any

from convscope import __version__
from convscope.runs import Run, shareable


def config_of(run: Run) -> dict[str, Any]:
    """The content of config.json: timm's format where timm opens the folder, see `is_timms`; else convscope's."""
    return _timms(run) if is_timms(run) else _ours(run)


def is_timms(run: Run) -> bool:
    """Whether `timm.create_model("local-dir:FOLDER", pretrained=True)` gives the network: one of timm's, with its own output
    layer and one softmax head."""
    spec, heads = run.spec.net, run.task.heads
    return spec.name.startswith("timm:") and spec.head is None and [head.kind for head in heads] == ["softmax"]


def base_model(run: Run) -> str | None:
    """The name on the Hub of the trained weights that a network of timm's began from; None where it began from random ones."""
    found: dict[str, Any] = getattr(run.net, "pretrained_cfg", None) or {}
    return found.get("hf_hub_id") if run.spec.net.options.get("pretrained") and is_timms(run) else None


def _ours(run: Run) -> dict[str, Any]:
    names = run.task.classes
    return {
        "library": f"convscope {__version__}",
        "architecture": run.spec.net.name,
        "architecture_options": shareable(run.spec).net.options,
        "num_classes": len(names),
        "id2label": {str(n): name for n, name in enumerate(names)},
        "label2id": {name: n for n, name in enumerate(names)},
        "input_shape": list(run.input_shape),
        "mean": list(run.card.mean),
        "std": list(run.card.std),
    }


def _timms(run: Run) -> dict[str, Any]:
    """As timm's `save_for_hf` writes it; images are scaled until they cover the input, and the centre is cut out."""
    net: Any = run.net
    own = shareable(run.spec).net.options
    data = {
        "input_size": list(run.input_shape),
        "fixed_input_size": bool(net.pretrained_cfg.get("fixed_input_size")),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(run.card.mean),
        "std": list(run.card.std),
    }
    layers = {key: net.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    return {
        "architecture": run.spec.net.name.removeprefix("timm:").partition(".")[0],
        "num_classes": len(run.classes),
        "num_features": net.num_features,
        "label_names": list(run.classes),
        "model_args": {key: value for key, value in own.items() if key not in _FROM_THE_DATA},
        "pretrained_cfg": data | layers | {"num_classes": len(run.classes), "pool_size": None, "custom_load": False},
        "library": f"convscope {__version__}",
    }


_FROM_THE_DATA = ("classes", "channels", "image_size", "num_classes", "in_chans", "pretrained")
"""Options that config.json has elsewhere, or that say nothing of the network."""
