"""Knowledge distillation: the model learns what its teacher answers."""

from __future__ import annotations

from dataclasses import replace

from planish.contract.recipe import Distill
from planish.contract.report import PassPlan
from worker.engine.model import Model
from worker.engine.passes.distill.control import train_control, with_control
from worker.engine.passes.distill.lesson import plan_lesson
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.training import plan_training, train_model
from worker.engine.train.placement import move


def run(model: Model, params: Distill, ctx: Context) -> Outcome:
    """Train a model in place on its teacher, and on labels where alpha leaves room.

    With `params.control`, a copy is trained on the labels alone afterwards: same weights to begin
    with, same seed, data and settings. It only tells what the teacher was worth.

    Raises:
        InvalidRecipe: no data, no labels where they are needed, outputs of another shape than the
            teacher's, layers that cannot be compared.
        TrainingDiverged: the loss became NaN or infinite.
    """
    lesson, facts = plan_lesson(model, params, ctx)
    if ctx.device.type != "cpu":
        lesson = replace(lesson, teacher=move(ctx.teacher.clone().module, ctx.device))
    untaught = model.clone() if params.control else None
    loss = lesson.loss(model.module).to(ctx.device)
    try:
        taught = train_model(model, params, loss, ctx, facts)
    finally:
        loss.close()
    if untaught is None:
        return taught
    return with_control(taught, train_control(untaught, params, ctx))


def plan(model: Model, params: Distill, ctx: Context) -> tuple[Model, PassPlan]:
    """Check teacher and data, and say what would be trained."""
    _, facts = plan_lesson(model, params, ctx)
    return plan_training(model, params, ctx, facts)
