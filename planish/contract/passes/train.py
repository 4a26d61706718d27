"""One training run: the same parameters for every pass that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from planish.contract.passes.base import Need, Params, Stage


class Train(Params):
    """One training run, the same for every pass that trains."""

    stage: ClassVar[Stage] = Stage.RECOVER
    source: ClassVar[str] = "Smith and Topin 2018, arXiv:1708.07120 (one-cycle)"

    epochs: int = Field(5, ge=1, le=1000, description="Passes over the training part of the data.")
    batch_size: int = Field(128, ge=1, le=65536, description="Samples in one step, all processes.")
    accumulate: int = Field(
        1, ge=1, le=1024, description="Pieces that a batch is computed in, to save memory."
    )
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
    clip_norm: float | None = Field(
        None, gt=0, le=1e6, description="Largest L2 norm of a step's gradient. null: no limit."
    )
    schedule: Literal["one_cycle", "cosine", "step", "linear", "constant"] = Field(
        "one_cycle",
        description="How the learning rate moves over the steps; step: a tenth after half and "
        "after three quarters of them.",
    )
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the steps in which the rate rises from 0 (one_cycle has its own).",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target spread over all classes."
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Average the weights over the steps with this decay."
    )
    amp: Literal["none", "bf16", "fp16"] = Field(
        "none", description="Mixed precision; fp16 scales the loss and needs a GPU."
    )
    augment: Literal["none", "crop", "crop_flip"] = Field(
        "none",
        description="Per-image augmentation: shifted crop with zero padding of 1/8 of the side, "
        "and a horizontal flip. For images only.",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Blend each image with another of its batch by a share drawn from "
        "Beta(mixup, mixup), and their labels alike; a teacher answers for the blend itself. "
        "0: never. For images only.",
    )
    channels_last: bool = Field(True, description="NHWC memory format while training (images).")
    cudnn_benchmark: bool = Field(
        False, description="Let cuDNN try its algorithms; faster, not bit-equal. GPU only."
    )
    compile: bool = Field(
        False, description="Compile the step with torch.compile; pays off in long runs."
    )
    workers: int = Field(0, ge=0, le=64, description="Processes that prepare batches ahead.")
    early_stopping: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Stop after this many epochs without a better validation score.",
    )
    checkpoint_every_seconds: int = Field(
        300, ge=1, le=86_400, description="How much work a killed run may lose."
    )

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield the device that the run cannot do without."""
        if self.amp == "fp16":
            yield Need.GPU, 'amp "fp16" needs a GPU; set it to "bf16" or "none"'
        if self.cudnn_benchmark:
            yield Need.GPU, "cudnn_benchmark needs a GPU; leave it out"


Strategy = Literal["single", "data_parallel", "ddp", "fsdp"]
"""How training is spread: torch's DataParallel, DistributedDataParallel, fully sharded (FSDP2)."""


class Spread(Params):
    """Where a training run runs; part of every pass that trains at length."""

    strategy: Strategy = Field(
        "single",
        description="single: one process on one device. data_parallel: one process, all GPUs. "
        "ddp: a process for each GPU. fsdp: the same, weights sharded. ddp and fsdp use gloo on "
        "CPUs.",
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Processes of ddp and fsdp on each node. null: one for each GPU of the job, "
        "2 on CPUs.",
    )

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield the device that the strategy cannot do without."""
        if self.strategy == "data_parallel":
            yield Need.GPU, 'strategy "data_parallel" spreads over GPUs; set it to "ddp" on CPUs'
