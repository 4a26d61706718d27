"""From parameters to a lesson: whether teacher, student and data fit, and what is compared."""

from __future__ import annotations

from typing import NoReturn

import torch
from pydantic import JsonValue

from planish.contract.errors import InvalidRecipe
from planish.contract.problem import FieldError
from planish.contract.recipe import Distill
from worker.engine.distill.features import Pair, features_of
from worker.engine.distill.lesson import DIST_BETA, DKD_BETA, VALUES, Lesson
from worker.engine.distill.matching import found_pairs, given_pairs
from worker.engine.distill.relations import LastAttention, last_attention, relation_heads
from worker.engine.model import Model, first_output
from worker.engine.passes.protocol import Context
from worker.engine.passes.training import needed_splits

MASK = "attention_mask"
"""Name of the input that tells tokens from padding, in every tokenizer's output."""

Facts = dict[str, JsonValue]


def plan_lesson(model: Model, params: Distill, ctx: Context) -> tuple[Lesson, Facts]:
    """Return what a distillation would do, and what the report says about it.

    Raises:
        InvalidRecipe: teacher, model, data and parameters do not fit; `errors` names the field.
    """
    _check_labels(params, ctx)
    _check_outputs(model, params, ctx)
    pairs = _pairs(model, params, ctx) if params.method == "hint" else ()
    attention = _attention(model, ctx) if params.method == "attention_relation" else None
    names = [item.name for item in model.inputs]
    lesson = Lesson(
        params=params,
        task=ctx.spec.data.task,
        teacher=ctx.teacher.module,
        seed=ctx.seed,
        mask=names.index(MASK) if MASK in names else None,
        pairs=pairs,
        attention=attention,
    )
    return lesson, _facts(lesson)


def _check_labels(params: Distill, ctx: Context) -> None:
    if needed_splits(params.op, ctx).train.targets is not None:
        return
    if params.method == "dkd":
        _refuse(
            ctx, "method", 'dkd parts the right class from the others; add targets, or use "kd"'
        )
    if params.control:
        _refuse(ctx, "control", "a run without the teacher learns from labels; add targets")
    if params.alpha < 1:
        _refuse(
            ctx,
            "alpha",
            "distill with alpha below 1 learns from labels too; add targets or set it to 1",
        )


def _check_outputs(model: Model, params: Distill, ctx: Context) -> None:
    if [s.shape for s in model.inputs] != [s.shape for s in ctx.teacher.inputs]:
        _refuse(ctx, "op", "the teacher takes other inputs than the model")
    with torch.no_grad():
        student = first_output(model.module(*model.example())).shape
        teacher = first_output(ctx.teacher.module(*model.example())).shape
    if student != teacher:
        _refuse(
            ctx,
            "op",
            f"the teacher's output is {tuple(teacher[1:])} per sample and the model's "
            f"{tuple(student[1:])}; distillation needs equal shapes",
        )
    if ctx.spec.data.task not in VALUES and params.method != "mse_logits" and student[-1] < 2:
        _refuse(ctx, "method", 'one output is no choice of classes; set method to "mse_logits"')


def _pairs(model: Model, params: Distill, ctx: Context) -> tuple[Pair, ...]:
    student, teacher = features_of(model), features_of(ctx.teacher)
    pointer = f"/recipe/{ctx.step - 1}/layer_map"
    if params.layer_map:
        return given_pairs(params.layer_map, student, teacher, pointer)
    return found_pairs(student, teacher, pointer)


def _attention(model: Model, ctx: Context) -> tuple[LastAttention, LastAttention]:
    student, teacher = last_attention(model), last_attention(ctx.teacher)
    if student is None or teacher is None:
        who = "model" if student is None else "teacher"
        _refuse(
            ctx,
            "method",
            f"attention_relation compares attention, and the {who} has no call of "
            "scaled_dot_product_attention on (batch, heads, tokens, width); export it with one "
            '(torch: F.scaled_dot_product_attention), or set method to "hint" or "kd"',
        )
    if student.length != teacher.length:
        _refuse(
            ctx,
            "method",
            f"the last attention of the model sees {student.length[1]} tokens, the teacher's "
            f'{teacher.length[1]}; relations need equal lengths; set method to "hint" or "kd"',
        )
    return student, teacher


def _facts(lesson: Lesson) -> Facts:
    params = lesson.params
    facts: Facts = {"method": params.method, "alpha": params.alpha}
    if params.method != "mse_logits" and lesson.task not in VALUES:
        facts["temperature"] = params.temperature
    if params.method in ("dkd", "dist"):
        usual = DKD_BETA if params.method == "dkd" else DIST_BETA
        facts["beta"] = usual if params.beta is None else params.beta
    if lesson.pairs or lesson.attention:
        facts["feature_weight"] = params.feature_weight
    if lesson.pairs:
        facts["layer_map"] = {pair.student.name: pair.teacher.name for pair in lesson.pairs}
        widths = [[pair.student.width, pair.teacher.width] for pair in lesson.pairs]
        facts["projectors"] = sum(ours != theirs for ours, theirs in widths)
    if lesson.attention is not None:
        ours, theirs = lesson.attention
        facts["attention"] = {ours.name: theirs.name}
        facts["relation_heads"] = list(relation_heads(ours, theirs))
    return facts


def _refuse(ctx: Context, field: str, detail: str) -> NoReturn:
    pointer = f"/recipe/{ctx.step - 1}/{field}"
    raise InvalidRecipe(detail, (FieldError(pointer=pointer, detail=detail),))
