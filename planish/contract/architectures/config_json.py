"""A published ``config.json``: which of its keys count, which are left out, which are refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NoReturn

from pydantic import JsonValue, ValidationError

from planish.contract.architectures.config_keys import DANGEROUS, FIXED, IMPLEMENTATION, LEFT_OUT
from planish.contract.architectures.decoders import Llama
from planish.contract.architectures.find import CLASSES, PUBLISHED
from planish.contract.architectures.published import TRANSFORMERS, PublishedConfig
from planish.contract.errors import UnknownArchitecture, UnsafeModel
from planish.contract.problem import FieldError
from planish.contract.spec import Architecture

OURS = ("head", "pooling", "normalize")
"""Keys of a config that no ``config.json`` has; alone in a spec they are laid over one."""

_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
_READ = ("model_type", "architectures", "id2label", "num_labels")
_FEW = 8


def read_config(
    document: Mapping[str, JsonValue], wanted: Architecture | None = None
) -> Architecture:
    """Return the architecture that a ``config.json`` describes.

    Args:
        document: the decoded file.
        wanted: what the spec says: a type or class of transformers, with nothing or only keys of
            `OURS` in its config; None takes everything from the file.

    Raises:
        UnsafeModel: a key that makes loaders run code.
        UnknownArchitecture: a type that is not built, an unknown key (the nearest is named), or a
            value that a fixed key may not have.
    """
    _refuse_code(document)
    kind = document.get("model_type")
    if not isinstance(kind, str) or kind not in _types():
        _refuse(
            "model_type",
            f"{_short(kind)} is not built{_near(kind, _types())}; known: {', '.join(_types())}",
        )
    config = _class_of(kind, wanted)
    kept = {key: value for key, value in document.items() if _counts(key, value, config)}
    given = dict(wanted.config or {}) if wanted is not None else {}
    if issubclass(config, Llama):
        kept["rope_parameters"] = _rope(document)
    if "num_labels" in config.model_fields:
        kept["num_labels"] = _labels(document)
    head = _head(document, config, given) if wanted is None or wanted.name not in CLASSES else {}
    name = config.architecture if wanted is None else wanted.name
    whole = {**_defaults(kind, config), **head, **kept, **given}
    try:
        return Architecture(library=TRANSFORMERS, name=name, config=whole)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _refused(str(first["loc"][1]), str(first["msg"])) from None


def _types() -> tuple[str, ...]:
    return tuple(dict.fromkeys(config.published_name() for config in PUBLISHED.values()))


def _refuse_code(document: Mapping[str, JsonValue]) -> None:
    for key in document:
        if key in DANGEROUS or IMPLEMENTATION in key:
            detail = (
                f"config.json: the key {key[:100]!r} makes loaders run code; take it out. The "
                "network is built from its sizes alone"
            )
            raise UnsafeModel(detail, (FieldError(pointer=_pointer(key), detail=detail),))


def _class_of(kind: str, wanted: Architecture | None) -> type[PublishedConfig]:
    if wanted is None:
        return PUBLISHED[kind]
    config = CLASSES[wanted.name][0] if wanted.name in CLASSES else PUBLISHED[wanted.name]
    if config.published_name() != kind:
        _refuse("model_type", f"{kind!r} is not the {wanted.name!r} that the spec names")
    return config


def _counts(key: str, value: JsonValue, config: type[PublishedConfig]) -> bool:
    """Tell whether a key goes into our config; raises where it may not be there."""
    if key in FIXED:
        if not any(type(value) is type(one) and value == one for one in FIXED[key]):
            allowed = ", ".join(_short(one) for one in FIXED[key])
            _refuse(key, f"{_short(value)} is not built; allowed: {allowed}")
        return False
    if key in _READ or (key in _ROPE and issubclass(config, Llama)):
        return False
    if key in config.model_fields and key not in OURS:
        return True
    if key in LEFT_OUT or (key == "layer_types" and _is_full(value)):
        return False
    known = {*config.model_fields, *_READ} - set(OURS)
    hint, names = _near(key, known), ", ".join(sorted(known))
    raise _refused(key, f"the key is not known for {config.architecture}{hint}; known: {names}")


def _is_full(value: JsonValue) -> bool:
    return isinstance(value, list) and all(kind == "full_attention" for kind in value)


def _defaults(kind: str, config: type[PublishedConfig]) -> dict[str, JsonValue]:
    """Return what a missing key means: the defaults of the published type, not of our variant."""
    fields = PUBLISHED[kind].model_fields
    return {
        name: field.default
        for name, field in fields.items()
        if name in config.model_fields
        and name not in (*OURS, "num_labels", "rope_parameters")
        and (field.default is None or isinstance(field.default, str | int | float))
    }


def _head(
    document: Mapping[str, JsonValue],
    config: type[PublishedConfig],
    given: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Return the head that `architectures` asks for; our variants keep theirs over a bare base."""
    stated = document.get("architectures")
    if "head" in given or stated is None:
        return {}
    name = stated[0] if isinstance(stated, list) and len(stated) == 1 else None
    heads = config.heads()
    if not isinstance(name, str) or name not in heads:
        _refuse(
            "architectures",
            f"{_short(stated)} is not built; known: {', '.join(heads)}. Or "
            f'choose a head by architecture.config, {{"head": …}}: {", ".join(config.classes)}',
        )
    if config.architecture != config.published_name() and heads[name] == "base":
        return {}
    return {"head": heads[name]}


def _labels(document: Mapping[str, JsonValue]) -> JsonValue:
    labels = document.get("id2label")
    if isinstance(labels, dict):
        return len(labels)
    return document.get("num_labels", 2)


def _rope(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the rotary positions, however a version of transformers spells them."""
    given = document.get("rope_parameters") or document.get("rope_scaling") or {}
    if not isinstance(given, dict):
        _refuse("rope_scaling", f"{_short(given)} is no object")
    values: dict[str, JsonValue] = {k: value for k, value in given.items() if value is not None}
    old = values.pop("type", None)
    if old is not None and values.setdefault("rope_type", old) != old:
        _refuse("rope_scaling", "type and rope_type differ")
    values.setdefault("rope_theta", document.get("rope_theta") or 10_000.0)
    return values


def _refuse(key: str, detail: str) -> NoReturn:
    raise _refused(key, detail)


def _refused(key: str, detail: str) -> UnknownArchitecture:
    text = f"config.json: {key[:100]}: {detail}"
    return UnknownArchitecture(text, (FieldError(pointer=_pointer(key), detail=text),))


def _pointer(key: str) -> str:
    return f"/files/model/{key[:100]}"


def _short(value: JsonValue) -> str:
    return repr(value)[:100]


def _near(key: object, known: object) -> str:
    names = [str(name) for name in known] if isinstance(known, tuple | set | frozenset) else []
    near = difflib.get_close_matches(str(key)[:100], names, 1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
