"""The illustrated report of a run: one HTML file that opens offline. Pictures first, then numbers, then text."""

from convscope.report.build import render, write_report
from convscope.report.subject import Subject

__all__ = ["Subject", "render", "write_report"]
