"""Names of published weights: prefixes that come and go, old spellings, other heads' weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from planish.contract.errors import StateDictMismatch

PREFIXES = {
    "bert": "bert",
    "distilbert": "distilbert",
    "roberta": "roberta",
    "t5": "transformer",
    "llama": "model",
    "qwen2": "model",
    "gpt2": "transformer",
    "vit": "vit",
    "deit": "deit",
}
"""What stands before the names of the body where a network has a head."""

_SPARE = re.compile(
    r"(?:^|\.)(?:position_ids|token_type_ids|inv_freq|masked_bias)$"
    r"|\.attn\.bias$"
    r"|^(?:\w+\.)?(?:cls|classifier|pre_classifier|qa_outputs|lm_head|score|pooler|decoder"
    r"|vocab_transform|vocab_layer_norm|vocab_projector|cls_classifier|distillation_classifier"
    r"|seq_relationship)\."
)
"""Buffers that are computed, and heads other than the one that was asked for."""

_OLDER = (
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
    (
        re.compile(r"\bencoder\.layer\.(\d+)\.attention\.attention\.query\."),
        r"layers.\1.attention.q_proj.",
    ),
    (
        re.compile(r"\bencoder\.layer\.(\d+)\.attention\.attention\.key\."),
        r"layers.\1.attention.k_proj.",
    ),
    (
        re.compile(r"\bencoder\.layer\.(\d+)\.attention\.attention\.value\."),
        r"layers.\1.attention.v_proj.",
    ),
    (
        re.compile(r"\bencoder\.layer\.(\d+)\.attention\.output\.dense\."),
        r"layers.\1.attention.o_proj.",
    ),
    (re.compile(r"\bencoder\.layer\.(\d+)\.intermediate\.dense\."), r"layers.\1.mlp.fc1."),
    (re.compile(r"\bencoder\.layer\.(\d+)\.output\.dense\."), r"layers.\1.mlp.fc2."),
    (re.compile(r"\bencoder\.layer\.(\d+)\.layernorm_"), r"layers.\1.layernorm_"),
)
"""Spellings of files that versions of transformers rename while they load."""


def network_names(kind: str, found: Iterable[str], wanted: Iterable[str]) -> Mapping[str, str]:
    """Return what the network calls the weights of a file; spare ones are left out.

    Args:
        kind: type of transformers.
        found: names in the file.
        wanted: names in the network.

    Raises:
        StateDictMismatch: two weights of the file are one of the network.
    """
    known = set(wanted)
    names: dict[str, str] = {}
    for name in found:
        fits = next((way for way in _spellings(name, PREFIXES[kind]) if way in known), None)
        if fits is not None:
            names[name] = fits
        elif not _SPARE.search(name):
            names[name] = name
    for one, other in _twins(names):
        raise StateDictMismatch(f"{one!r} and {other!r} of the file are one weight of the network")
    return names


def _spellings(name: str, prefix: str) -> Iterator[str]:
    for plain in (name, _newer(name)):
        yield plain
        yield f"{prefix}.{plain}"
        yield plain.removeprefix(f"{prefix}.")


def _newer(name: str) -> str:
    for pattern, replacement in _OLDER:
        name = pattern.sub(replacement, name)
    return name


def _twins(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name, own in names.items():
        if own in seen:
            yield seen[own], name
        seen[own] = name
