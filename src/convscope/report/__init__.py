"""The illustrated report of a run or of a study: one HTML file that opens offline. Pictures first, then numbers, then text."""

from convscope.report.build import render, write_report
from convscope.report.compared import check_comparison_file, comparison_page, write_comparison
from convscope.report.reproduction import (
    EXPLAINED,
    reproduction_page,
    reproduction_rows,
    reproduction_to_json,
    state_in_words,
)
from convscope.report.study import holds_runs, study_page, write_study_report
from convscope.report.subject import Subject

__all__ = [
    "EXPLAINED",
    "Subject",
    "check_comparison_file",
    "comparison_page",
    "holds_runs",
    "render",
    "reproduction_page",
    "reproduction_rows",
    "reproduction_to_json",
    "state_in_words",
    "study_page",
    "write_comparison",
    "write_report",
    "write_study_report",
]
