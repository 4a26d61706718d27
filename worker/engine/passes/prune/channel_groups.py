"""Channels that can only go together, from the labels of a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker.engine.passes.prune.channel_flow import Flow
from worker.engine.passes.prune.labels import Axis

TIED = "its channels are tied to those of a layer that keeps them"


@dataclass(frozen=True)
class ChannelGroup:
    """Layers whose channels are tied, wholly or in part.

    Attributes:
        producers: the layers, in graph order; the first names the group.
        units: root labels of the channels that go together: one channel, an attention head, one
            channel of each convolution group. In order of the first channel.
        counts: channels of each unit in each producer, by its name; 0 where it has none of it.
        widths: channels of each producer, by its name; more than its units hold, if some stay.
        scores: importance of each unit, 1-D; empty until they are ranked.
    """

    producers: tuple[str, ...]
    units: tuple[int, ...]
    counts: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, int]
    scores: Tensor

    def cost(self, unit: int) -> int:
        """Return the channels that the unit at this place takes in the widest producer."""
        return max(counts[unit] for counts in self.counts.values())


def find_groups(
    flow: Flow, ignored: Mapping[str, str]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return what may go, and why other layers keep all their channels.

    Args:
        flow: the labels of a graph; the channels of ignored layers are marked in it as staying.
        ignored: layers to leave alone, with the reason.
    """
    for name, why in ignored.items():
        if name in flow.made:
            flow.labels.keep(flow.made[name], why)
    roots = {name: flow.labels.root(made) for name, made in flow.made.items()}
    free = {
        label
        for label in np.unique(np.concatenate([*roots.values(), np.zeros(1, dtype=np.int64)]))
        if flow.labels.why(int(label)) is None
    }
    groups = [
        _group([name for name in roots if name in members], roots, free)
        for members in _tied(roots, free)
    ]
    grouped = {name for group in groups for name in group.producers}
    reasons = {
        name: ignored.get(name) or _reason(flow, axis, ignored)
        for name, axis in roots.items()
        if name not in grouped
    }
    groups.sort(key=lambda group: list(roots).index(group.producers[0]))
    return groups, reasons


def _reason(flow: Flow, axis: Axis, ignored: Mapping[str, str]) -> str:
    why = flow.labels.why(int(axis[0])) if len(axis) else None
    return TIED if why is None or why in ignored.values() else why


def _tied(roots: Mapping[str, Axis], free: Collection[int]) -> list[set[str]]:
    """Return the sets of layers that share units, directly or through others."""
    holders = defaultdict(set)
    for name, axis in roots.items():
        for label in set(axis.tolist()) & set(free):
            holders[label].add(name)
    sets: list[set[str]] = []
    for names in {frozenset(names) for names in holders.values()}:
        joined = set(names)
        apart = []
        for other in sets:
            if other & joined:
                joined |= other
            else:
                apart.append(other)
        sets = [*apart, joined]
    return sets


def _group(names: list[str], roots: Mapping[str, Axis], free: Collection[int]) -> ChannelGroup:
    units: dict[int, None] = {}
    for name in sorted(names, key=lambda n: -len(roots[n])):
        units.update(dict.fromkeys(label for label in roots[name].tolist() if label in free))
    counts = {}
    for name in names:
        held, times = np.unique(roots[name], return_counts=True)
        number = dict(zip(held.tolist(), times.tolist(), strict=True))
        counts[name] = tuple(number.get(unit, 0) for unit in units)
    widths = {name: len(roots[name]) for name in names}
    return ChannelGroup(tuple(names), tuple(units), counts, widths, torch.empty(0))
