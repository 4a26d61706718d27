"""Exported programs, read without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from planish.contract.errors import (
    InvalidModel,
    OperatorNotAllowed,
    PlanishError,
    UnsafeModel,
)
from planish.gate.document import Value
from planish.gate.pt2 import check_content, open_package, pt2_inputs
from planish.gate.signature import Signature
from planish.gate.symbols import read_size
from tests import zoo
from tests.exports import export_pt2
from tests.gate.files import change_json, rezip


def test_inputs_are_read_with_names_shapes_and_types(tmp_path: Path) -> None:
    module, example = zoo.two_inputs()
    path = export_pt2(module, example, tmp_path / "a.pt2")
    assert pt2_inputs(path) == (
        Signature("image", ("batch", 1, 6, 6), "float32"),
        Signature("facts", ("batch", 5), "float32"),
    )


def test_other_dynamic_dimensions_get_names_of_their_own(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def forward(self, x, y):
            return (x * 2).sum(1) + y.sum(1)

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    program = torch.export.export(
        Net(),
        (torch.zeros(2, 5), torch.zeros(2, 5)),
        dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
    )
    torch.export.save(program, tmp_path / "a.pt2")
    assert [item.shape for item in pt2_inputs(tmp_path / "a.pt2")] == [("batch", "dim_1")] * 2


def test_a_fixed_batch_is_refused_with_the_line_that_helps(tmp_path: Path) -> None:
    module, example = zoo.two_inputs()
    torch.export.save(torch.export.export(module, example), tmp_path / "a.pt2")
    with pytest.raises(InvalidModel, match="fixed batch of 2") as refused:
        pt2_inputs(tmp_path / "a.pt2")
    assert (
        "torch.export.export(model, (image, facts,), dynamic_shapes=({0: batch}, {0: batch}))"
        in refused.value.detail
    )


@pytest.mark.parametrize("major", [7, 9, "8", None])
def test_another_schema_is_refused(pt2: Path, tmp_path: Path, major: object) -> None:
    def change(program):
        program["schema_version"]["major"] = major

    with pytest.raises(InvalidModel):
        pt2_inputs(change_json(pt2, tmp_path / "a.pt2", change))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("torch.ops.aten.from_file.default", "from_file"),
        ("torch.ops.my_ops.fast_conv.default", "extension"),
        ("torch.ops.higher_order.cond", "control flow"),
        ("os.system", "os.system"),
        ("torch.ops.aten.conv2d.default; import os", "aten.conv2d"),
    ],
)
def test_a_foreign_operator_is_refused_with_its_layer(
    pt2: Path, tmp_path: Path, target: str, says: str
) -> None:
    def change(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    package = open_package(change_json(pt2, tmp_path / "a.pt2", change))
    with pytest.raises(OperatorNotAllowed, match=says) as refused:
        check_content(package, package.program())
    assert "in layer 'conv1'" in refused.value.detail


def test_a_pickled_weight_is_refused(pt2: Path, tmp_path: Path) -> None:
    def change(config):
        config["config"]["conv1.weight"]["use_pickle"] = True

    name = "data/weights/model_weights_config.json"
    package = open_package(change_json(pt2, tmp_path / "a.pt2", change, name))
    with pytest.raises(UnsafeModel, match=r"conv1\.weight"):
        check_content(package, package.program())


@pytest.mark.parametrize(
    "member",
    ["data/aotinductor/model/a.so", "data/weights/custom_obj_0", "data/constants/opaque_obj_1"],
)
def test_native_code_and_objects_are_refused(pt2: Path, tmp_path: Path, member: str) -> None:
    path = rezip(pt2, tmp_path / "a.pt2", lambda members: {**members, member: b"\x7fELF"})
    with pytest.raises(UnsafeModel):
        open_package(path)


def _expression(text: str) -> Value:
    return Value({"as_expr": {"expr_str": text, "hint": None}}, "size")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Symbol('s77', positive=True, integer=True)", "s77"),
        ("Integer(3)", 3),
        ("Mul(Integer(2), Symbol('s1'))", "Mul(2, s1)"),
        ("Add(Symbol('s1'), Integer(-1))", "Add(s1, -1)"),
    ],
)
def test_size_expressions_are_parsed(text: str, size: object) -> None:
    assert read_size(_expression(text)) == size


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "Symbol('s1').__class__",
        "open('canary', 'w')",
        "[].append(1)",
        "Integer(__import__('os'))",
        "Mul(*[1])",
        "lambda: 1",
        "Symbol('a b')",
        "1" * 3000,
        "(" * 500,
        "\x00",
        "",
    ],
)
def test_an_expression_that_is_more_than_sizes_is_refused(text: str) -> None:
    with pytest.raises(PlanishError):
        read_size(_expression(text))
