"""Looks: one lens on one image or network, as a picture with its numbers beside it."""

from convscope.looks.ablation import AblationPlan, ablation_plan
from convscope.looks.attributions import small_picture
from convscope.looks.covered import drop_scale, sum_in_words
from convscope.looks.look import LOOKS, SCANS, look
from convscope.looks.notebook import notebook_picture
from convscope.looks.records import Asked, Look
from convscope.looks.words import Subject, look_at, open_subject
from convscope.looks.worked import worked_drawing, worked_picture

__all__ = [
    "LOOKS",
    "SCANS",
    "AblationPlan",
    "Asked",
    "Look",
    "Subject",
    "ablation_plan",
    "drop_scale",
    "look",
    "look_at",
    "notebook_picture",
    "open_subject",
    "small_picture",
    "sum_in_words",
    "worked_drawing",
    "worked_picture",
]
