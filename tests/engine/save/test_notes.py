"""The upload's licence and notes are in every file that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from planish.contract.spec import ModelSpec, Output
from planish.gate.notes import MAX_KEY, MAX_NOTES, MAX_TEXT, notes_of
from tests.engine.passes.models import zoo_model
from tests.exports import export_pt2
from tests.zoo import mlp
from worker.engine.load.canonical import write_model
from worker.engine.publish import WRITERS
from worker.engine.report.result import MODEL_FILES
from worker.engine.save.notes import annotate
from worker.engine.save.standalone import load

NOTES = {"license": "Apache-2.0", "author": "Ωmega & <Sons>", "weird key/": "a\nb"}
FORMATS: tuple[Output, ...] = ("onnx", "openvino", "pt2", "safetensors")


@pytest.mark.parametrize("output", FORMATS)
def test_notes_are_written_and_the_file_still_opens(output: Output, tmp_path: Path) -> None:
    if output == "openvino":
        pytest.importorskip("openvino")
    model = zoo_model("mlp")
    path = tmp_path / MODEL_FILES[output]
    WRITERS[output](model, path)
    inputs = [value.numpy() for value in model.example(3)]
    before = load(path).run(inputs)
    annotate(path, NOTES)
    np.testing.assert_array_equal(load(path).run(inputs)[0], before[0])
    if output == "openvino":
        assert "Apache-2.0" in path.read_text()
    else:
        assert notes_of(path) == NOTES


def test_extra_files_of_an_export_are_notes(tmp_path: Path) -> None:
    path = export_pt2(*mlp(), tmp_path / "a.pt2")
    program = torch.export.load(path)
    extra = {"license": "MIT", "picture": "\x00", "long": "x" * (MAX_TEXT + 1)}
    torch.export.save(program, path, extra_files=extra)
    assert notes_of(path) == {"license": "MIT"}


def test_notes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    notes = {f"key{index:03}": "text" for index in range(MAX_NOTES + 5)}
    notes |= {"a" * (MAX_KEY + 1): "text", "b": "x" * (MAX_TEXT + 1), "c": "", "format": "pt"}
    save_file({"w": np.zeros(1, np.float32)}, path, notes)
    assert set(notes_of(path)) == {f"key{index:03}" for index in range(MAX_NOTES)}


def test_what_is_no_list_of_texts_is_left_out(tmp_path: Path) -> None:
    path = export_pt2(*mlp(), tmp_path / "a.pt2")
    program = torch.export.load(path)
    texts = {"source_metadata.json": json.dumps({"a": "b", "c": 1, "d": None})}
    torch.export.save(program, path, extra_files=texts)
    assert notes_of(path) == {"a": "b"}


def test_notes_outlive_the_converter(tmp_path: Path) -> None:
    path = export_pt2(*mlp(), tmp_path / "a.pt2")
    torch.export.save(torch.export.load(path), path, extra_files={"license": "MIT"})
    (tmp_path / "out").mkdir()
    written, _ = write_model(path, ModelSpec(), "model", tmp_path / "out")
    assert written is not None
    assert notes_of(written) == {"license": "MIT"}
