"""Does a recipe make sense for what came with it? Asked at submit, by plans and by the engine."""

from __future__ import annotations

from planish.contract.errors import InvalidRecipe, UnsatisfiableResources
from planish.contract.problem import FieldError
from planish.contract.recipe import Distill, Need, Params, Quantize, Stage, op_of
from planish.contract.spec import Spec


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
    errors = [*_order(recipe), *_needs(recipe, has_data, has_targets), *_outputs(spec, recipe)]
    if errors:
        raise InvalidRecipe("; ".join(e.detail for e in errors), tuple(errors))


def check_resources(spec: Spec, fleet_gpus: int) -> None:
    """Refuse a job that no worker of the fleet can ever run.

    Raises:
        UnsatisfiableResources: more GPUs than the largest worker has.
    """
    if spec.resources.gpus > fleet_gpus:
        detail = f"the job asks for {spec.resources.gpus} GPUs; the fleet has {fleet_gpus}"
        raise UnsatisfiableResources(
            detail, (FieldError(pointer="/resources/gpus", detail=detail),)
        )


def _order(recipe: tuple[Params, ...]) -> list[FieldError]:
    errors = []
    for index, step in enumerate(recipe):
        before = recipe[:index]
        if any(earlier.stage is Stage.QUANTIZE for earlier in before):
            ops = [op_of(type(p)) for p in recipe if p.stage is not Stage.QUANTIZE] + ["quantize"]
            detail = (
                f"{op_of(type(step))} cannot follow quantize: integers are not changed again; "
                f"the order that works: {' → '.join(ops)}"
            )
            errors.append(FieldError(pointer=f"/recipe/{index}", detail=detail))
    return errors


def _needs(recipe: tuple[Params, ...], has_data: bool, has_targets: bool) -> list[FieldError]:
    errors = []
    for index, step in enumerate(recipe):
        op = op_of(type(step))
        if Need.DATA in step.needs and not has_data:
            detail = f"{op} trains on data; send a data file"
            errors.append(FieldError(pointer=f"/recipe/{index}", detail=detail))
        elif (Need.TARGETS in step.needs or _uses_labels(step)) and not has_targets:
            detail = f"{op} needs labels; add an array named targets to the data"
            if isinstance(step, Distill):
                detail += ", or set alpha to 1 to learn from the teacher alone"
            errors.append(FieldError(pointer=f"/recipe/{index}", detail=detail))
    return errors


def _uses_labels(step: Params) -> bool:
    return isinstance(step, Distill) and step.alpha < 1


def _outputs(spec: Spec, recipe: tuple[Params, ...]) -> list[FieldError]:
    dynamic = any(isinstance(p, Quantize) and p.mode == "dynamic" for p in recipe)
    if dynamic and "pt2" in spec.outputs:
        detail = 'dynamic int8 exists as onnx only; set outputs to ["onnx"]'
        return [FieldError(pointer="/outputs", detail=detail)]
    return []
