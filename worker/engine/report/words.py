"""Figures in words: the headline, sizes, ratios and points."""

from __future__ import annotations

from typing import Literal

from planish.contract.report import Certificate, Metric, Report

MINUS = "−"
TIMES = "×"
NARROW = "\u202f"  # narrow no-break space: a number and its unit stay together
NOISE = 0.03
Tone = Literal["good", "mixed", "bad"]


def headline(report: Report) -> str:
    """Return the verdict, e.g. ``3.6× smaller, 2.1× faster, −0.35 points (1829/2000 vs …)``."""
    return " ".join(clauses(report)).replace(NARROW, " ")


def clauses(report: Report) -> list[str]:
    """Return the parts of the verdict: size, compressed, latency where measured, quality."""
    parts = [change(report.ratios.size, "smaller", "larger", "same size")]
    if report.ratios.compressed is not None and report.ratios.zeros_tell:
        parts.append(f"{times(report.ratios.compressed)} smaller compressed")
    if report.ratios.latency is not None:
        parts.append(change(report.ratios.latency, "faster", "slower", "same speed"))
    last = metric_change(report.baseline.metric, report.optimized.metric)
    return [*(f"{part}," for part in parts), last]


def tone(report: Report) -> Tone:
    """Return ``bad`` when nothing was gained or speed was lost, ``mixed`` when something was lost.

    Differences within the noise of a measurement count as equal.
    """
    gains = [report.ratios.size]
    if report.ratios.latency is not None:
        gains.append(report.ratios.latency)
    compressed = report.ratios.compressed or 0.0
    if min(gains) < 1 - NOISE or max(*gains, compressed) <= 1 + NOISE:
        return "bad"
    return "mixed" if report.warnings else "good"


def label(report: Report) -> str:
    """Return the verdict in a word or two, for a badge."""
    ratios = report.ratios
    if ratios.latency is not None and ratios.latency < 1 - NOISE:
        return "slower than before"
    if ratios.size < 1 - NOISE:
        return "larger than before"
    return {"good": "better", "mixed": "better, with remarks", "bad": "no gain"}[tone(report)]


def change(ratio: float, better: str, worse: str, same: str) -> str:
    """Return a ratio in words; within `NOISE` of 1 it is no change."""
    if abs(ratio - 1) <= NOISE:
        return same
    return f"{times(ratio)} {better}" if ratio > 1 else f"{times(1 / ratio)} {worse}"


def times(ratio: float) -> str:
    """Return ``3.6×``; two digits after the point below 2, none from 100."""
    digits = 2 if ratio < 2 else 1 if ratio < 100 else 0
    return f"{ratio:.{digits}f}{TIMES}"


def metric_change(before: Metric, after: Metric) -> str:
    """Return the change of the metric: points with both counts, or both values and the change."""
    if before.value is None or after.value is None:
        return "quality not measured"
    if after.name == "agreement":
        return f"{percent(after.value)} agreement with the original"
    if is_share(after):
        difference = points(after.value - before.value, after.total)
        return f"{difference} ({fraction(after)} vs {fraction(before)})"
    change_of = difference_of(before, after)
    return f"{after.name} {metric_value(after)} vs {metric_value(before)} ({change_of})"


def is_share(metric: Metric) -> bool:
    """Tell whether a metric counts right answers, and so is a share of the samples."""
    return metric.total is not None


def metric_value(metric: Metric) -> str:
    """Return ``91.45 %`` for a share of the samples, ``1.47`` or ``0.00312`` for anything else."""
    if metric.value is None or is_share(metric):
        return percent(metric.value)
    if metric.better == "lower":
        return f"{metric.value:.4g}"
    return f"{metric.value:.4f}"


