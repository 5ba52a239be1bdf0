"""The run folder and its formats: what was asked for, what came out, written whole or not at all."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.runs.environment import describe_environment
    from convscope.runs.files import (
        check_writable,
        load_weights,
        read_tensors,
        write_tensors,
        write_whole,
    )
    from convscope.runs.lock import alone_in
    from convscope.runs.names import (
        ANATOMY,
        ANSWERS,
        CHECKPOINT,
        EMBEDDINGS,
        ENVIRONMENT,
        FILTERS,
        GIVEN,
        HISTORY,
        HISTORY_FIGURES,
        METRICS,
        MODEL,
        OUTCOME,
        PREDICTIONS,
        RATE,
        REPORT,
        REVIEW,
        SPEC,
        TENSORBOARD,
        TRACKERS,
    )
    from convscope.runs.objects import object_in, read_object
    from convscope.runs.parts import counts_of, predict_parts
    from convscope.runs.prediction import PROBLEM, load_images, predict_batches
    from convscope.runs.recipe import FIND, Recipe, Resize, Stage
    from convscope.runs.review import Verdict, read_review, remove_verdict, write_verdict
    from convscope.runs.run import Card, Run, build_from_spec, open_run
    from convscope.runs.spec import (
        FORMAT,
        RunSpec,
        check_format,
        dump_spec,
        load_spec,
        make_spec,
        override,
        parse_mapping,
        parse_overrides,
        read_spec,
        shareable,
    )
    from convscope.runs.wanted import as_network_wants
else:
    load_when_used(__name__)

__all__ = [
    "ANATOMY",
    "ANSWERS",
    "CHECKPOINT",
    "EMBEDDINGS",
    "ENVIRONMENT",
    "FILTERS",
    "FIND",
    "FORMAT",
    "GIVEN",
    "HISTORY",
    "HISTORY_FIGURES",
    "METRICS",
    "MODEL",
    "OUTCOME",
    "PREDICTIONS",
    "PROBLEM",
    "RATE",
    "REPORT",
    "REVIEW",
    "SPEC",
    "TENSORBOARD",
    "TRACKERS",
    "Card",
    "Recipe",
    "Resize",
    "Run",
    "RunSpec",
    "Stage",
    "Verdict",
    "alone_in",
    "as_network_wants",
    "build_from_spec",
    "check_format",
    "check_writable",
    "counts_of",
    "describe_environment",
    "dump_spec",
    "load_images",
    "load_spec",
    "load_weights",
    "make_spec",
    "object_in",
    "open_run",
    "override",
    "parse_mapping",
    "parse_overrides",
    "predict_batches",
    "predict_parts",
    "read_object",
    "read_review",
    "read_spec",
    "read_tensors",
    "remove_verdict",
    "shareable",
    "write_tensors",
    "write_verdict",
    "write_whole",
]
