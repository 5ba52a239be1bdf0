"""Studies: shipped ones and the user's own, from a spec to an evaluated run; statistics of several runs."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.study.compare import Compared, Group, Pair, compare
    from convscope.study.compared_runs import ComparedRun
    from convscope.study.engine import sweep
    from convscope.study.folder import DAMAGED, STUDY, Ranked, Study, StudyRun, damage, open_study
    from convscope.study.importance import Importance, Rest, Term, importance, importance_in_words
    from convscope.study.live import View, duration
    from convscope.study.metric import CHOSEN_BY, SHARES, Metric, metric_of, summary_of
    from convscope.study.networks import anatomy_by_name
    from convscope.study.plan import Plan, PlannedRun, plan
    from convscope.study.power import more_images, more_seeds, seeds_power
    from convscope.study.run import (
        find_spec,
        find_study,
        resume_run,
        run_study,
        shipped_studies,
        shipped_texts,
        train_study,
    )
    from convscope.study.spec import Budget, KeyLines, Range, StudySpec, dump_study, load_study, read_study
    from convscope.study.statistics import (
        ImageComparison,
        SeedComparison,
        Summary,
        compare_images,
        compare_seeds,
        holm,
        mcnemar,
        overlap_of,
        summary,
    )
    from convscope.study.table import METRICS, Matrix, Runs, histories, table
    from convscope.study.verdicts import basis, differs, verdict, written_p
    from convscope.study.words import setting_in_words
else:
    load_when_used(__name__)

__all__ = [
    "CHOSEN_BY",
    "DAMAGED",
    "METRICS",
    "SHARES",
    "STUDY",
    "Budget",
    "Compared",
    "ComparedRun",
    "Group",
    "ImageComparison",
    "Importance",
    "KeyLines",
    "Matrix",
    "Metric",
    "Pair",
    "Plan",
    "PlannedRun",
    "Range",
    "Ranked",
    "Rest",
    "Runs",
    "SeedComparison",
    "Study",
    "StudyRun",
    "StudySpec",
    "Summary",
    "Term",
    "View",
    "anatomy_by_name",
    "basis",
    "compare",
    "compare_images",
    "compare_seeds",
    "damage",
    "differs",
    "dump_study",
    "duration",
    "find_spec",
    "find_study",
    "histories",
    "holm",
    "importance",
    "importance_in_words",
    "load_study",
    "mcnemar",
    "metric_of",
    "more_images",
    "more_seeds",
    "open_study",
    "overlap_of",
    "plan",
    "read_study",
    "resume_run",
    "run_study",
    "seeds_power",
    "setting_in_words",
    "shipped_studies",
    "shipped_texts",
    "summary",
    "summary_of",
    "sweep",
    "table",
    "train_study",
    "verdict",
    "written_p",
]
