"""Counts and distances, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import NETS, canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.measure.fidelity import fidelity
from worker.engine.measure.macs import count_macs
from worker.engine.measure.memory import peak_memory_bytes
from worker.engine.measure.opened import Settings
from worker.engine.measure.outputs import dataset_outputs
from worker.engine.measure.size import count_parameters, file_bytes, weight_bytes
from worker.engine.model import first_output
from worker.engine.passes import quantize
from worker.engine.save.onnx import save_onnx


def test_macs_of_a_strided_grouped_convolution() -> None:
    build = lambda: nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2))  # noqa: E731
    model = canonical(*seeded(build, (2, 4, 10, 10)))
    assert count_macs(model) == 5 * 5 * 8 * (4 // 2) * 3 * 3


class Attention(nn.Module):
    """Attention over the input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_macs_of_attention_are_those_of_its_two_products() -> None:
    model = canonical(*seeded(Attention, (2, 2, 6, 8)))
    assert count_macs(model) == 2 * (2 * 6 * 6 * 8)


@pytest.mark.parametrize("name", NETS)
def test_int8_keeps_the_number_of_parameters(name: str) -> None:
    model = zoo_model(name)
    splits = noise_splits(model, labels=False)
    folded = quantize.plan(model, Quantize(), context(model, Quantize()))[0]
    after = quantize.run(model, Quantize(), context(model, Quantize(), splits=splits)).model
    assert count_parameters(after).total == count_parameters(folded).total
    assert weight_bytes(after) < weight_bytes(folded)


def test_zeros_are_counted_apart() -> None:
    model = zoo_model("mlp")
    before = count_parameters(model)
    with torch.no_grad():
        model.module.get_submodule("3").weight[:4] = 0
    after = count_parameters(model)
    assert after.total == before.total
    assert after.nonzero == before.nonzero - 4 * 32


def test_fidelity_of_outputs_worked_out_by_hand() -> None:
    original = np.array([[3.0, 4.0], [1.0, 0.0]])
    optimized = np.array([[3.0, 3.0], [1.0, 2.0]])
    found = fidelity(original, optimized)
    assert found.agreement == 0.0
    assert found.max_abs == 2.0
    assert found.sqnr_db == pytest.approx(10 * np.log10(26 / 5))
    assert found.cosine == pytest.approx(22 / np.sqrt(26 * 23))


def test_fidelity_of_equal_outputs_has_no_noise() -> None:
    same = np.array([[0.1, 0.7], [0.3, 0.2]])
    found = fidelity(same, same)
    assert (found.agreement, found.max_abs, found.sqnr_db) == (1.0, 0.0, None)
    assert found.cosine == pytest.approx(1.0)
    assert found.cosine <= 1.0


def test_outputs_of_a_dataset_come_in_its_order(tmp_path: Path) -> None:
    model = zoo_model("mlp")
    save_onnx(model, tmp_path / "model.onnx")
    data = noise_splits(model, samples=150).train
    got = dataset_outputs(tmp_path / "model.onnx", data, Settings(), batch=32)
    inputs, _ = data.prepare(np.arange(len(data)))
    want = first_output(model.module(*inputs)).detach().numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert file_bytes(tmp_path / "model.onnx") == (tmp_path / "model.onnx").stat().st_size


def test_peak_memory_never_falls() -> None:
    before = peak_memory_bytes()
    block = bytearray(64 << 20)
    after = peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert after >= before
    assert len(block) == 64 << 20
