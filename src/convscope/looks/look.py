"""`look`: one lens on one image as a picture worth showing: the image, the map over it and alone, what colours mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from convscope.errors import SettingError, UnknownNameError
from convscope.graph import check_weights
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.looks.attributions import CAMS, look_attribution
from convscope.looks.covered import look_occlusion
from convscope.looks.records import Asked, Look
from convscope.looks.scanned import (
    look_ablate,
    look_faithfulness,
    look_filter_effects,
    look_invariance,
    look_randomization,
    look_statistics,
    look_top_patches,
)
from convscope.looks.units import look_activations, look_filters, look_maximize, look_receptive_field
from convscope.scope import Scope


@dataclass(frozen=True)
class _Row:
    """How a lens is shown: by which function, what it has to be given, and what it may."""

    show: Callable[[Scope, Asked], Look]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


def _attribution(name: str, *takes: str) -> tuple[str, _Row]:
    return name, _Row(partial(look_attribution, name), ("image",), ("target", *takes))


_NEURON = ("layer", "unit", "position")
_TABLE = dict([
    ("filters", _Row(look_filters, (), ("layer",))),
    ("activations", _Row(look_activations, ("image", "layer"), ("unit",))),
    *(_attribution(name, *(("layer",) if name in CAMS else _NEURON)) for name in ATTRIBUTIONS),
    *(_attribution(name) for name in CAPTUM_METHODS),
    ("occlusion", _Row(look_occlusion, ("image",), ("target", "size", "stride", "fill"))),
    ("maximize", _Row(look_maximize, (), _NEURON)),
    ("top_patches", _Row(look_top_patches, ("test", "layer"), ("unit", "top"))),
    ("statistics", _Row(look_statistics, ("test",), ("layer",))),
    ("filter_effects", _Row(look_filter_effects, ("test",), ("layer", "n", "how", "screen"))),
    ("ablate", _Row(look_ablate, ("test",), ("units", "n", "how"))),
    ("faithfulness", _Row(look_faithfulness, ("test",), ("method", "n"))),
    ("randomization", _Row(look_randomization, ("test",), ("method", "n"))),
    ("invariance", _Row(look_invariance, ("test",), ("layer", "n"))),
    ("receptive_field", _Row(look_receptive_field, ("image", "layer"), ("unit", "position"))),
])  # fmt: skip

LOOKS = tuple(_TABLE)
"""The lenses and scans that `look` knows."""

SCANS = tuple(name for name, row in _TABLE.items() if "test" in row.needs)
"""Those that look at all test images."""

OF_IMAGES = tuple(name for name, row in _TABLE.items() if "image" in row.needs)
"""Those that look at one image."""

_WHAT = {
    "image": "give a file, or the index of a test image",
    "layer": "convscope anatomy lists them",
    "test": "it looks at the test images of a run",
}


def look(scope: Scope, lens: str, asked: Asked) -> Look:
    """What a lens shows of one image, or of the network alone, or a scan of the test images.

    Args:
        scope: over the network.
        lens: one of `LOOKS`; a dash counts as an underscore.
        asked: what the lens is asked.
    Raises:
        UnknownNameError: there is no such lens, or layer.
        SettingError: something that the lens needs is missing, or something that it does not take is given.
        FailedError: weights of the network, or what is to be shown, are NaN or infinite.
    """
    name = lens.replace("-", "_")
    if name not in _TABLE:
        raise UnknownNameError("lens", lens, LOOKS, "one of convscope's or Captum's")
    row, given = _TABLE[name], asked.given()
    for part in row.needs:
        if part not in given:
            raise SettingError(f"--{part}: {name} needs one; {_WHAT[part]}")
    refused = given.keys() - {*row.needs, *row.takes}
    if refused:
        option = min("images" if part == "n" else part for part in refused)
        raise SettingError(f"--{option}: {name} has no such setting; leave it out")
    check_weights(scope.net)
    found = row.show(scope, asked)
    return found if name == "filters" else replace(found, note=scope.note)  # filters need no traced network
