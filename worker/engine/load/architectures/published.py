"""Networks of transformers, from validated scalars and our own table of classes.

No file of a model hub is ever given to the library, and none of its loaders is called.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import nn

from planish.contract.architectures.encoders import EncoderConfig
from planish.contract.architectures.published import EMBEDDING, PublishedConfig, TextConfig
from planish.contract.errors import ArchitectureUnavailable, InvalidModel
from worker.engine.load.architectures.asked import Answer, Asked, first_answer, pooled

FLOOR = (5, 3)
"""Older versions have CVE-2026-4372 and CVE-2026-5241; neither is reachable here, and yet."""

_CONFIGS = {
    "bert": "BertConfig",
    "distilbert": "DistilBertConfig",
    "roberta": "RobertaConfig",
    "t5": "T5Config",
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "gpt2": "GPT2Config",
    "vit": "ViTConfig",
    "deit": "DeiTConfig",
}
_WITH_POOLER = ("BertModel", "RobertaModel", "ViTModel", "DeiTModel")
_NOT_THEIRS = {"head", "pooling", "normalize", "rope_parameters"}
_EAGER = ("t5",)
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def build_published(config: PublishedConfig) -> Asked:
    """Return the network of a config; its weights mean nothing yet.

    Raises:
        ArchitectureUnavailable: transformers is not installed, or too old.
    """
    library = _library()
    kind = config.published_name()
    values = config.model_dump(exclude=_NOT_THEIRS & set(type(config).model_fields))
    if hasattr(config, "rope_parameters"):
        values["rope_parameters"] = config.rope_parameters.model_dump(exclude_none=True)
        if values["head_dim"] is None:
            del values["head_dim"]
    if kind in ("llama", "qwen2", "gpt2"):
        values["use_cache"] = False
    attention = "eager" if kind in _EAGER else "sdpa"
    settings = getattr(library, _CONFIGS[kind])(**values, attn_implementation=attention)
    make: Callable[..., nn.Module] = getattr(library, config.class_name)
    bare = {"add_pooling_layer": False} if config.class_name in _WITH_POOLER else {}
    network = make(settings, **bare)
    network.tie_weights()  # type: ignore[operator]  # a method of theirs; skipped where undrawn
    return _asked(network, config)


@contextlib.contextmanager
def undrawn(library: str) -> Iterator[None]:
    """Leave out drawing weights that are overwritten anyway, where a library can."""
    if library != "transformers":
        yield
        return
    initialization = importlib.import_module(f"{_library().__name__}.initialization")
    with initialization.no_init_weights():
        yield


def _asked(network: nn.Module, config: PublishedConfig) -> Asked:
    names = [item.name for item in config.inputs()]
    if not isinstance(config, TextConfig):
        return Asked(network, first_answer, names)
    answer: Answer = first_answer
    if isinstance(config, EncoderConfig) and config.head_name == EMBEDDING:
        answer = pooled(config.pooling, config.normalize)
    return Asked(network, answer, names, config.longest())


def _library() -> ModuleType:
    os.environ.update(_OFFLINE)
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        raise ArchitectureUnavailable(
            "this worker has no transformers; install planish[transformers] on it, or send a .pt2"
        ) from None
    version = tuple(int(part) for part in library.__version__.split(".")[:2])
    if version < FLOOR:
        raise ArchitectureUnavailable(
            f"this worker has transformers {library.__version__}; {FLOOR[0]}.{FLOOR[1]} or "
            "later is needed"
        )
    return library


def check_size(network: nn.Module, most: int) -> None:
    """Refuse a network that nobody's weights bound; raises `InvalidModel`."""
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > most:
        raise InvalidModel(f"the network has {count} weights; at most {most} are drawn at random")


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network that knows its shapes and has no memory."""
    with torch.device("meta"):
        return build()
