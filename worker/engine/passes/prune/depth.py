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
    measured: dict[int, float] = {}

    def reaches(count: int) -> bool:
        if count not in measured:
            ctx.progress.update(0.5, f"timing the model without {count} blocks")
            measured[count] = _measured_share(model, first(count), ctx)
        return measured[count] <= share

    count = estimated_count(model, blocks, first, share)
    while not reaches(count) and count < len(blocks):
        count += 1
    while count > 1 and reaches(count) and reaches(count - 1):
        count -= 1
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


def _measured_share(model: Model, gone: Sequence[Block], ctx: Context) -> float:
    """Return the latency without some blocks, as a share of the latency with them."""
    target = ctx.spec.target
    call = {
        spec.name: tensor.numpy()
        for spec, tensor in zip(model.inputs, model.example(target.batch_size), strict=True)
    }
    settings = Settings(target.runtime, target.threads, target.device)
    save, ending = (save_pt2, "pt2") if target.runtime == "torch" else (save_onnx, "onnx")
    sides = {"whole": model, "shortened": remove_blocks(model, gone)}
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        contenders = {name: Contender(Path(folder, f"{name}.{ending}"), settings) for name in sides}
        for name, side in sides.items():
            save(side, contenders[name].path)
        times = compare_latency(contenders, call, rounds=ROUNDS)
    return 1 / paired_ratio(times["whole"], times["shortened"])
