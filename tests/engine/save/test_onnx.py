"""The ONNX file: names, dynamic batch, nothing in it but the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from planish.contract.recipe import Quantize
from tests.engine.answers import answers
from tests.engine.passes.models import NETS, canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.model import InputSpec, Model
from worker.engine.passes import quantize
from worker.engine.save.onnx import OPSET, save_onnx


def int8(model: Model) -> Model:
    splits = noise_splits(model, labels=False)
    return quantize.run(model, Quantize(), context(model, Quantize(), splits=splits)).model


@pytest.mark.parametrize("name", NETS)
def test_a_float_file_gives_the_models_outputs_at_any_batch(name: str, tmp_path: Path) -> None:
    model = zoo_model(name)
    save_onnx(model, tmp_path / "model.onnx")
    for batch in (1, 5):
        inputs = model.example(batch)
        with torch.no_grad():
            want = tree_leaves(model.module(*inputs))
        for value, got in zip(want, answers(tmp_path / "model.onnx", inputs), strict=True):
            np.testing.assert_allclose(got, value.numpy(), atol=1e-5, rtol=1e-4)


def test_inputs_outputs_and_the_batch_have_their_names(tmp_path: Path) -> None:
    model = zoo_model("two_inputs")
    save_onnx(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in graph.input] == ["image", "facts"]
    assert [value.name for value in graph.output] == ["output", "output_1"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_file_holds_no_traces_and_no_notes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for model in (zoo_model("small_residual_cnn"), int8(zoo_model("small_residual_cnn"))):
        save_onnx(model, path)
        raw, proto = path.read_bytes(), onnx.load(path)
        assert not any(word in raw for word in (b".py", b"/usr", b"/home", b"stack_trace", b"zoo"))
        assert str(Path.cwd()).encode() not in raw
        assert not proto.metadata_props
        assert not proto.graph.value_info
        assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
        assert proto.opset_import[0].version == OPSET
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_weighted_nodes_bear_their_layers_names(tmp_path: Path) -> None:
    model = zoo_model("tiny_transformer")
    save_onnx(model, tmp_path / "model.onnx")
    names = {node.name for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"block.q", "block.up", "head", "embed"} <= names


def test_writing_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_onnx(zoo_model("tiny_transformer"), tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = int8(zoo_model("mlp"))
    save_onnx(model, tmp_path / "a.onnx")
    save_onnx(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_two_dynamic_dimensions_keep_their_names(tmp_path: Path) -> None:
    model = canonical(*seeded(lambda: nn.Sequential(nn.Linear(4, 3)), (2, 5, 4)))
    name = model.module.graph.find_nodes(op="placeholder")[0].target
    model = Model(model.module, (InputSpec(str(name), ("batch", "length", 4), torch.float32),))
    save_onnx(model, tmp_path / "model.onnx")
    (output,) = onnx.load(tmp_path / "model.onnx").graph.output
    dims = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
    assert dims == ["batch", "length", 3]
    inputs = (torch.randn(3, 7, 4),)
    got = answers(tmp_path / "model.onnx", inputs)[0]
    np.testing.assert_allclose(got, model.module(*inputs).detach().numpy(), atol=1e-5)
