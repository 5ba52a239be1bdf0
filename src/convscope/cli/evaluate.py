"""convscope evaluate: the test images, looked at once."""

from __future__ import annotations

from convscope.cli.options import Device, Json, RunDir


def evaluate(run: RunDir, device: Device = "auto", json: Json = False) -> None:
    """Measure a trained run on its test images.

    Each figure comes with a 95 % interval, and is kept in RUN/metrics.json."""
    from convscope.cli.show import print_json, print_metrics
    from convscope.runs import open_run
    from convscope.scans import evaluate as evaluate_run

    metrics = evaluate_run(open_run(run), device=device)
    if json:
        print_json(metrics)
    else:
        print_metrics(metrics)
