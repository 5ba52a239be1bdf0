"""convscope report: one HTML file that opens offline."""

from __future__ import annotations

from convscope.cli.options import Json, RunDir


def report(run: RunDir, json: Json = False) -> None:
    """Write the illustrated report of a run.

    One HTML file that opens offline: RUN/report.html. Beside it RUN/filters.html, a page of every filter."""
    from convscope.cli.show import print_json, print_line
    from convscope.report import write_report
    from convscope.runs import open_run

    path = write_report(open_run(run))
    if json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print_line(f"report: {path}")
