"""How tokens relate within attention (Wang et al. 2020, MiniLMv2, arXiv:2012.15828, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.engine.distill.taps import tapped
from worker.engine.load.attention import Attention
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of

BATCH = 2
PARTS = ("queries", "keys", "values")


@dataclass(frozen=True)
class LastAttention:
    """The last attention of a network.

    Attributes:
        name: of its layer.
        widths: of queries, keys and values: heads times the width of a head.
        heads: of the queries.
        length: of the queries' and the keys' sequence.
    """

    name: str
    widths: tuple[int, int, int]
    heads: int
    length: tuple[int, int]


def last_attention(model: Model) -> LastAttention | None:
    """Return the last attention of self-attention's form, None when a network has none."""
    module = model.module
    names = [
        str(node.target)
        for node in module.graph.nodes
        if isinstance(layer_of(module, node), Attention)
    ]
    with torch.no_grad(), tapped(module, names) as taps:
        module(*model.example(BATCH))
        for name in reversed(names):
            taken = [tuple(tensor.shape) for tensor in taps.taken[name][:3]]
            if all(len(shape) == 4 and shape[0] == BATCH for shape in taken):
                q, k, v = taken
                widths = (q[1] * q[3], k[1] * k[3], v[1] * v[3])
                return LastAttention(name, widths, q[1], (q[2], k[2]))
    return None


def relation_heads(student: LastAttention, teacher: LastAttention) -> tuple[int, int, int]:
    """Return into how many heads queries, keys and values of both are divided.

    The most that divide both widths, at most the heads of the network that has more: relations of
    different widths become comparable, which heads as they are would not be.
    """
    most = max(student.heads, teacher.heads)
    common = (math.gcd(a, b) for a, b in zip(student.widths, teacher.widths, strict=True))
    q, k, v = (max(d for d in range(1, most + 1) if c % d == 0) for c in common)
    return q, k, v


def relation_divergence(
    student: tuple[Tensor, ...],
    teacher: tuple[Tensor, ...],
    heads: tuple[int, int, int],
    counted: Tensor | None,
) -> Tensor:
    """Return the divergences of the relations of queries, keys and values, added up.

    A relation is ``softmax(X Xᵀ / sqrt(d))`` with X of width d in each relation head; the
    divergence is ``KL(teacher || student)``, a mean over heads and tokens.

    Args:
        student: queries, keys and values, (N, heads, S, width) each.
        teacher: likewise, with the same N and S.
        heads: relation heads of each.
        counted: (N, S), false for padding; None counts all tokens.
    """
    parts = zip(student, teacher, heads, strict=True)
    return torch.stack([_divergence(a, b, count, counted) for a, b, count in parts]).sum()


def _divergence(student: Tensor, teacher: Tensor, heads: int, counted: Tensor | None) -> Tensor:
    if counted is not None and counted.shape[1] != student.shape[2]:
        counted = None  # the mask is of another sequence
    ours = _log_relation(student, heads, counted)
    theirs = _log_relation(teacher, heads, counted)
    by_token = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean(1)
    if counted is None:
        return by_token.mean()
    return (by_token * counted).sum() / counted.sum().clamp(min=1)


def _log_relation(x: Tensor, heads: int, counted: Tensor | None) -> Tensor:
    """Return (N, relation heads, S, S) log probabilities of (N, heads, S, width)."""
    joined = x.float().transpose(1, 2).flatten(2)
    split = joined.reshape(*joined.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
    if counted is not None:
        # The least float in place of -inf: a row of padding alone stays finite.
        scores = scores.masked_fill(~counted[:, None, None], torch.finfo(scores.dtype).min)
    return F.log_softmax(scores, -1)
