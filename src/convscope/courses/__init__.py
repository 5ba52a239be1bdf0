"""For teaching, at the rim: the five reports repeated, and convolution by hand. Uses the other rooms' public names alone."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.courses.chain import (
        Chain as Chain,
        ChainStep as ChainStep,
        conv as conv,
        pool as pool,
    )
    from convscope.courses.claims import JudgedClaim as JudgedClaim, judge_claims as judge_claims
    from convscope.courses.drawing import worked_drawing as worked_drawing, worked_picture as worked_picture
    from convscope.courses.examples import (
        EXAMPLES as EXAMPLES,
        padding as padding,
        pair as pair,
        worked_example as worked_example,
    )
    from convscope.courses.numbers import read_numbers as read_numbers
    from convscope.courses.outcomes import (
        Outcome as Outcome,
        Reproduction as Reproduction,
        folder_of as folder_of,
        read_reproduction as read_reproduction,
        reproduced as reproduced,
    )
    from convscope.courses.repeated import study_sections as study_sections
    from convscope.courses.reported import (
        FULL as FULL,
        Claim as Claim,
        Reported as Reported,
        ReportedLook as ReportedLook,
        Reproduces as Reproduces,
        check_reproduces as check_reproduces,
        find_reproduction as find_reproduction,
        read_reproducing as read_reproducing,
        reproduces as reproduces,
        reproductions as reproductions,
    )
    from convscope.courses.reproduce import (
        LookedAt as LookedAt,
        look_again as look_again,
        looks_of as looks_of,
        reproduce as reproduce,
    )
    from convscope.courses.reproduction import (
        CLAIMS_EXPLAINED as CLAIMS_EXPLAINED,
        EXPLAINED as EXPLAINED,
        budget_in_words as budget_in_words,
        claim_rows as claim_rows,
        reproduction_page as reproduction_page,
        reproduction_rows as reproduction_rows,
        reproduction_to_json as reproduction_to_json,
        state_in_words as state_in_words,
    )
    from convscope.courses.windows import Axis as Axis, Padding as Padding
    from convscope.courses.wording import (
        Order as Order,
        add_up as add_up,
        in_words as in_words,
        number as number,
        read_shape as read_shape,
        window_in_words as window_in_words,
    )
    from convscope.courses.words import chain as chain
    from convscope.courses.worked import (
        Worked as Worked,
        WorkedWindow as WorkedWindow,
        worked_conv as worked_conv,
        worked_pool as worked_pool,
    )
else:
    load_when_used(__name__)
