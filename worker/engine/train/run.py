"""What one training run depends on, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from planish.contract.recipe import Train
from planish.contract.report import Epoch
from worker.engine.load.data import Dataset
from worker.engine.progress import Progress
from worker.engine.sparsity import Sparsity
from worker.engine.train.losses import Task


@dataclass(frozen=True)
class Run:
    """Everything that one training run depends on.

    Attributes:
        op: pass that trains, for the report.
        step: its position in the recipe, from 1.
        train: hyperparameters.
        data: what is learnt from.
        validation: what the best epoch is chosen on; None keeps the last epoch.
        seed: order, augmentation and dropout come from it.
        device: where it runs.
        progress: told about every quarter of a second and every epoch.
        task: what the targets are; decides by what score epochs are ranked.
        sparsity: zeros to keep or to grow.
        checkpoints: folder to go on from after a crash; None: start over.
        variant: tells two runs of one pass apart, so that neither goes on from the other's
            checkpoint.
    """

    op: str
    step: int
    train: Train
    data: Dataset
    validation: Dataset | None
    seed: int
    device: torch.device
    progress: Progress
    task: Task = "classification"
    sparsity: Sparsity | None = None
    checkpoints: Path | None = None
    variant: str = ""


@dataclass(frozen=True)
class Nodes:
    """Which machines train together.

    Attributes:
        count: how many.
        rendezvous: host:port where they meet; None: this machine alone.
        name: of the meeting: the job's id.
    """

    count: int = 1
    rendezvous: str | None = None
    name: str = "planish"

    @property
    def meet(self) -> str | None:
        """Where several machines meet; None for one machine."""
        return self.rendezvous if self.count > 1 else None


ONE_NODE = Nodes()


@dataclass(frozen=True)
class Trained:
    """What became of a run.

    Attributes:
        epochs: all that were finished, also before an interruption.
        best_epoch: whose weights stay.
        best_score: its score on validation data; None without any.
        score_name: what the score is, e.g. accuracy; None without validation data.
        resumed_from: where a checkpoint let the run go on, in words; None if it began at the start.
        warnings: what the reader of the report should know.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int
    best_score: float | None
    score_name: str | None
    resumed_from: str | None = None
    warnings: tuple[str, ...] = ()
