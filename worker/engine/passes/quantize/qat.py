"""Quantize, mode qat: static, then trained with the rounding in the loop."""

from __future__ import annotations

import copy
from dataclasses import replace

from pydantic import JsonValue
from torch import fx

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize import static
from worker.engine.passes.quantize.calibration import roles
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.passes.quantize.rescue import is_good
from worker.engine.passes.training import needed_splits
from worker.engine.quantize.integers import check_integers
from worker.engine.quantize.qat import TEMPERATURE, Imitation, begin_training, end_training
from worker.engine.quantize.quality import Judge, Quality
from worker.engine.quantize.static import convert
from worker.engine.quantize.treatment import Treated, named_treatment, treat
from worker.engine.train.loop import Run, Trained, train
from worker.engine.train.placement import move

_UNHELPED = (
    "training left the output further from the float model than it was; the integers from before "
    "training were kept"
)


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Quantize, train on the float model's answers, and write the integers.

    Raises:
        InvalidRecipe: no data, or a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become integers.
        TrainingDiverged: the loss became NaN or infinite.
    """
    needed_splits("quantize in mode qat", context)
    selection = select_quantizable(model, params, context)
    parts = roles(model, params, context)
    judging = parts.ranges if parts.judging is None else parts.judging
    judge = Judge(model, judging, classes=context.spec.data.task == "classification")
    treated, before = _begun(model, params, selection.chosen, parts.ranges, judge, context)
    trained, after, helped = _trained(treated, params, judge, model, before, context)
    weights = treated.prepared.weights()
    quantized = convert(treated.model, params, treated.prepared)
    layers = quantized.quantization.layers if quantized.quantization else ()
    facts: dict[str, JsonValue] = {
        **static.mode_facts(params),
        **parts.facts(params),
        **static.treatment_facts(treated),
        "treatment": treated.treatment.words(),
        "loss": f"the float model's answers, T = {TEMPERATURE:g}; no labels",
        "epochs": params.train.epochs,
        "lr": params.train.lr,
        "best_epoch": trained.best_epoch,
        "before_training": _told(before),
        "after_training": _told(after),
        "integers": check_integers(weights, quantized).facts(),
        "weight_scales": scale_facts(layers),
    }
    warnings = (*trained.warnings, *(() if helped else (_UNHELPED,)))
    if warnings:
        facts["warning"] = "; ".join(warnings)
    return Outcome(
        model=quantized,
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts=facts,
        training=trained.epochs,
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become integers, and how long they would be trained."""
    needed_splits("quantize in mode qat", context)
    planned = static.plan(model, params, context)
    facts = {**planned.facts, "epochs": params.train.epochs, "lr": params.train.lr}
    return planned.model_copy(update={"facts": facts})


def _begun(
    model: Model,
    params: Quantize,
    layers: tuple[str, ...],
    samples: Dataset,
    judge: Judge,
    context: Context,
) -> tuple[Treated, Quality]:
    """Return the calibrated model that training starts from; auto equalizes it if that helps."""
    treatment = named_treatment(params)
    best = treat(model, params, layers, treatment, samples, context.seed)
    quality = judge.judge(best.prepared.graph)
    if params.algorithm == "auto" and not is_good(quality):
        equalized = replace(treatment, equalized=True)
        other = treat(model, params, layers, equalized, samples, context.seed)
        reached = judge.judge(other.prepared.graph)
        if other.equalized and reached.sqnr_db > quality.sqnr_db:
            return other, reached
    return best, quality


def _trained(
    treated: Treated,
    params: Quantize,
    judge: Judge,
    teacher: Model,
    before: Quality,
    context: Context,
) -> tuple[Trained, Quality, bool]:
    """Train in place; return the run, the quality afterwards and whether the training stayed."""
    prepared = treated.prepared
    start = copy.deepcopy(prepared.graph.state_dict())
    begin_training(prepared)
    loss = Imitation(_on_device(teacher, context), context.spec.data.task)
    held = replace(_run(params, context), sparsity=teacher.sparsity)
    trained = train(Model(prepared.graph, teacher.inputs), loss, held)
    end_training(prepared)
    after = judge.judge(prepared.graph)
    worse_answers = (after.agreement or 0.0) <= (before.agreement or 0.0)
    if after.sqnr_db >= before.sqnr_db or not worse_answers:
        return trained, after, True
    prepared.graph.load_state_dict(start)
    return trained, before, False


def _run(params: Quantize, context: Context) -> Run:
    splits = needed_splits("quantize in mode qat", context)
    return Run(
        op=params.op,
        step=context.step,
        train=params.train,
        data=splits.train,
        validation=splits.validation,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
        task=context.spec.data.task,
        checkpoints=context.checkpoints,
    )


def _on_device(teacher: Model, context: Context) -> fx.GraphModule:
    """Return the float model where training runs, as a copy if it has to move."""
    if context.device.type == "cpu":
        return teacher.module
    return move(teacher.clone().module, context.device)


def _told(quality: Quality) -> dict[str, JsonValue]:
    return {"sqnr_db": round(quality.sqnr_db, 2), "agreement": quality.agreement}
