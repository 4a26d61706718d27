"""Training with the rounding in the loop on a CUDA device; run by `make gpu`."""

from __future__ import annotations

import pytest
import torch

from planish.contract.recipe import Quantize, Train
from tests.engine.passes.models import context, digit_splits, zoo_model
from worker.engine.passes import quantize

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_integers_are_trained_on_the_gpu_and_come_back_to_the_cpu() -> None:
    model = zoo_model("small_residual_cnn")
    params = Quantize(mode="qat", train=Train(epochs=1, lr=0.0005, schedule="cosine"))
    ctx = context(model, params, splits=digit_splits(), device=torch.device("cuda"))
    outcome = quantize.run(model, params, ctx)
    tensors = outcome.model.module.state_dict().values()
    assert {value.device.type for value in tensors} == {"cpu"}
    assert outcome.facts["integers"]["different"] == 0
