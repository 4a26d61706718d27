"""What every pass that trains has in common around the loop."""

from __future__ import annotations

from pydantic import JsonValue

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Distill, Retrain, Train
from planish.contract.report import Epoch, LayerChanged, PassPlan
from worker.engine.load.data import Splits
from worker.engine.model import Model
from worker.engine.passes.layers import weighted_layers
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.train.loop import Run, fit
from worker.engine.train.losses import Loss
from worker.engine.train.samples import batches_per_epoch

WHAT = "weights trained"


def train_model(
    model: Model, params: Distill | Retrain, loss: Loss, ctx: Context, facts: dict[str, JsonValue]
) -> Outcome:
    """Train a model by a loss on the training part of the data.

    Raises:
        InvalidRecipe: there is no data to train on.
        TrainingDiverged: the loss became NaN or infinite.
    """
    splits = needed_splits(params.op, ctx)
    run = Run(
        op=params.op,
        step=ctx.step,
        train=params.train,
        data=splits.train,
        validation=splits.validation,
        seed=ctx.seed,
        device=ctx.device,
        progress=ctx.progress,
    )
    epochs = fit(model, loss, run)
    return Outcome(
        model=model,
        changed=True,
        layers=_layers(model),
        facts={**facts, **_facts(params.train, splits), **_best(epochs)},
        training=epochs,
    )


def plan_training(
    model: Model, params: Distill | Retrain, ctx: Context, facts: dict[str, JsonValue]
) -> tuple[Model, PassPlan]:
    """Say what a training pass would do; the shapes stay."""
    splits = needed_splits(params.op, ctx)
    layers = _layers(model)
    return model, PassPlan(
        op=params.op,
        layers_changed=len(layers),
        layers=layers,
        facts={**facts, **_facts(params.train, splits)},
    )


def needed_splits(op: str, ctx: Context) -> Splits:
    """Return the data's parts.

    Raises:
        InvalidRecipe: no data came, or not one sample is left to train on.
    """
    if ctx.splits is None or not len(ctx.splits.train):
        raise InvalidRecipe(f"{op} trains on data; send a data file with samples")
    return ctx.splits


def _layers(model: Model) -> tuple[LayerChanged, ...]:
    return tuple(
        LayerChanged(name=name, what=WHAT)
        for name, layer in weighted_layers(model.module).items()
        if any(p.requires_grad for p in layer.parameters(recurse=False))
    )


def _facts(train: Train, splits: Splits) -> dict[str, JsonValue]:
    per_epoch = batches_per_epoch(len(splits.train), train.batch_size)
    return {
        "samples": len(splits.train),
        "validation_samples": len(splits.validation) if splits.validation is not None else 0,
        "epochs": train.epochs,
        "steps": per_epoch * train.epochs,
        "optimizer": train.optimizer,
        "lr": train.lr,
        "schedule": train.schedule,
        "augment": train.augment,
    }


def _best(epochs: tuple[Epoch, ...]) -> dict[str, JsonValue]:
    scored = [epoch for epoch in epochs if epoch.accuracy is not None]
    if not scored:
        return {}
    best = max(scored, key=lambda epoch: (epoch.accuracy, epoch.epoch))
    return {"best_epoch": best.epoch, "validation_accuracy": best.accuracy}
