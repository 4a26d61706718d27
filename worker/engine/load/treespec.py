"""Containers of a model's outputs: tuples, lists and dicts, rebuilt from torch's pytree JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.fx.node import Argument

from planish.contract.errors import InvalidModel
from planish.gate.document import Value, parse

MAX_DEPTH = 64
_VERSION = 1


@dataclass(frozen=True)
class Container:
    """One level: `kind` is ``leaf``, ``tuple``, ``list`` or ``dict`` (with `keys`)."""

    kind: str
    children: tuple[Container, ...] = ()
    keys: tuple[str, ...] = ()


def parse_treespec(text: str) -> Container:
    """Return the containers that a treespec describes.

    Raises:
        InvalidModel: another version, or a container type that cannot be rebuilt without its class.
    """
    items = parse(text.encode(), "out_spec").items()
    if len(items) != 2 or items[0].raw != _VERSION:
        raise InvalidModel(f"the output's treespec is not of version {_VERSION}")
    return _container(items[1], 0)


def build(container: Container, leaves: Sequence[Argument]) -> Argument:
    """Return the leaves in their containers; raises `InvalidModel` when the counts differ."""
    rest = iter(leaves)
    try:
        result = _fill(container, rest)
    except StopIteration:
        raise InvalidModel("the model has fewer outputs than its output containers") from None
    if next(rest, None) is not None:
        raise InvalidModel("the model has more outputs than its output containers")
    return result


def _container(spec: Value, depth: int) -> Container:
    if depth > MAX_DEPTH:
        raise InvalidModel(f"the model's outputs are nested deeper than {MAX_DEPTH} levels")
    children = tuple(_container(child, depth + 1) for child in spec["children_spec"].items())
    named = spec.get("type")
    if named is None:
        return Container("leaf")
    name = named.text()
    if name in ("builtins.tuple", "builtins.list"):
        return Container(name.removeprefix("builtins."), children)
    keys = _keys(spec, len(children))
    if keys is None:
        raise InvalidModel(
            f"the model returns a {name[:100]}, which cannot be rebuilt; return a tensor, tuple, "
            "list or dict with text keys, and export the model again"
        )
    return Container("dict", children, keys)


def _keys(spec: Value, count: int) -> tuple[str, ...] | None:
    """Return the keys of a dict, or the named fields of an output class; None without them."""
    context = spec.get("context")
    if context is None or not isinstance(context.raw, str) or not context.raw.startswith("["):
        return None
    names = [item.raw for item in parse(context.raw.encode(), "out_spec").items()]
    texts = tuple(name for name in names if isinstance(name, str) and len(name) <= 200)
    return texts if len(texts) == len(names) == len(set(texts)) == count else None


def _fill(container: Container, leaves: Iterator[Argument]) -> Argument:
    if container.kind == "leaf":
        return next(leaves)
    values = [_fill(child, leaves) for child in container.children]
    if container.kind == "tuple":
        return tuple(values)
    return values if container.kind == "list" else dict(zip(container.keys, values, strict=True))
