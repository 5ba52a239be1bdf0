"""What came out where the five reports were repeated: as words for the screen, and as a page in Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

from convscope import __version__
from convscope.courses.claims import JudgedClaim
from convscope.courses.figures import EPOCH_SECONDS
from convscope.courses.outcomes import Outcome, Reproduction
from convscope.courses.reported import FULL
from convscope.report import fill
from convscope.study import duration

EXPLAINED = (
    "Intervals are of 95 %, over seeds and test images; of a single seed over the images alone. A verdict takes the chance on "
    "both sides into account. “agrees”: the difference is not told from 0, and is less than 3 points. “cannot be told”: it may "
    "be more."
)


CLAIMS_EXPLAINED = (
    "A claim is a difference that is above 0 where the report is right, between runs that are alike in all other settings and "
    "in the seed. Its 95 % interval is Student's over seeds, or over five pairs of settings or more. Of fewer pairs it is over "
    "the images, and tells these networks apart, no more. “confirmed”: the interval is above 0. “contradicted”: it is below. "
    "“cannot be told”: it holds 0. Of forty such intervals two miss by chance."
)


def budget_in_words(each: Reproduction) -> str:
    """ "laptop budget", "as reported"."""
    return "as reported" if each.budget == FULL else f"{each.budget} budget"


def value_in_words(outcome: Outcome, value: float) -> str:
    """A figure of the outcome's kind: a share in percent, a count with its thousands."""
    if outcome.reported.is_share:
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if outcome.reported.metric == "parameters" else f"{value:.2f}"


def found_in_words(outcome: Outcome) -> str:
    """Ours with its interval; "–" where there is none."""
    value, low, high = (None if x is None else value_in_words(outcome, x) for x in vars(outcome.found).values())
    if value is None or low is None or high is None:
        return value or "–"
    return f"{value} ({low} to {high})"


def _with_budget(each: Reproduction, verdict: str) -> str:
    """The verdict, with the budget where it is not the report's own: no smaller one says more than that."""
    plain = verdict in ("not run", "unfinished", "equal", "differs")
    return verdict if plain or each.budget == FULL else f"{verdict} ({each.budget})"


def state_in_words(each: Reproduction) -> str:
    """Budget, runs, time, images and where they came from, in a line."""
    if not each.n_runs:
        return "not run"
    parts = [budget_in_words(each), f"{each.n_done} of {each.n_runs} runs", duration(each.seconds)]
    if each.environment:
        parts += [f"{each.environment['data']['images']['test']:,} test images", each.data]
    if each.is_lossy:
        parts.append("re-encoded with loss")
    return " · ".join(parts)


def reproduction_rows(each: Reproduction) -> list[tuple[str, str, str, str, str]]:
    """A row a figure: what it is, reported, came out, seeds, verdict."""
    return [
        (
            outcome.reported.what,
            value_in_words(outcome, outcome.reported.value),
            found_in_words(outcome),
            "" if outcome.reported.metric == "parameters" else str(outcome.n_seeds or ""),
            _with_budget(each, outcome.verdict),
        )
        for outcome in each.outcomes
    ]


def claim_rows(each: Reproduction) -> list[tuple[str, str, str, str]]:
    """A row a claim: what the report says, our difference with its interval, what that is over, verdict."""
    return [
        (one.claim.says, _difference_in_words(one), one.basis, _with_budget(each, one.verdict)) for one in each.claims
    ]


def _difference_in_words(one: JudgedClaim) -> str:
    """ "+3.1 (2.0 to 4.2) points", "−0.4 s"."""
    if one.difference.value is None:
        return "–"
    in_seconds, in_points = one.claim.metric == EPOCH_SECONDS, one.claim.metric == "overfit_percent"
    factor, unit = 1 if in_seconds or in_points else 100, "s" if in_seconds else "points"
    value, low, high = (
        None if x is None else f"{factor * x:+.2f}".replace("-", "−") for x in vars(one.difference).values()
    )
    return f"{value} {unit}" if low is None else f"{value} ({low} to {high}) {unit}"


def reproduction_to_json(each: Reproduction) -> dict[str, Any]:
    """All of a reproduction as JSON values."""
    return {
        "study": each.name,
        "report": each.report,
        "about": each.spec.about,
        "budget": each.budget,
        "folder": str(each.folder),
        "runs": each.n_runs,
        "runs_done": each.n_done,
        "seconds": each.seconds,
        "data": each.data,
        "digest": each.digest,
        "is_lossy": each.is_lossy,
        "environment": each.environment,
        "problems": list(each.problems),
        "otherwise": list(each.told.otherwise),
        "disagrees": list(each.told.disagrees),
        "figures": [_outcome_to_json(outcome) for outcome in each.outcomes],
        "claims": [
            {
                **one.claim.model_dump(mode="json"),
                "difference": one.difference.to_json(),
                "basis": one.basis,
                "verdict": one.verdict,
            }
            for one in each.claims
        ],
    }


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    keys = ("n_seeds", "n_settings", "n_missing", "n_images", "verdict")
    return {
        **outcome.reported.model_dump(mode="json"),
        "reported_interval": outcome.reported_interval.to_json(),
        "found": outcome.found.to_json(),
        "difference": outcome.difference.to_json(),
        **{key: getattr(outcome, key) for key in keys},
    }


def reproduction_page(found: Sequence[Reproduction], command: str) -> str:
    """docs/reproduction.md: every study with its figures, and what disagrees with the reports.

    Args:
        found: of `convscope.courses.reproduced`.
        command: that writes the page again.
    """
    machines = dict.fromkeys(_machine(each.environment) for each in found if each.environment)
    return fill(
        "reproduction.md",
        "convscope.courses",
        found=found,
        command=command,
        version=__version__,
        today=date.today().isoformat(),
        explained=EXPLAINED,
        how_far=_how_far(found),
        machines=machines,
        budget=budget_in_words,
        state=state_in_words,
        rows=reproduction_rows,
        claims=claim_rows,
        claims_explained=CLAIMS_EXPLAINED,
        duration=duration,
        json=json.dumps,
    )


def _how_far(studies: Sequence[Reproduction]) -> str:
    """Of how many studies there are finished runs as reported, and of how many at a smaller budget alone."""
    budgets = Counter(each.budget for each in studies if each.n_done)
    smaller = [f"{n} at the budget `{budget}`" for budget, n in budgets.items() if budget != FULL]
    whole = f"{budgets[FULL] or 'none'} as reported (`{FULL}`)"
    note = (
        "A smaller budget has fewer images, epochs or settings, so that its verdicts say nothing of the report itself."
    )
    return f"Of {len(studies)} {'study' if len(studies) == 1 else 'studies'} {', '.join([*smaller, whole])}. {note}"


def _machine(environment: Any) -> str:
    hardware = environment["gpu"] or f"{environment['processor']}, {environment['cores']} cores"
    torch = environment["packages"].get("torch", "?")
    return f"{hardware}; Python {environment['python']}, PyTorch {torch}, {environment['system']}"
