"""HTML from functions: whatever is not `Html` already is escaped, so nothing can be forgotten."""

from __future__ import annotations

import html
from collections.abc import Sequence

Attribute = str | int | float | bool | None
_VOID = frozenset({"br", "col", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(tag: str, *children: str | None, **attributes: Attribute) -> Html:
    """Return one element.

    Args:
        tag: its name.
        children: `Html` stays as it is, other text is escaped, None is left out.
        attributes: ``class_`` becomes ``class``, ``aria_label`` becomes ``aria-label``; False and
            None are left out, True stands alone.
    """
    head = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(children)}</{tag}>")


def join(children: Sequence[str | None]) -> Html:
    """Return the children one after the other, escaped unless they are `Html`."""
    return Html("".join(_text(child) for child in children if child is not None))


def _text(value: str) -> str:
    return value if isinstance(value, Html) else html.escape(value, quote=False)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    # SVG spells some attributes in camel case; they come as they are.
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{html.escape(_short(value))}"'


def _short(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
