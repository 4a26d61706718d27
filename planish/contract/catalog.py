"""The catalogue of passes and architectures, made from the contract itself."""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.fields import FieldInfo

from planish.contract.architectures import ArchitectureEntry, all_architectures
from planish.contract.recipe import PASSES, Params, op_of


class Entry(BaseModel):
    """Base of the catalogue's parts; clients ignore keys of newer servers."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_by_name=True, serialize_by_alias=True
    )


class Parameter(Entry):
    """One parameter of a pass; `range` says in words what is allowed."""

    name: str
    description: str
    default: JsonValue
    range: str


class PassInfo(Entry):
    """One pass: what it does, what it needs, its parameters and where it comes from."""

    op: str
    summary: str
    stage: str
    needs: tuple[str, ...]
    source: str
    parameters: tuple[Parameter, ...]
    defaults: dict[str, JsonValue]
    json_schema: dict[str, JsonValue] = Field(alias="schema")


class PassCatalog(Entry):
    """All passes, in the order in which recipes usually have them."""

    items: tuple[PassInfo, ...]


class ArchitectureInfo(Entry):
    """One architecture that bare weights can name.

    `name` is a pattern (``^…$``) where a library has many. `available` tells whether the package
    that builds it is installed beside the server that answers; `install` names it where not.
    """

    library: str
    name: str
    summary: str
    source: str
    inputs: tuple[dict[str, JsonValue], ...]
    defaults: dict[str, JsonValue]
    json_schema: dict[str, JsonValue] = Field(alias="schema")
    available: bool = True
    install: str | None = None


class ArchitectureCatalog(Entry):
    """All architectures."""

    items: tuple[ArchitectureInfo, ...]


@cache
def pass_catalog() -> PassCatalog:
    """Return every pass that this version can run."""
    return PassCatalog(items=tuple(_pass_info(params) for params in PASSES))


@cache
def architecture_catalog() -> ArchitectureCatalog:
    """Return every architecture that this version knows."""
    return ArchitectureCatalog(
        items=tuple(_architecture_info(entry) for entry in all_architectures())
    )


def _pass_info(params: type[Params]) -> PassInfo:
    defaults = params().model_dump(mode="json")
    return PassInfo(
        op=op_of(params),
        summary=inspect.cleandoc(params.__doc__ or ""),
        stage=params.stage.name.lower(),
        needs=tuple(need.name.lower() for need in params.needs),
        source=params.source,
        parameters=_parameters(params, defaults),
        defaults=defaults,
        json_schema=params.model_json_schema(),
    )


def _parameters(params: type[BaseModel], defaults: dict[str, JsonValue]) -> tuple[Parameter, ...]:
    """Return the parameters, those of a training run as ``train.epochs`` and so on."""
    schema = params.model_json_schema(ref_template="{model}")
    found: list[Parameter] = []
    for name, field in params.model_fields.items():
        default = defaults[name]
        if name == "op":
            continue
        if isinstance(default, dict) and isinstance(field.annotation, type):
            inner = _parameters(field.annotation, default)
            found += (p.model_copy(update={"name": f"{name}.{p.name}"}) for p in inner)
        else:
            found.append(_parameter(name, field, default, schema["properties"][name]))
    return tuple(found)


def _parameter(
    name: str, field: FieldInfo, default: JsonValue, schema: dict[str, JsonValue]
) -> Parameter:
    return Parameter(
        name=name, description=field.description or "", default=default, range=_range(schema)
    )


def _range(schema: JsonValue) -> str:
    """Say in words which values a JSON Schema allows."""
    if not isinstance(schema, dict):
        return "any"
    if isinstance(options := schema.get("anyOf"), list):
        return " or ".join(_range(option) for option in options)
    if "const" in schema:
        return str(schema["const"])
    if isinstance(values := schema.get("enum"), list):
        return ", ".join(str(value) for value in values)
    kind = str(schema.get("type", "any"))
    if kind in ("integer", "number"):
        return _interval(kind, schema)
    if kind == "array":
        return "list of texts"
    return {"boolean": "true, false", "string": "text"}.get(kind, kind)


def _interval(kind: str, schema: dict[str, JsonValue]) -> str:
    low = _bound(schema, "minimum", "exclusiveMinimum", "≥", ">")
    high = _bound(schema, "maximum", "exclusiveMaximum", "≤", "<")
    return f"{kind} {', '.join(filter(None, (low, high)))}".rstrip()


def _bound(schema: dict[str, JsonValue], closed: str, opened: str, at: str, beyond: str) -> str:
    if closed in schema:
        return f"{at} {schema[closed]}"
    return f"{beyond} {schema[opened]}" if opened in schema else ""


def _architecture_info(entry: ArchitectureEntry) -> ArchitectureInfo:
    return ArchitectureInfo(
        library=entry.library,
        name=entry.name,
        summary=entry.summary,
        source=entry.source,
        inputs=tuple(item.model_dump(mode="json") for item in entry.inputs),
        defaults=entry.config().model_dump(mode="json"),
        json_schema=entry.config.model_json_schema(),
        available=entry.module is None or _is_installed(entry.module),
        install=entry.extra,
    )


def _is_installed(module: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None
