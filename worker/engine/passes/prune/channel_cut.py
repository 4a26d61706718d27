"""Trying cuts on one model: thin copies, and which groups a proof speaks against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.engine.model import Model
from worker.engine.passes.prune.channel_flow import Flow
from worker.engine.passes.prune.channel_groups import ChannelGroup
from worker.engine.passes.prune.proof import NotTheSame, prove
from worker.engine.passes.prune.selection import Choice, choose
from worker.engine.passes.prune.shape_repair import CannotRepair
from worker.engine.passes.prune.thinning import kept_of, thin

Reasons = dict[str, str]


@dataclass(frozen=True)
class Cut:
    """A model, the labels of its channels, and the seed of the inputs that proofs run on."""

    model: Model
    flow: Flow
    seed: int

    def thinned(self, choices: Sequence[Choice]) -> Model:
        """Return a copy without the chosen channels.

        Raises:
            CannotRepair: a constant of the graph cannot follow.
        """
        return thin(self.model, self.flow, _gone(choices))

    def kept_norms(self, choices: Sequence[Choice]) -> dict[str, Tensor]:
        """Return the places of the channels that each BatchNorm keeps, by its name."""
        gone = _gone(choices)
        return {
            name: torch.from_numpy(kept_of(self.flow, (axis,), gone)[0].nonzero()[0])
            for name, axis in self.flow.scaled.items()
        }

    def broken(self, choices: Sequence[Choice]) -> Reasons:
        """Return the layers whose cut is proven wrong, with the reason.

        All cuts are proven together; only if that fails are halves tried, down to single groups.
        """
        cuts = [choice for choice in choices if choice.removed]
        why = self._why_not(cuts)
        if why is None:
            return {}
        found = self._culprits(cuts, why)
        return found or {name: why for cut in cuts for name in cut.group.producers}

    def probe(self, groups: Sequence[ChannelGroup]) -> Reasons:
        """Return the layers that cannot lose half of their channels, with the reason."""
        return self.broken(choose(groups, 0.5, "layer", 1))

    def _culprits(self, cuts: Sequence[Choice], why: str) -> Reasons:
        if len(cuts) == 1:
            return dict.fromkeys(cuts[0].group.producers, why)
        found: Reasons = {}
        half = len(cuts) // 2
        for part in (cuts[:half], cuts[half:]):
            reason = self._why_not(part)
            if reason is not None:
                found |= self._culprits(part, reason)
        return found

    def _why_not(self, cuts: Sequence[Choice]) -> str | None:
        gone = _gone(cuts)
        if not gone:
            return None
        try:
            prove(self.model, thin(self.model, self.flow, gone), self.flow, gone, self.seed)
        except (CannotRepair, NotTheSame) as error:
            return str(error)
        return None


def _gone(choices: Sequence[Choice]) -> set[int]:
    return {unit for choice in choices for unit in choice.removed}
