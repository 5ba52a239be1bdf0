"""The run folder and its formats: what was asked for, what came out, written whole or not at all."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.runs.environment import describe_environment as describe_environment
    from convscope.runs.files import (
        check_writable as check_writable,
        load_weights as load_weights,
        read_tensors as read_tensors,
        write_tensors as write_tensors,
        write_whole as write_whole,
    )
    from convscope.runs.lock import alone_in as alone_in
    from convscope.runs.names import (
        ANATOMY as ANATOMY,
        ANSWERS as ANSWERS,
        CHECKPOINT as CHECKPOINT,
        EMBEDDINGS as EMBEDDINGS,
        ENVIRONMENT as ENVIRONMENT,
        FILTERS as FILTERS,
        GIVEN as GIVEN,
        HISTORY as HISTORY,
        HISTORY_FIGURES as HISTORY_FIGURES,
        METRICS as METRICS,
        MODEL as MODEL,
        OUTCOME as OUTCOME,
        PREDICTIONS as PREDICTIONS,
        RATE as RATE,
        REPORT as REPORT,
        REVIEW as REVIEW,
        SPEC as SPEC,
        TENSORBOARD as TENSORBOARD,
        TRACKERS as TRACKERS,
        object_in as object_in,
        read_object as read_object,
    )
    from convscope.runs.parts import counts_of as counts_of, predict_parts as predict_parts
    from convscope.runs.prediction import (
        PROBLEM as PROBLEM,
        class_columns as class_columns,
        load_images as load_images,
        moved as moved,
        predict_batches as predict_batches,
    )
    from convscope.runs.recipe import FIND as FIND, Recipe as Recipe, Resize as Resize, Stage as Stage
    from convscope.runs.review import (
        Verdict as Verdict,
        read_review as read_review,
        remove_verdict as remove_verdict,
        write_verdict as write_verdict,
    )
    from convscope.runs.run import (
        Card as Card,
        Run as Run,
        RunOrFolder as RunOrFolder,
        build_from_spec as build_from_spec,
        open_run as open_run,
    )
    from convscope.runs.spec import (
        FORMAT as FORMAT,
        RunSpec as RunSpec,
        as_network_wants as as_network_wants,
        check_format as check_format,
        dump_spec as dump_spec,
        load_spec as load_spec,
        make_spec as make_spec,
        override as override,
        parse_mapping as parse_mapping,
        parse_overrides as parse_overrides,
        read_spec as read_spec,
        shareable as shareable,
    )
else:
    load_when_used(__name__)
