"""The dry run of a recipe on an ONNX graph."""

from __future__ import annotations

from planish.contract.recipe import op_of
from planish.contract.report import PassPlan, Plan, PlanSize
from worker.engine.load.data import signature
from worker.engine.prepare import JobInputs
from worker.engine.progress import Silent
from worker.engine.runtime_model.figures import weight_bytes
from worker.engine.runtime_model.layers import layers_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.prepare import prepare_onnx
from worker.engine.runtime_model.registry import REGISTRY


def plan_onnx(inputs: JobInputs) -> Plan:
    """Return what the recipe would do; see `worker.engine.planning.make_plan`."""
    prepared = prepare_onnx(inputs)
    model = prepared.original
    planned: list[PassPlan] = []
    saved = 0
    for step, params in enumerate(inputs.spec.recipe or (), 1):
        op = op_of(type(params))
        model, plan = REGISTRY[op].plan(model, params, prepared.around(step, Silent()))
        planned.append(plan)
        saved += _integers_save(model, plan) if op == "quantize" else 0
    before, after = _size(prepared.original), _size(model)
    found = map(signature, prepared.original.inputs)
    notes = (plan.facts.get("warning") for plan in planned)
    return Plan(
        inputs=tuple({"name": i.name, "shape": list(i.shape), "dtype": i.dtype} for i in found),
        before=before,
        after=after.model_copy(update={"size_bytes": after.size_bytes - saved}),
        passes=tuple(planned),
        warnings=tuple(note for note in notes if isinstance(note, str)),
    )


def _size(model: RuntimeModel) -> PlanSize:
    return PlanSize(
        params=model.amount.parameters.total,
        size_bytes=weight_bytes(model.proto),
        macs=model.amount.macs,
    )


def _integers_save(model: RuntimeModel, plan: PassPlan) -> int:
    """Return how many bytes the weights of the quantized layers lose: one byte each is left."""
    names = {layer.name for layer in plan.layers}
    sizes = {t.name: len(t.raw_data) for t in model.proto.graph.initializer}
    weights = {layer.weight for layer in layers_of(model.proto) if layer.name in names}
    return sum(sizes[name] * 3 // 4 for name in weights)
