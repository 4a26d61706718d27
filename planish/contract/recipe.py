"""The passes: the one place that says what a recipe may hold.

Each class of `PASSES` is one pass, in a file of its own under `planish.contract.passes`. Its
docstring is the summary shown in the API, the CLI and the docs; its class variables say what the
pass needs and where it comes from. The engine's registry maps each class to the functions that do
the work.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from planish.contract.passes.base import Need, Params, Stage
from planish.contract.passes.cast import Cast
from planish.contract.passes.distill import Distill
from planish.contract.passes.low_rank import LowRank
from planish.contract.passes.prune import Prune
from planish.contract.passes.quantize import Quantize
from planish.contract.passes.retrain import Retrain
from planish.contract.passes.simplify import Simplify
from planish.contract.passes.train import Spread, Train

__all__ = [
    "PASSES",
    "Cast",
    "Distill",
    "LowRank",
    "Need",
    "Params",
    "Pass",
    "Prune",
    "Quantize",
    "Recipe",
    "Retrain",
    "Simplify",
    "Spread",
    "Stage",
    "Train",
    "op_of",
    "pass_of",
]

Pass = Annotated[
    Prune | LowRank | Distill | Retrain | Quantize | Cast | Simplify, Field(discriminator="op")
]
Recipe = Annotated[tuple[Pass, ...], Field(min_length=1, max_length=16)]
PASSES: tuple[type[Params], ...] = (Prune, LowRank, Distill, Retrain, Quantize, Cast, Simplify)


def op_of(params: type[Params]) -> str:
    """Return the name that a recipe uses for this pass, e.g. ``prune``."""
    return str(params.model_fields["op"].default)


def pass_of(op: str) -> type[Params] | None:
    """Return the parameters class of an op, None when there is no such pass."""
    return next((params for params in PASSES if op_of(params) == op), None)
