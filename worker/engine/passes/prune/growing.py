"""Removing single weights little by little, in the training pass that follows."""

from __future__ import annotations

from collections.abc import Sequence

from planish.contract.recipe import Prune
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.ranking import rank
from worker.engine.passes.prune.sparse_layers import SparseLayer
from worker.engine.passes.prune.zeroing import choose
from worker.engine.sparsity import Growth


def growth_of(
    model: Model, layers: Sequence[SparseLayer], params: Prune, ctx: Context
) -> tuple[Growth, int]:
    """Return what training has to remove, and on how many samples it was ranked.

    The choice is made as if all went at once: it says how many zeros there are in the end. Which
    ones: magnitude ranks the weights anew in every step, as they move. All other methods rank once,
    now. A pattern keeps the losers of its groups, and grows among them; sparsegpt corrects nothing,
    training does.

    Raises:
        InvalidRecipe: the method needs data, or labels, and there are none.
    """
    scores, samples = rank(model, layers, params, ctx)
    masks = choose(layers, scores, params)
    zeros = {key: int(mask.sum()) for key, mask in masks.items()}
    moving = params.method == "magnitude"
    fixed = params.structure == "n:m"
    scope = "layer" if fixed else params.scope
    return Growth(zeros, scope, None if moving else scores, masks if fixed else None), samples
