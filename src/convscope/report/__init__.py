"""The illustrated report of a run or of a study: one HTML file that opens offline. Pictures first, then numbers, then text."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.report.build import charts, render, write_report
    from convscope.report.compared import check_comparison_file, comparison_page, write_comparison
    from convscope.report.filters import effects_of, has_filters, measured_effects, shown_units
    from convscope.report.findings import findings
    from convscope.report.mistakes import confident_errors, confusion_matrices
    from convscope.report.page import fill, static, vega
    from convscope.report.predictions import check_predictions_page, write_predictions_page
    from convscope.report.study import Section, holds_runs, study_page, write_study_report
    from convscope.report.subject import ReportedRun
    from convscope.report.visualization import visualizations
else:
    load_when_used(__name__)

__all__ = [
    "ReportedRun",
    "Section",
    "charts",
    "check_comparison_file",
    "check_predictions_page",
    "comparison_page",
    "confident_errors",
    "confusion_matrices",
    "effects_of",
    "fill",
    "findings",
    "has_filters",
    "holds_runs",
    "measured_effects",
    "render",
    "shown_units",
    "static",
    "study_page",
    "vega",
    "visualizations",
    "write_comparison",
    "write_predictions_page",
    "write_report",
    "write_study_report",
]
