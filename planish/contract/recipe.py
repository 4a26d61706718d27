"""The passes and their parameters: the one place that says what a recipe may hold.

Each class is one pass. Its docstring is the summary shown in the API, the CLI and the docs; its
class variables say what the pass needs and where it comes from. The engine's registry maps each
class to the function that does the work.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

LayerPattern = Annotated[str, Field(min_length=1, max_length=300)]


class Stage(IntEnum):
    """Where a pass may stand; a recipe never goes back behind `QUANTIZE`."""

    GRAPH = 1
    PRUNE = 2
    RECOVER = 3
    QUANTIZE = 4


class Need(IntEnum):
    """What a pass cannot do without."""

    DATA = 1
    TARGETS = 2


class Params(BaseModel):
    """Base of all pass parameters: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    stage: ClassVar[Stage]
    needs: ClassVar[tuple[Need, ...]] = ()
    source: ClassVar[str]


class Train(Params):
    """One training run, the same for every pass that trains."""

    stage: ClassVar[Stage] = Stage.RECOVER
    source: ClassVar[str] = "Smith and Topin 2018, arXiv:1708.07120 (one-cycle)"

    epochs: int = Field(5, ge=1, le=1000, description="Passes over the training part of the data.")
    batch_size: int = Field(128, ge=1, le=65536, description="Samples in one step.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Update rule.")
    lr: float = Field(
        0.003,
        gt=0,
        le=10,
        description="Peak learning rate. Small rates recover; large ones forget.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="L2 (sgd, adam) or decoupled (adamw)."
    )
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="How the learning rate moves over the steps."
    )
    augment: Literal["none", "crop", "crop_flip"] = Field(
        "none",
        description="Per-image augmentation: shifted crop with zero padding of 1/8 of the side, "
        "and a horizontal flip. For images only.",
    )
    channels_last: bool = Field(True, description="NHWC memory format while training (images).")


class Prune(Params):
    """Remove whole channels, so that every tensor of the network gets really smaller."""

    stage: ClassVar[Stage] = Stage.PRUNE
    source: ClassVar[str] = (
        "Li et al. 2017, arXiv:1608.08710 (magnitude); Fang et al. 2023, arXiv:2301.12900 (groups)"
    )

    op: Literal["prune"] = "prune"
    structure: Literal["channel"] = Field("channel", description="What is removed as a unit.")
    method: Literal["magnitude", "random"] = Field(
        "magnitude", description="How channels are ranked: L2 norm of their weights, or at random."
    )
    sparsity: float = Field(0.5, gt=0, lt=1, description="Share of the channels to remove.")
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share in every layer, or one ranking over all layers."
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Kept channels are rounded to a multiple of this. "
        "null: what the target's kernels like.",
    )
    ignore: tuple[LayerPattern, ...] = Field(
        (), max_length=1000, description="Layers to leave alone: names or shell patterns."
    )


class Distill(Params):
    """Train the model to match the teacher: the original, or an uploaded stronger model."""

    stage: ClassVar[Stage] = Stage.RECOVER
    needs: ClassVar[tuple[Need, ...]] = (Need.DATA,)
    source: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531, section 2"

    op: Literal["distill"] = "distill"
    method: Literal["kd"] = Field("kd", description="KL divergence of the softened outputs.")
    temperature: float = Field(4.0, gt=0, le=100, description="Softens both outputs.")
    alpha: float = Field(
        0.9, ge=0, le=1, description="Weight of the teacher; 1 - alpha is the labels' weight."
    )
    train: Train = Field(default_factory=Train, description="The training run.")


class Retrain(Params):
    """Fine-tune the model on the labels of the data."""

    stage: ClassVar[Stage] = Stage.RECOVER
    needs: ClassVar[tuple[Need, ...]] = (Need.DATA, Need.TARGETS)
    source: ClassVar[str] = (
        "Han et al. 2015, arXiv:1506.02626, section 3 (retraining after pruning)"
    )

    op: Literal["retrain"] = "retrain"
    strategy: Literal["single"] = Field("single", description="One process on one device.")
    train: Train = Field(default_factory=Train, description="The training run.")


class Quantize(Params):
    """Store and compute in int8: x_q = clamp(round(x / scale) + zero_point)."""

    stage: ClassVar[Stage] = Stage.QUANTIZE
    source: ClassVar[str] = "Jacob et al. 2018, arXiv:1712.05877, section 2"

    op: Literal["quantize"] = "quantize"
    mode: Literal["static", "dynamic"] = Field(
        "static",
        description="static: activation ranges from calibration data, all layers in int8. "
        "dynamic: ranges per call, matrix products only (transformers), onnx output only.",
    )
    dtype: Literal["int8"] = Field("int8", description="Integer type of the weights.")
    granularity: Literal["channel", "tensor"] = Field(
        "channel", description="One weight scale for each output channel, or one for the tensor."
    )
    calibration: Literal["minmax", "mse"] = Field(
        "minmax",
        description="How static activation ranges are found: extremes, or the least squared error.",
    )
    samples: int = Field(512, ge=1, le=100_000, description="Calibration samples (static).")
    keep_float: tuple[LayerPattern, ...] = Field(
        (), max_length=1000, description="Layers that stay float: names or shell patterns."
    )


class Simplify(Params):
    """Rewrite the graph without changing its function."""

    stage: ClassVar[Stage] = Stage.GRAPH
    source: ClassVar[str] = "Jacob et al. 2018, arXiv:1712.05877, section 3.2 (batch norm folding)"

    op: Literal["simplify"] = "simplify"
    fold_batchnorm: bool = Field(
        True, description="Fold each BatchNorm into the convolution or linear layer before it."
    )


Pass = Annotated[Prune | Distill | Retrain | Quantize | Simplify, Field(discriminator="op")]
Recipe = Annotated[tuple[Pass, ...], Field(min_length=1, max_length=16)]
PASSES: tuple[type[Params], ...] = (Prune, Distill, Retrain, Quantize, Simplify)


def op_of(params: type[Params]) -> str:
    """Return the name that a recipe uses for this pass, e.g. ``prune``."""
    return str(params.model_fields["op"].default)


def pass_of(op: str) -> type[Params] | None:
    """Return the parameters class of an op, None when there is no such pass."""
    return next((params for params in PASSES if op_of(params) == op), None)
