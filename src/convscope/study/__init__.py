"""Studies: shipped ones and the user's own, from a spec to an evaluated run; statistics of several runs."""

from typing import TYPE_CHECKING

from convscope.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.study.compare import Compared, Group, Pair, compare, setting_in_words
    from convscope.study.compared_runs import ComparedRun
    from convscope.study.importance import Importance, Rest, Term, importance, importance_in_words
    from convscope.study.index import INDEX
    from convscope.study.networks import anatomy_by_name
    from convscope.study.power import more_images, more_seeds, seeds_power
    from convscope.study.run import find_spec, resume_run, run_study, shipped_studies, train_study
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
    from convscope.study.table import METRICS, Matrix, Runs, histories, table
    from convscope.study.verdicts import basis, differs, verdict, written_p
else:
    load_when_used(__name__)

__all__ = [
    "INDEX",
    "METRICS",
    "Compared",
    "ComparedRun",
    "Group",
    "ImageComparison",
    "Importance",
    "Matrix",
    "Pair",
    "Rest",
    "Runs",
    "SeedComparison",
    "Summary",
    "Term",
    "anatomy_by_name",
    "basis",
    "compare",
    "compare_images",
    "compare_seeds",
    "differs",
    "find_spec",
    "histories",
    "holm",
    "importance",
    "importance_in_words",
    "mcnemar",
    "more_images",
    "more_seeds",
    "resume_run",
    "run_study",
    "seeds_power",
    "setting_in_words",
    "shipped_studies",
    "summary",
    "table",
    "train_study",
    "verdict",
    "written_p",
]
