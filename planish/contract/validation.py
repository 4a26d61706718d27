"""From raw JSON to a `Spec`, with every fault named in one answer."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from typing import NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from planish.contract.errors import BadRequest, InvalidSpec, TooLarge
from planish.contract.problem import FieldError
from planish.contract.recipe import PASSES, op_of, pass_of
from planish.contract.spec import FILE_SET, ONE_FILE, Spec

MAX_SPEC_BYTES = 1 << 20
MAX_JSON_DEPTH = 32
MAX_FAULTS = 100
MAX_VALUES = 50_000


def parse_json(raw: bytes, limit: int = MAX_SPEC_BYTES) -> object:
    """Return the JSON value of a body.

    Raises:
        TooLarge: more than `limit` bytes.
        BadRequest: not UTF-8 JSON, a key twice, NaN or infinity, nested too deep, or a flood.
    """
    if len(raw) > limit:
        raise TooLarge(f"the spec has {len(raw)} bytes; at most {limit} are taken")
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadRequest(f"the spec holds more than {MAX_VALUES} values")
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"the spec is not valid JSON: {error}") from None
    if _depth(value) > MAX_JSON_DEPTH:
        raise BadRequest(f"the spec is nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def parse_spec(raw: bytes) -> Spec:
    """Return the spec of a request body.

    Raises:
        TooLarge, BadRequest: see `parse_json`.
        InvalidSpec: the values break the contract; `errors` names each of them.
    """
    return spec_from(parse_json(raw))


def spec_from(value: object) -> Spec:
    """Return the `Spec` of a decoded JSON value; raises `InvalidSpec`."""
    try:
        return Spec.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        errors = field_errors(error, Spec)
        detail = "; ".join(f"{e.pointer or '/'}: {e.detail}" for e in errors[:5])
        raise InvalidSpec(detail, errors) from None


def field_errors(error: ValidationError, model: type[BaseModel]) -> tuple[FieldError, ...]:
    """Return one `FieldError` for each fault, `MAX_FAULTS` at most, saying what is allowed."""
    details = error.errors(include_url=False)[:MAX_FAULTS]
    return tuple(
        FieldError(pointer=_pointer(detail), detail=_sentence(detail, model))
        for detail in details
        if not _follows(detail, details)
    )


def _follows(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """A list whose items are all bad is also called too short: that only repeats their faults.

    So does a default that could not be derived from values that are wrong themselves.
    """
    if detail["type"] == "default_factory_not_called":
        return True
    inner = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(inner)] == inner and len(other["loc"]) > len(inner) for other in details
    )


def _path(detail: ErrorDetails) -> list[str | int]:
    """Drop the union tags that pydantic mixes into a location (``recipe, 0, prune, sparsity``)."""
    path: list[str | int] = []
    for part in detail["loc"]:
        tagged = len(path) == 2 and part in _TAGS.get(str(path[0]), ())
        if not tagged:
            path.append(part)
    return path


_TAGS = {"recipe": {op_of(params) for params in PASSES}, "files": {ONE_FILE, FILE_SET}}


def _pointer(detail: ErrorDetails) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in _path(detail))


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(str(detail["loc"][-1]), _known_keys(detail, model))
    if kind == "union_tag_invalid":
        return _unknown_op(detail)
    if kind == "union_tag_not_found":
        return f"a pass needs an op; known ops: {_ops()}"
    if kind == "missing":
        return "this field is needed"
    text = detail["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    value = detail.get("input")
    if isinstance(value, bool | int | float | str) and len(str(value)) <= 100:
        return f"{text}; got {value!r}"
    return text


def _ops() -> str:
    return ", ".join(op_of(params) for params in PASSES)


def _unknown_op(detail: ErrorDetails) -> str:
    tag = str(detail.get("ctx", {}).get("tag", ""))[:100]
    near = difflib.get_close_matches(tag, [op_of(p) for p in PASSES], 1)
    return f"unknown op {tag!r}{_hint(near)}; known ops: {_ops()}"


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
    return f"unknown key {key[:100]!r}{_hint(near)}; known keys: {', '.join(known)}"


def _hint(near: list[str]) -> str:
    return f", did you mean {near[0]!r}?" if near else ""


def _known_keys(detail: ErrorDetails, model: type[BaseModel]) -> list[str]:
    """Walk the location from the root model to the object that holds the unknown key."""
    here: object = model
    for part in detail["loc"][:-1]:
        if isinstance(part, str) and pass_of(part) is not None:
            here = pass_of(part)
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = _model_in(here.model_fields[str(part)].annotation)
    return (
        sorted(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
    )


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the first pydantic model inside an annotation such as ``Train | None``."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    arguments = getattr(annotation, "__args__", ())
    return next((found for a in arguments if (found := _model_in(a)) is not None), None)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:100]!r} stands twice")
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _depth(value: object) -> int:
    """Return how deep lists and objects are nested, counted without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            break
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
