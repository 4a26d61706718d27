"""Each runtime pass on real graphs: what changes, what stays, and how near the outputs are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Cast, Quantize, Simplify, op_of
from tests.engine.runtime_model.nets import Exported, around, away, load
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.registry import REGISTRY

Params = Simplify | Quantize | Cast
CASES: Mapping[str, tuple[Params, float]] = {
    "simplify": (Simplify(), 1e-5),
    "static": (Quantize(samples=32), 0.12),
    "per_tensor": (Quantize(samples=32, dtype="uint8", granularity="tensor"), 0.15),
    "dynamic": (Quantize(mode="dynamic"), 0.03),
    "weights": (Quantize(mode="weight_only"), 0.02),
    "four_bits": (Quantize(mode="weight_only", dtype="int4", group_size=16), 0.25),
    "fp16": (Cast(samples=32), 2e-3),
    "bf16": (Cast(dtype="bf16"), 1e-2),
}


def run(model: RuntimeModel, params: Params) -> RuntimeOutcome:
    return REGISTRY[op_of(type(params))].run(model, params, around())


def size(model: RuntimeModel) -> int:
    return len(model.proto.SerializeToString())


@pytest.mark.parametrize("name", ["residual", "depthwise", "two", "bert"])
def test_every_pass_keeps_the_outputs_and_leaves_its_input_alone(
    name: str, nets: Mapping[str, Exported]
) -> None:
    model = load(nets[name].legacy)
    before = model.proto.SerializeToString(deterministic=True)
    for case, (params, most) in CASES.items():
        outcome = run(model, params)
        assert away(model, outcome.model) < most, (name, case)
        assert outcome.changed or not outcome.layers
        onnx.checker.check_model(outcome.model.proto)
    assert model.proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["two", "residual"])
def test_a_plan_names_the_layers_that_the_pass_then_changes(
    name: str, nets: Mapping[str, Exported]
) -> None:
    model = load(nets[name].legacy)
    for params, _ in CASES.values():
        entry = REGISTRY[op_of(type(params))]
        _, plan = entry.plan(model, params, around())
        done = run(model, params)
        assert [layer.name for layer in plan.layers] == [layer.name for layer in done.layers]
        assert plan.layers_skipped == done.skipped


def test_names_of_layers_stay_through_all_passes(nets: Mapping[str, Exported]) -> None:
    model = run(load(nets["residual"].legacy), Simplify()).model
    outcome = run(model, Quantize(samples=32))
    assert [layer.name for layer in outcome.layers][:2] == ["conv1", "layer1.conv1"]
    assert outcome.model.quantization is not None
    first = outcome.model.quantization.layers[0]
    assert (first.dtype, len(first.scale), set(first.zero_point)) == ("int8", 16, {0})


def test_keep_float_leaves_layers_by_pattern(nets: Mapping[str, Exported]) -> None:
    model = load(nets["residual"].legacy)
    for params in (
        Quantize(samples=32, keep_float=("layer2.*",)),
        Quantize(mode="weight_only", keep_float=("layer2.*",)),
        Cast(dtype="bf16", keep_float=("layer2.*",)),
    ):
        outcome = run(model, params)
        whys = {layer.name: layer.why for layer in outcome.skipped}
        assert whys["layer2.conv1"] == "named in keep_float"
        weights = {t.name: t.data_type for t in outcome.model.proto.graph.initializer}
        assert weights["layer2.conv1.weight"] == onnx.TensorProto.FLOAT
        assert not any(layer.name.startswith("layer2") for layer in outcome.layers)
    with pytest.raises(InvalidRecipe, match="no layer is called 'layer9'"):
        run(model, Quantize(keep_float=("layer9",)))


def test_dynamic_says_that_convolutions_are_for_static(nets: Mapping[str, Exported]) -> None:
    with pytest.raises(NothingChanged, match='set mode to "static"'):
        run(load(nets["concat"].legacy), Quantize(mode="dynamic"))


def test_dynamic_stores_tables_in_int8_and_counts_float_products(
    nets: Mapping[str, Exported],
) -> None:
    model = load(nets["bert"].legacy)
    outcome = run(model, Quantize(mode="dynamic"))
    assert outcome.facts["float_products"] == 6
    assert "words" in [layer.name for layer in outcome.layers]
    kinds = {node.op_type for node in outcome.model.proto.graph.node}
    assert {"MatMulInteger", "DynamicQuantizeLinear"} <= kinds
    assert size(outcome.model) < 0.6 * size(model)


def test_int4_is_smaller_than_int8_and_both_than_float(nets: Mapping[str, Exported]) -> None:
    model = load(nets["bert"].legacy)
    eight, four = (run(model, CASES[name][0]).model for name in ("weights", "four_bits"))
    assert size(four) < size(eight) < 0.5 * size(model)


def test_integers_of_weights_alone_are_those_of_the_stored_tensors(
    nets: Mapping[str, Exported],
) -> None:
    model = load(nets["residual"].legacy)
    outcome = run(model, Quantize(mode="weight_only"))
    folded = run(model, Simplify()).model.proto.graph
    weight = next(t for t in folded.initializer if t.name == "conv1.weight")
    stored = next(t for t in outcome.model.proto.graph.initializer if t.name == "conv1.weight_int8")
    assert outcome.model.quantization is not None
    scale = np.array(outcome.model.quantization.layers[0].scale)
    back = numpy_helper.to_array(stored) * scale[:, None, None, None]
    assert np.abs(back - numpy_helper.to_array(weight)).max() <= scale.max() / 2 * 1.001


def test_parameters_stay_as_many_and_rounding_makes_zeros(nets: Mapping[str, Exported]) -> None:
    model = run(load(nets["residual"].legacy), Simplify()).model
    for name in ("static", "weights", "four_bits", "dynamic"):
        amount = run(model, CASES[name][0]).model.amount
        assert amount.parameters.total == model.amount.parameters.total
        assert amount.parameters.nonzero < model.amount.parameters.nonzero
        assert amount.macs == model.amount.macs


def test_sixteen_bits_halve_the_weights(nets: Mapping[str, Exported]) -> None:
    model = load(nets["bert"].legacy)
    for dtype in ("fp16", "bf16"):
        before, after = run(model, Cast(dtype=dtype)).facts["weight_bytes"]
        assert after < 0.56 * before
    assert model.inputs == run(model, Cast()).model.inputs


def test_values_beyond_the_range_of_fp16_stay_float(nets: Mapping[str, Exported]) -> None:
    model = load(nets["residual"].legacy)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    weight = next(t for t in proto.graph.initializer if t.name == "layer1.conv1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e6, weight.name))
    loud = model.with_proto(proto)
    outcome = run(loud, Cast())
    whys = {layer.name: layer.why for layer in outcome.skipped}
    assert "leave fp16's range" in whys["layer1.conv1"]
    assert away(loud, outcome.model) < 2e-3


def test_quantized_graphs_can_still_be_simplified_and_cast(nets: Mapping[str, Exported]) -> None:
    quantized = run(load(nets["residual"].legacy), Quantize(samples=32, keep_float=("linear",)))
    path = nets["residual"].folder / "qdq.onnx"
    path.write_bytes(quantized.model.proto.SerializeToString())
    model = load(path)
    assert model.already_quantized
    assert away(model, run(model, Simplify()).model) < 1e-3
    for dtype in ("fp16", "bf16"):
        cast = run(model, Cast(dtype=dtype))
        assert [layer.name for layer in cast.layers] == ["linear"]
        assert away(model, cast.model) < 1e-2
