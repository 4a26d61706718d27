"""Channel pruning: the network really gets thinner, and still computes what it should."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
import torch_pruning as tp
from pydantic import JsonValue
from torch import fx, nn

from planish.contract.errors import InternalError, NothingChanged
from planish.contract.problem import FieldError
from planish.contract.recipe import Prune
from planish.contract.report import LayerChanged, LayerSkipped
from worker.engine.measure.macs import count_macs
from worker.engine.model import Model
from worker.engine.passes.attention import find_heads
from worker.engine.passes.layers import (
    in_channels,
    matching_layers,
    out_channels,
    output_layers,
    weighted_layers,
)
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.prune.alignment import preferred_multiple
from worker.engine.passes.prune.channel_groups import ChannelGraph, Importance, Refused
from worker.engine.passes.prune.selection import Choice, choose
from worker.engine.passes.prune.shape_repair import record_shapes

Reasons = dict[str, str]
Widths = dict[str, tuple[int, int]]


def run(model: Model, params: Prune, ctx: Context) -> Outcome:
    """Remove channels.

    Args:
        model: a float model; left as it is.
        params: what share of the channels goes, and how they are ranked.
        ctx: gives the target and the seed.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer, or the graph cannot be traced.
        NothingChanged: not one channel could go; the text says why for each kind of reason.
    """
    round_to = params.round_to or preferred_multiple(ctx.spec.target)
    reasons = _untouchable(model, params, ctx)
    while True:
        try:
            pruned, choices = _attempt(model.clone(), params, round_to, reasons, ctx)
        except Refused as refused:
            if reasons.keys() >= set(refused.layers):
                raise InternalError(
                    f"pruning failed on layers that it left alone: {refused.why}"
                ) from refused
            reasons |= dict.fromkeys(refused.layers, refused.why)
            continue
        return _outcome(
            model, pruned, params, round_to, {**reasons, **_kept(choices)}, choices, ctx
        )


def _untouchable(model: Model, params: Prune, ctx: Context) -> Reasons:
    """Return the layers that must keep their channels whatever their weights are."""
    module = model.module
    pointer = f"/recipe/{ctx.step - 1}/ignore"
    heads = find_heads(module, record_shapes(module, model.example()))
    reasons = dict.fromkeys(heads.fused, "its attention heads cannot be told apart")
    reasons |= _shared(module)
    reasons |= dict.fromkeys(output_layers(module), "its channels are the model's output")
    ignored = matching_layers(module, params.ignore, pointer)
    return reasons | dict.fromkeys(ignored, "named in ignore")


def _shared(module: fx.GraphModule) -> Reasons:
    """Return layers that share a weight: thinning them one by one would tear them apart."""
    owners = defaultdict(list)
    for name, layer in weighted_layers(module).items():
        owners[id(layer.weight)].append(name)
    return {
        name: f"shares its weight with {', '.join(n for n in names if n != name)}"
        for names in owners.values()
        if len(names) > 1
        for name in names
    }


def _attempt(
    work: Model, params: Prune, round_to: int, reasons: Reasons, ctx: Context
) -> tuple[Model, list[Choice]]:
    """Cut everything that may be cut; `work` is used up.

    Raises:
        Refused: layers that have to be left alone; try again without them.
    """
    module, example = work.module, work.example(seed=ctx.seed)
    trainable = {name: p.requires_grad for name, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    heads = find_heads(module, record_shapes(module, example)).counts
    graph = ChannelGraph(module, example, heads)
    groups = graph.groups(list(reasons), _importance(params, ctx.seed))
    choices = choose(groups, params.sparsity or 0.0, params.scope, round_to)
    for done, choice in enumerate(choices):
        if choice.removed:
            graph.cut(choice.group, choice.removed)
        ctx.progress.update((done + 1) / len(choices), f"pruned {choice.group.producers[0]}")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trainable[name])
        parameter.grad = None
    _check_runs(work, choices)
    return work, choices


def _importance(params: Prune, seed: int) -> Importance:
    if params.method == "magnitude":
        return tp.importance.GroupMagnitudeImportance(p=2)  # type: ignore[no-any-return]
    generator = torch.Generator().manual_seed(seed)
    return lambda group: torch.rand(len(group[0][1]), generator=generator)


def _check_runs(work: Model, choices: list[Choice]) -> None:
    """Run another batch size than the one that shapes were repaired with.

    Raises:
        Refused: a size was baked in; names every thinned layer, since any of them may be the cause.
    """
    try:
        with torch.no_grad():
            work.module(*work.example(batch=3))
    except RuntimeError as error:
        thinned = tuple(n for c in choices if c.removed for n in c.group.producers)
        why = "without its channels the graph runs at one batch size only"
        raise Refused(thinned, why) from error


def _kept(choices: list[Choice]) -> Reasons:
    return {
        name: choice.note
        for choice in choices
        if not choice.removed
        for name in choice.group.producers
    }


def _outcome(
    before: Model,
    after: Model,
    params: Prune,
    round_to: int,
    reasons: Reasons,
    choices: list[Choice],
    ctx: Context,
) -> Outcome:
    notes = {name: c.note for c in choices if c.removed for name in c.group.producers}
    widths = _widths(before.module, after.module, out_channels)
    reads = _widths(before.module, after.module, in_channels)
    skipped = tuple(
        LayerSkipped(
            name=name,
            why=reasons.get(name, "its channels are tied to those of a layer that keeps them"),
        )
        for name, (old, new) in widths.items()
        if old == new
    )
    if not notes:
        raise _nothing_changed(skipped, params, round_to, ctx)
    layers = tuple(
        LayerChanged(name=name, what=_what(widths[name], reads[name], notes.get(name, "")))
        for name in widths
        if widths[name][0] != widths[name][1] or reads[name][0] != reads[name][1]
    )
    facts = _facts(before, after, params, round_to, widths)
    return Outcome(model=after, changed=True, layers=layers, skipped=skipped, facts=facts)


def _widths(
    before: fx.GraphModule, after: fx.GraphModule, size: Callable[[nn.Module], int]
) -> Widths:
    old, new = weighted_layers(before), weighted_layers(after)
    return {name: (size(old[name]), size(new[name])) for name in old}


def _what(width: tuple[int, int], reads: tuple[int, int], note: str) -> str:
    parts = []
    if width[0] != width[1]:
        parts.append(f"{width[0]} → {width[1]} channels" + (f" ({note})" if note else ""))
    if reads[0] != reads[1]:
        parts.append(f"reads {reads[0]} → {reads[1]}")
    return ", ".join(parts)


def _facts(
    before: Model, after: Model, params: Prune, round_to: int, widths: Widths
) -> dict[str, JsonValue]:
    changed = {name: list(pair) for name, pair in widths.items() if pair[0] != pair[1]}
    total = sum(old for old, _ in widths.values())
    gone = sum(old - new for old, new in widths.values())
    return {
        "method": params.method,
        "scope": params.scope,
        "round_to": round_to,
        "channels": {name: [old, new] for name, (old, new) in changed.items()},
        "channels_removed": gone,
        "channels_removed_share": round(gone / total, 4),
        "params": [_params(before.module), _params(after.module)],
        "macs": [count_macs(before), count_macs(after)],
    }


def _params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _nothing_changed(
    skipped: tuple[LayerSkipped, ...], params: Prune, round_to: int, ctx: Context
) -> NothingChanged:
    by_reason = defaultdict(list)
    for layer in skipped:
        by_reason[layer.why].append(layer.name)
    said = [
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {why}"
        for why, names in by_reason.items()
    ]
    detail = f"prune would remove no channel at sparsity {params.sparsity}. " + "; ".join(
        said or ["the model has no layer with channels"]
    )
    if any("rounding" in why or "round_to" in why for why in by_reason):
        detail += (
            f". Raise sparsity, or set round_to below {round_to}: channels that are no multiple of "
            f"{preferred_multiple(ctx.spec.target)} make the file smaller, though hardly faster"
        )
    pointer = f"/recipe/{ctx.step - 1}"
    return NothingChanged(detail, (FieldError(pointer=pointer, detail=detail),))
