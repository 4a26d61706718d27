"""Weight-only: fewer bytes to keep and to read; what is computed stays float."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pydantic import JsonValue
from torch import Tensor, nn

from planish.contract.recipe import Quantize
from planish.contract.report import LayerChanged, PassPlan
from worker.engine.load.data import Dataset
from worker.engine.model import Model, QuantizedLayer
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize import fp8
from worker.engine.passes.quantize.facts import scale_facts
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.quantize.weight_only import quantize_weights

_BATCH = 8  # a language model's outputs, which nobody reads here, are large


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Store the weights of linear layers, embeddings and convolutions in integers.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can be quantized.
    """
    if params.dtype == "fp8":
        return fp8.run(model, params, context)
    selection = select_quantizable(model, params, context)
    notes = _notes(model, selection.chosen)
    samples = _samples(params, context)
    done = quantize_weights(
        model,
        params,
        selection.chosen,
        None if samples is None else lambda: _inputs(samples),
        lambda share: context.progress.update(share, "rounding weights"),
    )
    layers = done.model.quantization.layers if done.model.quantization else ()
    return Outcome(
        model=done.model,
        changed=True,
        layers=tuple(_changed(layer) for layer in layers),
        skipped=selection.skipped,
        facts={
            **_facts(params, samples),
            **notes,
            **_errors(done.errors),
            "weight_scales": scale_facts(layers),
        },
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would be stored in integers."""
    if params.dtype == "fp8":
        return fp8.plan(model, params, context)
    selection = select_quantizable(model, params, context)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(
            LayerChanged(name=name, what=f"float32 → {_planned(model, name, params)}")
            for name in selection.chosen
        ),
        layers_skipped=selection.skipped,
        facts={
            **_facts(params, _samples(params, context)),
            **_notes(model, selection.chosen),
        },
    )


def _samples(params: Quantize, context: Context) -> Dataset | None:
    """Return what gptq learns from; None where weights are rounded to nearest."""
    wanted = params.algorithm == "gptq" or (params.algorithm == "auto" and params.dtype == "int4")
    if not wanted or context.splits is None:
        return None
    return context.splits.calibration.head(params.samples)


def _inputs(samples: Dataset) -> Iterator[tuple[Tensor, ...]]:
    return (inputs for inputs, _ in samples.batches(_BATCH))


def _planned(model: Model, name: str, params: Quantize) -> str:
    linear = isinstance(model.module.get_submodule(name), nn.Linear)
    return params.dtype if linear else "int8"


def _changed(layer: QuantizedLayer) -> LayerChanged:
    count = len(layer.scale)
    scales = f"scale {layer.scale[0]:.4g}" if count == 1 else f"{count} scales"
    return LayerChanged(name=layer.name, what=f"float32 → {layer.dtype}, {scales}")


def _facts(params: Quantize, samples: Dataset | None) -> dict[str, JsonValue]:
    unit = f"group of {params.group_size}" if params.granularity == "group" else params.granularity
    kind = "asymmetric" if params.dtype == "int4" else "symmetric"
    facts: dict[str, JsonValue] = {
        "mode": params.mode,
        "weights": f"{params.dtype}, {kind}, per {unit}",
        "activations": "float32",
        "algorithm": "rtn" if samples is None else "gptq",
    }
    if samples is not None:
        facts["samples"] = len(samples)
    elif params.algorithm == "auto" and params.dtype == "int4":
        facts["note"] = "no data came along: weights are rounded to nearest; gptq needs data"
    return facts


def _notes(model: Model, names: tuple[str, ...]) -> dict[str, JsonValue]:
    """Say what is treated otherwise than the parameters ask for."""
    layers = [model.module.get_submodule(name) for name in names]
    notes: dict[str, JsonValue] = {}
    if any(isinstance(layer, nn.Embedding) for layer in layers):
        notes["embeddings"] = "int8, symmetric, per row, and output layers that share their table"
    if any(isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in layers):
        notes["convolutions"] = (
            "int8, symmetric, per output channel; computed in floats: smaller, not faster"
        )
    return notes


def _errors(errors: dict[str, tuple[float, float]]) -> dict[str, JsonValue]:
    """Report the squared output error of each layer, rounded to nearest and by gptq."""
    if not errors:
        return {}
    ratios = [after / before for before, after in errors.values() if before > 0]
    return {
        "gptq_to_rtn_output_error": statistics.median(ratios) if ratios else None,
        "output_errors": {name: list(pair) for name, pair in errors.items()},
    }
