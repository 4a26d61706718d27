"""Encoders of text: BERT, MiniLM, DistilBERT, RoBERTa and the encoder of T5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from planish.contract.architectures.base import Classes
from planish.contract.architectures.published import (
    BASE,
    EMBEDDING,
    MASKED_LM,
    SEQUENCE_CLASSES,
    TOKEN_CLASSES,
    TYPES,
    Activation,
    Dropout,
    Epsilon,
    Heads,
    Inner,
    Layers,
    Positions,
    TextConfig,
    Token,
    Vocabulary,
    Width,
)

Head = Literal["base", "embedding", "sequence_classification", "token_classification", "masked_lm"]
Pooling = Literal["mean", "cls"]


class EncoderConfig(TextConfig):
    """Base of encoders that can end in one embedding of the text."""

    num_labels: Classes = 2
    pooling: Pooling = Field(
        "mean", description="Of the head `embedding`: mean under the mask, or the first token."
    )
    normalize: bool = Field(True, description="Of the head `embedding`: to length 1.")


class Bert(EncoderConfig):
    """BERT: bidirectional transformer encoder with learnt positions."""

    architecture: ClassVar[str] = "bert"
    source: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805"
    classes: ClassVar[Mapping[str, str]] = {
        BASE: "BertModel",
        EMBEDDING: "BertModel",
        SEQUENCE_CLASSES: "BertForSequenceClassification",
        TOKEN_CLASSES: "BertForTokenClassification",
        MASKED_LM: "BertForMaskedLM",
    }
    also: ClassVar[Mapping[str, str]] = {"BertForPreTraining": MASKED_LM}
    optional: ClassVar[tuple[str, ...]] = (TYPES,)

    head: Head = "base"
    vocab_size: Vocabulary = 30_522
    hidden_size: Width = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Heads = 12
    intermediate_size: Inner = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Dropout = 0.1
    attention_probs_dropout_prob: Dropout = 0.1
    classifier_dropout: Dropout | None = None
    max_position_embeddings: Positions = 512
    type_vocab_size: int = Field(2, ge=1, le=1024, description="Kinds of segments.")
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: Token | None = 0
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ValueError("pad_token_id lies outside of the vocabulary")
        return self

    def longest(self) -> int | None:
        """Return the number of learnt positions."""
        return self.max_position_embeddings

    def width(self) -> int:
        """Return `hidden_size`."""
        return self.hidden_size


class MiniLm(Bert):
    """MiniLM: a BERT of 384 wide layers, usually asked for one embedding of the text."""

    architecture: ClassVar[str] = "minilm"
    source: ClassVar[str] = "Wang et al. 2020, arXiv:2002.10957; Reimers 2019, arXiv:1908.10084"

    head: Head = "embedding"
    hidden_size: Width = 384
    num_hidden_layers: Layers = 6
    intermediate_size: Inner = 1536


class Roberta(Bert):
    """RoBERTa: BERT trained longer; positions count from behind `pad_token_id`."""

    architecture: ClassVar[str] = "roberta"
    source: ClassVar[str] = "Liu et al. 2019, arXiv:1907.11692"
    classes: ClassVar[Mapping[str, str]] = {
        BASE: "RobertaModel",
        EMBEDDING: "RobertaModel",
        SEQUENCE_CLASSES: "RobertaForSequenceClassification",
        TOKEN_CLASSES: "RobertaForTokenClassification",
        MASKED_LM: "RobertaForMaskedLM",
    }
    also: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()

    vocab_size: Vocabulary = 50_265
    pad_token_id: Token = 1

    @model_validator(mode="after")
    def _has_positions(self) -> Self:
        if self.max_position_embeddings <= self.pad_token_id + 2:
            raise ValueError("max_position_embeddings leaves no positions behind pad_token_id")
        return self

    def longest(self) -> int | None:
        """Return the learnt positions behind the padding's."""
        return self.max_position_embeddings - self.pad_token_id - 1


class DistilBert(EncoderConfig):
    """DistilBERT: half of BERT's layers, without segments and pooler."""

    architecture: ClassVar[str] = "distilbert"
    source: ClassVar[str] = "Sanh et al. 2019, arXiv:1910.01108"
    classes: ClassVar[Mapping[str, str]] = {
        BASE: "DistilBertModel",
        EMBEDDING: "DistilBertModel",
        SEQUENCE_CLASSES: "DistilBertForSequenceClassification",
        TOKEN_CLASSES: "DistilBertForTokenClassification",
        MASKED_LM: "DistilBertForMaskedLM",
    }

    head: Head = "base"
    vocab_size: Vocabulary = 30_522
    dim: Width = 768
    n_layers: Layers = 6
    n_heads: Heads = 12
    hidden_dim: Inner = 3072
    activation: Activation = "gelu"
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    seq_classif_dropout: Dropout = 0.2
    max_position_embeddings: Positions = 512
    pad_token_id: Token | None = 0
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is no multiple of n_heads {self.n_heads}")
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ValueError("pad_token_id lies outside of the vocabulary")
        return self

    def longest(self) -> int | None:
        """Return the number of learnt positions."""
        return self.max_position_embeddings

    def width(self) -> int:
        """Return `dim`."""
        return self.dim


class T5Encoder(EncoderConfig):
    """The encoder of T5, with relative positions; a whole T5's other weights are left out."""

    architecture: ClassVar[str] = "t5"
    source: ClassVar[str] = "Raffel et al. 2020, arXiv:1910.10683"
    classes: ClassVar[Mapping[str, str]] = {BASE: "T5EncoderModel", EMBEDDING: "T5EncoderModel"}
    also: ClassVar[Mapping[str, str]] = {
        "T5ForConditionalGeneration": BASE,
        "T5Model": BASE,
        "T5WithLMHeadModel": BASE,
    }

    head: Literal["base", "embedding"] = "base"
    vocab_size: Vocabulary = 32_128
    d_model: Width = 512
    d_kv: int = Field(64, ge=1, le=1024, description="Width of a head.")
    d_ff: Inner = 2048
    num_layers: Layers = 6
    num_heads: Heads = 8
    relative_attention_num_buckets: int = Field(32, ge=4, le=1024)
    relative_attention_max_distance: int = Field(128, ge=2, le=65_536)
    dropout_rate: Dropout = 0.1
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu", "gated-silu", "gelu"] = "relu"
    pad_token_id: Token | None = 0

    def width(self) -> int:
        """Return `d_model`."""
        return self.d_model


ENCODERS = (Bert, MiniLm, DistilBert, Roberta, T5Encoder)
