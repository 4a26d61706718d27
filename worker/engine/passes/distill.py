"""Knowledge distillation: the model learns what its teacher answers."""

from __future__ import annotations

import torch
from pydantic import JsonValue
from torch import fx

from planish.contract.errors import InvalidRecipe
from planish.contract.problem import FieldError
from planish.contract.recipe import Distill
from planish.contract.report import PassPlan
from worker.engine.model import Model, first_output
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.training import needed_splits, plan_training, train_model
from worker.engine.train.losses import KnowledgeDistillation
from worker.engine.train.placement import move


def run(model: Model, params: Distill, ctx: Context) -> Outcome:
    """Train a model in place on its teacher's outputs, and on labels where alpha leaves room.

    Raises:
        InvalidRecipe: no data, no labels with alpha < 1, or outputs of another shape than the
            teacher's.
        TrainingDiverged: the loss became NaN or infinite.
    """
    facts = _checked(model, params, ctx)
    loss = KnowledgeDistillation(_on_device(ctx), params.temperature, params.alpha)
    return train_model(model, params, loss, ctx, facts)


def plan(model: Model, params: Distill, ctx: Context) -> tuple[Model, PassPlan]:
    """Check teacher and data, and say what would be trained."""
    return plan_training(model, params, ctx, _checked(model, params, ctx))


def _on_device(ctx: Context) -> fx.GraphModule:
    """Return the teacher where training runs, as a copy if it has to move."""
    teacher = ctx.teacher.module
    if ctx.device.type == "cpu":
        return teacher
    return move(ctx.teacher.clone().module, ctx.device)


def _checked(model: Model, params: Distill, ctx: Context) -> dict[str, JsonValue]:
    splits = needed_splits(params.op, ctx)
    if params.alpha < 1 and splits.train.targets is None:
        raise _refused(
            ctx,
            "alpha",
            "distill with alpha below 1 learns from labels too; add targets or set it to 1",
        )
    if [s.shape for s in model.inputs] != [s.shape for s in ctx.teacher.inputs]:
        raise _refused(ctx, "op", "the teacher takes other inputs than the model")
    with torch.no_grad():
        student = first_output(model.module(*model.example())).shape
        teacher = first_output(ctx.teacher.module(*ctx.teacher.example())).shape
    if student != teacher:
        raise _refused(
            ctx,
            "op",
            f"the teacher's output is {tuple(teacher[1:])} per sample and the model's "
            f"{tuple(student[1:])}; distillation needs equal shapes",
        )
    return {"method": params.method, "temperature": params.temperature, "alpha": params.alpha}


def _refused(ctx: Context, field: str, detail: str) -> InvalidRecipe:
    pointer = f"/recipe/{ctx.step - 1}/{field}"
    return InvalidRecipe(detail, (FieldError(pointer=pointer, detail=detail),))
