"""For teaching, at the rim: the five reports repeated, and convolution by hand. Uses the other rooms' public names alone."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.courses.chain import Chain, ChainStep, conv, pool, times
    from convscope.courses.claims import JudgedClaim, judge_claims
    from convscope.courses.drawing import worked_drawing, worked_picture
    from convscope.courses.examples import EXAMPLES, padding, pair, worked_example
    from convscope.courses.numbers import read_numbers
    from convscope.courses.outcomes import Outcome, Reproduction, folder_of, read_reproduction, reproduced
    from convscope.courses.repeated import study_sections
    from convscope.courses.reported import (
        FULL,
        Claim,
        Reported,
        ReportedLook,
        Reproduces,
        check_reproduces,
        find_reproduction,
        read_reproducing,
        reproduces,
        reproductions,
    )
    from convscope.courses.reproduce import LookedAt, look_again, looks_of, reproduce
    from convscope.courses.reproduction import (
        CLAIMS_EXPLAINED,
        EXPLAINED,
        budget_in_words,
        claim_rows,
        reproduction_page,
        reproduction_rows,
        reproduction_to_json,
        state_in_words,
    )
    from convscope.courses.windows import Axis, Padding
    from convscope.courses.wording import Order, add_up, in_words, number, read_shape, window_in_words
    from convscope.courses.words import chain
    from convscope.courses.worked import Worked, WorkedWindow, worked_conv, worked_pool
else:
    load_when_used(__name__)

__all__ = [
    "CLAIMS_EXPLAINED",
    "EXAMPLES",
    "EXPLAINED",
    "FULL",
    "Axis",
    "Chain",
    "ChainStep",
    "Claim",
    "JudgedClaim",
    "LookedAt",
    "Order",
    "Outcome",
    "Padding",
    "Reported",
    "ReportedLook",
    "Reproduces",
    "Reproduction",
    "Worked",
    "WorkedWindow",
    "add_up",
    "budget_in_words",
    "chain",
    "check_reproduces",
    "claim_rows",
    "conv",
    "find_reproduction",
    "folder_of",
    "in_words",
    "judge_claims",
    "look_again",
    "looks_of",
    "number",
    "padding",
    "pair",
    "pool",
    "read_numbers",
    "read_reproducing",
    "read_reproduction",
    "read_shape",
    "reproduce",
    "reproduced",
    "reproduces",
    "reproduction_page",
    "reproduction_rows",
    "reproduction_to_json",
    "reproductions",
    "state_in_words",
    "study_sections",
    "times",
    "window_in_words",
    "worked_conv",
    "worked_drawing",
    "worked_example",
    "worked_picture",
    "worked_pool",
]
