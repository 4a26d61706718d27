"""What the model should answer: the targets of each task, held against what the model does answer.

| task | stored | handed on |
|---|---|---|
| classification | class indices (N,) or (N, 1) | int64 (N,) |
| regression | numbers of as many values as the output | float32, the output's shape |
| language_modeling | token ids (N, S), or nothing | int64 (N, S), `IGNORED` where none is wanted |
| embedding | embeddings (N, D); scores of pairs (N,); nothing | float32 (N, D); scores apart |
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from planish.contract.errors import InvalidData, LabelOutOfRange
from planish.contract.spec import Task
from planish.gate.arrays import ArrayHeader
from planish.gate.match import TARGETS, Match
from worker.engine.load.arrays import Array, open_array
from worker.engine.load.dataset import IGNORED, Targets
from worker.engine.load.finite import check_finite
from worker.engine.model import Model, first_output

_ANSWERS = {
    "classification": (2, "(batch, classes)"),
    "language_modeling": (3, "(batch, tokens, vocabulary)"),
    "embedding": (2, "(batch, dimensions)"),
}


def check_answers(model: Model, task: Task) -> tuple[int, ...]:
    """Return the shape of one sample's first output, held against what the task needs; () for none.

    Raises:
        InvalidData: the task means nothing for such outputs.
    """
    if task == "none":
        return ()
    with torch.no_grad():
        answer = first_output(model.module(*model.example()))
    rank, shown = _ANSWERS.get(task, (answer.ndim, ""))
    if answer.ndim != rank:
        raise InvalidData(
            f"{task} needs outputs of shape {shown}; this model's first output "
            f'has {answer.ndim} dimensions; set data.task to "none"'
        )
    return tuple(answer.shape[1:])


def read_targets(
    path: Path, match: Match, task: Task, answer: tuple[int, ...], part: str
) -> Targets | None:
    """Return the targets of all samples, None where the task is to do without.

    Args:
        path: the data file.
        match: which of its arrays is what.
        task: what they mean.
        answer: shape of one sample's output.
        part: ``data`` or ``test_data``, for errors.

    Raises:
        InvalidData, LabelOutOfRange, NonFiniteData: values that the model cannot answer with.
    """
    if task == "language_modeling":
        return _tokens(path, match, answer[-1], part)
    if match.targets is None or match.paired:
        return None
    stored = open_array(path, match.targets)
    if task == "classification":
        return _labels(stored, answer[-1], part)
    return _numbers(stored, answer, task, part)


def read_scores(path: Path, match: Match, part: str) -> NDArray[np.float32] | None:
    """Return the scores of pairs of samples, None where there are none.

    Raises:
        InvalidData: the two rows of a pair carry different scores.
    """
    if not match.paired or match.targets is None:
        return None
    stored = open_array(path, match.targets)
    check_finite(stored, TARGETS, part)
    scores = stored.reshape(-1).astype(np.float32)
    differing = scores[::2] != scores[1::2]
    if differing.any():
        row = 2 * int(differing.argmax())
        raise InvalidData(
            f"{part}: targets[{row}] is {scores[row]:g} and targets[{row + 1}] is "
            f"{scores[row + 1]:g}; the rows 2i and 2i + 1 are a pair and carry its score both"
        )
    return scores


def _labels(values: Array, classes: int, part: str) -> NDArray[np.int64]:
    stored = values.reshape(-1)
    labels = stored.astype(np.int64)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        index = int(outside.argmax())
        raise LabelOutOfRange(
            f"{part}: targets[{index}] is {stored[index]}; the model has {classes} outputs, so "
            f"labels go from 0 to {classes - 1}"
        )
    return labels


def _numbers(stored: Array, answer: tuple[int, ...], task: Task, part: str) -> NDArray[np.float32]:
    if math.prod(stored.shape[1:]) != math.prod(answer):
        raise InvalidData(
            f"{part}: {TARGETS!r} has shape {stored.shape}; for {task} this model answers each "
            f"sample with {answer or 'one number'}"
        )
    check_finite(stored, TARGETS, part)
    return stored.reshape(len(stored), *answer).astype(np.float32)


def _tokens(path: Path, match: Match, vocabulary: int, part: str) -> NDArray[np.int64]:
    header = match.targets or _header(match)
    tokens = open_array(path, header).astype(np.int64)
    if match.targets is None and match.mask is not None:
        tokens[open_array(path, match.mask.array) == 0] = IGNORED
    outside = (tokens != IGNORED) & ((tokens < 0) | (tokens >= vocabulary))
    if outside.any():
        place = [int(axis[0]) for axis in np.nonzero(outside)]
        raise LabelOutOfRange(
            f"{part}: {header.name!r} holds {tokens[tuple(place)]} at {place}; the model's "
            f"vocabulary goes from 0 to {vocabulary - 1}"
        )
    return tokens


def _header(match: Match) -> ArrayHeader:
    if match.tokens is None:
        raise InvalidData("language_modeling needs an input of token ids")
    return match.tokens.array
