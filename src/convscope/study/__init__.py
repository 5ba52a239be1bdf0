"""Studies: shipped ones and the user's own, from a spec to an evaluated run; statistics of several runs."""

from typing import TYPE_CHECKING

from convscope.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.study.compare import Compared, Group, Pair, compare
    from convscope.study.compared_runs import ComparedRun
    from convscope.study.engine import sweep
    from convscope.study.folder import Ranked, Study, StudyRun, open_study
    from convscope.study.importance import Importance, Rest, Term, importance, importance_in_words
    from convscope.study.live import duration
    from convscope.study.metric import CHOSEN_BY, Metric, metric_of, summary_of
    from convscope.study.networks import anatomy_by_name
    from convscope.study.outcomes import Outcome, Reproduction, folder_of, read_reproduction, reproduced
    from convscope.study.plan import Plan, PlannedRun, plan
    from convscope.study.power import more_images, more_seeds, seeds_power
    from convscope.study.reported import FULL, Reported, ReportedLook, Reproduces
    from convscope.study.reproduce import LookedAt, look_again, looks_of, reproduce
    from convscope.study.run import (
        find_reproduction,
        find_spec,
        find_study,
        reproductions,
        resume_run,
        run_study,
        shipped_studies,
        train_study,
    )
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
    from convscope.study.table import METRICS, Matrix, Runs, histories, table
    from convscope.study.verdicts import basis, differs, verdict, written_p
    from convscope.study.words import setting_in_words
else:
    load_when_used(__name__)

__all__ = [
    "CHOSEN_BY",
    "FULL",
    "METRICS",
    "Budget",
    "Compared",
    "ComparedRun",
    "Group",
    "ImageComparison",
    "Importance",
    "LookedAt",
    "Matrix",
    "Metric",
    "Outcome",
    "Pair",
    "Plan",
    "PlannedRun",
    "Range",
    "Ranked",
    "Reported",
    "ReportedLook",
    "Reproduces",
    "Reproduction",
    "Rest",
    "Runs",
    "SeedComparison",
    "Study",
    "StudyRun",
    "StudySpec",
    "Summary",
    "Term",
    "anatomy_by_name",
    "basis",
    "compare",
    "compare_images",
    "compare_seeds",
    "differs",
    "dump_study",
    "duration",
    "find_reproduction",
    "find_spec",
    "find_study",
    "folder_of",
    "histories",
    "holm",
    "importance",
    "importance_in_words",
    "load_study",
    "look_again",
    "looks_of",
    "mcnemar",
    "metric_of",
    "more_images",
    "more_seeds",
    "open_study",
    "plan",
    "read_reproduction",
    "read_study",
    "reproduce",
    "reproduced",
    "reproductions",
    "resume_run",
    "run_study",
    "seeds_power",
    "setting_in_words",
    "shipped_studies",
    "summary",
    "summary_of",
    "sweep",
    "table",
    "train_study",
    "verdict",
    "written_p",
]
