"""The before/after table."""

from __future__ import annotations

from collections.abc import Sequence

from planish.cli.console import print_table, size_text
from planish.contract.report import Latency, Measures, Metric, Report

Row = tuple[str, str, str, str]
SAME = 0.005  # what two decimals do not show


def print_comparison(report: Report) -> None:
    """Print what changed, and every warning of the report."""
    print_table(["", "before ", "after ", ""], comparison_rows(report))
    if report.warnings:
        print_table(["note"], [(warning,) for warning in report.warnings])


def comparison_rows(report: Report) -> Sequence[Row]:
    """Return metric, size, latencies, MACs and parameters; ratios are before / after.

    The size under zstd stands there where it says more than the size itself: with many zeros.
    """
    before, after, ratios = report.baseline, report.optimized, report.ratios
    rows: list[Row] = [
        (before.metric.name, _metric(before.metric), _metric(after.metric), _change(report)),
        ("size", size_text(before.size_bytes), size_text(after.size_bytes), _less(ratios.size)),
    ]
    if before.compressed_bytes and after.compressed_bytes and ratios.zeros_tell:
        sizes = size_text(before.compressed_bytes), size_text(after.compressed_bytes)
        rows.append(("compressed", *sizes, _less(ratios.compressed)))
    for name in ("p50", "p99"):
        cells = _latency(before.latency_ms, name), _latency(after.latency_ms, name)
        rows.append((f"latency {name}", *cells, faster(ratios.latency) if name == "p50" else ""))
    rows += [
        ("MACs", _count(before.macs), _count(after.macs), _less(ratios.macs)),
        ("parameters", _count(before.params), _count(after.params), _less(ratios.params)),
        ("peak memory", _memory(before), _memory(after), ""),
    ]
    return rows


def _metric(metric: Metric) -> str:
    if metric.value is None:
        return "not measured"
    if metric.total and metric.correct is not None:
        return f"{metric.value:.2%} ({metric.correct}/{metric.total})"
    return f"{metric.value:.4g}"


def _change(report: Report) -> str:
    """Say how the metric moved: in points, in percent where smaller is better, else in its unit."""
    before, after = report.baseline.metric, report.optimized.metric
    if before.value is None or after.value is None:
        return ""
    if after.total:
        return f"{(after.value - before.value) * 100:+.2f} points"
    if after.better == "lower":
        return f"{after.value / before.value - 1:+.2%}" if before.value else ""
    return f"{after.value - before.value:+.4f}"


def _latency(latency: Latency | None, name: str) -> str:
    return "not measured" if latency is None else f"{getattr(latency, name):.3f} ms"


def faster(ratio: float | None) -> str:
    """Say a latency ratio in words; a slower result is never called a faster one."""
    if ratio is None:
        return ""
    if abs(ratio - 1) < SAME:
        return "same"
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x SLOWER"


def _less(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if abs(ratio - 1) < SAME:
        return "same"
    return f"{ratio:.2f}x less" if ratio >= 1 else f"{1 / ratio:.2f}x MORE"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _memory(side: Measures) -> str:
    return "" if side.peak_memory_bytes is None else size_text(side.peak_memory_bytes)
