"""What every pass that trains has in common around the loop."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Distill, Retrain
from planish.contract.report import LayerChanged, PassPlan
from worker.engine.load.data import Splits
from worker.engine.model import Model
from worker.engine.passes.layers import weighted_layers
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.sparsity import settled
from worker.engine.train.loop import Run, Trained, check_run, train
from worker.engine.train.losses import Loss
from worker.engine.train.samples import batches_per_epoch
from worker.engine.train.spread.launch import processes_of, train_spread
from worker.engine.train.spread.processes import DataParallel

WHAT = "weights trained"
NAMED = {
    "batch_size",
    "accumulate",
    "clip_norm",
    "warmup",
    "label_smoothing",
    "ema_decay",
    "amp",
    "compile",
    "early_stopping",
}
"""What the facts name when it is not the default."""


def train_model(
    model: Model,
    params: Distill | Retrain,
    loss: Loss,
    ctx: Context,
    facts: dict[str, JsonValue],
    variant: str = "",
) -> Outcome:
    """Train a model by a loss on the training part of the data.

    Args:
        model: changed in place.
        params: the pass.
        loss: what is made small.
        ctx: the data and where to train.
        facts: what the report says besides the run's own facts.
        variant: tells two runs of one pass apart.

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
        task=ctx.spec.data.task,
        sparsity=model.sparsity,
        checkpoints=ctx.checkpoints,
        variant=variant,
    )
    trained = _by_strategy(model, params, loss, run, ctx)
    return Outcome(
        model=replace(model, sparsity=settled(model.sparsity)),
        changed=True,
        layers=_layers(model),
        facts={**facts, **_facts(params, splits, ctx), **_told(trained)},
        training=trained.epochs,
    )


def _by_strategy(
    model: Model, params: Distill | Retrain, loss: Loss, run: Run, ctx: Context
) -> Trained:
    if params.strategy == "single":
        return train(model, loss, run)
    if params.strategy == "data_parallel":
        return train(model, loss, run, DataParallel())
    return train_spread(model, ctx.teacher, loss, run, ctx.spec, params, ctx.nodes)


def _processes(params: Distill | Retrain, ctx: Context) -> int:
    """Return how many processes share each batch."""
    if params.strategy in ("single", "data_parallel"):
        return 1
    return processes_of(params, ctx.spec.resources.gpus) * ctx.nodes.count


def plan_training(
    model: Model, params: Distill | Retrain, ctx: Context, facts: dict[str, JsonValue]
) -> tuple[Model, PassPlan]:
    """Say what a training pass would do; the shapes stay."""
    splits = needed_splits(params.op, ctx)
    check_run(model, params.train, len(splits.train), _processes(params, ctx))
    layers = _layers(model)
    return model, PassPlan(
        op=params.op,
        layers_changed=len(layers),
        layers=layers,
        facts={**facts, **_facts(params, splits, ctx)},
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


def _facts(params: Distill | Retrain, splits: Splits, ctx: Context) -> dict[str, JsonValue]:
    train = params.train
    per_epoch = batches_per_epoch(len(splits.train), train.batch_size)
    facts: dict[str, JsonValue] = {
        "samples": len(splits.train),
        "validation_samples": len(splits.validation) if splits.validation is not None else 0,
        "epochs": train.epochs,
        "steps": per_epoch * train.epochs,
        "optimizer": train.optimizer,
        "lr": train.lr,
        "schedule": train.schedule,
        "augment": train.augment,
        "mixup": train.mixup,
        **train.model_dump(include=NAMED, exclude_defaults=True),
    }
    if params.strategy != "single":
        facts |= {"strategy": params.strategy, "processes": _processes(params, ctx)}
    return facts


def _told(trained: Trained) -> dict[str, JsonValue]:
    """Return what only the run itself could tell."""
    facts: dict[str, JsonValue] = {}
    if trained.best_score is not None and trained.score_name is not None:
        facts["best_epoch"] = trained.best_epoch
        facts[f"validation_{trained.score_name.replace(' ', '_')}"] = trained.best_score
    if trained.resumed_from is not None:
        facts["resumed_from"] = trained.resumed_from
    if trained.warnings:
        facts["warning"] = "; ".join(trained.warnings)
    return facts
