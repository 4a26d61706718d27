"""x_q = clamp(round(x / scale) + zero_point), read back from the file, layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from planish.contract.recipe import Quantize
from tests.engine.passes.models import context, noise_splits, zoo_model
from tests.engine.quantize.conftest import Trained, folded
from worker.engine.model import Model
from worker.engine.passes import quantize
from worker.engine.save.onnx import save_onnx

RANGES = {"int8": (-127, 127), "uint8": (0, 255)}


def stored_weights(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return integers, scale and zero point of each weight by layer, as the file's nodes say."""
    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        name = node.input[0] if node.op_type == "DequantizeLinear" else ""
        if name.endswith(".weight") and name in constants:
            scale = constants[node.input[1]]
            zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale, int)
            found[name.removesuffix(".weight")] = (constants[name], scale, zero)
    return found


def recomputed(weight: np.ndarray, scale: np.ndarray, zero: np.ndarray, dtype: str) -> np.ndarray:
    shape = (-1, *[1] * (weight.ndim - 1)) if scale.size > 1 else ()
    steps = np.round(weight.astype(np.float64) / scale.reshape(shape)) + zero.reshape(shape)
    return np.clip(steps, *RANGES[dtype]).astype(int)


def check(before: Model, path: Path, params: Quantize, layers: int) -> None:
    stored = stored_weights(path)
    assert len(stored) == layers
    for name, (integers, scale, zero) in stored.items():
        weight = before.module.get_submodule(name).weight.detach().numpy()
        assert str(integers.dtype) == params.dtype
        assert scale.size == (len(weight) if params.granularity == "channel" else 1)
        want = recomputed(weight, scale, zero, params.dtype)
        ties = np.abs(np.abs(weight / scale.reshape((-1, *[1] * (weight.ndim - 1)))) % 1 - 0.5)
        assert np.array_equal(np.where(ties < 1e-4, integers, want), integers), name


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", ["small_residual_cnn", "mlp"])
def test_the_file_holds_what_the_formula_says(
    name: str, dtype: str, granularity: str, tmp_path: Path
) -> None:
    before = folded(zoo_model(name))
    params = Quantize(dtype=dtype, granularity=granularity, algorithm="rtn")
    splits = noise_splits(before, labels=False)
    outcome = quantize.run(before.clone(), params, context(before, params, splits=splits))
    save_onnx(outcome.model, tmp_path / "model.onnx")
    check(before, tmp_path / "model.onnx", params, len(outcome.layers))
    facts = outcome.facts["integers"]
    assert (facts["different"], facts["largest_difference"]) == (0, 0)
    weights = [before.module.get_submodule(layer.name).weight for layer in outcome.layers]
    assert facts["weights_checked"] == sum(weight.numel() for weight in weights)


def test_scales_in_the_facts_are_those_of_the_file(digits_net: Trained, tmp_path: Path) -> None:
    before, params = digits_net.plain, Quantize()
    outcome = quantize.run(
        before.clone(), params, context(before, params, splits=digits_net.splits)
    )
    save_onnx(outcome.model, tmp_path / "model.onnx")
    check(before, tmp_path / "model.onnx", params, len(outcome.layers))
    for name, (_, scale, zero) in stored_weights(tmp_path / "model.onnx").items():
        told = outcome.facts["weight_scales"][name]
        assert told["scale_max"] == pytest.approx(float(scale.max()))
        assert told["channels"] == scale.size
        assert told["zero_point"] == int(zero.flat[0])
