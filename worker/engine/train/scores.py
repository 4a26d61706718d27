"""How well a model does on validation data: the higher, the better."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from worker.engine.train.losses import IGNORED, Task, predictions

NAMES: dict[Task, str] = {
    "classification": "accuracy",
    "regression": "negative mean squared error",
    "language_modeling": "negative cross entropy",
    "embedding": "cosine",
    "none": "accuracy",
}


@dataclass(frozen=True)
class TaskScore:
    """The score of a task; see `task_score`."""

    task: Task

    @property
    def name(self) -> str:
        """What the score is called in reports."""
        return NAMES[self.task]

    def __call__(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of a batch's scores and how many they are, both scalar tensors.

        The sum stays on the outputs' device, so that nothing waits for it.
        """
        if self.task == "regression":
            errors = (outputs - targets.to(outputs.dtype)).square()
            return -errors.double().sum(), _count(errors)
        if self.task == "embedding":
            cosines = F.cosine_similarity(outputs, targets.to(outputs.dtype), dim=-1)
            return cosines.double().sum(), _count(cosines)
        logits, wanted = predictions(self.task, outputs, targets)
        counted = wanted != IGNORED
        if self.task == "language_modeling":
            loss = F.cross_entropy(logits, wanted, reduction="sum", ignore_index=IGNORED)
            return -loss.double(), counted.sum()
        return ((logits.argmax(-1) == wanted) & counted).sum().double(), counted.sum()


def task_score(task: Task) -> TaskScore:
    """Return the score that ranks epochs: a mean over terms.

    classification: accuracy. regression: negative mean squared error. language_modeling: negative
    cross entropy of the next token. embedding: cosine.
    """
    return TaskScore(task)


def _count(values: Tensor) -> Tensor:
    return values.new_tensor(values.numel()).long()
