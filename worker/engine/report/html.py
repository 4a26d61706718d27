"""report.html: one file that needs nothing else; no scripts, no requests, light and dark."""

from __future__ import annotations

from pathlib import Path

from planish.contract.report import Report
from worker.engine.report import assurance, curves, figures, story, tuning, words
from worker.engine.report.markup import Html, el, join

_STYLE = Path(__file__).with_name("report.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(report: Report) -> str:
    """Return the page of a report."""
    verdict = words.headline(report)
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="robots", content="noindex"),
        el("title", f"Planish report: {verdict}"),
        el("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{el('html', head, el('body', _main(report)), lang='en')}\n"


def _main(report: Report) -> Html:
    return el(
        "main",
        _header(report),
        figures.warnings(report),
        figures.tiles(report),
        figures.compare(report),
        curves.latency(report),
        tuning.tuning(report),
        curves.training(report),
        story.passes(report),
        story.layers(report),
        el("div", assurance.certificate(report), assurance.checks(report), class_="columns"),
        assurance.environment(report),
        assurance.usage(),
        el("footer", "Every figure on this page also stands in report.json."),
    )


def _header(report: Report) -> Html:
    tone = words.tone(report)
    brand = el(
        "div",
        _mark(),
        el("b", "Planish report"),
        el("span", words.label(report), class_=f"badge {tone}"),
        el("code", report.job_id) if report.job_id else None,
        class_="brand",
    )
    # Each clause is a span of its own, so that lines break between clauses where they can.
    clauses = [join([el("span", text), " "]) for text in words.clauses(report)]
    return el("header", brand, el("h1", join(clauses)), el("p", _lead(report), class_="lead"))


def _lead(report: Report) -> str:
    metric = report.optimized.metric
    if metric.name == "agreement":
        return (
            f"No labelled samples came with the job, so quality is how often the answer is the "
            f"original's: {words.fraction(metric)}."
        )
    return (
        f"{metric.name.capitalize()} {words.percent(metric.value)} after, "
        f"{words.percent(report.baseline.metric.value)} before, on {words.count(metric.total)} "
        "sealed samples that no pass has seen."
    )


def _mark() -> Html:
    """Draw the mark: a long bar made short."""
    return el(
        "svg",
        el("rect", x=2, y=13, width=20, height=5, rx=1.5, class_="before"),
        el("rect", x=6, y=6, width=12, height=5, rx=1.5, class_="after"),
        viewBox="0 0 24 24",
        aria_hidden="true",
    )
