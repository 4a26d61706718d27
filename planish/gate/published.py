"""The ``config.json`` of a Hugging Face folder in the place of an architecture in the spec."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pydantic import JsonValue

from planish.contract.architectures.config_json import OURS, read_config
from planish.contract.architectures.find import CLASSES, PUBLISHED
from planish.contract.architectures.published import TRANSFORMERS
from planish.contract.errors import InvalidModel
from planish.contract.spec import ModelSpec
from planish.gate.document import parse
from planish.gate.parts import ModelFiles

MAX_CONFIG = 4 << 20
"""Bytes of a ``config.json``; one of 21,000 classes has a tenth of it."""


def with_architecture(spec: ModelSpec, files: ModelFiles) -> ModelSpec:
    """Return the spec with the architecture that the uploaded ``config.json`` describes.

    It counts where the spec names no architecture, or one of transformers without a config of its
    own; a config of nothing but head and pooling is laid over it.

    Raises:
        InvalidModel: the file is no JSON object.
        UnsafeModel, UnknownArchitecture: see `read_config`.
    """
    wanted = spec.architecture
    if files.config is None:
        return spec
    if wanted is None:
        document = _read(files.config)
        if "model_type" not in document:
            return spec
        return spec.model_copy(update={"architecture": read_config(document)})
    named = wanted.library == TRANSFORMERS and wanted.name in {*PUBLISHED, *CLASSES}
    if not named or not set(wanted.config or {}) <= set(OURS):
        return spec
    if wanted.config is not None and not wanted.config:
        return spec
    return spec.model_copy(update={"architecture": read_config(_read(files.config), wanted)})


def _read(path: Path) -> dict[str, JsonValue]:
    if (size := path.stat().st_size) > MAX_CONFIG:
        raise InvalidModel(f"config.json has {size} bytes; at most {MAX_CONFIG} are taken")
    root = parse(path.read_bytes(), "config.json").raw
    if not isinstance(root, dict):
        raise InvalidModel("config.json is no object")
    return cast("dict[str, JsonValue]", root)
