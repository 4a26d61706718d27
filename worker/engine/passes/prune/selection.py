"""Which channels go: a share of each layer, or the least important of all layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from worker.engine.passes.prune.alignment import nearest_multiple
from worker.engine.passes.prune.channel_groups import ChannelGroup

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Choice:
    """What one group loses.

    Attributes:
        group: the layers.
        removed: channel indices; empty when the group stays as it is.
        note: why it stays, or what limited the cut; may be empty.
    """

    group: ChannelGroup
    removed: tuple[int, ...]
    note: str


def choose(
    groups: Sequence[ChannelGroup], sparsity: float, scope: Scope, round_to: int
) -> list[Choice]:
    """Return what each group loses: its least important units, ties in favour of the first.

    Args:
        groups: the channels that can go.
        sparsity: share of the channels to remove, 0 to 1.
        scope: the same share in every group, or one ranking over all groups.
        round_to: kept channels are a multiple of this.
    """
    wanted = _global_widths(groups, sparsity) if scope == "global" else None
    return [
        _choice(group, wanted[i] if wanted else group.width * (1 - sparsity), round_to)
        for i, group in enumerate(groups)
    ]


def _global_widths(groups: Sequence[ChannelGroup], sparsity: float) -> list[float]:
    """Rank the units of all groups together and return the channels each group keeps."""
    units = [
        (score, group.step, index)
        for index, group in enumerate(groups)
        for score in group.scores.tolist()
    ]
    budget = sparsity * sum(step for _, step, _ in units)
    widths = [float(group.width) for group in groups]
    for _, step, index in sorted(units):
        if budget < step:
            break
        budget -= step
        widths[index] -= step
    return widths


def _choice(group: ChannelGroup, wanted: float, round_to: int) -> Choice:
    multiple = math.lcm(group.step, round_to)
    if multiple > group.width:
        return Choice(group, (), _too_narrow(group, round_to))
    kept = nearest_multiple(wanted, multiple, group.width)
    if kept == group.width:
        what = f"multiples of {multiple}" if multiple > 1 else "whole channels"
        return Choice(group, (), f"rounding to {what} keeps all {group.width} channels")
    note = f"the least that multiples of {multiple} allow" if wanted < multiple / 2 else ""
    order = torch.argsort(group.scores, stable=True)[: (group.width - kept) // group.step]
    removed = sorted(channel for unit in order.tolist() for channel in group.units[unit])
    return Choice(group, tuple(removed), note)


def _too_narrow(group: ChannelGroup, round_to: int) -> str:
    if group.step > 1:
        return (
            f"round_to {round_to} with {group.why_units} leaves no smaller width than {group.width}"
        )
    return f"round_to {round_to} is more than its {group.width} channels"
