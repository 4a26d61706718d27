"""The named files of one role: which names they may have, and which of them only ride along."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PARTS = 128
"""Files of one role at most."""

PART_NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$"
_PART_NAME = re.compile(PART_NAME_PATTERN.removesuffix("$") + r"\Z")

CONFIG = "config.json"
"""The companion that names the architecture of a Hugging Face folder."""

INDEX_SUFFIX = ".safetensors.index.json"
"""How the file ends that says which shard holds which tensor."""

RIDERS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "CITATION.cff",
)
"""Companions by name: no loader reads them; they go into the result as they came."""

_TEXTS = re.compile(r"(LICEN[CS]E|NOTICE|README|MODEL_CARD|USE_POLICY)[A-Za-z0-9_-]*(\.(md|txt))?")


def is_part_name(name: str) -> bool:
    """Tell whether a file of an upload may be called so."""
    return _PART_NAME.match(name) is not None


def is_rider(name: str) -> bool:
    """Tell whether a file is a companion: tokenizer, config, licence, readme."""
    return name in RIDERS or _TEXTS.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Tell whether a file says which shard holds which tensor."""
    return name.endswith(INDEX_SUFFIX)


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice, regardless of case: some disks do not tell."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None
