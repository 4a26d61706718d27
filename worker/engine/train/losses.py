"""What training makes small: functions of the outputs and the batch, one for each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from worker.engine.train.blend import Blended, Targets

Task = Literal["classification", "regression", "language_modeling", "embedding", "none"]
IGNORED = -100
"""Target of a position that teaches nothing."""

Inputs = tuple[Tensor, ...]
Loss = Callable[[Tensor, Inputs, Targets], Tensor]
"""Takes the model's first output, the inputs that it came from and the targets; returns a scalar.

A loss that is a `torch.nn.Module` may have parameters of its own (a projection of features, say):
the loop trains those that require a gradient along with the model.
"""


@runtime_checkable
class CountsTerms(Protocol):
    """A loss that is no mean over samples says what it is a mean over."""

    def terms(self, targets: Tensor | None) -> int | None:
        """Return how many terms a batch's mean has; None: one for each sample."""


@dataclass(frozen=True)
class TaskLoss:
    """The loss of a task on the data's own targets; see `task_loss`.

    Attributes:
        task: what the targets are.
        label_smoothing: share of the target spread over all classes, 0 to below 1.
    """

    task: Task
    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, inputs: Inputs, targets: Targets) -> Tensor:
        """Return the mean loss of one batch; of blended images, that of both targets by share.

        Raises:
            ValueError: there are no targets.
        """
        if isinstance(targets, Blended):
            first, second = (self(outputs, inputs, t) for t in (targets.targets, targets.others))
            return targets.share * first + (1 - targets.share) * second
        if targets is None:
            raise ValueError(f"the loss of {self.task} needs targets")
        if self.task == "regression":
            return F.mse_loss(outputs, targets.to(outputs.dtype))
        if self.task == "embedding":
            return 1 - F.cosine_similarity(outputs, targets.to(outputs.dtype), dim=-1).mean()
        logits, wanted = predictions(self.task, outputs, targets)
        total = F.cross_entropy(
            logits,
            wanted,
            reduction="sum",
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )
        return total / (wanted != IGNORED).sum().clamp(min=1)

    def terms(self, targets: Tensor | None) -> int | None:
        """Return how many targets of a batch count; None where each sample does."""
        if targets is None or self.task in ("regression", "embedding"):
            return None
        return int((_aligned(self.task, targets) != IGNORED).sum())


def task_loss(task: Task, label_smoothing: float = 0.0) -> TaskLoss:
    """Return the loss of a task.

    classification: cross entropy of logits (N, C) or (N, ..., C) and classes (N, ...).
    language_modeling: cross entropy of logits (N, S, V) and tokens (N, S); position s predicts
    token s + 1. regression: mean squared error of values of the output's shape. embedding: 1 -
    cosine of vectors (N, D). Targets of -100 are left out of both cross entropies.

    Args:
        task: none is treated as classification.
        label_smoothing: 0 to below 1, for cross entropies (Szegedy et al. 2016, arXiv:1512.00567,
            section 7).
    """
    return TaskLoss(task, label_smoothing)


def predictions(task: Task, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is predicted, logits (rows, classes), and what is right, classes (rows,)."""
    if task == "language_modeling":
        logits = logits[:, :-1]
    return logits.reshape(-1, logits.shape[-1]), _aligned(task, targets).reshape(-1)


def cross_entropy(logits: Tensor, _inputs: Inputs, targets: Targets) -> Tensor:
    """Return the mean cross entropy of the labels.

    Raises:
        ValueError: there are no labels.
    """
    return task_loss("classification")(logits, _inputs, targets)


def _aligned(task: Task, targets: Tensor) -> Tensor:
    """Return the targets that are predicted: of a sequence, all but the first token."""
    return targets[:, 1:] if task == "language_modeling" else targets
