"""Parameters of `cast`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from planish.contract.passes.base import LayerPatterns, Params, Stage


class Cast(Params):
    """Store and compute in 16-bit floats; inputs and outputs stay float32."""

    stage: ClassVar[Stage] = Stage.CAST
    source: ClassVar[str] = "Micikevicius et al. 2018, arXiv:1710.03740, section 3"

    op: Literal["cast"] = "cast"
    dtype: Literal["bf16", "fp16"] = Field(
        "fp16", description="bf16: range of float32, 8 bits of precision. fp16: 11 bits, ±65504."
    )
    keep_float: LayerPatterns = Field(
        (),
        description="Layers that stay float32: names or shell patterns. Layers whose values would "
        "leave the range stay as well.",
    )
    samples: int = Field(
        128, ge=1, le=100_000, description="Samples on which ranges of values are measured."
    )