def difference_of(before: Metric, after: Metric) -> str:
    """Return how the metric moved: in points, in percent of the value before, or in its own unit.

    Losses (smaller is better) are told in percent: what 0.01 more means depends on what they were.
    """
    if before.value is None or after.value is None:
        return "–"
    if is_share(after):
        return points(after.value - before.value, after.total)
    if after.better == "lower":
        return relative(after.value / before.value - 1) if before.value else "–"
    rounded = f"{abs(after.value - before.value):.4f}"
    if float(rounded) == 0:
        return f"±{rounded}"
    return f"{MINUS if after.value < before.value else '+'}{rounded}"


def relative(change: float) -> str:
    """Return ``+0.5 %``."""
    digits = 1 if abs(change) >= 0.01 else 2
    rounded = f"{abs(change) * 100:.{digits}f}"
    if float(rounded) == 0:
        return f"±{rounded} %"
    return f"{MINUS if change < 0 else '+'}{rounded} %"


def fraction(metric: Metric) -> str:
    """Return ``1829/2000``, or the value where nothing was counted."""
    if metric.correct is None or metric.total is None:
        return metric_value(metric)
    return f"{metric.correct}/{metric.total}"


def points(difference: float, total: int | None = None) -> str:
    """Return a difference of two shares as signed percentage points."""
    digits = 2 if total is None or total >= 1000 else 1
    rounded = f"{abs(difference) * 100:.{digits}f}"
    if float(rounded) == 0:
        return f"±{rounded} points"
    return f"{MINUS if difference < 0 else '+'}{rounded} points"


def percent(share: float | None) -> str:
    """Return ``91.45 %``."""
    return "–" if share is None else f"{share * 100:.2f} %"


def count(number: int | None) -> str:
    """Return ``269,722``."""
    return "–" if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Return bytes in decimal units, ``286 kB``."""
    if number is None:
        return "–"
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= limit:
            value = number / limit
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{number} B"


def big(number: int | None) -> str:
    """Return ``41.2 M``."""
    if number is None:
        return "–"
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            value = number / limit
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return str(number)


def milliseconds(value: float | None) -> str:
    """Return ``0.312 ms``: three figures that matter."""
    if value is None:
        return "–"
    digits = next((d for limit, d in ((0.1, 4), (1, 3), (10, 2)) if value < limit), 1)
    return f"{value:.{digits}f} ms"


def certificate_sentence(certificate: Certificate) -> str:
    """Return in one or two sentences what the certificate proves, and what it does not."""
    if certificate.observed_drop is None or certificate.upper_bound is None:
        return "Without labelled samples nothing can be said about the quality."
    confidence = f"{certificate.confidence * 100:g} %"
    sentence = (
        f"On {count(certificate.n)} sealed samples the observed drop is "
        f"{signed_drop(certificate.observed_drop, certificate.unit)}; with {confidence} confidence "
        f"the true drop is at most {signed_drop(certificate.upper_bound, certificate.unit)}."
    )
    return f"{sentence} {_ending(certificate)}"


def signed_drop(drop: float, unit: str = "share") -> str:
    """Return a drop in points, in percent of the metric or in its unit; a gain is negative."""
    sign = MINUS if drop < 0 else ""
    match unit:
        case "relative":
            return f"{sign}{abs(drop) * 100:.2f} % of the metric"
        case "value":
            return f"{sign}{abs(drop):.4g}"
        case _:
            return f"{sign}{abs(drop) * 100:.2f} points"


def _ending(certificate: Certificate) -> str:
    budget = ""
    if certificate.max_drop is not None and certificate.unit == "share":
        budget = f"{certificate.max_drop * 100:g} points"
    elif certificate.max_drop is not None:
        budget = signed_drop(certificate.max_drop, certificate.unit)
    match certificate.outcome:
        case "certified":
            return f"The budget of {budget} is met, and the samples prove it."
        case "not_met":
            return f"The budget of {budget} is not met."
        case "not_enough_data":
            return "These are too few samples to prove anything closer."
        case "point_estimate_only" if certificate.max_drop is None:
            return "The job set no budget, so nothing was to be certified."
        case _:
            return f"The observed drop is within {budget}, but the samples do not prove it."
