"""Which channels go: a share of each layer, or the least important of all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.engine.passes.prune.alignment import nearest_multiple
from worker.engine.passes.prune.channel_groups import TIED, ChannelGroup

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Choice:
    """What one group loses.

    Attributes:
        group: the layers.
        removed: root labels of the units that go; empty when the group stays as it is.
        notes: by producer: why it stays, or what limited the cut.
    """

    group: ChannelGroup
    removed: tuple[int, ...]
    notes: Mapping[str, str]


def choose(
    groups: Sequence[ChannelGroup], sparsity: float, scope: Scope, round_to: int
) -> list[Choice]:
    """Return what each group loses: its least important units, ties in favour of the first.

    Args:
        groups: the channels that can go, ranked.
        sparsity: share of the channels to remove, 0 to 1.
        scope: the same share in every layer, or one ranking over all groups.
        round_to: kept channels of each layer are a multiple of this.
    """
    if scope == "global":
        return [
            _choice(group, wanted, round_to)
            for group, wanted in zip(groups, _global_widths(groups, sparsity), strict=True)
        ]
    return [
        _choice(group, {n: w * (1 - sparsity) for n, w in group.widths.items()}, round_to)
        for group in groups
    ]


def _global_widths(groups: Sequence[ChannelGroup], sparsity: float) -> list[dict[str, float]]:
    """Rank the units of all groups together and return the channels each layer keeps.

    No layer keeps less than half of what the same share everywhere would leave it: a ranking that
    all but closes one layer closes the network.
    """
    units = sorted(
        (score, group.cost(place), index, place)
        for index, group in enumerate(groups)
        for place, score in enumerate(group.scores.tolist())
    )
    budget = sparsity * sum(cost for _, cost, _, _ in units)
    widths = [{name: float(width) for name, width in group.widths.items()} for group in groups]
    for _, cost, index, place in units:
        if budget < cost:
            break
        group, left = groups[index], widths[index]
        less = {name: left[name] - counts[place] for name, counts in group.counts.items()}
        if all(less[name] >= group.widths[name] * (1 - sparsity) / 2 for name in less):
            widths[index] = less
            budget -= cost
    return widths


def _choice(group: ChannelGroup, wanted: Mapping[str, float], round_to: int) -> Choice:
    """Fix the kept units layer by layer, those with the fewest units first.

    Where layers share only some of their channels (a shortcut padded with zero channels), the
    narrow ones decide about what is shared, and the wide ones about the rest.
    """
    kept: dict[int, bool] = {}
    notes: dict[str, str] = {}
    for name in sorted(group.producers, key=lambda name: _restriction(group, name, round_to)):
        counts, width = group.counts[name], group.widths[name]
        multiple = math.lcm(max(counts), round_to)
        target = width
        if multiple <= width:
            target = nearest_multiple(wanted[name], multiple, width)
        notes[name] = _note(width, target, multiple, wanted[name], max(counts), round_to)
        _decide(group, name, target, kept)
    places = {unit: place for place, unit in enumerate(group.units)}
    removed = tuple(unit for unit in group.units if not kept[places[unit]])
    return Choice(group, removed, _of_cut(group, notes, removed))


def _restriction(group: ChannelGroup, name: str, round_to: int) -> tuple[int, int]:
    counts = group.counts[name]
    return sum(count > 0 for count in counts), -math.lcm(max(counts), round_to)


def _decide(group: ChannelGroup, name: str, target: int, kept: dict[int, bool]) -> None:
    """Keep the most important undecided units of a layer, up to `target` channels."""
    counts = group.counts[name]
    mine = [place for place, count in enumerate(counts) if count]
    left = target - (group.widths[name] - sum(counts))
    left -= sum(counts[place] for place in mine if kept.get(place))
    scores = group.scores.tolist()
    undecided = [place for place in mine if place not in kept]
    # Equal scores: the first go, so the last are kept.
    for place in sorted(undecided, key=lambda place: (-scores[place], -place)):
        kept[place] = counts[place] <= left
        left -= counts[place] if kept[place] else 0
    if mine and not any(kept[place] for place in mine) and group.widths[name] == sum(counts):
        kept[max(mine, key=lambda place: scores[place])] = True


def _note(width: int, target: int, multiple: int, wanted: float, step: int, round_to: int) -> str:
    if multiple > width:
        if step > 1:
            return (
                f"round_to {round_to} with units of {step} channels leaves no smaller width than "
                f"{width}"
            )
        return f"round_to {round_to} is more than its {width} channels"
    if target == width:
        what = f"multiples of {multiple}" if multiple > 1 else "whole channels"
        return f"rounding to {what} keeps all {width} channels"
    return f"the least that multiples of {multiple} allow" if wanted < multiple / 2 else ""


def _of_cut(
    group: ChannelGroup, notes: Mapping[str, str], removed: Sequence[int]
) -> dict[str, str]:
    """Return the notes; a layer that should shrink but did not is held by those it is tied to."""
    lost = set(removed)
    said = {}
    for name in group.producers:
        loses = any(c and u in lost for c, u in zip(group.counts[name], group.units, strict=True))
        said[name] = notes[name] if loses else notes[name] or TIED
        if loses and notes[name].startswith(("rounding", "round_to")):
            said[name] = ""
    return said
