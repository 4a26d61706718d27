"""Teacher, student and model see the same data and answer the same question."""

from __future__ import annotations

from dataclasses import replace

import torch

from planish.contract.errors import InvalidModel
from planish.contract.problem import FieldError
from worker.engine.load.data import signature
from worker.engine.model import Model, first_output

BATCH = 2


def check_agreement(other: Model, model: Model, part: str) -> Model:
    """Return a teacher or student with the model's names for its inputs.

    Args:
        other: what came as `part`.
        model: the uploaded model.
        part: ``teacher`` or ``student``.

    Raises:
        InvalidModel: the inputs differ in number, shape or type, or the first outputs in shape;
            both are shown.
    """
    _check_inputs(other, model, part)
    answer, wanted = _answer(other, model, part), _answer(model, model, "model")
    if answer != wanted:
        raise _refused(
            part,
            f"the {part}'s outputs are {answer[1:]} per sample, the model's {wanted[1:]}; both "
            "must answer the same question",
        )
    return replace(other, inputs=model.inputs)


def _check_inputs(other: Model, model: Model, part: str) -> None:
    theirs, ours = ([(_sizes(i.shape), i.dtype) for i in m.inputs] for m in (other, model))
    if theirs != ours:
        shown = ["; ".join(str(signature(i)) for i in m.inputs) for m in (other, model)]
        raise _refused(
            part,
            f"the {part} takes {shown[0]}, the model {shown[1]}; they see the same data, so their "
            "inputs must have the same shapes and types",
        )


def _sizes(shape: tuple[int | str, ...]) -> tuple[int | None, ...]:
    """Return a shape without the names of what varies: those are each file's own."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _answer(asked: Model, model: Model, part: str) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            return tuple(first_output(asked.module(*model.example(BATCH))).shape)
    except (RuntimeError, TypeError) as error:
        raise _refused(part, f"the {part} does not take the model's inputs") from error


def _refused(part: str, detail: str) -> InvalidModel:
    return InvalidModel(detail, (FieldError(pointer=f"/{part}", detail=detail),))
