"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.scans.ablation import IntervenedNet as IntervenedNet, ablation as ablation, graph_of as graph_of
    from convscope.scans.answered import Answering as Answering, head_of as head_of
    from convscope.scans.by_image import (
        Answers as Answers,
        Questions as Questions,
        TiedLens as TiedLens,
        one_by_one as one_by_one,
    )
    from convscope.scans.cached import (
        cached_record as cached_record,
        cached_scan as cached_scan,
        digest_of_scope as digest_of_scope,
        digest_of_weights as digest_of_weights,
    )
    from convscope.scans.edit_effect import edit_effect as edit_effect
    from convscope.scans.effects import (
        Ablation as Ablation,
        EditEffect as EditEffect,
        LayerEffects as LayerEffects,
        PairedAnswers as PairedAnswers,
    )
    from convscope.scans.evaluate import (
        ReviewedAccuracy as ReviewedAccuracy,
        evaluate as evaluate,
        kept_epoch as kept_epoch,
        of_last_stage as of_last_stage,
        reviewed_accuracy as reviewed_accuracy,
    )
    from convscope.scans.exact import ExactSum as ExactSum
    from convscope.scans.faithfulness import (
        Faithfulness as Faithfulness,
        FaithfulnessCurves as FaithfulnessCurves,
        faithfulness as faithfulness,
    )
    from convscope.scans.filter_effects import (
        FilterEffects as FilterEffects,
        FirstOrder as FirstOrder,
        filter_effects as filter_effects,
        interventions_over as interventions_over,
    )
    from convscope.scans.imbalance import (
        imbalance_in_words as imbalance_in_words,
        validation_in_words as validation_in_words,
    )
    from convscope.scans.intervals import (
        UNDEFINED as UNDEFINED,
        Estimate as Estimate,
        bootstrap as bootstrap,
        difference as difference,
        f_score as f_score,
        mean as mean,
        mean_of as mean_of,
        mean_over_classes as mean_over_classes,
        paired_difference as paired_difference,
        proportion as proportion,
    )
    from convscope.scans.invariance import (
        Change as Change,
        Invariance as Invariance,
        InvarianceCurves as InvarianceCurves,
        Shift as Shift,
        amounts as amounts,
        changes_of as changes_of,
        invariance as invariance,
    )
    from convscope.scans.layers import LayerMap as LayerMap, layer_maps as layer_maps
    from convscope.scans.metrics import (
        AllRight as AllRight,
        Calibration as Calibration,
        Confusion as Confusion,
        Loss as Loss,
        Predictions as Predictions,
        Reliability as Reliability,
        TopK as TopK,
    )
    from convscope.scans.neighbours import (
        Embeddings as Embeddings,
        Nearest as Nearest,
        embeddings as embeddings,
        nearest as nearest,
    )
    from convscope.scans.projection import (
        Projection as Projection,
        project as project,
        write_embeddings as write_embeddings,
    )
    from convscope.scans.randomization import (
        Randomization as Randomization,
        RandomizationCheck as RandomizationCheck,
        randomization_check as randomization_check,
    )
    from convscope.scans.room import MAX_MEMORY as MAX_MEMORY, batch_that_fits as batch_that_fits
    from convscope.scans.scan import (
        AnyImages as AnyImages,
        BatchOutputs as BatchOutputs,
        Images as Images,
        PassSettings as PassSettings,
        Scan as Scan,
        checked as checked,
        feed as feed,
        feed_stored as feed_stored,
        scan as scan,
        shown as shown,
    )
    from convscope.scans.similarity import layer_similarity as layer_similarity, linear_cka as linear_cka
    from convscope.scans.statistics import (
        EDGES as EDGES,
        LayerStatistics as LayerStatistics,
        Statistics as Statistics,
        patches_and_statistics as patches_and_statistics,
        statistics as statistics,
    )
    from convscope.scans.top_patches import (
        LayerPatches as LayerPatches,
        Score as Score,
        TopPatches as TopPatches,
        top_patches as top_patches,
    )
else:
    load_when_used(__name__)
