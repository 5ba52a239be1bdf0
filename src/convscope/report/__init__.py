"""The illustrated report of a run or of a study: one HTML file that opens offline. Pictures first, then numbers, then text."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.report.build import charts as charts, render as render, write_report as write_report
    from convscope.report.compared import (
        check_comparison_file as check_comparison_file,
        comparison_page as comparison_page,
        write_comparison as write_comparison,
    )
    from convscope.report.filters import (
        effects_of as effects_of,
        has_filters as has_filters,
        measured_effects as measured_effects,
        shown_units as shown_units,
    )
    from convscope.report.findings import findings as findings
    from convscope.report.mistakes import confident_errors as confident_errors, confusion_matrices as confusion_matrices
    from convscope.report.page import fill as fill, static as static, vega as vega
    from convscope.report.predictions import (
        check_predictions_page as check_predictions_page,
        write_predictions_page as write_predictions_page,
    )
    from convscope.report.study import (
        Section as Section,
        holds_runs as holds_runs,
        study_page as study_page,
        write_study_report as write_study_report,
    )
    from convscope.report.subject import ReportedRun as ReportedRun
    from convscope.report.visualization import visualizations as visualizations
else:
    load_when_used(__name__)
