"""What the front desk says to an uploaded ONNX graph before a job is accepted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import JsonValue

from planish.contract.errors import InputNotFound, InvalidModel, NotForOnnx, UnknownFormat
from planish.contract.validation import spec_from
from planish.gate.check import GateReport, check_upload
from planish.gate.parts import Part, Parts
from planish.gate.signature import Signature


def graph(batch: str | int = "N", external: str | None = None, quantized: bool = False) -> bytes:
    """``y = relu(x @ w)`` with x (batch, 4)."""
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    if external is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", "32")):
            weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    tensors = [weight]
    if quantized:
        tensors += [
            numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            numpy_helper.from_array(np.array(0, np.uint8), "z"),
        ]
        nodes[1] = helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"])
        nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        tensors,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def check(folder: Path, content: bytes, beside: dict[str, bytes] | None = None, **spec: JsonValue):
    path = folder / "uploaded"
    path.write_bytes(content)
    parts = [Part("net.onnx", path)]
    for name, more in (beside or {}).items():
        (folder / name).write_bytes(more)
        parts.append(Part(name, folder / name))
    source = Parts(tuple(parts)) if beside else path
    given = {"recipe": [{"op": "quantize"}], **spec}
    found: GateReport = check_upload(spec_from(given), {"model": source})
    return found


def test_a_graph_is_known_by_its_content_and_its_inputs_are_told(tmp_path: Path) -> None:
    found = check(tmp_path, graph(), model={"format": "onnx"})
    assert found.model_format == "onnx"
    assert found.inputs == (Signature("x", ("batch", 4), "float32"),)
    with pytest.raises(UnknownFormat, match="the content is onnx, not pt2"):
        check(tmp_path, graph(), model={"format": "pt2"})


def test_a_fixed_batch_is_taken_where_the_target_has_it(tmp_path: Path) -> None:
    found = check(tmp_path, graph(batch=3), target={"batch_size": 3})
    assert found.inputs == (Signature("x", ("batch", 4), "float32"),)
    with pytest.raises(NotForOnnx, match="batches of exactly 3"):
        check(tmp_path, graph(batch=3))


def test_recipes_that_need_torch_are_refused_at_submit(tmp_path: Path) -> None:
    with pytest.raises(NotForOnnx, match=r"distill needs .* torch\.export\.save") as caught:
        check(tmp_path, graph(), recipe=[{"op": "distill"}])
    assert caught.value.errors[0].pointer == "/recipe/0"
    with pytest.raises(NotForOnnx, match="quantized already"):
        check(tmp_path, graph(quantized=True))
    assert check(tmp_path, graph(quantized=True), recipe=[{"op": "simplify"}]).inputs


def test_an_architecture_makes_no_sense_beside_a_graph(tmp_path: Path) -> None:
    architecture: JsonValue = {"library": "planish", "name": "cifar_resnet"}
    with pytest.raises(InvalidModel, match=r"a \.onnx brings its own graph"):
        check(tmp_path, graph(), model={"architecture": architecture})


def test_weights_beside_the_graph_must_be_there_and_of_use(tmp_path: Path) -> None:
    weights = {"net.onnx.data": bytes(32)}
    assert check(tmp_path, graph(external="net.onnx.data"), weights).inputs
    with pytest.raises(InvalidModel, match="send that file as another part"):
        check(tmp_path, graph(external="net.onnx.data"))
    with pytest.raises(InvalidModel, match="has 31 bytes"):
        check(tmp_path, graph(external="net.onnx.data"), {"net.onnx.data": bytes(31)})
    with pytest.raises(InvalidModel, match=r"other\.bin came with the graph"):
        check(tmp_path, graph(external="net.onnx.data"), {**weights, "other.bin": bytes(9)})


def test_weights_that_begin_like_a_graph_are_not_taken_for_one(tmp_path: Path) -> None:
    content = graph(external="net.onnx.data")
    disguised = content[:16] + bytes(16)
    assert check(tmp_path, content, {"net.onnx.data": disguised}).inputs


def test_an_onnx_teacher_teaches_nobody(tmp_path: Path) -> None:
    paths = {part: tmp_path / part for part in ("model", "teacher")}
    for path in paths.values():
        path.write_bytes(graph())
    with pytest.raises(NotForOnnx, match="a teacher means nothing"):
        check_upload(spec_from({"recipe": [{"op": "quantize"}]}), paths)


def test_data_must_fit_the_graphs_inputs(tmp_path: Path) -> None:
    paths = {"model": tmp_path / "model", "data": tmp_path / "data"}
    paths["model"].write_bytes(graph())
    with paths["data"].open("wb") as file:
        np.savez(file, y=np.zeros((5, 4), np.float32), z=np.zeros(5))
    with pytest.raises(InputNotFound, match=r"x \(batch, 4\) float32"):
        check_upload(spec_from({"recipe": [{"op": "quantize"}]}), paths)
