"""Each formula against a plain rendering of its paper, in another way than the code's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.engine.distill.losses import correlated, decoupled, soft_divergence, squared_error


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def test_soft_divergence_is_the_scaled_mean_of_each_rows_divergence():
    """Golden: 16 * mean_n sum_c p log(p / q), p and q the softmax of logits / 4."""
    student, teacher = logits(0, 5, 7), logits(1, 5, 7)
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    by_hand = 16 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(soft_divergence(student, teacher, 4.0), by_hand)


def test_equal_outputs_are_apart_by_nothing():
    values, right = logits(0, 3, 4), torch.tensor([0, 3, 1])
    assert float(soft_divergence(values, values, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(decoupled(values, values, right, 4.0, 8.0)) == pytest.approx(0, abs=1e-5)
    assert float(correlated(values, values, 1.0, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(squared_error(values, values)) == 0


def test_gradients_keep_their_scale_over_temperatures():
    teacher = logits(1, 64, 10) * 0.1
    norms = []
    for temperature in (2.0, 8.0):
        student = (logits(0, 64, 10) * 0.1).requires_grad_()
        soft_divergence(student, teacher, temperature).backward()
        norms.append(float(student.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_sequences_count_every_position():
    student, teacher = logits(0, 2, 3, 5), logits(1, 2, 3, 5)
    flat = soft_divergence(student.reshape(6, 5), teacher.reshape(6, 5), 2.0)
    torch.testing.assert_close(soft_divergence(student, teacher, 2.0), flat)


def dkd_by_the_paper(
    student: Tensor, teacher: Tensor, targets: list[int], t: float, beta: float
) -> float:
    """Zhao et al. 2022, equation 7, one sample at a time, in double precision."""
    total = 0.0
    for z, w, right in zip(
        student.double().numpy(), teacher.double().numpy(), targets, strict=True
    ):
        p, q = softmax(w / t), softmax(z / t)
        target_part = kl(np.array([p[right], 1 - p[right]]), np.array([q[right], 1 - q[right]]))
        others = np.arange(len(z)) != right
        other_part = kl(softmax(w[others] / t), softmax(z[others] / t))
        total += target_part + beta * other_part
    return t**2 * total / len(targets)


@pytest.mark.parametrize(("temperature", "beta"), [(4.0, 8.0), (1.0, 0.5)])
def test_dkd_is_the_papers_formula(temperature, beta):
    student, teacher, right = logits(0, 6, 5), logits(1, 6, 5), [0, 4, 2, 2, 1, 3]
    wanted = dkd_by_the_paper(student, teacher, right, temperature, beta)
    found = decoupled(student, teacher, torch.tensor(right), temperature, beta)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_dkd_with_the_teachers_own_doubt_as_weights_is_plain_distillation():
    """Zhao et al. 2022, equation 6: KD = TCKD + (1 - p_t) NCKD, here of a single sample."""
    student, teacher, right = logits(0, 1, 6), logits(1, 1, 6), torch.tensor([2])
    doubt = 1 - float((teacher / 3).softmax(1)[0, 2])
    torch.testing.assert_close(
        decoupled(student, teacher, right, 3.0, doubt), soft_divergence(student, teacher, 3.0)
    )


def test_dkd_of_two_classes_by_hand():
    """p = (3/4, 1/4) against q = (1/2, 1/2): ln 3 * 3/4 - ln 2, the other class is alone."""
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = decoupled(student, teacher, torch.tensor([0]), 1.0, 8.0)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("temperature", "beta"), [(1.0, 1.0), (4.0, 2.0)])
def test_dist_is_one_minus_the_correlation_of_rows_and_of_columns(temperature, beta):
    student, teacher = logits(0, 8, 5), logits(1, 8, 5)
    p = np.stack([softmax(row / temperature) for row in student.double().numpy()])
    q = np.stack([softmax(row / temperature) for row in teacher.double().numpy()])
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    wanted = temperature**2 * (inter + beta * intra)
    assert float(correlated(student, teacher, temperature, beta)) == pytest.approx(wanted, rel=1e-4)


def test_dist_cares_for_the_pattern_and_not_for_the_scale():
    teacher = logits(1, 64, 10)
    same_pattern, other_pattern = teacher * 0.9, logits(2, 64, 10)
    near = float(correlated(same_pattern, teacher, 1.0, 1.0))
    assert near < 0.01 < float(correlated(other_pattern, teacher, 1.0, 1.0))


EXTREMES = (logits(3, 4, 5) * 1e4, torch.zeros(4, 5), torch.full((4, 5), -3e4))


@pytest.mark.parametrize("student", EXTREMES)
@pytest.mark.parametrize("teacher", EXTREMES)
@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: soft_divergence(s, t, 4.0),
        lambda s, t: decoupled(s, t, torch.tensor([0, 1, 2, 3]), 4.0, 8.0),
        lambda s, t: correlated(s, t, 1.0, 1.0),
        squared_error,
    ],
    ids=["kd", "dkd", "dist", "mse_logits"],
)
def test_losses_and_gradients_stay_finite_at_the_extremes(loss, student, teacher):
    given = student.clone().requires_grad_()
    value = loss(given, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(given.grad).all()


def test_one_row_alone_has_no_relations_within_a_class():
    given = logits(0, 1, 4).requires_grad_()
    correlated(given, logits(1, 1, 4), 1.0, 1.0).backward()
    assert torch.isfinite(given.grad).all()
