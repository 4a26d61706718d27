"""Plots as inline SVG: no scripts, colours from the page's CSS classes, a text for screen readers.

Every plot is drawn 400 units wide, so that its text stays readable on a phone; the page puts plots
side by side where there is room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from worker.engine.report.markup import Html, el, join

WIDTH = 400
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 26
_OUTLIER = 1.6
Tick = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Values over 1, 2, 3 …; `css` is the class that gives the colour."""

    css: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Band:
    """A named stretch of the horizontal axis, both ends included."""

    name: str
    first: int
    last: int


def bar_pair(before: float, after: float, label: str) -> Html:
    """Return two bars, before over after, on one scale from zero."""
    full = max(before, after, 1e-12)
    bars: list[Html] = []
    for y, value, css in ((0, before, "before"), (11, after, "after")):
        bars.append(_bar(y, 7, 100, "track"))
        bars.append(_bar(y, 7, max(100 * value / full, 0.6), css))
    return _svg("bars", 100, 18, label, bars, stretch=True)


def overlap_bar(before: int, after: int, largest: int, label: str) -> Html:
    """Return one bar with the part that is left over the part that was there."""
    scale = 100 / max(largest, 1)
    bars = [
        _bar(0, 8, max(value * scale, 0.8), css)
        for value, css in ((before, "before"), (after, "after"))
        if value
    ]
    return _svg("bar", 100, 8, label, bars, stretch=True)


def lines(series: Series, bands: Sequence[Band], label: str, tick: Tick) -> Html:
    """Return a line plot over the epochs, with bands that name the passes.

    Epochs without a value, or with one that is not finite, leave a gap.
    """
    height = 220
    known = [v for v in series.values if v is not None and math.isfinite(v)] or [0.0]
    count = len(series.values)
    axis = Axis.over(min(known), max(known), height - BOTTOM, TOP + 20)

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 0.5) / count

    parts = [*_bands(bands, x, height), *_grid(axis, tick), *_epoch_ticks(count, x, height)]
    return _svg("plot", WIDTH, height, label, [*parts, *_line(series, x, axis, tick)])


def strips(rounds: dict[str, tuple[float, ...]], label: str, tick: Tick) -> Html:
    """Return one lane of dots for each side: the median latency of every round.

    Rounds that something else on the machine disturbed stand at the end of the axis, hollow.
    """
    height, lane = 170, 58
    known = [value for values in rounds.values() for value in values]
    usual = _OUTLIER * max(median(values) for values in rounds.values())
    axis = Axis.over(0.0, min(max(known), usual), LEFT - 32, WIDTH - RIGHT - 14)
    parts: list[Html] = []
    for value in axis.ticks:
        at = axis.at(value)
        parts.append(el("line", x1=at, x2=at, y1=TOP, y2=height - BOTTOM, class_="grid"))
        parts.append(
            el("text", tick(value), x=at, y=height - 8, class_="tick", text_anchor="middle")
        )
    for row, (side, values) in enumerate(rounds.items()):
        css = "after" if side == "optimized" else "before"
        parts += _lane(side, values, css, TOP + 26 + row * lane, axis, tick)
    return _svg("plot", WIDTH, height, label, parts)


@dataclass(frozen=True)
class Axis:
    """A linear scale with round ticks, from values to units of the drawing."""

    ticks: tuple[float, ...]
    start: float
    end: float

    @classmethod
    def over(cls, low: float, high: float, start: float, end: float) -> Axis:
        """Return an axis whose ticks enclose low..high in about four round steps."""
        span = (high - low) or abs(high) or 1.0
        power = 10.0 ** math.floor(math.log10(span / 4))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= span / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if first == last:
            last += 1
        return cls(tuple(step * i for i in range(first, last + 1)), start, end)

    def at(self, value: float) -> float:
        """Return where a value lies."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def _lane(
    side: str, values: tuple[float, ...], css: str, y: float, axis: Axis, tick: Tick
) -> list[Html]:
    middle = median(values)
    at = axis.at(middle)
    end, far = axis.ticks[-1], sum(value > axis.ticks[-1] for value in values)
    dots = [
        _dot(
            axis.at(min(value, end)),
            y + 18 + _jitter(index),
            f"{css} far" if value > end else css,
            tick(value),
        )
        for index, value in enumerate(values)
    ]
    title = f"{side}, median {tick(middle)} ms" + (f", {far} beyond the axis" if far else "")
    text = el("text", title, x=LEFT - 32, y=y, class_="name")
    return [text, *dots, el("line", x1=at, x2=at, y1=y + 5, y2=y + 31, class_="median")]


def _jitter(index: int) -> float:
    """Spread dots over a lane, the same way each time (golden-ratio sequence)."""
    return ((index * 0.618034) % 1 - 0.5) * 20


def _line(series: Series, x: Callable[[float], float], axis: Axis, tick: Tick) -> list[Html]:
    known = [
        (epoch, x(epoch), axis.at(value), value)
        for epoch, value in enumerate(series.values, 1)
        if value is not None and math.isfinite(value)
    ]
    if not known:
        return []
    path = " ".join(
        f"{'L' if n else 'M'}{px:.1f} {py:.1f}" for n, (_, px, py, _) in enumerate(known)
    )
    dots = [_dot(px, py, series.css, f"epoch {i}: {tick(v)}") for i, px, py, v in known]
    _, px, py, last = known[-1]
    end = el("text", tick(last), x=px, y=py - 9, class_="value", text_anchor="end")
    return [el("path", d=path, class_=f"line {series.css}"), *dots, end]


def _bands(bands: Sequence[Band], x: Callable[[float], float], height: int) -> list[Html]:
    parts = []
    for index, band in enumerate(bands):
        left, right = x(band.first - 0.5), x(band.last + 0.5)
        size = {"width": right - left, "height": height - BOTTOM - TOP}
        css = "band odd" if index % 2 else "band"
        parts.append(el("rect", x=left, y=TOP, class_=css, **size))
        parts.append(el("text", band.name, x=left + 5, y=TOP + 12, class_="tick"))
    return parts


def _grid(axis: Axis, tick: Tick) -> list[Html]:
    parts = []
    for value in axis.ticks:
        y = axis.at(value)
        parts.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", tick(value), x=LEFT - 6, y=y + 4, class_="tick", text_anchor="end"))
    return parts


def _epoch_ticks(count: int, x: Callable[[float], float], height: int) -> list[Html]:
    step = max(1, math.ceil(count / 8))
    return [
        el("text", str(i), x=x(i), y=height - 9, class_="tick", text_anchor="middle")
        for i in range(1, count + 1)
        if (i - 1) % step == 0 or i == count
    ]


def _bar(y: float, height: float, width: float, css: str) -> Html:
    return el("rect", x=0, y=y, width=width, height=height, rx=1, class_=css)


def _dot(x: float, y: float, css: str, text: str) -> Html:
    return el("circle", el("title", text), cx=x, cy=y, r=3.2, class_=f"dot {css}")


def _svg(
    css: str, width: int, height: int, label: str, parts: list[Html], stretch: bool = False
) -> Html:
    attributes: dict[str, str | None] = {
        "viewBox": f"0 0 {width} {height}",
        "preserveAspectRatio": "none" if stretch else None,
    }
    return el(
        "svg",
        el("title", label),
        join(parts),
        class_=css,
        role="img",
        aria_label=label,
        **attributes,
    )
