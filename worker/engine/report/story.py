"""What was done to the model: the passes in order, and every layer before and after."""

from __future__ import annotations

from pydantic import JsonValue

from planish.contract.report import Layer, LayerSkipped, PassReport, Report
from worker.engine.report import blocks, plots, words
from worker.engine.report.markup import Html, el, join

LONG_LIST = 8


def passes(report: Report) -> Html:
    """Tell what each pass did, and what it left alone and why."""
    items = [_pass(done) for done in report.passes]
    return el("section", el("h2", "Passes, in order"), el("ol", join(items), class_="passes"))


def layers(report: Report) -> Html | None:
    """Show every weighted layer before and after."""
    if not report.layers:
        return None
    largest = max(layer.params_before for layer in report.layers)
    heads = ("Layer", "Kind", "Weights before", "Weights after")
    head = el(
        "tr",
        *(el("th", text, scope="col") for text in heads),
        blocks.number_head("Parameters"),
        el("th", "Share left", scope="col"),
        el("th", "Type", scope="col"),
        blocks.number_head("Scale"),
    )
    rows = [_layer_row(layer, largest) for layer in report.layers]
    note = (
        "Grey is what the layer held before, colour what it holds now, on one scale for all layers."
    )
    return el(
        "section",
        el("h2", "Layers"),
        el("p", note, class_="note"),
        blocks.table("Layers", "layers", head, rows),
    )


def _pass(done: PassReport) -> Html:
    what = f"{done.layers_changed} layers changed" if done.changed else "changed nothing"
    head = el(
        "div", el("h3", done.op), el("span", f"{what} · {done.seconds:.1f} s"), class_="passhead"
    )
    tables = {key: _table(value) for key, value in done.facts.items()}
    tables = {key: table for key, table in tables.items() if table}
    facts = [
        el("li", f"{blocks.spaced(key)} ", el("b", _fact(value)))
        for key, value in done.facts.items()
        if key not in tables
    ]
    changed = [el("li", el("code", layer.name), f" {layer.what}") for layer in done.layers]
    return el(
        "li",
        head,
        el("ul", join(facts), class_="facts") if facts else None,
        blocks.more(f"{len(changed)} layers in detail", changed) if changed else None,
        join([_fact_table(key, table) for key, table in tables.items()]),
        _skipped(done.layers_skipped),
        class_=None if done.changed else "unchanged",
    )


def _fact(value: JsonValue) -> str:
    """Return a fact in words; two numbers are before and after."""
    numbers = isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    if isinstance(value, list) and numbers and len(value) == 2:
        return " → ".join(map(blocks.plain_value, value))
    return blocks.plain_value(value)


def _table(value: JsonValue) -> dict[str, JsonValue]:
    """Return a fact of many parts by their names or numbers; empty for any other."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {str(number): item for number, item in enumerate(value, 1)}
    return {}


def _fact_table(key: str, table: dict[str, JsonValue]) -> Html:
    items = [el("li", el("code", name), f" {_fact(value)}") for name, value in table.items()]
    return blocks.more(f"{blocks.spaced(key)} ({len(items)})", items)


def _skipped(skipped: tuple[LayerSkipped, ...]) -> Html | None:
    if not skipped:
        return None
    reasons: dict[str, list[str]] = {}
    for layer in skipped:
        reasons.setdefault(layer.why, []).append(layer.name)
    items = [
        el("li", f"{why}:", join([join([" ", el("code", name)]) for name in names]))
        for why, names in reasons.items()
    ]
    return blocks.more(f"{len(skipped)} layers left alone", items, opened=len(skipped) <= LONG_LIST)


def _layer_row(layer: Layer, largest: int) -> Html:
    before, after = layer.params_before, layer.params_after
    label = f"{words.count(before)} before, {words.count(after)} after"
    scale = "" if layer.weight_scale is None else f"{layer.weight_scale:.4g}"
    return el(
        "tr",
        el("th", el("code", layer.name), scope="row"),
        el("td", layer.kind),
        el("td", layer.shape_before, class_="shape num"),
        el("td", layer.shape_after or "–", class_="shape num"),
        el("td", words.count(after), class_="n"),
        el("td", plots.overlap_bar(before, after or 0, largest, label)),
        el("td", layer.dtype_after or "–"),
        el("td", scale, class_="n"),
    )
