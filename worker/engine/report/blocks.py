"""Blocks that several parts of the page are built from."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from worker.engine.report.markup import Html, el, join


def table(caption: str, css: str, head: Html, rows: list[Html]) -> Html:
    """Return a table that scrolls sideways by itself where it is too wide for the screen."""
    parts = [el("caption", caption), el("thead", head), el("tbody", join(rows))]
    content = el("table", join(parts), class_=css)
    return el("div", content, class_="scroll", tabindex=0, role="region", aria_label=caption)


def number_head(text: str) -> Html:
    """Return the head of a column of numbers."""
    return el("th", text, scope="col", class_="n")


def more(title: str, items: list[Html], opened: bool = False) -> Html:
    """Return a list that unfolds."""
    return el("details", el("summary", title), el("ul", join(items)), open=opened)


def pairs(rows: Mapping[str, str]) -> Html:
    """Return names with their values."""
    return el("dl", join([join([el("dt", key), el("dd", value)]) for key, value in rows.items()]))


def spaced(key: str) -> str:
    """Return a key of JSON as words."""
    return key.replace("_", " ")


def plain_value(value: JsonValue) -> str:
    """Return a JSON value as a person writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{spaced(key)} {plain_value(child)}" for key, child in value.items())
    if isinstance(value, list):
        return ", ".join(plain_value(child) for child in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
