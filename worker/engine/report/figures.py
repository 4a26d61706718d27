"""What stands at the top of the page: warnings, the four main figures, and the whole comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from planish.contract.report import Measures, Report
from worker.engine.report import blocks, plots, words
from worker.engine.report.markup import Html, el, join


@dataclass(frozen=True)
class Figure:
    """One figure on both sides, where smaller is better; `words_for` name a gain and a loss."""

    name: str
    before: float
    after: float
    show: Callable[[int], str] | Callable[[float], str]
    words_for: tuple[str, str]

    def shown(self, value: float) -> str:
        """Return the value in its unit."""
        return self.show(value)  # type: ignore[arg-type]  # bytes and counts are whole numbers

    @property
    def ratio(self) -> float:
        """Baseline / optimized."""
        return self.before / self.after if self.after else 1.0

    @property
    def change(self) -> str:
        """The ratio in words."""
        return words.change(self.ratio, *self.words_for, "same")


def warnings(report: Report) -> Html | None:
    """Say loudly what went wrong or must be known."""
    if not report.warnings:
        return None
    css = "bad" if words.tone(report) == "bad" else "warn"
    title = el("h2", "Read this first" if css == "bad" else "To be known")
    items = join([el("li", text) for text in report.warnings])
    return el("section", title, el("ul", items), class_=f"warnings {css}", role="note")


def tiles(report: Report) -> Html:
    """Show the four figures that people look for, each with a pair of bars."""
    before, after = report.baseline.metric, report.optimized.metric
    found = [
        _tile(_name(after.name), words.metric_value(after), _was(report), before.value, after.value)
    ]
    main = {"File size", "Latency p50", "Multiply-accumulates"}
    for figure in _figures(report):
        if figure.name in main:
            was = f"was {figure.shown(figure.before)} · {figure.change}"
            found.append(
                _tile(figure.name, figure.shown(figure.after), was, figure.before, figure.after)
            )
    return el("div", el("div", join(found), class_="tiles"), _legend())


def compare(report: Report) -> Html:
    """Show every measured figure before and after."""
    b, o = report.baseline, report.optimized
    head = el(
        "tr", el("th", "", scope="col"), *map(blocks.number_head, ("Before", "After", "Change"))
    )
    rows = [_row(_name(o.metric.name), _metric(b), _metric(o), _lost(report))]
    rows += [_row(f.name, f.shown(f.before), f.shown(f.after), f.change) for f in _figures(report)]
    threads = "1 thread" if o.threads == 1 else f"{o.threads} threads"
    note = (
        f"Both sides ran in {o.runtime}, floats in {_floats(b, o)}, batch {o.batch_size}, "
        f"{threads}; before is the uploaded model in float."
    )
    return el(
        "section",
        el("h2", "Before and after"),
        el("p", note, class_="note"),
        blocks.table("Before and after", "compare", head, rows),
    )


def _floats(before: Measures, after: Measures) -> str:
    """Name what floats were computed in: a cast, or a runtime by itself, may take another type."""
    if before.precision == after.precision:
        return after.precision
    return f"{before.precision} before and {after.precision} after"


def _figures(report: Report) -> Iterator[Figure]:
    b, o = report.baseline, report.optimized
    fewer = ("fewer", "more")
    yield Figure("File size", b.size_bytes, o.size_bytes, words.size, ("smaller", "larger"))
    if b.compressed_bytes and o.compressed_bytes:
        sizes = b.compressed_bytes, o.compressed_bytes
        yield Figure("Compressed (zstd)", *sizes, words.size, ("smaller", "larger"))
    if b.latency_ms and o.latency_ms:
        for name in ("p50", "p90", "p99"):
            sides = getattr(b.latency_ms, name), getattr(o.latency_ms, name)
            yield Figure(f"Latency {name}", *sides, words.milliseconds, ("faster", "slower"))
    if b.macs and o.macs:
        yield Figure("Multiply-accumulates", b.macs, o.macs, words.big, fewer)
    yield Figure("Parameters", b.params, o.params, words.count, fewer)
    yield Figure("Nonzero parameters", b.nonzero_params, o.nonzero_params, words.count, fewer)
    if b.peak_memory_bytes and o.peak_memory_bytes:
        sides = b.peak_memory_bytes, o.peak_memory_bytes
        yield Figure("Peak memory of the process", *sides, words.size, ("less", "more"))


def _tile(name: str, value: str, was: str, before: float | None, after: float | None) -> Html:
    bars = None
    if before is not None and after is not None:
        bars = plots.bar_pair(before, after, f"{name}: {value}, {was}")
    return el(
        "div",
        el("div", name, class_="name"),
        el("div", value, class_="big num"),
        el("div", was, class_="was num"),
        bars,
        class_="tile",
    )


def _legend() -> Html:
    sides = [el("span", el("i", class_=css), css) for css in ("before", "after")]
    return el("div", join(sides), class_="legend", aria_hidden="true")


def _row(name: str, before: str, after: str, change: str) -> Html:
    cells = [el("td", text, class_="n") for text in (before, after, change)]
    return el("tr", el("th", name, scope="row"), join(cells))


def _metric(side: Measures) -> Html:
    metric = side.metric
    counted = metric.correct is not None and metric.total is not None
    text = words.metric_value(metric)
    return join([text, el("small", words.fraction(metric)) if counted else None])


def _lost(report: Report) -> str:
    return words.difference_of(report.baseline.metric, report.optimized.metric)


def _was(report: Report) -> str:
    if report.baseline.metric.value is None or report.optimized.metric.name == "agreement":
        return "with the original model"
    return f"was {words.metric_value(report.baseline.metric)} · {_lost(report)}"


def _name(metric: str) -> str:
    return metric[:1].upper() + metric[1:]
