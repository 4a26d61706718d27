"""What each task takes as targets, told from headers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.contract.errors import InvalidData, PlanishError
from planish.contract.recipe import Quantize, Retrain
from planish.contract.spec import DataSpec, Spec, Task
from planish.gate.arrays import read_headers
from planish.gate.check import check_upload
from planish.gate.match import Match, match_arrays
from planish.gate.signature import Signature
from tests.gate.files import npz

IDS = Signature("input_ids", ("batch", 6), "int64")
MASK = Signature("attention_mask", ("batch", 6), "int64")
IMAGE = Signature("x", ("batch", 1, 8, 8), "float32")
TOKENS = np.zeros((10, 6), np.int32)
IMAGES = np.zeros((10, 8, 8), np.float32)


def matched(task: Task, folder: Path, *inputs: Signature, **arrays: np.ndarray) -> Match:
    spec = Spec(recipe=(Quantize(),), data=DataSpec(task=task))
    return match_arrays(inputs, read_headers(npz(folder / "a.npz", **arrays)), spec, "data")


def test_token_ids_are_their_own_targets(tmp_path: Path) -> None:
    match = matched(
        "language_modeling", tmp_path, IDS, MASK, input_ids=TOKENS, attention_mask=TOKENS
    )
    assert match.targets is None
    assert match.tokens is not None
    assert match.tokens.input == IDS
    assert match.mask is not None
    assert match.mask.input == MASK


def test_language_modeling_needs_token_ids(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="token ids"):
        matched("language_modeling", tmp_path, IMAGE, x=IMAGES)


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        ("classification", np.zeros((10, 3), int), "one class index"),
        ("classification", np.zeros(10), "class indices are integers"),
        ("regression", np.zeros(10, bool), "regression takes numbers"),
        ("regression", np.array(["a"] * 10), "regression takes numbers"),
        ("language_modeling", np.zeros((10, 5), int), "shape of the token ids"),
        ("language_modeling", np.zeros((10, 6)), "takes integers"),
        ("embedding", np.zeros((10, 2), int), "takes floats"),
        ("embedding", np.zeros((10, 2, 2)), "scores"),
    ],
)
def test_targets_of_another_kind_are_refused_with_what_would_do(
    task: Task, targets: np.ndarray, words: str, tmp_path: Path
) -> None:
    inputs, name = ((IDS,), "input_ids") if task == "language_modeling" else ((IMAGE,), "x")
    values = TOKENS if name == "input_ids" else IMAGES
    with pytest.raises(InvalidData, match=words):
        matched(task, tmp_path, *inputs, **{name: values, "targets": targets})


def test_scores_of_pairs_need_an_even_number_of_samples(tmp_path: Path) -> None:
    assert matched("embedding", tmp_path, IMAGE, x=IMAGES, targets=np.zeros(10)).paired
    with pytest.raises(InvalidData, match="odd number"):
        matched("embedding", tmp_path, IMAGE, x=IMAGES[:9], targets=np.zeros(9))


@pytest.mark.parametrize(
    ("task", "targets", "teaches"),
    [
        ("classification", np.zeros(10, int), True),
        ("classification", None, False),
        ("regression", np.zeros((10, 2)), True),
        ("embedding", np.zeros((10, 4)), True),
        ("embedding", np.zeros(10), False),
        ("embedding", None, False),
        ("none", np.zeros(10, int), False),
    ],
)
def test_retrain_is_refused_where_the_task_has_nothing_to_train_on(
    task: Task, targets: np.ndarray | None, teaches: bool, pt2: Path, tmp_path: Path
) -> None:
    arrays = {"x": IMAGES} | ({} if targets is None else {"targets": targets})
    data = npz(tmp_path / "a.npz", **arrays)
    spec = Spec(recipe=(Retrain(),), data=DataSpec(task=task))
    if teaches:
        assert check_upload(spec, {"model": pt2, "data": data}).has_targets
        return
    with pytest.raises(PlanishError, match="needs labels"):
        check_upload(spec, {"model": pt2, "data": data})
