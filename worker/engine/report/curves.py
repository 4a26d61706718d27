"""What was measured over time: the rounds of the latency measurement, and the training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from planish.contract.report import Epoch, Report
from worker.engine.report import plots, words
from worker.engine.report.markup import Html, el, join


def latency(report: Report) -> Html | None:
    """Show the rounds of the paired measurement, and the tails."""
    rounds = {side: values for side, values in report.latency_rounds.items() if values}
    if not rounds:
        return None
    count = max(len(values) for values in rounds.values())
    note = (
        f"Each dot is the median of one of {count} rounds. The sides took turns, each in its own "
        "process, so both met the same machine."
    )
    strips = plots.strips(rounds, "Latency of every round, in milliseconds", _plain)
    figures = [_figure("Milliseconds per call, by round", strips), _tails(report)]
    return _section("Latency", note, figures)


def training(report: Report) -> Html | None:
    """Show loss and validation accuracy of every epoch across the passes that trained."""
    epochs = report.training
    if not epochs:
        return None
    bands = _bands(epochs)
    loss = plots.Series("before", tuple(e.loss for e in epochs))
    drawn = plots.lines(loss, bands, "Training loss per epoch", _plain)
    figures = [_figure("Loss per epoch", drawn)]
    if any(e.accuracy is not None for e in epochs):
        accuracy = plots.Series("after", tuple(e.accuracy for e in epochs))
        drawn = plots.lines(accuracy, bands, "Validation accuracy per epoch", _share)
        figures.append(_figure("Validation accuracy per epoch", drawn))
    note = "Validation samples are kept out of the training; the sealed ones are apart from both."
    return _section("Training", note, figures)


def _tails(report: Report) -> Html | None:
    b, o = report.baseline.latency_ms, report.optimized.latency_ms
    if b is None or o is None:
        return None
    parts: list[Html] = []
    for name, before, after in (
        ("p50", b.p50, o.p50),
        ("p90", b.p90, o.p90),
        ("p99", b.p99, o.p99),
    ):
        sides = f"{words.milliseconds(before)} → {words.milliseconds(after)}"
        parts.append(el("p", el("b", name), f" {sides}", class_="num tail"))
        parts.append(plots.bar_pair(before, after, f"{name}: {sides}"))
    return _figure("Median and tails of single calls", join(parts))


def _bands(epochs: tuple[Epoch, ...]) -> list[plots.Band]:
    bands, at = [], 1
    for (op, _), group in itertools.groupby(epochs, key=lambda e: (e.op, e.step)):
        length = len(list(group))
        bands.append(plots.Band(op, at, at + length - 1))
        at += length
    return bands


def _section(title: str, note: str, figures: Sequence[Html | None]) -> Html:
    body = el("div", join(figures), class_="plots")
    return el("section", el("h2", title), el("p", note, class_="note"), body)


def _figure(caption: str, content: Html) -> Html:
    return el("figure", el("figcaption", caption), content)


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _share(value: float) -> str:
    return f"{value * 100:.4g} %"
