"""The traced network: its operations, their sizes and receptive fields, and running any part of it.

`trace` turns a module into a `TracedGraph`; `anatomy` and `receptive_fields` read it. Every lens stands on
it.
"""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.graph.agreement import check_gradient
    from convscope.graph.anatomy import Anatomy, Layer, Share, anatomy, anatomy_of
    from convscope.graph.answers import answering_logits
    from convscope.graph.boxes import Box, BoxValues, Span
    from convscope.graph.fields import ReceptiveField, receptive_fields
    from convscope.graph.finite import broken_weights, check_has_values, check_weights, is_finite
    from convscope.graph.following import cuts_at_zero, moves_values, relu_after, where_read
    from convscope.graph.incremental import Incremental, Remembered
    from convscope.graph.interventions import Intervention
    from convscope.graph.positions import Positions, positions, without_positions
    from convscope.graph.traced import INPUT, Operation, TracedGraph
    from convscope.graph.tracing import trace
    from convscope.graph.unit_runs import UnitOutputs, UnitRuns
    from convscope.graph.untouched import evaluate, left_as_found
    from convscope.graph.wrapped import initialized, unwrapped
else:
    load_when_used(__name__)

__all__ = [
    "INPUT",
    "Anatomy",
    "Box",
    "BoxValues",
    "Incremental",
    "Intervention",
    "Layer",
    "Operation",
    "Positions",
    "ReceptiveField",
    "Remembered",
    "Share",
    "Span",
    "TracedGraph",
    "UnitOutputs",
    "UnitRuns",
    "anatomy",
    "anatomy_of",
    "answering_logits",
    "broken_weights",
    "check_gradient",
    "check_has_values",
    "check_weights",
    "cuts_at_zero",
    "evaluate",
    "initialized",
    "is_finite",
    "left_as_found",
    "moves_values",
    "positions",
    "receptive_fields",
    "relu_after",
    "trace",
    "unwrapped",
    "where_read",
    "without_positions",
]
