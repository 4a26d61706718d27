"""Parameters of `low_rank`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from planish.contract.passes.base import LayerPatterns, Params, Stage


class LowRank(Params):
    """Split linear layers and convolutions into two thinner ones by their singular values."""

    stage: ClassVar[Stage] = Stage.PRUNE
    source: ClassVar[str] = (
        "Denton et al. 2014, arXiv:1404.0736, section 3; Zhang et al. 2015, arXiv:1505.06798 "
        "(convolutions)"
    )

    op: Literal["low_rank"] = "low_rank"
    rank: int | None = Field(
        None, ge=1, le=65536, description="Instead of energy: the rank of every split layer."
    )
    energy: float | None = Field(
        default_factory=lambda values: None if values.get("rank") else 0.9,
        gt=0,
        lt=1,
        description="Share of the squared singular values to keep in each layer. null with rank.",
    )
    ignore: LayerPatterns = Field((), description="Layers to leave whole: names or shell patterns.")

    @model_validator(mode="after")
    def _energy_or_rank(self) -> LowRank:
        if (self.energy is None) == (self.rank is None):
            raise ValueError("give exactly one of energy and rank")
        return self
