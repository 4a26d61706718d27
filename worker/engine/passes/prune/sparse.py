"""Pruning of single weights, and of n:m patterns: zeros that every later step keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from planish.contract.errors import NothingChanged
from planish.contract.problem import FieldError
from planish.contract.recipe import Prune
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.masks import least_kept
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.prune.growing import growth_of
from worker.engine.passes.prune.recalibrate import recalibrate
from worker.engine.passes.prune.sparse_layers import Reasons, SparseLayer, sparse_layers
from worker.engine.passes.prune.zeroing import remove
from worker.engine.sparsity import Sparsity

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}


def run(model: Model, params: Prune, ctx: Context) -> Outcome:
    """Set weights to zero, or say which the next training pass removes little by little.

    Args:
        model: a float model; left as it is.
        params: which weights, and how many.
        ctx: gives data, seed and device.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer, or data that the method needs is
            missing.
        NothingChanged: not one weight would become zero; the text says why.
    """
    return _removed(model, params, params, ctx)


def plan(model: Model, params: Prune, ctx: Context) -> tuple[Model, PassPlan]:
    """Say which layers would lose how much, and hand on a model with as many zeros.

    Nothing runs on data for a plan: weights are ranked by magnitude, whatever the method. With the
    same share in every layer that changes nothing; one ranking over all may divide otherwise.

    Raises:
        InvalidRecipe, NothingChanged: as `run`.
    """
    method = params.method if params.method == "random" else "magnitude"
    cheap = params.model_copy(update={"method": method, "recalibrate": False})
    outcome = _removed(model, params, cheap, ctx)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts={key: value for key, value in outcome.facts.items() if key != "recalibrated"},
    )


def _removed(model: Model, params: Prune, ranked: Prune, ctx: Context) -> Outcome:
    """Do what `params` ask for, with weights ranked as `ranked` says."""
    work = model.clone()
    layers, reasons = _layers(work, params, ctx)
    before = {layer.key: int((layer.weight == 0).sum()) for layer in layers}
    if params.schedule == "cubic":
        growth, samples = growth_of(work, layers, ranked, ctx)
        after, recalibrated = dict(growth.zeros), False
    else:
        growth = None
        samples = remove(work, layers, ranked, ctx)
        after = {layer.key: int((layer.weight == 0).sum()) for layer in layers}
        recalibrated = _recalibrated(work, model, ranked, ctx)
    sparse = [layer for layer in layers if after[layer.key] > before[layer.key]]
    reasons |= {layer.name: _unchanged(layer, before) for layer in layers if layer not in sparse}
    if not sparse:
        raise _nothing_changed(reasons, params, ctx)
    kept = model.sparsity.weights if model.sparsity else ()
    names = dict.fromkeys((*kept, *(layer.key for layer in sparse)))
    return Outcome(
        model=replace(work, sparsity=Sparsity(tuple(names), growth)),
        changed=True,
        layers=tuple(_changed(layer, after, params, layers) for layer in sparse),
        skipped=tuple(LayerSkipped(name=name, why=why) for name, why in reasons.items()),
        facts={
            **_facts(layers, after, params, ctx),
            **({"samples": samples} if samples else {}),
            "recalibrated": recalibrated,
        },
    )


def _layers(work: Model, params: Prune, ctx: Context) -> tuple[list[SparseLayer], Reasons]:
    """Return the layers to prune; a pattern needs rows of at least one group."""
    pointer = f"/recipe/{ctx.step - 1}/ignore"
    layers, reasons = sparse_layers(work.module, params.ignore, pointer)
    if params.structure == "n:m":
        narrow = {
            layer.name: f"its rows of {layer.rows(layer.weight).shape[1]} weights are shorter than "
            f"a group of {params.kept_of[1]}"
            for layer in layers
            if layer.rows(layer.weight).shape[1] < params.kept_of[1]
        }
        reasons |= narrow
        layers = [layer for layer in layers if layer.name not in narrow]
    if params.method == "sparsegpt":
        turned = {
            layer.name: "sparsegpt has no rows of inputs for a transposed convolution"
            for layer in layers
            if layer.transposed
        }
        reasons |= turned
        layers = [layer for layer in layers if layer.name not in turned]
    return layers, reasons


def _recalibrated(work: Model, before: Model, params: Prune, ctx: Context) -> bool:
    if not params.recalibrate or ctx.splits is None:
        return False
    return recalibrate(work, ctx.splits.calibration, params.samples, ctx.device, before)


def _unchanged(layer: SparseLayer, before: Mapping[str, int]) -> str:
    zeros, size = before[layer.key], layer.weight.numel()
    if zeros:
        return f"{zeros:,} of its {size:,} weights are zero already, no more would be"
    return f"rounding keeps all of its {size:,} weights" if size < 1000 else "no weight would go"


def _changed(
    layer: SparseLayer, after: Mapping[str, int], params: Prune, layers: Sequence[SparseLayer]
) -> LayerChanged:
    zeros, size = after[layer.key], layer.weight.numel()
    growing = params.schedule == "cubic"
    what = f"{zeros / size:.1%} of {size:,} weights {'will be' if growing else 'are'} zero"
    notes = []
    if growing and params.scope == "global":
        notes.append("more or less, as one ranking decides while it trains")
    elif params.structure == "unstructured" and size - zeros <= _least(after, layers, size):
        notes.append("kept alive")
    rest = layer.rows(layer.weight).shape[1] % params.kept_of[1]
    if params.structure == "n:m" and rest:
        notes.append(f"the last {rest} of each row stay")
    return LayerChanged(name=layer.name, what=what + (f" ({', '.join(notes)})" if notes else ""))


def _least(after: Mapping[str, int], layers: Sequence[SparseLayer], size: int) -> int:
    total = sum(layer.weight.numel() for layer in layers)
    return least_kept(size, 1 - sum(after.values()) / total)


def _facts(
    layers: Sequence[SparseLayer], after: Mapping[str, int], params: Prune, ctx: Context
) -> dict[str, JsonValue]:
    sizes = {layer.key: layer.weight.numel() for layer in layers}
    total, zeros = sum(sizes.values()), sum(after.values())
    facts: dict[str, JsonValue] = {
        "structure": params.structure,
        "method": params.method,
        "schedule": params.schedule,
        "weights": total,
        "zeros": zeros,
        "sparsity": round(zeros / total, 6),
        "nonzero_share": {
            layer.name: round(1 - after[layer.key] / sizes[layer.key], 4) for layer in layers
        },
        "warning": _no_faster(params, ctx),
    }
    if params.structure == "n:m":
        return {**facts, "pattern": params.pattern}
    return {**facts, "scope": params.scope}


def _no_faster(params: Prune, ctx: Context) -> str:
    runtime = RUNTIMES.get(ctx.spec.target.runtime, "the runtime")
    pattern = (
        f" ({params.pattern} is for kernels of some GPUs)" if params.structure == "n:m" else ""
    )
    return (
        f"{runtime} computes zeros like any other number{pattern}: the file compresses better, the "
        "model runs no faster"
    )


def _nothing_changed(reasons: Reasons, params: Prune, ctx: Context) -> NothingChanged:
    by_reason = defaultdict(list)
    for name, why in reasons.items():
        by_reason[why].append(name)
    said = [
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {why}"
        for why, names in by_reason.items()
    ]
    detail = "prune would set no weight to zero. " + "; ".join(
        said or ["the model has no convolution or linear layer"]
    )
    return NothingChanged(detail, (FieldError(pointer=f"/recipe/{ctx.step - 1}", detail=detail),))
