"""Distillation on a CUDA device; run by `make gpu`."""

from __future__ import annotations

import pytest
import torch

from planish.contract.recipe import Distill, Train
from tests import zoo
from tests.engine.passes.models import canonical, context, digit_splits, zoo_model
from worker.engine.passes import entry_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("method", ["kd", "dkd", "dist", "mse_logits", "hint"])
@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_a_student_learns_on_the_gpu_and_the_teacher_stays_on_the_cpu(
    method: str, amp: str
) -> None:
    train = Train.model_validate({"epochs": 3, "batch_size": 64, "lr": 0.02, "amp": amp})
    params = Distill.model_validate({"method": method, "train": train})
    student, teacher = canonical(*zoo.small_residual_cnn(width=8)), zoo_model("small_residual_cnn")
    cuda = torch.device("cuda")
    ctx = context(student, params, splits=digit_splits(), teacher=teacher, device=cuda)
    result = entry_for(params).run(student, params, ctx)
    losses = [epoch.loss for epoch in result.training]
    assert losses[-1] < losses[0]
    for model in (result.model, teacher):
        assert {p.device.type for p in model.module.parameters()} == {"cpu"}
        assert not any(layer._forward_hooks for layer in model.module.modules())
