"""Small transformers as users write them: a vision transformer, a BERT-type and a llama-type net.

As in `tests.zoo`: seeded weights, each function returns (module, example) with a batch of 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import EncoderBlock, Net, seeded


class VisionTransformer(nn.Module):
    """Patches by a strided convolution, a class token, learnt positions, pre-norm blocks."""

    def __init__(self, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (N, classes), of images (N, 1, 8, 8)."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def tiny_vit(width: int = 32, depth: int = 4, heads: int = 2, classes: int = 10) -> Net:
    """Vision transformer; input (N, 1, 8, 8)."""
    return seeded(lambda: VisionTransformer(width, depth, heads, classes), (2, 1, 8, 8))


class BertBlock(nn.Module):
    """A post-norm block with a padding mask, as in BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, T, width); `mask` is (N, 1, 1, T), False where padding is."""
        q, k, v = (
            layer(x).view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, mask)
        x = self.norm1(x + self.dense(y.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """Word and position embeddings, blocks, and a class from the first position."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.register_buffer("position_ids", torch.arange(length)[None], persistent=False)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(BertBlock(width, 2) for _ in range(depth))
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, (N, classes), of int64 ids and mask, both (N, length)."""
        x = self.norm(self.words(input_ids) + self.positions(self.position_ids))
        mask = attention_mask[:, None, None, :] > 0
        for block in self.blocks:
            x = block(x, mask)
        return self.classifier(x[:, 0])


def tiny_bert(
    vocabulary: int = 40, length: int = 12, width: int = 32, depth: int = 3, classes: int = 4
) -> Net:
    """BERT-type classifier; inputs ``input_ids`` and ``attention_mask`` (N, length) int64."""
    module, _ = seeded(lambda: Bert(vocabulary, length, width, depth, classes))
    ids = torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return module, (ids, mask)


class RmsNorm(nn.Module):
    """Root mean square normalization, spelt out as model code does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, width)."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class LlamaBlock(nn.Module):
    """Rotary causal attention with half as many key heads, and a gated MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width // 2, bias=False)
        self.v_proj = nn.Linear(width, width // 2, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, 2 * width, bias=False)
        self.up_proj = nn.Linear(width, 2 * width, bias=False)
        self.down_proj = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return (N, T, width); `cos` and `sin` are (T, width of a head)."""
        y = self.norm1(x)
        q = _rotate(_heads(self.q_proj(y), self.heads), cos, sin)
        k = _rotate(_heads(self.k_proj(y), self.heads // 2), cos, sin)
        v = _heads(self.v_proj(y), self.heads // 2)
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


class Llama(nn.Module):
    """Embedding, blocks, norm, and an output layer tied to the embedding."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaBlock(width, heads) for _ in range(depth))
        self.norm = RmsNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.embed.weight
        self.head_width = width // heads

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits, (N, T, vocabulary), of int64 ids (N, T)."""
        steps = torch.arange(0, self.head_width, 2) / self.head_width
        angles = torch.outer(torch.arange(input_ids.shape[1]), 1.0 / 10000.0**steps)
        angles = torch.cat([angles, angles], -1)
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.lm_head(self.norm(x))


def tiny_llama(vocabulary: int = 48, width: int = 32, depth: int = 3, heads: int = 4) -> Net:
    """Llama-type language model; input ``input_ids`` (N, 10) int64."""
    module, _ = seeded(lambda: Llama(vocabulary, width, depth, heads))
    ids = torch.randint(0, vocabulary, (2, 10), generator=torch.Generator().manual_seed(0))
    return module, (ids,)
