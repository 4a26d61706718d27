"""From the name of an architecture to its checked config."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import JsonValue, ValidationError

from planish.contract.architectures.base import OWN_LIBRARY, ArchitectureConfig, ArchitectureEntry
from planish.contract.architectures.decoders import DECODERS
from planish.contract.architectures.encoders import ENCODERS
from planish.contract.architectures.own import OWN
from planish.contract.architectures.plugins import plugins
from planish.contract.architectures.published import TRANSFORMERS, PublishedConfig
from planish.contract.architectures.vision import VISION
from planish.contract.architectures.zoo import TIMM, TORCHVISION, ZOO, named
from planish.contract.errors import UnknownArchitecture
from planish.contract.problem import FieldError
from planish.contract.spec import Architecture
from planish.contract.validation import field_errors

ARCHITECTURES = tuple(ArchitectureEntry(OWN_LIBRARY, config.architecture, config) for config in OWN)
"""Planish's own."""

PUBLISHED: Mapping[str, type[PublishedConfig]] = {
    config.architecture: config for config in (*ENCODERS, *DECODERS, *VISION)
}
"""The types of transformers, by the name that a ``config.json`` calls `model_type`."""

CLASSES: Mapping[str, tuple[type[PublishedConfig], str]] = {
    name: (config, head)
    for config in reversed(tuple(PUBLISHED.values()))
    for name, head in config.heads().items()
}
"""Type and head of each class of transformers."""


def all_architectures() -> tuple[ArchitectureEntry, ...]:
    """Return every architecture: Planish's own, transformers, timm, torchvision, plugins."""
    published = (
        ArchitectureEntry(TRANSFORMERS, name, config, TRANSFORMERS, f"planish[{TRANSFORMERS}]")
        for name, config in PUBLISHED.items()
    )
    zoo = (
        ArchitectureEntry(
            config.library,
            config.architecture,
            config,
            config.library,
            f"planish[{config.library}]",
        )
        for config in ZOO
    )
    added = (
        ArchitectureEntry(library, name, config, network.partition(":")[0])
        for library, plugin in plugins().items()
        for name, (config, network) in plugin.architectures.items()
    )
    return (*ARCHITECTURES, *published, *zoo, *added)


def find_architecture(wanted: Architecture, part: str = "model") -> ArchitectureConfig:
    """Return the checked config of a named architecture.

    Args:
        wanted: as the spec says it; a config of null is that of the defaults.
        part: the part of the spec that it stands in, for the pointers of errors.

    Raises:
        UnknownArchitecture: no such library or name (the nearest is named), or a config key or
            value that it does not take.
    """
    place = f"/{part}/architecture"
    config, given = _config_class(wanted, place)
    try:
        return config.model_validate(given)
    except ValidationError as error:
        errors = tuple(
            FieldError(pointer=f"{place}/config{e.pointer}", detail=e.detail)
            for e in field_errors(error, config)
        )
        detail = "; ".join(f"{e.pointer.rpartition('/')[2]}: {e.detail}" for e in errors[:5])
        raise UnknownArchitecture(f"{wanted.name}: {detail}", errors) from None


def _config_class(
    wanted: Architecture, place: str
) -> tuple[type[ArchitectureConfig], dict[str, JsonValue]]:
    """Return the class of a config, and what it is to check; the name of a class is a head too."""
    given = dict(wanted.config or {})
    if wanted.library == TRANSFORMERS:
        if wanted.name in CLASSES:
            published, head = CLASSES[wanted.name]
            return published, {"head": head, **given}
        return _pick(wanted.name, PUBLISHED, place), given
    if wanted.library in (TIMM, TORCHVISION):
        zoo = next(config for config in ZOO if config.library == wanted.library)
        found = named(zoo, wanted.name)
        if found is None:
            raise _unknown_name(wanted.name, (), place, f"names match {zoo.architecture}")
        return found, given
    if wanted.library == OWN_LIBRARY:
        return _pick(wanted.name, {e.name: e.config for e in ARCHITECTURES}, place), given
    if wanted.library in plugins():
        names = plugins()[wanted.library].architectures
        return _pick(wanted.name, {name: pair[0] for name, pair in names.items()}, place), given
    raise _unknown_library(wanted.library, place)


def _pick(
    name: str, known: Mapping[str, type[ArchitectureConfig]], place: str
) -> type[ArchitectureConfig]:
    if name not in known:
        raise _unknown_name(name, known, place, f"known: {', '.join(known)}")
    return known[name]


def _unknown_name(name: str, known: Iterable[str], place: str, allowed: str) -> UnknownArchitecture:
    detail = f"unknown architecture {name!r}{_hint(name, known)}; {allowed}"
    return UnknownArchitecture(detail, (FieldError(pointer=f"{place}/name", detail=detail),))


def _unknown_library(library: str, place: str) -> UnknownArchitecture:
    known = (OWN_LIBRARY, TRANSFORMERS, TIMM, TORCHVISION, *plugins())
    detail = f"unknown library {library!r}{_hint(library, known)}; known: {', '.join(known)}"
    return UnknownArchitecture(detail, (FieldError(pointer=f"{place}/library", detail=detail),))


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""
