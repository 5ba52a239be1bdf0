"""Looks: one lens on one image or network, as a picture with its numbers beside it."""

from convscope.looks.attributions import small_picture
from convscope.looks.covered import drop_scale, sum_in_words
from convscope.looks.look import LOOKS, SCANS, look
from convscope.looks.notebook import notebook_picture
from convscope.looks.records import Asked, Look
from convscope.looks.switched_off import SwitchedOff, ablation_without, effects_without, switched_off
from convscope.looks.words import Subject, look_at, open_subject

__all__ = [
    "LOOKS",
    "SCANS",
    "Asked",
    "Look",
    "Subject",
    "SwitchedOff",
    "ablation_without",
    "drop_scale",
    "effects_without",
    "look",
    "look_at",
    "notebook_picture",
    "open_subject",
    "small_picture",
    "sum_in_words",
    "switched_off",
]
