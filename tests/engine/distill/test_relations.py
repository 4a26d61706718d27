from __future__ import annotations

import math

import pytest
import torch

from tests import zoo
from tests.engine.passes.models import canonical, zoo_model
from worker.engine.distill.relations import (
    LastAttention,
    last_attention,
    relation_divergence,
    relation_heads,
)


def heads_of(seed: int, *shape: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator) for _ in range(3))


def by_the_paper(student: torch.Tensor, teacher: torch.Tensor, heads: int) -> float:
    """Wang et al. 2020, equations 5 and 6, token by token."""
    total = 0.0
    batch, _, length, _ = student.shape
    for n in range(batch):
        for head in range(heads):
            rows = []
            for x in (student, teacher):
                joined = x[n].transpose(0, 1).reshape(length, -1)
                width = joined.shape[1] // heads
                own = joined[:, head * width : (head + 1) * width].double()
                rows.append((own @ own.T / math.sqrt(width)).softmax(1))
            total += float((rows[1] * (rows[1] / rows[0]).log()).sum())
    return total / (batch * heads * length)


def test_the_divergence_is_the_papers():
    student, teacher = heads_of(0, 2, 2, 5, 6), heads_of(1, 2, 4, 5, 3)
    wanted = sum(by_the_paper(a, b, 4) for a, b in zip(student, teacher, strict=True))
    found = relation_divergence(student, teacher, (4, 4, 4), None)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_equal_relations_of_other_widths_are_apart_by_nothing():
    """Twice the same vectors, divided by the root of two, have the same products per width."""
    student = heads_of(0, 2, 1, 5, 4)
    teacher = tuple(torch.cat([x, x], -1) / 2**0.25 for x in student)
    assert float(relation_divergence(student, teacher, (1, 1, 1), None)) == pytest.approx(
        0, abs=1e-6
    )


def test_padding_neither_counts_nor_is_looked_at():
    student, teacher = heads_of(0, 1, 2, 6, 4), heads_of(1, 1, 2, 6, 4)
    counted = torch.tensor([[True] * 4 + [False] * 2])
    short = relation_divergence(
        tuple(x[:, :, :4] for x in student), tuple(x[:, :, :4] for x in teacher), (2, 2, 2), None
    )
    whole = relation_divergence(student, teacher, (2, 2, 2), counted)
    torch.testing.assert_close(whole, short)


def test_a_sample_of_padding_alone_leaves_gradients_finite():
    student = tuple(x.requires_grad_() for x in heads_of(0, 2, 2, 3, 4))
    counted = torch.tensor([[True, True, False], [False, False, False]])
    relation_divergence(student, heads_of(1, 2, 2, 3, 4), (2, 2, 2), counted).backward()
    assert all(torch.isfinite(x.grad).all() for x in student)


def test_relation_heads_divide_both_widths():
    one = LastAttention("a", (24, 24, 24), 4, (5, 5))
    other = LastAttention("b", (36, 12, 12), 6, (5, 5))
    assert relation_heads(one, other) == (6, 6, 6)
    assert relation_heads(one, LastAttention("c", (35, 35, 35), 5, (5, 5))) == (1, 1, 1)


def test_the_last_attention_of_a_transformer_is_found():
    found = last_attention(canonical(*zoo.tiny_transformer(width=24, heads=3)))
    assert found is not None
    assert found.widths == (24, 24, 24)
    assert (found.heads, found.length) == (3, (12, 12))


def test_a_network_without_attention_has_none():
    assert last_attention(zoo_model("small_residual_cnn")) is None
