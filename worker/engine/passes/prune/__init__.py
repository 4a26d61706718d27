"""Pruning: one file for each structure that can go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planish.contract.recipe import Prune
from planish.contract.report import PassPlan
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.prune import channel, layer, sparse

STRUCTURES: Mapping[str, Callable[[Model, Prune, Context], Outcome]] = {
    "unstructured": sparse.run,
    "n:m": sparse.run,
    "channel": channel.run,
    "layer": layer.run,
}
"""What does the work, by `Prune.structure`; each takes a float model and leaves it as it is."""


def run(model: Model, params: Prune, ctx: Context) -> Outcome:
    """Remove what the parameters ask for.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer, or the graph cannot be followed.
        NothingChanged: nothing could go; the text says why for each kind of reason.
    """
    return STRUCTURES[params.structure](model, params, ctx)


def plan(model: Model, params: Prune, ctx: Context) -> tuple[Model, PassPlan]:
    """Do it on a copy, to say what would go and to hand the smaller model to the next pass.

    Blocks are not scored for a plan: it says how many would go, and which they may be. Latency is
    not measured for it, and single weights are ranked by magnitude.
    """
    if params.structure == "layer":
        return layer.plan(model, params, ctx)
    if params.structure == "channel":
        return channel.plan(model, params, ctx)
    return sparse.plan(model, params, ctx)
