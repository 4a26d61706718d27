"""How far a student's outputs are from its teacher's: one function for each way to count it.

All take logits of both, (rows, classes), and give a scalar: a mean over rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-8


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T² * KL(softmax(teacher / T) || softmax(student / T))``.

    T² keeps the gradients in scale (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Args:
        student: (..., classes); every leading position is a row.
        teacher: of the same shape.
        temperature: T.
    """
    classes = student.shape[-1]
    log_p = F.log_softmax(student.reshape(-1, classes) / temperature, dim=1)
    log_q = F.log_softmax(teacher.reshape(-1, classes) / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def decoupled(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, beta: float
) -> Tensor:
    """Return ``T² * (TCKD + beta * NCKD)`` (Zhao et al. 2022, arXiv:2203.08679, section 3.3).

    TCKD is the divergence of two events, the right class and all others; NCKD that of the other
    classes among themselves. In plain distillation NCKD weighs the less, the surer the teacher is.

    Args:
        student: (rows, classes), at least two classes.
        teacher: of the same shape.
        targets: the right class of each row, int64.
        temperature: T.
        beta: weight of the other classes; the paper's 8 for CIFAR.
    """
    right = F.one_hot(targets, student.shape[1]).bool()
    own, others = _parted(student / temperature, right)
    wanted, their_others = _parted(teacher / temperature, right)
    sure, unsure = F.logsigmoid(wanted), F.logsigmoid(-wanted)
    target_part = sure.exp() * (sure - F.logsigmoid(own))
    other_part = unsure.exp() * (unsure - F.logsigmoid(-own))
    return temperature**2 * (target_part + other_part).mean() + beta * soft_divergence(
        others * temperature, their_others * temperature, temperature
    )


def correlated(student: Tensor, teacher: Tensor, temperature: float, beta: float) -> Tensor:
    """Return ``T² * (inter + beta * intra)`` (Huang et al. 2022, arXiv:2205.10536, section 3.2).

    inter is one minus the Pearson correlation of the classes' probabilities, a mean over rows;
    intra is the same of the rows' probabilities, a mean over classes.

    Args:
        student: (rows, classes).
        teacher: of the same shape.
        temperature: T.
        beta: weight of the relations within a class.
    """
    p, q = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    apart = _uncorrelated(p, q) + beta * _uncorrelated(p.T, q.T)
    return temperature**2 * apart


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error (Ba and Caruana 2014, arXiv:1312.6184, section 3.2)."""
    return F.mse_loss(student, teacher)


def _parted(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log odds of the right class, (rows,), and the others' logits, (rows, C - 1)."""
    others = logits[~right].reshape(len(logits), -1)
    return logits[right] - torch.logsumexp(others, 1), others


def _uncorrelated(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - Pearson's correlation of rows; a row without any spread correlates with none."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return 1 - F.cosine_similarity(a, b, dim=1, eps=EPSILON).mean()
