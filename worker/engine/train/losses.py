"""What training makes small: functions of the outputs and the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from worker.engine.model import first_output

Inputs = tuple[Tensor, ...]
Loss = Callable[[Tensor, Inputs, Tensor | None], Tensor]
"""Takes logits (N, classes), the model inputs they came from and labels (N,); returns a scalar."""


def cross_entropy(logits: Tensor, _inputs: Inputs, targets: Tensor | None) -> Tensor:
    """Return the mean cross entropy of the labels.

    Raises:
        ValueError: there are no labels.
    """
    if targets is None:
        raise ValueError("cross entropy needs labels")
    return F.cross_entropy(logits, targets)


@dataclass(frozen=True)
class KnowledgeDistillation:
    """Softened teacher outputs and labels, mixed (Hinton et al. 2015, arXiv:1503.02531).

    ``alpha * T² * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * cross entropy``;
    T² keeps the gradients of the first term in scale.

    Attributes:
        teacher: in eval mode, on the device of the batch; run under no_grad on the same inputs.
        temperature: T.
        alpha: weight of the teacher, 0 to 1.
    """

    teacher: fx.GraphModule
    temperature: float
    alpha: float

    def __call__(self, logits: Tensor, inputs: Inputs, targets: Tensor | None) -> Tensor:
        """Return the loss of one batch."""
        with torch.no_grad():
            wanted = first_output(self.teacher(*inputs))
        soft = soft_divergence(logits, wanted, self.temperature)
        if self.alpha == 1:
            return soft
        return self.alpha * soft + (1 - self.alpha) * cross_entropy(logits, inputs, targets)


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² * KL(teacher || student) of logits (N, ..., classes), a mean over rows."""
    classes = student.shape[-1]
    log_p = F.log_softmax(student.reshape(-1, classes) / temperature, dim=1)
    log_q = F.log_softmax(teacher.reshape(-1, classes) / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return divergence * temperature**2
