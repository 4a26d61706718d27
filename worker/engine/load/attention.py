"""Scaled dot-product attention as a layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """``softmax(q kᵀ · scale + mask) v``, whose dropout obeys `train` and `eval`.

    Exports bake the dropout of their mode into the call; this takes it out again.
    Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.

    Args:
        dropout: probability of dropping an attention weight while training.
        causal: whether a position sees only those before it.
        scale: None for ``1 / sqrt(width of a head)``.
        grouped: whether keys and values have fewer heads than queries.
    """

    def __init__(self, dropout: float, causal: bool, scale: float | None, grouped: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.causal = causal
        self.scale = scale
        self.grouped = grouped

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N, heads, T, width) of q, k, v of that form; `mask` fits (N, heads, T, S)."""
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            self.dropout if self.training else 0.0,
            self.causal,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
