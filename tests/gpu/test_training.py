"""Training on a CUDA device; run by `make gpu`."""

from __future__ import annotations

import pytest
import torch

from planish.contract.recipe import Train
from tests.engine.passes.models import digit_splits, zoo_model
from worker.engine.progress import Silent
from worker.engine.train.loop import Run, fit
from worker.engine.train.losses import cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_network_learns_on_the_gpu_and_comes_back_to_the_cpu() -> None:
    splits = digit_splits()
    model = zoo_model("small_residual_cnn")
    epochs = fit(
        model,
        cross_entropy,
        Run(
            op="retrain",
            step=1,
            train=Train(epochs=3, batch_size=16, lr=0.05),
            data=splits.train.head(600),
            validation=splits.validation,
            seed=0,
            device=torch.device("cuda"),
            progress=Silent(),
        ),
    )
    assert epochs[-1].loss < epochs[0].loss
    assert {p.device.type for p in model.module.parameters()} == {"cpu"}
    assert not model.module.training
