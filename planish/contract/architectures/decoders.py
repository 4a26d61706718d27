"""Decoders of text: Llama, Qwen2 and GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planish.contract.architectures.published import (
    BASE,
    CAUSAL_LM,
    IDS,
    Activation,
    Dropout,
    Epsilon,
    Heads,
    Inner,
    Layers,
    Positions,
    TextConfig,
    Vocabulary,
    Width,
)

Head = Literal["base", "causal_lm"]
Theta = Annotated[float, Field(gt=1, le=1e9, description="Base of the rotary angles.")]
Factor = Annotated[float, Field(gt=0, le=1024)]


class Rope(BaseModel):
    """Rotary positions. `linear` stretches all by `factor`; `llama3` only the slow ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    rope_type: Literal["default", "linear", "llama3"] = "default"
    rope_theta: Theta = 10_000.0
    factor: Factor | None = None
    low_freq_factor: Factor | None = None
    high_freq_factor: Factor | None = None
    original_max_position_embeddings: Positions | None = None

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Self:
        wanted: dict[str, tuple[str, ...]] = {
            "default": (),
            "linear": ("factor",),
            "llama3": (
                "factor",
                "low_freq_factor",
                "high_freq_factor",
                "original_max_position_embeddings",
            ),
        }
        missing = [name for name in wanted[self.rope_type] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"rope_type {self.rope_type!r} needs {', '.join(missing)}")
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise ValueError("low_freq_factor must be below high_freq_factor")
        return self


class DecoderConfig(TextConfig):
    """Base of decoders: token ids in, a mask where the data is padded."""

    usual: ClassVar[tuple[str, ...]] = (IDS,)

    head: Head = "causal_lm"


class Llama(DecoderConfig):
    """Llama: pre-norm decoder with rotary positions, gated MLP and grouped-query attention."""

    architecture: ClassVar[str] = "llama"
    source: ClassVar[str] = "Touvron et al. 2023, arXiv:2302.13971; arXiv:2307.09288"
    classes: ClassVar[Mapping[str, str]] = {BASE: "LlamaModel", CAUSAL_LM: "LlamaForCausalLM"}

    vocab_size: Vocabulary = 32_000
    hidden_size: Width = 4096
    intermediate_size: Inner = 11_008
    num_hidden_layers: Layers = 32
    num_attention_heads: Heads = 32
    num_key_value_heads: Heads | None = None
    head_dim: int | None = Field(None, ge=2, le=1024, multiple_of=2)
    hidden_act: Activation = "silu"
    max_position_embeddings: Positions = 2048
    rms_norm_eps: Epsilon = 1e-6
    rope_parameters: Rope = Rope()
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: Dropout = 0.0
    tie_word_embeddings: bool = False

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        heads, grouped = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {heads}"
            )
        if grouped is not None and heads % grouped:
            raise ValueError(f"num_attention_heads {heads} is no multiple of {grouped} key heads")
        if self.head_dim is None and self.hidden_size // heads % 2:
            raise ValueError("rotary positions need heads of an even width")
        return self

    def width(self) -> int:
        """Return `hidden_size`."""
        return self.hidden_size


class Qwen2(Llama):
    """Qwen2: Llama with biases on queries, keys and values; without sliding windows."""

    architecture: ClassVar[str] = "qwen2"
    source: ClassVar[str] = "Yang et al. 2024, arXiv:2407.10671"
    classes: ClassVar[Mapping[str, str]] = {BASE: "Qwen2Model", CAUSAL_LM: "Qwen2ForCausalLM"}

    vocab_size: Vocabulary = 151_936
    intermediate_size: Inner = 22_016
    num_key_value_heads: Heads | None = 32
    max_position_embeddings: Positions = 32_768
    attention_bias: Literal[True] = True
    mlp_bias: Literal[False] = False


class Gpt2(DecoderConfig):
    """GPT-2: pre-norm decoder with learnt positions."""

    architecture: ClassVar[str] = "gpt2"
    source: ClassVar[str] = (
        "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"
    )
    classes: ClassVar[Mapping[str, str]] = {BASE: "GPT2Model", CAUSAL_LM: "GPT2LMHeadModel"}

    vocab_size: Vocabulary = 50_257
    n_positions: Positions = 1024
    n_embd: Width = 768
    n_layer: Layers = 12
    n_head: Heads = 12
    n_inner: Inner | None = None
    activation_function: Activation = "gelu_new"
    resid_pdrop: Dropout = 0.1
    embd_pdrop: Dropout = 0.1
    attn_pdrop: Dropout = 0.1
    layer_norm_epsilon: Epsilon = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is no multiple of n_head {self.n_head}")
        return self

    def longest(self) -> int | None:
        """Return the number of learnt positions."""
        return self.n_positions

    def width(self) -> int:
        """Return `n_embd`."""
        return self.n_embd


DECODERS = (Llama, Qwen2, Gpt2)
