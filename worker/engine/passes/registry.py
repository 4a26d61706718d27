"""One line in `REGISTRY` for each pass of the contract."""

from __future__ import annotations

from typing import Any

from planish.contract.recipe import (
    Cast,
    Distill,
    LowRank,
    Params,
    Prune,
    Quantize,
    Retrain,
    Simplify,
    op_of,
)
from worker.engine.passes import cast, distill, low_rank, prune, quantize, retrain, simplify
from worker.engine.passes.protocol import PassEntry

_ENTRIES: tuple[PassEntry[Any], ...] = (
    PassEntry(Prune, prune.run, prune.plan),
    PassEntry(LowRank, low_rank.run, low_rank.plan),
    PassEntry(Distill, distill.run, distill.plan),
    PassEntry(Retrain, retrain.run, retrain.plan),
    PassEntry(Quantize, quantize.run, quantize.plan),
    PassEntry(Cast, cast.run, cast.plan),
    PassEntry(Simplify, simplify.run, simplify.plan),
)

REGISTRY: dict[str, PassEntry[Any]] = {op_of(entry.params): entry for entry in _ENTRIES}
"""Every pass by its op, in the order of `planish.contract.recipe.PASSES`."""


def entry_for(params: Params) -> PassEntry[Any]:
    """Return the functions that do what these parameters ask for."""
    return REGISTRY[op_of(type(params))]
