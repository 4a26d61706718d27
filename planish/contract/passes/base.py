"""What all parameters of passes share."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

LayerPattern = Annotated[str, Field(min_length=1, max_length=300)]
LayerPatterns = Annotated[tuple[LayerPattern, ...], Field(max_length=1000)]


class Stage(IntEnum):
    """Where a pass may stand; a recipe never goes back behind `QUANTIZE`."""

    GRAPH = 1
    PRUNE = 2
    RECOVER = 3
    CAST = 4
    QUANTIZE = 5


class Need(IntEnum):
    """What a pass cannot do without."""

    DATA = 1
    TARGETS = 2
    GPU = 3
    TRAINING = 4  # a pass after it that trains


class Params(BaseModel):
    """Base of all pass parameters: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    stage: ClassVar[Stage]
    needs: ClassVar[tuple[Need, ...]] = ()
    source: ClassVar[str]

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield what the pass cannot do without at these values, and the sentence that says so."""
        yield from ()
