"""A distillation told as plain values, and the loss that it becomes in any process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from planish.contract.recipe import Distill
from worker.engine.distill.features import Hint, Pair
from worker.engine.distill.losses import correlated, decoupled, soft_divergence, squared_error
from worker.engine.distill.relations import LastAttention, relation_divergence, relation_heads
from worker.engine.distill.taps import Taps
from worker.engine.model import first_output
from worker.engine.train.blend import Blended, Targets
from worker.engine.train.losses import IGNORED, Inputs, Task, predictions, task_loss

DKD_BETA = 8.0
DIST_BETA = 1.0
VALUES: tuple[Task, ...] = ("regression", "embedding")
"""Tasks whose outputs are values, not logits of classes."""


@dataclass(frozen=True)
class Lesson:
    """All that a distillation loss depends on; holds no closure, so it can go to other processes.

    Attributes:
        params: method, weights and temperature.
        task: what outputs and targets are.
        teacher: in eval mode, frozen, on the device of the batches.
        seed: projections are drawn from it.
        mask: position of the input that tells tokens from padding; None where there is none.
        pairs: layers that `hint` compares.
        attention: the last attention of student and teacher, which `attention_relation` compares.
    """

    params: Distill
    task: Task
    teacher: fx.GraphModule
    seed: int = 0
    mask: int | None = None
    pairs: tuple[Pair, ...] = ()
    attention: tuple[LastAttention, LastAttention] | None = None

    def loss(self, student: nn.Module) -> DistillationLoss:
        """Return the loss for a student; close it when the student is trained."""
        return DistillationLoss(self, student)


class DistillationLoss(nn.Module):
    """The teacher's part times alpha, the labels' part times 1 - alpha, features on top.

    The teacher runs under no_grad on the batch that the student saw. Its parameters are not this
    module's: those are the projections of `hint` alone, which are trained with the student.
    """

    def __init__(self, lesson: Lesson, student: nn.Module) -> None:
        super().__init__()
        self.lesson = lesson
        self._labels = task_loss(lesson.task, lesson.params.train.label_smoothing)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(lesson.seed)
            self.hints = nn.ModuleList(Hint(pair) for pair in lesson.pairs)
        ours, theirs = _tapped_layers(lesson)
        self._ours, self._theirs = Taps(student, ours), Taps(lesson.teacher, theirs)

    def close(self) -> None:
        """Let go of student and teacher; the loss is of no use afterwards."""
        self._ours.close()
        self._theirs.close()

    def forward(self, outputs: Tensor, inputs: Inputs, targets: Targets) -> Tensor:
        """Return the loss of one batch, from which the student's outputs just came."""
        lesson, params = self.lesson, self.lesson.params
        with torch.no_grad():
            wanted = first_output(lesson.teacher(*inputs)).float()
        right = targets.targets if isinstance(targets, Blended) else targets
        loss = params.alpha * teacher_part(lesson, outputs, wanted, inputs, right)
        if params.alpha < 1:
            loss = loss + (1 - params.alpha) * self._labels(outputs, inputs, targets)
        if lesson.pairs or lesson.attention:
            loss = loss + params.feature_weight * self._inner_part(_counted(lesson, inputs))
        return loss

    def terms(self, targets: Tensor | None) -> int | None:
        """Return over how many targets the mean goes; None where every sample counts."""
        return self._labels.terms(targets)

    def _inner_part(self, counted: Tensor | None) -> Tensor:
        """Return how far the features or relations that were just computed are apart."""
        if self.lesson.attention is not None:
            ours, theirs = self.lesson.attention
            heads = relation_heads(ours, theirs)
            taken = self._ours.taken[ours.name][:3], self._theirs.taken[theirs.name][:3]
            return relation_divergence(*taken, heads, counted)
        apart = [
            hint(
                self._ours.given[pair.student.name], self._theirs.given[pair.teacher.name], counted
            )
            for pair, hint in zip(self.lesson.pairs, self.hints, strict=True)
        ]
        return torch.stack(apart).mean()


def teacher_part(
    lesson: Lesson, outputs: Tensor, wanted: Tensor, inputs: Inputs, targets: Tensor | None
) -> Tensor:
    """Return how far the student's outputs are from the teacher's, by the lesson's method.

    Args:
        lesson: the method and the task.
        outputs: of the student: logits (N, classes) or (N, ..., classes), or values.
        wanted: of the teacher, the same shape.
        inputs: of both.
        targets: of the batch; `dkd` needs them. Positions without one do not count.
    """
    params = lesson.params
    if lesson.task in VALUES:
        return squared_error(outputs, wanted)
    student, teacher, right = _rows(lesson, outputs, wanted, inputs, targets)
    if not len(student):
        return outputs.sum() * 0.0
    if params.method == "dkd" and right is not None:
        beta = DKD_BETA if params.beta is None else params.beta
        return decoupled(student, teacher, right, params.temperature, beta)
    if params.method == "dist":
        beta = DIST_BETA if params.beta is None else params.beta
        return correlated(student, teacher, params.temperature, beta)
    if params.method == "mse_logits":
        return squared_error(student, teacher)
    return soft_divergence(student, teacher, params.temperature)


def _rows(
    lesson: Lesson, outputs: Tensor, wanted: Tensor, inputs: Inputs, targets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the rows that count: logits of student and teacher, (rows, classes), and classes."""
    classes = outputs.shape[-1]
    if targets is not None:
        student, right = predictions(lesson.task, outputs, targets)
        teacher, _ = predictions(lesson.task, wanted, targets)
        counted: Tensor | None = right != IGNORED
    else:
        student, teacher, right = outputs.reshape(-1, classes), wanted.reshape(-1, classes), None
        mask = _counted(lesson, inputs)
        fits = mask is not None and mask.shape == outputs.shape[:-1]
        counted = mask.reshape(-1) if fits and mask is not None else None
    if counted is None or bool(counted.all()):
        return student, teacher, right
    return student[counted], teacher[counted], None if right is None else right[counted]


def _counted(lesson: Lesson, inputs: Inputs) -> Tensor | None:
    """Return which tokens are no padding, (N, S); None where the model is not told."""
    return None if lesson.mask is None else inputs[lesson.mask].bool()


def _tapped_layers(lesson: Lesson) -> tuple[list[str], list[str]]:
    ours = [pair.student.name for pair in lesson.pairs]
    theirs = [pair.teacher.name for pair in lesson.pairs]
    if lesson.attention is not None:
        student, teacher = lesson.attention
        return [*ours, student.name], [*theirs, teacher.name]
    return ours, theirs
