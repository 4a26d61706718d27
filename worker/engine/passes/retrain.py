"""Fine-tuning on labels."""

from __future__ import annotations

from pydantic import JsonValue

from planish.contract.errors import InvalidRecipe
from planish.contract.problem import FieldError
from planish.contract.recipe import Retrain
from planish.contract.report import PassPlan
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.training import needed_splits, plan_training, train_model
from worker.engine.train.losses import task_loss


def run(model: Model, params: Retrain, ctx: Context) -> Outcome:
    """Train a model in place on the labels of the data.

    Raises:
        InvalidRecipe: no data or no labels.
        TrainingDiverged: the loss became NaN or infinite.
    """
    loss = task_loss(ctx.spec.data.task, params.train.label_smoothing)
    return train_model(model, params, loss, ctx, _checked(params, ctx))


def plan(model: Model, params: Retrain, ctx: Context) -> tuple[Model, PassPlan]:
    """Check the data, and say what would be trained."""
    return plan_training(model, params, ctx, _checked(params, ctx))


def _checked(params: Retrain, ctx: Context) -> dict[str, JsonValue]:
    if needed_splits(params.op, ctx).train.targets is None:
        detail = "retrain learns from labels; add an array named targets to the data"
        pointer = f"/recipe/{ctx.step - 1}"
        raise InvalidRecipe(detail, (FieldError(pointer=pointer, detail=detail),))
    return {"strategy": params.strategy}
