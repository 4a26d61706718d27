"""Cast: weights and arithmetic in 16-bit floats, where the values fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from pydantic import JsonValue
from torch import Tensor, fx, nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Cast
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.cast.lower import lower
from worker.engine.cast.ranges import too_large
from worker.engine.load.data import synthetic
from worker.engine.model import Model
from worker.engine.passes import simplify
from worker.engine.passes.layers import matching_layers, shared_weights, weighted_layers
from worker.engine.passes.protocol import Context, Outcome

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_BATCH = 32
_NOISE_WARNING = (
    "no data came along: ranges of values were measured on synthetic noise; send data, so that "
    "layers whose values leave the range of fp16 are found"
)


def run(model: Model, params: Cast, ctx: Context) -> Outcome:
    """Lower a float32 model, after folding its BatchNorm layers.

    Layers whose outputs leave half of the type's range on the samples stay float32, as do
    operators that the type cannot compute; casts stand between. Inputs and outputs are float32.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: every layer stays float32.
    """
    model = simplify.run(model, simplify.FOLD, ctx).model
    dtype = DTYPES[params.dtype]
    large = too_large(model.module, _batches(model, params, ctx), dtype)
    wide = {*large, *_readers(model.module, large)}
    reasons = _kept(model, params, large, ctx)
    names = list(weighted_layers(model.module))
    if len(reasons) == len(names):
        raise NothingChanged(_nothing(params, reasons))
    before = _bytes(model.module)
    refused = lower(
        model.module,
        model.example(),
        dtype,
        wide_layers=tuple(reasons),
        wide_nodes=wide,
    )
    kind = str(dtype).removeprefix("torch.")
    return Outcome(
        model=replace(model, precision=dtype),
        changed=True,
        layers=tuple(
            LayerChanged(name=n, what=f"float32 → {kind}") for n in names if n not in reasons
        ),
        skipped=tuple(LayerSkipped(name=n, why=why) for n, why in reasons.items()),
        facts={
            "dtype": params.dtype,
            "weight_bytes": [before, _bytes(model.module)],
            "float32_operators": [*sorted({*refused, *_operators(model.module, wide)})],
            "largest_values": {**large},
            **_warning(params, ctx),
        },
    )


def plan(model: Model, params: Cast, ctx: Context) -> tuple[Model, PassPlan]:
    """Do it on a copy, and say what would be lowered."""
    outcome = run(model.clone(), params, ctx)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=outcome.facts,
    )


def _batches(model: Model, params: Cast, ctx: Context) -> Iterator[tuple[Tensor, ...]]:
    if ctx.splits is None:
        samples = synthetic(model, params.samples, ctx.seed)
    else:
        samples = ctx.splits.calibration.head(params.samples)
    for index, (inputs, _) in enumerate(samples.batches(_BATCH)):
        done = min(index * _BATCH / len(samples), 1.0)
        ctx.progress.update(done, f"measuring ranges {index * _BATCH}/{len(samples)}")
        yield inputs


def _kept(model: Model, params: Cast, large: dict[str, float], ctx: Context) -> dict[str, str]:
    """Return the layers that stay float32, and why; layers that share a weight stay together."""
    module = model.module
    reasons = dict.fromkeys(
        matching_layers(module, params.keep_float, f"/recipe/{ctx.step - 1}/keep_float"),
        "named in keep_float",
    )
    for node in module.graph.nodes:
        peaks = [large[n.name] for n in (node, *node.all_input_nodes) if n.name in large]
        if node.op == "call_module" and peaks:
            why = f"values up to {max(peaks):.4g} leave {params.dtype}'s range"
            reasons.setdefault(str(node.target), why)
    names = weighted_layers(module)
    reasons = {name: why for name, why in reasons.items() if name in names}
    for name, why in shared_weights(module).items():
        partners = [p for p in reasons if p != name and p in why]
        if name not in reasons and partners:
            reasons[name] = f"{why}, which stays float32"
    return reasons


def _readers(module: fx.GraphModule, large: Collection[str]) -> Iterator[str]:
    """Yield the nodes that read a value which must not be narrowed."""
    for node in module.graph.nodes:
        if any(source.name in large for source in node.all_input_nodes):
            yield node.name


def _operators(module: fx.GraphModule, names: Collection[str]) -> Iterator[str]:
    return (n.name for n in module.graph.nodes if n.op == "call_function" and n.name in names)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in {id(p): p for p in module.parameters()}.values())


def _warning(params: Cast, ctx: Context) -> dict[str, JsonValue]:
    return {"warning": _NOISE_WARNING} if ctx.splits is None and params.dtype == "fp16" else {}


def _nothing(params: Cast, reasons: dict[str, str]) -> str:
    said = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:5])
    return f"no layer can become {params.dtype} ({said or 'the model has no layers with weights'})"
