"""Units switched off, and worked convolutions, as pictures."""

from typing import TYPE_CHECKING

from convscope.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.looks.switched_off import SwitchedOff, ablation_without, effects_without, switched_off
else:
    load_when_used(__name__)

__all__ = ["SwitchedOff", "ablation_without", "effects_without", "switched_off"]
