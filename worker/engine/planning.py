"""The dry run of a recipe: what each pass would touch, skip and why, without training anything."""

from __future__ import annotations

from pydantic import JsonValue

from planish.contract.recipe import op_of
from planish.contract.report import PassPlan, Plan, PlanSize
from worker.engine.load.data import signature
from worker.engine.measure.macs import count_macs
from worker.engine.measure.size import count_parameters, weight_bytes
from worker.engine.model import Model
from worker.engine.passes import REGISTRY
from worker.engine.passes.layers import weighted_layers
from worker.engine.prepare import JobInputs, prepare
from worker.engine.progress import Silent
from worker.engine.publish import require_writers
from worker.engine.runtime_model.planning import plan_onnx
from worker.engine.runtime_model.prepare import is_onnx


def make_plan(inputs: JobInputs) -> Plan:
    """Return what the recipe would do to this model.

    Raises:
        InvalidModel, InvalidData, InvalidRecipe: what came cannot be used.
        MissingDependency: this worker cannot write an output.
    """
    require_writers(inputs.spec)
    if is_onnx(inputs):
        return plan_onnx(inputs)
    prepared = prepare(inputs)
    model = prepared.start.clone()
    planned: list[PassPlan] = []
    saved = 0
    for step, params in enumerate(inputs.spec.recipe or (), 1):
        op = op_of(type(params))
        model, plan = REGISTRY[op].plan(model, params, prepared.context(step, Silent()))
        planned.append(plan)
        saved += _integers_save(model, plan) if op == "quantize" else 0
    before, after = _size(prepared.original), _size(model)
    return Plan(
        inputs=tuple(_inputs(prepared.original)),
        before=before,
        after=after.model_copy(update={"size_bytes": after.size_bytes - saved}),
        passes=tuple(planned),
        warnings=_warnings(planned),
    )


def _size(model: Model) -> PlanSize:
    return PlanSize(
        params=count_parameters(model).total,
        size_bytes=weight_bytes(model),
        macs=count_macs(model),
    )


def _integers_save(model: Model, plan: PassPlan) -> int:
    """Return how many bytes the weights of the quantized layers lose: one byte each is left."""
    layers = weighted_layers(model.module)
    names = [layer.name for layer in plan.layers if layer.name in layers]
    weights = [layers[name].get_parameter("weight") for name in names]
    return sum(weight.numel() * (weight.element_size() - 1) for weight in weights)


def _inputs(model: Model) -> list[dict[str, JsonValue]]:
    found = map(signature, model.inputs)
    return [{"name": i.name, "shape": list(i.shape), "dtype": i.dtype} for i in found]


def _warnings(planned: list[PassPlan]) -> tuple[str, ...]:
    notes = (plan.facts.get("warning") for plan in planned)
    return tuple(note for note in notes if isinstance(note, str))
