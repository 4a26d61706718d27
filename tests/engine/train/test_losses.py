from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.engine.passes.models import zoo_model
from worker.engine.model import first_output
from worker.engine.train.losses import KnowledgeDistillation, cross_entropy, soft_divergence


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_soft_divergence_is_the_scaled_mean_of_each_rows_divergence():
    """Golden: 16 * mean_n sum_c p log(p / q), p and q the softmax of logits / 4."""
    student, teacher = logits(0, 5, 7), logits(1, 5, 7)
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    by_hand = 16 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(soft_divergence(student, teacher, 4.0), by_hand)


def test_equal_outputs_diverge_by_nothing():
    values = logits(0, 3, 4)
    assert float(soft_divergence(values, values, 2.0)) == pytest.approx(0, abs=1e-6)


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


def test_alpha_mixes_teacher_and_labels():
    model = zoo_model("mlp")
    inputs = model.example(8)
    labels = torch.arange(8)
    student = logits(0, 8, 10)
    with torch.no_grad():
        teacher = first_output(model.module(*inputs))
    loss = KnowledgeDistillation(model.module, 4.0, 0.7)(student, inputs, labels)
    wanted = 0.7 * soft_divergence(student, teacher, 4.0) + 0.3 * F.cross_entropy(student, labels)
    torch.testing.assert_close(loss, wanted)


def test_alpha_one_needs_no_labels():
    model = zoo_model("mlp")
    inputs = model.example(8)
    assert torch.isfinite(
        KnowledgeDistillation(model.module, 1.0, 1.0)(logits(0, 8, 10), inputs, None)
    )


def test_cross_entropy_without_labels_is_refused():
    with pytest.raises(ValueError, match="labels"):
        cross_entropy(logits(0, 2, 3), (), None)
