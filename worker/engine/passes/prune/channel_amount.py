"""How many channels go: a share of them, of the arithmetic, or of the measured time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from planish.contract.recipe import Prune
from worker.engine.measure.macs import count_macs
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.channel_cut import Cut
from worker.engine.passes.prune.channel_groups import ChannelGroup
from worker.engine.passes.prune.selection import Choice, choose
from worker.engine.passes.prune.timing import Timed

HALVINGS = 12
MEASURED_HALVINGS = 6
CLOSE = 0.02
"""Share of the wanted value by which the result may miss it."""

Cost = Callable[[Model], float]
"""What a thinner model costs, as a share of the original."""


@dataclass(frozen=True)
class Candidate:
    """Choices, the sparsity that they came from, and what they cost."""

    sparsity: float
    choices: list[Choice]
    share: float


def find_amount(
    cut: Cut, groups: Sequence[ChannelGroup], params: Prune, round_to: int, ctx: Context
) -> tuple[list[Choice], dict[str, JsonValue]]:
    """Return what each group loses, and facts about the search.

    Args:
        cut: builds thin models.
        groups: the channels that can go, ranked.
        params: says `sparsity`, `target_macs` or `target_latency`.
        round_to: kept channels are a multiple of this.
        ctx: gives the target to measure on.
    """
    if params.sparsity is not None:
        return choose(groups, params.sparsity, params.scope, round_to), {}

    def at(sparsity: float) -> list[Choice]:
        return choose(groups, sparsity, params.scope, round_to)

    if params.target_macs is not None:
        whole = count_macs(cut.model)
        wanted = params.target_macs
        found, nearest = _search(
            cut, at, lambda model: count_macs(model) / whole, wanted, HALVINGS, 0.0
        )
        return _finer(cut, found, nearest, wanted, whole)
    wanted = params.target_latency or 0.0
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        timed = Timed(cut.model, ctx, Path(folder))
        _, nearest = _search(cut, at, timed.share, wanted, MEASURED_HALVINGS, CLOSE)
    facts: dict[str, JsonValue] = {
        "sparsity_found": round(nearest.sparsity, 4),
        "latency_share": round(nearest.share, 4),
        "latency_measured": timed.seen,
    }
    return nearest.choices, facts | _miss("latency", nearest.share, wanted)


def _search(
    cut: Cut,
    at: Callable[[float], list[Choice]],
    cost: Cost,
    wanted: float,
    halvings: int,
    near: float,
) -> tuple[list[Candidate], Candidate]:
    """Halve the sparsity until a candidate is near; costs of equal cuts are taken once.

    Returns:
        The last candidates above and below the wanted share, and the nearest of all tried.
    """
    low, high = 0.0, 1.0
    above = nearest = Candidate(0.0, at(0.0), 1.0)
    below: Candidate | None = None
    seen: dict[frozenset[int], float] = {}
    for _ in range(halvings):
        middle = (low + high) / 2
        choices = at(middle)
        gone = frozenset(unit for choice in choices for unit in choice.removed)
        if gone not in seen:
            seen[gone] = cost(cut.thinned(choices)) if gone else 1.0
        tried = Candidate(middle, choices, seen[gone])
        nearest = min(nearest, tried, key=lambda c: abs(c.share - wanted))
        if abs(tried.share - wanted) <= near * wanted:
            break
        if tried.share > wanted:
            low, above = middle, tried
        else:
            high, below = middle, tried
    return [c for c in (above, below) if c is not None], nearest


def _finer(
    cut: Cut, found: list[Candidate], nearest: Candidate, wanted: float, whole: int
) -> tuple[list[Choice], dict[str, JsonValue]]:
    """Mix the two candidates group by group, where rounding makes many groups jump at once."""
    if abs(nearest.share - wanted) > CLOSE * wanted and len(found) > 1:
        above, below = found
        for start, end in ((above, below), (below, above)):
            nearest = _mixed(cut, start, end, nearest, wanted, whole)
    facts: dict[str, JsonValue] = {
        "sparsity_found": round(nearest.sparsity, 4),
        "macs_share": round(nearest.share, 4),
    }
    return nearest.choices, facts | _miss("multiply-accumulates", nearest.share, wanted)


def _mixed(
    cut: Cut, start: Candidate, end: Candidate, nearest: Candidate, wanted: float, whole: int
) -> Candidate:
    """Take the choices of `end` for one group after the other, without crossing what is wanted.

    Groups of which the units of least score go first; of which the most important come back first.
    """
    shrinks = start.share > end.share
    choices = list(start.choices)
    order = sorted(range(len(choices)), key=lambda i: _price(start, end, i), reverse=not shrinks)
    for place in order:
        if choices[place].removed == end.choices[place].removed:
            continue
        tried = [*choices[:place], end.choices[place], *choices[place + 1 :]]
        candidate = Candidate(end.sparsity, tried, count_macs(cut.thinned(tried)) / whole)
        nearest = min(nearest, candidate, key=lambda c: abs(c.share - wanted))
        if (candidate.share >= wanted) == shrinks:
            choices = tried
    return nearest


def _price(start: Candidate, end: Candidate, place: int) -> float:
    """Return the mean score of the units that one of the two removes and the other does not."""
    differ = set(start.choices[place].removed) ^ set(end.choices[place].removed)
    group = start.choices[place].group
    pairs = zip(group.units, group.scores.tolist(), strict=True)
    scores = [score for unit, score in pairs if unit in differ]
    return sum(scores) / len(scores) if scores else 0.0


def _miss(what: str, share: float, wanted: float) -> dict[str, JsonValue]:
    if abs(share - wanted) <= CLOSE * wanted:
        return {}
    return {
        "warning": f"the nearest share of the {what} that rounding allows is {share:.3f}, "
        f"not {wanted}"
    }
