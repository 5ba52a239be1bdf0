"""convscope evaluate: the test images, looked at once."""

from __future__ import annotations

from convscope.cli import options
from convscope.cli.show import print_aside, print_json, print_metrics
from convscope.errors import ReadOnlyError


def evaluate(
    run: options.RunDir,
    device: options.Device = "auto",
    trust_code: options.TrustCode = False,
    ray: options.RayAddress = None,
    cpus_per_run: options.CpusPerRun = 1,
    gpus_per_run: options.GpusPerRun = 0.0,
    allow_different: options.AllowDifferent = False,
    json: options.Json = False,
) -> None:
    """Measure a trained run on its test images.

    Each figure comes with a 95 % interval, and is kept in RUN/metrics.json."""
    from convscope.compute import using
    from convscope.runs import check_writable
    from convscope.scans import evaluate as evaluate_run

    trained = options.opened(run, trust_code)
    with options.cluster(ray, cpus_per_run, gpus_per_run, allow_different) as executor, using(executor):
        metrics = evaluate_run(trained, device=device)
    try:
        check_writable(run)
    except ReadOnlyError:
        print_aside(f"note: {run} is read-only, so these figures are not kept")
    if json:
        print_json(metrics)
    else:
        print_metrics(metrics, trained.spec.recipe)
