"""The traced network: its operations, their sizes and receptive fields, and running any part of it.

`trace` turns a module into a `TracedGraph`; `anatomy` and `receptive_fields` read it. Every lens stands on
it.
"""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.graph.agreement import check_gradient as check_gradient
    from convscope.graph.anatomy import (
        Anatomy as Anatomy,
        Layer as Layer,
        Share as Share,
        anatomy as anatomy,
        anatomy_of as anatomy_of,
    )
    from convscope.graph.answers import answering_logits as answering_logits
    from convscope.graph.boxes import Box as Box, BoxValues as BoxValues, Span as Span
    from convscope.graph.fields import ReceptiveField as ReceptiveField, receptive_fields as receptive_fields
    from convscope.graph.finite import (
        broken_weights as broken_weights,
        check_finite as check_finite,
        check_has_values as check_has_values,
        check_weights as check_weights,
        is_finite as is_finite,
    )
    from convscope.graph.following import (
        cuts_at_zero as cuts_at_zero,
        moves_values as moves_values,
        relu_after as relu_after,
        where_read as where_read,
    )
    from convscope.graph.incremental import Incremental as Incremental, Remembered as Remembered
    from convscope.graph.interventions import Intervention as Intervention
    from convscope.graph.positions import (
        Positions as Positions,
        positions as positions,
        without_positions as without_positions,
    )
    from convscope.graph.traced import INPUT as INPUT, Operation as Operation, TracedGraph as TracedGraph
    from convscope.graph.tracing import trace as trace
    from convscope.graph.unit_runs import UnitOutputs as UnitOutputs, UnitRuns as UnitRuns
    from convscope.graph.untouched import evaluate as evaluate, left_as_found as left_as_found
    from convscope.graph.wrapped import initialized as initialized, unwrapped as unwrapped
else:
    load_when_used(__name__)
