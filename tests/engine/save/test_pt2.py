"""The pt2 file: it opens anywhere, at any batch, and tells nothing about its maker."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from planish.contract.spec import ModelSpec
from tests.engine.passes.models import NETS, zoo_model
from worker.engine.load import load_model
from worker.engine.save.pt2 import save_pt2


@pytest.mark.parametrize("name", NETS)
def test_a_saved_model_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    model = zoo_model(name)
    save_pt2(model, tmp_path / "model.pt2")
    again = load_model(tmp_path / "model.pt2", ModelSpec())
    assert again.inputs == model.inputs
    example = model.example(3)
    with torch.no_grad():
        want, got = tree_leaves(model.module(*example)), tree_leaves(again.module(*example))
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_torch_opens_it_at_another_batch(tmp_path: Path) -> None:
    model = zoo_model("small_residual_cnn")
    save_pt2(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    for batch in (1, 7):
        assert program.module()(*model.example(batch)).shape == (batch, 10)


def test_no_paths_class_names_or_example_values_are_in_it(tmp_path: Path) -> None:
    save_pt2(zoo_model("small_residual_cnn"), tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        for member in archive.infolist():
            raw = archive.read(member)
            if member.filename.endswith(".json"):
                assert not any(w in raw for w in (b".py", b'stack_trace"', b"zoo", b"/home"))
            if "sample_inputs" in member.filename:
                assert raw == b""
