"""Parameters of `simplify`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from planish.contract.passes.base import Params, Stage


class Simplify(Params):
    """Rewrite the graph without changing its function; on request, swap costly activations."""

    stage: ClassVar[Stage] = Stage.GRAPH
    source: ClassVar[str] = (
        "Jacob et al. 2018, arXiv:1712.05877, section 3.2 (batch norm folding); Howard et al. "
        "2019, arXiv:1905.02244, section 5.2 (hard swish)"
    )

    op: Literal["simplify"] = "simplify"
    fold_batchnorm: bool = Field(
        True, description="Fold each BatchNorm into the convolution or linear layer before it."
    )
    fold_constants: bool = Field(
        True, description="Compute what depends on no input once, and keep the result."
    )
    remove_identities: bool = Field(
        True, description="Remove nodes that hand on their input unchanged, and dead ones."
    )
    activation: Literal["relu", "leaky_relu", "hardswish"] | None = Field(
        None,
        description="Put this in the place of costlier activations (gelu, silu, mish, elu, …). "
        "Changes the function: train afterwards. null: leave them.",
    )
