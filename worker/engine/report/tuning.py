"""What other settings of the runtime would give."""

from __future__ import annotations

from planish.contract.report import Report, Trial
from worker.engine.report import blocks, words
from worker.engine.report.markup import Html, el


def tuning(report: Report) -> Html | None:
    """Show every setting that was tried, and which are best; None if the job did not ask."""
    found = report.tuning
    if found is None:
        return None
    heads = ("Threads", "Batch", "Latency p50", "Samples per second")
    head = el("tr", *map(blocks.number_head, heads), el("th", "Settings", scope="col"))
    note = (
        f"The optimized model in {report.optimized.runtime} with other settings; they change no "
        f"answer. Fastest at batch {report.optimized.batch_size}: {_words(found.fastest)}. "
        f"Most samples per second: batch {found.busiest.batch_size}, {_words(found.busiest)}."
    )
    return el(
        "section",
        el("h2", "Settings of the runtime"),
        el("p", note, class_="note"),
        blocks.table("Settings of the runtime", "tuning", head, [_row(t) for t in found.trials]),
    )


def _row(trial: Trial) -> Html:
    numbers = (
        str(trial.threads),
        str(trial.batch_size),
        words.milliseconds(trial.latency_ms),
        words.count(round(trial.samples_per_second)),
    )
    return el("tr", *(el("td", text, class_="n") for text in numbers), el("td", _options(trial)))


def _options(trial: Trial) -> str:
    return ", ".join(f"{name} = {value}" for name, value in trial.options.items()) or "as it comes"


def _words(trial: Trial) -> str:
    threads = "1 thread" if trial.threads == 1 else f"{trial.threads} threads"
    options = f", {_options(trial)}" if trial.options else ""
    return f"{threads}{options}"
