"""Studies: shipped ones and the user's own, from a spec to an evaluated run; statistics of several runs."""

from convscope.study.engine import sweep
from convscope.study.folder import Ranked, Study, StudyRun, kept_row, open_study
from convscope.study.importance import Importance, Rest, Term, importance
from convscope.study.live import duration
from convscope.study.networks import anatomy_by_name
from convscope.study.plan import Plan, PlannedRun, plan
from convscope.study.power import more_images, more_seeds, seeds_power
from convscope.study.run import find_spec, find_study, resume_run, run_study, shipped_studies, train_study
from convscope.study.spec import Budget, Range, StudySpec, dump_study, load_study, read_study
from convscope.study.statistics import (
    ImageComparison,
    SeedComparison,
    Summary,
    compare_images,
    compare_seeds,
    holm,
    mcnemar,
    summary,
)
from convscope.study.verdicts import basis, differs, verdict, written_p

__all__ = [
    "Budget",
    "ImageComparison",
    "Importance",
    "Plan",
    "PlannedRun",
    "Range",
    "Ranked",
    "Rest",
    "SeedComparison",
    "Study",
    "StudyRun",
    "StudySpec",
    "Summary",
    "Term",
    "anatomy_by_name",
    "basis",
    "compare_images",
    "compare_seeds",
    "differs",
    "dump_study",
    "duration",
    "find_spec",
    "find_study",
    "holm",
    "importance",
    "kept_row",
    "load_study",
    "mcnemar",
    "more_images",
    "more_seeds",
    "open_study",
    "plan",
    "read_study",
    "resume_run",
    "run_study",
    "seeds_power",
    "shipped_studies",
    "summary",
    "sweep",
    "train_study",
    "verdict",
    "written_p",
]
