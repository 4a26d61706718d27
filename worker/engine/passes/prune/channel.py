"""Channel pruning: the network really gets thinner, and still computes what it should."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import JsonValue
from torch import Tensor, fx, nn

from planish.contract.errors import NothingChanged
from planish.contract.problem import FieldError
from planish.contract.recipe import Prune
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.measure.macs import count_macs
from worker.engine.model import Model
from worker.engine.passes.layers import (
    in_channels,
    matching_layers,
    out_channels,
    weighted_layers,
)
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.prune.alignment import preferred_multiple
from worker.engine.passes.prune.channel_amount import find_amount
from worker.engine.passes.prune.channel_cut import Cut
from worker.engine.passes.prune.channel_groups import TIED, find_groups
from worker.engine.passes.prune.channel_rules import trace_flow
from worker.engine.passes.prune.channel_scores import rank, weight_scores
from worker.engine.passes.prune.recalibrate import recalibrate
from worker.engine.passes.prune.selection import Choice

Reasons = dict[str, str]
Widths = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class _Done:
    """What was cut: choices, why other layers stay, remarks on some, and the search's facts.

    `norms` holds the places of the channels that each BatchNorm keeps.
    """

    model: Model
    norms: dict[str, Tensor]
    choices: list[Choice]
    reasons: Reasons
    notes: Reasons
    facts: dict[str, JsonValue]


def run(model: Model, params: Prune, ctx: Context) -> Outcome:
    """Remove channels.

    Args:
        model: a float model; left as it is.
        params: how many channels go, and how they are ranked.
        ctx: gives the target, the data and the seed.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer, or data that the ranking needs is
            missing.
        NothingChanged: not one channel could go; the text says why for each kind of reason.
    """
    round_to = params.round_to or preferred_multiple(ctx.spec.target)
    done = _cut(model, params, round_to, ctx)
    outcome = _outcome(model, done, params, round_to, ctx)
    recalibrated = (
        params.recalibrate
        and ctx.splits is not None
        and recalibrate(
            done.model, ctx.splits.calibration, params.samples, ctx.device, model, done.norms
        )
    )
    return replace(outcome, facts={**outcome.facts, "recalibrated": recalibrated})


def plan(model: Model, params: Prune, ctx: Context) -> tuple[Model, PassPlan]:
    """Do it on a copy, to say what would go and to hand the thinner model to the next pass.

    Nothing is measured or recalibrated: for a latency, the same share of the arithmetic stands in.
    """
    cheap = params.model_copy(
        update={
            "recalibrate": False,
            "target_macs": params.target_macs or params.target_latency,
            "target_latency": None,
        }
    )
    outcome = run(model, cheap, ctx)
    facts = dict(outcome.facts)
    if params.target_latency is not None:
        facts["estimate"] = "widths follow the multiply-accumulates; the job measures latency"
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=facts,
    )


def _cut(model: Model, params: Prune, round_to: int, ctx: Context) -> _Done:
    """Choose and cut; groups for which the proof fails stay, and the choice is made anew."""
    cut = Cut(model, trace_flow(model.module, model.example(seed=ctx.seed)), ctx.seed)
    pointer = f"/recipe/{ctx.step - 1}/ignore"
    ignored = matching_layers(model.module, params.ignore, pointer)
    kept: Reasons = dict.fromkeys(ignored, "named in ignore")
    scores = weight_scores(model, params, ctx)
    while True:
        groups, reasons = find_groups(cut.flow, kept)
        ranked, notes = rank(groups, model, cut.flow, params, scores, ctx.seed)
        broken = cut.probe(ranked) if params.sparsity is None else {}
        if not broken:
            choices, facts = find_amount(cut, ranked, params, round_to, ctx)
            broken = cut.broken(choices)
        if not broken:
            thinned, norms = cut.thinned(choices), cut.kept_norms(choices)
            return _Done(thinned, norms, choices, reasons, notes, facts)
        kept |= broken


def _outcome(before: Model, done: _Done, params: Prune, round_to: int, ctx: Context) -> Outcome:
    reasons = done.reasons | {name: note for c in done.choices for name, note in c.notes.items()}
    widths = _widths(before.module, done.model.module, out_channels)
    reads = _widths(before.module, done.model.module, in_channels)
    skipped = tuple(
        LayerSkipped(name=name, why=reasons.get(name) or TIED)
        for name, (old, new) in widths.items()
        if old == new
    )
    if len(skipped) == len(widths):
        raise _nothing_changed(skipped, params, round_to, ctx)
    layers = tuple(
        LayerChanged(name=name, what=_what(widths[name], reads[name], _remark(done, name)))
        for name in widths
        if widths[name][0] != widths[name][1] or reads[name][0] != reads[name][1]
    )
    facts = {**_facts(before, done.model, params, round_to, widths), **done.facts}
    return Outcome(model=done.model, changed=True, layers=layers, skipped=skipped, facts=facts)


def _remark(done: _Done, name: str) -> str:
    said = next((c.notes[name] for c in done.choices if name in c.notes), "")
    return "; ".join(text for text in (said, done.notes.get(name, "")) if text)


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
    amounts = ((n, getattr(params, n)) for n in ("sparsity", "target_macs", "target_latency"))
    amount = next(f"{name} {value}" for name, value in amounts if value is not None)
    detail = f"prune would remove no channel at {amount}. " + "; ".join(
        said or ["the model has no layer with channels"]
    )
    if any("rounding" in why or "round_to" in why for why in by_reason):
        detail += (
            f". Prune more, or set round_to below {round_to}: channels that are no multiple of "
            f"{preferred_multiple(ctx.spec.target)} make the file smaller, though hardly faster"
        )
    pointer = f"/recipe/{ctx.step - 1}"
    return NothingChanged(detail, (FieldError(pointer=pointer, detail=detail),))
