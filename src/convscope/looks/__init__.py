"""Ablation where the next layer reads the units, and worked convolutions as pictures."""

from typing import TYPE_CHECKING

from convscope.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.looks.ablation import AblationPlan, ablation_plan
    from convscope.looks.worked import worked_drawing, worked_picture
else:
    load_when_used(__name__)

__all__ = ["AblationPlan", "ablation_plan", "worked_drawing", "worked_picture"]
