"""How many blocks have to go for a wanted latency: estimated first, then measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import fx

from worker.engine.measure.latency import Contender, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.blocks import Block
from worker.engine.passes.prune.removal import remove_blocks
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2

ROUNDS = 12
PROFILED_RUNS = 5

First = Callable[[int], Sequence[Block]]
"""The first n blocks in the order of their removal."""


@dataclass(frozen=True)
class Shortening:
    """How many blocks go, and what was measured to find that out."""

    count: int
    facts: dict[str, JsonValue] = field(default_factory=dict)


def shorten(
    model: Model, blocks: Sequence[Block], first: First, share: float, ctx: Context
) -> Shortening:
    """Return the fewest blocks without which the model takes at most a share of its time.

    Begins at an estimate, then measures one block more or less at a time, model and shortened model
    in turns, at the target's batch size and threads.

    Args:
        model: what the share refers to.
        blocks: all that may go.
        first: the order in which they do.
        share: of the measured latency to keep, 0 to 1.
        ctx: gives the target.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        measured = _search(
            _Stopwatch(model, Path(folder), ctx),
            first,
            share,
            estimated_count(model, blocks, first, share),
            len(blocks),
        )
    reached = [count for count, value in measured.items() if value <= share]
    count = min(reached, default=len(blocks))
    facts: dict[str, JsonValue] = {
        "latency_share": round(measured[count], 4),
        "latency_measured": {str(n): round(value, 4) for n, value in sorted(measured.items())},
    }
    if measured[count] > share:
        facts["warning"] = (
            f"without all {count} blocks that may go, the model still takes "
            f"{measured[count]:.0%} of its time, not the {share:.0%} asked for"
        )
    return Shortening(count, facts)


def _search(
    stopwatch: _Stopwatch, first: First, share: float, start: int, most: int
) -> dict[int, float]:
    """Measure one count after the other, up or down from `start`, until the share is crossed."""
    measured = {start: stopwatch.share_without(first(start))}
    if measured[start] > share:
        for count in range(start + 1, most + 1):
            measured[count] = stopwatch.share_without(first(count))
            if measured[count] <= share:
                break
    else:
        for count in range(start - 1, 0, -1):
            measured[count] = stopwatch.share_without(first(count))
            if measured[count] > share:
                break
    return measured


def estimated_count(model: Model, blocks: Sequence[Block], first: First, share: float) -> int:
    """Return the count that the time of each block in this process suggests, at least 1."""
    times = _node_times(model)
    total = sum(times.values())
    for count in range(1, len(blocks)):
        gone = {node for block in first(count) for node in block.nodes}
        if total - sum(times[node] for node in gone) <= share * total:
            return count
    return len(blocks)


def _node_times(model: Model) -> dict[fx.Node, float]:
    """Return the least seconds that each node took in a few runs of one sample."""
    clock = _Clock(model.module)
    with torch.no_grad():
        for _ in range(PROFILED_RUNS):
            clock.run(*model.example(1))
    return clock.times


class _Clock(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.times: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> object:
        start = time.perf_counter()
        value: object = super().run_node(n)
        seconds = time.perf_counter() - start
        self.times[n] = min(seconds, self.times.get(n, seconds))
        return value


class _Stopwatch:
    """Times shortened models against the whole one on the target."""

    def __init__(self, model: Model, folder: Path, ctx: Context) -> None:
        target = ctx.spec.target
        self._model, self._progress = model, ctx.progress
        self._settings = Settings(target.runtime, target.threads, target.device)
        self._save, ending = (save_pt2, "pt2") if target.runtime == "torch" else (save_onnx, "onnx")
        self._whole, self._short = (folder / f"{name}.{ending}" for name in ("whole", "short"))
        example = model.example(target.batch_size)
        self._call = {s.name: t.numpy() for s, t in zip(model.inputs, example, strict=True)}
        self._save(model, self._whole)

    def share_without(self, gone: Sequence[Block]) -> float:
        """Return the latency without some blocks, as a share of the latency with them."""
        self._progress.update(0.5, f"timing the model without {len(gone)} blocks")
        self._save(remove_blocks(self._model, gone), self._short)
        times = compare_latency(
            {
                "whole": Contender(self._whole, self._settings),
                "short": Contender(self._short, self._settings),
            },
            self._call,
            rounds=ROUNDS,
        )
        return 1 / paired_ratio(times["whole"], times["short"])
