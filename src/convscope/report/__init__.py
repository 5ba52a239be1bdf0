"""The illustrated report of a run: one HTML file that opens offline. Pictures first, then numbers, then text."""

from convscope.report.build import render, write_report
from convscope.report.compared import check_comparison_file, comparison_page, write_comparison
from convscope.report.subject import Subject

__all__ = ["Subject", "check_comparison_file", "comparison_page", "render", "write_comparison", "write_report"]
