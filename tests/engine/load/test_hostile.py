"""Archives that attack the reader: each is refused or harmless, and nothing of them runs."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from planish.contract.errors import (
    InvalidModel,
    OperatorNotAllowed,
    PlanishError,
    UnsafeModel,
)
from planish.contract.spec import ModelSpec
from tests import zoo
from tests.exports import export_pt2
from tests.gate.files import change_json, rezip
from tests.gate.test_identify import Canary
from worker.engine.load import load_model

WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, example = zoo.small_residual_cnn()
    return export_pt2(module, example, tmp_path_factory.mktemp("pt2") / "digits.pt2")


def _python(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def test_a_pickle_in_place_of_the_sample_inputs_is_never_opened(pt2: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = {"data/sample_inputs/model.pt": pickle.dumps(Canary(canary))}
    path = rezip(pt2, tmp_path / "a.pt2", lambda members: {**members, **evil})
    load_model(path, ModelSpec())
    assert not canary.exists()


def test_a_pickled_weight_is_refused_unopened(pt2: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    torch.save(Canary(canary), buffer)
    evil = {"data/weights/weight_0": buffer.getvalue()}

    def change(config):
        config["config"]["conv1.weight"]["use_pickle"] = True

    path = rezip(pt2, tmp_path / "a.pt2", lambda members: {**members, **evil})
    path = change_json(path, tmp_path / "b.pt2", change, WEIGHTS)
    with pytest.raises(UnsafeModel):
        load_model(path, ModelSpec())
    assert not canary.exists()


def test_guard_code_is_never_run(pt2: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    def change(program):
        program["guards_code"] = [_python(canary)]

    model = load_model(change_json(pt2, tmp_path / "a.pt2", change), ModelSpec())
    model.module(*model.example())
    assert not canary.exists()


def test_code_in_a_size_expression_is_refused_unrun(pt2: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    def change(program):
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = _python(canary)

    with pytest.raises(UnsafeModel):
        load_model(change_json(pt2, tmp_path / "a.pt2", change), ModelSpec())
    assert not canary.exists()


@pytest.mark.parametrize(
    "target", ["os.system", "torch.ops.aten.from_file.default", "torch.ops.aten.__class__.mro"]
)
def test_foreign_functions_are_refused(pt2: Path, tmp_path: Path, target: str) -> None:
    def change(program):
        program["graph_module"]["graph"]["nodes"][3]["target"] = target

    with pytest.raises(OperatorNotAllowed):
        load_model(change_json(pt2, tmp_path / "a.pt2", change), ModelSpec())


@pytest.mark.parametrize(
    "name",
    [
        "conv1'); import os; os.system('touch canary'); ('",
        "../../conv1.weight",
        "conv1.__class__",
        "forward",
        "conv1.class.weight",
        "conv1..weight",
        "",
    ],
)
def test_parameter_names_that_are_code_or_paths_are_refused(
    pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def rename_weight(config):
        config["config"][name] = config["config"].pop("conv1.weight")

    def rename_input(program):
        program["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = name

    path = change_json(pt2, tmp_path / "a.pt2", rename_weight, WEIGHTS)
    with contextlib.suppress(InvalidModel):
        load_model(change_json(path, tmp_path / "b.pt2", rename_input), ModelSpec())
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["x=print('hi')", "lambda", "x y", "x, *y"])
def test_input_names_that_are_code_are_refused(pt2: Path, tmp_path: Path, name: str) -> None:
    def change(program):
        graph = program["graph_module"]["graph"]
        graph["tensor_values"][name] = graph["tensor_values"]["x"]
        spec = program["graph_module"]["signature"]["input_specs"][-1]
        spec["user_input"]["arg"]["as_tensor"]["name"] = name

    with pytest.raises(InvalidModel):
        load_model(change_json(pt2, tmp_path / "a.pt2", change), ModelSpec())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", [{"as_int": 1 << 39}, {"as_int": 1}, {"as_int": 3}, {"as_int": 3}]),
        ("sizes", [{"as_int": -1}, {"as_int": 1}, {"as_int": 3}, {"as_int": 3}]),
        ("strides", [{"as_int": 1 << 30}, {"as_int": 9}, {"as_int": 3}, {"as_int": 1}]),
        ("strides", [{"as_int": -9}, {"as_int": 9}, {"as_int": 3}, {"as_int": 1}]),
        ("storage_offset", {"as_int": 1 << 20}),
        ("dtype", 8),
        ("dtype", 99),
        ("layout", 2),
    ],
)
def test_a_weight_that_reaches_beyond_its_bytes_is_refused(
    pt2: Path, tmp_path: Path, field: str, value: object
) -> None:
    def change(config):
        config["config"]["conv1.weight"]["tensor_meta"][field] = value

    with pytest.raises(InvalidModel):
        load_model(change_json(pt2, tmp_path / "a.pt2", change, WEIGHTS), ModelSpec())


def test_a_weight_file_of_another_member_is_refused(pt2: Path, tmp_path: Path) -> None:
    def change(config):
        config["config"]["conv1.weight"]["path_name"] = "../../../etc/passwd"

    with pytest.raises(UnsafeModel):
        load_model(change_json(pt2, tmp_path / "a.pt2", change, WEIGHTS), ModelSpec())


def test_what_no_pass_can_handle_is_refused_with_advice(tmp_path: Path) -> None:
    class Cond(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x)

    path = export_pt2(Cond(), (torch.ones(2, 3),), tmp_path / "a.pt2")
    with pytest.raises(OperatorNotAllowed, match="control flow"):
        load_model(path, ModelSpec())
    path = export_pt2(Half().half(), (torch.ones(2, 3).half(),), tmp_path / "b.pt2")
    with pytest.raises(InvalidModel, match="float32"):
        load_model(path, ModelSpec())
    broken = Half()
    nn.init.constant_(broken.linear.bias, torch.nan)
    path = export_pt2(broken, (torch.ones(2, 3),), tmp_path / "c.pt2")
    with pytest.raises(InvalidModel, match=r"linear\.bias"):
        load_model(path, ModelSpec())


def test_mutated_programs_are_refused_or_load(pt2: Path, tmp_path: Path) -> None:
    """Random changes of the JSON: an error of the contract or a model, never anything else."""
    pick = random.Random(0)
    values = (None, -1, 0, 1 << 70, "x", "conv2d", [], {}, {"as_int": 3}, True, 0.5, "Infinity")

    def change(node: object) -> None:
        for _ in range(40):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                return
            key = pick.choice(list(keys))
            if not isinstance(node[key], dict | list) or pick.random() < 0.15:
                if pick.random() < 0.3 and isinstance(node, dict):
                    del node[key]
                else:
                    node[key] = pick.choice(values)
                return
            node = node[key]

    names = ("", WEIGHTS)
    for _ in range(150):
        path = change_json(pt2, tmp_path / "a.pt2", change, pick.choice(names))
        with contextlib.suppress(PlanishError):
            load_model(path, ModelSpec())


def test_a_file_cut_or_changed_anywhere_is_refused_or_loads(pt2: Path, tmp_path: Path) -> None:
    raw, pick = pt2.read_bytes(), random.Random(0)
    for share in range(25):
        (tmp_path / "a.pt2").write_bytes(raw[: len(raw) * share // 25])
        with pytest.raises(PlanishError):
            load_model(tmp_path / "a.pt2", ModelSpec())
    for _ in range(60):
        changed = bytearray(raw)
        changed[pick.randrange(len(changed))] ^= 1 << pick.randrange(8)
        (tmp_path / "a.pt2").write_bytes(changed)
        with contextlib.suppress(PlanishError):
            load_model(tmp_path / "a.pt2", ModelSpec())
