"""The torch runtime on a CUDA device; run by `make gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.passes.models import zoo_model
from worker.engine.measure.latency import Contender, compare_latency
from worker.engine.measure.opened import Settings, open_model
from worker.engine.save.pt2 import save_pt2

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", ["small_residual_cnn", "tiny_transformer"])
def test_a_program_answers_and_is_timed_on_the_gpu_as_on_the_cpu(name: str, tmp_path: Path) -> None:
    model, path = zoo_model(name), tmp_path / "model.pt2"
    save_pt2(model, path)
    inputs = [value.numpy() for value in model.example(8)]
    sides = {device: Settings("torch", 1, device) for device in ("cpu", "cuda")}
    answers = [open_model(path, settings).run(inputs)[0] for settings in sides.values()]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-3, rtol=1e-3)
    call = dict(zip((spec.name for spec in model.inputs), inputs, strict=True))
    times = compare_latency(
        {name: Contender(path, settings) for name, settings in sides.items()}, call, rounds=5
    )
    assert all(side.latency.p50 > 0 for side in times.values())
