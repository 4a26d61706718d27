"""Weights in integers: the same function in torch, in the `.pt2` and in the `.onnx` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from planish.contract.spec import ModelSpec
from tests.engine.answers import answers
from tests.engine.passes.models import canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.load import load_model
from worker.engine.measure.size import count_parameters
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, quantize
from worker.engine.quantize.grid import fit_grid, round_to_nearest
from worker.engine.quantize.packed import PackedLinear, pack
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2

INT8 = Quantize(mode="weight_only")
INT4 = Quantize(mode="weight_only", dtype="int4", group_size=16)


def run(model: Model, params: Quantize, *, data: bool = False) -> Outcome:
    splits = noise_splits(model, labels=False) if data else None
    return quantize.run(model, params, context(model, params, splits=splits))


def answer(model: Model, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return first_output(model.module(*inputs))


@pytest.mark.parametrize(
    ("bits", "group", "whole"),
    [(8, None, False), (8, None, True), (8, 32, False), (4, 16, False), (4, None, False)],
)
def test_integers_are_the_rounded_weights_and_come_back_from_their_bytes(
    bits: int, group: int | None, whole: bool
) -> None:
    for columns in (16, 40, 172):
        weight = torch.randn(9, columns, generator=torch.Generator().manual_seed(columns))
        grid = fit_grid(weight, bits, group, whole=whole)
        steps = round_to_nearest(weight, grid)
        size = group or columns
        for row, column in ((0, 0), (8, columns - 1), (4, columns // 2)):
            scale = grid.scale[row, column // size]
            zero = grid.zero_point[row, column // size]
            want = torch.round(weight[row, column] / scale) + zero
            assert steps[row, column] == want.clamp(grid.low, grid.high)
        values = grid.values(steps, torch.arange(columns))
        spread = grid.scale.repeat_interleave(size, 1)[:, :columns]
        assert ((values - weight).abs() <= spread * (0.5 if bits == 8 else 1.0) + 1e-6).all()
        for product in (True, bits == 4):
            packed = pack(steps, grid, product=product)
            assert torch.equal(PackedLinear(packed).dequantized(), values)
            assert packed.weight.numel() <= 1.2 * weight.numel() * bits / 8 + 16 * 9


class Widths(nn.Module):
    """Linear layers of widths that fill blocks and that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 172), nn.Linear(172, 70), nn.Linear(70, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


@pytest.mark.parametrize(
    "params",
    [
        INT8,
        Quantize(mode="weight_only", granularity="tensor"),
        Quantize(mode="weight_only", granularity="group", group_size=64),
        INT4,
        Quantize(mode="weight_only", dtype="int4", granularity="channel"),
    ],
    ids=["int8", "int8 tensor", "int8 group", "int4", "int4 channel"],
)
def test_the_runtime_computes_what_the_torch_graph_does(params: Quantize, tmp_path: Path) -> None:
    model = canonical(*seeded(Widths, (2, 16)))
    outcome = run(model.clone(), params)
    save_onnx(outcome.model, tmp_path / "m.onnx")
    inputs = model.example(5)
    got = answers(tmp_path / "m.onnx", inputs)[0]
    want = answer(outcome.model, inputs).numpy()
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()
    graph = onnx.load(tmp_path / "m.onnx").graph
    products = {node.name: node for node in graph.node if node.op_type == "MatMulNBits"}
    assert products.keys() == {"a", "b", "c"}
    float_answer = answer(model, inputs)
    limit = 0.02 if params.dtype == "int8" else 0.2
    assert np.linalg.norm(want - float_answer.numpy()) < limit * float(float_answer.norm())
    assert count_parameters(outcome.model).total == count_parameters(model).total


def test_our_reader_reads_the_integers_as_plain_arithmetic(tmp_path: Path) -> None:
    outcome = run(zoo_model("mlp"), INT4)
    save_pt2(outcome.model, tmp_path / "m.pt2")
    read = load_model(tmp_path / "m.pt2", ModelSpec())
    inputs = outcome.model.example(3)
    assert torch.equal(answer(read, inputs), answer(outcome.model, inputs))
    stored = {t.dtype for t in read.module.state_dict().values()}
    assert torch.uint8 in stored


@pytest.mark.parametrize("params", [INT8, INT4], ids=["int8", "int4"])
def test_a_table_and_the_output_layer_tied_to_it_share_their_bytes(
    params: Quantize, tmp_path: Path
) -> None:
    model = zoo_model("tied")
    outcome = run(model.clone(), params, data=True)
    embed, head = (outcome.model.module.get_submodule(n) for n in ("embed", "head"))
    assert embed.weight is head.weight
    assert [(layer.name, layer.dtype) for layer in outcome.model.quantization.layers] == [
        ("embed", "int8"),
        ("mix", params.dtype),
        ("head", "int8"),
    ]
    save_onnx(outcome.model, tmp_path / "m.onnx")
    constants = onnx.load(tmp_path / "m.onnx").graph.initializer
    tables = [c for c in constants if c.data_type == onnx.TensorProto.UINT8 and c.dims[0] == 20]
    assert len(tables) == 1
    inputs = model.example(3)
    got = answers(tmp_path / "m.onnx", inputs)[0]
    assert np.abs(got - answer(outcome.model, inputs).numpy()).max() < 1e-4


def test_convolutions_are_stored_in_int8_and_said_to_be_no_faster(tmp_path: Path) -> None:
    model = zoo_model("depthwise")
    outcome = run(model.clone(), INT8)
    assert "not faster" in outcome.facts["convolutions"]
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    inputs = model.example(3)
    got = answers(tmp_path / "int8.onnx", inputs)[0]
    want = answer(outcome.model, inputs).numpy()
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()
    stored = onnx.load(tmp_path / "int8.onnx").graph.initializer
    weights = [c for c in stored if len(c.dims) == 4]
    assert weights
    assert all(c.data_type == onnx.TensorProto.INT8 for c in weights)


def test_auto_learns_from_data_at_four_bits_alone() -> None:
    with_data = run(zoo_model("mlp"), INT4, data=True).facts
    assert with_data["algorithm"] == "gptq"
    assert with_data["gptq_to_rtn_output_error"] < 1
    without = run(zoo_model("mlp"), INT4).facts
    assert without["algorithm"] == "rtn"
    assert "needs data" in without["note"]
    assert run(zoo_model("mlp"), INT8, data=True).facts["algorithm"] == "rtn"


def test_layers_named_in_keep_float_stay_and_so_does_what_shares_their_weight() -> None:
    params = INT8.model_copy(update={"keep_float": ("head",)})
    outcome = run(zoo_model("tied"), params)
    assert [layer.name for layer in outcome.layers] == ["mix"]
    assert {layer.name for layer in outcome.skipped} == {"embed", "head"}
    everything = INT8.model_copy(update={"keep_float": ("*",)})
    with pytest.raises(NothingChanged, match="keep_float"):
        run(zoo_model("tied"), everything)


def test_the_plan_names_the_layers_that_the_run_changes() -> None:
    model = zoo_model("tiny_transformer")
    planned = quantize.plan(model, INT4, context(model, INT4))[1]
    done = run(model.clone(), INT4)
    assert [layer.name for layer in planned.layers] == [layer.name for layer in done.layers]
    kinds = {layer.name: layer.what.split()[-1] for layer in planned.layers}
    assert (kinds["embed"], kinds["head"]) == ("int8", "int4")
