"""Does a recipe make sense for what came with it? Asked at submit, by plans and by the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator

from planish.contract.errors import (
    InvalidRecipe,
    MissingPart,
    OutputNotAllowed,
    UnsatisfiableResources,
)
from planish.contract.passes.distill import CLASSES
from planish.contract.problem import FieldError
from planish.contract.recipe import (
    Distill,
    LowRank,
    Need,
    Params,
    Prune,
    Quantize,
    Retrain,
    Spread,
    Stage,
    op_of,
)
from planish.contract.spec import FORMATS, Spec

NO_RENDEZVOUS = (
    "the job asks for more than one node, and this installation has no rendezvous; set "
    "resources.nodes to 1, or have the operator set PLANISH_RENDEZVOUS"
)


def check_recipe(spec: Spec, *, has_data: bool, has_targets: bool) -> None:
    """Refuse a recipe that cannot work, with the order or the input that would.

    Args:
        spec: a spec whose `recipe` is set.
        has_data: whether a data file came along.
        has_targets: whether the data holds ``targets``.

    Raises:
        InvalidRecipe: `errors` names each pass that cannot work.
    """
    recipe = spec.recipe or ()
    errors = [
        *_order(recipe),
        *_nodes(spec, recipe),
        *_needs(spec, recipe, has_data, has_targets),
        *_growing(recipe),
        *_tasks(spec, recipe),
        *_outputs(spec, recipe),
    ]
    if errors:
        raise InvalidRecipe("; ".join(e.detail for e in errors), tuple(errors))


def check_student(spec: Spec, *, has_file: bool) -> None:
    """Refuse a student that nobody described, and one of random weights that nobody trains.

    Args:
        spec: the job.
        has_file: whether a student file came along.

    Raises:
        MissingPart: the spec describes a student by nothing that could be built.
        InvalidRecipe: no pass of the recipe trains it.
    """
    if has_file or spec.student is None:
        return
    if spec.student.architecture is None:
        detail = "the spec describes a student; send its file, or name its architecture"
        raise MissingPart(detail, (FieldError(pointer="/files/student", detail=detail),))
    if not any(isinstance(step, Distill | Retrain) for step in spec.recipe or ()):
        detail = (
            "a student without a file starts at random weights: train it; put distill or retrain "
            "into the recipe, or send a student file"
        )
        raise InvalidRecipe(detail, (FieldError(pointer="/recipe", detail=detail),))


def check_native_code(spec: Spec, *, allowed: bool) -> None:
    """Refuse native code where the operator has not allowed it.

    Raises:
        OutputNotAllowed: `outputs` names ``aotinductor``.
    """
    if allowed or "aotinductor" not in spec.outputs:
        return
    others = [name for name in spec.outputs if name != "aotinductor"] or ["pt2"]
    detail = (
        "aotinductor is native code, compiled on the worker and run by whoever opens it; the "
        "operator of this server has not allowed it (PLANISH_NATIVE_CODE=allow). Set outputs to "
        f"{json.dumps(others)}, or compile the .pt2 yourself with torch._inductor"
    )
    raise OutputNotAllowed(detail, (FieldError(pointer="/outputs", detail=detail),))


def check_resources(spec: Spec, fleet_gpus: int, *, rendezvous: bool) -> None:
    """Refuse a job that no worker of the fleet can ever run.

    Args:
        spec: of the job.
        fleet_gpus: of the largest worker.
        rendezvous: whether machines have a place to meet.

    Raises:
        UnsatisfiableResources: more GPUs than the largest worker has, or machines that cannot meet.
        InvalidRecipe: several GPUs, and no pass of the recipe that uses more than one.
    """
    if spec.resources.nodes > 1 and not rendezvous:
        raise UnsatisfiableResources(
            NO_RENDEZVOUS, (FieldError(pointer="/resources/nodes", detail=NO_RENDEZVOUS),)
        )
    if spec.resources.gpus > fleet_gpus:
        detail = f"the job asks for {spec.resources.gpus} GPUs; the fleet has {fleet_gpus}"
        raise UnsatisfiableResources(
            detail, (FieldError(pointer="/resources/gpus", detail=detail),)
        )
    if spec.resources.gpus > 1 and spec.recipe is not None and not _spreads(spec.recipe):
        detail = (
            f"resources.gpus is {spec.resources.gpus}, and every pass would run on one; set "
            'strategy "ddp", "fsdp" or "data_parallel" in retrain or distill, or gpus to 1'
        )
        raise InvalidRecipe(detail, (FieldError(pointer="/resources/gpus", detail=detail),))


def _spreads(recipe: tuple[Params, ...]) -> bool:
    return any(isinstance(p, Spread) and p.strategy != "single" for p in recipe)


def _order(recipe: tuple[Params, ...]) -> list[FieldError]:
    errors = []
    for index, step in enumerate(recipe):
        final = next((earlier for earlier in recipe[:index] if earlier.stage >= Stage.CAST), None)
        if final is not None:
            op, before = op_of(type(step)), op_of(type(final))
            errors.append(
                FieldError(pointer=f"/recipe/{index}", detail=_why_last(op, before, recipe))
            )
    return errors


def _nodes(spec: Spec, recipe: tuple[Params, ...]) -> list[FieldError]:
    """Refuse machines that would have nothing to do."""
    spread = any(isinstance(p, Spread) and p.strategy in ("ddp", "fsdp") for p in recipe)
    if spec.resources.nodes == 1 or spread:
        return []
    detail = (
        f"resources.nodes is {spec.resources.nodes}, and no pass trains on several machines; set "
        'strategy "ddp" or "fsdp" in retrain or distill, or nodes to 1'
    )
    return [FieldError(pointer="/resources/nodes", detail=detail)]


def _why_last(op: str, before: str, recipe: tuple[Params, ...]) -> str:
    """Say why nothing stands behind a pass that changes number formats, and what would work."""
    ops = [op_of(type(p)) for p in recipe if p.stage < Stage.CAST]
    why = "integers are not changed again" if before == "quantize" else "16-bit weights are final"
    if op in ("quantize", "cast"):
        return f"{op} cannot follow {before}: {why}; one number format is enough: leave one out"
    return f"{op} cannot follow {before}: {why}; the order that works: {' → '.join([*ops, before])}"


def _needs(
    spec: Spec, recipe: tuple[Params, ...], has_data: bool, has_targets: bool
) -> list[FieldError]:
    errors = []
    for index, step in enumerate(recipe):
        there = {
            Need.DATA: has_data,
            Need.TARGETS: has_targets,
            Need.GPU: spec.resources.gpus > 0,
            Need.TRAINING: any(isinstance(p, Distill | Retrain) for p in recipe[index + 1 :]),
        }
        missing = next((why for need, why in step.wants() if not there[need]), None)
        if missing is not None:
            errors.append(FieldError(pointer=f"/recipe/{index}", detail=missing))
    return errors


def _growing(recipe: tuple[Params, ...]) -> Iterator[FieldError]:
    """Yield what would change weights that a pruning has chosen and no training has removed yet."""
    growing = False
    for index, step in enumerate(recipe):
        if growing and isinstance(step, Prune | LowRank):
            detail = (
                'prune with schedule "cubic" removes its weights in the next training pass; put '
                f"distill or retrain between it and {op_of(type(step))}"
            )
            yield FieldError(pointer=f"/recipe/{index}", detail=detail)
        if isinstance(step, Prune):
            growing = step.schedule == "cubic"
        elif isinstance(step, Distill | Retrain):
            growing = False


def _tasks(spec: Spec, recipe: tuple[Params, ...]) -> Iterator[FieldError]:
    """Yield what compares classes where the outputs are values."""
    for index, step in enumerate(recipe):
        values = spec.data.task in ("regression", "embedding")
        if values and isinstance(step, Distill) and step.method in CLASSES:
            detail = (
                f"{step.method} compares probabilities of classes, and the outputs of "
                f'{spec.data.task} are values; set method to "mse_logits", "hint" or '
                '"attention_relation"'
            )
            yield FieldError(pointer=f"/recipe/{index}/method", detail=detail)


def _outputs(spec: Spec, recipe: tuple[Params, ...]) -> list[FieldError]:
    details = (detail for step in recipe for detail in _formats(step, spec))
    return [FieldError(pointer="/outputs", detail=detail) for detail in details]


def _formats(step: Params, spec: Spec) -> Iterator[str]:
    if not isinstance(step, Quantize):
        return
    if step.dtype == "fp8" and spec.outputs != ("pt2",):
        yield 'fp8 exists as pt2 only; set outputs to ["pt2"] and target.runtime to "torch"'
    elif step.mode == "dynamic" and {*spec.outputs, FORMATS[spec.target.runtime]} != {"onnx"}:
        yield (
            'dynamic int8 exists as onnx only; set outputs to ["onnx"] and target.runtime to '
            '"onnxruntime"'
        )
