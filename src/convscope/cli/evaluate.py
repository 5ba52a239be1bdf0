"""convscope evaluate: the test images, looked at once."""

from __future__ import annotations

import sys

from convscope.cli.options import (
    AllowDifferent,
    CpusPerRun,
    Device,
    GpusPerRun,
    Json,
    RayAddress,
    RunDir,
    TrustCode,
    cluster,
    opened,
)


def evaluate(
    run: RunDir,
    device: Device = "auto",
    trust_code: TrustCode = False,
    ray: RayAddress = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = 0.0,
    allow_different: AllowDifferent = False,
    json: Json = False,
) -> None:
    """Measure a trained run on its test images.

    Each figure comes with a 95 % interval, and is kept in RUN/metrics.json."""
    from convscope.cli.show import print_json, print_metrics
    from convscope.compute import using
    from convscope.errors import ReadOnlyError
    from convscope.runs import check_writable
    from convscope.scans import evaluate as evaluate_run

    trained = opened(run, trust_code)
    with cluster(ray, cpus_per_run, gpus_per_run, allow_different) as executor, using(executor):
        metrics = evaluate_run(trained, device=device)
    try:
        check_writable(run)
    except ReadOnlyError:
        print(f"note: {run} is read-only, so these figures are not kept", file=sys.stderr)  # noqa: T201
    if json:
        print_json(metrics)
    else:
        print_metrics(metrics, trained.spec.recipe)
