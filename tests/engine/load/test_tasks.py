"""Targets of each task as training and the report get them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from planish.contract.errors import InvalidData, LabelOutOfRange, NonFiniteData
from planish.contract.recipe import Simplify
from planish.contract.spec import DataSpec, Spec, Task
from tests.engine.passes.models import canonical, zoo_model
from tests.gate.files import npz
from tests.zoo import seeded
from worker.engine.load.data import Splits, load_splits
from worker.engine.load.dataset import IGNORED
from worker.engine.model import Model

IDS = np.random.default_rng(0).integers(0, 20, (30, 7))
ROWS = np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32)


class Masked(torch.nn.Module):
    """Token ids and a mask in, logits over a vocabulary of 20 out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.head = torch.nn.Linear(8, 20)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(input_ids) * attention_mask.unsqueeze(-1))


def read(task: Task, model: Model, folder: Path, **arrays: np.ndarray) -> Splits:
    spec = Spec(recipe=(Simplify(),), data=DataSpec(task=task))
    splits = load_splits(spec, model, npz(folder / "a.npz", **arrays), None)
    assert splits is not None
    return splits


def test_token_ids_are_the_targets_of_language_modeling(tmp_path: Path) -> None:
    splits = read("language_modeling", zoo_model("tied"), tmp_path, ids=IDS)
    (ids,), targets = splits.train.prepare(np.arange(4))
    assert targets.dtype == torch.int64
    assert torch.equal(ids, targets)


def test_padding_is_no_target(tmp_path: Path) -> None:
    module, _ = seeded(Masked)
    model = canonical(module, (torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7)))
    mask = np.ones((30, 7), np.float32)
    mask[:, 5:] = 0
    splits = read("language_modeling", model, tmp_path, input_ids=IDS, attention_mask=mask)
    (ids, _), targets = splits.train.prepare(np.arange(3))
    assert torch.equal(ids[:, :5], targets[:, :5])
    assert (targets[:, 5:] == IGNORED).all()


def test_tokens_outside_the_vocabulary_are_named_with_their_place(tmp_path: Path) -> None:
    targets = IDS.copy()
    targets[2, 3] = IGNORED
    read("language_modeling", zoo_model("tied"), tmp_path, ids=IDS, targets=targets)
    targets[4, 1] = 20
    with pytest.raises(LabelOutOfRange, match=r"20 at \[4, 1\].* 0 to 19"):
        read("language_modeling", zoo_model("tied"), tmp_path, ids=IDS, targets=targets)


def test_regression_targets_are_floats_in_the_shape_of_the_output(tmp_path: Path) -> None:
    wanted = np.arange(300).reshape(30, 10)
    splits = read("regression", zoo_model("mlp"), tmp_path, input=ROWS, targets=wanted)
    _, targets = splits.train.prepare(np.arange(2))
    assert targets.dtype == torch.float32
    assert targets.numpy().tolist() == wanted[splits.train.rows[:2]].tolist()
    with pytest.raises(InvalidData, match="for regression this model answers"):
        read("regression", zoo_model("mlp"), tmp_path, input=ROWS, targets=np.zeros((30, 3)))
    with pytest.raises(NonFiniteData, match="'targets' holds nan"):
        read(
            "regression", zoo_model("mlp"), tmp_path, input=ROWS, targets=np.full((30, 10), np.nan)
        )


def test_pairs_stay_together_in_every_part_and_never_train(tmp_path: Path) -> None:
    scores = np.repeat(np.arange(15.0), 2)
    splits = read("embedding", zoo_model("mlp"), tmp_path, input=ROWS, targets=scores)
    rows = []
    for part in (splits.train, splits.validation, splits.sealed):
        assert part is not None
        assert part.targets is None
        assert (part.rows[::2] + 1 == part.rows[1::2]).all()
        assert (part.rows[::2] % 2 == 0).all()
        assert part.scores.tolist() == scores[part.rows].tolist()
        rows += part.rows.tolist()
    assert sorted(rows) == list(range(30))
    scores[7] = 9.0
    with pytest.raises(InvalidData, match=r"targets\[6\] is 3 and targets\[7\] is 9"):
        read("embedding", zoo_model("mlp"), tmp_path, input=ROWS, targets=scores)


def test_reference_embeddings_are_floats_of_the_outputs_width(tmp_path: Path) -> None:
    references = np.random.default_rng(2).normal(size=(30, 10))
    splits = read("embedding", zoo_model("mlp"), tmp_path, input=ROWS, targets=references)
    assert splits.train.targets.dtype == np.float32
    assert splits.train.scores is None
    assert read("embedding", zoo_model("mlp"), tmp_path, input=ROWS).train.targets is None


@pytest.mark.parametrize("task", ["classification", "language_modeling", "embedding"])
def test_a_task_that_means_nothing_for_the_outputs_is_refused(task: Task, tmp_path: Path) -> None:
    name = "mlp" if task == "language_modeling" else "tied"
    arrays = {"input": ROWS} if name == "mlp" else {"ids": IDS}
    with pytest.raises(InvalidData, match="needs outputs of shape"):
        read(task, zoo_model(name), tmp_path, **arrays)
