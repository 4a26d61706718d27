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

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData, LabelOutOfRange
from planish.contract.spec import Task
from planish.gate.match import Match
from worker.engine.load.arrays import Array, ArrayFile, pieces
from worker.engine.load.deferred import IGNORED, Answers, Deferred, Rows, Targets
from worker.engine.load.finite import check_finite
from worker.engine.model import AnyModel

_ANSWERS = {
    "classification": (2, "(batch, classes)"),
    "language_modeling": (3, "(batch, tokens, vocabulary)"),
    "embedding": (2, "(batch, dimensions)"),
}


def check_answers(model: AnyModel, task: Task) -> tuple[int, ...]:
    """Return the shape of one sample's first output, held against what the task needs; () for none.

    Raises:
        InvalidData: the task means nothing for such outputs.
    """
    if task == "none":
        return ()
    answer = model.answer()
    rank, shown = _ANSWERS.get(task, (answer.ndim, ""))
    if answer.ndim != rank:
        raise InvalidData(
            f"{task} needs outputs of shape {shown}; this model's first output "
            f'has {answer.ndim} dimensions; set data.task to "none"'
        )
    return tuple(answer.shape[1:])


def read_targets(
    file: ArrayFile, match: Match, task: Task, answer: tuple[int, ...], part: str
) -> Targets | None:
    """Return the targets of all samples, None where the task is to do without.

    Class indices lie in memory. Everything else does where it is small, and else stays in its file.

    Args:
        file: the data.
        match: which of its arrays is what.
        task: what they mean.
        answer: shape of one sample's output.
        part: ``data`` or ``test_data``, for errors.

    Raises:
        InvalidData, LabelOutOfRange, NonFiniteData: values that the model cannot answer with.
    """
    rows = np.arange(match.samples)
    if task == "language_modeling":
        return _tokens(file, match, rows, answer[-1], part)
    if match.targets is None or match.paired:
        return None
    stored, name = file.open(match.targets), match.targets.name
    if task == "classification":
        return _labels(stored, answer[-1], f"{part}: {name}")
    if math.prod(stored.shape[1:]) != math.prod(answer):
        raise InvalidData(
            f"{part}: {name!r} has shape {stored.shape}; for {task} this model answers each "
            f"sample with {answer or 'one number'}"
        )
    check_finite(stored, name, part)
    return Deferred(stored, rows, answer, np.float32).settled()


def read_scores(file: ArrayFile, match: Match, part: str) -> NDArray[np.float32] | None:
    """Return the scores of pairs of samples, None where there are none.

    Raises:
        InvalidData: the two rows of a pair carry different scores.
    """
    if not match.paired or match.targets is None:
        return None
    stored, name = file.open(match.targets), match.targets.name
    check_finite(stored, name, part)
    scores = stored.reshape(-1).astype(np.float32)
    differing = scores[::2] != scores[1::2]
    if differing.any():
        row = 2 * int(differing.argmax())
        raise InvalidData(
            f"{part}: {name}[{row}] is {scores[row]:g} and {name}[{row + 1}] is "
            f"{scores[row + 1]:g}; the rows 2i and 2i + 1 are a pair and carry its score both"
        )
    return scores


def _labels(values: Array, classes: int, name: str) -> NDArray[np.int64]:
    stored = values.reshape(-1)
    labels = stored.astype(np.int64)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        index = int(outside.argmax())
        raise LabelOutOfRange(
            f"{name}[{index}] is {stored[index]}; the model has {classes} outputs, so "
            f"labels go from 0 to {classes - 1}"
        )
    return labels


def _tokens(file: ArrayFile, match: Match, rows: Rows, vocabulary: int, part: str) -> Targets:
    header = match.targets or (match.tokens.array if match.tokens else None)
    if header is None:
        raise InvalidData("language_modeling needs an input of token ids")
    masked = match.targets is None and match.mask is not None
    mask = file.open(match.mask.array) if masked and match.mask else None
    tokens = Deferred(file.open(header), rows, header.shape[1:], np.int64, mask)
    for start, piece in pieces(tokens.values):
        _check_tokens(tokens[start : start + len(piece)], start, vocabulary, header.name, part)
    return tokens.settled()


def _check_tokens(tokens: Answers, start: int, vocabulary: int, name: str, part: str) -> None:
    outside = (tokens != IGNORED) & ((tokens < 0) | (tokens >= vocabulary))
    if outside.any():
        place = tuple(int(axis[0]) for axis in np.nonzero(outside))
        raise LabelOutOfRange(
            f"{part}: {name!r} holds {tokens[place]} at {[start + place[0], *place[1:]]}; the "
            f"model's vocabulary goes from 0 to {vocabulary - 1}"
        )
