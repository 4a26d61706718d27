"""ONNX files by their bytes: what is taken, and what each refusal says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planish.contract.errors import InvalidModel, OperatorNotAllowed, UnsafeModel
from planish.gate.identify import identify_model
from planish.gate.onnx import check_external, onnx_inputs, read_onnx
from planish.gate.onnx.tensors import External


def small(**changes: object) -> onnx.ModelProto:
    """A Gemm and a Relu with a dynamic batch."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], name="dense"),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    options = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 10, **changes}
    return helper.make_model(graph, **options)


def save(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    path = folder / "a.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def test_a_model_is_known_by_its_content_and_says_what_it_takes(tmp_path: Path) -> None:
    path = save(tmp_path, small())
    header = read_onnx(path)
    assert identify_model(path) == "onnx"
    assert [str(item) for item in onnx_inputs(header)] == ["x (batch, 4) float32"]
    assert [str(item) for item in header.graph.outputs] == ["y (batch, 3) float32"]
    assert (header.opset, header.ir_version, header.graph.nodes) == (20, 10, 2)
    assert (header.graph.operators, header.graph.weight_bytes) == (("Gemm", "Relu"), 48)


def test_weights_in_another_part_are_named_and_must_be_there(tmp_path: Path) -> None:
    model = small()
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    onnx.save(model, tmp_path / "a.onnx")
    header = read_onnx(tmp_path / "a.onnx")
    assert header.parts == ("weights.bin",)
    assert header.external == (External("w", "weights.bin", 0, 48),)
    check_external(header, {"weights.bin": tmp_path / "weights.bin"})
    (tmp_path / "weights.bin").write_bytes(bytes(47))
    with pytest.raises(InvalidModel, match="has 47 bytes"):
        check_external(header, {"weights.bin": tmp_path / "weights.bin"})
    with pytest.raises(InvalidModel, match="send that file as another part"):
        check_external(header, {})


def test_a_fixed_batch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    model = small()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(InvalidModel, match="dynamic_axes"):
        onnx_inputs(read_onnx(save(tmp_path, model)))


def test_branches_see_the_names_around_them_and_nothing_else_does(tmp_path: Path) -> None:
    def branch(result: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Neg", ["h"], [result])], "b", [], [value])

    model = small()
    yes = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(yes)
    choice = helper.make_node(
        "If", ["yes"], ["z"], then_branch=branch("a"), else_branch=branch("b")
    )
    model.graph.node.append(choice)
    assert read_onnx(save(tmp_path, model)).graph.nodes == 5
    model.graph.node.append(helper.make_node("Neg", ["a"], ["q"]))
    with pytest.raises(InvalidModel, match="'a' is computed nowhere"):
        read_onnx(save(tmp_path, model))


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil"


def _loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def _function(model: onnx.ModelProto) -> None:
    model.functions.add().name = "f"


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _strings(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "h"


def _later(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 62


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = bytes(47)


def _two_places(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].float_data.append(1.0)


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 6


def _new(model: onnx.ModelProto) -> None:
    model.ir_version = 900


def _outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_custom, OperatorNotAllowed, "domain 'evil' at node 'dense'"),
        (_loop, OperatorNotAllowed, "calls Loop"),
        (_function, UnsafeModel, "functions inlined"),
        (_training, UnsafeModel, "training graph"),
        (_sparse, InvalidModel, "sparse"),
        (_strings, InvalidModel, "string_data"),
        (_twice, InvalidModel, "'h' is given twice"),
        (_later, InvalidModel, "'y' is computed nowhere before"),
        (_huge, InvalidModel, "no tensor has"),
        (_short, InvalidModel, "47 bytes; its shape needs 48"),
        (_two_places, InvalidModel, "both raw_data and float_data"),
        (_old, InvalidModel, "opset 6"),
        (_new, InvalidModel, "IR version 900"),
        (_outside, InvalidModel, "plain name of a part"),
    ],
)
def test_what_is_not_taken_is_refused_by_name(change, error, says: str, tmp_path: Path) -> None:
    model = small()
    change(model)
    with pytest.raises(error, match=says):
        read_onnx(save(tmp_path, model))


def test_overlapping_weights_in_another_part_are_refused(tmp_path: Path) -> None:
    model = small()
    for index, name in enumerate(("a", "b")):
        tensor = model.graph.initializer.add(name=name, data_type=1, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        tensor.external_data.add(key="offset", value=str(15 * index))
    with pytest.raises(InvalidModel, match="overlap in"):
        read_onnx(save(tmp_path, model))


def test_a_field_that_comes_twice_is_refused_not_merged(tmp_path: Path) -> None:
    raw = small().SerializeToString()
    with pytest.raises(InvalidModel, match="graph stands twice"):
        read_onnx(save(tmp_path, raw + b"\x3a\x00"))
    with pytest.raises(InvalidModel, match="unknown number 99"):
        read_onnx(save(tmp_path, raw + b"\x98\x06\x00"))


def test_a_model_cut_anywhere_is_refused(tmp_path: Path) -> None:
    raw = small().SerializeToString()
    for size in range(1, len(raw)):
        with pytest.raises(InvalidModel):
            read_onnx(save(tmp_path, raw[:size]))
