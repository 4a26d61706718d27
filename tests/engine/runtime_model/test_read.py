"""An uploaded ONNX file becomes a graph that passes can work on, and is checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from planish.contract.errors import InvalidModel, OperatorNotAllowed
from planish.contract.spec import ModelSpec
from planish.gate.parts import Part, Parts, model_files
from tests.engine.runtime_model.conftest import Trained
from tests.engine.runtime_model.nets import Exported, load, torch_answers
from tests.onnx_exports import export_onnx
from tests.zoo import small_residual_cnn
from worker.engine.load.architectures.build import export_network
from worker.engine.load.remodularize import remodularize
from worker.engine.measure.macs import count_macs
from worker.engine.model import InputSpec, Model
from worker.engine.runtime_model.layers import layers_of
from worker.engine.runtime_model.read import load_onnx, write_canonical
from worker.engine.save.onnx import exporter_silenced


def graph(*nodes: onnx.NodeProto, weights: Mapping[str, np.ndarray] | None = None, **shape: object):
    """A graph over one input ``x`` (batch, 4)."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape.get("x", ["N", 4]))
    result = helper.make_tensor_value_info("y", shape.get("kind", TensorProto.FLOAT), None)
    tensors = [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()]
    made = helper.make_graph(list(nodes), "g", [given], [result], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("residual", "new"),
        ("residual", "legacy"),
        ("bert", "new"),
        ("bert", "legacy"),
        ("two", "legacy"),
        ("tied", "legacy"),
    ],
)
def test_graphs_of_both_exporters_answer_as_torch_does(
    name: str, exporter: str, nets: Mapping[str, Exported]
) -> None:
    module, _ = nets[name].net
    model = load(getattr(nets[name], exporter))
    np.testing.assert_allclose(
        model.outputs(model.example(3))[0], torch_answers(module, model), atol=1e-4
    )
    names = [node.name for node in model.proto.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_layers_have_the_names_of_the_module(nets: Mapping[str, Exported]) -> None:
    for path in (nets["residual"].new, nets["residual"].legacy):
        assert [layer.name for layer in layers_of(load(path).proto)][:3] == [
            "conv1",
            "layer1.conv1",
            "layer1.conv2",
        ]


def test_amount_is_that_of_the_torch_graph(nets: Mapping[str, Exported]) -> None:
    for name in ("residual", "bert"):
        module, _ = nets[name].net
        model = load(nets[name].legacy)
        network = Model(remodularize(export_network(module, model.inputs)), model.inputs)
        assert model.amount.macs == count_macs(network), name
    module, _ = nets["residual"].net
    found = load(nets["residual"].legacy).amount.parameters
    assert found.total == found.nonzero == sum(p.numel() for p in module.parameters())


def test_inputs_that_a_table_reads_are_known(nets: Mapping[str, Exported]) -> None:
    assert load(nets["bert"].legacy).tables() == {"input_ids": ("words", 40)}


def test_notes_of_nodes_go_and_those_of_the_model_stay(trained: Trained, tmp_path: Path) -> None:
    proto = onnx.load(trained.path)
    assert any(node.metadata_props for node in proto.graph.node)
    proto.metadata_props.add(key="licence", value="Apache-2.0")
    model = load(save(proto, tmp_path))
    assert [(n.key, n.value) for n in model.proto.metadata_props] == [("licence", "Apache-2.0")]
    assert not any(node.metadata_props for node in model.proto.graph.node)


def test_a_fixed_batch_is_kept_and_any_number_of_samples_answered(trained: Trained) -> None:
    model = load(trained.fixed)
    assert (model.batch, trained.model.batch) == (1, None)
    assert model.inputs == trained.model.inputs
    assert model.amount.macs == trained.model.amount.macs
    samples = trained.splits.calibration.head(5)
    np.testing.assert_allclose(
        model.answers(samples), trained.model.answers(samples), rtol=1e-3, atol=1e-3
    )


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A graph with its weights beside it."""
    folder = tmp_path_factory.mktemp("parted")
    module, example = small_residual_cnn()
    path = export_onnx(module.eval(), example, folder / "model.onnx", external=True)
    beside = Part("model.onnx.data", folder / "model.onnx.data")
    return Parts((Part("model.onnx", path), beside))


def test_weights_beside_the_graph_are_copied_in(parted: Parts) -> None:
    files = model_files(parted)
    assert (files.main.name, [part.name for part in files.beside]) == (
        "model.onnx",
        ["model.onnx.data"],
    )
    model = load_onnx(files.main, ModelSpec(), {"model.onnx.data": files.beside[0].path})
    module, _ = small_residual_cnn()
    answers = torch_answers(module.eval(), model)
    np.testing.assert_allclose(model.outputs(model.example(3))[0], answers, atol=1e-4)


def test_canonical_form_is_one_file_and_reads_as_the_same(parted: Parts, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    path = write_canonical(model_files(parted), ModelSpec(), first)
    assert load(path).inputs == (InputSpec("input", ("batch", 1, 8, 8), torch.float32),)
    twice = write_canonical(model_files(path), ModelSpec(), again)
    assert twice.read_bytes() == path.read_bytes()


def test_missing_and_idle_parts_are_named(parted: Parts, tmp_path: Path) -> None:
    path, beside = (part.path for part in parted.files)
    with pytest.raises(InvalidModel, match=r"weights in 'model\.onnx\.data'"):
        load_onnx(path, ModelSpec())
    (tmp_path / "short").write_bytes(b"x" * 100)
    with pytest.raises(InvalidModel, match="has 100 bytes"):
        load_onnx(path, ModelSpec(), {"model.onnx.data": tmp_path / "short"})
    parts = {"model.onnx.data": beside, "b.bin": tmp_path / "short"}
    with pytest.raises(InvalidModel, match=r"b\.bin came with the graph"):
        load_onnx(path, ModelSpec(), parts)


def test_sequence_outputs_and_integer_answers_are_refused(tmp_path: Path) -> None:
    classes = graph(helper.make_node("ArgMax", ["x"], ["y"], axis=1), kind=TensorProto.INT64)
    with pytest.raises(InvalidModel, match="logits first"):
        load(save(classes, tmp_path))
    split = graph(helper.make_node("SplitToSequence", ["x"], ["y"]))
    with pytest.raises(OperatorNotAllowed):
        load(save(split, tmp_path))


def test_graphs_that_do_not_run_are_refused_with_the_runtimes_reason(tmp_path: Path) -> None:
    weight = np.ones((3, 2), np.float32)
    wrong = graph(helper.make_node("MatMul", ["x", "w"], ["y"]), weights={"w": weight})
    with pytest.raises(InvalidModel, match="does not run in ONNX Runtime"):
        load(save(wrong, tmp_path))
    summed = graph(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0))
    with pytest.raises(InvalidModel, match="first dimension must be the batch"):
        load(save(summed, tmp_path))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weight = np.full((4, 2), np.nan, np.float32)
    wrong = graph(helper.make_node("MatMul", ["x", "w"], ["y"]), weights={"w": weight})
    with pytest.raises(InvalidModel, match="'w' holds NaN"):
        load(save(wrong, tmp_path))


def test_sizes_that_vary_are_tried(tmp_path: Path) -> None:
    """A fully convolutional network for images of any size, too deep for small ones."""
    layers = [nn.Conv2d(1 if i == 0 else 2, 2, 3, stride=2) for i in range(4)]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path = tmp_path / "a.onnx"
    size = torch.export.Dim("size", min=32)
    dims = {0: torch.export.Dim("batch"), 2: size, 3: size}
    with exporter_silenced():
        program = torch.onnx.export(
            module, (torch.zeros(2, 1, 64, 64),), dynamo=True, dynamic_shapes=(dims,), verbose=False
        )
    assert program is not None
    program.save(str(path))
    model = load(path)
    assert set(model.sizes.values()) == {32}
    assert model.amount.macs
