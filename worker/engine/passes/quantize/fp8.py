"""fp8 for GPUs: linear layers in eight-bit floats, with or without their activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import JsonValue
from torch import nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from planish.contract.report import LayerSkipped, PassPlan
from worker.engine.model import Model, Quantization, QuantizedLayer
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.quantizable import Selection, select_quantizable
from worker.engine.quantize.float8 import Float8Linear, multiplies


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Put the weights of linear layers into fp8; in mode dynamic activations follow in each call.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become fp8.
    """
    selection = _select(model, params, context)
    layers = tuple(_replace(model, name, params) for name in selection.chosen)
    kept = tuple(layer.name for layer in selection.skipped)
    model.module.requires_grad_(False).eval()
    return Outcome(
        model=replace(model, quantization=Quantization(params, layers, kept)),
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts={**_facts(params), "weight_scales": scale_facts(layers)},
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become fp8."""
    selection = _select(model, params, context)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=_facts(params),
    )


def _replace(model: Model, name: str, params: Quantize) -> QuantizedLayer:
    layer = model.module.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} is no linear layer")
    whole = params.granularity == "tensor"
    new = Float8Linear(layer, whole=whole, dynamic=params.mode == "dynamic")
    model.module.set_submodule(name, new)
    scale = tuple(new.weight_scale.flatten().tolist())
    return QuantizedLayer(name=name, dtype="fp8", scale=scale, zero_point=(0,) * len(scale))


def _select(model: Model, params: Quantize, context: Context) -> Selection:
    selection = select_quantizable(model, params, context)
    reasons = dict(_reasons(model, params, selection.chosen))
    chosen = tuple(name for name in selection.chosen if name not in reasons)
    more = tuple(LayerSkipped(name=name, why=why) for name, why in reasons.items())
    if not chosen:
        raise NothingChanged("no layer can become fp8: the model has no linear layer that fits")
    return Selection(chosen, (*selection.skipped, *more))


def _reasons(model: Model, params: Quantize, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        layer = model.module.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            yield name, "fp8 covers matrix products only"
        elif params.mode == "dynamic" and not multiplies(layer):
            yield name, "fp8 products need widths that are multiples of 16"


def _facts(params: Quantize) -> dict[str, JsonValue]:
    dynamic = params.mode == "dynamic"
    unit = "tensor" if params.granularity == "tensor" else "row"
    return {
        "mode": params.mode,
        "weights": f"fp8 (e4m3), per {params.granularity}",
        "activations": f"fp8, per {unit}, ranges found in each call" if dynamic else "float32",
    }
