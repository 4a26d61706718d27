"""Layer pruning: whole blocks go, and the network really gets shorter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import JsonValue

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.problem import FieldError
from planish.contract.recipe import Prune
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.measure.macs import count_macs
from worker.engine.model import Model
from worker.engine.passes.layers import matching_layers
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.prune.blocks import Block, find_blocks
from worker.engine.passes.prune.depth import Shortening, estimated_count, shorten
from worker.engine.passes.prune.influence import Effect, block_influence, by_effect, gather
from worker.engine.passes.prune.recalibrate import recalibrate
from worker.engine.passes.prune.removal import remove_blocks
from worker.engine.train.placement import move

Ranked = Iterator[tuple[Block, float]]


@dataclass
class Order:
    """Blocks in the order of their removal, found out as far as it is asked for."""

    source: Ranked
    known: list[tuple[Block, float]] = field(default_factory=list)

    def first(self, count: int) -> list[Block]:
        """Return the first `count` blocks."""
        while len(self.known) < count:
            self.known.append(next(self.source))
        return [block for block, _ in self.known[:count]]


@dataclass(frozen=True)
class Candidates:
    """The blocks that may go, and why the others may not."""

    blocks: tuple[Block, ...]
    kept: dict[str, str]


def run(model: Model, params: Prune, ctx: Context) -> Outcome:
    """Remove blocks.

    Args:
        model: a float model; left as it is.
        params: how many blocks go, and how they are ranked.
        ctx: gives samples, task, target and seed.

    Raises:
        InvalidRecipe: more blocks than there are, an `ignore` pattern that matches no layer, or
            no data to rank on.
        NothingChanged: the graph has no block that could go; the text says why.
    """
    work = model.clone()
    found = _candidates(work, params, ctx)
    order = Order(_ranked(work, found.blocks, params, ctx))
    if params.target_latency is None:
        result = Shortening(_count(params, len(found.blocks), ctx))
        for number in range(1, result.count + 1):
            name = order.first(number)[-1].name
            ctx.progress.update(number / result.count, f"block {number}: {name}")
    else:
        result = shorten(work, found.blocks, order.first, params.target_latency, ctx)
    removed = order.first(result.count)
    after = remove_blocks(work, removed)
    facts: dict[str, JsonValue] = {
        **_facts(model, after, found, removed, params),
        **result.facts,
        "removed": [_removed(*item, params) for item in order.known[: result.count]],
        "recalibrated": params.recalibrate
        and ctx.splits is not None
        and recalibrate(after, ctx.splits.calibration, params.samples, ctx.device, model),
    }
    return _outcome(after, found, removed, facts)


def plan(model: Model, params: Prune, ctx: Context) -> tuple[Model, PassPlan]:
    """Say which blocks could go and how many would; which ones they are is decided on data.

    The model handed on has as many blocks less, chosen at random. The count for a latency is an
    estimate from the time that each block takes in this process.
    """
    work = model.clone()
    found = _candidates(work, params, ctx)
    order = Order(_at_random(found.blocks, ctx.seed))
    if params.target_latency is None:
        count = _count(params, len(found.blocks), ctx)
    else:
        count = estimated_count(work, found.blocks, order.first, params.target_latency)
    removed = order.first(count)
    after = remove_blocks(work, removed)
    facts = _facts(model, after, found, removed, params)
    skipped = tuple(LayerSkipped(name=name, why=why) for name, why in found.kept.items())
    return after, PassPlan(
        op=params.op,
        layers_changed=count,
        layers=tuple(
            LayerChanged(name=block.name, what=f"one of {len(found.blocks)} that may go")
            for block in found.blocks
        ),
        layers_skipped=skipped,
        facts=facts,
    )


def _candidates(model: Model, params: Prune, ctx: Context) -> Candidates:
    """Return the blocks that the recipe leaves to choose from.

    Raises:
        InvalidRecipe, NothingChanged: see `run`.
    """
    pointer = f"/recipe/{ctx.step - 1}"
    ignored = set(matching_layers(model.module, params.ignore, f"{pointer}/ignore"))
    found = find_blocks(model)
    kept = dict(found.refused)
    for block in found.blocks:
        if not ignored.isdisjoint(block.layers):
            kept[block.name] = "named in ignore"
    blocks = tuple(block for block in found.blocks if block.name not in kept)
    if not blocks:
        said = "; ".join(f"{name}: {why}" for name, why in kept.items())
        detail = (
            "prune finds no block to remove: a block is a part of the graph with one way in and "
            "one way out whose output has the shape of its input, such as a residual block or a "
            f"transformer layer. {said or 'This graph has none'}"
        )
        raise NothingChanged(detail, (FieldError(pointer=pointer, detail=detail),))
    return Candidates(blocks, kept)


def _count(params: Prune, available: int, ctx: Context) -> int:
    """Return how many blocks go: a share is rounded to the nearest count that leaves one.

    Raises:
        InvalidRecipe: more blocks are asked for than there are.
    """
    if params.blocks is None:
        wanted = int(available * (params.sparsity or 0.0) + 0.5)
        return max(1, min(wanted, available - 1))
    if params.blocks > available:
        pointer = f"/recipe/{ctx.step - 1}/blocks"
        detail = f"blocks is {params.blocks}, and the model has {available} that may go"
        raise InvalidRecipe(detail, (FieldError(pointer=pointer, detail=detail),))
    return params.blocks


def _ranked(model: Model, blocks: Sequence[Block], params: Prune, ctx: Context) -> Ranked:
    """Return blocks in the order of their removal, with their scores.

    Raises:
        InvalidRecipe: the ranking needs data and there is none.
    """
    if params.method == "random":
        return _at_random(blocks, ctx.seed)
    if ctx.splits is None or not len(ctx.splits.calibration):
        raise InvalidRecipe(f"prune ranks blocks by {params.method} on data; send a data file")
    task = ctx.spec.data.task
    twin = model.clone()
    names = {block.name: block for block in blocks}
    twins = [block for block in find_blocks(twin).blocks if block.name in names]
    module = move(twin.module, ctx.device)
    samples = gather(module, ctx.splits.calibration, params.samples, task, ctx.device)
    if params.method == "block_influence":
        scores = block_influence(module, samples, twins)
        ranked = iter(sorted(scores.items(), key=lambda item: item[1]))
    else:
        ranked = by_effect(Effect(module, samples, task), twins)
    return ((names[block.name], score) for block, score in ranked)


def _at_random(blocks: Sequence[Block], seed: int) -> Ranked:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(blocks), generator=generator).tolist()
    return ((blocks[index], 0.0) for index in order)


def _facts(
    before: Model, after: Model, found: Candidates, removed: Sequence[Block], params: Prune
) -> dict[str, JsonValue]:
    return {
        "method": params.method,
        "blocks_found": len(found.blocks),
        "blocks_removed": len(removed),
        "params": [_params(before), _params(after)],
        "macs": [count_macs(before), count_macs(after)],
    }


def _params(model: Model) -> int:
    return sum(p.numel() for p in model.module.parameters())


def _outcome(
    after: Model, found: Candidates, removed: Sequence[Block], facts: dict[str, JsonValue]
) -> Outcome:
    left = {str(node.target) for node in after.module.graph.nodes if node.op == "call_module"}
    layers = tuple(
        change for b in found.blocks if b in removed for change in _layers_changed(b, left)
    )
    kept = {
        block.name: "the model's answers need it more than those removed"
        for block in found.blocks
        if block not in removed
    }
    skipped = tuple(LayerSkipped(name=n, why=why) for n, why in {**found.kept, **kept}.items())
    return Outcome(model=after, changed=True, layers=layers, skipped=skipped, facts=facts)


def _removed(block: Block, score: float, params: Prune) -> dict[str, JsonValue]:
    if params.method == "random":
        return {"name": block.name}
    return {"name": block.name, "score": round(score, 6)}


def _layers_changed(block: Block, left: Collection[str]) -> list[LayerChanged]:
    """Return the layers that went with a block; those that another call still uses stay."""
    gone = [name for name in block.layers if name not in left]
    if not gone:
        return [LayerChanged(name=block.name, what="called once less")]
    return [LayerChanged(name=name, what=f"removed with block {block.name}") for name in gone]
