"""Studies: shipped ones and the user's own, from a spec to an evaluated run; statistics of several runs."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.study.compare import Compared as Compared, Group as Group, Pair as Pair, compare as compare
    from convscope.study.compared_runs import ComparedRun as ComparedRun
    from convscope.study.engine import sweep as sweep
    from convscope.study.facts import ENDED as ENDED
    from convscope.study.folder import (
        DAMAGED as DAMAGED,
        STUDY as STUDY,
        Ranked as Ranked,
        Study as Study,
        StudyRun as StudyRun,
        damage as damage,
        open_study as open_study,
    )
    from convscope.study.importance import (
        Importance as Importance,
        Rest as Rest,
        Term as Term,
        importance as importance,
        importance_in_words as importance_in_words,
    )
    from convscope.study.live import View as View, duration as duration
    from convscope.study.metric import (
        CHOSEN_BY as CHOSEN_BY,
        SHARES as SHARES,
        Metric as Metric,
        metric_of as metric_of,
        summary_of as summary_of,
    )
    from convscope.study.plan import Plan as Plan, PlannedRun as PlannedRun, plan as plan
    from convscope.study.run import (
        anatomy_by_name as anatomy_by_name,
        find_spec as find_spec,
        find_study as find_study,
        resume_run as resume_run,
        run_study as run_study,
        shipped_studies as shipped_studies,
        shipped_texts as shipped_texts,
        train_study as train_study,
    )
    from convscope.study.spec import (
        Budget as Budget,
        KeyLines as KeyLines,
        Range as Range,
        StudySpec as StudySpec,
        dump_study as dump_study,
        load_study as load_study,
        read_study as read_study,
    )
    from convscope.study.statistics import (
        ImageComparison as ImageComparison,
        SeedComparison as SeedComparison,
        Summary as Summary,
        compare_images as compare_images,
        compare_seeds as compare_seeds,
        holm as holm,
        mcnemar as mcnemar,
        overlap_of as overlap_of,
        summary as summary,
    )
    from convscope.study.table import (
        METRICS as METRICS,
        Matrix as Matrix,
        Runs as Runs,
        histories as histories,
        table as table,
    )
    from convscope.study.verdicts import (
        basis as basis,
        differs as differs,
        more_images as more_images,
        more_seeds as more_seeds,
        seeds_power as seeds_power,
        verdict as verdict,
        written_p as written_p,
    )
    from convscope.study.words import setting_in_words as setting_in_words
else:
    load_when_used(__name__)
