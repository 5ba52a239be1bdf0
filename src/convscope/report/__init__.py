"""The illustrated report of a run: one HTML file that opens offline. Pictures first, then numbers, then text."""

from convscope.report.build import render, write_report
from convscope.report.look import LOOKS, Look, look
from convscope.report.look_run import look_at_run
from convscope.report.subject import Subject

__all__ = ["LOOKS", "Look", "Subject", "look", "look_at_run", "render", "write_report"]
