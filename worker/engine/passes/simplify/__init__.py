"""Graph rewrites: folding, constants, identities, and on request cheaper activations."""

from __future__ import annotations

from planish.contract.recipe import Simplify
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.simplify.activations import swap_activations
from worker.engine.passes.simplify.batchnorm import fold_batchnorms
from worker.engine.passes.simplify.constants import fold_constants
from worker.engine.passes.simplify.identities import remove_identities

FOLD = Simplify(fold_constants=False, remove_identities=False)
"""Only the BatchNorms: what other passes do before they read weights."""


def run(model: Model, params: Simplify, _ctx: Context) -> Outcome:
    """Rewrite the graph in place; without `activation` its function stays as it is."""
    module = model.module
    identities = remove_identities(model) if params.remove_identities else []
    constants = fold_constants(module) if params.fold_constants else []
    norms: list[LayerChanged] = []
    skipped: list[LayerSkipped] = []
    if params.fold_batchnorm:
        norms, skipped = fold_batchnorms(model)
    swapped = swap_activations(module, params.activation) if params.activation else []
    module.graph.lint()
    module.recompile()
    changed = [*norms, *constants, *identities, *swapped]
    kept = len(skipped)
    if not changed and not skipped:
        skipped.append(LayerSkipped(name="(model)", why=_nothing(params)))
    return Outcome(
        model,
        bool(changed),
        tuple(changed),
        tuple(skipped),
        {
            "batchnorm_folded": len(norms),
            "batchnorm_kept": kept,
            "constants_folded": len(constants),
            "identities_removed": len(identities),
            "activations_swapped": len(swapped),
        },
    )


def plan(model: Model, params: Simplify, ctx: Context) -> tuple[Model, PassPlan]:
    """Do it on a copy, and say what was rewritten."""
    outcome = run(model.clone(), params, ctx)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=outcome.facts,
    )


def _nothing(params: Simplify) -> str:
    """Say why nothing was rewritten."""
    looked_for = [
        text
        for text, wanted in (
            ("BatchNorm", params.fold_batchnorm),
            ("constants to fold", params.fold_constants),
            ("identities", params.remove_identities),
            (f"activation costlier than {params.activation}", params.activation is not None),
        )
        if wanted
    ]
    return f"the model has no {', no '.join(looked_for)}" if looked_for else "all is switched off"
